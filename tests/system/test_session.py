"""Whole sessions of `av-td3 train`: one that ends by itself, and the ways out of one."""
from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest
from av_td3_msgs.msg import LearnerStatus
from harness import TIMEOUT, Peer, await_that

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.main import main
from av_td3_ros.cli.pictures.plots import read_validations
from av_td3_ros.ros import qos
from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.ros.recording.bag import read_transitions
from av_td3_ros.td3 import load_checkpoint
from av_td3_ros.trust.session_key import PREFIX as SESSION_KEYS

AV_TD3 = Path(sys.executable).with_name('av-td3')
STEPS = 300
START_AFTER = 100
# A slack below publish_every: the world waits for each policy, however slow the machine is.
SMALL = ('limiter.start_after=100', 'limiter.updates_per_transition=0.5', 'limiter.slack=8',
         'exploration.warmup_steps=100', 'publish_every=20', 'td3.batch_size=16',
         'network.features=32', 'world.camera.width=96', 'world.camera.height=72',
         'episodes.min_length=40', 'episodes.max_length=60',
         'driving.termination.max_steps=200')
STARTING = 3 * TIMEOUT  # s; six processes that import torch on a machine with two cores


class Training:
    """A process of `av-td3 train` and what it leaves."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None
                 ) -> None:
        self.run = folder / 'run'
        self.said, self.runtime = folder / 'said.txt', folder / 'runtime'
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        settings = [word for one in SMALL for word in ('--config', one)]
        settings += () if '--profile' in options else ('--map', 'loop')  # the world has its own
        with self.said.open('wb') as output:
            self.process = psutil.Popen(
                [AV_TD3, 'train', '--run', str(self.run), *settings, *options],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**(environment or os.environ), 'XDG_RUNTIME_DIR': str(self.runtime)})

    def nodes(self) -> dict[str, psutil.Process]:
        """Return the processes of this run's nodes by name."""
        found = {}
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:  # it is gone already
                continue
            if any(word.startswith(str(self.run)) for word in words) and '-m' in words:
                found[words[words.index('-m') + 1].rpartition('.')[2]] = process
        return found

    def ended(self, timeout: float) -> str:
        """Wait for the end; return what was said."""
        self.process.wait(timeout)
        return self.said.read_text()

    def clear(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for process in (self.process, *self.nodes().values()):
            if process.is_running():
                process.kill()
        self.process.wait(TIMEOUT)


@pytest.fixture(scope='module')
def finished(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """Train once, briefly, to the end."""
    environment = {key: value for key, value in os.environ.items() if key != 'ROS_DOMAIN_ID'}
    training = Training(tmp_path_factory.mktemp('session'), '--steps', str(STEPS), '--eval-map',
                        'loop', '--eval-episodes', '1', '--seed', '3', environment=environment)
    try:
        training.ended(240)
        yield training
    finally:
        training.clear()


@pytest.fixture
def train(domain: int, tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Return a function that starts a training that nobody waits for."""
    started: list[Training] = []

    def train(*options: str) -> Training:
        started.append(Training(tmp_path, '--steps', '100000', *options))
        return started[-1]

    yield train
    for one in started:
        one.clear()


def learner_lines(run: Path) -> list[dict[str, Any]]:
    """Return what the learner wrote to metrics.jsonl."""
    lines = map(json.loads, (run / 'metrics.jsonl').read_text().splitlines())
    return [line for line in lines if line['kind'] == 'learner']


def test_a_session_ends_by_itself_with_the_report(finished: Training) -> None:
    said = finished.said.read_text()
    assert finished.process.wait() == 0, said
    assert str(finished.run / 'report.html') in said
    assert all(driver in said for driver in ('untrained', 'learned', 'pursuit'))
    assert not finished.nodes()


def test_a_run_learns_from_the_bag_of_another_one(finished: Training, ros: None,
                                                  tmp_path: Path) -> None:
    training = Training(tmp_path, '--steps', '0', '--from-bags', str(finished.run / 'bag'),
                        '--eval-episodes', '0')
    try:
        said = training.ended(STARTING)
        assert training.process.wait() == 0, said
        assert {path.name for path in (training.run / 'logs').iterdir()} == {
            'learner_node.log', 'validation.log'}
        first, *_, last = learner_lines(training.run)
        driven = sum(not one.is_last for one in read_transitions(finished.run / 'bag'))
        assert first['transitions'] == last['transitions'] == driven
        assert last['updates'] == (driven - 1) // 2 and last['finished']
        assert load_checkpoint(training.run / 'checkpoints').updates == last['updates']
    finally:
        training.clear()


@pytest.mark.parametrize(('options', 'words'), [
    (('--steps', '0'), 'give 1 or more, or 0 with --from-bags'),
    (('--from-bags', '/nowhere/bag'), '/nowhere/bag')])
def test_bags_that_are_not_there_are_named(ros: None, tmp_path: Path, options: tuple[str, ...],
                                           words: str) -> None:
    training = Training(tmp_path, *options)
    try:
        assert words in training.ended(STARTING)
        assert training.process.wait() == 1
    finally:
        training.clear()


def test_the_run_folder_is_complete(finished: Training) -> None:
    run = finished.run
    names = {path.name for path in run.iterdir()}
    assert names >= {'config.yaml', 'session.json', 'checkpoints', 'bag', 'tensorboard',
                     'metrics.jsonl', 'validation.jsonl', 'evaluation.json', 'plots',
                     'drive.mp4', 'report.html', 'logs'}
    config = Config.read(run / 'config.yaml').values()
    assert config['learner_node']['limiter.start_after'] == START_AFTER
    assert config['learner_node']['total_transitions'] == STEPS
    assert config['simulator_node']['world.camera.width'] == 96
    assert {path.stem for path in (run / 'logs').glob('*.log')} >= {
        spec.name for spec in session_nodes('embedded', 'ego_vehicle', learning=True)}
    assert list((run / 'tensorboard').iterdir())
    plots = list((run / 'plots').glob('*.png'))
    assert len(plots) >= 3
    assert all(cv2.imread(str(plot)) is not None for plot in plots)
    video = cv2.VideoCapture(str(run / 'drive.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) > 10 and video.read()[0]
    report = (run / 'report.html').read_text()
    assert all(word in report for word in ('untrained', 'learned', 'pursuit', '<html'))


def test_the_drivers_are_compared(finished: Training) -> None:
    evaluation = json.loads((finished.run / 'evaluation.json').read_text())
    assert evaluation['map'] == 'loop'
    for driver in ('untrained', 'learned', 'pursuit'):
        result = evaluation[driver]
        assert 0.0 <= result['success'] <= 1.0
        assert 0.0 <= result['route_completion'] <= 1.0
        assert isinstance(result['mean_return'], float)
        (episode,) = result['episodes']
        assert episode['steps'] > 0 and len(episode['path']) > 1
        assert result['metrics']['route_completion'].keys() == {'mean', 'low', 'high'}
    pursuit = evaluation['pursuit']
    assert (pursuit['success'], pursuit['route_completion']) == (1.0, pytest.approx(1.0, abs=.06))
    # The learned policy is the one that validation chose.
    best = (finished.run / 'checkpoints' / 'best').resolve()
    assert evaluation['learned']['policy'] == str(best)
    assert [one['checkpoint'] for one in read_validations(finished.run)] == [best.name]
    # All of them drove the same route.
    routes = {evaluation[driver]['episodes'][0]['route_length']
              for driver in ('untrained', 'learned', 'pursuit')}
    assert len(routes) == 1


def test_the_learner_did_all_its_updates_and_lost_nothing(finished: Training) -> None:
    last = learner_lines(finished.run)[-1]
    assert last['finished']
    assert (last['transitions'], last['updates']) == (STEPS, (STEPS - START_AFTER) // 2)
    assert (last['transitions_lost'], last['transitions_refused'], last['updates_skipped']) == (
        0, 0, 0)
    checkpoint = load_checkpoint(finished.run / 'checkpoints')
    assert checkpoint.updates == last['updates']
    assert checkpoint.counters['transitions'] == STEPS
    assert load_checkpoint(finished.run / 'checkpoints' / 'untrained').updates == 0


def test_the_bag_holds_every_transition_that_was_learned_from(finished: Training) -> None:
    steps = list(read_transitions(finished.run / 'bag'))
    assert [one.sequence for one in steps] == list(range(1, len(steps) + 1))
    learned = [one for one in steps if not one.is_last]
    assert len(learned) >= STEPS
    assert len({one.session for one in steps}) == 1
    for one, after in itertools.pairwise(steps):
        if not one.is_last:
            assert (after.episode, after.step) == (one.episode, one.step + 1)
            # Lockstep: every image was answered before the next one.
            assert stamp_ns(after) - stamp_ns(one) == 50_000_000
        else:
            assert after.is_first and after.episode == one.episode + 1


def stamp_ns(transition: Any) -> int:
    """Return the time of an observation."""
    stamp = transition.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def test_the_policy_is_refreshed_while_it_drives(finished: Training) -> None:
    learned = [one for one in read_transitions(finished.run / 'bag') if not one.is_last]
    versions = [one.policy_version for one in learned]
    assert versions == sorted(versions)
    assert len(set(versions)) > 2
    assert versions[-1] > versions[START_AFTER]
    assert all(one.exploring for one in learned[:START_AFTER])


def test_the_sessions_key_is_in_nothing_that_it_leaves(finished: Training) -> None:
    logs = finished.run / 'logs'
    for node in ('policy_node', 'learner_node'):
        log = (logs / f'{node}.log').read_text()
        assert 'UNSIGNED' not in log and 'refused' not in log, log
    for path in finished.run.rglob('*'):
        if path.is_file():
            assert b'PRIVATE KEY' not in path.read_bytes(), path
    assert SESSION_KEYS not in (finished.run / 'config.yaml').read_text()
    assert not list(finished.runtime.glob(f'{SESSION_KEYS}*'))


def status_of(peer: Peer, wanted: Callable[[LearnerStatus], bool]) -> LearnerStatus:
    """Wait for a status of the learner."""
    return peer.hear(LearnerStatus, '/learner/status', qos.STATUS).next(wanted, STARTING)


def test_the_graph_is_seen_from_outside(peer: Peer, train: Callable[..., Training]) -> None:
    """A session of a kind that one Ctrl-C ends, with everything that it has learned."""
    training = train()
    heard = status_of(peer, lambda one: one.updates > 0)
    names = set(peer.node.get_node_names_and_namespaces())
    assert names >= {('simulator_node', '/'), ('environment_node', '/ego_vehicle'),
                     ('policy_node', '/ego_vehicle'), ('control_node', '/ego_vehicle'),
                     ('recorder_node', '/ego_vehicle'), ('learner_node', '/learner')}
    topics = dict(peer.node.get_topic_names_and_types())
    for topic, kind in {
            '/ego_vehicle/observation': 'av_td3_msgs/msg/Observation',
            '/ego_vehicle/action': 'av_td3_msgs/msg/Action',
            '/ego_vehicle/applied_action': 'av_td3_msgs/msg/AppliedAction',
            '/learner/transition': 'av_td3_msgs/msg/Transition',
            '/learner/actor_weights': 'av_td3_msgs/msg/ActorWeights',
            '/learner/status': 'av_td3_msgs/msg/LearnerStatus',
            '/carla/ego_vehicle/rgb_front/image': 'sensor_msgs/msg/Image',
            '/carla/ego_vehicle/vehicle_control_cmd': 'carla_msgs/msg/CarlaEgoVehicleControl',
    }.items():
        assert topics.get(topic) == [kind], topic

    nodes = training.nodes()
    assert len(nodes) == 7  # six nodes, and what validates checkpoints
    training.process.send_signal(signal.SIGINT)
    said = training.ended(TIMEOUT)
    assert not [one for one in nodes.values() if one.is_running()]
    assert training.process.wait() == 130
    assert f'what there is lies in {training.run}' in said and 'Traceback' not in said
    logs = {name: (training.run / 'logs' / f'{name}.log').read_text() for name in nodes}
    assert not [name for name, log in logs.items() if 'Traceback' in log], logs
    checkpoint = load_checkpoint(training.run / 'checkpoints')
    assert checkpoint.updates >= heard.updates
    assert 'go on from it: av-td3 train ' in said and f'resume={training.run}' in said
    steps = list(read_transitions(training.run / 'bag'))
    assert [one.sequence for one in steps] == list(range(1, len(steps) + 1))
    assert len([one for one in steps if not one.is_last]) >= checkpoint.counters['transitions']


def test_a_node_that_dies_ends_the_session_with_its_name(peer: Peer,
                                                         train: Callable[..., Training]) -> None:
    training = train()
    status_of(peer, lambda one: one.transitions > 0)
    nodes = training.nodes()
    nodes['policy_node'].kill()
    said = training.ended(TIMEOUT)
    assert training.process.wait() == 1
    assert 'policy_node was killed by SIGKILL' in said
    assert str(training.run / 'logs' / 'policy_node.log') in said
    assert 'Traceback' not in said
    assert not [one for one in nodes.values() if one.is_running()]
    assert list(read_transitions(training.run / 'bag'))


@pytest.mark.parametrize('victim', ['learner_node', 'recorder_node'])
def test_what_survives_a_killed_node_is_gone_on_from(peer: Peer, train: Callable[..., Training],
                                                     victim: str) -> None:
    training = train('--validation-episodes', '0', '--eval-episodes', '0', '--config',
                     'checkpoint_every=20')
    await_that(lambda: (training.run / 'checkpoints' / '00000020').exists(), 'a checkpoint',
               STARTING)
    training.nodes()[victim].kill()
    said = training.ended(TIMEOUT)
    assert f'{victim} was killed by SIGKILL' in said
    bag, checkpoint = training.run / 'bag', load_checkpoint(training.run / 'checkpoints')
    assert f'checkpoint {checkpoint.path} with {checkpoint.updates} updates' in said
    assert (f'av-td3 recover {bag}' in said) == (victim == 'recorder_node')
    (line,) = [line for line in said.splitlines() if line.startswith('go on from it: ')]
    words = shlex.split(line.partition(': ')[2])
    assert words[:2] == ['av-td3', 'train']
    steps = words.index('--steps') + 1
    assert 99_000 < int(words[steps]) < 100_000
    words[steps] = '40'
    environment = {**os.environ, 'XDG_RUNTIME_DIR': str(training.runtime)}
    subprocess.run([AV_TD3, *words[1:]], env=environment, check=True, timeout=STARTING,
                   stdout=subprocess.DEVNULL)
    recorded = sum(not one.is_last for one in read_transitions(bag))
    again = Path(words[words.index('--run') + 1])
    last = learner_lines(again)[-1]
    assert last['transitions'] == recorded + 40  # each step once
    assert last['updates'] > checkpoint.updates


def test_a_node_that_cannot_start_ends_the_session_with_its_reason(
        train: Callable[..., Training]) -> None:
    training = train('--config', 'world.spawn_point=9999')
    said = training.ended(STARTING)
    assert training.process.wait() == 1
    assert 'simulator_node ended with status 1' in said
    assert 'spawn_point = 9999 must be below that' in said
    assert not training.nodes()


def test_a_session_without_its_world_says_what_it_waits_for(
        train: Callable[..., Training]) -> None:
    training = train('--profile', 'carla')
    await_that(lambda: 'nothing is driven: ' in training.said.read_text(), 'the reason', STARTING)
    training.process.send_signal(signal.SIGINT)
    said = training.ended(TIMEOUT)
    (line,) = [line for line in said.splitlines() if 'nothing is driven: ' in line]
    assert 'waiting for the start: no map to drive on has come' in line
    assert 'av-td3 doctor --profile carla' in line


def test_a_session_without_an_update_says_that_nothing_was_learned(
        train: Callable[..., Training]) -> None:
    training = train('--steps', '20', '--eval-map', 'loop', '--eval-episodes', '1')
    said = training.ended(2 * STARTING)
    assert training.process.wait() == 0, said
    assert '--steps 20 allows no update' in said and 'limiter.start_after = 100 ' in said
    assert 'nothing was learned: the learner made 0 updates' in said
    evaluation = json.loads((training.run / 'evaluation.json').read_text())
    assert 'untrained' in evaluation and 'learned' not in evaluation


def test_nodes_do_not_outlive_a_killed_session(peer: Peer, train: Callable[..., Training]) -> None:
    training = train()
    status_of(peer, lambda one: one.transitions > 0)
    nodes = training.nodes()
    assert len(nodes) == 7  # six nodes, and what validates checkpoints
    training.process.kill()
    await_that(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE
                               for one in nodes.values()), 'the end of all nodes')
    assert list(read_transitions(training.run / 'bag'))  # closed in good order


@pytest.mark.parametrize(('options', 'words'), [
    (('--steps', '0'), '--steps 0: give 1 or more'),
    (('--map', 'atlantis'), "'atlantis'"),
    (('--config', 'td3.gama=0.9'), "did you mean 'td3.gamma'"),
    (('--config', 'td3.gamma=1.5'), 'td3.gamma = 1.5 is out of range'),
    (('--config', 'td3.gamma'), 'td3.gamma')])
def test_impossible_options_are_one_line(refusal: Callable[..., str], tmp_path: Path,
                                         options: tuple[str, ...], words: str) -> None:
    assert words in refusal('--run', str(tmp_path / 'run'), *options)
    assert not (tmp_path / 'run').exists()


def test_a_run_folder_in_use_is_not_touched(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / 'precious').write_text('mine')
    assert 'is not empty: choose another one' in refusal('--run', str(tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == ['precious']


def test_a_run_folder_in_use_names_the_command_that_goes_on(
        finished: Training, refusal: Callable[..., str], tmp_path: Path) -> None:
    run = finished.run
    said = refusal('--run', str(run), '--steps', '50', '--seed', '4')
    assert (f'choose another one, or go on from it: av-td3 train --seed 4 --steps 50 --config '
            f'resume={run}/checkpoints --from-bags {run}/bag --run {run}-2') in said


@pytest.fixture
def refusal(ros: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
            ) -> Callable[..., str]:
    """Return a function that runs `av-td3 train` in this process and returns its one line."""
    def refusal(*options: str) -> str:
        monkeypatch.setattr(sys, 'argv', ['av-td3', 'train', *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refusal
