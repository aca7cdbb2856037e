"""`av-td3 drive`: watch a policy drive, in a window or as a film."""
from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

from av_td3_ros.cli.evaluate import (
    add_episode_arguments,
    evaluation_of,
    maps_of,
    prepared,
    tell_of_camera,
)
from av_td3_ros.cli.evaluation import drive_in_process, write_evaluation
from av_td3_ros.cli.pictures.film import Film, Screen
from av_td3_ros.cli.policies import BASELINES, PRETRAINED
from av_td3_ros.cli.progress import evaluation_table, plain_console
from av_td3_ros.cli.run_folder import new_run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--policy', default=PRETRAINED, metavar='WHO',
                        help='a run folder, a checkpoint, an exported policy, or '
                             f'{", ".join((*BASELINES, PRETRAINED))} (default %(default)s)')
    add_episode_arguments(parser, episodes=1)
    parser.add_argument('--window', action=argparse.BooleanOptionalAction,
                        default=any(map(os.environ.get, ('DISPLAY', 'WAYLAND_DISPLAY'))),
                        help='show a window instead of writing a film (default: where there is '
                             'a screen)')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='folder to create for drive.mp4 and evaluation.json (default '
                             'runs/<date>-<time>-drive)')
    parser.set_defaults(profile='embedded')


def run(options: argparse.Namespace) -> int:
    """Drive, show, write; return the exit status."""
    candidate, config = prepared(options, simulated=True)
    tell_of_camera(options.policy, config, simulated=True)
    folder = new_run_folder(options.out, 'drive')
    film = folder / 'drive.mp4'
    with contextlib.ExitStack() as stack:
        viewer = stack.enter_context(Screen() if options.window else Film(film))
        records = {name: drive_in_process(config, candidate, name, options.episodes, options.seed,
                                          viewer) for name in maps_of(options)}
    found = evaluation_of(options, candidate, config, records)
    write_evaluation(folder / 'evaluation.json', found)
    plain_console().print(evaluation_table(found))
    print(f'film: {film}' if film.exists() else f'evaluation: {folder / "evaluation.json"}')
    return 0
