"""`av-td3 route`: record the way that is driven by hand, and publish it to be driven again."""
from __future__ import annotations

import argparse
import math
from pathlib import Path

from av_td3_ros.cli.poses import (
    frame_of,
    joined,
    read_poses,
    record,
    spin,
    thinned,
    write_poses,
)
from av_td3_ros.cli.session import VEHICLE
from av_td3_ros.driving.route.geometry import FloatArray, Pose, arc_lengths
from av_td3_ros.ros.graph import profiles, vehicle_nodes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    recording = actions.add_parser('record', help='write the way that is driven to a file')
    recording.add_argument('--topic', default='/vehicle/odometry', metavar='TOPIC',
                           help='nav_msgs/Odometry of the vehicle (default %(default)s)')
    recording.add_argument('--seconds', type=float, default=3600.0, metavar='S',
                           help='longest recording; Ctrl-C ends it (default %(default)s)')
    recording.add_argument('--out', type=Path, required=True, metavar='FILE.csv',
                           help='file to write: x, y, yaw every half metre')
    publishing = actions.add_parser('publish', help='publish a way as the route to drive')
    publishing.add_argument('--poses', type=Path, required=True, metavar='FILE',
                            help='.csv with the columns x, y, yaw, or .json with a list of '
                                 '[x, y, yaw], in the frame of the odometry')
    publishing.add_argument('--profile', default='vehicle', choices=profiles(),
                            help='whose topic the route goes to (default %(default)s)')
    publishing.add_argument('--vehicle', default=VEHICLE, metavar='NAME',
                            help='role name of the vehicle (default %(default)s)')
    publishing.add_argument('--frame', metavar='FRAME',
                            help='frame of the poses (default: what the file says, else map)')
    publishing.add_argument('--seconds', type=float, default=math.inf, metavar='S',
                            help='how long to keep it there (default: until Ctrl-C)')


def run(options: argparse.Namespace) -> int:
    """Record or publish; return 0."""
    if options.action == 'record':
        if options.out.suffix != '.csv':
            raise ValueError(f'--out {options.out}: name a .csv file')
        if options.out.exists():
            raise ValueError(f'--out {options.out} exists already: remove it or choose another '
                             'name')
        driven, frame = record(options.topic, options.seconds)
        poses = thinned(driven)
        write_poses(options.out, poses, frame)
        print(f'{options.out}: {len(poses)} poses, {arc_lengths(poses)[-1]:.1f} m, frame '
              f'{frame!r}')
        return 0
    poses = read_poses(options.poses)
    if len(poses) < 2:
        raise ValueError(f'--poses {options.poses}: a route has two poses at least')
    frame = options.frame or frame_of(options.poses) or 'map'
    publish(poses, options.profile, options.vehicle, frame, options.seconds)
    return 0


def publish(poses: FloatArray, profile: str, vehicle: str, frame: str, seconds: float) -> None:
    """Publish (N, 3) x, y, yaw as the route of a vehicle, and keep it there for latecomers."""
    from geometry_msgs.msg import PoseStamped
    from nav_msgs.msg import Path as PathMessage

    from av_td3_ros.ros import qos
    from av_td3_ros.ros.conversions import to_pose_message

    environment = next(one for one in vehicle_nodes(profile, vehicle, False)
                       if one.name == 'environment_node')
    topic = environment.topic('~/input/path')
    with joined('route') as node:
        publisher = node.create_publisher(PathMessage, topic, qos.LATCHED)
        message = PathMessage()
        message.header.frame_id = frame
        message.header.stamp = node.get_clock().now().to_msg()
        message.poses = [PoseStamped(header=message.header, pose=to_pose_message(Pose(*pose)))
                         for pose in poses.tolist()]
        publisher.publish(message)
        print(f'{topic}: {len(poses)} poses, {arc_lengths(poses)[-1]:.1f} m, frame {frame!r}, '
              'until Ctrl-C', flush=True)
        spin(node, seconds)
