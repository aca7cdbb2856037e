"""Look at a session that runs: rviz with the drive, rqt with plots, log, parameters and health."""
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from av_td3_ros.ros.graph import profiles
from av_td3_ros.ros.launching.parts import NO_OR_YES, common_arguments, described


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen; what the viewers show is in config/rviz and config/rqt."""
    return described(__file__, [
        DeclareLaunchArgument(
            'vehicle', default_value='ego_vehicle',
            description='role name of the vehicle to look at: its namespace and part of its '
                        'topics'),
        DeclareLaunchArgument(
            'profile', default_value='embedded', choices=profiles(),
            description='what the session is bound to: a file of config/profiles'),
        DeclareLaunchArgument(
            'world', default_value='',
            description="namespace of the vehicle's own world, such as /car_1 in a fleet; empty: "
                        'the only world there is'),
        DeclareLaunchArgument(
            'rviz', default_value='true', choices=NO_OR_YES,
            description='open rviz: camera, annotated observation, route, path driven, pose, '
                        'steering, other vehicles, transforms'),
        DeclareLaunchArgument(
            'rqt', default_value='true', choices=NO_OR_YES,
            description='open rqt: graph, plots of reward, losses and driving, console, '
                        'parameters, image, diagnostics'),
        DeclareLaunchArgument(
            'use_sim_time', default_value='auto', choices=('auto', *NO_OR_YES),
            description='let the viewers go by the clock of the world (/clock); auto: where the '
                        'profile has one'),
        *(one for one in common_arguments() if one.name != 'seed'),
        OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Start the inspection node and what of the viewers is installed."""
    from av_td3_ros.ros.launching.view import (
        view,  # imports every node: not for --show-args
    )

    return view(context)
