"""
Measure the time from a camera's image to the vehicle's command, stage by stage, over real DDS.

This process plays camera, odometry and vehicle; environment, policy and control node are processes
of their own, and where the learner learns, recorder and learner as well. A frame's time runs from
just before its image is published until its command is heard. The peer is one plain node. With
--levers it changes one thing at a time, in whole sessions, on the image's way alone and in the
inference alone. --merge keeps the other rows of an earlier run.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from carla_msgs.msg import CarlaEgoVehicleControl
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from sensor_msgs.msg import CompressedImage, Image

from av_td3_ros.cli.launched import Told
from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.session import Session, take_domain
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_nanoseconds, to_stamp
from av_td3_ros.ros.graph import composed, learner_node, session_nodes
from av_td3_ros.ros.runtime import keep_memory, ros_environment
from av_td3_ros.ros.tracing import read_trace
from av_td3_ros.simulator.view.camera import Camera, CameraSettings
from av_td3_ros.simulator.world import World, WorldSettings
from benchmarks import at_least_one, command_line, conclude, machine, write_results
from benchmarks._busy import Busy
from benchmarks._image_way import LEVERS as WAYS
from benchmarks._image_way import way
from benchmarks._inference import ENGINES, inference
from benchmarks._learning_report import table_page

VEHICLE = 'ego_vehicle'
PERIOD = 0.05  # s between two frames
SPEED = 8.0    # m/s
COMPOSED = 'environment, policy and control in one process'
WARM = 60      # frames of a session that are not counted
STARTING = 120.0  # s of wall time in which every node must be there
NODES = ('environment_node', 'policy_node', 'control_node')
STAGES = {  # what has happened when a frame is at each, in order
    'image arrived': 'transport of the image', 'paired': 'pairing', 'decoded': 'decode',
    'preprocessed': 'preprocess', 'observed': 'stack, state, reward',
    'observation arrived': 'transport of the observation', 'decided': 'inference',
    'action arrived': 'transport of the action', 'commanded': 'control',
    'heard': 'transport of the command'}


COLUMNS = {  # of the page, by the keys of a row
    'camera': 'Camera', 'learner': 'Learner', 'driver': 'Driver', 'frames': 'Frames',
    'without command': 'Lost', 'busy elsewhere [cores]': 'Elsewhere, cores', 'median': 'Median',
    'p99': 'p99', 'worst': 'Worst'}
COMMON = (
    'environment_node.resets=false', 'environment_node.obstacles.measured=false',
    'environment_node.driving.termination.max_steps=1000000',
    # As fast as it can, whatever comes: more than any session asks of it.
    'learner_node.limiter.updates_per_transition=100', 'learner_node.limiter.start_after=50')


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: an image, whether the learner learns meanwhile, and what is changed."""

    width: int
    height: int
    kind: str = 'bgra8'
    learning: bool = True
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    peer: bool = False
    composed: bool = False
    name: str = ''

    @property
    def driver(self) -> str:
        """Name what drives."""
        return 'plain node' if self.peer else self.name or 'ours'

    @property
    def camera(self) -> str:
        """Name the image."""
        return f'{self.width}x{self.height} {self.kind}'


GOALS = {  # (camera, learning): {figure: ms}
    ('800x600 bgra8', True): {'median': 9.0, 'p99': 20.0, 'worst': 50.0},
    ('320x240 bgra8', True): {'median': 5.0},
    ('800x600 bgra8', False): {'median': 6.0, 'p99': 10.0}}
CASES = [Case(width, height, kind, learning, peer=peer)
         for width, height, kind in ((320, 240, 'bgra8'), (800, 600, 'bgra8'), (800, 600, 'jpeg'))
         for learning in (True, False) for peer in (False, True)]


LEVERS = [Case(800, 600, options=options, name=name, composed=name == COMPOSED)
          for name, *options in (
              ('as shipped',), (COMPOSED,), ('engine torch', 'policy_node.engine=torch'),
              ('learner not nice', 'learner_node.priority=normal'),
              ('learner at nice 10', 'learner_node.priority=low'),
              ('learner on 2 threads', 'learner_node.threads=2'),
              ('policy on 2 threads', 'policy_node.threads=2'))]


def picture(case: Case) -> np.ndarray:
    """Return what the simulator's camera sees, uint8 (H, W, 4) bgra8."""
    world = World(WorldSettings(map='test/roads_a'))
    camera = Camera(CameraSettings(width=case.width, height=case.height), world.scenery)
    return camera.render(world.ego_pose, None, world.appearance)


def images(case: Case) -> Iterator[Image | CompressedImage]:
    """Yield messages that differ, as a camera's do, again and again."""
    seen, random = picture(case), np.random.default_rng(0)
    made: list[Image | CompressedImage] = []
    for _ in range(8):
        noisy = cv2.add(seen, random.integers(0, 6, seen.shape, np.uint8))
        if case.kind == 'jpeg':
            _, file = cv2.imencode('.jpg', noisy[..., :3])
            made.append(CompressedImage(format='jpeg', data=to_bytes(file.tobytes())))
        else:
            made.append(Image(height=case.height, width=case.width, encoding=case.kind,
                              step=4 * case.width, data=to_bytes(noisy.tobytes())))
    return itertools.cycle(made)


class Vehicle:
    """Camera, odometry and actuators of a vehicle that follows a straight road."""

    def __init__(self, case: Case, domain: int) -> None:
        self.monitor = Monitor('vehicle', domain)
        node = self.monitor.node
        self.heard: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self._images = images(case)
        self._camera = node.create_publisher(
            CompressedImage if case.kind == 'jpeg' else Image,
            f'/carla/{VEHICLE}/rgb_front/image', qos.SENSOR)
        self._odometry = node.create_publisher(
            Odometry, f'/carla/{VEHICLE}/odometry', qos.SENSOR)
        self._route = node.create_publisher(
            PathMessage, f'/carla/{VEHICLE}/waypoints', qos.LATCHED)
        node.create_subscription(
            CarlaEgoVehicleControl, f'/carla/{VEHICLE}/vehicle_control_cmd', self._hear,
            qos.SENSOR)
        self._x = 0.0

    def _hear(self, message: CarlaEgoVehicleControl) -> None:
        self.heard.setdefault(to_nanoseconds(message.header.stamp), time.monotonic_ns())

    def show_route(self, metres: int) -> None:
        """Publish a straight route."""
        route = PathMessage()
        route.header.frame_id = 'map'
        for x in range(metres):
            pose = PoseStamped()
            pose.pose.position.x = float(x)
            pose.pose.orientation.w = 1.0
            route.poses.append(pose)
        self._route.publish(route)

    def frame(self) -> None:
        """Publish odometry and image of now."""
        stamp: Time = to_stamp(time.time_ns())
        odometry = Odometry()
        odometry.header.stamp, odometry.header.frame_id = stamp, 'map'
        odometry.child_frame_id = VEHICLE
        odometry.pose.pose.position.x = self._x
        odometry.pose.pose.orientation.w = 1.0
        odometry.twist.twist.linear.x = SPEED
        self._x += SPEED * PERIOD
        image = next(self._images)
        image.header.stamp = stamp
        self._odometry.publish(odometry)
        self.sent[to_nanoseconds(stamp)] = time.monotonic_ns()
        self._camera.publish(image)

    def drive(self, frames: int) -> None:
        """Publish frames at their pace."""
        due = time.monotonic()
        for _ in range(frames):
            self.frame()
            due = max(due + PERIOD, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


@contextlib.contextmanager
def nodes(case: Case, folder: Path, bag: Path) -> Iterator[None]:
    """Run what is measured; beside the peer the learner learns from the bag of ours."""
    told = Told('carla', VEHICLE, config=' '.join((*COMMON, *case.options, *(
        f'{node}.trace={folder / node}.csv' for node in NODES),
        f'environment_node.image_transport={"compressed" if case.kind == "jpeg" else "raw"}')))
    config, parameters = told.driving('pretrained', case.learning), folder / 'config.yaml'
    if case.peer:
        if case.learning:
            config.with_values({'learner_node': {'offline': True, 'bags': [str(bag)]}}).write(
                parameters, 'latency')
        beside = [learner_node('carla')] if case.learning else []
        command = [sys.executable, '-m', 'benchmarks._latency_peer', '--vehicle', VEHICLE,
                   *(['--compressed'] if case.kind == 'jpeg' else [])]
        environment = {name: value for name, value in os.environ.items()
                       if name != 'FASTRTPS_DEFAULT_PROFILES_FILE'}
        with (Session(beside, parameters, folder / 'logs') as session,
              subprocess.Popen(command, env=environment) as process):
            try:
                yield
                session.check()
            finally:
                process.kill()
        return
    config.with_values({'recorder_node': {'bag': str(bag) if case.learning else ''}}).write(
        parameters, 'latency')
    if case.learning:
        shutil.rmtree(bag, ignore_errors=True)
    started = session_nodes('carla', VEHICLE, learning=case.learning)
    with Session(composed(started) if case.composed else started, parameters,
                 folder / 'logs',
                 environment={**os.environ, **dict(case.environment)}) as session:
        yield
        session.check()


def measure(case: Case, frames: int, domain: int, bag: Path) -> dict[str, np.ndarray]:
    """Return ms of each stage that is known, and of the whole, an entry for each frame."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vehicle = Vehicle(case, domain)
        with vehicle.monitor, nodes(case, folder, bag):
            vehicle.show_route(int((frames + 10_000) * SPEED * PERIOD))
            until = time.monotonic() + STARTING
            while not vehicle.heard:
                if time.monotonic() > until:
                    raise TimeoutError(f'no command within {STARTING:g} s')
                vehicle.drive(20)
            if case.learning:
                vehicle.drive(200)  # until it learns
            vehicle.drive(WARM)
            vehicle.sent.clear()
            before = Busy()
            vehicle.drive(frames)
            elsewhere = before.elsewhere()
            time.sleep(1.0)
        marks: dict[str, Mapping[int, int]] = {'heard': vehicle.heard}
        for node in NODES:
            if (folder / f'{node}.csv').is_file():
                marks |= read_trace(folder / f'{node}.csv')
    lost = [stamp for stamp in vehicle.sent if stamp not in vehicle.heard]
    answered = [stamp for stamp in vehicle.sent if stamp in vehicle.heard]
    found = {'whole': np.array([1e-6 * (vehicle.heard[one] - vehicle.sent[one])
                                for one in answered]), 'lost': np.array(lost),
             'elsewhere': np.array([elsewhere])}
    since: Mapping[int, int] = vehicle.sent
    for stage in STAGES:
        if stage in marks:
            found[stage] = np.array([1e-6 * (marks[stage][one] - since[one]) for one in answered
                                     if one in marks[stage] and one in since])
            since = marks[stage]
    return found


def row(case: Case, found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return one row of the table, in ms."""
    whole = found['whole']
    return {
        'camera': case.camera, 'learner': 'learns' if case.learning else 'off',
        'driver': case.driver, 'frames': len(whole), 'without command': len(found['lost']),
        'busy elsewhere [cores]': round(float(found['elsewhere'][0]), 2),
        'median': round(float(np.median(whole)), 2),
        'p99': round(float(np.percentile(whole, 99)), 2), 'worst': round(float(whole.max()), 2),
        **{what: round(float(np.median(found[stage])), 2)
           for stage, what in STAGES.items() if stage in found and len(found[stage])}}


def claims_of(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the goals say of our rows."""
    claims = []
    for (camera, learning), goals in GOALS.items():
        for one in table:
            if (one['camera'], one['learner'] == 'learns', one['driver']) != (
                    camera, learning, 'ours'):
                continue
            claims += [{'name': f'{camera}, learner {one["learner"]}: {figure} from image to '
                                f'command over {one["frames"]} frames', 'value': one[figure],
                        'unit': 'ms', 'goal': goal, 'holds': one[figure] <= goal}
                       for figure, goal in goals.items()]
    return claims


def parts() -> dict[str, Callable[[int], np.ndarray]]:
    """Return what measures a part of the whole so many times, in ms, by the names of its row."""
    return {**{f'image only: {lever}': functools.partial(way, lever, (800, 600))
               for lever in WAYS},
            **{f'inference only: {engine}': functools.partial(inference, engine)
               for engine in ENGINES}}


def part_row(name: str, take: Callable[[int], np.ndarray], frames: int) -> dict[str, Any]:
    """Return one row of the table, of a part of the whole."""
    before = Busy()
    took = take(frames)
    return {'camera': '800x600 bgra8', 'learner': 'off', 'driver': name,
            'frames': len(took), 'without command': frames - len(took),
            'busy elsewhere [cores]': round(before.elsewhere(), 2),
            'median': round(float(np.median(took)), 2),
            'p99': round(float(np.percentile(took, 99)), 2), 'worst': round(float(took.max()), 2)}


def names(cases: Sequence[Case], what: str) -> str:
    """Return the names that cases have, in words."""
    return ', '.join(dict.fromkeys(str(getattr(one, what)) for one in cases))


def key_of(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what a row is of."""
    return one['camera'], one['learner'], one['driver']


def page(table: Sequence[Mapping[str, Any]], claims: Sequence[Mapping[str, Any]],
         commands: Sequence[str]) -> str:
    """Return the table as a page of docs/results."""
    of_stages = ['Camera', 'Learner', 'Driver', *STAGES.values()]
    rows = [{COLUMNS.get(key, key): value for key, value in one.items()} for one in table]
    return '\n'.join([
        '# From camera to command', '',
        'Written by `python -m benchmarks.latency`; what the rows mean stands in '
        '[latency.md](../latency.md).', f'Machine: {machine()}. Times in ms.', '',
        table_page([{name: one[name] for name in COLUMNS.values()} for one in rows]),
        'Median of each stage:', '',
        table_page([{name: one.get(name) for name in of_stages} for one in rows
                    if of_stages[3] in one]),
        table_page([{'Goal': one['name'], 'ms': one['goal'], 'Measured, ms': one['value'],
                     'Holds': 'yes' if one['holds'] else 'no'} for one in claims]),
        'Commands:', '', *(f'    {one}' for one in commands), ''])


def save(table: Sequence[dict[str, Any]], commands: Sequence[str], file: Path | None,
         out: Path | None) -> None:
    """Write the results as JSON and as a page, where there is a file for them."""
    claims = claims_of(table)
    if file is not None:
        write_results('latency', claims, table, file, commands=commands)
    if out is not None:
        out.write_text(page(table, claims, commands), encoding='utf-8')


def main() -> int:
    """Print the table and the claims; write them as JSON and as a page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=at_least_one, default=5000)
    parser.add_argument('--peer-frames', type=at_least_one, default=1000)
    parser.add_argument('--lever-frames', type=at_least_one, default=250)
    parser.add_argument('--only', help='measure the cameras whose name begins so')
    parser.add_argument('--learner', choices=('learns', 'off'), help='measure only so')
    parser.add_argument('--driver', help='measure the drivers and levers whose name begins so')
    parser.add_argument('--levers', nargs='?', const='only', choices=('only', 'too'),
                        help='change one thing at a time: only that (default), or that too')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    parser.add_argument('--merge', action='store_true', help='keep the other rows of that file')
    parser.add_argument('--out', type=Path, help='page to write the results to')
    options = parser.parse_args()
    levers = [] if options.levers is None else LEVERS
    cases = [case for case in [*(CASES if options.levers != 'only' else []), *levers]
             if case.camera.startswith(options.only or '')
             and options.learner in (None, 'learns' if case.learning else 'off')
             and case.driver.startswith(options.driver or '')]
    alone = {name: take for name, take in parts().items() if levers
             and levers[0].camera.startswith(options.only or '')
             and name.startswith(options.driver or '')}
    if not cases and not alone:
        parser.error(
            f'nothing is measured by these options; there are the cameras {names(CASES, "camera")}'
            f', the drivers {names(CASES, "driver")}, and with --levers on camera '
            f'{LEVERS[0].camera} {", ".join([*(one.driver for one in LEVERS), *parts()])}')
    os.environ.update(ros_environment(os.environ))
    keep_memory()  # as the bridge does that carla.launch.py starts
    table: list[dict[str, Any]] = []
    commands = [command_line('latency')]
    if options.merge and options.json is not None and options.json.is_file():
        before = json.loads(options.json.read_text(encoding='utf-8'))
        table, commands = before['table'], [*before['commands'], *commands]

    def add(one: dict[str, Any]) -> None:
        table[:] = [*(row for row in table if key_of(row) != key_of(one)), one]
        print(', '.join(f'{key} {value}' for key, value in one.items()), flush=True)
        save(table, commands, options.json, options.out)  # each: the next one may take minutes

    for name, take in alone.items():
        add(part_row(name, take, options.lever_frames))
    domain, lease = take_domain(simulated=True)
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / 'bag'
        for case in cases:
            if case.peer and case.learning and not bag.is_dir():  # what the learner learns from
                measure(dataclasses.replace(case, peer=False), options.lever_frames, domain, bag)
            frames = (options.peer_frames if case.peer else
                      options.lever_frames if case in levers else options.frames)
            add(row(case, measure(case, frames, domain, bag)))
    if lease is not None:
        lease.release()
    return conclude('latency', claims_of(table), table, None)


if __name__ == '__main__':
    sys.exit(main())
