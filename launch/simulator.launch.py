"""Run the embedded simulator alone, to drive it by hand or to look at it in rviz."""
from pathlib import Path

import launch.logging
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.ros.launching import common_arguments, node_actions, number


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen; the topics come from config/profiles/embedded.yaml."""
    return LaunchDescription([
        *common_arguments(),
        DeclareLaunchArgument(
            'mode', default_value='real_time', choices=('real_time', 'lockstep'),
            description='the clock sets the pace, or each image waits for a command'),
        OpaqueFunction(function=start),
    ])


def start(context: LaunchContext) -> list:
    """Check the configuration as a whole, then start the simulator."""
    from av_td3_ros.cli.config import Config  # imports every node: not for --show-args

    chosen = dict(context.launch_configurations)
    base = Config.read(Path(chosen['params_file'])) if chosen['params_file'] else Config.shipped()
    parameters = Path(launch.logging.launch_config.log_dir) / 'config.yaml'
    config = base.for_simulator(chosen['vehicle'], map_name=chosen['map'] or None,
                                seed=number('seed', chosen['seed']))
    config.with_values({'simulator_node': {'mode': chosen['mode']}}).write(
        parameters, 'ros2 launch av_td3_ros simulator.launch.py')
    nodes = session_nodes('embedded', chosen['vehicle'], learning=False)
    return node_actions(
        context, [spec for spec in nodes if spec.name == 'simulator_node'], parameters)
