"""The environment node: pairs, stacks, judges, and runs the episodes."""
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from av_td3_msgs.msg import EpisodeSummary, Observation
from carla_msgs.msg import CarlaCollisionEvent, CarlaLaneInvasionEvent, CarlaWorldInfo
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, Twist, Vector3
from harness import SPECS, Log, Peer, Running, await_that, parameter_file
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from av_td3_ros.cli.session import Session, SessionError
from av_td3_ros.driving.camera.image import to_observation_frame
from av_td3_ros.driving.camera.view import CameraView, CameraViewSettings, MountingSettings
from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.driving.route.planner import RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import (
    from_camera_info,
    from_pose_message,
    to_bytes,
    to_nanoseconds,
    to_pose_message,
    to_stamp,
)
from av_td3_ros.ros.markers import to_markers

EGO = '/carla/ego_vehicle'
PERIOD = 50_000_000  # ns between two frames
SIZE = 84
ONE_LISTENER = {'wait_for': 1, 'reset_timeout': 600.0, 'episodes.max_offset': 0.0,
                'episodes.max_yaw_offset': 0.0, 'episodes.max_speed': 0.0}
ROADS = RoadMap.from_file(map_file('loop'))
# A photograph's worth of colours: what every encoding must tell alike.
COLOURS = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8), (160, 120))


class Bridge:
    """The simulator's side of the topics, told frame by frame what to say."""

    def __init__(self, peer: Peer, node: Running) -> None:
        self.node = node
        self.observations = peer.hear(Observation, '/ego_vehicle/observation')
        self.holds = peer.hear(Header, '/ego_vehicle/hold')
        self.summaries = peer.hear(EpisodeSummary, '/learner/episode_summary')
        self.transforms = peer.hear(PoseMessage, f'{EGO}/control/set_transform')
        self.velocities = peer.hear(Twist, f'{EGO}/control/set_target_velocity')
        self.goals = peer.hear(PoseStamped, f'{EGO}/goal')
        self.journal = peer.journal
        kind = (CompressedImage if node.node.settings.image_transport == 'compressed' else Image)
        self.image = peer.speak(kind, f'{EGO}/rgb_front/image')
        self.odometry = peer.speak(Odometry, f'{EGO}/odometry')
        self.path = peer.speak(PathMessage, f'{EGO}/waypoints', qos.LATCHED)
        self.collision = peer.speak(CarlaCollisionEvent, f'{EGO}/collision')
        self.invasion = peer.speak(CarlaLaneInvasionEvent, f'{EGO}/lane_invasion')
        self.markers = None
        if node.node.settings.obstacles.measured:
            self.markers = peer.speak(MarkerArray, '/carla/markers')
        self.camera_info = None
        if node.node.settings.camera.calibrate:
            self.camera_info = peer.speak(CameraInfo, f'{EGO}/rgb_front/camera_info')
        self.world_info = None
        if node.node.settings.resets:
            self.world_info = peer.speak(CarlaWorldInfo, '/carla/world_info', qos.LATCHED)
        node.connected(peer)
        node.spin()
        self.frames = 0
        self.route = np.empty((0, 3))

    def reset(self) -> Pose:
        """Answer a request for a reset with the path to its goal; return the start."""
        start = from_pose_message(self.transforms.next())
        self.velocities.next()
        goal = from_pose_message(self.goals.next().pose)
        self.send_path(RoutePlanner(ROADS).plan(start, goal).points)
        return start

    def send_path(self, points: np.ndarray) -> None:
        """Publish a path."""
        self.route = points
        self.path(PathMessage(poses=[
            PoseStamped(pose=to_pose_message(Pose(*one))) for one in points.tolist()]))
        if np.isfinite(points).all():
            # A latched message may come behind what is published after it.
            known = self.node.node
            await_that(lambda: known._path is not None and np.array_equal(
                known._path, points[:, :2]), 'the path')

    def send_odometry(self, pose: Pose, speed: float = 0.0, ahead: int = 0) -> None:
        """Publish where the vehicle is, for the newest frame or one that is `ahead` of it."""
        message = Odometry()
        message.header.stamp = to_stamp((self.frames + ahead) * PERIOD)
        message.pose.pose = to_pose_message(pose)
        message.twist.twist.linear.x = speed
        self.odometry(message)

    def send_image(self, grey: int = 0, ahead: int = 0) -> None:
        """Publish a uniform image, for the newest frame or one that is `ahead` of it."""
        message = picture(np.full((48, 64), grey, np.uint8), 'mono8')
        message.header.stamp = to_stamp((self.frames + ahead) * PERIOD)
        self.image(message)

    def frame(self, pose: Pose, grey: int = 0, speed: float = 0.0, skip: int = 0) -> None:
        """Publish the next frame with its odometry; `skip` leaves some out before it."""
        self.frames += 1 + skip
        self.send_odometry(pose, speed)
        self.send_image(grey)

    def see(self, pose: Pose, grey: int = 0, speed: float = 0.0, skip: int = 0) -> Observation:
        """Publish the next frame and return what is observed at it."""
        self.frame(pose, grey, speed, skip)
        return self.at(self.frames)

    def at(self, frame: int) -> Observation:
        """Return the observation of a frame."""
        return self.observations.next(lambda one: step_of(one.header) == frame)

    def along(self, metres: int) -> Pose:
        """Return a pose on the route."""
        return Pose(*self.route[metres])

    def beside(self, metres: int, left: float) -> Pose:
        """Return a pose beside the route."""
        x, y, yaw = self.route[metres]
        return Pose(x - left * math.sin(yaw), y + left * math.cos(yaw), yaw)


def step_of(header: Header) -> int:
    """Return which frame a stamp belongs to."""
    return to_nanoseconds(header.stamp) // PERIOD


def camera_info(focal: float = 80.0, size: tuple[int, int] = (160, 120)) -> CameraInfo:
    """Return what a calibrated camera with a barrel distortion publishes."""
    width, height = size
    message = CameraInfo(width=width, height=height, distortion_model='plumb_bob',
                         d=[-0.2, 0.05, 0.001, 0.0, 0.0])
    message.k = [focal, 0.0, 80.0, 0.0, focal, 60.0, 0.0, 0.0, 1.0]
    return message


def picture(pixels: np.ndarray, encoding: str) -> Image:
    """Return an image message."""
    height, width = pixels.shape[:2]
    return Image(height=height, width=width, encoding=encoding,
                 step=pixels.nbytes // height, data=to_bytes(np.ascontiguousarray(pixels)))


def stack(observation: Observation) -> np.ndarray:
    """Return the frames of an observation."""
    shape = (observation.count, observation.height, observation.width)
    return np.frombuffer(observation.frames, np.uint8).reshape(shape)


def greys(observation: Observation) -> list[int]:
    """Return the grey of each of the frames, which are uniform."""
    frames = stack(observation)
    assert (frames == frames[:, :1, :1]).all()
    return [int(one) for one in frames[:, 0, 0]]


@pytest.fixture
def connect(peer: Peer, make: Callable[..., Running]) -> Callable[..., Bridge]:
    """Return a function that starts the node and stands in for the simulator."""
    def connect(map_name: str = 'loop', **parameters: object) -> Bridge:
        values = {key.replace('__', '.'): value for key, value in parameters.items()}
        bridge = Bridge(peer, make('environment_node', {**ONE_LISTENER, **values}))
        if bridge.world_info is not None:
            bridge.world_info(CarlaWorldInfo(map_name=map_name,
                                             opendrive=map_file(map_name).read_text()))
        return bridge

    return connect


@pytest.fixture
def bridge(connect: Callable[..., Bridge]) -> Bridge:
    """Return a bridge whose vehicle has been put to the first start."""
    made = connect()
    made.reset()
    return made


def test_a_reset_asks_for_pose_speed_and_goal_in_this_order(connect: Callable[..., Bridge]
                                                             ) -> None:
    bridge = connect()
    start = bridge.reset()
    asked = [topic for topic, _ in bridge.journal]
    assert asked == [f'{EGO}/control/set_transform', f'{EGO}/control/set_target_velocity',
                     f'{EGO}/goal']
    here = ROADS.project(start.x, start.y)
    assert abs(here.lateral) < 0.01
    assert bridge.transforms.messages[0].position.z > 0.0  # CARLA drops it onto the road
    assert bridge.velocities.messages[0].linear.x == 0.0
    assert bridge.goals.messages[0].header.frame_id == 'map'
    assert 150.0 <= len(bridge.route) - 1 <= 300.0


def test_the_first_observation_is_of_a_vehicle_at_its_start(bridge: Bridge) -> None:
    elsewhere = bridge.along(80)
    bridge.frame(elsewhere, grey=10)
    bridge.frame(elsewhere, grey=20)
    first = bridge.see(bridge.along(0), grey=30)
    # Frames from before the arrival: the world waits for an answer all the same.
    assert [step_of(one) for one in bridge.holds.messages] == [1, 2]
    assert len(bridge.observations.messages) == 1
    assert (first.vehicle, first.episode, first.step) == ('ego_vehicle', 0, 0)
    assert (first.is_first, first.is_last, first.is_terminal) == (True, False, False)
    assert (first.reward, first.terms.total, first.reason) == (0.0, 0.0, '')
    assert first.header.frame_id == 'ego_vehicle'
    assert (first.count, first.height, first.width) == (4, SIZE, SIZE)
    assert greys(first) == [30] * 4


def test_the_first_frame_waits_for_a_route_that_comes_behind_it(
        connect: Callable[..., Bridge]) -> None:
    bridge = connect()
    start = from_pose_message(bridge.transforms.next())
    goal = from_pose_message(bridge.goals.next().pose)
    bridge.frame(start, grey=10)
    await_that(lambda: bridge.node.node._vehicle is not None, 'the frame')
    bridge.send_path(RoutePlanner(ROADS).plan(start, goal).points)
    first = bridge.at(1)
    assert first.is_first and greys(first) == [10] * 4
    assert bridge.holds.messages == []  # or the world had gone on, and begun the episode otherwise


def test_a_world_is_not_kept_waiting_for_a_route_that_does_not_come(
        connect: Callable[..., Bridge]) -> None:
    bridge = connect()
    start = from_pose_message(bridge.transforms.next())
    goal = from_pose_message(bridge.goals.next().pose)
    bridge.frame(start)
    assert step_of(bridge.holds.next()) == 1
    bridge.send_path(RoutePlanner(ROADS).plan(start, goal).points)
    assert bridge.see(start).is_first
    assert len(bridge.holds.messages) == 1


def test_a_vehicle_that_still_rolls_has_not_arrived(bridge: Bridge) -> None:
    bridge.frame(bridge.along(0), speed=5.0)
    assert bridge.see(bridge.along(0)).is_first
    assert [step_of(one) for one in bridge.holds.messages] == [1]


def test_state_reward_and_stack_follow_the_drive(bridge: Bridge) -> None:
    bridge.see(bridge.along(0), grey=10)
    x, y, yaw = bridge.along(1).x, bridge.along(1).y, bridge.along(1).yaw
    left = Pose(x - 0.7 * math.sin(yaw), y + 0.7 * math.cos(yaw), yaw + 0.1)
    second = bridge.see(left, grey=20, speed=6.0)
    third = bridge.see(bridge.along(2), grey=30, speed=6.0)
    assert (second.step, third.step) == (1, 2)
    assert (second.is_first, second.is_last) == (False, False)
    assert greys(second) == [10, 10, 10, 20] and greys(third) == [10, 10, 20, 30]
    assert len(second.state) == 53
    # speed / 30, lateral / 3.5, heading error / pi
    assert second.state[0] == pytest.approx(0.2)
    assert second.state[1] == pytest.approx(0.2, abs=0.01)
    assert second.state[2] == pytest.approx(0.1 / math.pi, abs=0.005)
    # On the route the first point ahead lies straight ahead, at 2 m of 50.
    assert third.state[3:5].tolist() == pytest.approx([0.04, 0.0], abs=0.01)
    assert third.reward == pytest.approx(third.terms.total)
    parts = third.terms
    assert parts.total == pytest.approx(parts.progress + parts.efficiency + parts.lane
                                        + parts.comfort + parts.safety, abs=1e-5)
    assert parts.progress > 0.0


def test_images_go_with_the_odometry_of_their_own_stamp(bridge: Bridge) -> None:
    bridge.see(bridge.along(0), grey=10)
    bridge.send_image(grey=20, ahead=1)  # no odometry ever comes for this one
    bridge.send_odometry(bridge.along(1), speed=3.0, ahead=2)
    bridge.send_image(grey=40, ahead=3)
    bridge.send_image(grey=99, ahead=2)  # late: a newer one is there already
    bridge.send_odometry(bridge.along(2), speed=6.0, ahead=3)
    bridge.frames += 3
    seen = bridge.at(3 + 1)
    assert greys(seen) == [10, 10, 10, 40]
    assert seen.state[0] == pytest.approx(0.2)
    assert [step_of(one.header) for one in bridge.observations.messages] == [1, 4]


def test_nothing_is_paired_across_a_reset(bridge: Bridge) -> None:
    bridge.see(bridge.along(0), grey=10)
    bridge.send_image(grey=20, ahead=1)
    bridge.send_image(grey=66, ahead=2)  # waits for its odometry while the episode ends
    bridge.send_odometry(bridge.beside(5, 4.0), ahead=1)
    assert bridge.at(2).is_last
    start = bridge.reset()
    bridge.send_odometry(start, ahead=2)  # this is of the new episode, the image was not
    bridge.frames += 2
    first = bridge.see(start, grey=30)
    assert (first.is_first, first.episode) == (True, 1)
    assert greys(first) == [30] * 4
    assert not bridge.holds.messages


def mark(bridge: Bridge, *poses: Pose) -> None:
    """Publish markers of other vehicles for the newest frame, after its image and odometry."""
    assert bridge.markers is not None
    header = Header(stamp=to_stamp(bridge.frames * PERIOD), frame_id='map')
    bridge.markers(to_markers(header, [
        Box(index, pose.x, pose.y, pose.yaw, 4.0, 1.8) for index, pose in enumerate(poses)], -1))


def test_a_step_waits_for_the_markers_of_its_own_stamp(connect: Callable[..., Bridge]) -> None:
    bridge = connect(obstacles__measured=True, obstacles__vehicle_length=4.0)
    bridge.reset()
    far = bridge.along(60)
    bridge.frame(bridge.along(0))
    assert not bridge.observations.messages
    mark(bridge, far)
    assert bridge.at(1).is_first
    bridge.frame(bridge.along(1), speed=5.0)
    mark(bridge, far)
    assert bridge.at(2).terms.safety == 0.0
    bridge.frame(bridge.along(2), speed=5.0)
    # The other has jumped close: 5 m between the middles leave 1 m, and no speed is known.
    mark(bridge, bridge.along(7))
    near = bridge.at(3)
    assert near.terms.safety == pytest.approx(-0.1 * 0.75, abs=0.003)
    bridge.frame(bridge.along(2), speed=2.0)
    mark(bridge, bridge.along(7))
    closing = bridge.at(4)
    # 1 m at 2 m/s: 0.5 s, which costs 1 - 0.5 / 2.5.
    assert closing.terms.safety == pytest.approx(-0.1 * 0.8, abs=0.003)


def test_missing_markers_are_told_and_bad_ones_refused(connect: Callable[..., Bridge], log: Log
                                                       ) -> None:
    bridge = connect(obstacles__measured=True)
    bridge.reset()
    bridge.frame(bridge.along(0))
    bridge.frame(bridge.along(0), skip=11)
    assert 'sensor.pseudo.markers' in log.next('no markers with the stamp')
    mark(bridge)
    assert 'has no stamp' in log.next('markers refused')
    mark(bridge, Pose(math.nan, 0.0, 0.0))
    bridge.frame(bridge.along(0))
    mark(bridge, bridge.along(50))
    assert bridge.at(bridge.frames).is_first


@pytest.mark.parametrize('encoding', ['bgra8', 'rgba8', 'bgr8', 'rgb8', 'mono8', 'padded'])
def test_every_encoding_gives_the_same_frame(bridge: Bridge, encoding: str) -> None:
    opaque = cv2.cvtColor(COLOURS, cv2.COLOR_BGR2BGRA)
    pixels = {'bgra8': opaque, 'rgba8': opaque[..., [2, 1, 0, 3]], 'bgr8': COLOURS,
              'rgb8': COLOURS[..., ::-1], 'mono8': cv2.cvtColor(COLOURS, cv2.COLOR_BGR2GRAY),
              'padded': COLOURS}[encoding]
    message = picture(pixels, 'bgr8' if encoding == 'padded' else encoding)
    if encoding == 'padded':  # rows may be longer than their pixels
        rows = np.pad(COLOURS.reshape(120, 480), ((0, 0), (0, 32)), constant_values=255)
        message.step, message.data = 512, to_bytes(rows)
    bridge.frames += 1
    message.header.stamp = to_stamp(PERIOD)
    bridge.send_odometry(bridge.along(0))
    bridge.image(message)
    expected = to_observation_frame(COLOURS, 'bgr8', SIZE)
    assert expected.std() > 10.0
    np.testing.assert_array_equal(stack(bridge.at(1))[-1], expected)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_compressed_images_are_decoded(connect: Callable[..., Bridge], suffix: str) -> None:
    bridge = connect(image_transport='compressed')
    bridge.reset()
    _, file = cv2.imencode(suffix, COLOURS)
    message = CompressedImage(format=suffix[1:], data=to_bytes(file.tobytes()))
    message.header.stamp = to_stamp(PERIOD)
    bridge.frames = 1
    bridge.send_odometry(bridge.along(0))
    bridge.image(message)
    expected = to_observation_frame(cv2.imdecode(file, cv2.IMREAD_COLOR), 'bgr8', SIZE)
    np.testing.assert_array_equal(stack(bridge.at(1))[-1], expected)


def photograph(bridge: Bridge) -> Observation | None:
    """Publish the next frame with the photograph; return the observation, None for a hold."""
    bridge.frames += 1
    bridge.send_odometry(bridge.along(0))
    message = picture(COLOURS, 'bgr8')
    message.header.stamp = to_stamp(bridge.frames * PERIOD)
    bridge.image(message)
    answered = await_that(lambda: [
        one for one in (*bridge.observations.messages, *bridge.holds.messages)
        if step_of(getattr(one, 'header', one)) == bridge.frames], 'an answer')
    return answered[0] if isinstance(answered[0], Observation) else None


def test_frames_are_turned_to_the_training_cameras_view_by_camera_info(
        connect: Callable[..., Bridge], log: Log) -> None:
    bridge = connect(camera__calibrate=True, camera__mounting__z=1.3, camera__mounting__roll=0.1)
    bridge.reset()
    reader = bridge.node.node._sensing.camera
    # Nobody knows yet what the camera sees: no observation, but the world goes on.
    assert photograph(bridge) is None
    assert f'no camera_info on {EGO}/rgb_front/camera_info yet' in log.next('image refused')
    assert bridge.camera_info is not None
    settings = CameraViewSettings(calibrate=True, mounting=MountingSettings(z=1.3, roll=0.1))
    grey = cv2.cvtColor(COLOURS, cv2.COLOR_BGR2GRAY)
    newest = []
    for focal in (80.0, 60.0):
        message = camera_info(focal)
        bridge.camera_info(message)
        assert 'of it is seen' in log.next('images of 160x120 are turned')
        assert '1.23 times as high' in log.next('mounted at 1.30 m')
        bridge.camera_info(message)  # the same again is nothing new
        seen = photograph(bridge)
        assert seen is not None
        newest.append(stack(seen)[-1])
        np.testing.assert_array_equal(newest[-1], CameraView(
            from_camera_info(message), settings, (SIZE, SIZE))(grey))
    assert (newest[0] != newest[1]).any()
    bridge.camera_info(CameraInfo(width=160, height=120))
    await_that(lambda: 'not calibrated' in reader._missing, 'the refusal')
    assert photograph(bridge) is None
    bridge.camera_info(camera_info(60.0))
    await_that(lambda: not reader._missing, 'the calibration again')
    assert photograph(bridge) is not None
    bridge.camera_info(camera_info(60.0, (320, 240)))
    assert log.next('images of 320x240 are turned')
    assert photograph(bridge) is None  # they are of 160x120


def test_images_of_another_shape_than_the_trainings_are_told_once(
        connect: Callable[..., Bridge], log: Log) -> None:
    bridge = connect(camera__training__width=640, camera__training__height=360)
    bridge.reset()
    assert photograph(bridge) is not None  # 160x120
    assert 'aspect of 1.33 (160x120) is 25 % narrower than the recorded 1.78 (640x360)' in (
        log.next('not shaped as'))
    assert photograph(bridge) is not None
    assert not log.find('not shaped as')


def test_without_calibration_nobody_asks_for_camera_info(bridge: Bridge) -> None:
    assert not [one for one in bridge.node.node.subscriptions if 'camera_info' in one.topic_name]


def test_the_stack_starts_anew_after_a_gap(bridge: Bridge) -> None:
    bridge.see(bridge.along(0), grey=10)
    bridge.see(bridge.along(1), grey=20)
    after = bridge.see(bridge.along(2), grey=30, skip=11)
    assert greys(after) == [30] * 4
    # A step number is left out, so that nothing is learned across the gap.
    assert (after.is_first, after.step) == (False, 3)


def test_the_stack_starts_anew_with_each_episode(bridge: Bridge) -> None:
    bridge.see(bridge.along(0), grey=10)
    bridge.see(bridge.beside(2, 5.0), grey=20)
    start = bridge.reset()
    assert greys(bridge.see(start, grey=30)) == [30] * 4


def test_leaving_the_road_is_terminal(bridge: Bridge) -> None:
    bridge.see(bridge.along(0))
    last = bridge.see(bridge.beside(10, -3.0), speed=5.0)
    assert (last.is_last, last.is_terminal, last.reason) == (True, True, 'off_road')
    assert last.terms.safety < 0.0
    summary = bridge.summaries.next()
    assert (summary.result, summary.success, summary.steps) == ('off_road', False, 1)
    assert summary.episode_return == pytest.approx(last.reward, rel=1e-5)
    assert summary.route_length == pytest.approx(len(bridge.route) - 1, abs=0.1)
    # The next episode leads elsewhere.
    assert bridge.reset() and bridge.see(bridge.along(0)).episode == 1


def test_a_collision_is_terminal(bridge: Bridge) -> None:
    bridge.see(bridge.along(0), speed=0.0)
    bridge.collision(CarlaCollisionEvent(normal_impulse=Vector3(x=300.0, y=400.0)))
    last = bridge.see(bridge.along(1), speed=3.0)
    assert (last.is_last, last.is_terminal, last.reason) == (True, True, 'collision')
    summary = bridge.summaries.next()
    assert {one.name: one.value for one in summary.metrics}['collisions'] == 1.0


def test_a_collision_before_the_start_does_not_count(bridge: Bridge) -> None:
    bridge.collision(CarlaCollisionEvent(normal_impulse=Vector3(x=300.0)))
    assert bridge.see(bridge.along(0)).is_first
    assert not bridge.see(bridge.along(1), speed=3.0).is_last


def test_lane_invasions_are_counted(connect: Callable[..., Bridge]) -> None:
    bridge = connect(driving__termination__max_steps=2)
    bridge.reset()
    bridge.see(bridge.along(0))
    bridge.invasion(CarlaLaneInvasionEvent(crossed_lane_markings=[1, 2]))
    bridge.see(bridge.along(1), speed=3.0)
    bridge.see(bridge.along(2), speed=3.0)
    metrics = {one.name: one.value for one in bridge.summaries.next().metrics}
    assert metrics['lane_invasions'] == 2.0


def test_the_time_limit_is_a_truncation(connect: Callable[..., Bridge]) -> None:
    bridge = connect(driving__termination__max_steps=3)
    bridge.reset()
    ends = [bridge.see(bridge.along(metres), speed=5.0 if metres else 0.0)
            for metres in range(4)]
    assert [one.is_last for one in ends] == [False, False, False, True]
    assert (ends[-1].is_terminal, ends[-1].reason) == (False, 'time_limit')


def test_reaching_the_goal_is_a_success(connect: Callable[..., Bridge]) -> None:
    bridge = connect(episodes__min_length=20.0, episodes__max_length=30.0)
    bridge.reset()
    bridge.see(bridge.along(0))
    for metres in range(1, len(bridge.route)):
        seen = bridge.see(bridge.along(metres), speed=8.0)
        if seen.is_last:
            break
    assert (seen.is_terminal, seen.reason) == (True, 'route_completed')
    summary = bridge.summaries.next()
    assert (summary.result, summary.success) == ('route_completed', True)
    assert summary.route_completion > 0.9
    assert summary.duration == pytest.approx(0.05 * summary.steps)


def test_a_broken_image_is_refused_and_the_world_does_not_wait(bridge: Bridge, log: Log) -> None:
    bridge.see(bridge.along(0), grey=10)
    for encoding, size in (('yuv422', 64 * 48 * 2), ('mono8', 17)):
        bridge.frames += 1
        bridge.send_odometry(bridge.along(1))
        bridge.image(Image(header=Header(stamp=to_stamp(bridge.frames * PERIOD)), height=48,
                           width=64, encoding=encoding, step=64, data=to_bytes(bytes(size))))
    assert 'yuv422' in log.next('image refused')
    after = bridge.see(bridge.along(1), grey=20, speed=2.0)
    assert (after.step, greys(after)) == (1, [10, 10, 10, 20])
    assert [step_of(one) for one in bridge.holds.messages] == [2, 3]


def test_odometry_that_is_not_a_number_is_refused(bridge: Bridge, log: Log) -> None:
    bridge.see(bridge.along(0), grey=10)
    bridge.frames += 1
    bridge.send_odometry(Pose(math.nan, 0.0, 0.0))
    bridge.send_image(grey=20)
    assert 'x = nan' in log.next('odometry refused')
    after = bridge.see(bridge.along(1), grey=30, speed=2.0)
    assert (after.step, greys(after)) == (1, [10, 10, 10, 30])
    assert all(map(math.isfinite, after.state))


def test_a_clock_that_begins_anew_interrupts_the_episode(bridge: Bridge, log: Log) -> None:
    bridge.frames = 1000
    bridge.see(bridge.along(0), grey=10)
    bridge.see(bridge.along(1), grey=20, speed=3.0)
    bridge.frames = 0
    bridge.frame(bridge.along(2), grey=30, speed=3.0)
    assert bridge.summaries.next().result == 'interrupted'
    start = bridge.reset()
    first = bridge.see(start, grey=40)
    assert (first.is_first, first.episode, greys(first)) == (True, 1, [40] * 4)


def test_a_reset_is_asked_for_again_when_nothing_comes_of_it(connect: Callable[..., Bridge]
                                                             ) -> None:
    bridge = connect(reset_timeout=0.1)
    first = bridge.transforms.next()
    assert bridge.transforms.next() == first
    assert bridge.goals.next() and bridge.goals.next() == bridge.goals.messages[0]


def test_a_reset_that_does_not_come_about_is_told_with_what_is_in_its_way(
        peer: Peer, connect: Callable[..., Bridge], log: Log) -> None:
    bridge = connect(reset_timeout=0.1)
    assert 'no frame of camera and odometry has come' in log.next('asking for the reset again')
    bridge.frame(Pose(900.0, 0.0, 0.0))
    assert 'm from the start at (' in log.next('the vehicle is')
    rival = Peer(peer.domain, 'rival')
    try:
        rival.node.create_publisher(Odometry, '/carla/ego_vehicle/odometry', qos.SENSOR)
        told = log.next('/rival')  # whose name is known a little later than that it is there
        assert '2 nodes publish /carla/ego_vehicle/odometry' in told and 'ROS_DOMAIN_ID' in told
    finally:
        rival.close()


def test_a_map_that_cannot_be_driven_is_an_error_and_the_next_one_is_taken(
        peer: Peer, make: Callable[..., Running], log: Log) -> None:
    bridge = Bridge(peer, make('environment_node', ONE_LISTENER))
    bridge.world_info(CarlaWorldInfo(map_name='void', opendrive='<OpenDRIVE></OpenDRIVE>'))
    assert "'void'" in log.next('no episodes')
    bridge.world_info(CarlaWorldInfo(map_name='loop', opendrive=map_file('loop').read_text()))
    assert bridge.see(bridge.reset()).is_first


def test_episodes_wait_for_those_who_act_on_observations(
        peer: Peer, connect: Callable[..., Bridge]) -> None:
    bridge = connect(wait_for=2)
    bridge.frame(Pose(0.0, 0.0, 0.0))
    assert step_of(bridge.holds.next()) == 1
    other = Peer(peer.domain, 'other')
    try:
        other.hear(Observation, '/ego_vehicle/observation')
        publisher = next(one for one in bridge.node.node.publishers
                         if one.topic_name == '/ego_vehicle/observation')
        await_that(lambda: publisher.get_subscription_count() == 2, 'the second listener')
        start = bridge.reset()
        assert bridge.see(start).is_first
    finally:
        other.close()


def test_who_only_looks_on_begins_no_episode(peer: Peer, connect: Callable[..., Bridge]) -> None:
    bridge = connect(wait_for=2)
    publisher = next(one for one in bridge.node.node.publishers
                     if one.topic_name == '/ego_vehicle/observation')
    other = Peer(peer.domain, 'other')
    try:
        other.hear(Observation, '/ego_vehicle/observation', qos.WATCH)
        await_that(lambda: publisher.get_subscription_count() == 2, 'who looks on')
        for step in (1, 2):
            bridge.frame(Pose(0.0, 0.0, 0.0))
            assert step_of(bridge.holds.next()) == step
        assert not bridge.transforms.messages
        other.hear(Observation, '/ego_vehicle/observation')
        await_that(lambda: publisher.get_subscription_count() == 3, 'who acts')
        assert bridge.see(bridge.reset()).is_first
    finally:
        other.close()


def test_routes_that_the_map_does_not_have_end_the_node(peer: Peer, tmp_path: Path) -> None:
    file = parameter_file(tmp_path, {'environment_node': {
        'wait_for': 0, 'episodes.min_length': 5000.0, 'episodes.max_length': 5000.0}})
    with Session([SPECS['environment_node']], file, tmp_path / 'logs') as session:
        peer.speak(CarlaWorldInfo, '/carla/world_info', qos.LATCHED)(
            CarlaWorldInfo(map_name='loop', opendrive=map_file('loop').read_text()))
        await_that(lambda: session.states()['environment_node'] != 'running', 'its end')
        with pytest.raises(SessionError, match=r'episode 0 cannot be planned.*5000'):
            session.check()


def test_start_speeds_and_offsets_are_asked_for(connect: Callable[..., Bridge]) -> None:
    bridge = connect(episodes__max_offset=1.0, episodes__max_yaw_offset=0.2,
                     episodes__max_speed=8.0, episodes__standing_share=0.0)
    start = bridge.reset()
    speed = bridge.velocities.messages[0].linear.x
    lane = ROADS.project(start.x, start.y)
    assert 0.0 < speed <= 8.0
    assert 0.0 < abs(lane.lateral) <= 1.0
    assert 0.0 < abs(wrap_angle(start.yaw - lane.yaw)) <= 0.21
    bridge.frame(start, speed=0.0)  # not as fast as it is to start
    assert step_of(bridge.holds.next()) == 1
    assert bridge.see(start, speed=speed).is_first


def test_without_resets_the_route_comes_from_outside(connect: Callable[..., Bridge]) -> None:
    bridge = connect(resets=False)
    bridge.frame(Pose(0.0, 0.0, 0.0))
    assert step_of(bridge.holds.next()) == 1
    bridge.send_path(np.array([(x, 0.0, 0.0) for x in range(100)]))
    first = bridge.see(bridge.along(0))
    assert (first.is_first, first.episode) == (True, 0)
    assert bridge.see(bridge.along(1), speed=3.0).step == 1
    bridge.send_path(np.array([(x, 0.0, math.pi) for x in range(100, 0, -1)]))
    assert bridge.summaries.next().result == 'interrupted'
    again = bridge.see(bridge.along(0))
    assert (again.is_first, again.episode) == (True, 1)
    # Once that route has been driven, the vehicle waits for the next one.
    assert bridge.see(bridge.beside(10, 5.0)).is_last
    bridge.frame(bridge.along(0))
    assert step_of(bridge.holds.next()) == bridge.frames
    assert not bridge.transforms.messages


def test_a_path_that_is_not_a_route_is_refused(connect: Callable[..., Bridge], log: Log) -> None:
    bridge = connect(resets=False)
    bridge.send_path(np.array([(0.0, 0.0, 0.0), (math.nan, 0.0, 0.0)]))
    log.next('path refused')
    bridge.send_path(np.array([(0.0, 0.0, 0.0), (50.0, 0.0, 0.0)]))
    assert bridge.see(bridge.along(0)).is_first


@pytest.mark.parametrize('first', ['odometry', 'route'])
def test_a_route_in_another_frame_is_not_driven(first: str, connect: Callable[..., Bridge],
                                                log: Log) -> None:
    bridge = connect(resets=False)
    odometry, route = Odometry(), PathMessage()
    odometry.header.frame_id, route.header.frame_id = 'ground', 'map'
    odometry.pose.pose.orientation.w = 1.0
    route.poses = [PoseStamped(pose=to_pose_message(Pose(x, 0.0, 0.0))) for x in (0.0, 50.0)]
    sends = [lambda: bridge.odometry(odometry), lambda: bridge.path(route)]
    for send in sends if first == 'odometry' else reversed(sends):
        send()
    assert "odometry's frame" in log.next("the route is in frame 'map', the odometry in 'ground'")
    assert bridge.node.node._path is None
    bridge.send_path(np.array([(0.0, 0.0, 0.0), (50.0, 0.0, 0.0)]))  # whose frame nobody says
    assert bridge.see(bridge.along(0)).is_first


def test_images_that_never_find_their_odometry_are_told_with_the_remedy(
        peer: Peer, connect: Callable[..., Bridge], log: Log) -> None:
    bridge = connect(resets=False, pairing__tolerance=0.0)

    def apart() -> None:
        bridge.frames += 1
        bridge.send_image()
        message = Odometry()
        message.header.stamp = to_stamp(bridge.frames * PERIOD + 7_000_000)
        message.pose.pose.orientation.w = 1.0
        bridge.odometry(message)

    timer = peer.node.create_timer(0.05, apart)
    told = log.next('no image finds its odometry')
    peer.node.destroy_timer(timer)
    assert '7.0 ms apart or more' in told and 'pairing.tolerance is 0 ms' in told
