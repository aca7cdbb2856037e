"""Train: simulator or vehicle side, recorder and learner, until it is done or a node ends."""
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from av_td3_ros.ros.launching.parts import (
    common_arguments,
    described,
    learner_argument,
    learning_arguments,
    session_arguments,
    world_arguments,
)


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen; the nodes and their wiring come from config/."""
    return described(__file__, [
        *session_arguments(), *world_arguments('train/roads'), learner_argument(),
        *learning_arguments(), *common_arguments(), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Start one learner and one vehicle."""
    from av_td3_ros.ros.launching.sessions import (
        train,  # imports every node: not for --show-args
    )

    return train(context, [context.launch_configurations['vehicle']])
