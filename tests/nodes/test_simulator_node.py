"""The simulator node against the contract of the CARLA ROS bridge."""
from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from harness import SPECS, TIMEOUT, Log, Peer, Running, await_that, parameter_file
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, Imu
from std_msgs.msg import Bool, Float32
from visualization_msgs.msg import Marker, MarkerArray

from av_td3_ros.driving.route.geometry import Pose, to_vehicle_frame, wrap_angle
from av_td3_ros.driving.route.planner import RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_nanoseconds, to_pose_message, to_yaw

EGO = '/carla/ego_vehicle'
SMALL = {'world.camera.width': 64, 'world.camera.height': 48, 'world.roadside_distance': 0.0,
         'world.appearance.world': 'clean'}
PATIENT = {**SMALL, 'command_timeout': 60.0}
LATCHED_OUT = {'/carla/world_info': 'carla_msgs/msg/CarlaWorldInfo',
               f'{EGO}/vehicle_info': 'carla_msgs/msg/CarlaEgoVehicleInfo',
               f'{EGO}/waypoints': 'nav_msgs/msg/Path'}
VOLATILE_OUT = {'/clock': 'rosgraph_msgs/msg/Clock',
                '/carla/status': 'carla_msgs/msg/CarlaStatus',
                f'{EGO}/odometry': 'nav_msgs/msg/Odometry',
                f'{EGO}/speedometer': 'std_msgs/msg/Float32',
                f'{EGO}/vehicle_status': 'carla_msgs/msg/CarlaEgoVehicleStatus',
                f'{EGO}/imu': 'sensor_msgs/msg/Imu',
                f'{EGO}/collision': 'carla_msgs/msg/CarlaCollisionEvent',
                f'{EGO}/lane_invasion': 'carla_msgs/msg/CarlaLaneInvasionEvent',
                '/carla/markers': 'visualization_msgs/msg/MarkerArray',
                f'{EGO}/rgb_front/camera_info': 'sensor_msgs/msg/CameraInfo',
                f'{EGO}/rgb_front/image': 'sensor_msgs/msg/Image'}
VOLATILE_IN = {f'{EGO}/vehicle_control_cmd': 'carla_msgs/msg/CarlaEgoVehicleControl',
               f'{EGO}/vehicle_control_cmd_manual': 'carla_msgs/msg/CarlaEgoVehicleControl',
               f'{EGO}/goal': 'geometry_msgs/msg/PoseStamped',
               f'{EGO}/control/set_transform': 'geometry_msgs/msg/Pose',
               f'{EGO}/control/set_target_velocity': 'geometry_msgs/msg/Twist',
               '/initialpose': 'geometry_msgs/msg/PoseWithCovarianceStamped',
               '/carla/control': 'carla_msgs/msg/CarlaControl'}
ROADS = RoadMap.from_file(map_file('loop'))
SPAWNS = ROADS.spawn_points()


class Cockpit:
    """Everything of a running simulator that a driver sees and touches."""

    def __init__(self, peer: Peer, node: Running) -> None:
        self.node = node
        self.images = peer.hear(Image, f'{EGO}/rgb_front/image')
        self.odometry = peer.hear(Odometry, f'{EGO}/odometry')
        self.status = peer.hear(CarlaStatus, '/carla/status')
        self.command = peer.speak(CarlaEgoVehicleControl, f'{EGO}/vehicle_control_cmd')
        node.connected(peer)

    def frame(self) -> int:
        """Wait for the next image and return which step of the world it shows."""
        return to_nanoseconds(self.images.next().header.stamp) // 50_000_000

    def drive(self, **command: Any) -> Odometry:
        """Send one command; return the odometry of the image it causes."""
        self.command(CarlaEgoVehicleControl(**command))
        stamp = self.images.next().header.stamp
        return self.odometry.next(lambda one: one.header.stamp == stamp)


@pytest.fixture
def world(peer: Peer, make: Callable[..., Running]) -> Cockpit:
    """Start a lockstep world that waits long for a command; its first image is seen."""
    return started(peer, make('simulator_node', PATIENT))


def started(peer: Peer, node: Running) -> Cockpit:
    """Connect with a simulator, start it and see its first image."""
    cockpit = Cockpit(peer, node)
    node.spin()
    assert cockpit.frame() == 1
    return cockpit


def place(odometry: Odometry) -> Pose:
    """Return where an odometry message is."""
    pose = odometry.pose.pose
    return Pose(pose.position.x, pose.position.y, to_yaw(pose.orientation))


def test_topics_types_and_qos_are_those_of_the_bridge(peer: Peer, make: Callable[..., Running]
                                                      ) -> None:
    make('simulator_node', PATIENT)
    for topics, ends, durability in (
            (LATCHED_OUT, peer.node.get_publishers_info_by_topic,
             DurabilityPolicy.TRANSIENT_LOCAL),
            (VOLATILE_OUT, peer.node.get_publishers_info_by_topic, DurabilityPolicy.VOLATILE),
            (VOLATILE_IN, peer.node.get_subscriptions_info_by_topic, DurabilityPolicy.VOLATILE),
            ({f'{EGO}/vehicle_control_manual_override': 'std_msgs/msg/Bool'},
             peer.node.get_subscriptions_info_by_topic, DurabilityPolicy.TRANSIENT_LOCAL)):
        for topic, kind in topics.items():
            (end,) = await_that(lambda topic=topic, ends=ends: [
                one for one in ends(topic) if one.node_name == 'simulator_node'], topic)
            assert end.topic_type == kind, topic
            assert end.qos_profile.reliability == ReliabilityPolicy.RELIABLE, topic
            assert end.qos_profile.durability == durability, topic


def test_one_step_is_told_in_the_order_of_the_bridge(peer: Peer, world: Cockpit) -> None:
    kinds = {'/clock': Clock, f'{EGO}/speedometer': Float32, f'{EGO}/imu': Imu,
             f'{EGO}/vehicle_status': CarlaEgoVehicleStatus, '/carla/markers': MarkerArray,
             f'{EGO}/rgb_front/camera_info': CameraInfo}
    inboxes = [peer.hear(kind, topic) for topic, kind in kinds.items()]
    world.node.connected(peer)
    for step in (1, 2):
        asked = len(peer.journal)
        world.drive(throttle=1.0)
        await_that(lambda step=step: all(len(one.messages) == step for one in inboxes),
                   'every topic')
    told = dict(peer.journal[asked:])
    topics = [topic for topic, _ in peer.journal[asked:]]
    image = f'{EGO}/rgb_front/image'
    assert sorted(topics) == sorted({*kinds, '/carla/status', f'{EGO}/odometry', image})
    assert topics[:2] == ['/carla/status', '/clock']
    assert topics[-2:] == [f'{EGO}/rgb_front/camera_info', image]

    stamp = told['/clock'].clock
    status = told['/carla/status']
    assert to_nanoseconds(stamp) == status.frame * 50_000_000
    assert status.fixed_delta_seconds == pytest.approx(0.05)
    assert status.synchronous_mode and status.synchronous_mode_running
    frames = {topic: message.header.frame_id for topic, message in told.items()
              if hasattr(message, 'header')}
    assert frames == {f'{EGO}/odometry': 'map', f'{EGO}/vehicle_status': 'map',
                      f'{EGO}/imu': 'ego_vehicle/imu',
                      f'{EGO}/rgb_front/camera_info': 'ego_vehicle/rgb_front',
                      image: 'ego_vehicle/rgb_front'}
    assert all(message.header.stamp == stamp for message in told.values()
               if hasattr(message, 'header'))
    odometry = told[f'{EGO}/odometry']
    assert odometry.child_frame_id == 'ego_vehicle'
    assert odometry.twist.twist.linear.x > 0.0
    assert told[f'{EGO}/speedometer'].data == pytest.approx(odometry.twist.twist.linear.x)
    assert told[f'{EGO}/vehicle_status'].velocity == pytest.approx(odometry.twist.twist.linear.x)
    assert told[f'{EGO}/vehicle_status'].control.throttle == 1.0
    assert told[f'{EGO}/imu'].linear_acceleration.z == pytest.approx(9.81)


def test_everybody_on_the_road_is_marked_as_by_the_bridge(peer: Peer,
                                                          make: Callable[..., Running]) -> None:
    node = make('simulator_node', {**PATIENT, 'world.traffic.count': 3})
    markers = peer.hear(MarkerArray, '/carla/markers')
    about = peer.hear(CarlaEgoVehicleInfo, f'{EGO}/vehicle_info', qos.LATCHED)
    node.connected(peer)
    world = started(peer, node)
    seen = world.drive(throttle=1.0)
    told = markers.next(lambda one: one.markers[0].header.stamp == seen.header.stamp).markers
    assert len({one.id for one in told}) == 4
    assert all(one.header == told[0].header and one.header.frame_id == 'map' for one in told)
    assert all((one.type, one.action) == (Marker.CUBE, Marker.ADD) for one in told)
    own, *others = told
    assert own.id == about.next().id
    assert own.pose.position.x == seen.pose.pose.position.x
    assert own.pose.position.y == seen.pose.pose.position.y
    assert (own.color.r, own.color.g) == (0.0, 1.0)
    for other in others:
        assert (other.color.r, other.color.g) == (1.0, 0.0)
        assert 3.0 < other.scale.x < 6.0 and 1.5 < other.scale.y < 2.5
        assert other.pose.position.z == pytest.approx(other.scale.z / 2)
        assert ROADS.project(other.pose.position.x, other.pose.position.y).lateral < 0.1


def test_the_camera_is_bgra8_with_matching_camera_info(peer: Peer, make: Callable[..., Running]
                                                       ) -> None:
    node = make('simulator_node', {'command_timeout': 60.0})
    info = peer.hear(CameraInfo, f'{EGO}/rgb_front/camera_info')
    node.connected(peer)
    world = started(peer, node)
    world.drive()
    seen, about = world.images.messages[-1], info.messages[-1]
    assert (seen.encoding, seen.width, seen.height, seen.step) == ('bgra8', 320, 240, 1280)
    pixels = np.frombuffer(seen.data, np.uint8).reshape(240, 320, 4)
    assert (pixels[..., 3] == 255).all()
    assert pixels[:40, :, 0].mean() > pixels[:40, :, 2].mean()  # the sky is rather blue than red
    assert (about.width, about.height, about.distortion_model) == (320, 240, 'plumb_bob')
    assert list(about.d) == [0.0] * 5
    # 90 degrees across 320 pixels: the focal length is half the width.
    assert about.k[0] == pytest.approx(160.0) and about.k[4] == pytest.approx(160.0)
    assert about.k[2] == pytest.approx(160.0, abs=0.5)
    assert about.k[5] == pytest.approx(120.0, abs=0.5)


def test_latched_topics_reach_a_late_subscriber(peer: Peer, world: Cockpit) -> None:
    goal = SPAWNS[8]
    set_goal = peer.speak(PoseStamped, f'{EGO}/goal')
    path = peer.hear(PathMessage, f'{EGO}/waypoints', qos.LATCHED)
    world.node.connected(peer)
    set_goal(PoseStamped(pose=to_pose_message(goal)))
    world.drive()
    path.next()

    late = peer.hear(PathMessage, f'{EGO}/waypoints', qos.LATCHED)
    assert late.next() == path.messages[0]
    info = peer.hear(CarlaWorldInfo, '/carla/world_info', qos.LATCHED).next()
    assert info.map_name == 'loop'
    assert info.opendrive == map_file('loop').read_text()
    vehicle = peer.hear(CarlaEgoVehicleInfo, f'{EGO}/vehicle_info', qos.LATCHED).next()
    assert vehicle.rolename == 'ego_vehicle'
    assert len(vehicle.wheels) == 4
    assert vehicle.wheels[0].max_steer_angle == pytest.approx(0.6)
    assert 800.0 < vehicle.mass < 3000.0


def test_lockstep_gives_one_image_for_each_command(world: Cockpit) -> None:
    for _ in range(20):
        world.drive(throttle=0.5)
    assert [one.frame for one in world.status.messages] == list(range(1, 22))
    assert len(world.images.messages) == 21
    stamps = [to_nanoseconds(one.header.stamp) for one in world.images.messages]
    assert set(np.diff(stamps)) == {50_000_000}


def test_lockstep_goes_on_after_a_second_without_a_command(
        peer: Peer, make: Callable[..., Running], log: Log) -> None:
    world = started(peer, make('simulator_node', SMALL))
    heard = time.monotonic()
    assert world.frame() == 2
    assert time.monotonic() - heard > 0.9
    assert 'going on with the last one' in log.next('no command for the image at 0.05 s')
    world.drive(throttle=1.0)
    assert [one.frame for one in world.status.messages] == [1, 2, 3]


def test_who_begins_an_episode_is_waited_for_from_then_on(
        peer: Peer, make: Callable[..., Running], log: Log, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    monkeypatch.setattr('av_td3_ros.nodes.simulator_node.STARTING', 0.2)
    world = started(peer, make('simulator_node', {**SMALL, 'command_timeout': 2.0}))
    place_at = peer.speak(PoseMessage, f'{EGO}/control/set_transform')
    world.node.connected(peer)
    # Without anybody who drives it goes on by itself, to be found.
    assert 'going on with the last one' in log.next('within 0.2 s')
    place_at(to_pose_message(SPAWNS[3]))
    assert 'going on with the last one' in log.next('within 2 s')


def test_real_time_mode_waits_for_nobody(peer: Peer, make: Callable[..., Running]) -> None:
    world = started(peer, make('simulator_node', {**PATIENT, 'mode': 'real_time'}))
    began = time.monotonic()
    for number in range(2, 12):
        assert world.frame() == number
    assert time.monotonic() - began > 0.3
    assert not world.status.messages[-1].synchronous_mode
    # A command acts without causing a step of its own.
    world.command(CarlaEgoVehicleControl(throttle=1.0))
    world.odometry.next(lambda one: one.twist.twist.linear.x > 0.5)


def test_pause_play_and_step_once(peer: Peer, world: Cockpit) -> None:
    control = peer.speak(CarlaControl, '/carla/control')
    world.node.connected(peer)
    control(CarlaControl(command=CarlaControl.PAUSE))
    world.command(CarlaEgoVehicleControl(throttle=1.0))  # taken, but the world stands
    control(CarlaControl(command=CarlaControl.STEP_ONCE))
    assert world.frame() == 2
    assert not world.status.messages[-1].synchronous_mode_running
    world.command(CarlaEgoVehicleControl(throttle=1.0))
    control(CarlaControl(command=CarlaControl.STEP_ONCE))
    assert world.frame() == 3
    world.command(CarlaEgoVehicleControl(throttle=1.0))
    control(CarlaControl(command=CarlaControl.PLAY))
    assert world.frame() == 4
    assert world.status.messages[-1].synchronous_mode_running
    world.drive(throttle=1.0)
    # A change is told at once, a step while pausing is told as pausing.
    assert [(one.frame, one.synchronous_mode_running) for one in world.status.messages] == [
        (1, True), (1, False), (2, False), (3, False), (3, True), (4, True), (5, True)]


@pytest.mark.parametrize('topic', ['set_transform', 'initialpose'])
def test_a_teleport_puts_the_vehicle_there_at_rest(peer: Peer, world: Cockpit, topic: str
                                                   ) -> None:
    target = SPAWNS[5]
    for _ in range(10):
        moving = world.drive(throttle=1.0)
    assert moving.twist.twist.linear.x > 0.5
    if topic == 'set_transform':
        teleport = peer.speak(PoseMessage, f'{EGO}/control/set_transform')
        teleport(to_pose_message(target))
    else:
        teleport = peer.speak(PoseWithCovarianceStamped, '/initialpose')
        message = PoseWithCovarianceStamped()
        message.pose.pose = to_pose_message(target)
        teleport(message)
    there = arrive(world, target)
    assert place(there).distance(target.x, target.y) < 0.01
    assert wrap_angle(place(there).yaw - target.yaw) == pytest.approx(0.0, abs=1e-3)
    assert there.twist.twist.linear.x == pytest.approx(0.0, abs=1e-3)
    assert world.drive(brake=1.0).twist.twist.linear.x == pytest.approx(0.0, abs=1e-3)


def arrive(world: Cockpit, target: Pose) -> Odometry:
    """Brake until the vehicle is at a pose; a teleport may come behind a command."""
    return await_that(lambda: next((one for one in [world.drive(brake=1.0)] if place(
        one).distance(target.x, target.y) < 0.5), None), 'the teleport')


def test_a_command_to_an_image_that_is_past_is_left_out(world: Cockpit) -> None:
    first = world.images.messages[0].header
    world.drive(throttle=0.1, header=first)
    world.command(CarlaEgoVehicleControl(throttle=0.2, header=first))
    world.drive(throttle=0.3, header=world.images.messages[-1].header)
    assert [one.frame for one in world.status.messages] == [1, 2, 3]


def test_a_target_velocity_beyond_reason_is_refused(peer: Peer, world: Cockpit, log: Log) -> None:
    set_velocity = peer.speak(Twist, f'{EGO}/control/set_target_velocity')
    for speed in (math.nan, -math.inf, 1e9):
        velocity = Twist()
        velocity.linear.x = speed
        set_velocity(velocity)
    assert 'velocity nan' in log.next('set target velocity refused (1 so far)')
    refused = world.node.node._inputs.refused
    await_that(lambda: refused('set_target_velocity') == 3, 'all of them')
    assert world.drive().twist.twist.linear.x == pytest.approx(0.0, abs=0.1)


def test_a_target_velocity_is_taken(peer: Peer, world: Cockpit) -> None:
    velocity = Twist()
    velocity.linear.x = 7.0
    peer.speak(Twist, f'{EGO}/control/set_target_velocity')(velocity)
    await_that(lambda: world.drive(throttle=0.2).twist.twist.linear.x > 6.0, '7 m/s')


def test_a_teleport_or_goal_that_is_not_finite_is_refused(peer: Peer, world: Cockpit, log: Log
                                                          ) -> None:
    here = place(world.odometry.next())
    broken = PoseMessage()
    broken.position.x = math.nan
    peer.speak(PoseMessage, f'{EGO}/control/set_transform')(broken)
    assert 'not finite' in log.next('set transform refused')
    peer.speak(PoseStamped, f'{EGO}/goal')(PoseStamped(pose=broken))
    assert 'not finite' in log.next('goal refused')
    assert place(world.drive()).distance(here.x, here.y) < 0.1


def test_the_path_leads_to_the_goal_and_is_planned_again_after_a_teleport(
        peer: Peer, world: Cockpit) -> None:
    drive = RoutePlanner(ROADS).sample_goal(SPAWNS[0], 80.0, 90.0, np.random.default_rng(0))
    goal, halfway = drive.goal, Pose(*drive.points[40])
    paths = peer.hear(PathMessage, f'{EGO}/waypoints', qos.LATCHED)
    set_goal = peer.speak(PoseStamped, f'{EGO}/goal')
    teleport = peer.speak(PoseMessage, f'{EGO}/control/set_transform')
    world.node.connected(peer)
    set_goal(PoseStamped(pose=to_pose_message(goal)))
    world.drive()
    first = paths.next()
    assert first.header.frame_id == 'map'
    assert ends(first)[0].distance(SPAWNS[0].x, SPAWNS[0].y) < 1.0
    assert ends(first)[1].distance(goal.x, goal.y) < 1.5
    steps = [math.dist((a.pose.position.x, a.pose.position.y), (b.pose.position.x,
                                                                b.pose.position.y))
             for a, b in zip(first.poses, first.poses[1:], strict=False)]
    assert steps == pytest.approx([1.0] * len(steps), abs=0.05)

    teleport(to_pose_message(halfway))
    arrive(world, halfway)
    second = paths.next()
    assert ends(second)[0].distance(halfway.x, halfway.y) < 1.0
    assert ends(second)[1].distance(goal.x, goal.y) < 1.5


def ends(path: PathMessage) -> tuple[Pose, Pose]:
    """Return the first and the last pose of a path."""
    first, last = (path.poses[index].pose for index in (0, -1))
    return (Pose(first.position.x, first.position.y, to_yaw(first.orientation)),
            Pose(last.position.x, last.position.y, to_yaw(last.orientation)))


@pytest.mark.parametrize(('steer', 'side'), [(0.5, 'right'), (-0.5, 'left')])
def test_steer_is_positive_to_the_right(world: Cockpit, steer: float, side: str) -> None:
    began = place(world.odometry.next())
    for _ in range(30):
        odometry = world.drive(throttle=0.6, steer=steer)
    here = place(odometry)
    ((ahead, left),) = to_vehicle_frame([(here.x, here.y)], began)
    sign = 1.0 if side == 'left' else -1.0
    assert ahead > 0.5
    assert sign * left > 0.0
    assert sign * wrap_angle(here.yaw - began.yaw) > 0.01
    assert sign * odometry.twist.twist.angular.z > 0.0


def test_manual_override_wins(peer: Peer, world: Cockpit) -> None:
    override = peer.speak(Bool, f'{EGO}/vehicle_control_manual_override', qos.LATCHED)
    manual = peer.speak(CarlaEgoVehicleControl, f'{EGO}/vehicle_control_cmd_manual')
    status = peer.hear(CarlaEgoVehicleStatus, f'{EGO}/vehicle_status')
    world.node.connected(peer)
    manual(CarlaEgoVehicleControl(throttle=0.1))  # nobody asked for it: left out
    world.command(CarlaEgoVehicleControl(throttle=0.2))
    assert world.frame() == 2

    override(Bool(data=True))
    # A latched message may come behind what is published after it.
    await_that(lambda: world.node.node._override, 'the override')
    manual(CarlaEgoVehicleControl(throttle=0.3))
    assert world.frame() == 3
    world.command(CarlaEgoVehicleControl(throttle=0.4))  # the automatic one is left out
    manual(CarlaEgoVehicleControl(throttle=0.5))
    assert world.frame() == 4

    override(Bool(data=False))
    await_that(lambda: not world.node.node._override, 'the end of the override')
    world.command(CarlaEgoVehicleControl(throttle=0.6))
    assert world.frame() == 5
    told = [status.next().control.throttle for _ in range(4)]
    assert told == pytest.approx([0.2, 0.3, 0.5, 0.6])


def test_a_command_that_is_not_a_number_is_refused(world: Cockpit, log: Log) -> None:
    for broken in ({'throttle': math.nan}, {'steer': math.inf}, {'brake': -math.inf}):
        world.command(CarlaEgoVehicleControl(**broken))
    assert 'refused' in log.next('not finite')
    assert math.isfinite(world.drive(throttle=1.0).twist.twist.linear.x)
    assert [one.frame for one in world.status.messages] == [1, 2]


def test_crossing_a_line_is_an_event(peer: Peer, world: Cockpit) -> None:
    invasions = peer.hear(CarlaLaneInvasionEvent, f'{EGO}/lane_invasion')
    world.node.connected(peer)
    aslant = Pose(SPAWNS[0].x, SPAWNS[0].y, SPAWNS[0].yaw - 0.3)  # towards the road's edge
    begin_at(peer, world, aslant, speed=10.0)
    await_that(lambda: world.drive(throttle=0.5) and invasions.messages, 'a line')
    assert invasions.messages[0].header.frame_id == 'ego_vehicle/lane_invasion'
    assert CarlaLaneInvasionEvent.LANE_MARKING_SOLID in invasions.messages[
        0].crossed_lane_markings


def test_hitting_something_is_an_event(peer: Peer, make: Callable[..., Running]) -> None:
    node = make('simulator_node', {**PATIENT, 'world.roadside_distance': 8.0})
    collisions = peer.hear(CarlaCollisionEvent, f'{EGO}/collision')
    node.connected(peer)
    world = started(peer, node)
    for spawn in SPAWNS[::5]:  # off the road, until something stands in the way
        begin_at(peer, world, Pose(spawn.x, spawn.y, spawn.yaw - math.pi / 2), speed=12.0)
        for _ in range(40):
            world.drive(throttle=1.0)
        if collisions.messages:
            break
    hit = collisions.messages[0]
    assert hit.other_actor_id == 0  # nothing that drives
    assert math.hypot(hit.normal_impulse.x, hit.normal_impulse.y) > 100.0


def begin_at(peer: Peer, world: Cockpit, pose: Pose, speed: float) -> None:
    """Put the vehicle somewhere with a speed in m/s."""
    velocity = Twist()
    velocity.linear.x = speed
    peer.speak(PoseMessage, f'{EGO}/control/set_transform')(to_pose_message(pose))
    arrive(world, pose)
    peer.speak(Twist, f'{EGO}/control/set_target_velocity')(velocity)
    await_that(lambda: world.drive(throttle=1.0).twist.twist.linear.x > speed / 2, 'the speed')


EMPTY = '<OpenDRIVE><header revMajor="1" revMinor="4" name="empty"/></OpenDRIVE>'
REFUSED = {
    'unknown map': ({'world.map': 'atlantis'}, ('atlantis', 'loop')),
    'missing file': ({'world.map': '{folder}/missing.xodr'}, ('missing.xodr',)),
    'no waypoints': ({'world.map': '{folder}/empty.xodr'}, ('empty.xodr', 'no driving lanes')),
    'broken file': ({'world.map': '{folder}/broken.xodr'}, ('broken.xodr', 'XML')),
    'unknown spawn point': ({'world.spawn_point': 9999}, ('9999', 'spawn points')),
    'unknown parameter': ({'world.mapp': 'loop'}, ("'world.mapp'", "did you mean 'world.map'")),
    'out of range': ({'world.camera.fov': 200.0}, ('world.camera.fov', '200', '10.0 to 150.0')),
    'wrong type': ({'seed': 'high'}, ('seed', "'high'", 'whole number')),
    'no such choice': ({'mode': 'warp'}, ('mode', "'warp'", 'lockstep', 'real_time')),
}


def refused(name: str, folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return impossible parameters and the words that tell of them."""
    (folder / 'empty.xodr').write_text(EMPTY)
    (folder / 'broken.xodr').write_text('<OpenDRIVE><road')
    parameters, words = REFUSED[name]
    return {key: value.format(folder=folder) if isinstance(value, str) else value
            for key, value in parameters.items()}, words


@pytest.mark.parametrize('name', REFUSED)
def test_impossible_parameters_are_refused_with_the_reason(
        make: Callable[..., Running], tmp_path: Path, name: str) -> None:
    parameters, words = refused(name, tmp_path)
    with pytest.raises((ValueError, OSError)) as error:
        make('simulator_node', parameters)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize('name', ['no waypoints', 'unknown parameter'])
def test_a_process_that_cannot_start_says_why_and_exits_with_1(
        domain: int, tmp_path: Path, name: str) -> None:
    parameters, words = refused(name, tmp_path)
    spec = SPECS['simulator_node']
    file = parameter_file(tmp_path, {spec.name: parameters})
    ended = subprocess.run([sys.executable, '-m', spec.module, *spec.arguments(file)],
                           capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == 1
    (line,) = (one for one in ended.stderr.splitlines() if one.startswith('[FATAL]'))
    assert 'Traceback' not in ended.stderr
    assert all(word in line for word in words), line
