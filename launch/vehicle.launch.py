"""The vehicle side on a real vehicle, with the learner beside it or without."""
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from av_td3_ros.ros.launching.parts import (
    NO_OR_YES,
    described,
    include,
    reach_other_hosts,
    session_arguments,
    when,
)


def generate_launch_description() -> LaunchDescription:
    """Declare what is otherwise than in train.launch.py and drive.launch.py, include one."""
    return described(__file__, [
        DeclareLaunchArgument(
            'learner', default_value='false', choices=('false', 'true', 'elsewhere'),
            description='false: only drive, with the argument policy (drive.launch.py); true: '
                        'explore and learn on this host (train.launch.py); elsewhere: explore, '
                        'and learn on another host, which runs learner.launch.py'),
        DeclareLaunchArgument(
            'transitions', default_value='true', choices=NO_OR_YES,
            description='record transitions, RUN/bag; human driving among them can be learned '
                        'from as demonstration'),
        *session_arguments(profile='vehicle', respawn='true'),
        *reach_other_hosts(),
        include('train', when('learner', 'true', 'elsewhere')),
        include('drive', when('learner', 'false'))])
