"""Run the embedded simulator alone, to drive it by hand or to look at it in rviz."""
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from av_td3_ros.ros.launching.parts import common_arguments, described, world_arguments


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen; the topics come from config/profiles/embedded.yaml."""
    return described(__file__, [
        DeclareLaunchArgument(
            'mode', default_value='real_time', choices=('real_time', 'lockstep'),
            description='the clock sets the pace, or each image waits for a command'),
        *world_arguments('test/roads_a'), *common_arguments(), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Start the simulator."""
    from av_td3_ros.ros.launching.sessions import (
        simulate,  # imports every node: not for --show-args
    )

    return simulate(context)
