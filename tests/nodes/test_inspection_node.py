"""The inspection node: pictures, markers and transforms, and nothing while nobody looks."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from av_td3_msgs.msg import Action, AppliedAction, Observation, RewardTerms
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from harness import Inbox, Log, Peer, Running, await_that
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from av_td3_ros.driving.display.annotation import SOURCES
from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_pose_message, to_stamp
from av_td3_ros.ros.markers import to_markers

NODE = '/ego_vehicle/inspection_node'
PERIOD = 50_000_000
SIZE, COUNT = 36, 4
INPUTS = {'observation': (Observation, '/ego_vehicle/observation'),
          'action': (Action, '/ego_vehicle/action'),
          'applied_action': (AppliedAction, '/ego_vehicle/applied_action'),
          'odometry': (Odometry, '/carla/ego_vehicle/odometry'),
          'path': (Path, '/carla/ego_vehicle/waypoints'),
          'markers': (MarkerArray, '/carla/markers'),
          'camera_info': (CameraInfo, '/carla/ego_vehicle/rgb_front/camera_info')}


class Session:
    """What the inspection node listens to."""

    def __init__(self, peer: Peer) -> None:
        self._publishers = {
            role: peer.node.create_publisher(
                kind, topic, qos.LATCHED if role == 'path' else qos.STEP)
            for role, (kind, topic) in INPUTS.items()}

    def heard(self, *roles: str) -> None:
        """Wait until the node listens to exactly these."""
        await_that(lambda: self.listeners() == set(roles), f'the node listens to {roles}')

    def listeners(self) -> set[str]:
        """Return which inputs have a subscriber."""
        return {role for role, one in self._publishers.items() if one.get_subscription_count()}

    def say(self, role: str, message: Any) -> None:
        """Publish."""
        self._publishers[role].publish(message)

    def observe(self, step: int, speed: float = 5.0, brightness: int = 90, **fields: Any) -> None:
        """Publish an observation of a grey picture on a straight road."""
        ahead = [(2.0 * (one + 1) / 50.0, 0.0) for one in range(10)]
        state = np.array([speed / 30.0, 0.1, 0.02, *np.ravel(ahead)], np.float32)
        given: dict[str, Any] = {
            'vehicle': 'ego_vehicle', 'episode': 3, 'step': step, 'height': SIZE, 'width': SIZE,
            'count': COUNT, 'state': to_floats(state), 'reward': 0.05,
            'frames': to_bytes(np.full(COUNT * SIZE * SIZE, brightness, np.uint8)),
            'terms': RewardTerms(progress=0.08, lane=-0.03, total=0.05)}
        self.say('observation', Observation(
            header=Header(stamp=to_stamp((step + 1) * PERIOD), frame_id='ego_vehicle'),
            **{**given, **fields}))

    def apply(self, step: int, source: int, steer: float = 0.2) -> None:
        """Publish an applied action."""
        self.say('applied_action', AppliedAction(
            episode=3, step=step, steer=steer, acceleration=0.4, source=source,
            policy_version=1200))

    def move(self, step: int, x: float, y: float = 0.0, yaw: float = 0.0) -> None:
        """Publish where the vehicle is."""
        odometry = Odometry(header=Header(stamp=to_stamp((step + 1) * PERIOD), frame_id='map'),
                            child_frame_id='ego_vehicle')
        odometry.pose.pose = to_pose_message(Pose(x, y, yaw))
        odometry.twist.twist.linear.x = 8.0
        self.say('odometry', odometry)


@pytest.fixture
def session(peer: Peer, make: Callable[..., Running]) -> Session:
    """Return what the node listens to; the node runs."""
    node = make('inspection_node', {'rate': 30.0, 'width': 320})
    found = Session(peer)
    node.spin()
    return found


def pixels(message: Image) -> np.ndarray:
    """Return a picture as an array."""
    assert message.encoding == 'bgr8' and message.step == 3 * message.width
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    """Return the share of pixels that have a colour."""
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 12).mean())


def pictures(peer: Peer) -> Inbox[Image]:
    """Look at the annotated image."""
    return peer.hear(Image, f'{NODE}/debug/image', qos.VIEW)


def test_nobody_looks_and_nothing_is_heard_until_somebody_does(
        peer: Peer, session: Session) -> None:
    await_that(lambda: peer.node.get_publishers_info_by_topic(f'{NODE}/debug/image'), 'the node')
    assert session.listeners() == set()
    subscription = peer.node.create_subscription(
        Image, f'{NODE}/debug/image', lambda _: None, qos.VIEW)
    session.heard('observation', 'action', 'applied_action')
    peer.node.destroy_subscription(subscription)
    session.heard()


def test_the_picture_tells_who_drives(peer: Peer, session: Session) -> None:
    seen = pictures(peer)
    session.heard('observation', 'action', 'applied_action')
    shares = {}
    for step, source in enumerate((AppliedAction.SOURCE_POLICY, AppliedAction.SOURCE_HUMAN,
                                   AppliedAction.SOURCE_WATCHDOG)):
        session.apply(step, source)
        session.observe(step)
        stamp = to_stamp((step + 1) * PERIOD)
        picture = pixels(seen.next(lambda one, stamp=stamp: one.header.stamp == stamp))
        shares[source] = {name: share_of(picture, SOURCES[name])
                          for name in ('policy', 'human', 'watchdog')}
        assert picture.shape[1] == 320
    for source, name in ((AppliedAction.SOURCE_POLICY, 'policy'),
                         (AppliedAction.SOURCE_HUMAN, 'human'),
                         (AppliedAction.SOURCE_WATCHDOG, 'watchdog')):
        # Its word on a field of its colour, and the edges of the way that the wheels lead to.
        others = [one[name] for key, one in shares.items() if key != source]
        assert shares[source][name] > 0.003 + max(others), (name, shares)


def test_the_picture_holds_the_frame_that_the_policy_saw(peer: Peer, session: Session) -> None:
    seen = pictures(peer)
    session.heard('observation', 'action', 'applied_action')
    for step, brightness in enumerate((40, 200)):
        session.observe(step, brightness=brightness)
        stamp = to_stamp((step + 1) * PERIOD)
        picture = pixels(seen.next(lambda one, stamp=stamp: one.header.stamp == stamp))
        assert picture[60, 20].tolist() == [brightness] * 3
    session.observe(2, is_last=True, is_terminal=True, reason='collision')
    ended = pixels(seen.next(lambda one: one.header.stamp == to_stamp(3 * PERIOD)))
    assert share_of(ended, (0, 0, 0)) == share_of(picture, (0, 0, 0)) == 0.0
    assert np.abs(ended[25:60, 80:240].astype(int) - picture[25:60, 80:240]).max() > 50


def test_rviz_sees_route_path_vehicles_steering_and_the_episode(
        peer: Peer, session: Session) -> None:
    seen = peer.hear(MarkerArray, f'{NODE}/debug/markers', qos.VIEW)
    session.heard('observation', 'applied_action', 'odometry', 'path', 'markers')
    session.say('path', Path(header=Header(frame_id='map'), poses=[
        PoseStamped(pose=to_pose_message(Pose(10.0 * one, 0.0, 0.0))) for one in range(5)]))
    session.say('markers', to_markers(Header(frame_id='map'), [
        Box(1, 4.0, 0.0, 0.0, 4.5, 1.6), Box(7, 30.0, 3.5, 0.0, 4.0, 1.8)], 1))
    session.apply(0, AppliedAction.SOURCE_POLICY, steer=0.5)
    session.observe(0)
    for step in range(5):
        session.move(step, x=float(step))
        seen.next(lambda one, step=step: one.markers[0].header.stamp == to_stamp(
            (step + 1) * PERIOD))
    session.observe(1)
    found = {(one.ns, one.id): one for one in seen.next(
        lambda one: {'route', 'driven', 'ego', 'others', 'steering', 'episode'}
        <= {marker.ns for marker in one.markers}).markers}
    assert {one.header.frame_id for one in found.values()} == {'map'}
    assert [point.x for point in found['route', 0].points] == [0.0, 10.0, 20.0, 30.0, 40.0]
    driven = found['driven', 0]
    assert [point.x for point in driven.points] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(driven.colors) == 5
    assert found['ego', 0].pose.position.x == 4.0
    assert ('others', 7) in found and ('others', 1) not in found  # its own is not another one
    left, right = found['steering', 0].points, found['steering', 1].points
    assert left[0].y > right[0].y and left[-1].y > left[0].y  # to the left
    assert 'episode 3' in found['episode', 0].text
    # A vehicle that is gone is taken away.
    session.say('markers', to_markers(Header(frame_id='map'), [Box(1, 4.0, 0.0, 0.0, 4.5, 1.6)],
                                      1))
    gone = seen.next(lambda one: any(
        marker.ns == 'others' and marker.action == Marker.DELETE for marker in one.markers))
    assert [one.id for one in gone.markers if one.ns == 'others'] == [7]


def test_a_teleport_is_no_path_driven(peer: Peer, session: Session) -> None:
    seen = peer.hear(MarkerArray, f'{NODE}/debug/markers', qos.VIEW)
    session.heard('observation', 'applied_action', 'odometry', 'path', 'markers')
    for step, x in enumerate((0.0, 1.0, 2.0, 100.0, 101.0)):
        session.move(step, x)
        last = seen.next(lambda one, step=step: one.markers[0].header.stamp == to_stamp(
            (step + 1) * PERIOD))
    (driven,) = [one for one in last.markers if one.ns == 'driven']
    assert [point.x for point in driven.points] == [100.0, 101.0]


def test_transforms_follow_the_vehicle_and_carry_its_camera(
        peer: Peer, session: Session) -> None:
    seen = peer.hear(TFMessage, '/tf', qos.TF)
    session.heard('odometry', 'camera_info')
    session.say('camera_info', CameraInfo(header=Header(frame_id='ego_vehicle/rgb_front')))
    session.move(0, 5.0, 7.0, math.pi / 2)
    first = seen.next().transforms[0]
    assert (first.header.frame_id, first.child_frame_id) == ('map', 'ego_vehicle')
    assert (first.transform.translation.x, first.transform.translation.y) == (5.0, 7.0)
    assert first.transform.rotation.z == pytest.approx(math.sqrt(0.5))
    session.move(1, 5.0)
    message = seen.next(lambda one: len(one.transforms) == 2 or session.move(1, 5.0))
    camera = message.transforms[1]
    assert (camera.header.frame_id, camera.child_frame_id) == (
        'ego_vehicle', 'ego_vehicle/rgb_front')
    # The optical axis looks ahead and, by the camera's pitch of 8 degrees, down.
    q = camera.transform.rotation
    axis = (2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x),
            1 - 2 * (q.x * q.x + q.y * q.y))
    assert axis == pytest.approx(
        (math.cos(math.radians(8)), 0.0, -math.sin(math.radians(8))), abs=1e-4)


def test_transforms_are_left_to_who_publishes_them_already(
        peer: Peer, make: Callable[..., Running]) -> None:
    node = make('inspection_node', {'tf': False, 'rate': 30.0})
    session = Session(peer)
    node.spin()
    transforms, markers = peer.hear(TFMessage, '/tf', qos.TF), peer.hear(
        MarkerArray, f'{NODE}/debug/markers', qos.VIEW)
    session.heard('observation', 'applied_action', 'odometry', 'path', 'markers')
    session.move(0, 1.0)
    markers.next()
    assert not transforms.messages


@pytest.mark.parametrize('broken', [
    {'frames': to_bytes(b'123')}, {'count': 0}, {'state': []},
    {'state': [math.nan] * 23}, {'state': [math.inf] * 24}, {'reward': math.nan},
    {'terms': RewardTerms(progress=math.inf)}, {'reason': 'Straße ' * 50},
])
def test_garbage_is_left_out_and_the_next_picture_comes(
        peer: Peer, session: Session, broken: dict[str, Any]) -> None:
    seen = pictures(peer)
    session.heard('observation', 'action', 'applied_action')
    session.apply(0, source=99, steer=math.nan)
    session.say('action', Action(steer=math.inf, inference_time=math.nan))
    session.observe(0, **broken)
    session.observe(1)
    seen.next(lambda one: one.header.stamp == to_stamp(2 * PERIOD))


def test_places_that_are_none_are_refused_with_the_reason(
        peer: Peer, session: Session, log: Log) -> None:
    seen = peer.hear(MarkerArray, f'{NODE}/debug/markers', qos.VIEW)
    session.heard('observation', 'applied_action', 'odometry', 'path', 'markers')
    session.move(0, math.nan)
    assert 'not finite' in log.next('odometry refused')
    session.say('markers', MarkerArray())
    session.say('path', Path(poses=[PoseStamped(pose=to_pose_message(
        Pose(math.inf, 0.0, 0.0)))]))
    session.move(1, 1.0)
    seen.next()


def test_settings_change_while_it_runs(peer: Peer, session: Session) -> None:
    seen = pictures(peer)
    session.heard('observation', 'action', 'applied_action')
    assert peer.set_parameter(NODE, 'rate', 20.0).successful
    refused = peer.set_parameter(NODE, 'rate', 0.0)
    assert not refused.successful and 'range' in refused.reason
    session.observe(0)
    seen.next()


def test_its_health_tells_whether_there_is_something_to_look_at(
        peer: Peer, session: Session) -> None:
    health = peer.hear(DiagnosticArray, '/diagnostics', qos.EVENT)
    told = health.next().status[0]
    assert (told.level, told.message) == (DiagnosticStatus.OK, 'nobody looks')
    seen = pictures(peer)
    told = health.next(lambda one: one.status[0].level == DiagnosticStatus.WARN).status[0]
    assert 'does a session of this vehicle and profile run?' in told.message
    session.observe(0)
    seen.next()
    told = health.next(lambda one: one.status[0].level == DiagnosticStatus.OK).status[0]
    assert told.message == 'somebody looks'
