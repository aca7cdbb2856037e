"""Train: simulator or vehicle side, recorder and learner, until it is done or a node ends."""
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction

from av_td3_ros.ros.graph import profiles, session_nodes
from av_td3_ros.ros.launching import (
    common_arguments,
    node_actions,
    number,
    shut_down_when_finished,
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
    from av_td3_ros.cli.run_folder import new_run_folder

    chosen = dict(context.launch_configurations)
    base = Config.read(Path(chosen['params_file'])) if chosen['params_file'] else Config.shipped()
    nodes = session_nodes(chosen['profile'], chosen['vehicle'], learning=True)
    config = base.for_training(
        chosen['profile'], chosen['vehicle'], map_name=chosen['map'] or None,
        seed=number('seed', chosen['seed']), steps=number('steps', chosen['steps']))
    folder = new_run_folder(Path(chosen['run']) if chosen['run'] else None)
    config = config.writing_to(folder)
    given = ' '.join(f'{key}:={value}' for key, value in chosen.items() if value)
    config.write(folder / 'config.yaml', f'ros2 launch av_td3_ros train.launch.py {given}')
    shut_down_when_finished(context, '/learner/status')
    return [LogInfo(msg=f'run folder {folder}'),
            *node_actions(context, nodes, folder / 'config.yaml')]
