"""Recorder, learner and network with faults: the replay in the end is what was recorded."""
from __future__ import annotations

import pytest

from benchmarks._faults import Outcome
from benchmarks._faults_recording import network_cut, recorder_killed
from benchmarks._places import CannotError


def check(outcome: Outcome) -> None:
    """Fail with what was lost."""
    broken = [one for one in outcome.claims if not one['holds']]
    assert outcome.claims and not broken, f'{outcome.happened}; {outcome.lost}: {broken}'


@pytest.fixture(autouse=True)
def own_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('ROS_DOMAIN_ID', raising=False)


def test_a_recorder_that_is_killed_loses_nothing() -> None:
    check(recorder_killed(2))


def test_a_network_that_is_cut_loses_nothing() -> None:
    try:
        check(network_cut(1, 8.0))
    except CannotError as error:
        pytest.skip(f'no second host here: {error}')
