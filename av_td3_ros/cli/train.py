"""`av-td3 train`: a whole training session, from starting the nodes to the report."""
from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.evaluate import Evaluation, write_evaluation
from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.progress import ProgressView, evaluation_table
from av_td3_ros.cli.session import Session
from av_td3_ros.paths import map_file
from av_td3_ros.ros.graph import profile_parameters, profiles, session_nodes
from av_td3_ros.ros.runtime import DomainLease

VEHICLE = 'ego_vehicle'
PATIENCE = 60.0  # s of wall time without a transition or an update before training gives up
STATUS_TOPIC = '/learner/status'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--steps', type=int, default=8000, metavar='N',
                        help='transitions to collect (default %(default)s)')
    parser.add_argument('--seed', type=int, default=0, metavar='N',
                        help='seed of weights, exploration, episodes and looks')
    parser.add_argument('--run', type=Path, metavar='DIR',
                        help='run folder to create (default runs/<date>-<time>)')
    parser.add_argument('--profile', default='embedded', choices=profiles(),
                        help='what the nodes are bound to (default %(default)s)')
    parser.add_argument('--map', default='winding', metavar='MAP',
                        help='map to train on: a name of config/maps or an .xodr file '
                             '(default %(default)s)')
    parser.add_argument('--eval-map', default='loop', metavar='MAP',
                        help='map that the drivers are compared on (default %(default)s)')
    parser.add_argument('--eval-episodes', type=int, default=10, metavar='N',
                        help='evaluation episodes of each driver; 0: no evaluation '
                             '(default %(default)s)')
    parser.add_argument('--config', action='append', default=[], metavar='KEY=VALUE',
                        help='any setting, e.g. td3.gamma=0.9 or learner_node.threads=2; '
                             '`av-td3 config` lists them; may be given again and again')
    parser.add_argument('--debug', action='store_true',
                        help='log at debug level and show tracebacks')


def run(options: argparse.Namespace) -> int:
    """Train, evaluate, report; return the exit status."""
    config = _configured(options)
    folder = _new_run(options.run)
    config.write(folder / 'config.yaml', f'av-td3 {" ".join(sys.argv[1:])}')
    from av_td3_ros.cli.report import session_facts

    (folder / 'session.json').write_text(json.dumps(session_facts(sys.argv)), encoding='utf-8')
    interrupt = _Interrupt()
    lease = None
    if 'ROS_DOMAIN_ID' not in os.environ:
        lease = DomainLease()
        os.environ['ROS_DOMAIN_ID'] = str(lease.domain)
    domain = int(os.environ['ROS_DOMAIN_ID'])
    try:
        with ProgressView(options.steps, title=f'av-td3 train  {folder}') as view:
            view.event(f'run folder {folder}, ROS_DOMAIN_ID {domain}')
            checkpoint = _learn(folder, options, view, domain, interrupt)
            if options.eval_episodes:
                evaluation = _evaluate(folder, config, options, view, domain, interrupt,
                                       checkpoint)
            _report(folder, view)
            if options.eval_episodes:
                view.console.print(evaluation_table(evaluation))
        print(f'report: {folder / "report.html"}')
    except KeyboardInterrupt:
        print(f'stopped; what there is lies in {folder}', file=sys.stderr)
        return 130
    finally:
        if lease is not None:
            lease.release()
    return 0


def _configured(options: argparse.Namespace) -> Config:
    """Return the settings of all nodes; raise ValueError for what cannot be."""
    if options.steps < 1:
        raise ValueError(f'--steps {options.steps}: give 1 or more')
    if options.eval_episodes < 0:
        raise ValueError(f'--eval-episodes {options.eval_episodes}: give 0 or more')
    for name in (options.map, options.eval_map):
        map_file(name)
    chosen = {
        'simulator_node': {'seed': options.seed, 'vehicle': VEHICLE, 'world.map': options.map},
        'environment_node': {'episodes.seed': options.seed, 'vehicle': VEHICLE,
                             'wait_for': 3},
        'policy_node': {'seed': options.seed, 'training': True},
        'learner_node': {'seed': options.seed, 'total_transitions': options.steps},
    }
    return (Config.shipped().with_values(profile_parameters(options.profile))
            .with_values(chosen).with_options(options.config))


def _new_run(wanted: Path | None) -> Path:
    """Create the run folder; raise FileExistsError when it is in use."""
    if wanted is None:
        folder = Path('runs') / datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
    else:
        folder = wanted
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f'run folder {folder} is not empty: choose another one')
    folder.mkdir(parents=True, exist_ok=True)
    if wanted is None:
        link = folder.parent / 'latest'
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
    return folder.resolve()


def _learn(folder: Path, options: argparse.Namespace, view: ProgressView, domain: int,
           interrupt: _Interrupt) -> Path:
    """Run the training session until the learner has finished; return its last checkpoint."""
    settings = Config.read(folder / 'config.yaml').with_values({
        'learner_node': {'run': str(folder)}, 'recorder_node': {'bag': str(folder / 'bag')}})
    settings.write(folder / 'config.yaml', f'av-td3 {" ".join(sys.argv[1:])}')
    nodes = session_nodes(options.profile, VEHICLE, learning=True)
    view.phase('training')
    newest: dict[str, Any] = {}
    changed_at = [time.monotonic()]

    def hear(record: dict[str, Any]) -> None:
        if (record['transitions'], record['updates']) != (newest.get('transitions'),
                                                          newest.get('updates')):
            changed_at[0] = time.monotonic()
        newest.update(record)
        view.learner(record)

    monitor = Monitor('session', domain)
    monitor.on_status(STATUS_TOPIC, hear)
    monitor.on_episode('/learner/episode_summary', view.episode)
    level = 'debug' if options.debug else 'info'
    with monitor, Session(nodes, folder / 'config.yaml', folder / 'logs', level) as session:
        while not newest.get('finished'):
            interrupt.check()
            session.check()
            view.nodes(session.states())
            if time.monotonic() - changed_at[0] > PATIENCE:
                raise TimeoutError(f'nothing was learned for {PATIENCE:g} s: see '
                                   f'{folder / "logs"}')
            time.sleep(0.1)
    view.event(f'{newest["transitions"]} transitions, {newest["updates"]} updates, policy '
               f'{newest["policy_version"]}')
    return Path(newest['checkpoint'])


def _evaluate(folder: Path, config: Config, options: argparse.Namespace, view: ProgressView,
              domain: int, interrupt: _Interrupt, checkpoint: Path) -> dict[str, Any]:
    """Let the untrained policy, the learned one and pure pursuit drive; write evaluation.json."""
    evaluation = Evaluation(
        config, folder, map_name=options.eval_map, episodes=options.eval_episodes,
        seed=options.seed + 10_000, profile=options.profile, vehicle=VEHICLE, domain=domain,
        check_interrupt=interrupt.check)
    result: dict[str, Any] = {'map': options.eval_map, 'seed': options.seed + 10_000}
    drivers = (('untrained', 'policy', folder / 'checkpoints' / 'untrained', None),
               ('learned', 'policy', checkpoint, folder / 'drive.mp4'),
               ('pursuit', 'pursuit', None, None))
    for name, driver, weights, video in drivers:
        view.phase(f'evaluating: {name}')
        result[name] = evaluation.drive(name, driver, weights, video)
        view.event(f'{name}: success {result[name]["success"]:.0%}, '
                   f'route completion {result[name]["route_completion"]:.0%}')
    write_evaluation(folder / 'evaluation.json', result)
    return result


def _report(folder: Path, view: ProgressView) -> None:
    from av_td3_ros.cli.plots import draw_all
    from av_td3_ros.cli.report import write_report

    view.phase('drawing the report')
    draw_all(folder)
    write_report(folder)


class _Interrupt:
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt at the next look."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def check(self) -> None:
        if self._asked:
            raise KeyboardInterrupt
