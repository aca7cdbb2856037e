"""Two ranks beside one with the double batch: the same weights, the same curve, and how fast."""
from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.td3 import PRESETS, TD3, Batch, ReplayBuffer, StepRecord
from av_td3_ros.td3.learner import LearnerSettings, lead
from av_td3_ros.td3.limiter import LimiterSettings
from av_td3_ros.td3.ranks import ALONE, Ranks, join
from av_td3_ros.td3.shards import check_alike, pack_steps, unpack_steps
from benchmarks import at_least_one, conclude
from benchmarks._training import demonstration

RANKS = 2
GOAL_SAME = 1e-6  # relative difference of a point of the curve, whose points are float32
GOAL_SHARDS = 0.25  # relative difference of the mean critic loss; the draws are others
GOAL_SPEED = 1.3  # times as fast as one rank with the double batch
WARM_UP = 10
SETTINGS, NETWORK = PRESETS['default']
FLOAT32 = dataclasses.replace(SETTINGS, precision='float32')
DOUBLE_SHARE = 4  # so much fewer updates in double precision, which is slow
STEPS_FILE = 'steps.safetensors'


class Part:
    """A rank's part of the batches that all draw alike from the same replay."""

    def __init__(self, replay: ReplayBuffer, ranks: Ranks, backwards: bool) -> None:
        self._replay, self._ranks, self._backwards = replay, ranks, backwards

    def sample(self, batch_size: int, gamma: float, n_step: int) -> Batch:
        """Return this rank's rows of a batch for all."""
        whole = self._replay.sample(self._ranks.count * batch_size, gamma, n_step)
        rows = torch.arange(len(whole.reward))
        rows = rows.flip(0) if self._backwards else rows
        return Batch(*(self._ranks.own(column[rows]) for column in whole))


def read_steps(folder: Path) -> list[StepRecord]:
    """Return the steps that were driven for this benchmark."""
    return [record for _, record in unpack_steps((folder / STEPS_FILE).read_bytes())]


def same_batches(folder: Path, updates: int, ranks: Ranks, precision: str,
                 backwards: bool = False) -> list[float]:
    """
    Return the critics' losses of a rank that learns its part of the same batches.

    Nothing is drawn for single rows, so that a batch's rows may come `backwards`: the same sums
    in another order.
    """
    torch.set_num_threads(1)
    replay = ReplayBuffer(100_000, NETWORK.frames, NETWORK.frame_size, NETWORK.state_size, 7)
    for record in read_steps(folder):
        replay.add(record)
    batch = RANKS * SETTINGS.batch_size // ranks.count
    settings = dataclasses.replace(SETTINGS, precision=precision, batch_size=batch,
                                   policy_noise=0.0, random_shift=0, vector_dropout=0.0)
    agent = TD3(settings, NETWORK, 3, ranks=ranks)
    part = Part(replay, ranks, backwards)
    curve = [agent.train(part)['critic_loss'] for _ in range(updates)]
    check_alike(ranks, agent)  # raises where the ranks' weights differ by a bit
    return curve


def own_shards(steps: list[StepRecord], updates: int, ranks: int, batch: int) -> dict[str, Any]:
    """Let a learner take the steps and learn; return a row of the table."""
    learner = lead(LearnerSettings(
        seed=3, ranks=ranks, td3=dataclasses.replace(FLOAT32, batch_size=batch),
        limiter=LimiterSettings(updates_per_transition=100.0, start_after=1)))
    try:
        for record in steps:
            learner.take(record)
        learner.begin_driving()
        losses, started = [], 0.0
        for number in range(WARM_UP + updates):
            if number == WARM_UP:
                started = time.perf_counter()
            assert learner.wait(0.0)
            metrics = learner.update()
            assert metrics is not None
            losses.append(metrics['critic_loss'])
        rate = updates / (time.perf_counter() - started)
        held = [len(learner.own), len(learner.replay) - len(learner.own)][:ranks]
    finally:
        learner.close()
    return {'ranks': ranks, 'batch of each': batch, 'transitions of each': held,
            'updates_per_second': round(rate, 2),
            'transitions_per_second': round(rate * ranks * batch),
            'critic_loss': float(np.mean(losses[-updates // 2:])),
            'curve': [round(float(np.mean(part)), 5)
                      for part in np.array_split(losses[WARM_UP:], 10)]}


def work(folder: Path, updates: int) -> int:
    """Be one of torchrun's processes: write the curves that this rank saw."""
    ranks = join()
    curves = {precision: same_batches(folder, count, ranks, precision)
              for precision, count in counts(updates).items()}
    (folder / f'{ranks.rank}.json').write_text(json.dumps(curves), encoding='utf-8')
    ranks.leave()
    return 0


def counts(updates: int) -> dict[str, int]:
    """Return how many updates are made in which precision."""
    return {'float64': max(1, updates // DOUBLE_SHARE), 'float32': updates}


def compare(folder: Path, updates: int) -> list[dict[str, Any]]:
    """Return rows: how far the curve of two ranks is from that of one with the double batch."""
    subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node',
         str(RANKS), '-m', 'benchmarks.ranks', '--updates', str(updates), '--worker', str(folder)],
        check=True)
    ranks = [json.loads((folder / f'{rank}.json').read_text()) for rank in range(RANKS)]
    if ranks[0] != ranks[1]:
        raise RuntimeError('the ranks saw different curves')
    rows = []
    for precision, count in counts(updates).items():
        alone = same_batches(folder, count, ALONE, precision)
        others = {f'{RANKS} ranks': ranks[0][precision], 'one rank, the rows backwards':
                  same_batches(folder, count, ALONE, precision, backwards=True)}
        for name, curve in others.items():
            apart = np.abs(np.divide(curve, alone) - 1.0)
            rows.append({'same batches': name, 'precision': precision, 'updates': count,
                         'largest_difference': float(f'{apart.max():.1e}'),
                         'of_the_first_20': float(f'{apart[:20].max():.1e}'),
                         'of_the_means': float(f'{abs(np.mean(curve) / np.mean(alone) - 1):.1e}'),
                         'curve': curve, 'curve_alone': alone})
    return rows


def claims_from(same: list[dict[str, Any]], table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is claimed of the curves and of the table."""
    exact = same[0]['largest_difference']
    _, double, both = table
    shards = abs(both['critic_loss'] / double['critic_loss'] - 1.0)
    faster = both['updates_per_second'] / double['updates_per_second']
    return [
        {'name': f'tensors that differ between {RANKS} ranks after {same[-1]["updates"]} updates',
         'value': 0, 'unit': '', 'goal': 0, 'holds': True},  # check_alike has raised otherwise
        {'name': 'loss curve of two ranks against one with the double batch, the same batches, '
                 'float64: largest relative difference', 'value': exact, 'unit': '',
         'goal': GOAL_SAME, 'holds': exact <= GOAL_SAME},
        {'name': 'mean critic loss of two ranks with a shard each against one with the double '
                 'batch: relative difference', 'value': round(shards, 3), 'unit': '',
         'goal': GOAL_SHARDS, 'holds': shards <= GOAL_SHARDS},
        {'name': 'updates of two ranks against one with the double batch', 'value':
         round(faster, 2), 'unit': 'times as many', 'goal': GOAL_SPEED,
         'holds': faster >= GOAL_SPEED}]


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=at_least_one, default=4000,
                        help='steps of driving to learn from '
                        '(default %(default)s)')
    parser.add_argument('--updates', type=at_least_one, default=300, help='updates of each row '
                        '(default %(default)s)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    parser.add_argument('--worker', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return work(options.worker, options.updates)
    steps = list(itertools.islice(demonstration(Drive(DriveSettings()), 0), options.steps))
    with tempfile.TemporaryDirectory(prefix='av_td3_ros-') as name:
        folder = Path(name)
        (folder / STEPS_FILE).write_bytes(pack_steps([('replay', one) for one in steps]))
        same = compare(folder, options.updates)
    size = SETTINGS.batch_size
    table = [own_shards(steps, options.updates, ranks, batch)
             for ranks, batch in ((1, size), (1, RANKS * size), (RANKS, size))]
    for row in (*same, *table):
        print('  '.join(f'{key} {value}' for key, value in row.items()
                        if not key.startswith('curve')))
    return conclude('ranks', claims_from(same, table), [*same, *table], options.json)


if __name__ == '__main__':
    sys.exit(main())
