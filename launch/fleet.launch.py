"""Train with several vehicles at once: each drives for itself, one learner learns from all."""
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

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
        DeclareLaunchArgument(
            'vehicles', default_value='2',
            description='how many vehicles drive; named after the argument vehicle: '
                        'ego_vehicle_1, ego_vehicle_2 and so on, each with its own namespace, '
                        'policy, recorder and seeds'),
        DeclareLaunchArgument(
            'worlds', default_value='own', choices=('own', 'shared'),
            description='own: each vehicle has a world to itself, whose clock and status lie in '
                        'its namespace, as in /ego_vehicle_1/clock; shared: all drive in one '
                        'CARLA server'),
        *session_arguments(), *world_arguments('train/roads'), learner_argument(),
        *learning_arguments(), *common_arguments(), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Start one learner and the vehicles."""
    # Imports every node: not for --show-args.
    from av_td3_ros.cli.launched import fleet_names
    from av_td3_ros.ros.launching.sessions import train

    chosen = context.launch_configurations
    return train(context, fleet_names(chosen['vehicle'], chosen['vehicles']),
                 own_worlds=chosen['worlds'] == 'own')
