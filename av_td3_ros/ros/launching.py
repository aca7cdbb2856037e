"""What the launch files share; only a ROS installation has `launch` and `launch_ros`."""
from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import launch.logging
from av_td3_msgs.msg import LearnerStatus
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.events import Shutdown as ShutdownEvent
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.ros_adapters import get_ros_node

from av_td3_ros.ros import qos
from av_td3_ros.ros.graph import NodeSpec
from av_td3_ros.ros.runtime import PARENT, allocator_environment

LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')


def common_arguments() -> list[DeclareLaunchArgument]:
    """Return the arguments that every launch file declares."""
    return [
        DeclareLaunchArgument(
            'vehicle', default_value='ego_vehicle',
            description='role name of the vehicle: its namespace and part of its topics'),
        DeclareLaunchArgument(
            'map', default_value='',
            description='map of the embedded simulator: a name of config/maps or an .xodr file; '
                        'empty: as params_file says'),
        DeclareLaunchArgument(
            'seed', default_value='',
            description='seed of everything drawn at random; empty: as params_file says'),
        DeclareLaunchArgument(
            'params_file', default_value='',
            description='parameter file with sections such as /**/simulator_node, for example the '
                        'config.yaml of a run; empty: the shipped configuration'),
        DeclareLaunchArgument(
            'log_level', default_value='info', choices=LOG_LEVELS,
            description='the least severe log messages that the nodes show'),
    ]


def number(key: str, text: str) -> int | None:
    """Return an argument as a number, None when it is empty. Raises ValueError."""
    try:
        return int(text) if text else None
    except ValueError:
        raise ValueError(f'{key}: {text!r} is no whole number') from None


def node_actions(context: LaunchContext, nodes: Iterable[NodeSpec], parameters: Path
                 ) -> list[Node]:
    """Return the actions that start `nodes`; when one of them ends, all of them are ended."""
    # Dies with the launch process, however that ends; a prefix would stand between the two.
    parent = {} if 'launch-prefix' in context.launch_configurations else {PARENT: str(os.getpid())}
    return [Node(
        package='av_td3_ros', executable=spec.name, name=spec.name, namespace=spec.namespace,
        remappings=list(spec.remaps.items()), parameters=[str(parameters)], output='screen',
        arguments=['--ros-args', '--log-level', context.launch_configurations['log_level']],
        additional_env={**parent, **(allocator_environment(os.environ)
                                     if spec.name == 'learner_node' else {})},
        on_exit=_end_of_a_node) for spec in nodes]


def shut_down_when_finished(context: LaunchContext, topic: str) -> None:
    """End the launch once the learner says on `topic` that it has what it wanted."""
    def on_status(message: LearnerStatus) -> None:
        if message.finished:
            context.asyncio_loop.call_soon_threadsafe(finish, message)

    def finish(message: LearnerStatus) -> None:
        if not context.is_shutdown:
            reason = f'finished: {message.transitions} transitions, {message.updates} updates'
            launch.logging.get_logger('launch.user').info(reason)
            context.emit_event_sync(ShutdownEvent(reason=reason))

    get_ros_node(context).create_subscription(LearnerStatus, topic, on_status, qos.STATUS)


def _end_of_a_node(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    if context.is_shutdown:
        return None
    if event.returncode:  # an exception is what makes `ros2 launch` itself exit with 1
        raise RuntimeError(f'{event.process_name} ended with status {event.returncode}')
    return Shutdown(reason=f'{event.process_name} ended')
