"""What one process of a torchrun does in test_td3_ranks: learn from its part of given batches."""
from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import torch
from test_td3_parity import SETTINGS, SMALL, RecordedBatches

from av_td3_ros.td3 import TD3, Batch, TD3Settings
from av_td3_ros.td3.ranks import ALONE, Ranks, join

UPDATES = 8
BATCH = 8
POISONED = 5
# Everything that draws at random, and everything that is not linear in the batch.
WHOLE = dataclasses.replace(
    SETTINGS, batch_size=BATCH, random_shift=2, vector_dropout=0.5, smoothness_penalty=0.1,
    actor_clip_norm=0.05, critic_clip_norm=1.0)
# For batches in which a row comes again and again nothing may be drawn for each.
DRAWLESS = dataclasses.replace(WHOLE, policy_noise=0.0, random_shift=0, vector_dropout=0.0)
FIRST, SECOND = list(range(BATCH)), list(range(BATCH, 2 * BATCH))
# Settings, the weights of the two ranks' batches, and the rows of one batch that is the same.
CASES: dict[str, tuple[TD3Settings, list[float], list[int]]] = {
    'float64': (WHOLE, [0.5, 0.5], FIRST + SECOND),
    'float32': (dataclasses.replace(WHOLE, precision='float32'), [0.5, 0.5], FIRST + SECOND),
    'shards of unequal size': (DRAWLESS, [0.25, 0.75], FIRST + 3 * SECOND),
    'an empty shard': (DRAWLESS, [1.0, 0.0], FIRST)}


class Rows:
    """Some rows of each of the recorded batches; one of a poisoned batch is not finite."""

    def __init__(self, rows: list[int], poisoned: bool = False) -> None:
        self.batches, self.rows, self.poisoned = RecordedBatches(SMALL), rows, poisoned

    def sample(self, batch_size: int, gamma: float, n_step: int) -> Batch:
        """Return the rows."""
        whole = self.batches.sample(2 * BATCH, gamma, n_step)
        chosen = Batch(*(column[self.rows] for column in whole))
        if self.poisoned and self.batches.drawn == POISONED:
            chosen.reward[0] = math.nan
        return chosen


def learn(settings: TD3Settings, rows: Rows, ranks: Ranks = ALONE, share: float | None = None
          ) -> dict[str, Any]:
    """Return the weights, the curves of all metrics and the counts after the updates."""
    agent = TD3(dataclasses.replace(settings, batch_size=len(rows.rows)), SMALL, 5, ranks=ranks)
    curves = [dict(agent.train(rows, share)) for _ in range(UPDATES)]
    weights = {f'{name}.{key}': tensor for name in
               ('actor', 'critic', 'actor_target', 'critic_target')
               for key, tensor in getattr(agent, name).state_dict().items()}
    return {'weights': weights, 'curves': curves, 'counts': (agent.updates, agent.skipped)}


def main() -> None:
    """Learn every case and write what came of it."""
    torch.set_num_threads(1)
    ranks = join('cpu', 60.0)
    own = (FIRST, SECOND)[ranks.rank]
    found = {case: learn(settings, Rows(own), ranks, shares[ranks.rank])
             for case, (settings, shares, _) in CASES.items()}
    found['not finite on one'] = learn(WHOLE, Rows(own, poisoned=ranks.rank == 1), ranks)
    torch.save(found, Path(sys.argv[1]) / f'{ranks.rank}.pt')
    ranks.leave()


if __name__ == '__main__':
    main()
