"""The faults of weights that the benchmark injects by the hundred, here a few times."""
from __future__ import annotations

import pytest

from benchmarks._faults_weights import altered, driving, replayed, unsigned


def test_bad_weights_are_counted_and_the_actions_go_on(ros: None) -> None:
    with driving() as drive:
        for reason, prepare in (('unsigned', unsigned), ('altered', altered),
                                ('replayed', replayed)):
            outcome = drive.inject(reason, 3, prepare(drive))
            assert all(one['holds'] for one in outcome.claims), outcome


def test_good_weights_are_not_counted_as_refused(ros: None,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('benchmarks._faults_weights.STARTING', 30.0)
    monkeypatch.setattr('benchmarks._faults_weights.TOLD', 1.5)
    with driving() as drive:
        monkeypatch.setattr('benchmarks._faults_weights.STARTING', 4.0)
        outcome = drive.inject('unsigned', 2, lambda index: drive.weights(11 + index))
        assert not all(one['holds'] for one in outcome.claims)
