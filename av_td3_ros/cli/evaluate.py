"""`av-td3 evaluate`: let one driver drive the same episodes as any other, and measure it."""
from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from av_td3_ros.cli.config import Config, changes_of, merged
from av_td3_ros.cli.evaluation import (
    Candidate,
    configured,
    drive_in_process,
    result,
    write_evaluation,
)
from av_td3_ros.cli.node_evaluation import Evaluation
from av_td3_ros.cli.pictures.evaluation_plots import draw_completion, draw_evaluation, draw_paths
from av_td3_ros.cli.pictures.film import Film
from av_td3_ros.cli.policies import (
    BASELINES,
    PRETRAINED,
    camera_warnings,
    check_fit,
    find_policy,
    trained_with,
)
from av_td3_ros.cli.progress import evaluation_table, plain_console
from av_td3_ros.cli.run_folder import check_output, new_run_folder
from av_td3_ros.cli.session import VEHICLE, Interrupt, take_domain
from av_td3_ros.driving.episode.planner import EpisodePlanner
from av_td3_ros.driving.episode.record import EpisodeRecord
from av_td3_ros.driving.perception.mask import MASKS, NO_MASK
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.nodes.environment_node import EnvironmentSettings
from av_td3_ros.paths import map_file
from av_td3_ros.ros.graph import is_closed, profiles
from av_td3_ros.ros.parameters import from_ros
from av_td3_ros.settings import from_mapping
from av_td3_ros.simulator.view.appearance import WORLDS

MAP = 'test/roads_a'
SEED = 10_000  # of the default training seed there are no such episodes
NodeValues = dict[str, dict[str, Any]]
Drive = Callable[[str, Film | None], list[EpisodeRecord]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--policy', required=True, metavar='WHO',
                        help='a run folder (its best checkpoint, or its newest where none is '
                             'known to be the best), a checkpoint, an exported policy, or '
                             f'{", ".join((*BASELINES, PRETRAINED))}')
    add_episode_arguments(parser, episodes=10)
    parser.add_argument('--json', type=Path, metavar='OUT',
                        help='write the evaluation to this file as well')
    parser.add_argument('--video', type=Path, metavar='OUT.mp4', help='write the drives as video')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='folder to create for evaluation.json, plots and logs (default '
                             'runs/<date>-<time>-evaluation)')
    parser.add_argument('--in-process', action='store_true',
                        help='drive in one process instead of through the nodes: the same '
                             'numbers in a fraction of the time')
    parser.add_argument('--profile', default='embedded', choices=profiles(),
                        help='what the nodes are bound to (default %(default)s)')


def add_episode_arguments(parser: argparse.ArgumentParser, episodes: int) -> None:
    """Declare the options that say where, in which world and how often is driven."""
    parser.add_argument('--map', action='append', default=[], metavar='MAP',
                        help='map to drive on: a name of config/maps or an .xodr file; may be '
                             f'given again and again (default {MAP})')
    parser.add_argument('--episodes', type=int, default=episodes, metavar='N',
                        help='episodes on each map (default %(default)s)')
    parser.add_argument('--seed', type=int, default=SEED, metavar='N',
                        help='seed of routes, looks and traffic: episode i of a map and a seed '
                             'is the same for every driver (default %(default)s)')
    parser.add_argument('--vehicles', type=int, metavar='K', help='other vehicles on the road')
    parser.add_argument('--world', choices=list(WORLDS), help='how much the looks change')
    parser.add_argument('--mask', choices=[one for one in MASKS if one != NO_MASK],
                        help='hide the camera image, or the state vector but for the speed, from '
                             'a learned policy')
    parser.add_argument('--config', action='append', default=[], metavar='KEY=VALUE',
                        help='any setting, as in av-td3 train; it comes after those that the '
                             'policy was trained with')
    parser.add_argument('--debug', action='store_true',
                        help='log at debug level and show tracebacks')


def check(arguments: Sequence[str]) -> None:
    """Raise ValueError or OSError for options with which `run` would end at once."""
    parser = _Refusing()
    add_arguments(parser)
    options = parser.parse_args(arguments)
    prepared(options, is_closed(options.profile))


class _Refusing(argparse.ArgumentParser):
    """A parser for options that nobody typed: what is wrong is an error and not the end."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(message)


def run(options: argparse.Namespace) -> int:
    """Evaluate, show, write; return the exit status."""
    simulated = is_closed(options.profile)
    candidate, config = prepared(options, simulated)
    tell_of_camera(options.policy, config, simulated)
    maps = maps_of(options) if simulated else ['']
    for option, path in (('--json', options.json), ('--video', options.video)):
        if path is not None:
            check_output(path, option)
    folder = new_run_folder(options.out, 'evaluation')
    config.write(folder / 'config.yaml', f'av-td3 {" ".join(sys.argv[1:])}')
    console = plain_console()
    with contextlib.ExitStack() as stack:
        film = stack.enter_context(Film(options.video)) if options.video else None
        drive = _in_process(options, candidate, config) if options.in_process else _through_nodes(
            options, candidate, config, folder, simulated, stack)
        records = {}
        for name in maps:
            with console.status(f'{candidate.name}: {options.episodes} episodes'
                                + f' on {name}' * bool(name)):
                records[name] = drive(name, film)
    found = evaluation_of(options, candidate, config, records)
    for path in (folder / 'evaluation.json', *([options.json] if options.json else ())):
        write_evaluation(path, found)
    pictures = [draw(folder) for draw in (draw_evaluation, draw_completion, draw_paths)]
    console.print(evaluation_table(found))
    print(f'evaluation: {folder / "evaluation.json"}\nplots: {pictures[0].parent}')
    return 0


def prepared(options: argparse.Namespace, simulated: bool) -> tuple[Candidate, Config]:
    """
    Return who drives and the settings of all nodes.

    Raises ValueError or OSError for all that can be known to fail before anything starts.
    """
    if options.episodes < 1:
        raise ValueError(f'--episodes {options.episodes}: give 1 or more')
    if not simulated:
        _check_without_simulator(options)
    candidate, trained, policy = Candidate(options.policy, options.policy), {}, None
    if options.policy not in BASELINES:
        policy = find_policy(options.policy)
        trained = trained_with(policy)
        candidate = Candidate(_name(options.policy), weights=policy.path,
                              mask=options.mask or NO_MASK)
    elif options.mask:
        raise ValueError(f'--mask {options.mask}: {options.policy} is not learned, it would only '
                         'fail without what the mask hides; give a learned policy')
    config = Config.shipped().for_training(options.profile, VEHICLE)
    changes = merged(config.values(), trained, _wanted(options), changes_of(options.config))
    if policy is not None:
        check_fit(policy, from_mapping(EnvironmentSettings, from_ros(changes['environment_node']),
                                       'environment_node'))
    config = Config(changes)
    if policy is None and simulated:
        config = config.with_simulated_camera()
    for name in maps_of(options) if simulated else ():
        _check_map(configured(config, candidate, name, options.seed), options.episodes)
    return candidate, config


def tell_of_camera(policy: str, config: Config, simulated: bool) -> None:
    """Say in which ways the session's camera is not that of a learned policy's training."""
    if policy not in BASELINES:
        for sentence in camera_warnings(find_policy(policy), config, simulated):
            print(f"not the camera of {policy}'s training: {sentence}", file=sys.stderr)


def maps_of(options: argparse.Namespace) -> list[str]:
    """Return the maps to drive on, each once."""
    return list(dict.fromkeys(options.map or [MAP]))


def _name(policy: str) -> str:
    return policy if policy == PRETRAINED else Path(policy).expanduser().resolve().name


def _wanted(options: argparse.Namespace) -> NodeValues:
    """Return what the options change of the simulated world."""
    given = {'world.appearance.world': options.world, 'world.traffic.count': options.vehicles}
    return {'simulator_node': {key: value for key, value in given.items() if value is not None}}


def _check_without_simulator(options: argparse.Namespace) -> None:
    for name in ('map', 'world', 'vehicles', 'in_process'):
        if getattr(options, name):
            raise ValueError(f'profile {options.profile!r} has no simulator of its own: set up '
                             f'the world there, and leave --{name.replace("_", "-")} out')


def _check_map(config: Config, episodes: int) -> None:
    """Raise ValueError or OSError for a map on which the episodes cannot be driven."""
    road_map = RoadMap.from_file(map_file(config.settings['simulator_node'].world.map))
    planner = EpisodePlanner(road_map, config.settings['environment_node'].episodes)
    for index in range(episodes):
        planner.plan(index)


def _in_process(options: argparse.Namespace, candidate: Candidate, config: Config) -> Drive:
    def drive(map_name: str, film: Film | None) -> list[EpisodeRecord]:
        return drive_in_process(config, candidate, map_name, options.episodes, options.seed, film)

    return drive


def _through_nodes(options: argparse.Namespace, candidate: Candidate, config: Config,
                   folder: Path, simulated: bool, stack: contextlib.ExitStack) -> Drive:
    domain, lease = take_domain(simulated)
    if lease is not None:
        stack.callback(lease.release)
    evaluation = Evaluation(
        config, folder, episodes=options.episodes, seed=options.seed, profile=options.profile,
        vehicle=VEHICLE, domain=domain, log_level='debug' if options.debug else 'info',
        check_interrupt=stack.enter_context(Interrupt()).check)

    def drive(map_name: str, film: Film | None) -> list[EpisodeRecord]:
        return evaluation.drive(candidate, map_name, film)

    return drive


def evaluation_of(options: argparse.Namespace, candidate: Candidate, config: Config,
                  records: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, Any]:
    """Return what evaluation.json holds."""
    world = config.settings['simulator_node'].world
    return {**result(str(candidate.weights or candidate.driver), records, options.seed),
            'name': candidate.name, 'seed': options.seed, 'mask': candidate.mask,
            'world': world.appearance.world, 'vehicles': world.traffic.count}
