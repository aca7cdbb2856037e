"""The launch files as `ros2 launch` runs them; only a ROS installation has it."""
from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS installation only')
pytest.importorskip('ros2launch', reason='ros2launch comes with a ROS installation only')

from av_td3_msgs.msg import ActorWeights, AppliedAction, LearnerStatus, Observation
from harness import TIMEOUT, Peer, await_that
from launch import LaunchDescription
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool

from av_td3_ros.cli.config import Config
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros import qos
from av_td3_ros.ros.recording.bag import read_transitions
from av_td3_ros.td3 import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
STARTING = 3 * TIMEOUT  # s; up to twelve processes that import torch on a machine with two cores
SMALL = ' '.join((
    'limiter.start_after=20', 'limiter.updates_per_transition=0.5', 'limiter.slack=8',
    'exploration.warmup_steps=20', 'publish_every=10', 'td3.batch_size=8', 'network.features=16',
    'world.camera.width=96', 'world.camera.height=72', 'episodes.min_length=40',
    'episodes.max_length=60', 'driving.termination.max_steps=100'))


@pytest.fixture(scope='session')
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package by colcon; return what a shell that sourced it has in front."""
    pytest.importorskip('colcon_core', reason='colcon is not installed')
    workspace = tmp_path_factory.mktemp('workspace')
    prefix = workspace / 'install'
    built = subprocess.run(
        [sys.executable, '-m', 'colcon', '--log-base', workspace / 'log', 'build', '--base-paths',
         ROOT, '--packages-select', 'av_td3_ros', '--build-base', workspace / 'build',
         '--install-base', prefix, '--merge-install'],
        check=False, capture_output=True, text=True, timeout=120,
        env={**os.environ, 'COLCON_DEFAULTS_FILE': os.devnull, 'AMENT_PREFIX_PATH': sys.prefix})
    assert built.returncode == 0, built.stdout + built.stderr
    library = sysconfig.get_path('purelib', 'posix_prefix', vars={'base': str(prefix)})
    return {'AMENT_PREFIX_PATH': str(prefix), 'PYTHONPATH': library}


class Launched:
    """A process of `ros2 launch` and what it says."""

    def __init__(self, folder: Path, environment: dict[str, str], file: str, *words: str,
                 **arguments: object) -> None:
        named = [file] if file.endswith('.py') else ['av_td3_ros', f'{file}.launch.py']
        self._said = folder / f'{Path(file).name}.txt'
        mine = {name: value for name, value in os.environ.items()
                if not name.endswith('_DEFAULT_PROFILES_FILE')}  # conftest.py gives one
        with self._said.open('wb') as output:
            self.process = psutil.Popen(
                [sys.executable, '-c', 'from ros2cli.cli import main; raise SystemExit(main())',
                 'launch', *named, *words,
                 *(f'{key}:={value}' for key, value in arguments.items())],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
                env={**mine, 'ROS_LOG_DIR': str(folder / 'log'), **{
                    name: os.pathsep.join(filter(None, [first, mine.get(name)]))
                    for name, first in environment.items()}})

    @property
    def said(self) -> str:
        """Return what it has said so far."""
        return self._said.read_text(errors='replace')

    def node(self, name: str) -> psutil.Process | None:
        """Return the process of a node, None where there is none."""
        for one in self.process.children(recursive=True):
            try:
                if any(word.endswith(f'/{name}') for word in one.cmdline()[:2]):
                    return one
            except psutil.Error:  # it is gone already
                continue
        return None

    def ended(self, timeout: float = STARTING) -> int:
        """Wait for its end; return its exit status."""
        try:
            return self.process.wait(timeout)
        except psutil.TimeoutExpired:
            raise AssertionError(f'it goes on after {timeout:g} s: {self.said[-3000:]}') from None

    def stop(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.ended(TIMEOUT)

    def clear(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        try:
            left = [*self.process.children(recursive=True), self.process]
        except psutil.NoSuchProcess:
            return
        for one in left:
            if one.is_running():
                one.kill()
        psutil.wait_procs(left, TIMEOUT)


@pytest.fixture
def launched(domain: int, tmp_path: Path, installed: dict[str, str]
             ) -> Iterator[Callable[..., Launched]]:
    """Return a function that launches a file of the installed package with arguments."""
    made: list[Launched] = []

    def start(file: str, *words: str, **arguments: object) -> Launched:
        made.append(Launched(tmp_path, installed, file, *words, **arguments))
        return made[-1]

    yield start
    for one in made:
        one.clear()


def described(path: Path) -> LaunchDescription:
    """Return the description of a launch file, loaded as `ros2 launch` does."""
    spec = importlib.util.spec_from_file_location(path.name.replace('.', '_'), path)
    assert spec is not None and spec.loader is not None
    loaded: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.generate_launch_description()


# -- what can be known without starting anything


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_argument_is_described_and_has_a_default(path: Path) -> None:
    arguments = described(path).get_launch_arguments()
    assert arguments
    for argument in arguments:
        assert argument.default_value is not None, argument.name
        assert argument.description not in (None, '', 'no description given'), argument.name


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_the_arguments_can_be_shown(launched: Callable[..., Launched], path: Path) -> None:
    shown = launched(path.name.partition('.')[0], '--show-args')
    assert shown.ended() == 0, shown.said
    for argument in described(path).get_launch_arguments():
        assert f"'{argument.name}':" in shown.said


@pytest.mark.parametrize(('file', 'argument', 'told'), [
    ('train', {'seed': 'x'}, "seed: 'x' is no whole number"),
    ('train', {'map': 'nowhere'}, "map 'nowhere'"),
    ('train', {'steps': '-5'}, 'total_transitions = -5'),
    ('train', {'params_file': '/nowhere.yaml'}, '/nowhere.yaml'),
    ('train', {'profile': 'carla', 'map': 'town'}, 'has no simulator of its own'),
    ('train', {'profile': 'moon'}, 'moon'),
    ('train', {'vehicle': 'my car'}, "'my car' is no ROS name"),
    ('train', {'config': 'td3.gama=0.9'}, 'config:=td3.gama: unknown key; did you mean'),
    ('train', {'resume': '/nowhere'}, '/nowhere'),
    ('drive', {'policy': '/nowhere'}, "policy '/nowhere' is no folder"),
    ('train', {'vehcile': 'car'}, 'vehcile: train.launch.py has no such argument; vehicle?'),
    ('vehicle', {'polcy': 'pursuit'}, 'polcy: vehicle.launch.py has no such argument; policy?'),
    ('train', {'odometry': '/a b'}, "'/a b' is no topic"),
    ('vehicle', {'steps': '50', 'ranks': '3'}, 'steps, ranks: nothing is learned here'),
    ('vehicle', {'policy': 'pursuit', 'learner': 'true'}, 'policy: what is learned drives here'),
    ('fleet', {'vehicles': '0'}, "vehicles: '0': give 1 or more"),
    ('fleet', {'worlds': 'shared'}, 'give worlds:=own'),
])
def test_what_cannot_be_is_said_before_anything_starts(
        launched: Callable[..., Launched], tmp_path: Path, file: str, argument: dict[str, str],
        told: str) -> None:
    it = launched(file, run=tmp_path / 'run', **argument)
    assert it.ended() == 1
    assert told in it.said
    assert 'process started' not in it.said
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('argument', 'told'), [
    ({'map': 'nowhere'}, "map 'nowhere' is no file"),
    ({'policy': '/nowhere'}, "policy '/nowhere' is no folder"),
    ({'episodes': 'x'}, "--episodes: invalid int value: 'x'"),
    ({'config': 'td3.gama=0.9'}, 'td3.gama: unknown key; did you mean'),
])
def test_an_evaluation_that_cannot_be_is_told_once(
        launched: Callable[..., Launched], argument: dict[str, str], told: str) -> None:
    it = launched('evaluate', **argument)
    assert it.ended() == 1
    assert it.said.count(told) == 1
    assert 'process started' not in it.said


def test_a_run_folder_is_never_written_over(launched: Callable[..., Launched], tmp_path: Path
                                            ) -> None:
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'report.html').touch()
    it = launched('train', run=tmp_path / 'run')
    assert it.ended() == 1
    assert 'is not empty' in it.said


@pytest.mark.skipif('bag' in {one.name for one in importlib.metadata.entry_points(
    group='ros2cli.command')}, reason='ros2 bag is installed')
def test_a_rosbag_without_ros2_bag_says_what_to_install(
        launched: Callable[..., Launched], tmp_path: Path) -> None:
    it = launched('drive', run=tmp_path / 'run', policy='pursuit', record='true')
    assert it.ended() == 1
    assert 'ros2bag' in it.said and 'sudo apt install' in it.said
    assert not (tmp_path / 'run').exists()


def test_a_rosbag_is_told_the_topics_of_the_vehicle(
        launched: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    programs = tmp_path / 'programs'  # in the place of a ros2 bag, which may not be there
    (programs / 'ros2bag-1.0.dist-info').mkdir(parents=True)
    (programs / 'ros2bag-1.0.dist-info' / 'METADATA').write_text('Name: ros2bag\nVersion: 1.0\n')
    (programs / 'ros2bag-1.0.dist-info' / 'entry_points.txt').write_text(
        '[ros2cli.command]\nbag = ros2bag.command.bag:BagCommand\n')
    (programs / 'ros2').write_text('#!/bin/sh\necho "told: $@"\n')
    (programs / 'ros2').chmod(0o755)
    monkeypatch.setenv('PATH', f'{programs}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', f'{programs}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    it = launched('drive', run=tmp_path / 'run', policy='pursuit', map='loop', record='true',
                  vehicle='hero', config=SMALL)
    assert it.ended() == 0, it.said[-3000:]  # the bag is wanted: the session ends with it
    (told,) = (line for line in it.said.splitlines() if 'told: ' in line)
    words = told.partition('told: ')[2].split()
    assert words[:7] == ['bag', 'record', '--storage', 'mcap', '--output',
                         str(tmp_path / 'run' / 'sensors'), '--regex']
    wanted = re.compile(words[7])
    for topic in ('/carla/hero/rgb_front/image', '/carla/hero/odometry', '/clock',
                  '/carla/hero/vehicle_control_cmd'):
        assert wanted.search(topic), topic
    for topic in ('/hero/observation', '/carla/hero2/odometry', '/learner/transition', '/clocks'):
        assert not wanted.search(topic), topic


# -- whole sessions


def test_training_ends_by_itself_with_everything_written(
        launched: Callable[..., Launched], tmp_path: Path) -> None:
    file = tmp_path / 'mine.yaml'
    Config.shipped().with_values({'learner_node': {'seed': 5, 'total_transitions': 70},
                                  'simulator_node': {'seed': 5, 'world.map': 'loop'}}
                                 ).write(file, 'mine')
    it = launched('train', run=tmp_path / 'run', vehicle='hero', params_file=file, seed=9,
                  config=SMALL)
    assert it.ended() == 0, it.said[-3000:]
    assert 'finished: 70 transitions' in it.said
    used = Config.read(tmp_path / 'run' / 'config.yaml').values()
    assert used['learner_node']['seed'] == used['simulator_node']['seed'] == 9
    assert used['simulator_node']['world.map'] == 'loop'
    assert load_checkpoint(str(tmp_path / 'run' / 'checkpoints')).updates == 25
    steps = list(read_transitions(tmp_path / 'run' / 'bag'))
    assert {one.vehicle for one in steps} == {'hero'}


def test_a_fleet_drives_in_worlds_of_its_own_and_teaches_one_learner(
        launched: Callable[..., Launched], peer: Peer, tmp_path: Path) -> None:
    clocks = [peer.hear(Clock, f'/car_{index}/clock') for index in (1, 2)]
    status = peer.hear(LearnerStatus, '/learner/status', qos.STATUS)
    it = launched('fleet', vehicles=2, vehicle='car', run=tmp_path / 'run', map='loop', steps=120,
                  config=SMALL)
    for clock in clocks:
        clock.next(timeout=STARTING)
    # Held while learning is behind, all of them: none runs away from the others.
    last = status.next(lambda one: one.finished, timeout=STARTING)
    assert it.ended() == 0, it.said[-3000:]
    assert (last.transitions_lost, last.transitions_refused, last.transitions_duplicate) == (
        0, 0, 0)
    driven = {}
    for vehicle in ('car_1', 'car_2'):
        steps = list(read_transitions(tmp_path / 'run' / 'bags' / vehicle))
        assert {one.vehicle for one in steps} == {vehicle}
        driven[vehicle] = [tuple(one.state) for one in steps[:20]]
        assert len(steps) > 20
    assert driven['car_1'] != driven['car_2']
    assert '/clock' not in dict(peer.node.get_topic_names_and_types())


def test_the_learner_can_run_elsewhere(
        launched: Callable[..., Launched], peer: Peer, tmp_path: Path) -> None:
    # Both on this host here; they share nothing but the network.
    learner = launched('learner', profile='embedded', run=tmp_path / 'learner', steps=60,
                       config=SMALL)
    driving = launched('train', learner='elsewhere', run=tmp_path / 'driving', map='loop',
                       config=SMALL)
    weights = peer.hear(ActorWeights, '/learner/actor_weights', qos.LATCHED)
    weights.next(lambda one: one.version > 1, timeout=STARTING)
    small = {}
    for it, name in ((learner, 'learner_node'), (driving, 'recorder_node'),
                     (driving, 'environment_node')):
        process = it.node(name)
        assert process is not None
        small[name] = any(value.endswith('/fastdds_link.xml')
                          for value in process.environ().values())
    assert learner.ended() == 0, learner.said[-3000:]
    assert driving.ended() == 0, driving.said[-3000:]  # with what it drove for
    assert 'learner_node' not in driving.said
    assert small == {'learner_node': True, 'recorder_node': True, 'environment_node': False}
    assert (tmp_path / 'learner' / 'checkpoints' / 'latest').is_dir()
    assert list(read_transitions(tmp_path / 'driving' / 'bag'))


def test_training_goes_on_from_a_run(launched: Callable[..., Launched], tmp_path: Path) -> None:
    first = launched('train', run=tmp_path / 'first', map='loop', steps=40, config=SMALL)
    assert first.ended() == 0, first.said[-3000:]
    before = load_checkpoint(str(tmp_path / 'first' / 'checkpoints')).updates
    # The network's shape comes with the run.
    shape = [word for word in SMALL.split() if not word.startswith('network.')]
    second = launched('train', run=tmp_path / 'second', map='loop', steps=30,
                      resume=tmp_path / 'first', config=' '.join(shape))
    assert second.ended() == 0, second.said[-3000:]
    assert load_checkpoint(str(tmp_path / 'second' / 'checkpoints')).updates > before


def test_ctrl_c_twice_while_it_starts_ends_it_as_once(
        launched: Callable[..., Launched], tmp_path: Path) -> None:
    it = launched('train', run=tmp_path / 'run', map='loop', config=SMALL)
    for words in ('process started', 'user interrupted'):
        await_that(lambda words=words: words in it.said, words, STARTING)
        it.process.send_signal(signal.SIGINT)
    # Where the second comes when launch has nothing left to do, it is the end of Python.
    assert it.ended() in (0, -signal.SIGINT), it.said[-3000:]
    assert 'terminate called' not in it.said
    assert not any(line.startswith('Traceback') for line in it.said.splitlines())


def test_a_session_ends_with_the_first_of_its_nodes(
        launched: Callable[..., Launched], peer: Peer, tmp_path: Path) -> None:
    it = launched('drive', policy='pursuit', map='loop', run=tmp_path / 'run', config=SMALL)
    applied = peer.hear(AppliedAction, '/ego_vehicle/applied_action')
    applied.next(lambda one: one.source == AppliedAction.SOURCE_POLICY, timeout=STARTING)
    # Whatever a learner in the same domain sends: what was asked for drives.
    assert peer.node.count_subscribers('/learner/actor_weights') == 0
    policy = it.node('policy_node')
    assert policy is not None
    policy.kill()
    assert it.ended(TIMEOUT) == 1
    assert 'policy_node' in it.said.rpartition('process has died')[2]


def test_a_node_of_the_vehicle_side_is_started_again(
        launched: Callable[..., Launched], peer: Peer, tmp_path: Path) -> None:
    it = launched('drive', policy='pursuit', map='loop', run=tmp_path / 'run', config=SMALL,
                  respawn='true')
    applied = peer.hear(AppliedAction, '/ego_vehicle/applied_action')
    applied.next(lambda one: one.source == AppliedAction.SOURCE_POLICY, timeout=STARTING)
    killed = it.node('policy_node')
    assert killed is not None
    killed.kill()
    applied.next(lambda one: one.source == AppliedAction.SOURCE_WATCHDOG)
    applied.next(lambda one: one.source == AppliedAction.SOURCE_POLICY, timeout=STARTING)
    again = it.node('policy_node')
    assert again is not None and again.pid != killed.pid
    assert it.stop() == 0, it.said[-3000:]


def test_the_pretrained_policy_drives_by_simulated_time(
        launched: Callable[..., Launched], peer: Peer, tmp_path: Path) -> None:
    it = launched('drive', map='loop', run=tmp_path / 'run', transitions='true',
                  use_sim_time='true')
    applied = peer.hear(AppliedAction, '/ego_vehicle/applied_action')
    for _ in range(20):
        applied.next(lambda one: one.source == AppliedAction.SOURCE_POLICY, timeout=STARTING)
    assert it.stop() == 0, it.said[-3000:]
    steps = list(read_transitions(tmp_path / 'run' / 'bag'))
    assert len(steps) > 10
    assert max(one.recorded.sec for one in steps) < 1_000_000  # s: no date, but time driven


def test_the_simulator_alone_goes_by_the_clock(launched: Callable[..., Launched], peer: Peer
                                               ) -> None:
    odometry = peer.hear(Odometry, '/carla/hero/odometry')
    it = launched('simulator', vehicle='hero', map='loop')
    odometry.next(timeout=STARTING)
    odometry.next()
    assert it.stop() == 0, it.said[-3000:]


def test_an_evaluation_ends_with_its_numbers(launched: Callable[..., Launched], tmp_path: Path
                                             ) -> None:
    it = launched('evaluate', policy='pursuit', map='loop', episodes=1, out=tmp_path / 'run',
                  config='episodes.min_length=40 episodes.max_length=60')
    assert it.ended() == 0, it.said[-3000:]
    assert (tmp_path / 'run' / 'evaluation.json').is_file()


@pytest.mark.parametrize('learner', ['false', 'true'])
def test_the_vehicle_side_listens_to_the_vehicle(
        launched: Callable[..., Launched], peer: Peer, tmp_path: Path, learner: str) -> None:
    arguments = {} if learner == 'true' else {'policy': 'pursuit'}
    it = launched('vehicle', learner=learner, run=tmp_path / 'run', odometry='/localisation',
                  **arguments)
    for topic in ('/vehicle/camera/image/compressed', '/localisation', '/vehicle/route'):
        await_that(lambda topic=topic: peer.node.count_subscribers(topic),
                   f'a subscriber of {topic}', STARTING)
    await_that(lambda: peer.node.count_publishers('/vehicle/command'), 'commands', STARTING)
    await_that(lambda: bool(peer.node.count_publishers('/learner/transition')), 'the recorder',
               STARTING)
    assert bool(it.node('learner_node')) == (learner == 'true')
    assert it.node('simulator_node') is None
    assert it.stop() == 0, it.said[-3000:]


def test_a_control_node_that_dies_at_speed_leaves_a_vehicle_that_stands_until_engaged(
        launched: Callable[..., Launched], peer: Peer, tmp_path: Path) -> None:
    start = RoadMap.from_file(map_file('loop')).spawn_points()[0]
    it = launched('vehicle', profile='vehicle_in_the_loop_bench', policy='pursuit', map='loop',
                  run=tmp_path / 'run', config=(
                      'simulator_node.route_length=150.0 external.ground.length=500.0 '
                      f'external.ground.width=500.0 external.start.x={start.x} '
                      f'external.start.y={start.y} external.start.yaw={start.yaw}'))
    odometry = peer.hear(Odometry, '/vehicle/odometry')
    observations = peer.hear(Observation, '/ego_vehicle/observation', qos.STEP)
    observations.next(timeout=STARTING)
    assert abs(odometry.messages[-1].twist.twist.linear.x) < 0.3  # nobody has engaged it
    engaged = peer.ask(SetBool, '/ego_vehicle/control_node/engage', SetBool.Request(data=True))
    assert engaged.success, engaged.message
    odometry.next(lambda one: one.twist.twist.linear.x > 3.0)
    killed = it.node('control_node')
    assert killed is not None
    killed.kill()
    await_that(lambda: (again := it.node('control_node')) and again.pid != killed.pid,
               'another control node')
    odometry.next(lambda one: abs(one.twist.twist.linear.x) < 0.3)
    peer.hear(String, '/ego_vehicle/control_state', qos.LATCHED).next(
        lambda one: 'not engaged yet' in one.data, timeout=STARTING)
    assert it.stop() == 0, it.said[-3000:]


@pytest.mark.skipif(shutil.which('rviz2') is not None, reason='rviz is there and would open')
def test_looking_on_says_what_is_not_installed_and_shows_the_rest(
        launched: Callable[..., Launched], peer: Peer) -> None:
    it = launched('view', vehicle='hero')
    pictures = peer.hear(Image, '/hero/inspection_node/debug/image', qos.VIEW)
    observe = peer.node.create_publisher(Observation, '/hero/observation', qos.STEP)
    await_that(observe.get_subscription_count, 'the inspection node', STARTING)
    assert 'rviz2 not installed: sudo apt install ros-' in it.said
    observe.publish(Observation(
        vehicle='hero', count=1, height=84, width=84, frames=bytes(84 * 84), state=[0.1] * 23))
    assert pictures.next().encoding == 'bgr8'
    assert it.stop() == 0, it.said[-3000:]
