"""Run the learner alone: the vehicles, on other hosts, send transitions and take weights."""
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from av_td3_ros.ros.graph import profiles
from av_td3_ros.ros.launching.parts import (
    common_arguments,
    described,
    learning_arguments,
    reach_other_hosts,
    run_argument,
)


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen."""
    return described(__file__, [
        DeclareLaunchArgument(
            'profile', default_value='vehicle', choices=profiles(),
            description='what the vehicles are bound to: it says whether there is a world to be '
                        'held while learning is behind'),
        *learning_arguments(), run_argument(), *common_arguments(), *reach_other_hosts(),
        OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Start the learner."""
    from av_td3_ros.ros.launching.sessions import (
        learn,  # imports every node: not for --show-args
    )

    return learn(context)
