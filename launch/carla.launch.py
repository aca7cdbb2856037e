"""Drive or train in CARLA: world, ROS bridge, ego vehicle, route and session, in that order."""
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from av_td3_ros.ros.launching.parts import (
    NO_OR_YES,
    common_arguments,
    described,
    learning_arguments,
    run_argument,
)
from av_td3_ros.simulator.carla.weather import weather_presets

ARGUMENTS = {  # name: (default, choices, description)
    'session': ('drive', ('drive', 'train', 'evaluate', 'none'),
                'what drives once the vehicle is there: a launch file of this package, with '
                'profile:=carla; its own arguments can be given here too. none: only the world, '
                'the bridge and the vehicle'),
    'policy': ('pretrained', None, 'who drives in a session that does not train: pretrained, a '
               'run folder, a checkpoint, an exported policy, pursuit or random'),
    'vehicle': ('ego_vehicle', None,
                'role name of the vehicle: its namespace and part of its topics'),
    'host': ('localhost', None, 'host of the CARLA server'),
    'port': ('2000', None, 'TCP port of the CARLA server'),
    'timeout': ('60.0', None, 's that one answer of the server may take: its start, a map that '
                'loads'),
    'map': ('Town01', None, 'a town of the server, a name of config/maps such as train/roads, or '
            'an .xodr file; empty: the world that the server has'),
    'wall_height': ('0.0', None, "m of wall along the edges of an OpenDRIVE map's roads"),
    'weather': ('', ('', *sorted(weather_presets())), 'a weather of CARLA; empty: as it is'),
    'traffic': ('0', None, 'other vehicles, driven by the traffic manager'),
    'traffic_port': ('8000', None, 'TCP port of the traffic manager'),
    'synchronous_mode': ('true', NO_OR_YES, 'let the bridge tick the world and wait for each '
                         "frame's sensors; false: the world goes on by itself"),
    'synchronous_mode_wait_for_vehicle_control_command': (
        'true', NO_OR_YES, 'also wait after each frame until the vehicle has been commanded, 1 s '
        'of wall time at most: nothing is missed while training'),
    'fixed_delta_seconds': ('0.05', None, 's of simulated time between two frames'),
    'vehicle_type': ('', None, 'blueprint of the vehicle, such as vehicle.lincoln.mkz_2020; '
                     'empty: as objects_file says'),
    'objects_file': ('', None, 'vehicle and sensors as carla_spawn_objects reads them; empty: '
                     'config/carla/objects.json'),
    'spawn_point': ('', None, "where the vehicle appears: 'x,y,z,roll,pitch,yaw' in m and "
                    'degrees of the ROS frame; empty: at random'),
    'camera_width': ('320', None, 'width of the front camera in pixels'),
    'camera_height': ('240', None, 'height of the front camera in pixels'),
    'camera_fov': ('90.0', None, 'horizontal field of view of the front camera in degrees'),
    'camera_x': ('0.8', None, "place of the front camera, m ahead of the vehicle's middle"),
    'camera_z': ('1.6', None, 'height of the front camera above the ground in m'),
    'camera_pitch': ('8.0', None, 'pitch of the front camera in degrees, + = down'),
}


def generate_launch_description() -> LaunchDescription:
    """Declare what can be chosen; a CARLA server has to run already."""
    return described(__file__, [
        *(DeclareLaunchArgument(name, default_value=default, choices=choices, description=about)
          for name, (default, choices, about) in ARGUMENTS.items()),
        *learning_arguments(), run_argument(), *common_arguments(),
        OpaqueFunction(function=start)], others=('train', 'drive', 'evaluate'))


def start(context: LaunchContext) -> list:
    """Start with the world; each part starts the next one once it is there."""
    from av_td3_ros.ros.launching.carla import begin

    return begin(context)
