"""Two processes that learn together learn as one does from both their batches."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks_worker
import torch
from ranks_worker import CASES, POISONED, UPDATES, Rows

torch.set_num_threads(1)

HERE = Path(__file__).parent
# Largest relative difference of a weight, and of a point of a curve.
TOLERANCES = {'float32': (2e-4, 2e-3)}
EXACT = 1e-9, 1e-9


@pytest.fixture(scope='module')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what two processes started by torchrun learned."""
    folder = tmp_path_factory.mktemp('ranks')
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         str(HERE / 'ranks_worker.py'), str(folder)],
        env={**os.environ, 'PYTHONPATH': str(HERE), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in range(2)]


@pytest.mark.parametrize('case', CASES)
def test_two_ranks_learn_as_one_with_both_batches(ranks: list[dict[str, Any]], case: str) -> None:
    settings, _, rows = CASES[case]
    one = ranks_worker.learn(settings, Rows(rows))
    two = ranks[0][case]
    assert two['counts'] == one['counts'] == (UPDATES, 0)
    of_weights, of_curves = TOLERANCES.get(case, EXACT)
    for name, weight in one['weights'].items():
        apart = (two['weights'][name] - weight).norm() / weight.norm()
        assert apart <= of_weights, (name, apart)
    for update, (there, here) in enumerate(zip(two['curves'], one['curves'], strict=True)):
        assert there.keys() == here.keys()
        for name, value in here.items():
            assert there[name] == pytest.approx(value, rel=max(of_curves, 1e-6), abs=1e-6), (
                update, name)


@pytest.mark.parametrize('case', [*CASES, 'not finite on one'])
def test_both_ranks_have_the_same_weights_to_the_last_bit(ranks: list[dict[str, Any]], case: str
                                                          ) -> None:
    first, second = (rank[case] for rank in ranks)
    assert first['curves'] == second['curves']
    for name, weight in first['weights'].items():
        assert torch.equal(weight, second['weights'][name]), name


def test_what_is_not_finite_on_one_rank_skips_the_update_on_both(ranks: list[dict[str, Any]]
                                                                 ) -> None:
    for rank in ranks:
        one = rank['not finite on one']
        assert one['counts'] == (UPDATES - 1, 1)
        assert all(torch.isfinite(weight).all() for weight in one['weights'].values())
    # A skipped update measures what the one before it did.
    curve = ranks[0]['not finite on one']['curves']
    assert curve[POISONED - 1] == curve[POISONED - 2]
