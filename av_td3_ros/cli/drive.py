"""`av-td3 drive`: watch a policy drive a few routes, in a window or as a film."""
from __future__ import annotations

import argparse
import contextlib
import datetime
import os
from pathlib import Path

from rich.console import Console

from av_td3_ros.cli.evaluate import BASELINES, evaluation_of, maps_of, prepared
from av_td3_ros.cli.evaluation import drive_in_process, write_evaluation
from av_td3_ros.cli.film import Film, Screen
from av_td3_ros.cli.policies import PRETRAINED
from av_td3_ros.cli.progress import evaluation_table
from av_td3_ros.cli.run_folder import new_run_folder
from av_td3_ros.driving.mask import MASKS, NO_MASK
from av_td3_ros.simulator.appearance import WORLDS

MAP = 'test/roads_a'  # no shipped policy was trained on it
SEED = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--policy', default=PRETRAINED, metavar='WHO',
                        help='a run folder, a checkpoint, an exported policy, or '
                             f'{", ".join((*BASELINES, PRETRAINED))} (default %(default)s)')
    parser.add_argument('--map', action='append', default=[], metavar='MAP',
                        help='map to drive on: a name of config/maps or an .xodr file; may be '
                             f'given again and again (default {MAP})')
    parser.add_argument('--episodes', type=int, default=3, metavar='N',
                        help='routes to drive on each map (default %(default)s)')
    parser.add_argument('--seed', type=int, default=SEED, metavar='N',
                        help='seed of routes, looks and traffic (default %(default)s)')
    parser.add_argument('--world', choices=list(WORLDS), help='how much the looks change')
    parser.add_argument('--vehicles', type=int, metavar='K', help='other vehicles on the road')
    parser.add_argument('--mask', choices=[one for one in MASKS if one != NO_MASK],
                        help='hide the camera image, or the state vector but for the speed')
    parser.add_argument('--window', action=argparse.BooleanOptionalAction,
                        default=any(map(os.environ.get, ('DISPLAY', 'WAYLAND_DISPLAY'))),
                        help='show a window instead of writing a film (default: where there is '
                             'a screen)')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='folder to create for drive.mp4 and evaluation.json (default '
                             'runs/<date>-<time>-drive)')
    parser.add_argument('--config', action='append', default=[], metavar='KEY=VALUE',
                        help='any setting, as in av-td3 train')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    parser.set_defaults(profile='embedded')


def run(options: argparse.Namespace) -> int:
    """Drive, show, write; return the exit status."""
    options.map = options.map or [MAP]
    candidate, config = prepared(options, simulated=True)
    folder = new_run_folder(options.out or Path('runs') / datetime.datetime.now().strftime(
        '%Y%m%d-%H%M%S-drive'))
    film = folder / 'drive.mp4'
    with contextlib.ExitStack() as stack:
        viewer = stack.enter_context(Screen() if options.window else Film(film))
        records = {name: drive_in_process(config, candidate, name, options.episodes, options.seed,
                                          viewer) for name in maps_of(options)}
    found = evaluation_of(options, candidate, config, records)
    write_evaluation(folder / 'evaluation.json', found)
    Console().print(evaluation_table(found))
    print(f'film: {film}' if film.exists() else f'evaluation: {folder / "evaluation.json"}')
    return 0
