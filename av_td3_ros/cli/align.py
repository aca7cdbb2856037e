"""`av-td3 align`: find where a proving ground lies on a map, from a drive along a lane."""
from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from av_td3_ros.cli.poses import SPACING, read_poses, record, thinned
from av_td3_ros.driving.proving_ground.alignment import Fit, fit_to_lane
from av_td3_ros.driving.proving_ground.ground import GroundSettings, length_on_ground
from av_td3_ros.driving.route.geometry import Pose, arc_lengths, to_vehicle_frame
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file

ROOM = 10.0      # m of lane beyond the length of the drive
FARTHEST = 2000.0  # m of lane that are looked at for what lies on the ground
POOR = 0.5       # m of residual from which on the drive and the lane are hardly the same


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--map', required=True, metavar='MAP',
                        help='a map of config/maps by its name, or the path of an .xodr file')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--poses', type=Path, metavar='FILE',
                        help='driven poses: .csv with the columns x, y, yaw (m, rad), or .json '
                             'with a list of [x, y, yaw]; one pose is enough')
    source.add_argument('--topic', metavar='TOPIC',
                        help='record the drive from this nav_msgs/Odometry, such as '
                             '/vehicle/odometry, until Ctrl-C or --seconds')
    parser.add_argument('--seconds', type=float, default=60.0, metavar='S',
                        help='longest recording (default %(default)s)')
    parser.add_argument('--spawn-point', type=int, default=0, metavar='N',
                        help='number of the place on the map at which the drive begins '
                             '(default %(default)s)')
    parser.add_argument('--start', type=float, nargs=3, metavar=('X', 'Y', 'DEGREES'),
                        help='begin at the lane nearest to this pose of the map instead')
    parser.add_argument('--centre-ahead', type=float, default=0.0, metavar='M',
                        help='m from the point that the odometry tells of to the middle of the '
                             'body (default %(default)s)')
    parser.add_argument('--ground', type=float, nargs=5,
                        metavar=('X', 'Y', 'DEGREES', 'LENGTH', 'WIDTH'),
                        help='middle, direction and size of the drivable rectangle in the ground '
                             'frame: written too, and how much of the lane lies on it is told')
    parser.add_argument('--out', type=Path, metavar='FILE',
                        help='parameter file to write, for params_file of the launch files')


def run(options: argparse.Namespace) -> int:
    """Read or record, fit, print, write; return 0."""
    if options.out is not None and options.out.exists():
        raise ValueError(f'--out {options.out} exists already: remove it or choose another name')
    road_map = RoadMap.from_file(map_file(options.map))
    start = _start(road_map, options.spawn_point, options.start)
    poses = (read_poses(options.poses) if options.poses
             else record(options.topic, options.seconds)[0])
    poses = thinned(poses)
    poses[:, :2] += options.centre_ahead * np.column_stack([np.cos(poses[:, 2]),
                                                            np.sin(poses[:, 2])])
    driven = float(arc_lengths(poses)[-1])
    fit = fit_to_lane(poses, road_map.lane_ahead(start, driven + ROOM, SPACING))
    ground = None if options.ground is None else _ground(options.ground)
    _print(fit, len(poses), driven, start)
    if ground is not None:
        lane = road_map.lane_ahead(start, FARTHEST)
        on_ground = length_on_ground(to_vehicle_frame(lane, fit.origin), ground)
        if on_ground <= 0.0:
            raise ValueError(
                f'--ground: the lane begins outside of it, at x {poses[0][0]:.1f}, y '
                f'{poses[0][1]:.1f} m of the odometry; give its middle, angle and sizes there')
        print(f'on the ground  {on_ground:.0f} m of the lane from its start on')
    if options.out is not None:
        write_parameters(options.out, options.map, fit.origin, options.centre_ahead, ground)
        print(f'written        {options.out}')
    return 0


def write_parameters(file: Path, map_name: str, origin: Pose, centre_ahead: float,
                     ground: GroundSettings | None) -> None:
    """Write what was found as a ROS parameter file."""
    def external() -> dict[str, Any]:
        found: dict[str, Any] = {
            'centre_ahead': centre_ahead,
            'start': {'x': origin.x, 'y': origin.y, 'yaw': origin.yaw}}
        if ground is not None:
            found['ground'] = {key: getattr(ground, key)
                               for key in ('x', 'y', 'yaw', 'length', 'width')}
        return found

    sections: dict[str, Any] = {
        '/**/simulator_node': {'ros__parameters': {'world': {'map': map_name},
                                                   'external': external()}},
        '/**/mirror_node': {'ros__parameters': {'external': external()}}}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('# Where the ground of a real vehicle lies on the map, by av-td3 align.\n'
                    + yaml.safe_dump(sections, sort_keys=False), encoding='utf-8')


def _start(road_map: RoadMap, spawn_point: int, given: list[float] | None) -> Pose:
    if given is not None:
        lane, at = road_map.locate(Pose(given[0], given[1], math.radians(given[2])))
        return road_map.lanes[lane].pose_at(at)
    places = road_map.spawn_points()
    if not 0 <= spawn_point < len(places):
        raise ValueError(f'--spawn-point {spawn_point}: map {road_map.name!r} has '
                         f'{len(places)}, from 0 on')
    return places[spawn_point]


def _ground(given: list[float]) -> GroundSettings:
    x, y, degrees, length, width = given
    if not (length > 0.0 and width > 0.0):
        raise ValueError(f'--ground: {length} x {width} m is no rectangle')
    return GroundSettings(x=x, y=y, yaw=math.radians(degrees), length=length, width=width)


def _print(fit: Fit, count: int, driven: float, start: Pose) -> None:
    worst = float(np.abs(fit.residuals).max())
    print(f'drive          {count} poses, {driven:.1f} m, from the lane at {start}')
    print(f'ground         x {fit.origin.x:.3f} m, y {fit.origin.y:.3f} m, yaw '
          f'{fit.origin.yaw:.5f} rad on the map')
    print(f'residuals      rms {fit.rms:.3f} m, largest {worst:.3f} m, first heading '
          f'{math.degrees(fit.start_yaw):+.1f} deg')
    if worst > POOR:
        print('               that is much: does the drive follow this lane from this start?')
