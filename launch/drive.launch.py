"""Let a policy drive, again and again, without learning, until it is told to stop."""
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from av_td3_ros.ros.launching.parts import (
    NO_OR_YES,
    common_arguments,
    described,
    session_arguments,
    world_arguments,
)


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen; the nodes and their wiring come from config/."""
    return described(__file__, [
        DeclareLaunchArgument(
            'policy', default_value='pretrained',
            description='who drives: pretrained (the policy in the box), a run folder (its best '
                        'checkpoint), a checkpoint, an exported policy, pursuit or random; a '
                        'learned one drives with the settings it was trained with'),
        DeclareLaunchArgument(
            'transitions', default_value='false', choices=NO_OR_YES,
            description='also record transitions, RUN/bag, to learn from later (av-td3 train '
                        '--from-bags)'),
        *session_arguments(), *world_arguments('test/roads_a'), *common_arguments(),
        OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Start the vehicle side, and the simulator where the profile has one."""
    from av_td3_ros.ros.launching.sessions import (
        drive,  # imports every node: not for --show-args
    )

    return drive(context)
