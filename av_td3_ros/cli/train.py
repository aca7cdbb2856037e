"""`av-td3 train`: a whole training session, from starting the nodes to the report."""
from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av_td3_ros.cli import going_on
from av_td3_ros.cli.config import Config
from av_td3_ros.cli.evaluation import Candidate, result, write_evaluation
from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.node_evaluation import Evaluation
from av_td3_ros.cli.pictures.film import Film
from av_td3_ros.cli.progress import ProgressView, evaluation_table
from av_td3_ros.cli.report import draw_all, session_facts, write_report
from av_td3_ros.cli.run_folder import new_run_folder
from av_td3_ros.cli.session import VEHICLE, Interrupt, Session, SessionError, take_domain
from av_td3_ros.cli.validation import Validation, choose
from av_td3_ros.driving.episode.planner import EpisodePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros.diagnostics import OK
from av_td3_ros.ros.graph import NodeSpec, is_closed, profiles, session_nodes
from av_td3_ros.ros.recording.bag import is_bag
from av_td3_ros.td3 import PRESETS, load_checkpoint
from av_td3_ros.td3.checkpoint import BEST
from av_td3_ros.td3.learner import check_memory
from av_td3_ros.td3.symptoms import judge
from av_td3_ros.trust.session_key import session_key

WORRY = 60.0  # s of wall time without a transition or an update before that is told
PATIENCE = 600.0  # s of it before training gives up
LOADING = 3600.0  # s of wall time that reading bags or a checkpoint may take
STANDSTILL = 15  # times that the environment says it waits before that is told
TURN = 1.0  # s that count at most between two looks: a session that was stopped did not wait
NOTHING = ('nothing was learned: the learner made 0 updates; give more --steps, or a smaller '
           '--config learner_node.limiter.start_after=N')
TRAINING_MAP, EVALUATION_MAP = 'train/roads', 'test/roads_a'
EVALUATION_SEEDS = 10_000  # evaluation episodes are none of the training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--steps', type=int, default=8000, metavar='N',
                        help='transitions to collect (default %(default)s); 0 with '
                             '--from-bags: learn from the bags only')
    parser.add_argument('--from-bags', nargs='+', default=[], metavar='BAG',
                        help='recorded bags, such as RUN/bag, to learn from before driving')
    parser.add_argument('--demonstrations', nargs='+', default=[], metavar='BAG',
                        help='recorded bags of human driving: kept apart and drawn for half of '
                             'each batch (human.share)')
    parser.add_argument('--seed', type=int, default=0, metavar='N',
                        help='seed of weights, exploration, episodes and looks')
    parser.add_argument('--run', type=Path, metavar='DIR',
                        help='run folder to create (default runs/<date>-<time>)')
    parser.add_argument('--profile', default='embedded', choices=profiles(),
                        help='what the nodes are bound to (default %(default)s)')
    parser.add_argument('--map', metavar='MAP',
                        help='map to train on: a name of config/maps or an .xodr file '
                             f'(default {TRAINING_MAP})')
    parser.add_argument('--eval-map', metavar='MAP',
                        help=f'map that the drivers are compared on (default {EVALUATION_MAP})')
    parser.add_argument('--eval-episodes', type=int, default=10, metavar='N',
                        help='evaluation episodes of each driver; 0: no evaluation '
                             '(default %(default)s)')
    parser.add_argument('--validation-episodes', type=int, default=8, metavar='N',
                        help='episodes on other routes of the training map that each checkpoint '
                             'drives, beside the training, to choose the best one; 0: the best '
                             'by the returns of training (default %(default)s)')
    parser.add_argument('--preset', choices=list(PRESETS), metavar='NAME',
                        help=f'recipe for learning: {" or ".join(PRESETS)} (default: what '
                             'config/learner_node.yaml says, which is the recipe default)')
    parser.add_argument('--config', action='append', default=[], metavar='KEY=VALUE',
                        help='any setting, e.g. td3.gamma=0.9 or learner_node.threads=2; '
                             '`av-td3 config` lists them; may be given again and again')
    parser.add_argument('--ranks', type=int, metavar='N',
                        help='processes that learn together, each with a batch and a part of the '
                             'replay of its own (docs/scaling.md; default: what '
                             'config/learner_node.yaml says, which is 1)')
    parser.add_argument('--debug', action='store_true',
                        help='log at debug level and show tracebacks')


def run(options: argparse.Namespace) -> int:
    """Train, evaluate, report; return the exit status."""
    nodes = session_nodes(options.profile, VEHICLE, learning=True)
    simulated = is_closed(options.profile)
    if not options.steps:
        nodes = [spec for spec in nodes if spec.name == 'learner_node']
    config = configured(options, simulated)
    domain, lease = take_domain(simulated)
    folder = new_run_folder(options.run, otherwise=lambda used: going_on.command(
        used.resolve(), sys.argv[2:], options.steps, options.from_bags))
    config = config.writing_to(folder)
    config.write(folder / 'config.yaml', f'av-td3 {" ".join(sys.argv[1:])}')
    (folder / 'session.json').write_text(json.dumps(session_facts(sys.argv)), encoding='utf-8')
    try:
        with ProgressView(options.steps, title=f'av-td3 train  {folder}') as view:
            view.event(f'run folder {folder}, ROS_DOMAIN_ID {domain}')
            if words := too_short(options, config):
                view.event(words)
            with Interrupt() as interrupt:
                with Validation(folder, options.validation_episodes * simulated) as validation:
                    last = _learn(folder, nodes, config, options, view, domain, interrupt,
                                  validation)
                    view.phase('choosing the best policy')
                    validation.finish(interrupt.check)
                learned = (_best(folder, last, validation, view)
                           if load_checkpoint(last).updates else None)
                evaluation = (_evaluate(folder, config, options, simulated, view, domain,
                                        interrupt, learned)
                              if options.eval_episodes else None)
            view.phase('drawing the report')
            draw_all(folder)
            report = write_report(folder)
        if evaluation is not None:
            view.console.print(evaluation_table(evaluation))
        if learned is None:
            print(NOTHING)
        print(f'report: {report}')
    except KeyboardInterrupt as stopped:
        print(f'stopped; what there is lies in {folder}\n{stopped}'.rstrip(), file=sys.stderr)
        return 130
    finally:
        if lease is not None:
            lease.release()
    return 0


def configured(options: argparse.Namespace, simulated: bool) -> Config:
    """Return the settings of all nodes; raise ValueError for what cannot be."""
    bags = {key: [str(path.resolve()) for path in map(Path, given)] for key, given in (
        ('bags', options.from_bags), ('demonstration_bags', options.demonstrations))}
    if options.steps < (0 if any(bags.values()) else 1):
        raise ValueError(f'--steps {options.steps}: give 1 or more, or 0 with --from-bags')
    for name in ('eval_episodes', 'validation_episodes'):
        if getattr(options, name) < 0:
            raise ValueError(f'--{name.replace("_", "-")} {getattr(options, name)}: give 0 or '
                             'more')
    for bag in (*bags['bags'], *bags['demonstration_bags']):
        if not is_bag(Path(bag)):
            raise ValueError(f'bag {bag}: no metadata.yaml and no MCAP file there; name the '
                             'folder of a bag, such as RUN/bag')
    if not simulated and (options.map or options.eval_map):
        raise ValueError(f'profile {options.profile!r} has no simulator of its own: load the '
                         'map there, and leave --map and --eval-map out')
    config = Config.shipped()
    if options.preset is not None:
        config = config.with_preset(options.preset)
    config = config.for_training(
        options.profile, VEHICLE, map_name=(options.map or TRAINING_MAP) if simulated else None,
        seed=options.seed, steps=options.steps, ranks=options.ranks).with_values(
        {'learner_node': {**{key: given for key, given in bags.items() if given},
                          'offline': not options.steps}})
    learner = config.with_options(options.config).settings['learner_node']
    if learner.resume:
        load_checkpoint(learner.resume)  # says why when it cannot be
    if learner.resume or learner.bags or learner.demonstration_bags:
        # What comes is no beginner's driving.
        config = config.with_values({'policy_node': {'exploration.warmup_steps': 0}})
    config = config.with_options(options.config)
    learner = config.settings['learner_node']
    try:  # whether a GPU has the room is seen where the learner runs
        check_memory(learner, on_device=(learner.device.startswith('cuda')
                                         and learner.replay_on_device))
    except ValueError as error:
        raise ValueError(f'learner_node.{error}') from error
    if simulated:
        if not learner.resume:
            config = config.with_simulated_camera()
        _check_maps(config, options.eval_map or EVALUATION_MAP if options.eval_episodes else None)
    return config


def too_short(options: argparse.Namespace, config: Config) -> str:
    """Return a warning when all transitions that come allow no update, or else ''."""
    learner = config.settings['learner_node']
    if learner.offline or learner.resume or learner.bags or learner.demonstration_bags:
        return ''  # what is there already counts
    start, rate = learner.limiter.start_after, learner.limiter.updates_per_transition
    if not rate or (learner.total_transitions - start) * rate >= 1.0:
        return ''
    return (f'nothing will be learned: --steps {options.steps} allows no update, for learning '
            f'begins after limiter.start_after = {start} transitions; give more steps, or '
            f'--config learner_node.limiter.start_after={max(1, options.steps // 2)}')


def _check_maps(config: Config, evaluation_map: str | None) -> None:
    """Raise ValueError or OSError for a map on which the wanted episodes cannot be driven."""
    environment = config.settings['environment_node']
    for name in {config.settings['simulator_node'].world.map, evaluation_map} - {None}:
        road_map = RoadMap.from_file(map_file(name))
        if environment.resets:
            EpisodePlanner(road_map, environment.episodes).plan(0)


def _learn(folder: Path, nodes: list[NodeSpec], config: Config, options: argparse.Namespace,
           view: ProgressView, domain: int, interrupt: Interrupt, validation: Validation) -> Path:
    """Run the training session until the learner has finished; return its last checkpoint."""
    view.phase('training')
    loads = bool(options.from_bags or options.demonstrations)
    newest: dict[str, Any] = {}
    waited, symptoms = Waiting(), Symptoms()
    standstill = Standstill(options.profile, domain)

    def hear(record: dict[str, Any]) -> None:
        if (record['transitions'], record['updates']) != (newest.get('transitions'),
                                                          newest.get('updates')):
            waited.end()
        view.target = record['transitions_wanted']
        newest.update(record)
        view.learner(record)
        for words in symptoms.news(record):
            view.event(words)

    def tell_standstill(level: int, reason: str) -> None:
        if newest or not loads:  # nobody drives while bags are read
            for words in standstill.news(level, reason):
                view.event(words)

    monitor = Monitor('session', domain)
    learner = next(one for one in nodes if one.name == 'learner_node')
    for one in nodes:
        if one.name == 'environment_node':
            monitor.on_diagnostics(
                one.topic('~/output/diagnostics'),
                f'{one.namespace.strip("/")}/{one.name}: episode', tell_standstill)
    monitor.on_status(learner.topic('~/output/status'), hear)
    monitor.on_episode(learner.topic('~/input/episode_summary'), view.episode)
    key = session_key((one.name for one in nodes), config.settings['learner_node'].signing.key)
    try:
        with (key or contextlib.nullcontext(), monitor,
              Session(nodes, folder / 'config.yaml', folder / 'logs', _log_level(options), key=key)
              as session):
            while not newest.get('finished'):
                interrupt.check()
                session.check()
                view.nodes(session.states())
                _tell(validation, view)
                is_loading = loads and not newest
                if waited.look(time.monotonic()) and not is_loading:
                    view.event(f'nothing was learned for {WORRY:g} s: see {folder / "logs"}')
                if waited.seconds > (LOADING if is_loading else PATIENCE):
                    raise TimeoutError(f'nothing was learned for {waited.seconds:.0f} s: see '
                                       f'{folder / "logs"}')
                time.sleep(0.1)
    except (SessionError, TimeoutError, KeyboardInterrupt) as error:
        # By now the nodes have closed what they write.
        to_drive = (newest.get('transitions_wanted', options.steps)
                    - newest.get('transitions', 0)) if options.steps else 0
        left = going_on.survivors(folder, sys.argv[2:], max(to_drive, min(options.steps, 1)),
                                  options.from_bags)
        raise type(error)('\n'.join(filter(None, (str(error), left)))) from error
    view.event(f'{newest["transitions"]} transitions, {newest["updates"]} updates, policy '
               f'{newest["policy_version"]}')
    return Path(newest['checkpoint'])


class Symptoms:
    """Tell what looks sick in how the learner does, each thing once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def news(self, record: Mapping[str, Any]) -> list[str]:
        """Return what a status of the learner, as in metrics.jsonl, has brought to light."""
        found = [one for one in judge({**record['metrics'], **{
            name: record[name] for name in ('updates', 'policy_version')}})
            if one.severity == 'sick' and one.name not in self._told]
        self._told |= {one.name for one in found}
        return [f'{one.text}: {one.remedy}' for one in found]


class Standstill:
    """Tell why no episode begins, from what the environment says of that once a second."""

    def __init__(self, profile: str, domain: int) -> None:
        self._remedy = (f'`av-td3 doctor --profile {profile}` with ROS_DOMAIN_ID={domain} tells '
                        'what is missing')
        self._heard, self._told = 0, ''

    def news(self, level: int, reason: str) -> list[str]:
        """Take a level and words of the environment; return what is to be told now."""
        if level == OK:
            self._heard, self._told = 0, ''
            return []
        self._heard += 1
        kind = re.sub(r'\d+', '#', reason)  # where only figures change it is the same reason
        if self._heard < STANDSTILL or kind == self._told:
            return []
        self._told = kind
        return [f'nothing is driven: {reason}; {self._remedy}']


class Waiting:
    """Count for how long nothing has come, in turns in which somebody looked."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked_at: float | None = None

    def look(self, now: float) -> bool:
        """Count on to `now` in s; return True in the one look that passes `WORRY`."""
        before = self.seconds
        if self._looked_at is not None:
            self.seconds += min(now - self._looked_at, TURN)
        self._looked_at = now
        return before < WORRY <= self.seconds

    def end(self) -> None:
        """Note that something came."""
        self.seconds = 0.0


def _tell(validation: Validation, view: ProgressView) -> None:
    for one in validation.news():
        view.event(f'checkpoint {one["checkpoint"]}: success {one["success"]:.0%}, '
                   f'completion {one["route_completion"]:.0%}, return {one["mean_return"]:.1f} '
                   f'on {one["episodes"]} other routes')


def _best(folder: Path, last: Path, validation: Validation, view: ProgressView) -> Path:
    """Return the best checkpoint: by validation, by the returns of training, or the last."""
    _tell(validation, view)
    chosen = choose(folder)
    best = folder / 'checkpoints' / BEST
    if chosen is None and not best.exists():
        return last
    view.event(f'best checkpoint: {best.resolve().name}, '
               + ('by the returns of training' if chosen is None else 'of the last validated'))
    return best.resolve()


def _evaluate(folder: Path, config: Config, options: argparse.Namespace, simulated: bool,
              view: ProgressView, domain: int, interrupt: Interrupt, learned: Path | None
              ) -> dict[str, Any]:
    """Let the untrained policy, what was learned and pure pursuit drive; write evaluation.json."""
    seed = options.seed + EVALUATION_SEEDS
    map_name = (options.eval_map or EVALUATION_MAP) if simulated else ''
    evaluation = Evaluation(
        config, folder, episodes=options.eval_episodes, seed=seed, profile=options.profile,
        vehicle=VEHICLE, domain=domain, log_level=_log_level(options),
        check_interrupt=interrupt.check)
    found: dict[str, Any] = {'map': map_name, 'seed': seed}
    candidates = (Candidate('untrained', weights=folder / 'checkpoints' / 'untrained'),
                  *([Candidate('learned', weights=learned)] if learned else ()),
                  Candidate('pursuit', 'pursuit'))
    for one in candidates:
        view.phase(f'evaluating: {one.name}')
        with (Film(folder / 'drive.mp4') if one.name == 'learned'
              else contextlib.nullcontext()) as film:
            records = evaluation.drive(one, map_name, film)
        part = found[one.name] = result(str(one.weights or one.driver), {map_name: records}, seed)
        view.event(f'{one.name}: success {part["success"]:.0%}, '
                   f'route completion {part["route_completion"]:.0%}')
    write_evaluation(folder / 'evaluation.json', found)
    return found


def _log_level(options: argparse.Namespace) -> str:
    return 'debug' if options.debug else 'info'
