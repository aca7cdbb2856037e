"""Every subscriber and service of every node, fed with well-typed garbage over real DDS."""
from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import importlib
import itertools
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import rclpy
import yaml
from ackermann_msgs.msg import AckermannDriveStamped
from av_td3_msgs.msg import (
    Action,
    ActorWeights,
    AppliedAction,
    EpisodeSummary,
    LearnerStatus,
    Metric,
    Observation,
    Transition,
)
from carla_msgs.msg import (
    CarlaCollisionEvent,
    CarlaControl,
    CarlaEgoVehicleControl,
    CarlaLaneInvasionEvent,
    CarlaStatus,
    CarlaWorldInfo,
)
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from av_td3_ros.cli.session import Session, take_domain
from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_pose_message, to_stamp
from av_td3_ros.ros.graph import NodeSpec, session_nodes, viewing_nodes
from av_td3_ros.ros.markers import to_markers
from av_td3_ros.ros.runtime import leave, make_executor, ros_environment, spin
from av_td3_ros.settings import flatten
from av_td3_ros.td3.networks import Actor, NetworkSettings
from av_td3_ros.td3.weights import pack
from benchmarks._faults import Fault, Outcome, claim
from benchmarks._garbage import garbage, number, spoil, text

VEHICLE = 'ego_vehicle'
PERIOD = 50_000_000   # ns between two good messages
STARTING = 120.0      # s of wall time for a node to be there, or to answer
MEMORY = 1500.0       # MB that a node may grow by while it is fed
GIANT = 8192          # pixels, height and width of a giant image
NETWORK = NetworkSettings(frame_size=36, state_size=9, channels=(4, 4, 4), features=8,
                          hidden=(16, 16))
SMALL = {f'network.{key}': value for key, value in flatten(NETWORK).items()}
UNREGISTERED = (0, 1, 2, 3, 8, 9, 10, 30, 62, 97, 200, 255)  # transitions of an active node
MESSAGES, PER_TARGET = 108_000, 9_000
_REFUSED = re.compile(r'\[(\d+\.\d+)\] \[[\w./]+\]: (.+?) refused \(')


@dataclasses.dataclass(frozen=True)
class Target:
    """Name a node in a profile with its parameters, and what shows that it works."""

    name: str
    node: str
    profile: str
    parameters: Mapping[str, Any]
    answer: Callable[[Peer, int], bool]
    seldom: frozenset[str] = frozenset()


@dataclasses.dataclass
class Result:
    """What came of one target: by topic what was sent, received and refused, and what died."""

    target: str
    sent: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    received: dict[str, int] = dataclasses.field(default_factory=dict)
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    deaths: list[str] = dataclasses.field(default_factory=list)
    deaf: list[str] = dataclasses.field(default_factory=list)
    grown: float = 0.0
    chatter: float = 0.0


class Peer:
    """A participant that publishes anything, asks anything, and hears what comes back."""

    def __init__(self, domain: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain,
                   signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('fuzzer', context=self._context)
        self._executor = make_executor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=spin, args=(self._executor, self._context))
        self._thread.start()
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self.heard: dict[str, collections.deque[Any]] = {}

    def hear(self, kind: type, topic: str, profile: QoSProfile = qos.EVENT) -> None:
        """Keep what comes on a topic in `heard`."""
        self.heard[topic] = collections.deque(maxlen=300)
        box = self.heard[topic]
        self.node.create_subscription(kind, topic, lambda one: box.append(one), profile)

    def say(self, topic: str, message: Any) -> None:
        """Publish with what the topic's subscribers ask for."""
        if topic not in self._publishers:
            others: list[Any] = []

            def found() -> bool:
                others[:] = [one for one in self.node.get_subscriptions_info_by_topic(topic)
                             if one.node_name != self.node.get_name()]
                return bool(others)

            wait_for(found, STARTING)
            latched = any(one.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
                          for one in others)
            self._publishers[topic] = self.node.create_publisher(type(message), topic, QoSProfile(
                depth=10, reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if latched
                else DurabilityPolicy.VOLATILE))
            wait_for(lambda: self._publishers[topic].get_subscription_count()
                     > (topic in self.heard), STARTING)
        self._publishers[topic].publish(message)

    def ask(self, kind: Any, service: str, request: Any, timeout: float = 5.0) -> Any:
        """Call a service; return its answer, None when none came."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
            wait_for(self._clients[service].service_is_ready, STARTING)
        future = self._clients[service].call_async(request)
        return future.result() if wait_for(future.done, timeout) else None

    def close(self) -> None:
        """Leave the graph."""
        self._context.try_shutdown()
        self._thread.join()
        leave(self._executor, self.node)


def wait_for(condition: Callable[[], Any], timeout: float) -> bool:
    """Return whether a condition came true within so many s."""
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


# -- good messages, the n-th of each type

def header(n: int) -> Header:
    """Return the n-th header."""
    return Header(stamp=to_stamp((n + 1) * PERIOD), frame_id='map')


@functools.cache
def roads() -> RoadMap:
    """Return the map that good messages are about."""
    return RoadMap.from_file(map_file('loop'))


@functools.cache
def weights(version: int) -> ActorWeights:
    """Return good weights."""
    packed = pack(Actor(NETWORK).eval(), version)
    return ActorWeights(version=version, architecture=packed.architecture,
                        weights=to_bytes(packed.data),
                        sha256=to_bytes(bytes.fromhex(packed.sha256)))


@functools.cache
def picture(encoding: str = '.jpg') -> bytes:
    """Return a compressed picture."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return bytes(cv2.imencode(encoding, cv2.resize(noise, (160, 120)))[1].tobytes())


def odometry(n: int) -> Odometry:
    """Return a vehicle that stands at a spawn point; now, where the clock is what counts."""
    start = roads().spawn_points()[0]
    message = Odometry(header=header(n), child_frame_id='base_link')
    message.pose.pose = to_pose_message(start.ahead(0.01 * (n % 1000)))
    message.twist.twist.linear.x = 0.2
    return message


def observation(n: int) -> Observation:
    """Return the n-th of episodes of 20 steps."""
    return Observation(
        header=header(n), vehicle=VEHICLE, episode=n // 20, step=n % 20, height=36, width=36,
        count=4, frames=to_bytes(bytes(4 * 36 * 36)), state=to_floats(np.full(9, 0.1, np.float32)),
        reward=0.1, is_first=n % 20 == 0, is_last=n % 20 == 19)


def _path(n: int) -> PathMessage:
    start = roads().spawn_points()[0]
    return PathMessage(header=header(n), poses=[
        PoseStamped(header=header(n), pose=to_pose_message(start.ahead(float(2 * i))))
        for i in range(20)])


def _image(n: int) -> Image:
    return Image(header=header(n), height=12, width=16, encoding='bgr8', step=48,
                 data=to_bytes(bytes(12 * 48)))


def _camera_info(n: int) -> CameraInfo:
    return CameraInfo(header=header(n), height=120, width=160, distortion_model='plumb_bob',
                      d=[0.01] * 5, k=np.array([80., 0, 80, 0, 80, 60, 0, 0, 1]),
                      r=np.eye(3).ravel(), p=np.array([80., 0, 80, 0, 0, 80, 60, 0, 0, 0, 1, 0]))


def _transition(n: int) -> Transition:
    return Transition(
        header=header(n), vehicle=VEHICLE, session='s', sequence=n + 1, episode=n // 20,
        step=n % 20, height=36, width=36, frame=to_bytes(bytes(36 * 36)),
        state=to_floats(np.full(9, 0.1, np.float32)), steer=0.1, acceleration=0.1, reward=0.1,
        is_first=n % 20 == 0, is_last=n % 20 == 19, is_terminal=n % 20 == 19)


def _markers(n: int) -> MarkerArray:
    start = roads().spawn_points()[0]
    return to_markers(header(n), [Box(1, start.x, start.y, start.yaw, 4.0, 2.0),
                                  Box(2, start.x + 30.0, start.y, 0.0, 4.0, 2.0)], 1)


def _drive(n: int) -> AckermannDriveStamped:
    message = AckermannDriveStamped(header=header(n))
    message.drive.speed, message.drive.acceleration = 1.0, 0.5
    return message


GOOD: dict[type, Callable[[int], Any]] = {
    Header: header, Odometry: odometry, Observation: observation, PathMessage: _path,
    Image: _image, CameraInfo: _camera_info, Transition: _transition, MarkerArray: _markers,
    AckermannDriveStamped: _drive,
    CompressedImage: lambda n: CompressedImage(header=header(n), format='jpeg',
                                               data=to_bytes(picture())),
    Action: lambda n: Action(header=header(n), vehicle=VEHICLE, episode=n // 20, step=n % 20,
                             steer=0.1, acceleration=0.1),
    AppliedAction: lambda n: AppliedAction(header=header(n), vehicle=VEHICLE, episode=n // 20,
                                           step=n % 20, steer=0.1, acceleration=0.1),
    ActorWeights: lambda n: copy.deepcopy(weights(n % 3)),
    EpisodeSummary: lambda n: EpisodeSummary(
        header=header(n), vehicle=VEHICLE, episode=n, result='stuck', episode_return=1.0, steps=3,
        metrics=[Metric(name='return', value=1.0), Metric(name='steps', value=3.0)]),
    CarlaWorldInfo: lambda n: CarlaWorldInfo(map_name='loop', opendrive=roads().opendrive),
    CarlaCollisionEvent: lambda n: CarlaCollisionEvent(header=header(n), other_actor_id=1),
    CarlaLaneInvasionEvent: lambda n: CarlaLaneInvasionEvent(header=header(n),
                                                             crossed_lane_markings=[1]),
    CarlaEgoVehicleControl: lambda n: CarlaEgoVehicleControl(throttle=0.3),
    CarlaControl: lambda n: CarlaControl(command=CarlaControl.PLAY),
    PoseMessage: lambda n: to_pose_message(roads().spawn_points()[0]),
    PoseStamped: lambda n: PoseStamped(header=header(n),
                                       pose=to_pose_message(roads().spawn_points()[5])),
}


# -- what each type does not like to be, beside what is drawn

def _placed(message: Any, *values: float) -> None:
    """Give the orientation of whatever pose a message has these numbers."""
    while hasattr(message, 'pose'):
        message = message.pose
    turn = message.orientation
    turn.x, turn.y, turn.z, turn.w = values


def _sized(message: Any, chance: random.Random, **sizes: Any) -> None:
    for name, value in sizes.items():
        setattr(message, name, value)


def _truncated(message: Any, chance: random.Random, field: str = 'data') -> None:
    data = getattr(message, field)
    setattr(message, field, data[:chance.randrange(max(len(data), 1))])


def _flipped(message: Any, chance: random.Random, field: str = 'data') -> None:
    data = getattr(message, field)
    for _ in range(chance.choice((1, 3, 30))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def bomb() -> bytes:
    """Return a JPEG of a few hundred bytes that claims to be 65500 pixels wide and high."""
    data = bytearray(picture())
    at = data.find(b'\xff\xc0')
    data[at + 5:at + 9] = (65500).to_bytes(2, 'big') * 2
    return bytes(data)


def png_bomb() -> bytes:
    """Return a PNG that claims to be a million pixels wide and high."""
    data = bytearray(picture('.png'))
    data[16:24] = (1_000_000).to_bytes(4, 'big') * 2
    return bytes(data)


def _backward(message: Any, chance: random.Random) -> None:
    message.header.stamp.sec = chance.choice((-2**31, -1, 0, 1, 5, 2**31 - 1))
    message.header.stamp.nanosec = chance.choice((0, 1, 999_999_999, 2**32 - 1))


def _points(message: PathMessage, chance: random.Random) -> None:
    kind = chance.randrange(6)
    if kind == 0:
        message.poses = []
    elif kind == 1:
        message.poses = message.poses[:1]
    elif kind == 2:
        message.poses[chance.randrange(len(message.poses))].pose.position.x = float('nan')
    elif kind == 3:  # all in one place
        message.poses = message.poses[:1] * 20
    elif kind == 4:
        message.poses[-1].pose.position.y = chance.choice((1e12, 1e155, 1e308, -1e308))
    else:
        message.poses = message.poses * 500


def _map(message: CarlaWorldInfo, chance: random.Random) -> None:
    told = message.opendrive
    spots = [one.span(1) for one in re.finditer(r'="([^"]*)"', told)]
    for _ in range(chance.choice((1, 2, 5))):
        start, end = chance.choice(spots)
        if end <= len(told):
            told = told[:start] + chance.choice(
                ('', 'nan', 'inf', '-1', '0', '1e18', '999999999999', 'x')) + told[end:]
    message.opendrive = told if chance.random() < 0.7 else told[:chance.randrange(len(told))]


def _weights(message: ActorWeights, chance: random.Random) -> None:
    """Spoil the bytes, with a hash that fits them."""
    import hashlib

    draw = chance.random()
    if draw < 0.3:
        message.weights = to_bytes((2**chance.choice((20, 40, 62, 63))).to_bytes(8, 'little')
                                   + bytes(message.weights)[8:])
    elif draw < 0.6:
        _flipped(message, chance, 'weights')
    elif draw < 0.8:
        _truncated(message, chance, 'weights')
    else:
        header_ = chance.choice((b'[]', b'null', b'{"a":1}', b'{"__metadata__":3}', b'"x"'))
        message.weights = to_bytes(len(header_).to_bytes(8, 'little') + header_)
    message.sha256 = to_bytes(hashlib.sha256(bytes(message.weights)).digest())


def _giant(message: Image, chance: random.Random) -> None:
    side = chance.choice((GIANT, GIANT // 2))
    _sized(message, chance, height=side, width=side, encoding='mono8', step=side)
    message.data = _zeros(side * side)


@functools.lru_cache(maxsize=2)
def _zeros(size: int) -> Any:
    return to_bytes(bytes(size))


def _thin(message: Image, chance: random.Random) -> None:
    long = chance.choice((32_768, 70_000, 1_000_000))
    height, width = chance.choice(((1, long), (long, 1)))
    _sized(message, chance, height=height, width=width, encoding='mono8', step=width)
    message.data = _zeros(long)


def _step(message: Any, chance: random.Random) -> None:
    message.step = chance.choice((0, 1, 47, 49, 2**31, 2**32 - 1))


def _turned(message: Any, chance: random.Random) -> None:
    _placed(message, *chance.choice((
        (0.0,) * 4, (1e200,) * 4, (0.0, 0.0, 0.0, 1e-9), (float('nan'),) * 4, (5.0,) * 4)))


def _covariance(message: Any, chance: random.Random) -> None:
    message.pose.covariance = np.full(36, float('nan'))


def _step_back(message: Any, chance: random.Random) -> None:
    message.step = max(0, message.step - chance.randrange(5))
    message.episode = chance.choice((message.episode, 0, 2**32 - 1))


def _other_vehicle(message: Any, chance: random.Random) -> None:
    message.vehicle = chance.choice(('', 'other', 'a b', '1x', text(chance)))


def _sequence(message: Transition, chance: random.Random) -> None:
    message.sequence = chance.choice((0, 1, 2**63, 2**64 - 1, message.sequence + 10**9))
    if chance.random() < 0.3:
        message.session = text(chance)


def _metrics(message: EpisodeSummary, chance: random.Random) -> None:
    message.metrics = [Metric(name=text(chance), value=number(chance))
                       for _ in range(chance.randrange(50))]
    message.metrics += [Metric(name=name, value=number(chance))
                        for name in ('steps', 'collisions', 'return', 'min_ttc')]


def _values(message: Observation, chance: random.Random) -> None:
    message.state = to_floats(np.array([number(chance, True) for _ in range(
        chance.choice((0, 1, 2, 9, 53, 3000)))], np.float64).astype(np.float32))


Spoiler = Callable[[Any, random.Random], None]
NASTY: dict[type, Sequence[Spoiler]] = {
    Image: (_step, _truncated, _backward, _giant, _thin,
            lambda m, c: _sized(m, c, height=0), lambda m, c: _sized(m, c, width=0, height=0),
            lambda m, c: _sized(m, c, height=2**32 - 1, width=2**32 - 1),
            lambda m, c: _sized(m, c, encoding=c.choice(
                ('mono16', '32FC1', 'bayer_rggb8', 'BGR8', '', 'bgra8', text(c))))),
    CompressedImage: (
        _truncated, _flipped, _backward, lambda m, c: _sized(m, c, data=to_bytes(bomb())),
        lambda m, c: _sized(m, c, data=to_bytes(png_bomb())),
        lambda m, c: _sized(m, c, data=to_bytes(picture('.png')[:c.randrange(5000)]))),
    Odometry: (_backward, _turned, _covariance),
    PathMessage: (_points, _points, _backward),
    MarkerArray: (lambda m, c: _sized(m, c, markers=[]), lambda m, c: _turned(m.markers[0], c),
                  lambda m, c: _backward(m.markers[0], c),
                  lambda m, c: _sized(m, c, markers=m.markers * 1000)),
    Observation: (_backward, _step_back, _other_vehicle, _values,
                  lambda m, c: _truncated(m, c, 'frames'),
                  lambda m, c: _sized(m, c, count=0, frames=to_bytes(b'')),
                  lambda m, c: _sized(m, c, height=65535, width=65535, count=255)),
    Transition: (_sequence, _other_vehicle, _step_back, _backward,
                 lambda m, c: _truncated(m, c, 'frame')),
    Action: (_backward, _step_back, _other_vehicle), AppliedAction: (_backward, _step_back),
    ActorWeights: (_weights, _weights, lambda m, c: _truncated(m, c, 'sha256')),
    EpisodeSummary: (_metrics, _metrics), CarlaWorldInfo: (_map, _map),
    PoseMessage: (_turned,), PoseStamped: (_turned,), PoseWithCovarianceStamped: (_turned,),
    AckermannDriveStamped: (_backward,),
}


def message_for(kind: type, n: int, chance: random.Random) -> Any:
    """Return the n-th message of a type: garbage, nearly good, nasty by hand, or good."""
    good = GOOD.get(kind)
    draw = chance.random()
    if good is None or draw < 0.25:
        return garbage(kind, chance)
    message = good(n)
    if draw < 0.5:
        spoil(message, chance)
    elif draw < 0.85 and kind in NASTY:
        # Giant ones take their time: few of them.
        nasty = chance.choice(NASTY[kind])
        if nasty is not _giant or chance.random() < 0.02:
            nasty(message, chance)
    return message


def request_for(kind: Any, parameters: Sequence[str], chance: random.Random) -> Any:
    """Return a request that asks for nothing that is in order."""
    request = garbage(kind.Request, chance)
    if kind is ChangeState:
        request.transition.id = chance.choice(UNREGISTERED)
    if kind in (SetParameters, SetParametersAtomically):
        request.parameters = [Parameter(
            name=chance.choice((*parameters, text(chance))),
            value=_parameter_value(chance)) for _ in range(chance.randrange(4))]
    return request


def _parameter_value(chance: random.Random) -> ParameterValue:
    value: ParameterValue = garbage(ParameterValue, chance)
    value.type = chance.choice((0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 77, 255))
    value.double_value = chance.choice((float('nan'), float('inf'), -1e308, 1e308))
    value.integer_value = chance.choice((-2**63, 2**63 - 1, -1))
    return value


# -- what shows that a node does its work

def _until(peer: Peer, publish: Callable[[int], None], is_answer: Callable[[int], bool],
           n: int) -> bool:
    """Publish good messages, each newer than the one before, until one is answered."""
    until = time.monotonic() + STARTING
    for number_ in itertools.count(n + 1):
        publish(number_)
        if wait_for(functools.partial(is_answer, number_), 0.25):
            return True
        if time.monotonic() > until:
            break
    return False


def _came(peer: Peer, topic: str, wanted: Callable[[Any], bool]) -> bool:
    return any(wanted(one) for one in list(peer.heard[topic]))


def _stamped(n: int) -> Callable[[Any], bool]:
    stamp = to_stamp((n + 1) * PERIOD)
    return lambda one: bool(one.header.stamp == stamp)


def _environment(image: type, topics: Mapping[str, str]) -> Callable[[Peer, int], bool]:
    def answer(peer: Peer, n: int) -> bool:
        def publish(n: int) -> None:
            for name, kind in (('path', PathMessage), ('camera_info', CameraInfo),
                               ('odometry', Odometry), ('markers', MarkerArray),
                               ('image', image)):
                if name in topics and (name != 'path' or n % 5 == 0):
                    peer.say(topics[name], GOOD[kind](n))

        def is_answer(n: int) -> bool:
            return (_came(peer, '/ego_vehicle/hold',
                          lambda one: bool(one.stamp == to_stamp((n + 1) * PERIOD)))
                    or _came(peer, '/ego_vehicle/observation', _stamped(n)))

        return _until(peer, publish, is_answer, n)

    return answer


def _policy(peer: Peer, n: int) -> bool:
    n += 20 - n % 20
    return _until(peer, lambda n: peer.say('/ego_vehicle/observation', observation(n)),
                  lambda n: _came(peer, '/ego_vehicle/action', _stamped(n)), n)


def _control(peer: Peer, topics: Mapping[str, str], n: int) -> bool:
    for name in ('emergency_stop', 'override'):
        peer.say(topics[name], Bool(data=False))
    time.sleep(0.1)
    node = f'/{VEHICLE}/control_node'
    peer.ask(Trigger, f'{node}/clear_emergency_stop', Trigger.Request())
    peer.ask(SetBool, f'{node}/engage', SetBool.Request(data=True))

    def publish(n: int) -> None:
        peer.say('/ego_vehicle/observation', observation(n))
        peer.say('/ego_vehicle/action', GOOD[Action](n))

    return _until(peer, publish, lambda n: _came(
        peer, '/ego_vehicle/applied_action',
        lambda one: _stamped(n)(one) and one.source == AppliedAction.SOURCE_POLICY), n)


def _recorder(peer: Peer, n: int) -> bool:
    def publish(n: int) -> None:
        for one in (n, n + 1):
            peer.say('/ego_vehicle/observation', observation(one))
            peer.say('/ego_vehicle/applied_action', GOOD[AppliedAction](one))

    # Behind garbage of a later episode it needs the first step of another one.
    return _until(peer, publish, lambda n: _came(
        peer, '/learner/transition', _stamped(n)), n + 20 - n % 20)


def _learner(peer: Peer, n: int) -> bool:
    before = peer.heard['/learner/status'][-1].transitions if peer.heard['/learner/status'] else 0

    def publish(n: int) -> None:
        message = _transition(n)
        message.session, message.sequence = f'answer{n}', 1
        peer.say('/learner/transition', message)

    return _until(peer, publish, lambda n: _came(
        peer, '/learner/status', lambda one: bool(one.transitions > before)), n)


def _simulator(peer: Peer, n: int) -> bool:
    carla = f'/carla/{VEHICLE}'
    peer.say(f'{carla}/vehicle_control_manual_override', Bool(data=False))
    peer.say('/carla/control', CarlaControl(command=CarlaControl.PLAY))
    peer.say(f'{carla}/goal', GOOD[PoseStamped](n))
    peer.heard[f'{carla}/odometry'].clear()
    return _until(peer, lambda n: peer.say(f'{carla}/vehicle_control_cmd',
                                           CarlaEgoVehicleControl(brake=1.0)),
                  lambda n: len(peer.heard[f'{carla}/odometry']) > 3, n)


def _real(answer: str) -> Callable[[Peer, int], bool]:
    def check(peer: Peer, n: int) -> bool:
        peer.heard[answer].clear()

        def publish(n: int) -> None:
            message = odometry(n)
            message.header.stamp = to_stamp(time.time_ns())
            peer.say('/vehicle/odometry', message)
            if 'set_transform' in answer:
                time.sleep(0.02)
                peer.say('/carla/status', CarlaStatus())

        return _until(peer, publish, lambda n: bool(peer.heard[answer]), n)

    return check


def _inspection(peer: Peer, n: int) -> bool:
    return _until(peer, lambda n: peer.say('/ego_vehicle/observation', observation(n)),
                  lambda n: _came(peer, f'/{VEHICLE}/inspection_node/debug/image', _stamped(n)),
                  n)


def _stand_in(peer: Peer, n: int) -> bool:
    peer.heard['/vehicle/odometry'].clear()
    return _until(peer, lambda n: peer.say('/vehicle/command', _drive(n)), lambda n: _came(
        peer, '/vehicle/odometry', lambda one: bool(one.twist.twist.linear.x > 0.3)), n)


_CARLA = {'image': f'/carla/{VEHICLE}/rgb_front/image', 'odometry': f'/carla/{VEHICLE}/odometry',
          'markers': '/carla/markers', 'path': f'/carla/{VEHICLE}/waypoints'}
_REAL = {'image': '/vehicle/camera/image/compressed', 'odometry': '/vehicle/odometry',
         'camera_info': '/vehicle/camera/camera_info', 'path': '/vehicle/route'}
_ANSWERS: dict[str, tuple[type, QoSProfile]] = {
    f'/{VEHICLE}/hold': (Header, qos.STEP), f'/{VEHICLE}/observation': (Observation, qos.STEP),
    f'/{VEHICLE}/action': (Action, qos.STEP),
    f'/{VEHICLE}/applied_action': (AppliedAction, qos.STEP),
    '/learner/transition': (Transition, qos.TRANSITION),
    '/learner/status': (LearnerStatus, qos.STATUS),
    f'/carla/{VEHICLE}/odometry': (Odometry, qos.SENSOR),
    f'/carla/{VEHICLE}/control/set_transform': (PoseMessage, qos.SENSOR),
    f'/{VEHICLE}/inspection_node/debug/image': (Image, qos.VIEW),
    f'/{VEHICLE}/inspection_node/debug/markers': (MarkerArray, qos.VIEW),
    '/vehicle/odometry': (Odometry, qos.SENSOR),
}
_WORLD = {'world.map': 'loop', 'world.camera.width': 64, 'world.camera.height': 48,
          'world.roadside_distance': 0.0, 'world.appearance.world': 'clean'}
_GROUND = {'external.max_age': 1.0, 'external.ground.length': 1e4,
           'external.ground.width': 1e4}
_FRAME = {'frame.size': 36, 'driving.waypoints': 3}
TARGETS = {one.name: one for one in (
    Target('environment_node', 'environment_node', 'embedded',
           {**_FRAME, 'wait_for': 1, 'obstacles.measured': True, 'reset_timeout': 600.0},
           _environment(Image, _CARLA), frozenset({'CarlaWorldInfo'})),
    Target('environment_node of a real vehicle', 'environment_node', 'vehicle',
           {**_FRAME, 'wait_for': 1, 'image_transport': 'compressed', 'resets': False,
            'camera.calibrate': True, 'obstacles.measured': False},
           _environment(CompressedImage, _REAL), frozenset({'CameraInfo'})),
    Target('policy_node', 'policy_node', 'embedded',
           {**SMALL, 'training': True, 'trust.allow_unsigned': True}, _policy),
    Target('control_node', 'control_node', 'embedded',
           {'action_timeout': 5.0, 'sensor_timeout': 5.0},
           lambda peer, n: _control(peer, {
               'emergency_stop': f'/{VEHICLE}/emergency_stop',
               'override': f'/carla/{VEHICLE}/vehicle_control_manual_override'}, n)),
    Target('control_node of a real vehicle', 'control_node', 'vehicle',
           {'output': 'ackermann', 'heartbeat': 50.0, 'action_timeout': 5.0,
            'sensor_timeout': 5.0, 'engaged_at_start': False},
           lambda peer, n: _control(peer, {'emergency_stop': '/vehicle/emergency_stop',
                                           'override': '/vehicle/override'}, n)),
    Target('recorder_node', 'recorder_node', 'embedded', {}, _recorder),
    Target('learner_node', 'learner_node', 'embedded',
           {**SMALL, 'td3.batch_size': 4, 'td3.precision': 'float32', 'capacity': 1000,
            'status_period': 0.1, 'limiter.updates_per_transition': 0.05,
            'pause_world': False}, _learner),
    Target('simulator_node', 'simulator_node', 'embedded', _WORLD, _simulator),
    Target('simulator_node of a real vehicle', 'simulator_node', 'vehicle_in_the_loop',
           {**_WORLD, **_GROUND, 'ego': 'external', 'mode': 'real_time'},
           _real(f'/carla/{VEHICLE}/odometry')),
    Target('mirror_node', 'mirror_node', 'vehicle_in_the_loop_carla', _GROUND,
           _real(f'/carla/{VEHICLE}/control/set_transform')),
    Target('inspection_node', 'inspection_node', 'embedded', {'rate': 60.0}, _inspection),
    Target('stand_in_vehicle_node', 'stand_in_vehicle_node', 'vehicle_in_the_loop_bench', {},
           _stand_in))}


# -- the run

def feed(target: Target, messages: int, domain: int, folder: Path, seed: int = 0) -> Result:
    """Start a node, feed it so many messages that it receives, and return what came of it."""
    result = Result(target.name)
    chance = random.Random(f'{target.name} {seed}')
    peer = Peer(domain)
    n = 0
    try:
        for topic, (kind, profile) in _ANSWERS.items():
            peer.hear(kind, topic, profile)
        peer.hear(DiagnosticArray, '/diagnostics', qos.EVENT)
        fed = 0
        while fed < messages and len(result.deaths) < 20:
            with _running(target, folder) as (session, spec):
                now, n = _feed(target, session, spec, peer, chance, messages - fed, n, result)
                fed += now
    finally:
        peer.close()
    return result


@contextlib.contextmanager
def _running(target: Target, folder: Path) -> Iterator[tuple[Session, NodeSpec]]:
    specs = [*session_nodes(target.profile, VEHICLE, learning=True),
             *viewing_nodes(target.profile, VEHICLE)]
    spec = next(one for one in specs if one.name == target.node)
    file = folder / 'parameters.yaml'
    file.write_text(yaml.safe_dump({f'/**/{target.node}': {
        'ros__parameters': dict(target.parameters) or {'use_sim_time': False}}}))
    with Session([spec], file, folder) as session:
        yield session, spec


def _feed(target: Target, session: Session, spec: NodeSpec, peer: Peer, chance: random.Random,
          messages: int, n: int, result: Result) -> tuple[int, int]:
    """Feed one life of a node; return how many messages it took and the newest number."""
    log = Path(session._logs) / f'{spec.name}.log'
    process = psutil.Process(session.process_ids()[spec.name])
    alive = functools.partial(_is_alive, session, spec)
    if not target.answer(peer, n):
        result.deaf.append(f'{target.name}: no answer at the start: {_end_of(log)}')
        return messages, n
    n += 1000
    topics, services = _all_ends(peer, spec)
    parameters = [name for name, _ in _declared(target)]
    before, sent, begun, pace = _memory(process), 0, _counts(peer, spec)[0], Pace()
    while alive() and sent < 3 * messages:
        n += chance.random() < 0.4
        if services and chance.random() < 0.03:
            name, kind = chance.choice(list(services.items()))
            peer.ask(kind, name, request_for(kind, parameters, chance), 2.0)
        else:
            name, kind = chance.choice(list(topics.items()))
            if kind.__name__ in target.seldom and chance.random() > 0.02:
                continue
            message = message_for(kind, n, chance)
            peer.say(name, message)
            pace.wait(len(getattr(message, 'data', ())) if kind in (Image, CompressedImage) else 0)
        sent += 1
        result.sent[name] += 1
        if sent % 50 == 0:
            result.grown = max(result.grown, _memory(process) - before)
        if pace.is_due() and pace.adapt(sent, sum(_counts(peer, spec)[0].values())
                                        - sum(begun.values())) >= messages:
            break
    if alive() and not target.answer(peer, n + 1000) and alive():
        result.deaf.append(f'{target.name}: no answer behind garbage: {_end_of(log)}')
    if not alive():
        result.deaths.append(_end_of(log))
    time.sleep(1.2)  # a whole period of the diagnostics
    for total, counts in zip((result.received, result.refused), _counts(peer, spec), strict=True):
        for name, number_ in counts.items():
            total[name] = total.get(name, 0) + number_
    result.chatter = max(result.chatter, chatter(log))
    peer.heard['/diagnostics'].clear()
    return sent, n + 2000


class Pace:
    """Send as fast as a node takes it: what it says that it received tells."""

    def __init__(self) -> None:
        self._pause, self._looked = 0.002, time.monotonic()
        self._sent = self._received = 0

    def wait(self, size: int) -> None:
        """Let time for a message, more for one of many bytes."""
        time.sleep(self._pause + size * 1e-8)

    def is_due(self) -> bool:
        """Return whether a look at what was received is worth it: it is told once a second."""
        return time.monotonic() - self._looked > 2.0

    def adapt(self, sent: int, received: int) -> int:
        """Go slower where messages were lost, else faster; return what was received."""
        self._looked = time.monotonic()
        if received > self._received:
            lost = 1.0 - (received - self._received) / max(sent - self._sent, 1)
            self._pause = min(max(self._pause * (1.5 if lost > 0.1 else 0.8), 2e-4), 0.1)
            self._sent, self._received = sent, received
        return received


def _all_ends(peer: Peer, spec: NodeSpec) -> tuple[dict[str, type], dict[str, Any]]:
    """Return what `_ends` does once the peer knows of nothing more for a while."""
    known: tuple[dict[str, type], dict[str, Any]] = {}, {}
    until = time.monotonic() + STARTING
    while not known[0] or known != _ends(peer, spec):
        if time.monotonic() > until:
            raise TimeoutError(f'{spec.name}: its topics are not known within {STARTING:g} s')
        known = _ends(peer, spec)
        time.sleep(1.0)
    return known


def _ends(peer: Peer, spec: NodeSpec) -> tuple[dict[str, type], dict[str, Any]]:
    """Return what a node listens to and what it serves, by name."""
    def of(pairs: Any, group: str) -> dict[str, Any]:
        return {name: getattr(importlib.import_module(f'{package}.{group}'), kind)
                for name, kinds in pairs
                for package, _, kind in [kinds[0].split('/')]}

    place = spec.name, spec.namespace
    topics = of(peer.node.get_subscriber_names_and_types_by_node(*place), 'msg')
    services = of(peer.node.get_service_names_and_types_by_node(*place), 'srv')
    topics.pop('/parameter_events', None)
    return topics, services


def _declared(target: Target) -> list[tuple[str, Any]]:
    from av_td3_ros.cli.config import SETTINGS

    return list(flatten(SETTINGS[target.node]()).items())


def _is_alive(session: Session, spec: NodeSpec) -> bool:
    return session.states()[spec.name] == 'running'


def _memory(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss / 1e6)
    except psutil.NoSuchProcess:
        return 0.0


def _end_of(log: Path) -> str:
    lines = [one for one in log.read_text(errors='replace').splitlines() if one.strip()]
    return ' | '.join(one.strip()[:200] for one in lines[-3:])


def _counts(peer: Peer, spec: NodeSpec) -> tuple[dict[str, int], dict[str, int]]:
    """Return what a node last said on /diagnostics that it received and refused, by topic."""
    name = f'{spec.namespace.strip("/")}/{spec.name}: inputs'.lstrip('/')
    received, refused = {}, {}
    for message in reversed(list(peer.heard['/diagnostics'])):
        for one in [value for status in message.status if status.name == name
                    for value in status.values]:
            counts = re.fullmatch(r'(\d+) received, (\d+) refused', one.value)
            if counts:
                received[one.key], refused[one.key] = int(counts[1]), int(counts[2])
        if received:
            break
    return received, refused


def chatter(log: Path) -> float:
    """Return how many lines a second a log has at most about refusing one thing."""
    times: dict[str, list[float]] = {}
    for line in log.read_text(errors='replace').splitlines():
        found = _REFUSED.search(line)
        if found:
            times.setdefault(found[2], []).append(float(found[1]))
    return max(((len(one) - 1) / (one[-1] - one[0]) for one in times.values()
                if one[-1] > one[0]), default=0.0)


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return a row for each node and topic."""
    return [{'node': one.target, 'topic': topic, 'sent': one.sent[topic],
             'received': one.received.get(topic, 0), 'refused': one.refused.get(topic, 0)}
            for one in results for topic in sorted(one.sent)]


def inject(times: int, targets: Sequence[str] = tuple(TARGETS), seed: int = 0) -> Outcome:
    """Feed every node; return what came of it."""
    os.environ.update(ros_environment(os.environ))
    domain, lease = take_domain(simulated=True)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in targets:
            place = Path(folder) / name.replace(' ', '_')
            place.mkdir()
            results.append(feed(TARGETS[name], times // len(targets), domain, place, seed))
            one = results[-1]
            print(f'{name}: {sum(one.sent.values())} sent, {sum(one.received.values())} received, '
                  f'{sum(one.refused.values())} refused, {len(one.deaths)} deaths, '
                  f'+{one.grown:.0f} MB, {one.chatter:.2g} lines/s', flush=True)
            for said in (*one.deaths, *one.deaf):
                print(f'    {said}', flush=True)
    if lease is not None:
        lease.release()
    received = sum(sum(one.received.values()) for one in results)
    deaths = sum(len(one.deaths) for one in results)
    deaf = sum(len(one.deaf) for one in results)
    refused = sum(sum(one.refused.values()) for one in results)
    grown, loudest = (max(getattr(one, key) for one in results) for key in ('grown', 'chatter'))
    return Outcome(
        received, f'{refused} refused and told, at most {loudest:.2g} times a second each',
        f'{deaths} nodes died, {deaf} answered no more, {grown:.0f} MB at most',
        [claim('garbage: messages received', received, 'messages', 0.9 * times, at_least=True),
         claim('garbage: nodes that died of a message', deaths, 'nodes', 0),
         claim('garbage: nodes that gave no answer to a good message', deaf, 'nodes', 0),
         claim('garbage: growth of a node', round(grown), 'MB', MEMORY),
         claim('garbage: lines about one thing', round(loudest, 3), 'a second', 1)],
        rows(results))


FAULTS = {'garbage in messages': Fault(MESSAGES, inject)}
