"""Measure the time from a real vehicle's pose to the virtual image that shows it."""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from av_td3_msgs.msg import Observation
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from av_td3_ros.cli.launched import Told
from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.session import Session, take_domain
from av_td3_ros.driving.proving_ground.alignment import place_at
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_nanoseconds
from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.ros.runtime import ros_environment
from benchmarks import above_zero, conclude

PROFILE, VEHICLE, MAP = 'vehicle_in_the_loop_bench', 'ego_vehicle', 'test/roads_a'
SIZES = ((320, 240), (800, 600))
GOALS = {'median': 20.0, 'p99': 60.0}  # ms, of the policy's own camera size
STARTING = 120.0  # s in which every node must be there


class Heard:
    """How old the poses were that images and observations show when these arrived, in ms."""

    def __init__(self) -> None:
        self.ages: dict[str, list[float]] = {'pose': [], 'image': [], 'observation': []}
        self.seen = threading.Event()

    def of(self, kind: str) -> Callable[[Any], None]:
        """Return the callback of a topic."""
        def hear(message: Any) -> None:
            self.ages[kind].append(
                1e-6 * (time.time_ns() - to_nanoseconds(message.header.stamp)))
            if kind == 'observation':
                self.seen.set()

        return hear


def drive(seconds: float, size: tuple[int, int], folder: Path, domain: int) -> Heard:
    """Let the policy drive the stand-in vehicle; return what was heard meanwhile."""
    start = RoadMap.from_file(map_file(MAP)).spawn_points()[2]
    origin = place_at(Pose(0.0, 0.0, 0.0), start)
    told = Told(PROFILE, VEHICLE, map_name=MAP, config=' '.join(
        f'{key}={value}' for key, value in {
            'simulator_node.route_length': 5000.0, 'simulator_node.external.max_age': 2.0,
            'simulator_node.external.ground.length': 1e4,
            'simulator_node.external.ground.width': 1e4,
            'simulator_node.external.start.x': origin.x,
            'simulator_node.external.start.y': origin.y,
            'simulator_node.external.start.yaw': origin.yaw,
            'simulator_node.world.camera.width': size[0],
            'simulator_node.world.camera.height': size[1]}.items()))
    parameters = folder / 'config.yaml'
    told.driving('pretrained', False).write(parameters, 'delay of a vehicle in the loop')
    heard, monitor = Heard(), Monitor('delay', domain)
    for kind, topic, message in (
            ('pose', '/vehicle/odometry', Odometry),
            ('image', f'/carla/{VEHICLE}/rgb_front/image', Image),
            ('observation', f'/{VEHICLE}/observation', Observation)):
        monitor.node.create_subscription(message, topic, heard.of(kind), qos.SENSOR)
    engage = monitor.node.create_client(SetBool, f'/{VEHICLE}/control_node/engage')
    with monitor, Session(session_nodes(PROFILE, VEHICLE, learning=False), parameters,
                          folder / 'logs') as session:
        if not heard.seen.wait(STARTING):
            session.check()
            raise TimeoutError(f'no observation within {STARTING:g} s; see {folder / "logs"}')
        engage.call_async(SetBool.Request(data=True))
        for ages in heard.ages.values():
            ages.clear()  # of the start, when every process imports
        time.sleep(seconds)
        session.check()
    return heard


def row(kind: str, size: tuple[int, int], ages: list[float], seconds: float) -> dict[str, Any]:
    """Return one row of the table."""
    return {'camera': f'{size[0]}x{size[1]}', 'arrived': kind, 'count': len(ages),
            'hertz': round(len(ages) / seconds, 1),
            'median_ms': round(float(np.median(ages)), 1),
            'p99_ms': round(float(np.percentile(ages, 99)), 1),
            'largest_ms': round(float(np.max(ages)), 1)}


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=above_zero, default=20.0,
                        help='time driven for each camera size (default %(default)s)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    os.environ.update(ros_environment(os.environ))
    domain, lease = take_domain(simulated=True)
    table = []
    print(f'{"camera":10}{"arrived":14}{"Hz":>8}{"median ms":>11}{"p99 ms":>9}{"largest ms":>12}')
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            heard = drive(options.seconds, size, Path(folder), domain)
        for kind, ages in heard.ages.items():
            table.append(row(kind, size, ages, options.seconds))
            one = table[-1]
            print(f'{one["camera"]:10}{kind:14}{one["hertz"]:8.1f}{one["median_ms"]:11.1f}'
                  f'{one["p99_ms"]:9.1f}{one["largest_ms"]:12.1f}', flush=True)
    if lease is not None:
        lease.release()
    image = next(one for one in table if one['arrived'] == 'image')
    claims = [{'name': f"pose's stamp to the {image['camera']} image that shows it, {name}",
               'value': image[f'{name}_ms'], 'unit': 'ms', 'goal': goal,
               'holds': image[f'{name}_ms'] <= goal} for name, goal in GOALS.items()]
    return conclude('vehicle_in_the_loop', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
