"""
Learn to drive from nothing, ours against Stable-Baselines3 and pure pursuit, on unseen roads.

Each job is one recipe, world and seed on one processor core, in one process with one thread. Its
clock counts processor time, so that other work on the machine slows nothing down; evaluations
stand outside of it, but the short one on the training roads that chooses the best policy is what
the second of two cores does meanwhile. What is finished is kept: a job that was stopped goes on
from its newest checkpoint (ours) or begins anew (Stable-Baselines3).
"""
from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from av_td3_ros.driving.command.pursuit import PursuitDriver, PursuitSettings
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.simulator.evaluation import StateDriver
from av_td3_ros.td3.exploration import ExplorationSettings
from av_td3_ros.td3.learner import LearnerSettings
from benchmarks import conclude
from benchmarks._jobs import Recipe, argument_parser, trained, write_tables
from benchmarks._learning_report import (
    BLINDFOLDED,
    PURSUIT_SPEEDS,
    claims_of,
    draw,
    markdown,
    table_of,
)
from benchmarks._training import Algorithm, Ours, checkpoint_of, stable_baselines3
from benchmarks.peer import BEST, START
from benchmarks.traffic import VEHICLES

WORLDS = ('clean', 'cluttered')


def ours(drive: DriveSettings, seed: int, folder: Path, hidden: float = 0.5) -> Algorithm:
    """Return the default recipe; the vector is hidden from the actor in a share of all steps."""
    base = LearnerSettings(seed=seed, run=str(folder), resume=checkpoint_of(folder))
    return Ours(drive, dataclasses.replace(base, td3=dataclasses.replace(
        base.td3, vector_dropout=hidden)), ExplorationSettings(vector_dropout=hidden))


def pursuit(worlds: Sequence[str], vehicles: int = 0, speed: float = 10.0) -> Recipe:
    """Return pure pursuit at a target speed in m/s, which learns nothing."""
    driver = StateDriver(lambda: PursuitDriver(PursuitSettings(target_speed=speed)))
    return Recipe(None, dict.fromkeys(worlds, (0,)), driver, vehicles=vehicles)


RECIPES = {
    'ours': Recipe(ours, {'clean': (1, 2, 3, 4, 5, 7, 10, 12, 14, 16, 18, 20),
                          'cluttered': (2, 5, 10, 15, 20)},
                   masked=(5,)),
    'camera': Recipe(functools.partial(ours, hidden=1.0),
                     {'clean': (2, 5, 10), 'cluttered': (5, 10, 15, 20)},
                     hides=BLINDFOLDED['camera']),
    'traffic': Recipe(ours, {'cluttered': (10, 15, 20)}, vehicles=VEHICLES, masked=(10,)),
    # As shipped, but for a replay that fits into memory and the paper's exploration noise.
    'sb3': Recipe(stable_baselines3({'noise': 0.1, 'buffer_size': 50_000}),
                  {'clean': (5, 10, 15, 20, 25, 30)}),
    'sb3_tuned': Recipe(stable_baselines3(START | BEST),
                        {'clean': (1, 2, 3, 4, 5, 7, 10, 15, 20, 25, 30)}),
    'pursuit': pursuit(WORLDS),
    **{f'pursuit_traffic_{speed}': pursuit(['cluttered'], VEHICLES, speed)
       for speed in PURSUIT_SPEEDS},
}


def main() -> int:
    """Do the jobs, two at a time; print the table and the claims."""
    parser = argument_parser(__doc__ or '', RECIPES)
    parser.add_argument('--worlds', nargs='+', choices=WORLDS, default=list(WORLDS))
    options = parser.parse_args()
    found = trained('learning', options, RECIPES, options.worlds)
    if found is None:
        return 0
    table, claims = table_of(found), claims_of(found)
    text = markdown(table, claims)
    print(text)
    if options.out is not None:
        write_tables(options.out / 'learning.md', {'rows': text})
        draw(found, options.out / 'learning.png')
    return conclude('learning', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
