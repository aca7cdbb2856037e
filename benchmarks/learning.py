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
import itertools
import sys
from pathlib import Path
from typing import Any

from av_td3_ros.driving.mask import VECTOR
from av_td3_ros.driving.pursuit import PursuitDriver
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.simulator.evaluation import StateDriver
from av_td3_ros.td3.exploration import ExplorationSettings
from av_td3_ros.td3.learner import LearnerSettings
from benchmarks import conclude
from benchmarks._jobs import Job, Recipe, add_arguments, collect, run_jobs, work
from benchmarks._learning_report import claims_of, draw, markdown, table_of
from benchmarks._training import Algorithm, Ours, StableBaselines3, checkpoint_of

VEHICLES = 10
WORLDS = ('clean', 'cluttered')
MINUTES = {('ours', 'clean'): 20, ('ours', 'cluttered'): 20, ('camera', 'clean'): 10,
           ('camera', 'cluttered'): 20, ('traffic', 'cluttered'): 20, ('sb3', 'clean'): 30,
           ('sb3_tuned', 'clean'): 30, ('pursuit', 'clean'): 0, ('pursuit', 'cluttered'): 0,
           ('pursuit_traffic', 'cluttered'): 0}
RUNS, OUT = Path('runs/learning'), Path('docs/results')


def ours(drive: DriveSettings, seed: int, folder: Path, hidden: float = 0.5) -> Algorithm:
    """Return the default recipe; the vector is hidden from the actor in a share of all steps."""
    base = LearnerSettings(seed=seed, run=str(folder), resume=checkpoint_of(folder))
    return Ours(drive, dataclasses.replace(base, td3=dataclasses.replace(
        base.td3, vector_dropout=hidden)), ExplorationSettings(vector_dropout=hidden))


def sb3(settings: dict[str, Any]) -> Recipe:
    """Return Stable-Baselines3's TD3 with settings of its own."""
    return Recipe(lambda drive, seed, folder: StableBaselines3(drive, seed, settings))


RECIPES = {
    'ours': Recipe(ours, looks=(1, 2, 3, 4, 5, 10, 12, 14, 16, 18, 20), masked=(5, 20)),
    'camera': Recipe(functools.partial(ours, hidden=1.0), hides=VECTOR),
    'traffic': Recipe(ours, vehicles=VEHICLES),
    # Its defaults, but for a replay that fits into memory and the paper's exploration noise.
    'sb3': sb3({'noise': 0.1, 'buffer_size': 50_000}),
    'sb3_tuned': sb3({
        'noise': 0.2, 'buffer_size': 50_000, 'batch_size': 64, 'learning_rate': 3e-4,
        'gamma': 0.95, 'tau': 0.01, 'train_freq': 2, 'gradient_steps': 1,
        'learning_starts': 1000, 'policy_kwargs': {'net_arch': [256, 256],
                                                   'share_features_extractor': False}}),
    'pursuit': Recipe(None, StateDriver(PursuitDriver)),
    'pursuit_traffic': Recipe(None, StateDriver(PursuitDriver), vehicles=VEHICLES),
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
    jobs = [Job(recipe, world, seed, options.minutes or minutes)
            for seed, ((recipe, world), minutes) in itertools.product(options.seeds,
                                                                      MINUTES.items())
            if recipe in options.recipes and world in options.worlds]
    if not options.report_only:
        run_jobs('benchmarks.learning', jobs, runs, options.workers)
    found = collect(runs, options.out / 'learning_snapshots.json' if options.out else None)
    table, claims = table_of(found), claims_of(found)
    text = markdown(table, claims)
    print(text)
    if options.out is not None:
        (options.out / 'learning.md').write_text(text, encoding='utf-8')
        draw(found, options.out / 'learning.png')
    return conclude('learning', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
