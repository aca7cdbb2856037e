"""The nodes that put a real vehicle into a virtual world, and ask it to stop."""
from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ackermann_msgs.msg import AckermannDriveStamped
from carla_msgs.msg import CarlaStatus
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Twist
from harness import TIMEOUT, Log, Peer, Running, await_that
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from av_td3_ros.cli.config import dotted
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.proving_ground.alignment import place_at, to_ground
from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.driving.route.planner import RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import (
    to_nanoseconds,
    to_odometry,
    to_pose_message,
    to_stamp,
    to_yaw,
)
from av_td3_ros.simulator.view.appearance import AppearanceSettings
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import World, WorldSettings

EGO = '/carla/ego_vehicle'
ROADS = RoadMap.from_file(map_file('loop'))
START = ROADS.spawn_points()[3]
FIRST = Pose(12.0, -5.0, 2.0)  # where the vehicle stands on the ground
ORIGIN = place_at(FIRST, START)  # of the ground, on the map
PERIOD = 0.02  # s
SETTINGS = {
    'ego': 'external', 'mode': 'real_time', 'world.map': 'loop', 'world.camera.width': 64,
    'world.camera.height': 48, 'world.roadside_distance': 0.0, 'world.appearance.world': 'clean',
    'external.max_age': 5.0, 'external.start.x': ORIGIN.x, 'external.start.y': ORIGIN.y,
    'external.start.yaw': ORIGIN.yaw, 'external.ground.x': FIRST.x, 'external.ground.y': FIRST.y,
    'external.ground.yaw': FIRST.yaw, 'external.ground.length': 100.0,
    'external.ground.width': 60.0}


class Ground:
    """A vehicle on the ground that measures what a test tells it to."""

    def __init__(self, peer: Peer, node: Running) -> None:
        self.node = node
        self.images = peer.hear(Image, f'{EGO}/rgb_front/image')
        self.odometry = peer.hear(Odometry, f'{EGO}/odometry')
        self.markers = peer.hear(MarkerArray, '/carla/markers')
        self.clock = peer.hear(Clock, '/clock')
        self.stops = peer.hear(String, '/ego_vehicle/stop_request')
        self.diagnostics = peer.hear(DiagnosticArray, '/diagnostics')
        self.paths = peer.hear(PathMessage, f'{EGO}/waypoints', qos.LATCHED)
        self.publish = peer.speak(Odometry, '/vehicle/odometry')
        node.connected(peer)

    def measure(self, ahead: float = 0.0, speed: float = 0.0, *, left: float = 0.0,
                yaw: float = 0.0, stamp_ns: int | None = None, **others: float) -> int:
        """Publish one odometry, relative to the first place; return its stamp."""
        there = FIRST.ahead(ahead)
        stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
        vehicle = VehicleState(stamp_ns, there.x - left * math.sin(FIRST.yaw),
                               there.y + left * math.cos(FIRST.yaw), FIRST.yaw + yaw, speed)
        message = to_odometry(vehicle, 'ground', 'base_link')
        for name, value in others.items():
            setattr(message.pose.pose.position, name, value)
        self.publish(message)
        return stamp_ns

    def seen(self, ahead: float = 0.0, speed: float = 0.0, **others: Any) -> Odometry:
        """Measure until the simulator has taken it; return its odometry of that stamp."""
        stamps = []

        def taken() -> Odometry | None:
            stamps.append(self.measure(ahead, speed, **others))
            until = time.monotonic() + PERIOD
            while time.monotonic() < until:
                for one in self.odometry.messages:
                    if to_nanoseconds(one.header.stamp) in stamps:
                        return one
                time.sleep(0.001)
            return None

        return await_that(taken, 'the odometry on the map')


@pytest.fixture
def start(peer: Peer, make: Callable[..., Running]) -> Callable[..., Ground]:
    """Return a function that starts a simulator for a real vehicle."""
    def start(**changes: Any) -> Ground:
        node = make('simulator_node', {**SETTINGS, **{
            key.replace('__', '.'): value for key, value in changes.items()}},
            'vehicle_in_the_loop')
        ground = Ground(peer, node)
        node.spin()
        return ground

    return start


def words_of(message: DiagnosticArray) -> str:
    """Return what the diagnostics say of the real vehicle."""
    return '; '.join(f'{status.message}; ' + '; '.join(
        f'{value.key}: {value.value}' for value in status.values)
        for status in message.status if status.name.endswith('real vehicle'))


def place(odometry: Odometry) -> Pose:
    pose = odometry.pose.pose
    return Pose(pose.position.x, pose.position.y, to_yaw(pose.orientation))


def test_the_ego_is_where_the_ground_lies_on_the_map(start: Callable[..., Ground]) -> None:
    ground = start()
    first = ground.seen()
    assert place(first).distance(START.x, START.y) < 1e-6
    assert wrap_angle(place(first).yaw - START.yaw) == pytest.approx(0.0, abs=1e-6)
    assert (first.header.frame_id, first.child_frame_id) == ('map', 'ego_vehicle')
    there, wanted = ground.seen(3.0, 5.0), START.ahead(3.0)
    assert place(there).distance(wanted.x, wanted.y) < 1e-6
    assert there.twist.twist.linear.x == pytest.approx(5.0)
    # The image, and the others on the road, carry the stamp of the pose that they show.
    image = ground.images.next(lambda one: one.header.stamp == there.header.stamp)
    ground.markers.next(lambda one: one.markers[0].header.stamp == there.header.stamp)
    shown = World(WorldSettings(
        map='loop', roadside_distance=0.0, camera=CameraSettings(width=64, height=48),
        appearance=AppearanceSettings(world='clean')))
    shown.teleport(place(there))
    assert np.array_equal(np.frombuffer(image.data, np.uint8).reshape(48, 64, 4), shown.render())
    assert not ground.clock.messages  # the time is the vehicle's


def test_the_middle_of_the_body_is_ahead_of_a_rear_axle(start: Callable[..., Ground]) -> None:
    ground = start(external__centre_ahead=1.4)
    wanted = START.ahead(1.4)
    assert place(ground.seen()).distance(wanted.x, wanted.y) < 1e-6


def test_images_come_at_the_cameras_pace(start: Callable[..., Ground]) -> None:
    ground = start()
    begun = time.time_ns() - 4 * 10**9
    stamps = [ground.measure(stamp_ns=begun + number * 20_000_000) for number in range(1)]
    ground.images.next()
    for number in range(1, 101):
        stamps.append(ground.measure(0.1 * number, 5.0, stamp_ns=begun + number * 20_000_000))
        time.sleep(0.01)  # only the newest pose is kept: one at a time
    ground.images.next(lambda one: to_nanoseconds(one.header.stamp) >= stamps[-3])
    shown = [to_nanoseconds(one.header.stamp) for one in ground.images.messages]
    assert set(shown) <= set(stamps)
    assert len(shown) == pytest.approx(41, abs=8)


def test_odometry_that_is_broken_stale_or_backward_is_refused_and_counted(
        start: Callable[..., Ground], log: Log) -> None:
    ground = start(external__max_age=0.5)
    refused = ground.node.node._real.real.gate.refused
    ground.seen()
    ground.measure(x=math.nan)
    assert 'not finite' in log.next('vehicle odometry refused (1 so far)')
    unset = Odometry()
    unset.header.stamp, unset.pose.pose.orientation.w = to_stamp(time.time_ns()), 0.0
    ground.publish(unset)
    await_that(lambda: refused['broken'] == 2, 'the refusal of an orientation that is none')
    for number, stamp_ns in enumerate((time.time_ns() - 3 * 10**9, time.time_ns() + 3 * 10**9)):
        ground.measure(stamp_ns=stamp_ns)
        await_that(lambda number=number: refused['stale'] == number + 1, 'the refusal')
    newest = to_nanoseconds(ground.seen(1.0, 0.0).header.stamp)
    ground.measure(5.0, stamp_ns=newest - 1_000_000)
    await_that(lambda: refused['backward'] >= 1, 'the refusal')
    assert place(ground.seen(1.0)).distance(START.ahead(1.0).x, START.ahead(1.0).y) < 1e-6
    assert refused['broken'] == 2
    told = ground.diagnostics.next(lambda one: 'refused: broken: 2' in words_of(one))
    assert 'vehicle odometry' in words_of(told)


@pytest.mark.parametrize(('kind', 'topic', 'name'), [
    (PoseMessage, f'{EGO}/control/set_transform', 'set_transform'),
    (PoseWithCovarianceStamped, '/initialpose', 'initial_pose'),
    (Twist, f'{EGO}/control/set_target_velocity', 'set_target_velocity')])
def test_nobody_teleports_a_real_vehicle(start: Callable[..., Ground], peer: Peer, log: Log,
                                         kind: type, topic: str, name: str) -> None:
    ground = start()
    ground.seen()
    peer.speak(kind, topic)(kind())
    assert 'a real vehicle is where it is' in log.next(f'{name.replace("_", " ")} refused')
    assert place(ground.seen()).distance(START.x, START.y) < 1e-6


def test_a_stop_is_asked_for_before_the_edge_of_the_ground(start: Callable[..., Ground]) -> None:
    ground = start()
    ground.seen()
    ground.seen(34.0, 0.0)  # standing there is fine, but odometry does not jump so far
    assert 'the odometry jumped' in ground.stops.next().data
    ground.seen(34.1, 8.0)
    assert 'the ground ends ahead: at 8.0 m/s' in ground.stops.next(
        lambda one: 'jumped' not in one.data).data
    reason = await_that(lambda: ground.measure(49.0) and next((
        one.data for one in ground.stops.messages if 'by hand' in one.data), None), 'the edge')
    assert 'at the edge of the ground or outside' in reason
    told = len(ground.stops.messages)
    await_that(lambda: ground.measure(49.0) and len(ground.stops.messages) > told,
               'the request again')


def test_driving_well_inside_the_ground_is_no_reason_to_stop(start: Callable[..., Ground]) -> None:
    ground = start()
    for number in range(20):
        ground.seen(0.1 * number, 5.0)
    assert ground.stops.messages == []


def test_a_route_leads_from_the_vehicle_to_the_goal(start: Callable[..., Ground], peer: Peer,
                                                    log: Log) -> None:
    ground = start()
    goal = RoutePlanner(ROADS).sample_goal(START, 80.0, 80.0, np.random.default_rng(0)).goal
    ground.seen(2.0, 1.0)
    peer.speak(PoseStamped, f'{EGO}/goal')(PoseStamped(pose=to_pose_message(goal)))
    await_that(lambda: ground.measure(2.0, 1.0) and ground.paths.messages, 'the route')
    path = ground.paths.next().poses
    first, last = path[0].pose.position, path[-1].pose.position
    assert START.ahead(2.0).distance(first.x, first.y) < 1.0
    assert goal.distance(last.x, last.y) < 1.5
    assert 'will be stopped before it is driven' in log.next('lie on the ground')
    near = RoutePlanner(ROADS).sample_goal(START, 30.0, 30.0, np.random.default_rng(0)).goal
    peer.speak(PoseStamped, f'{EGO}/goal')(PoseStamped(pose=to_pose_message(near)))
    await_that(lambda: ground.measure(2.0, 1.0) and len(ground.paths.messages) > 1, 'the next')
    assert 'will be stopped' not in log.next('lie on the ground')


def test_a_route_of_a_given_length_is_there_at_once(start: Callable[..., Ground], log: Log
                                                    ) -> None:
    ground = start(route_length=40.0)
    ground.seen()
    told = log.next('lie on the ground')
    assert told.endswith('a route of 40 m, of which 40 m lie on the ground')
    path = ground.paths.next().poses
    assert len(path) == pytest.approx(41, abs=1)
    assert START.distance(path[0].pose.position.x, path[0].pose.position.y) < 1.0


def test_a_stop_is_asked_for_when_braking_could_hardly_avoid_another_one(
        start: Callable[..., Ground]) -> None:
    ground = start(route_length=150.0, world__traffic__count=1, external__ground__length=1000.0,
                   external__ground__width=1000.0, external__ground__max_jump=100.0)
    boxes = []

    def other() -> Pose | None:
        ground.measure()
        boxes.extend(ground.markers.messages[-1:])
        return next((Pose(one.pose.position.x, one.pose.position.y, to_yaw(one.pose.orientation))
                     for one in (boxes[-1].markers[1:] if boxes else ())), None)

    seen = await_that(other, 'another vehicle')
    # Behind it at once, much faster than it may brake.
    behind = to_ground(ORIGIN, seen.ahead(-12.0))
    ahead, left = (math.cos(FIRST.yaw) * (behind.x - FIRST.x)
                   + math.sin(FIRST.yaw) * (behind.y - FIRST.y),
                   math.cos(FIRST.yaw) * (behind.y - FIRST.y)
                   - math.sin(FIRST.yaw) * (behind.x - FIRST.x))
    yaw = behind.yaw - FIRST.yaw
    reason = await_that(lambda: ground.measure(ahead, 20.0, left=left, yaw=yaw) and next((
        one.data for one in ground.stops.messages if 'collision' in one.data), None), 'a reason')
    assert 'collision ahead' in reason or 'collision with actor' in reason


REFUSED = {
    'a world that waits': ({'mode': 'lockstep'}, 'a real vehicle waits for nobody'),
    'no ground': ({'external.ground.width': 0.0}, 'measure the empty rectangle'),
    'no such ego': ({'ego': 'dreamt'}, 'dynamics')}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_driven_is_refused_at_the_start(make: Callable[..., Running], name: str
                                                       ) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        make('simulator_node', {**SETTINGS, **changes}, 'vehicle_in_the_loop')


def test_the_mirror_puts_carlas_vehicle_there_in_each_tick(peer: Peer, make: Callable[..., Running]
                                                           ) -> None:
    node = make('mirror_node', {'height': 0.3, **{
        key: value for key, value in SETTINGS.items() if key.startswith('external')}},
        'vehicle_in_the_loop_carla')
    transforms = peer.hear(PoseMessage, f'{EGO}/control/set_transform')
    velocities = peer.hear(Twist, f'{EGO}/control/set_target_velocity')
    stops = peer.hear(String, '/ego_vehicle/stop_request')
    measure = peer.speak(Odometry, '/vehicle/odometry')
    tick = peer.speak(CarlaStatus, '/carla/status')
    node.connected(peer)
    node.spin()

    def measured(ahead: float, speed: float) -> None:
        there = FIRST.ahead(ahead)
        measure(to_odometry(VehicleState(time.time_ns(), there.x, there.y, FIRST.yaw, speed),
                            'ground', 'base_link'))
        await_that(lambda: node.node._newest is not None and node.node._newest.speed == speed,
                   'the odometry')

    measured(0.0, 0.0)
    measured(0.2, 6.0)
    tick(CarlaStatus())
    pose, wanted = transforms.next(), START.ahead(0.2)
    assert wanted.distance(pose.position.x, pose.position.y) < 1e-6
    assert wrap_angle(to_yaw(pose.orientation) - START.yaw) == pytest.approx(0.0, abs=1e-6)
    assert pose.position.z == 0.3
    assert velocities.next().linear.x == 6.0
    assert len(transforms.messages) == 1
    measured(45.0, 8.0)
    assert stops.next(lambda one: 'ground' in one.data)


def test_align_records_a_drive_from_the_odometry(peer: Peer, tmp_path: Path) -> None:
    measure = peer.speak(Odometry, '/vehicle/odometry', heard=False)
    out = tmp_path / 'ground.yaml'
    process = subprocess.Popen(
        [sys.executable, '-m', 'av_td3_ros.cli.main', 'align', '--map', 'loop', '--spawn-point',
         '3', '--topic', '/vehicle/odometry', '--out', str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    await_that(lambda: peer.node.count_subscribers('/vehicle/odometry'), 'the recording')
    lane = ROADS.lane_ahead(START, 40.0)
    yaws = np.arctan2(*np.diff(lane, axis=0).T[::-1])
    places = [to_ground(ORIGIN, Pose(x, y, yaw)) for (x, y), yaw in zip(
        lane[:-1].tolist(), yaws.tolist(), strict=True)]
    for there in [places[0]] * 20 + places:
        measure(to_odometry(VehicleState(time.time_ns(), there.x, there.y, there.yaw, 3.0),
                            'ground', 'base_link'))
        time.sleep(PERIOD)  # as a vehicle does; only the newest is kept
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=TIMEOUT)[0]
    assert process.returncode == 0, said
    values = dotted(yaml.safe_load(out.read_text())['/**/simulator_node']['ros__parameters'])
    assert ORIGIN.distance(values['external.start.x'], values['external.start.y']) < 0.1
    assert wrap_angle(values['external.start.yaw'] - ORIGIN.yaw) == pytest.approx(0.0, abs=5e-3)


@pytest.fixture
def stand_in(peer: Peer, make: Callable[..., Running]) -> Iterator[tuple[Any, Any]]:
    """Start a stand-in vehicle; return what it measures and how it is commanded."""
    node = make('stand_in_vehicle_node', {
        'vehicle.x': 5.0, 'vehicle.yaw': 1.0, 'vehicle.command_timeout': 1.0},
        'vehicle_in_the_loop_bench')
    odometry = peer.hear(Odometry, '/vehicle/odometry')
    command = peer.speak(AckermannDriveStamped, '/vehicle/command')
    node.connected(peer)
    node.spin()
    yield odometry, command


def drive(speed: float, acceleration: float = 0.0) -> AckermannDriveStamped:
    message = AckermannDriveStamped()
    message.drive.speed, message.drive.acceleration = speed, acceleration
    return message


def test_the_stand_in_drives_as_it_is_commanded_and_stops_unheard(
        stand_in: tuple[Any, Any], log: Log) -> None:
    odometry, command = stand_in
    first = odometry.next()
    assert (first.header.frame_id, first.child_frame_id) == ('ground', 'base_link')
    assert place(first).distance(5.0, 0.0) < 0.2
    assert abs(to_nanoseconds(first.header.stamp) - time.time_ns()) < 30 * 10**9
    command(drive(math.nan))
    assert 'not finite' in log.next('left out')
    await_that(lambda: command(drive(6.0)) or odometry.messages[-1].twist.twist.linear.x > 3.0,
               'some speed')
    assert 'stopping by itself' in log.next('no commands any more')
    odometry.next(lambda one: abs(one.twist.twist.linear.x) < 0.2)
    stamps = [to_nanoseconds(one.header.stamp) for one in odometry.messages]
    assert np.median(np.diff(stamps)) == pytest.approx(20e6, rel=0.3)
