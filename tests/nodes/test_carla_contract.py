"""
The contract of the CARLA ROS bridge, as its source has it, check by check.

By default the embedded simulator is held against it, a process of its own. With
AV_TD3_CARLA_CONTRACT=live whatever runs in the current ROS domain is, for example the real bridge
of `ros2 launch av_td3_ros carla.launch.py session:=none`; AV_TD3_CARLA_VEHICLE is the role name.
"""
from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from carla_msgs.msg import (
    CarlaCollisionEvent,
    CarlaControl,
    CarlaEgoVehicleControl,
    CarlaEgoVehicleInfo,
    CarlaEgoVehicleStatus,
    CarlaLaneInvasionEvent,
    CarlaStatus,
    CarlaWorldInfo,
)
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Twist
from harness import SPECS, TIMEOUT, Peer, await_that, parameter_file
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, Imu, NavSatFix
from std_msgs.msg import Bool, Float32
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from av_td3_ros.cli.session import Session
from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.driving.route.planner import RouteError, RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import from_pose_message, to_nanoseconds, to_pose_message, to_yaw
from av_td3_ros.ros.markers import from_markers
from av_td3_ros.ros.runtime import DomainLease

LIVE = os.environ.get('AV_TD3_CARLA_CONTRACT') == 'live'
ROLE = os.environ.get('AV_TD3_CARLA_VEHICLE', 'ego_vehicle') if LIVE else 'ego_vehicle'
EGO = f'/carla/{ROLE}'
SMALL = {'world.camera.width': 64, 'world.camera.height': 48, 'world.roadside_distance': 0.0,
         'world.appearance.world': 'clean', 'world.traffic.count': 2, 'command_timeout': 60.0}
LATCHED, VOLATILE = DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE

# (topic, type, durability, whether the embedded simulator has it too); reliable, all of them.
PUBLISHED = (
    ('/clock', Clock, VOLATILE, True),
    ('/carla/status', CarlaStatus, VOLATILE, True),
    ('/carla/world_info', CarlaWorldInfo, LATCHED, True),
    ('/carla/markers', MarkerArray, VOLATILE, True),
    ('/carla/markers/static', MarkerArray, LATCHED, False),
    ('/tf', TFMessage, VOLATILE, False),
    (f'{EGO}/vehicle_info', CarlaEgoVehicleInfo, LATCHED, True),
    (f'{EGO}/vehicle_status', CarlaEgoVehicleStatus, VOLATILE, True),
    (f'{EGO}/odometry', Odometry, VOLATILE, True),
    (f'{EGO}/speedometer', Float32, VOLATILE, True),
    (f'{EGO}/imu', Imu, VOLATILE, True),
    (f'{EGO}/gnss', NavSatFix, VOLATILE, False),
    (f'{EGO}/collision', CarlaCollisionEvent, VOLATILE, True),
    (f'{EGO}/lane_invasion', CarlaLaneInvasionEvent, VOLATILE, True),
    (f'{EGO}/rgb_front/camera_info', CameraInfo, VOLATILE, True),
    (f'{EGO}/rgb_front/image', Image, VOLATILE, True),
    (f'{EGO}/waypoints', PathMessage, LATCHED, True),
)
TAKEN = (
    (f'{EGO}/vehicle_control_cmd', CarlaEgoVehicleControl, VOLATILE, True),
    (f'{EGO}/vehicle_control_cmd_manual', CarlaEgoVehicleControl, VOLATILE, True),
    (f'{EGO}/vehicle_control_manual_override', Bool, LATCHED, True),
    (f'{EGO}/enable_autopilot', Bool, VOLATILE, False),
    (f'{EGO}/goal', PoseStamped, VOLATILE, True),
    (f'{EGO}/control/set_transform', PoseMessage, VOLATILE, True),
    (f'{EGO}/control/set_target_velocity', Twist, VOLATILE, True),
    ('/initialpose', PoseWithCovarianceStamped, VOLATILE, True),
    ('/carla/control', CarlaControl, VOLATILE, True),
)
HEARD = {topic: (kind, durability) for topic, kind, durability, _ in PUBLISHED}
EACH_FRAME = ('/carla/markers', f'{EGO}/vehicle_status', f'{EGO}/odometry', f'{EGO}/speedometer',
              f'{EGO}/imu', f'{EGO}/rgb_front/camera_info', f'{EGO}/rgb_front/image')


@dataclasses.dataclass(frozen=True)
class Said:
    """One message and the publisher's own time of saying it, in ns."""

    at: int
    message: Any

    @property
    def stamp(self) -> int:
        """Return the stamp of its header in ns."""
        return to_nanoseconds(self.message.header.stamp)


class World:
    """A bridge or what stands for it, a drive in it, and all that was heard on the way."""

    def __init__(self, domain: int) -> None:
        # The events executor hands no message info to callbacks.
        self.peer = Peer(domain, 'contract', SingleThreadedExecutor)
        self.heard: dict[str, list[Said]] = {topic: [] for topic in HEARD}
        self._changed = threading.Condition()
        self.start = Odometry()
        # Stamps in ns at which the manoeuvres of the drive ended.
        self.straight = self.right = self.standing = self.backward = 0
        for topic, (kind, durability) in HEARD.items():
            self._hear(topic, kind, QoSProfile(
                depth=100, durability=durability, reliability=ReliabilityPolicy.RELIABLE))
        self.command = self._speak(CarlaEgoVehicleControl, 'vehicle_control_cmd')
        self.manual = self._speak(CarlaEgoVehicleControl, 'vehicle_control_cmd_manual')
        self.override = self._speak(Bool, 'vehicle_control_manual_override', qos.LATCHED)
        self.transform = self._speak(PoseMessage, 'control/set_transform')
        self.velocity = self._speak(Twist, 'control/set_target_velocity')
        self.goal = self._speak(PoseStamped, 'goal')
        self.control = self.peer.speak(CarlaControl, '/carla/control')

    def _hear(self, topic: str, kind: type, profile: QoSProfile) -> None:
        def take(message: Any, info: dict[str, Any]) -> None:
            with self._changed:
                self.heard[topic].append(Said(info['source_timestamp'], message))
                self._changed.notify_all()

        self.peer.node.create_subscription(kind, topic, take, profile)

    def _speak(self, kind: type, name: str, profile: QoSProfile = qos.SENSOR) -> Callable:
        return self.peer.speak(kind, f'{EGO}/{name}', profile)

    def next(self, topic: str, wanted: Callable[[Any], bool] = lambda _: True,
             after: int | None = None) -> Any:
        """Return the first wanted message on a topic behind those that are there already."""
        begin = len(self.heard[topic]) if after is None else after
        with self._changed:
            assert self._changed.wait_for(
                lambda: any(wanted(one.message) for one in self.heard[topic][begin:]), TIMEOUT), (
                f'{topic}: no such message within {TIMEOUT:g} s')
            return next(one.message for one in self.heard[topic][begin:] if wanted(one.message))

    def drive(self, frames: int, until: Callable[[Odometry], bool] = lambda _: False,
              **command: Any) -> Odometry:
        """Give one command for each image, until enough of them or `until` says so."""
        image, place = f'{EGO}/rgb_front/image', f'{EGO}/odometry'
        for _ in range(frames):
            before, places = len(self.heard[image]), len(self.heard[place])
            self.command(CarlaEgoVehicleControl(**command))
            self.next(image, after=before)
            odometry = self.next(place, after=max(0, places - 1))
            if until(odometry):
                break
        return odometry

    def last(self, topic: str) -> Any:
        """Return the newest message on a topic."""
        return self.next(topic, after=max(0, len(self.heard[topic]) - 1))

    def teleport(self, pose: PoseMessage) -> Odometry:
        """Put the vehicle somewhere, standing; return the first odometry from there."""
        self.transform(pose)
        self.velocity(Twist())
        return self.drive(60, lambda one: _distance(one.pose.pose, pose) < 0.5, brake=1.0)


@pytest.fixture(scope='module')
def world(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Drive straight on, to the right, stand, go back; what was heard is looked at afterwards."""
    if LIVE:
        driven = World(int(os.environ.get('ROS_DOMAIN_ID', '0')))
        yield _driven(driven)
        driven.peer.close()
        return
    lease, folder = DomainLease(), tmp_path_factory.mktemp('contract')
    parameters = parameter_file(folder, {'simulator_node': SMALL})
    with Session([SPECS['simulator_node']], parameters, folder,
                 environment={**os.environ, 'ROS_DOMAIN_ID': str(lease.domain)}):
        driven = World(lease.domain)
        try:
            yield _driven(driven)
        finally:
            driven.peer.close()
    lease.release()


def _driven(world: World) -> World:
    """Drive, noting which part of the record is of which manoeuvre."""
    world.start = world.drive(2, brake=1.0)
    world.drive(200, lambda one: one.twist.twist.linear.x > 4.0, throttle=0.6)
    world.straight = _mark(world)
    world.drive(30, throttle=0.4, steer=0.4)
    world.right = _mark(world)
    world.drive(200, lambda one: abs(one.twist.twist.linear.x) < 0.05, brake=1.0)
    world.standing = _mark(world)
    world.drive(200, lambda one: one.twist.twist.linear.x < -0.5, throttle=0.5, reverse=True)
    world.drive(10, throttle=0.5, reverse=True)
    world.backward = _mark(world)
    world.drive(200, lambda one: abs(one.twist.twist.linear.x) < 0.05, brake=1.0)
    return world


def _mark(world: World) -> int:
    """Return the stamp in ns up to which the odometry has been heard."""
    return world.heard[f'{EGO}/odometry'][-1].stamp


def _distance(one: PoseMessage, other: PoseMessage) -> float:
    return math.hypot(one.position.x - other.position.x, one.position.y - other.position.y)


def _places(world: World, begin: int = 0, end: int = 2**62) -> list[Odometry]:
    return [one.message for one in world.heard[f'{EGO}/odometry'] if begin < one.stamp <= end]


def _at(world: World, topic: str) -> dict[int, Any]:
    """Return {stamp in ns: message} of a topic."""
    return {one.stamp: one.message for one in world.heard[topic]}


def _leads(planner: RoutePlanner, start: Pose, goal: Pose) -> bool:
    try:
        return 20.0 < planner.plan(start, goal).length < 500.0
    except RouteError:
        return False


def _missing(has: bool, topic: str) -> None:
    if not (has or LIVE):
        pytest.skip(f'the embedded simulator has no {topic}')


# -- the graph


@pytest.mark.parametrize(('topic', 'kind', 'durability', 'has'), PUBLISHED,
                         ids=[one[0].replace(EGO, 'R') for one in PUBLISHED])
def test_published(world: World, topic: str, kind: type, durability: DurabilityPolicy, has: bool
                   ) -> None:
    _missing(has, topic)
    ends = await_that(lambda: world.peer.node.get_publishers_info_by_topic(topic), topic)
    assert [one.topic_type for one in ends] == [_name(kind)] * len(ends)
    assert {one.qos_profile.reliability for one in ends} == {ReliabilityPolicy.RELIABLE}
    assert {one.qos_profile.durability for one in ends} == {durability}


@pytest.mark.parametrize(('topic', 'kind', 'durability', 'has'), TAKEN,
                         ids=[one[0].replace(EGO, 'R') for one in TAKEN])
def test_taken(world: World, topic: str, kind: type, durability: DurabilityPolicy, has: bool
               ) -> None:
    _missing(has, topic)
    ends = await_that(lambda: world.peer.node.get_subscriptions_info_by_topic(topic), topic)
    assert {one.topic_type for one in ends} == {_name(kind)}
    assert {one.qos_profile.reliability for one in ends} == {ReliabilityPolicy.RELIABLE}
    assert durability in {one.qos_profile.durability for one in ends}


def _name(kind: type) -> str:
    package, _, _ = kind.__module__.partition('.msg.')
    return f'{package}/msg/{kind.__name__}'


@pytest.mark.parametrize('topic', [one[0] for one in PUBLISHED
                                   if one[2] is LATCHED and one[3]])
def test_latched_for_whoever_comes_late(world: World, topic: str) -> None:
    if topic == f'{EGO}/waypoints':
        world.goal(PoseStamped(pose=world.start.pose.pose))
        world.drive(2, brake=1.0)
    late = Peer(world.peer.domain, 'late')
    try:
        assert late.hear(HEARD[topic][0], topic, qos.LATCHED).next()
    finally:
        late.close()


# -- one tick


def test_every_frame_counts_one_and_the_clock_goes_on_by_the_fixed_step(world: World) -> None:
    frames = [one.message for one in world.heard['/carla/status']]
    numbers = sorted({one.frame for one in frames})
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert {one.synchronous_mode for one in frames} == {True}
    step = round(frames[-1].fixed_delta_seconds * 1e9)
    clocks = [to_nanoseconds(one.message.clock) for one in world.heard['/clock']]
    assert all(later - sooner == pytest.approx(step, abs=1e3)
               for sooner, later in itertools.pairwise(clocks))


def test_a_tick_is_told_in_order_status_clock_sensors(world: World) -> None:
    statuses = [one.at for one in world.heard['/carla/status']]
    clocks = [one.at for one in world.heard['/clock']]
    for topic in EACH_FRAME:
        for one in world.heard[topic]:
            last_status = statuses[bisect.bisect(statuses, one.at) - 1]
            last_clock = clocks[bisect.bisect(clocks, one.at) - 1]
            assert last_status < last_clock < one.at, topic


def test_all_of_a_tick_has_the_stamp_of_the_clock(world: World) -> None:
    clocks = {to_nanoseconds(one.message.clock) for one in world.heard['/clock']}
    for topic in (f'{EGO}/odometry', f'{EGO}/vehicle_status', f'{EGO}/imu',
                  f'{EGO}/rgb_front/image', f'{EGO}/rgb_front/camera_info'):
        stamps = {one.stamp for one in world.heard[topic]}
        assert stamps and stamps <= clocks, topic
    markers = {to_nanoseconds(one.message.markers[0].header.stamp)
               for one in world.heard['/carla/markers'] if one.message.markers}
    assert markers and markers <= clocks


def test_camera_info_comes_before_its_image(world: World) -> None:
    told = {one.stamp: one.at for one in world.heard[f'{EGO}/rgb_front/camera_info']}
    images = world.heard[f'{EGO}/rgb_front/image']
    assert len(images) > 50
    assert all(told[one.stamp] < one.at for one in images if one.stamp in told)


# -- what the messages hold


def test_the_image_is_bgra8(world: World) -> None:
    image = world.last(f'{EGO}/rgb_front/image')
    assert image.encoding == 'bgra8' and not image.is_bigendian
    assert image.header.frame_id == f'{ROLE}/rgb_front'
    assert image.step == 4 * image.width and len(image.data) == image.step * image.height


def test_camera_info_is_a_pinhole_without_distortion(world: World) -> None:
    info, image = (world.last(f'{EGO}/rgb_front/{name}') for name in ('camera_info', 'image'))
    assert (info.width, info.height) == (image.width, image.height)
    assert info.header.frame_id == f'{ROLE}/rgb_front'
    assert info.distortion_model == 'plumb_bob' and list(info.d) == [0.0] * 5
    focal = info.k[0]
    assert 0.1 * info.width < focal < 10.0 * info.width
    middle = (info.width / 2.0, info.height / 2.0)
    assert list(info.k) == pytest.approx([focal, 0, middle[0], 0, focal, middle[1], 0, 0, 1])
    assert list(info.p) == pytest.approx([focal, 0, middle[0], 0, 0, focal, middle[1], 0, 0, 0, 1,
                                          0])
    assert list(info.r) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_odometry_is_of_the_vehicle_on_the_map(world: World) -> None:
    odometry = world.last(f'{EGO}/odometry')
    assert odometry.header.frame_id == 'map' and odometry.child_frame_id == ROLE
    assert not any(odometry.pose.covariance) and not any(odometry.twist.covariance)


def test_the_map_frame_is_that_of_opendrive(world: World) -> None:
    info = world.last('/carla/world_info')
    assert info.map_name
    lane = RoadMap.from_text(info.opendrive, info.map_name).project(
        world.start.pose.pose.position.x, world.start.pose.pose.position.y)
    yaw = to_yaw(world.start.pose.pose.orientation)
    assert abs(lane.lateral) < 1.5 and abs(wrap_angle(yaw - lane.yaw)) < 0.5


def test_twist_is_in_the_body_frame(world: World) -> None:
    rolled = 0
    for sooner, later in itertools.pairwise(_places(world)):
        seconds = (to_nanoseconds(later.header.stamp) - to_nanoseconds(sooner.header.stamp)) / 1e9
        speed = later.twist.twist.linear.x
        if seconds < 0.2 and abs(speed) > 1.0:
            yaw = to_yaw(later.pose.pose.orientation)
            x = (later.pose.pose.position.x - sooner.pose.pose.position.x) / seconds
            y = (later.pose.pose.position.y - sooner.pose.pose.position.y) / seconds
            assert x * math.cos(yaw) + y * math.sin(yaw) == pytest.approx(speed, abs=0.6)
            rolled += 1
    assert rolled > 20


def test_positive_steer_turns_right_and_yaw_is_counted_to_the_left(world: World) -> None:
    turn = _places(world, world.straight, world.right)
    turned = sum(wrap_angle(to_yaw(later.pose.pose.orientation)
                            - to_yaw(sooner.pose.pose.orientation))
                 for sooner, later in itertools.pairwise(turn))
    assert turned < -0.05
    assert turn[-1].twist.twist.angular.z < -0.02


def test_vehicle_status_has_the_absolute_speed(world: World) -> None:
    told = _at(world, f'{EGO}/vehicle_status')
    compared = 0
    for place in _places(world):
        status = told.get(to_nanoseconds(place.header.stamp))
        if status is not None:
            speed = place.twist.twist.linear
            assert status.header.frame_id == 'map'
            assert status.velocity == pytest.approx(math.hypot(speed.x, speed.y), abs=0.05)
            assert abs(wrap_angle(to_yaw(status.orientation)
                                  - to_yaw(place.pose.pose.orientation))) < 0.01
            compared += 1
    assert compared > 50
    assert min(status.velocity for status in told.values()) >= 0.0


def test_vehicle_status_has_the_command_that_is_obeyed(world: World) -> None:
    turned = [one.message.control for one in world.heard[f'{EGO}/vehicle_status']
              if world.straight < one.stamp <= world.right][5:]
    assert turned
    for control in turned:
        assert control.steer == pytest.approx(0.4, abs=0.01)
        assert control.throttle == pytest.approx(0.4, abs=0.01)
        assert control.brake == 0.0 and not control.reverse


def test_the_speedometer_is_signed(world: World) -> None:
    speeds = [one.message.data for one in world.heard[f'{EGO}/speedometer']]
    assert max(speeds) > 3.5 and min(speeds) < -0.4


def test_reverse_is_asked_for_by_its_flag_alone(world: World) -> None:
    assert min(one.twist.twist.linear.x for one in _places(world, 0, world.standing)) > -0.1
    assert _places(world, world.standing, world.backward)[-1].twist.twist.linear.x < -0.4


def test_the_imu_is_right_handed_and_feels_its_weight(world: World) -> None:
    felt = _at(world, f'{EGO}/imu')
    assert {one.header.frame_id for one in felt.values()} == {f'{ROLE}/imu'}
    turn = [felt[to_nanoseconds(one.header.stamp)] for one in
            _places(world, world.straight, world.right) if
            to_nanoseconds(one.header.stamp) in felt][10:]
    assert turn and max(one.angular_velocity.z for one in turn) < 0.0
    standing = world.last(f'{EGO}/imu').linear_acceleration
    assert standing.z == pytest.approx(9.81, abs=0.5)


def test_vehicle_info_describes_the_vehicle_in_its_own_frame(world: World) -> None:
    info = world.last(f'{EGO}/vehicle_info')
    assert info.rolename == ROLE and info.id > 0 and info.mass > 0.0
    front_left, front_right, rear_left, rear_right = info.wheels
    assert 0.2 < front_left.max_steer_angle < math.pi / 2
    assert front_left.position.x > 0.0 > rear_left.position.x
    assert front_left.position.y > 0.0 > front_right.position.y
    assert rear_left.position.y > 0.0 > rear_right.position.y


def test_lane_invasion_says_what_was_crossed(world: World) -> None:
    if not world.heard[f'{EGO}/lane_invasion']:
        pytest.skip('no line was crossed on this road')
    for one in world.heard[f'{EGO}/lane_invasion']:
        assert one.message.crossed_lane_markings
        assert all(0 <= kind <= 10 for kind in one.message.crossed_lane_markings)


def test_events_are_of_the_frame_of_their_sensor(world: World) -> None:
    events = [(name, one.message) for name in ('collision', 'lane_invasion')
              for one in world.heard[f'{EGO}/{name}']]
    if not events:
        pytest.skip('nothing was hit or crossed on this road')
    assert all(one.header.frame_id == f'{ROLE}/{name}' for name, one in events)


def test_acceleration_of_the_status_is_in_the_map_frame(world: World) -> None:
    status = _at(world, f'{EGO}/vehicle_status')
    speeding = [(status[to_nanoseconds(one.header.stamp)].acceleration.linear,
                 to_yaw(one.pose.pose.orientation))
                for one in _places(world, to_nanoseconds(world.start.header.stamp), world.straight)
                if to_nanoseconds(one.header.stamp) in status]
    ahead = [linear.x * math.cos(yaw) + linear.y * math.sin(yaw) for linear, yaw in speeding]
    aside = [linear.y * math.cos(yaw) - linear.x * math.sin(yaw) for linear, yaw in speeding]
    assert sum(ahead) > 10.0 * abs(sum(aside))


# -- markers (sensor.pseudo.markers)


def test_markers_are_whole_boxes_of_road_users_on_the_map(world: World) -> None:
    markers = world.last('/carla/markers').markers
    assert markers and len({one.id for one in markers}) == len(markers)
    for one in markers:
        assert one.type == Marker.CUBE and one.action == Marker.ADD and one.ns == ''
        assert one.header.frame_id == 'map'
        assert to_nanoseconds(one.lifetime) == 0
        assert min(one.scale.x, one.scale.y, one.scale.z) > 0.2


def test_the_vehicle_itself_is_among_the_markers_by_its_id(world: World) -> None:
    stamp, boxes = from_markers(world.last('/carla/markers'))
    place = next(one for one in reversed(_places(world))
                 if to_nanoseconds(one.header.stamp) == stamp)
    info = world.last(f'{EGO}/vehicle_info')
    (own,) = [one for one in boxes if one.id == info.id]
    pose = from_pose_message(place.pose.pose)
    assert math.hypot(own.x - pose.x, own.y - pose.y) < 0.1
    assert abs(wrap_angle(own.yaw - pose.yaw)) < 0.01
    wheels = [wheel.position for wheel in info.wheels]
    base = max(one.x for one in wheels) - min(one.x for one in wheels)
    assert base < own.length < 2.5 * base  # a half box would be shorter than the wheelbase


def test_the_middle_of_a_marker_is_half_its_height_above_the_vehicle(world: World) -> None:
    info, markers = world.last(f'{EGO}/vehicle_info'), world.last('/carla/markers').markers
    (own,) = [one for one in markers if one.id == info.id]
    ground = world.last(f'{EGO}/odometry').pose.pose.position.z
    assert own.pose.position.z - ground == pytest.approx(own.scale.z / 2, abs=0.1)


# -- what is taken; these drive on, so they come last


def test_a_goal_is_answered_by_a_route_on_the_map(world: World) -> None:
    info = world.last('/carla/world_info')
    roads = RoadMap.from_text(info.opendrive, info.map_name)
    start = from_pose_message(world.start.pose.pose)
    planner = RoutePlanner(roads)
    goal = to_pose_message(next(
        one for one in roads.spawn_points()
        if math.hypot(one.x - start.x, one.y - start.y) > 20.0 and _leads(planner, start, one)))
    world.teleport(world.start.pose.pose)
    before = len(world.heard[f'{EGO}/waypoints'])
    world.goal(PoseStamped(pose=goal))
    world.drive(2, brake=1.0)
    route = world.next(f'{EGO}/waypoints', lambda one: len(one.poses) > 5 and _distance(
        one.poses[-1].pose, goal) < 5.0, after=before)
    assert route.header.frame_id == 'map'
    assert _distance(route.poses[0].pose, world.start.pose.pose) < 5.0


def test_set_transform_and_no_velocity_put_the_vehicle_there_at_rest(world: World) -> None:
    world.drive(40, throttle=0.8)
    placed = world.teleport(world.start.pose.pose)
    assert _distance(placed.pose.pose, world.start.pose.pose) < 0.5
    rest = world.drive(3, brake=1.0)
    assert abs(rest.twist.twist.linear.x) < 0.2
    assert _distance(rest.pose.pose, world.start.pose.pose) < 0.5


def test_under_manual_override_only_the_manual_command_counts(world: World) -> None:
    begin = world.teleport(world.start.pose.pose)
    world.override(Bool(data=True))
    try:
        for _ in range(20):
            images = len(world.heard[f'{EGO}/rgb_front/image'])
            world.command(CarlaEgoVehicleControl(throttle=1.0))
            world.manual(CarlaEgoVehicleControl(brake=1.0))
            world.next(f'{EGO}/rgb_front/image', after=images)
        assert _distance(world.last(f'{EGO}/odometry').pose.pose, begin.pose.pose) < 0.5
    finally:
        world.override(Bool(data=False))
        world.command(CarlaEgoVehicleControl(brake=1.0))
        world.manual(CarlaEgoVehicleControl(brake=1.0))
        world.drive(2, brake=1.0)


def test_pause_step_and_play(world: World) -> None:
    topic = '/carla/status'
    before = len(world.heard[topic])
    world.control(CarlaControl(command=CarlaControl.PAUSE))
    world.command(CarlaEgoVehicleControl(brake=1.0))
    paused = world.next(topic, lambda one: not one.synchronous_mode_running, after=before)
    before = len(world.heard[topic])
    world.control(CarlaControl(command=CarlaControl.STEP_ONCE))
    world.command(CarlaEgoVehicleControl(brake=1.0))
    stepped = world.next(topic, lambda one: one.frame != paused.frame, after=before)
    assert stepped.frame == paused.frame + 1
    before = len(world.heard[topic])
    world.control(CarlaControl(command=CarlaControl.PLAY))
    world.command(CarlaEgoVehicleControl(brake=1.0))
    world.next(topic, lambda one: one.synchronous_mode_running, after=before)
    world.drive(3, brake=1.0)
