"""What view.launch.py starts: the inspection node, and the viewers that are installed."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import launch.logging
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext
from launch.actions import LogInfo
from launch_ros.actions import Node

from av_td3_ros.cli.launched import Told
from av_td3_ros.paths import config_directory
from av_td3_ros.ros.graph import sensor_topics, viewing_nodes
from av_td3_ros.ros.launching.parts import command_line, node_actions
from av_td3_ros.ros.launching.viewing import for_vehicle

CLOCK = 'clock'
RQT = ('rqt_gui', 'rqt_graph', 'rqt_plot', 'rqt_console', 'rqt_reconfigure', 'rqt_image_view',
       'rqt_robot_monitor')
AGGREGATOR = 'diagnostic_aggregator'  # whose /diagnostics_agg is what rqt_robot_monitor shows


def view(context: LaunchContext) -> list[Action]:
    """Return what shows a session; raises ValueError for arguments that cannot be."""
    chosen = context.launch_configurations
    profile, vehicle, world = chosen['profile'], chosen['vehicle'], chosen['world']
    told = Told(profile, vehicle, params_file=chosen['params_file'], config=chosen['config'])
    config, nodes = told.viewing(), viewing_nodes(profile, vehicle, world)
    folder = Path(launch.logging.launch_config.log_dir)
    config.write(folder / 'config.yaml', command_line())

    has_clock = any(topic.rpartition('/')[2] == CLOCK
                    for topic in sensor_topics(profile, vehicle, world))
    by_clock = has_clock if chosen['use_sim_time'] == 'auto' else chosen['use_sim_time'] == 'true'
    clock: dict[str, Any] = {
        'parameters': [{'use_sim_time': by_clock}],
        'remappings': [('/clock', f'{world}/clock')] if world else []}

    def shipped(file: str) -> str:
        text = (config_directory() / file).read_text(encoding='utf-8')
        made = folder / Path(file).name
        made.write_text(for_vehicle(text, profile, vehicle, world), encoding='utf-8')
        return str(made)

    actions: list[Action] = [*node_actions(context, nodes, folder / 'config.yaml')]
    if chosen['rviz'] == 'true':
        actions += _viewer('rviz2', ['rviz2'], clock, lambda: ['-d', shipped('rviz/drive.rviz')])
    if chosen['rqt'] == 'true':
        actions += _viewer('rqt_gui', RQT, clock, lambda: [
            '--perspective-file', shipped('rqt/drive.perspective')])
        actions += _viewer(AGGREGATOR, [AGGREGATOR], clock, list, 'aggregator_node')
    return actions


def _viewer(package: str, needed: Sequence[str], clock: dict[str, Any],
            arguments: Callable[[], list[str]], executable: str = '') -> list[Action]:
    """Return what starts a viewer, or says what to install for it."""
    missing = [one for one in needed if not _is_installed(one)]
    words: list[Action] = []
    if missing:
        distribution = os.environ.get('ROS_DISTRO', 'jazzy')
        names = ' '.join(f'ros-{distribution}-{one.replace("_", "-")}' for one in missing)
        words = [LogInfo(msg=f'{", ".join(missing)} not installed: sudo apt install {names}')]
    if package in missing:
        return words
    return [*words, Node(package=package, executable=executable or package, output='log',
                         arguments=arguments(), **clock)]


def _is_installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
