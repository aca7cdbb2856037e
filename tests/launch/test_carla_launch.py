"""carla.launch.py as `ros2 launch` runs it, with nodes that stand in for those of the bridge."""
from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS installation only')
pytest.importorskip('ros2launch', reason='ros2launch comes with a ROS installation only')

from harness import await_that
from test_launch_files import ROOT, STARTING, Launched
from test_launch_files import installed as installed  # a fixture

# Tells its parameters, then that what the launch waits for is there; ends as a node does.
STAND_IN = """#!{python}
import json, os, sys
import rclpy
from rclpy.node import Node
from av_td3_ros.ros import qos
from carla_msgs.msg import CarlaEgoVehicleInfo, CarlaWorldInfo

rclpy.init()
node = Node('stand_in', automatically_declare_parameters_from_overrides=True)
told = {{name: one.value for name, one in node.get_parameters_by_prefix('').items()
        if name != 'start_type_description_service'}}
path = os.path.join(os.environ['STAND_IN'], '{executable}.json')
with open(path + '~', 'w') as file:
    json.dump(told, file)
os.replace(path + '~', path)
tell = {{'bridge': (CarlaWorldInfo, '/carla/world_info'), 'carla_spawn_objects': (
    CarlaEgoVehicleInfo, '/carla/hero/vehicle_info')}}.get('{executable}')
if tell:
    publisher = node.create_publisher(*tell, qos.LATCHED)
    publisher.publish(tell[0]())
if os.environ.get('FAILING') == '{executable}':
    sys.exit(3)
try:
    rclpy.spin(node)
except BaseException:
    pass
"""
EXECUTABLES = {'carla_ros_bridge': ['bridge'],
               'carla_spawn_objects': ['carla_spawn_objects', 'set_initial_pose'],
               'carla_waypoint_publisher': ['carla_waypoint_publisher']}
# carla.launch.py but for its first step, which needs a server: the world is there already.
WITHOUT_SERVER = """
import importlib.util
from launch import LaunchDescription
from launch.actions import OpaqueFunction
spec = importlib.util.spec_from_file_location('carla_launch', {file!r})
carla_launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(carla_launch)


def start(context):
    from av_td3_ros.ros.launching.carla import bridge, write_objects
    return bridge(context, 'Carla/Maps/Town01', write_objects(context.launch_configurations))


def generate_launch_description():
    *arguments, _ = carla_launch.generate_launch_description().entities
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
"""


class Bridge:
    """An installed bridge of stand-ins, launches of ours with it, and what its nodes were told."""

    def __init__(self, folder: Path, installed: dict[str, str]) -> None:
        self.folder = folder
        self._installed = installed
        self._made: list[Launched] = []
        prefix = folder / 'bridge'
        index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
        index.mkdir(parents=True)
        for package, executables in EXECUTABLES.items():
            (prefix / 'share' / package).mkdir()
            (index / package).touch()
            for executable in executables:
                file = prefix / 'lib' / package / executable
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(STAND_IN.format(python=sys.executable, executable=executable))
                file.chmod(file.stat().st_mode | stat.S_IXUSR)
        self._file = ROOT / 'launch' / 'carla.launch.py'
        (folder / 'world.launch.py').write_text(WITHOUT_SERVER.format(file=str(self._file)))

    def launch(self, whole: bool = False, bridge: bool = True, failing: str = '',
               **arguments: object) -> Launched:
        """Launch; `whole` begins with the server, else the world counts as there."""
        environment = {**self._installed, 'STAND_IN': str(self.folder), 'FAILING': failing}
        if bridge:
            environment['AMENT_PREFIX_PATH'] = os.pathsep.join(
                [str(self.folder / 'bridge'), environment['AMENT_PREFIX_PATH']])
        file = 'carla' if whole else str(self.folder / 'world.launch.py')
        self._made.append(Launched(self.folder, environment, file, vehicle='hero', **arguments))
        return self._made[-1]

    def told(self, executable: str) -> dict[str, Any]:
        """Wait until a node has started; return its parameters."""
        file = self.folder / f'{executable}.json'
        launch = self._made[-1]
        await_that(lambda: file.is_file() or launch.process.poll() is not None,
                   f'{executable} to start', STARTING)
        assert file.is_file(), launch.said
        told: dict[str, Any] = json.loads(file.read_text())
        return told

    def clear(self) -> None:
        """Leave nothing behind."""
        for one in self._made:
            one.clear()


@pytest.fixture
def bridge(domain: int, tmp_path: Path, installed: dict[str, str]) -> Iterator[Bridge]:
    """Lend an installed bridge."""
    made = Bridge(tmp_path, installed)
    yield made
    made.clear()


def test_each_part_starts_the_next_with_what_it_reads(bridge: Bridge) -> None:
    it = bridge.launch(session='none', port=2010, host='10.0.0.5', timeout=30,
                       fixed_delta_seconds=0.1, camera_width=640, camera_height=480,
                       spawn_point='1.0,2.0,0.5,0.0,0.0,90.0', vehicle_type='vehicle.audi.a2',
                       synchronous_mode_wait_for_vehicle_control_command='false')
    told = bridge.told('bridge')
    assert told == {
        'use_sim_time': True, 'host': '10.0.0.5', 'port': 2010, 'timeout': 30.0, 'passive': False,
        'synchronous_mode': True, 'synchronous_mode_wait_for_vehicle_control_command': False,
        'fixed_delta_seconds': 0.1, 'town': 'Carla/Maps/Town01', 'register_all_sensors': True,
        'ego_vehicle_role_name': ['hero']}
    told = bridge.told('carla_spawn_objects')
    assert told['spawn_point_hero'] == '1.0,2.0,0.5,0.0,0.0,90.0'
    assert told['spawn_sensors_only'] is False
    (vehicle,) = [one for one in json.loads(Path(told['objects_definition_file']).read_text())[
        'objects'] if one['type'].startswith('vehicle.')]
    assert (vehicle['id'], vehicle['type']) == ('hero', 'vehicle.audi.a2')
    (camera,) = [one for one in vehicle['sensors'] if one['id'] == 'rgb_front']
    assert (camera['image_size_x'], camera['image_size_y']) == (640, 480)
    assert bridge.told('set_initial_pose')['control_id'] == 'control'
    told = bridge.told('carla_waypoint_publisher')
    assert told == {'use_sim_time': True, 'host': '10.0.0.5', 'port': 2010, 'timeout': 30.0,
                    'role_name': 'hero'}
    assert it.stop() == 0, it.said


def test_the_session_starts_once_the_vehicle_is_there(bridge: Bridge) -> None:
    it = bridge.launch(session='drive', policy='pursuit', run=bridge.folder / 'run')
    await_that(lambda: it.node('control_node') or it.process.poll() is not None, 'the session',
               STARTING)
    assert it.node('control_node'), it.said
    assert it.stop() == 0, it.said
    assert (bridge.folder / 'run' / 'config.yaml').is_file()


@pytest.mark.parametrize('failing', ['bridge', 'carla_spawn_objects', 'carla_waypoint_publisher'])
def test_the_launch_ends_with_the_node_that_fails(bridge: Bridge, failing: str) -> None:
    it = bridge.launch(session='none', failing=failing)
    assert it.ended() == 1, it.said
    assert failing in it.said and 'ended with status 3' in it.said


def test_no_server_ends_it_with_its_place_and_the_remedy(bridge: Bridge) -> None:
    it = bridge.launch(whole=True, host='127.0.0.1', port=2999, timeout=0.5, map='train/roads')
    assert it.ended() == 1, it.said
    assert 'no CARLA server answers at 127.0.0.1:2999 within 0.5 s' in it.said
    assert not (bridge.folder / 'bridge.json').exists()


@pytest.mark.parametrize(('arguments', 'words'), [
    ({'map': 'train/nothing'}, "map 'train/nothing' is no file"),
    ({'camera_width': 4}, 'width = 4 is out of range'),
    ({'camera_fov': 'wide'}, 'camera_fov:=wide is no number'),
    ({'weather': 'Nice'}, 'Nice'),
    ({'port': 'x'}, 'port:=x is no whole number'),
    ({'traffic': 'many'}, 'traffic:=many is no whole number'),
    ({'objects_file': '/nowhere.json'}, '/nowhere.json')])
def test_what_cannot_be_is_said_before_anything_starts(
        bridge: Bridge, arguments: dict[str, object], words: str) -> None:
    it = bridge.launch(whole=True, **arguments)
    assert it.ended() == 1, it.said
    assert words in it.said and 'carla_world' not in it.said


def test_a_bridge_that_is_not_installed_is_named(bridge: Bridge) -> None:
    it = bridge.launch(whole=True, bridge=False)
    assert it.ended() == 1, it.said
    assert 'carla_ros_bridge' in it.said and 'docs/carla.md' in it.said
