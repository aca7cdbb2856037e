"""Train, look at what was learned now and then, and keep what was seen; some jobs at a time."""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from av_td3_ros.cli.reward_plots import with_tables
from av_td3_ros.driving.episode.metrics import MERIT, EpisodeMetrics, summarise
from av_td3_ros.driving.perception.mask import IMAGE, NO_MASK, VECTOR
from av_td3_ros.paths import write_whole
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.simulator.evaluation import Driver, evaluate
from av_td3_ros.simulator.traffic import TrafficSettings
from av_td3_ros.simulator.view.appearance import AppearanceSettings
from av_td3_ros.simulator.world import WorldSettings
from benchmarks import above_zero, at_least_one, conclude
from benchmarks._learning_report import best_of, recipe_rows, table_page
from benchmarks._training import Algorithm

TRAINING_MAP = 'train/roads'
TEST_MAPS = ('test/roads_a', 'test/roads_b')
EPISODES = 25  # of each test map
VALIDATION_EPISODES = 10  # of each mask, on the training map
TEST_SEED, VALIDATION_SEED = 10_000, 5_000  # episodes that no training drives
PARALLEL = 10  # vehicles whose actions are computed together
NEAR = 200.0  # m round the ego vehicle in which the other vehicles appear


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a recipe by its name, a world, a seed, and processor minutes."""

    recipe: str
    world: str
    seed: int
    minutes: float

    @property
    def name(self) -> str:
        """Return the name of the job's folder."""
        return f'{self.recipe}-{self.world}-{self.seed}'


@dataclasses.dataclass(frozen=True)
class Recipe:
    """
    What to train, and how it differs in what it drives.

    `make` builds the algorithm from the drive's settings, the seed and the job's folder; without
    one `driver` drives. `hides` is the mask that it always wears. `looks` are the processor
    minutes after which it is evaluated, by world; at those of `masked` and at the last one the
    best of the newest ones is evaluated behind `masks` as well. `drive` says all but the world;
    `practice` is the traffic that it learns among, where that is another than it is tried in.
    """

    make: Callable[[DriveSettings, int, Path], Algorithm] | None
    looks: Mapping[str, Sequence[float]]
    driver: Driver | None = None
    hides: str = NO_MASK
    vehicles: int = 0
    step: float = 0.05  # s between two actions
    masked: Sequence[float] = ()
    masks: Sequence[str] = (VECTOR, IMAGE)
    drive: DriveSettings = dataclasses.field(default_factory=DriveSettings)
    practice: TrafficSettings | None = None

    def jobs(self, name: str, worlds: Sequence[str], seed: int, minutes: float | None
             ) -> list[Job]:
        """Return its trainings, to the last look or for `minutes`."""
        return [Job(name, world, seed, minutes or looks[-1])
                for world, looks in self.looks.items() if world in worlds]


def drive_settings(recipe: Recipe, world: str, map_name: str,
                   traffic: TrafficSettings | None = None) -> DriveSettings:
    """Return what the nodes would be told for a map in a world, among the usual traffic or not."""
    return dataclasses.replace(recipe.drive, world=WorldSettings(
        map=map_name, fixed_delta_seconds=recipe.step,
        appearance=AppearanceSettings(world=world),
        traffic=traffic or TrafficSettings(count=recipe.vehicles, within=NEAR)))


def work(job: Job, recipe: Recipe, folder: Path) -> None:
    """Do a job, or what is left of it; every line of evaluations.jsonl is a snapshot."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / 'evaluations.jsonl'
    if recipe.make is None:
        assert recipe.driver is not None
        _write(lines, [{'minutes': 0, 'transitions': 0, 'updates': 0, 'score': [],
                        NO_MASK: examine(job, recipe, recipe.driver, NO_MASK)}])
        return
    algorithm = recipe.make(drive_settings(recipe, job.world, TRAINING_MAP, recipe.practice),
                            job.seed, folder)
    done = snapshots_of(algorithm, lines)
    if done:  # stopped while it was looked behind the masks, it may lack that
        look_behind_masks(job, recipe, algorithm, done, lines)
    spent = done[-1]['minutes'] if done else 0.0
    for until in (minute for minute in recipe.looks[job.world] if spent < minute <= job.minutes):
        algorithm.advance(60.0 * (until - spent))
        spent = until
        snapshot = {'minutes': until, 'transitions': algorithm.transitions,
                    'updates': algorithm.updates, **look(job, recipe, algorithm.driver())}
        algorithm.save()
        done.append(snapshot)
        _write(lines, done)
        look_behind_masks(job, recipe, algorithm, done, lines)
        print(f'{job.name}: {until} min, {snapshot["updates"]} updates, success '
              f'{snapshot[NO_MASK]["success"]["mean"]:.2f}', flush=True)


def snapshots_of(algorithm: Algorithm, lines: Path) -> list[dict[str, Any]]:
    """Return what was seen of a job until the checkpoint that it goes on from."""
    if not algorithm.updates:  # there may be demonstrations
        lines.unlink(missing_ok=True)
        return []
    done = read_lines(lines)
    if not done or done[-1]['updates'] != algorithm.updates:
        raise RuntimeError(f'{lines.parent}: the checkpoint, of {algorithm.updates} updates, is '
                           'not that of the last evaluation; remove the folder to train anew')
    return done


def look_behind_masks(job: Job, recipe: Recipe, algorithm: Algorithm,
                      done: Sequence[dict[str, Any]], lines: Path) -> None:
    """Add to the newest snapshot what the best policy reaches behind the masks, if asked for."""
    snapshot = done[-1]
    looks = (*recipe.masked, recipe.looks[job.world][-1])
    if recipe.hides != NO_MASK or snapshot['minutes'] not in looks or 'best' in snapshot:
        return
    best = best_of(done)
    snapshot['best'] = {'minutes': best['minutes'], **{
        mask: examine(job, recipe, algorithm.driver(best['updates']), mask)
        for mask in recipe.masks}}
    _write(lines, done)


def look(job: Job, recipe: Recipe, driver: Driver) -> dict[str, Any]:
    """Return what a policy reaches on the test maps, and what it is chosen by."""
    started = time.process_time()
    found = validate(job, recipe, driver)
    return {'score': [found[name]['mean'] for name in MERIT],
            'choosing_seconds': round(time.process_time() - started, 1),
            NO_MASK: examine(job, recipe, driver, recipe.hides)}


def validate(job: Job, recipe: Recipe, driver: Driver) -> dict[str, Any]:
    """Return the metrics of a few unseen episodes on the training map, with vector and without."""
    return summarise([one for mask in sorted({recipe.hides, VECTOR}) for one in drive(
        job, recipe, driver, TRAINING_MAP, VALIDATION_EPISODES, VALIDATION_SEED, mask)])


def examine(job: Job, recipe: Recipe, driver: Driver, mask: str) -> dict[str, Any]:
    """Return the metrics over all test maps, with their intervals."""
    return summarise([one for map_name in TEST_MAPS for one in drive(
        job, recipe, driver, map_name, EPISODES, TEST_SEED, mask)])


def drive(job: Job, recipe: Recipe, driver: Driver, map_name: str, episodes: int, seed: int,
          mask: str) -> list[EpisodeMetrics]:
    """Return the metrics of the episodes of one map."""
    return [one.metrics for one in evaluate(
        drive_settings(recipe, job.world, map_name), driver, episodes, seed, mask=mask,
        parallel=PARALLEL)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the snapshots of a job so far."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def _write(path: Path, snapshots: Sequence[Mapping[str, Any]]) -> None:
    write_whole(path, ''.join(json.dumps(one) + '\n' for one in snapshots))


def compare(name: str, about: str, world: str, recipes: Mapping[str, Recipe]) -> int:
    """Train recipes in one world, one job a seed, and print and keep a row for each."""
    parser = argument_parser(about, recipes)
    parser.set_defaults(seeds=[0, 1])
    options = parser.parse_args()
    found = trained(name, options, recipes, [world])
    if found is None:
        return 0
    table = recipe_rows(found)
    print(table_page(table))
    if options.out is not None:
        write_tables(options.out / f'{name}.md', {'rows': table_page(table)})
    return conclude(name, [], table, options.json)


def write_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Write tables into a page that has marks for them; begin it where there is none."""
    text = (page.read_text(encoding='utf-8') if page.is_file() else
            ''.join(f'<!-- {name} -->\n<!-- end of {name} -->\n' for name in tables))
    page.write_text(with_tables(text, tables), encoding='utf-8')


def argument_parser(about: str, recipes: Mapping[str, Recipe]) -> argparse.ArgumentParser:
    """Return what every benchmark of trainings takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument('--recipes', nargs='+', choices=list(recipes), default=list(recipes))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--minutes', type=above_zero, help='processor minutes of each training')
    parser.add_argument('--workers', type=at_least_one, default=2, help='jobs at a time')
    parser.add_argument('--runs', type=Path, help='folder of the jobs')
    parser.add_argument('--report-only', action='store_true', help='train nothing')
    parser.add_argument('--out', type=Path, help='folder for page, picture and snapshots')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    parser.add_argument('--job', type=json.loads, help=argparse.SUPPRESS)
    return parser


def trained(name: str, options: argparse.Namespace, recipes: Mapping[str, Recipe],
            worlds: Sequence[str]) -> dict[str, list[dict[str, Any]]] | None:
    """Do what is asked for; return the snapshots by job, None in the process of one job."""
    runs = options.runs or Path('runs') / name
    if options.job:
        job = Job(**options.job)
        work(job, recipes[job.recipe], runs / job.name)
        return None
    kept = options.out / f'{name}_snapshots.json' if options.out else None
    if not options.report_only:
        done = collect(runs, kept)
        run_jobs(f'benchmarks.{name}',
                 [job for seed in options.seeds for recipe in options.recipes
                  for job in recipes[recipe].jobs(recipe, worlds, seed, options.minutes)
                  if (recipes[recipe].make is not None or seed == options.seeds[0])
                  and not is_complete(job, done.get(job.name, []))],
                 runs, options.workers)
    return collect(runs, kept)


def is_complete(job: Job, snapshots: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a job's snapshots, of whatever machine, reach to its end."""
    return bool(snapshots) and bool(snapshots[-1]['minutes'] >= job.minutes)


def run_jobs(module: str, jobs: Sequence[Job], folder: Path, workers: int) -> None:
    """Do jobs in processes of their own, some at a time; say which ones fail."""
    folder.mkdir(parents=True, exist_ok=True)

    def start(job: Job) -> int:
        with (folder / f'{job.name}.log').open('a', encoding='utf-8') as log:
            return subprocess.run(
                [sys.executable, '-m', module, '--runs', str(folder), '--job',
                 json.dumps(dataclasses.asdict(job))], stdout=log, stderr=log, check=False,
                env={**os.environ, 'OMP_NUM_THREADS': '1'}).returncode

    with ThreadPoolExecutor(workers) as pool:
        for job, status in zip(jobs, pool.map(start, jobs), strict=True):
            if status:
                print(f'{job.name} failed: see {folder / job.name}.log')


def collect(folder: Path, kept: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Return the snapshots of all jobs by name: those of `folder`, and those kept before."""
    found: dict[str, list[dict[str, Any]]] = {}
    if kept is not None and kept.is_file():
        found = json.loads(kept.read_text(encoding='utf-8'))
    for path in sorted(folder.glob('*/evaluations.jsonl')):
        lines = read_lines(path)
        if len(lines) >= len(found.get(path.parent.name, [])):
            found[path.parent.name] = lines
    if kept is not None:
        kept.write_text(json.dumps(found, sort_keys=True) + '\n', encoding='utf-8')
    return found
