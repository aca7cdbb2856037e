"""
Learn to drive from nothing, ours against Stable-Baselines3 and pure pursuit, on unseen roads.

Each job is one recipe, world and seed on one processor core, in one process with one thread. Its
clock counts processor time, so that other work on the machine slows nothing down; evaluations
stand outside of it, but the short one on the training roads that chooses the best policy is what
the second of two cores does meanwhile. What is finished is kept: a job that was stopped goes on
from its newest checkpoint (ours) or begins anew (Stable-Baselines3).
"""
from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from av_td3_ros.driving.command.pursuit import PursuitDriver, PursuitSettings
from av_td3_ros.driving.perception.mask import VECTOR
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.simulator.evaluation import StateDriver
from av_td3_ros.td3.exploration import ExplorationSettings
from av_td3_ros.td3.learner import LearnerSettings
from benchmarks import conclude
from benchmarks._jobs import Job, Recipe, add_arguments, collect, run_jobs, work, write_tables
from benchmarks._learning_report import PURSUIT_SPEEDS, claims_of, draw, markdown, table_of
from benchmarks._training import Algorithm, Ours, checkpoint_of, stable_baselines3
from benchmarks.peer import BEST, START

VEHICLES = 10
WORLDS = ('clean', 'cluttered')
RUNS, OUT = Path('runs/learning'), Path('docs/results')


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
                   masked=(3, 4, 5, 15, 16, 18)),
    'camera': Recipe(functools.partial(ours, hidden=1.0),
                     {'clean': (2, 5, 10), 'cluttered': (5, 10, 15, 20)}, hides=VECTOR),
    'traffic': Recipe(ours, {'cluttered': (10, 15, 20)}, vehicles=VEHICLES, masked=(10, 15)),
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
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument('--recipes', nargs='+', choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument('--worlds', nargs='+', choices=WORLDS, default=list(WORLDS))
    options = parser.parse_args()
    runs = options.runs or RUNS
    if options.job:
        job = Job(**options.job)
        work(job, RECIPES[job.recipe], runs / job.name)
        return 0
    jobs = [job for seed in options.seeds for name in options.recipes
            for job in RECIPES[name].jobs(name, options.worlds, seed, options.minutes)]
    if not options.report_only:
        run_jobs('benchmarks.learning', jobs, runs, options.workers)
    found = collect(runs, options.out / 'learning_snapshots.json' if options.out else None)
    table, claims = table_of(found), claims_of(found)
    text = markdown(table, claims)
    print(text)
    if options.out is not None:
        write_tables(options.out / 'learning.md', {'rows': text})
        draw(found, options.out / 'learning.png')
    return conclude('learning', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
