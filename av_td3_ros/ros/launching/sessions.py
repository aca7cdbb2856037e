"""The sessions that launch files start, each checked as a whole before anything runs."""
from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import launch.logging
from launch import Action, LaunchContext
from launch.actions import ExecuteProcess, LogInfo

from av_td3_ros.cli import evaluate as evaluation
from av_td3_ros.cli.config import Config
from av_td3_ros.cli.launched import Told, fleet_configs
from av_td3_ros.cli.run_folder import new_run_folder
from av_td3_ros.ros.graph import (
    SIMULATOR,
    NodeSpec,
    has_simulator,
    learner_node,
    vehicle_nodes,
)
from av_td3_ros.ros.launching.parts import (
    command_line,
    end_of_a_process,
    node_actions,
    recording,
    shut_down_when_finished,
)
from av_td3_ros.trust.session_key import session_key

TOPIC = re.compile(r'(/[A-Za-z_][A-Za-z0-9_]*)+')
OF_LEARNING = ('steps', 'resume', 'ranks')


def train(context: LaunchContext, vehicles: Sequence[str], own_worlds: bool = False
          ) -> list[Action]:
    """Return what trains with these vehicles: one learner, and for each of them all the rest."""
    chosen = context.launch_configurations
    if len(vehicles) > 1 and not own_worlds and has_simulator(chosen['profile']):
        raise ValueError(f'worlds: the simulator of profile {chosen["profile"]!r} has room for '
                         'one vehicle: give worlds:=own')
    if chosen.get('policy'):
        raise ValueError(f'policy: what is learned drives here; resume:={chosen["policy"]} goes '
                         'on from a run, learner:=false only drives')
    told = _told(context, vehicles[0])
    config = told.training(chosen['steps'], chosen['resume'], chosen['ranks'])
    nodes = {vehicle: _bound(context, vehicle, vehicle_nodes(
        chosen['profile'], vehicle, recording=True, world=f'/{vehicle}' if own_worlds else ''))
        for vehicle in vehicles}
    bag = recording(context, vehicles, own_worlds)
    folder = _new_folder(context, config)
    parameters = dict.fromkeys(vehicles, folder / 'config.yaml')
    if len(vehicles) > 1:
        (folder / 'vehicles').mkdir()
        for vehicle, its_own in fleet_configs(config, vehicles, folder).items():
            parameters[vehicle] = folder / 'vehicles' / f'{vehicle}.yaml'
            its_own.write(parameters[vehicle], f'{vehicle} of: {command_line()}')
    learner = learner_node(chosen['profile'])
    actions, key = _words(told, folder), None
    if chosen['learner'] == 'true':
        key = session_key(('learner_node', 'policy_node'),
                          config.settings['learner_node'].signing.key)
        if key is not None:
            atexit.register(key.remove)
        actions += node_actions(context, [learner], folder / 'config.yaml', key)
    for vehicle in vehicles:
        actions += node_actions(context, nodes[vehicle], parameters[vehicle], key,
                                far=['recorder_node'] if chosen['learner'] != 'true' else [])
    shut_down_when_finished(context, learner.topic('~/output/status'))
    return [*actions, *bag(folder)]


def drive(context: LaunchContext) -> list[Action]:
    """Return what lets a policy drive, without a learner here."""
    chosen = context.launch_configurations
    idle = [name for name in OF_LEARNING if chosen.get(name)]
    if idle:
        raise ValueError(f'{", ".join(idle)}: nothing is learned here, give learner:=true as well')
    vehicle, transitions = chosen['vehicle'], chosen['transitions'] == 'true'
    told = _told(context, vehicle)
    config = told.driving(chosen['policy'], transitions)
    # Deaf to learners: the policy that was asked for drives, whatever else is learned meanwhile.
    nodes = [one.without('~/input/actor_weights') for one in _bound(
        context, vehicle, vehicle_nodes(chosen['profile'], vehicle, recording=transitions))]
    bag = recording(context, [vehicle])
    said = [LogInfo(msg=words) for words in told.camera_words(chosen['policy'], config)]
    folder = _new_folder(context, config, 'drive')
    return [*_words(told, folder), *said,
            *node_actions(context, nodes, folder / 'config.yaml'), *bag(folder)]


def learn(context: LaunchContext) -> list[Action]:
    """Return what starts the learner alone, for vehicles on other hosts."""
    chosen = context.launch_configurations
    told = _told(context, 'ego_vehicle')
    folder = _new_folder(context, told.training(chosen['steps'], chosen['resume'],
                                                chosen['ranks'], apart=True))
    learner = learner_node(chosen['profile'])
    shut_down_when_finished(context, learner.topic('~/output/status'))
    return [*_words(told, folder),
            *node_actions(context, [learner], folder / 'config.yaml', far=[learner.name])]


def simulate(context: LaunchContext) -> list[Action]:
    """Return what starts the embedded simulator alone."""
    chosen = context.launch_configurations
    config = _told(context, chosen['vehicle'], 'embedded').simulating(chosen['mode'])
    parameters = Path(launch.logging.launch_config.log_dir) / 'config.yaml'
    config.write(parameters, command_line())
    nodes = vehicle_nodes('embedded', chosen['vehicle'], recording=False)
    return node_actions(context, [one for one in nodes if one.name == SIMULATOR], parameters)


def evaluate(options: Sequence[str]) -> list[Action]:
    """
    Return what runs `av-td3 evaluate` with these options, in the domain of this launch.

    Raises ValueError or OSError for those that cannot be.
    """
    evaluation.check(options)
    # Without a domain given it would take one of its own, where nobody who looks would find it.
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    return [ExecuteProcess(
        cmd=[sys.executable, '-m', 'av_td3_ros.cli.main', 'evaluate', *options],
        name='evaluate', output='screen', on_exit=end_of_a_process,
        additional_env={'ROS_DOMAIN_ID': domain, 'PYTHONUNBUFFERED': '1'})]


def _told(context: LaunchContext, vehicle: str, profile: str = '') -> Told:
    chosen = context.launch_configurations
    return Told(profile or chosen['profile'], vehicle, map_name=chosen.get('map', ''),
                seed=chosen['seed'], params_file=chosen['params_file'], config=chosen['config'])


def _bound(context: LaunchContext, vehicle: str, nodes: Iterable[NodeSpec]) -> list[NodeSpec]:
    """Return the nodes bound as the arguments say where they say it otherwise."""
    topic = context.launch_configurations['odometry'].replace('{vehicle}', vehicle)
    if topic and not TOPIC.fullmatch(topic):
        raise ValueError(f'odometry: {topic!r} is no topic: give names of letters, digits and _, '
                         'with / before each, such as /vehicle/odometry')
    return [one.with_topic('~/input/odometry', topic) if topic else one for one in nodes]


def _new_folder(context: LaunchContext, config: Config, kind: str = '') -> Path:
    wanted = context.launch_configurations['run']
    folder = new_run_folder(Path(wanted) if wanted else None, kind)
    config.writing_to(folder).write(folder / 'config.yaml', command_line())
    return folder


def _words(told: Told, folder: Path) -> list[Action]:
    return [LogInfo(msg=words) for words in (f'run folder {folder}', *told.overruled())]
