"""`av-td3 doctor` on a live graph: a healthy vehicle, and one fault at a time."""
from __future__ import annotations

import array
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseStamped
from harness import SPECS, VEHICLE, Peer, Running, await_that
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from av_td3_ros.cli import main
from av_td3_ros.cli.config import Config
from av_td3_ros.cli.session import Session
from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.paths import pretrained_policy
from av_td3_ros.ros import qos
from av_td3_ros.ros.checks.doctor import incompatible
from av_td3_ros.ros.checks.listening import COMMANDS, hearing, needs, roles
from av_td3_ros.ros.conversions import to_bytes, to_pose_message, to_stamp
from av_td3_ros.ros.graph import profile_parameters, session_nodes
from av_td3_ros.ros.markers import to_markers

PROFILE = 'vehicle'
SETTINGS = {'environment_node': {'pairing.tolerance': 0.05, 'camera.mounting.pitch': 0.14}}
RAW = ('--config', 'image_transport=raw')
SPEED = 3.0  # m/s
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
VOLATILE = QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8), (320, 240))
Report = tuple[int, dict[str, dict[str, str]]]
Examine = Callable[..., Report]
Drive = Callable[..., 'Vehicle']


class Vehicle:
    """Sensors and interface of a vehicle that drives straight along its route."""

    def __init__(self, peer: Peer, **faults: Any) -> None:
        """`faults` say what is wrong with which message, in words of `FAULTS` below."""
        config = Config.shipped().with_values(profile_parameters(PROFILE)).with_values(SETTINGS)
        nodes = session_nodes(PROFILE, VEHICLE, learning=False)
        self._needs = {one.role.short: one for one in needs(nodes, config.settings)}
        self._peer, self._faults = peer, faults
        self._began_ns = time.time_ns()
        self._send: dict[str, Callable[[Any], None]] = {}
        self._kinds: dict[str, type] = {}
        for name, need in self._needs.items():
            if name in faults.get('missing', ()):
                continue
            topic = faults.get('topics', {}).get(name, need.topic)
            kind = self._kinds[name] = faults.get('kinds', {}).get(name, need.role.kind)
            profile = faults.get('profiles', {}).get(name, need.role.profile)
            if need.role.is_input:
                self._send[name] = peer.speak(kind, topic, profile, heard=False)
            else:
                peer.hear(kind, topic, profile)
        self._lock, self._is_on = threading.Lock(), True
        peer.node.create_timer(1.0 / faults.get('camera_rate', 20.0),
                               lambda: self._while_on(self._picture))
        peer.node.create_timer(1.0 / faults.get('odometry_rate', 50.0),
                               lambda: self._while_on(self._pose))
        self._route()

    def _while_on(self, send: Callable[[], None]) -> None:
        with self._lock:
            if self._is_on:
                send()

    def close(self) -> None:
        """Fall silent, before the peer leaves the graph."""
        with self._lock:
            self._is_on = False

    def _now(self) -> int:
        return 0 if self._faults.get('age') == 'zero' else (
            time.time_ns() - round(self._faults.get('age', 0.0) * 1e9))

    def _picture(self) -> None:
        stamp, frame = to_stamp(self._now()), 'camera'
        picture = self._faults.get('picture', PICTURE)
        height, width = picture.shape[:2]
        if 'camera_info' in self._send:
            focal = self._faults.get('focal', 160.0)
            info = CameraInfo(width=self._faults.get('info_width', width), height=height,
                              distortion_model='plumb_bob', d=[0.0] * 5,
                              k=[focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0])
            info.header.stamp, info.header.frame_id = stamp, frame
            self._send['camera_info'](info)
        if 'image' not in self._send:
            return
        if self._kinds['image'] is CompressedImage:
            message = CompressedImage(format='jpeg', data=array.array(
                'B', cv2.imencode('.jpg', picture)[1].tobytes()[:self._faults.get('cut')]))
        else:
            message = Image(height=height, width=width, step=3 * width,
                            encoding=self._faults.get('encoding', 'bgr8'),
                            data=to_bytes(picture)[:self._faults.get('cut')])
        message.header.stamp, message.header.frame_id = stamp, frame
        self._send['image'](message)

    def _pose(self) -> None:
        stamp_ns = self._now()
        x = SPEED * (stamp_ns - self._began_ns) * 1e-9
        message = Odometry(child_frame_id='base_link')
        message.header.stamp, message.header.frame_id = to_stamp(stamp_ns), 'map'
        message.pose.pose = to_pose_message(Pose(x, 0.0, 0.0))
        message.pose.pose.position.y = self._faults.get('y', 0.0)
        message.twist.twist.linear.x = SPEED * self._faults.get('speed_factor', 1.0)
        if 'odometry' in self._send:
            self._send['odometry'](message)
        if 'markers' in self._send:
            self._send['markers'](to_markers(message.header, [
                Box(1, x, 0.0, 0.0, 4.5, 1.8, 1.5)], 1))

    def _route(self) -> None:
        if 'path' in self._send:
            message = PathMessage(poses=[
                PoseStamped(pose=to_pose_message(Pose(float(x), 0.0, 0.0)))
                for x in range(0, self._faults.get('route', 2000), 2)])
            message.header.frame_id = 'map'
            self._send['path'](message)


@pytest.fixture
def drive(peer: Peer) -> Iterator[Drive]:
    """Return a function that makes a vehicle with faults drive."""
    driving: list[Vehicle] = []

    def drive(**faults: Any) -> Vehicle:
        driving.append(Vehicle(peer, **faults))
        return driving[-1]

    yield drive
    for one in driving:
        one.close()


@pytest.fixture
def examine(domain: int, tmp_path: Path) -> Examine:
    """Return a function that runs the command: its exit status, and {check: finding}."""
    def examine(*options: str, profile: str = PROFILE,
                settings: Mapping[str, Mapping[str, Any]] = SETTINGS) -> Report:
        file, out = tmp_path / 'settings.yaml', tmp_path / 'doctor.json'
        file.write_text(yaml.safe_dump({f'/**/{node}': {'ros__parameters': dict(values)}
                                        for node, values in settings.items()}))
        status = main._run(['doctor', '--profile', profile, '--seconds', '1', '--params-file',
                            str(file), '--folder', str(tmp_path), '--json', str(out), *options])
        content = json.loads(out.read_text())
        assert (content['verdict'] == 'error') == (status == 1)
        return status, {one['check']: one for one in content['findings']}

    return examine


def test_a_healthy_vehicle_passes(drive: Drive, examine: Examine,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    drive()
    status, found = examine('--policy', 'pretrained')
    assert status == 0, [one for one in found.values() if one['level'] == 'error']
    for check in ('policy', 'image topic', 'odometry topic', 'path topic', 'image',
                  'image stamps', 'odometry stamps', 'odometry motion', 'pairing', 'frames',
                  'route', 'command', 'disk', 'ROS domain', 'middleware'):
        assert found[check]['level'] == 'ok', found[check]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found) + 1  # one line a check, and the sum
    assert all(line.split()[0] in ('ok', 'warning', 'error') for line in lines[:-1])
    assert lines[-1].startswith('0 errors')


FAULTS: list[tuple[dict[str, Any], tuple[str, ...], str, str, str]] = [
    ({'missing': ['image']}, (), 'image topic', 'nobody publishes', 'camera driver'),
    ({'topics': {'image': '/camera/color'}}, (), 'image topic', 'nobody publishes',
     '/camera/color'),
    ({'kinds': {'image': Image}}, (), 'image topic', 'sensor_msgs/msg/Image',
     'image_transport to raw'),
    ({}, RAW, 'image topic', 'sensor_msgs/msg/CompressedImage', 'image_transport to compressed'),
    ({'profiles': {'image': BEST_EFFORT}}, (), 'image topic',
     'best effort publisher and reliable subscription', 'reliable'),
    ({'profiles': {'path': VOLATILE}}, (), 'path topic',
     'volatile publisher and transient local subscription', 'transient local'),
    ({'missing': COMMANDS}, (), 'command topic', 'nobody subscribes', 'interface'),
    ({'camera_rate': 5.0}, (), 'camera rate', 'the policy expects 20 Hz',
     'set the camera to 20 Hz'),
    ({'odometry_rate': 8.0}, (), 'odometry rate', 'slower than the camera', '50 Hz'),
    ({'age': 3.0}, (), 'image stamps', '3.0', 'synchronise'),
    ({'age': -1.0}, (), 'odometry stamps', 'in the future', 'synchronise'),
    ({'age': 'zero'}, (), 'image stamps', 'zero', 'header.stamp'),
    ({'cut': 50}, (), 'image', 'neither JPEG nor PNG, or is cut off', 'driver'),
    ({'kinds': {'image': Image}, 'encoding': 'yuv422'}, RAW, 'image', "'yuv422' is not supported",
     'driver'),
    ({'kinds': {'image': Image}, 'cut': 1000}, RAW, 'image', 'got 1000', 'driver'),
    ({'info_width': 640}, (), 'camera_info', 'the image has 320x240', 'calibrate'),
    ({'y': math.nan}, (), 'odometry numbers', 'not finite', 'source'),
    ({'y': 20.0}, (), 'route', '20.0 m beside', 'driving.termination.max_lateral'),
    ({'speed_factor': 3.6}, (), 'odometry motion', 'km/h', 'm/s'),
    ({}, ('--config', 'pairing.tolerance=0.0'), 'pairing', '0 of', 'pairing.tolerance to 0.0'),
    ({'missing': ['path']}, (), 'path topic', 'nobody publishes', 'av-td3 route publish'),
    ({'route': 1}, (), 'route', 'two distinct points, got 1', 'nav_msgs/Path'),
]


@pytest.mark.parametrize(('fault', 'options', 'check', 'words', 'remedy'), FAULTS,
                         ids=[f'{one[2]}: {one[3]}' for one in FAULTS])
def test_a_fault_is_named_with_its_remedy(drive: Drive, examine: Examine, fault: dict[str, Any],
                                          options: tuple[str, ...], check: str, words: str,
                                          remedy: str) -> None:
    drive(**fault)
    status, found = examine(*options)
    assert status == 1
    check = next(one for one in found if one.endswith(check))
    assert found[check]['level'] == 'error'
    assert words in found[check]['found'] and remedy in found[check]['remedy']
    ours = {'image topic', 'odometry topic', 'path topic', 'command'} - {check}
    assert all(found[one]['level'] == 'ok' for one in ours), found


@pytest.mark.parametrize(('fault', 'check', 'words', 'remedy'), [
    ({'picture': PICTURE[:120]}, 'image', '320x120', 'crop'),
    ({'picture': PICTURE * 0}, 'image', 'one grey', 'lens'),
    ({'missing': ['camera_info']}, 'camera_info topic', 'nobody publishes', 'calibration'),
    ({'focal': 0.0}, 'camera_info', 'not positive', 'calibrate'),
    ({'focal': 300.0}, 'camera view', 'narrower', 'wider lens')])
def test_what_can_be_driven_with_is_a_warning(drive: Drive, examine: Examine,
                                              fault: dict[str, Any], check: str, words: str,
                                              remedy: str) -> None:
    drive(**fault)
    status, found = examine('--policy', 'pretrained')
    assert status == 0
    assert found[check]['level'] == 'warning'
    assert words in found[check]['found'] and remedy in found[check]['remedy']


def test_somebody_else_who_commands_the_vehicle(peer: Peer, drive: Drive, examine: Examine
                                                ) -> None:
    vehicle = drive()
    need = next(one for one in vehicle._needs.values() if one.role.short in COMMANDS)
    peer.speak(need.role.kind, need.topic)
    status, found = examine()
    assert status == 1 and '/peer commands the vehicle' in found['command']['found']


def test_who_drives_and_the_states_of_managed_nodes(peer: Peer, make: Callable[..., Running],
                                                    examine: Examine) -> None:
    settings = {'control_node': {'engaged_at_start': False, 'autostart': False}}
    node = make('control_node', settings['control_node'])
    node.spin()
    service = '/ego_vehicle/control_node'
    options = {'profile': 'embedded', 'settings': settings}
    _, found = examine(**options)
    assert found['control_node state']['level'] == 'warning'
    assert 'unconfigured' in found['control_node state']['found']
    assert f'ros2 lifecycle set {service} configure' in found['control_node state']['remedy']
    assert found['driver']['found'].startswith('stopped')
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert peer.ask(ChangeState, f'{service}/change_state', ChangeState.Request(
            transition=Transition(id=transition))).success
    assert peer.ask(SetBool, f'{service}/engage', SetBool.Request(data=True)).success
    status, found = examine(**options)
    assert status == 0 and found['control_node state']['found'] == 'active'
    assert found['driver']['level'] == 'warning' and 'data: false' in found['driver']['remedy']
    assert f'nobody but {service}' in found['command']['found']
    peer.speak(Bool, '/ego_vehicle/emergency_stop')(Bool(data=True))
    await_that(lambda: not node.node._authority.is_engaged, 'the emergency stop')
    _, found = examine(**options)
    assert found['driver']['found'].startswith('emergency stop')
    assert f'{service}/clear_emergency_stop' in found['driver']['remedy']


def test_policies(drive: Drive, examine: Examine, tmp_path: Path) -> None:
    drive()
    altered = tmp_path / 'altered'
    shutil.copytree(pretrained_policy(), altered)
    weights = altered / 'actor.safetensors'
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    status, found = examine('--policy', str(altered), '--seconds', '0.5')
    assert status == 1 and 'SHA-256 differs' in found['policy']['found']
    status, found = examine('--policy', 'pretrained', '--seconds', '0.5', settings={
        **SETTINGS, 'environment_node': {'frame.count': 3},
        'policy_node': {'network.frames': 3}, 'learner_node': {'network.frames': 3}})
    assert status == 1 and 'network.frames = 4' in found['policy']['found']
    status, found = examine('--policy', 'pretrained', settings={
        **SETTINGS, 'control_node': {'command.steering_range': 1.0}})
    assert status == 0, [one for one in found.values() if one['level'] == 'error']
    assert found['policy steering']['level'] == 'warning'


def test_a_disk_without_room(drive: Drive, examine: Examine) -> None:
    drive()
    status, found = examine('--hours', '1e8')
    assert status == 1 and found['disk']['level'] == 'error' and 'free' in found['disk']['remedy']


def test_a_middleware_without_its_profile(drive: Drive, examine: Examine,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    drive()
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '/nowhere/fastdds.xml')
    status, found = examine('--seconds', '0.5')
    assert status == 1 and '/nowhere/fastdds.xml' in found['middleware']['found']


def test_on_an_empty_graph_everything_is_missing(domain: int) -> None:
    ended = subprocess.run(
        [sys.executable, '-m', 'av_td3_ros.cli.main', 'doctor', '--profile', PROFILE,
         '--seconds', '0.2'], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert ended.returncode == 1
    assert 'nobody publishes /vehicle/odometry (nav_msgs/msg/Odometry)' in ended.stdout
    assert 'nobody subscribes to /vehicle/command' in ended.stdout


def test_the_embedded_simulator_alone_is_found_well(domain: int, tmp_path: Path, peer: Peer,
                                                    examine: Examine) -> None:
    config = Config.shipped().with_values({'simulator_node': {
        'command_timeout': 0.1, 'world.roadside_distance': 0.0}})
    config.write(tmp_path / 'simulator.yaml', 'test')
    with Session([SPECS['simulator_node']], tmp_path / 'simulator.yaml', tmp_path) as session:
        await_that(lambda: session.check() or peer.node.count_publishers(
            '/carla/ego_vehicle/odometry'), 'the simulator')
        status, found = examine(profile='embedded', settings={})
        assert status == 0, [one for one in found.values() if one['level'] == 'error']
        wrong = {check: one for check, one in found.items()
                 if one['level'] not in ('ok', 'skipped')}
        assert not set(wrong) - {'processors', 'time service', 'memory', 'image transport',
                                 'odometry transport'}, wrong
        assert {'image', 'camera rate', 'pairing', 'markers', 'world'} <= set(found)
    status, found = examine('--seconds', '0.2', profile='embedded', settings={})
    assert status == 0 and 'does not run' in found['simulator_node']['found']


@pytest.mark.parametrize('parameters', [
    {}, {'resets': False}, {'image_transport': 'compressed'}, {'obstacles.measured': True},
    {'camera.calibrate': True}])
def test_what_is_expected_is_what_the_nodes_take(make: Callable[..., Running],
                                                 parameters: dict[str, Any]) -> None:
    node = make('environment_node', parameters).node
    config = Config.shipped().with_values({'environment_node': parameters})
    ends = {(one.topic_name, one.msg_type): one.qos_profile
            for one in (*node.publishers, *node.subscriptions)}
    for role in roles(config.settings):
        if role.node == 'environment_node' and role.name in SPECS[role.node].remaps:
            key = SPECS[role.node].topic(role.name), role.kind
            if key not in ends and role.missing == 'warning':
                continue  # worth a look, although the node does not listen
            profile = ends[key]
            assert (profile.reliability, profile.durability) == (
                role.profile.reliability, role.profile.durability)


def test_qos_that_does_not_fit_is_heard_all_the_same() -> None:
    assert incompatible(qos.SENSOR, qos.SENSOR) == ''
    assert 'best effort' in incompatible(BEST_EFFORT, qos.SENSOR)
    for publisher in (BEST_EFFORT, VOLATILE, qos.LATCHED):
        assert incompatible(publisher, hearing(qos.LATCHED, [publisher])) == ''
