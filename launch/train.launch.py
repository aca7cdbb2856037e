"""Train: simulator or vehicle side, recorder and learner, until it is done or a node ends."""
import datetime
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction

from av_td3_ros.ros.graph import profiles, session_nodes
from av_td3_ros.ros.launching import (
    common_arguments,
    node_actions,
    number,
    shut_down_when_finished,
    simulator_values,
)


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen; the nodes and their wiring come from config/."""
    return LaunchDescription([
        *common_arguments(),
        DeclareLaunchArgument(
            'profile', default_value='embedded', choices=profiles(),
            description='what the nodes are bound to'),
        DeclareLaunchArgument(
            'steps', default_value='',
            description='transitions after which training ends, 0: never; empty: as params_file '
                        'says'),
        DeclareLaunchArgument(
            'run', default_value='',
            description='run folder to create; empty: runs/<date>-<time> below the working '
                        'directory'),
        OpaqueFunction(function=start),
    ])


def start(context: LaunchContext) -> list:
    """Check the configuration as a whole, write it into the run folder, start the nodes."""
    from av_td3_ros.cli.config import Config  # imports every node: not for --show-args

    chosen = dict(context.launch_configurations)
    base = Config.read(Path(chosen['params_file'])) if chosen['params_file'] else Config.shipped()
    folder = Path(chosen['run'] or f'runs/{datetime.datetime.now():%Y%m%d-%H%M%S}').resolve()
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f'run folder {folder} is not empty: choose another by run:=DIR')
    nodes = session_nodes(chosen['profile'], chosen['vehicle'], learning=True)
    config = base.with_values({
        'simulator_node': simulator_values(chosen),
        'environment_node': {'vehicle': chosen['vehicle'], 'wait_for': 3,
                             **number('episodes.seed', chosen['seed'])},
        'policy_node': {'training': True, **number('seed', chosen['seed'])},
        'recorder_node': {'bag': str(folder / 'bag')},
        'learner_node': {'run': str(folder), **number('seed', chosen['seed']),
                         **number('total_transitions', chosen['steps'])},
    })
    folder.mkdir(parents=True, exist_ok=True)
    given = ' '.join(f'{key}:={value}' for key, value in chosen.items() if value)
    config.write(folder / 'config.yaml', f'ros2 launch av_td3_ros train.launch.py {given}')
    shut_down_when_finished(context, '/learner/status')
    return [LogInfo(msg=f'run folder {folder}'),
            *node_actions(context, nodes, folder / 'config.yaml')]
