"""What carla.launch.py starts: the world, the bridge, the vehicle, the session, one by one."""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import launch.logging
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from carla_msgs.msg import CarlaEgoVehicleInfo, CarlaWorldInfo
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import ExecuteProcess
from launch.events import IncludeLaunchDescription
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.ros_adapters import get_ros_node

from av_td3_ros.paths import config_directory
from av_td3_ros.ros import qos
from av_td3_ros.ros.launching.parts import end_of_a_process, include
from av_td3_ros.ros.runtime import PARENT, memory_environment
from av_td3_ros.settings import check
from av_td3_ros.simulator.carla.maps import opendrive_file, server_map
from av_td3_ros.simulator.carla.objects import CarlaCameraSettings, objects

BRIDGE_PACKAGES = ('carla_ros_bridge', 'carla_spawn_objects', 'carla_waypoint_publisher')
NUMBERS = {'port': int, 'timeout': float, 'fixed_delta_seconds': float, 'wall_height': float,
           'traffic': int, 'traffic_port': int}
CONTROL = 'control'  # id of the actor.pseudo.control that teleports the vehicle


def begin(context: LaunchContext) -> list[Action]:
    """
    Check what can be checked without a server, then let `av-td3 carla` make the world.

    The bridge would load its map with default settings and lose all traffic; given the name of the
    map that is there already, it leaves the world alone.
    """
    chosen = context.launch_configurations
    _require_bridge()
    file = write_objects(chosen)
    for name, kind in NUMBERS.items():
        _number(chosen, name, kind)
    drawn = opendrive_file(chosen['map']) if chosen['map'] else None
    if drawn is not None:
        server_map(drawn)

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
        if event.returncode or context.is_shutdown:
            end_of_a_process(event, context)
            return None
        # CARLA itself writes there too; the name of the map comes last.
        return bridge(context, world.get_stdout().strip().splitlines()[-1], file)

    world = _client(chosen, 'carla_world', on_exit, [
        '--wall-height', chosen['wall_height'],
        *(['--map', chosen['map']] if chosen['map'] else []),
        *(['--weather', chosen['weather']] if chosen['weather'] else [])])
    return [world]


def bridge(context: LaunchContext, town: str, objects_file: Path) -> list[Action]:
    """Return the bridge to a world whose map is called `town`; the vehicle follows."""
    chosen = context.launch_configurations
    _once_heard(context, CarlaWorldInfo, '/carla/world_info',
                lambda: vehicle(context, objects_file))
    return [_node('carla_ros_bridge', 'bridge', 'carla_ros_bridge', {
        **_server(chosen), 'passive': False, 'town': _text(town), 'register_all_sensors': True,
        'synchronous_mode': chosen['synchronous_mode'] == 'true',
        'synchronous_mode_wait_for_vehicle_control_command':
            chosen['synchronous_mode_wait_for_vehicle_control_command'] == 'true',
        'fixed_delta_seconds': _number(chosen, 'fixed_delta_seconds', float),
        # A list: in a text the bridge would look for parts, and find an empty role name in it.
        'ego_vehicle_role_name': [chosen['vehicle']]})]


def vehicle(context: LaunchContext, objects_file: Path) -> list[Action]:
    """Return what puts the vehicle into the world and plans its routes; the session follows."""
    chosen = context.launch_configurations
    role = chosen['vehicle']
    _once_heard(context, CarlaEgoVehicleInfo, f'/carla/{role}/vehicle_info',
                lambda: session(context))
    placed = {f'spawn_point_{role}': _text(chosen['spawn_point'])} if chosen['spawn_point'] else {}
    return [
        _node('carla_spawn_objects', 'carla_spawn_objects', 'carla_spawn_objects', {
            'objects_definition_file': _text(str(objects_file)), 'spawn_sensors_only': False,
            **placed}),
        _node('carla_spawn_objects', 'set_initial_pose', 'set_initial_pose', {
            'role_name': _text(role), 'control_id': _text(CONTROL)}),
        _node('carla_waypoint_publisher', 'carla_waypoint_publisher', 'carla_waypoint_publisher', {
            **_server(chosen), 'role_name': _text(role)})]


def session(context: LaunchContext) -> list[Action]:
    """Return the traffic, which leaves the vehicle's place alone, and what drives."""
    chosen = context.launch_configurations
    actions: list[Action] = []
    if _number(chosen, 'traffic', int):
        actions.append(_client(chosen, 'carla_traffic', end_of_a_process, [
            '--traffic', chosen['traffic'], '--traffic-port', chosen['traffic_port'],
            '--seed', chosen['seed'] or '0']))
    if chosen['session'] != 'none':
        actions.append(include(chosen['session'], profile='carla', map=''))
    return actions


def _require_bridge() -> None:
    for package in BRIDGE_PACKAGES:
        try:
            get_package_share_directory(package)
        except PackageNotFoundError as error:
            raise RuntimeError(
                f'package {package} of the CARLA ROS bridge is not installed: build '
                'https://github.com/carla-simulator/ros-bridge and source its workspace '
                '(docs/carla.md)') from error


def write_objects(chosen: dict[str, str]) -> Path:
    """Write the objects file with the chosen vehicle and camera beside the launch's log."""
    camera = CarlaCameraSettings(
        width=_number(chosen, 'camera_width', int), height=_number(chosen, 'camera_height', int),
        **{key: _number(chosen, f'camera_{key}', float) for key in ('fov', 'x', 'z', 'pitch')})
    check(camera, 'camera')
    given = Path(chosen['objects_file'] or config_directory() / 'carla' / 'objects.json')
    described = objects(given, chosen['vehicle'], chosen['vehicle_type'], camera)
    file = Path(launch.logging.launch_config.log_dir) / 'objects.json'
    file.write_text(json.dumps(described, indent=2), encoding='utf-8')
    return file


def _client(chosen: dict[str, str], name: str, on_exit: Callable, options: list[str]
            ) -> ExecuteProcess:
    """Return `av-td3 carla` as an action."""
    return ExecuteProcess(
        cmd=[sys.executable, '-m', 'av_td3_ros.cli.main', 'carla', '--host', chosen['host'],
             '--port', chosen['port'], '--timeout', chosen['timeout'], *options],
        name=name, output='screen', cached_output=True, on_exit=on_exit,
        additional_env={PARENT: str(os.getpid())})


def _node(package: str, executable: str, name: str, parameters: dict[str, Any]) -> Node:
    """Return a node of the bridge as its own launch files start it; the launch ends with it."""
    return Node(package=package, executable=executable, name=name, output='screen',
                emulate_tty=True, parameters=[{'use_sim_time': True}, parameters],
                additional_env=memory_environment(os.environ), on_exit=end_of_a_process)


def _server(chosen: dict[str, str]) -> dict[str, Any]:
    return {'host': _text(chosen['host']), 'port': _number(chosen, 'port', int),
            'timeout': _number(chosen, 'timeout', float)}


def _text(value: str) -> ParameterValue:
    """Return a parameter that stays a text whatever it looks like."""
    return ParameterValue(value, value_type=str)


def _number(chosen: dict[str, str], name: str, kind: type) -> Any:
    try:
        return kind(chosen[name])
    except ValueError:
        raise ValueError(f'{name}:={chosen[name]} is no '
                         f'{"whole " if kind is int else ""}number') from None


def _once_heard(context: LaunchContext, kind: type, topic: str,
                then: Callable[[], list[Action]]) -> None:
    """Start what `then` returns once a latched topic has its first message."""
    heard = False

    def on_message(_: Any) -> None:
        context.asyncio_loop.call_soon_threadsafe(go_on)

    def go_on() -> None:
        nonlocal heard
        if not heard and not context.is_shutdown:
            heard = True
            context.emit_event_sync(IncludeLaunchDescription(LaunchDescription(then())))

    get_ros_node(context).create_subscription(kind, topic, on_message, qos.LATCHED)
