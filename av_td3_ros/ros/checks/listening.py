"""Listen to a live ROS graph: who is there of what a session needs, and what comes."""
from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import rclpy
from ackermann_msgs.msg import AckermannDriveStamped
from carla_msgs.msg import (
    CarlaCollisionEvent,
    CarlaEgoVehicleControl,
    CarlaLaneInvasionEvent,
    CarlaWorldInfo,
)
from geometry_msgs.msg import Pose, PoseStamped, Twist
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import Odometry, Path
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Bool, String
from visualization_msgs.msg import MarkerArray

from av_td3_ros.driving import checkup
from av_td3_ros.driving.checkup import Arrival
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_nanoseconds
from av_td3_ros.ros.graph import VEHICLE_SIDE, NodeSpec
from av_td3_ros.ros.runtime import leave, spin

NAME = 'av_td3_doctor'
DISCOVERY = 3.0     # s of wall time at most until what is needed has been found
LOOK = 0.1          # s of wall time between two looks at the graph
KEPT_IMAGES = 3
DEPTH = 100         # messages that may wait for us: what is lost must be lost elsewhere
KEPT = 20_000       # messages of other kinds
QUESTION = 2.0      # s of wall time that a node may take to tell its state
DRIVER = '~/output/state'  # on which control_node tells who drives
MANAGED = ('policy_node', 'control_node')
COMMANDS = ('vehicle_command', 'ackermann_command')


@dataclasses.dataclass(frozen=True)
class Role:
    """
    Hold what a node of ours wants of a topic.

    `missing` is the level of nobody being there, `instead` what that means or what to do.
    """

    node: str
    name: str
    kind: type
    profile: QoSProfile
    missing: checkup.Level = 'error'
    instead: str = ''

    @property
    def is_input(self) -> bool:
        """Return whether our node listens."""
        return self.name.startswith('~/input/')

    @property
    def short(self) -> str:
        """Return the role's last word, such as image."""
        return self.name.rpartition('/')[2]

    @property
    def type_name(self) -> str:
        """Return the type as ROS writes it."""
        return type_name(self.kind)


def type_name(kind: Any) -> str:
    """Return a message type as ROS writes it, such as sensor_msgs/msg/Image."""
    package, part, *_ = kind.__module__.split('.')
    return f'{package}/{part}/{kind.__name__}'


def roles(settings: Mapping[str, Any]) -> list[Role]:
    """Return what our nodes want of the world outside, by {node: its settings}."""
    environment, control = settings['environment_node'], settings['control_node']
    compressed = environment.image_transport == 'compressed'
    command = (AckermannDriveStamped if control.output == 'ackermann'
               else CarlaEgoVehicleControl)

    # Where the policy may drive at once, nobody sits at a wheel.
    optional: checkup.Level = 'ok' if control.engaged_at_start else 'warning'

    def of(node: str) -> Callable[..., Role]:
        return lambda name, *rest: Role(node, f'~/{name}', *rest)

    see, act = of('environment_node'), of('control_node')
    wanted = [
        see('input/image', CompressedImage if compressed else Image, qos.SENSOR, 'error',
            'start the camera driver, or bind it to this topic'),
        see('input/odometry', Odometry, qos.SENSOR, 'error',
            'start the localisation, or bind it to this topic'),
        see('input/camera_info', CameraInfo, qos.CAMERA_INFO,
            'error' if environment.camera.calibrate else 'warning',
            'publish the calibration beside the image'),
        see('input/path', Path, qos.LATCHED, 'error',
            'start the planner' if environment.resets else 'av-td3 route publish, or a planner'),
        see('input/collision', CarlaCollisionEvent, qos.EVENT, 'warning',
            'publish it, or collisions will not be noticed'),
        see('input/lane_invasion', CarlaLaneInvasionEvent, qos.EVENT, 'warning',
            'publish it, or lane invasions will not be counted'),
        act(f'output/{COMMANDS[command is AckermannDriveStamped]}', command, qos.SENSOR),
        act('input/human_command', command, qos.SENSOR, optional,
            'publish what the human driver commands, or it cannot be recorded'),
        act('input/override', Bool, qos.SENSOR, optional,
            'publish true while a human drives, or disengage before taking over'),
        act('input/emergency_stop', Bool, qos.SENSOR, optional,
            "have the vehicle's own emergency stop in hand"),
        act('input/stop_request', String, qos.SENSOR, 'ok', ''),
        *(of(node)('input/vehicle_odometry', Odometry, qos.VEHICLE)
          for node in ('simulator_node', 'mirror_node')),
    ]
    if environment.obstacles.measured:
        wanted.append(see('input/markers', MarkerArray, qos.SENSOR, 'error',
                          'have it published (sensor.pseudo.markers), or set '
                          'obstacles.measured to false'))
    if environment.resets:
        wanted += [
            see('input/world_info', CarlaWorldInfo, qos.LATCHED),
            see('output/set_transform', Pose, qos.SENSOR, 'error',
                'nobody resets the vehicle: actor.pseudo.control is missing'),
            see('output/set_target_velocity', Twist, qos.SENSOR, 'error',
                'nobody resets the vehicle: actor.pseudo.control is missing'),
            see('output/goal', PoseStamped, qos.SENSOR, 'error',
                'nobody plans routes: start the waypoint publisher')]
    return wanted


@dataclasses.dataclass(frozen=True)
class Need:
    """Hold a role, the topic that the profile binds it to, and whose of our nodes serves it."""

    role: Role
    topic: str
    server: str = ''


def needs(nodes: Sequence[NodeSpec], settings: Mapping[str, Any]) -> list[Need]:
    """Return what has to be there for the vehicle side of a profile to drive."""
    by_name = {spec.name: spec for spec in nodes}
    ends = {(spec.name, role): spec.topic(role) for spec in nodes for role in spec.remaps}
    found = []
    for role in roles(settings):
        spec = by_name.get(role.node)
        if spec is None or role.name not in spec.remaps:
            continue
        topic = spec.topic(role.name)
        opposite = '~/output/' if role.is_input else '~/input/'
        server = next((node for (node, other), at in ends.items()
                       if at == topic and other.startswith(opposite)), '')
        if server in VEHICLE_SIDE:
            continue  # between nodes of ours that start together
        found.append(Need(role, topic, server))
    return found


@dataclasses.dataclass
class Ear:
    """Hold what came on one topic."""

    topic: str
    kind: type
    messages: collections.deque[Any]
    arrivals: list[Arrival] = dataclasses.field(default_factory=list)
    size: int = 0

    @property
    def last(self) -> Any:
        """Return the newest message, None when none came."""
        return self.messages[-1] if self.messages else None


@dataclasses.dataclass(frozen=True)
class End:
    """Hold one publisher or subscriber of a topic."""

    node: str
    type_name: str
    profile: QoSProfile


@dataclasses.dataclass
class Heard:
    """Hold what was seen and heard of a graph in `seconds` s."""

    needs: Sequence[Need]
    seconds: float
    ears: dict[str, Ear]
    publishers: dict[str, list[End]]
    subscribers: dict[str, list[End]]
    topics: dict[str, list[str]]
    nodes: set[str]
    states: dict[str, str]

    def ends(self, need: Need) -> list[End]:
        """Return who is at the other end of a topic."""
        return (self.publishers if need.role.is_input else self.subscribers)[need.topic]

    def ear(self, short: str) -> Ear | None:
        """Return what came for a role of the environment node by its last word."""
        return next((self.ears[one.topic] for one in self.needs if one.topic in self.ears
                     and one.role.node == 'environment_node' and one.role.short == short), None)


class Listener:
    """A participant that subscribes to whatever of the needed topics appears; context manager."""

    def __init__(self, wanted: Sequence[Need], nodes: Sequence[NodeSpec],
                 domain: int | None = None) -> None:
        self._needs = wanted
        self._nodes = nodes
        self._clock_ns: int | None = None
        self._ears: dict[str, Ear] = {}
        self._done = threading.Event()
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain,
                   signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(NAME, context=self._context, enable_rosout=False,
                                       start_parameter_services=False)
        # rclpy's events executor cannot tell when a message was sent.
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(
            target=spin, args=(self._executor, self._context, self._done.is_set))

    def __enter__(self) -> Listener:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Leave the graph."""
        self._done.set()
        self._thread.join()
        leave(self._executor, self._node)
        self._context.try_shutdown()

    def listen(self, seconds: float) -> Heard:
        """Find what is needed, then listen for `seconds` s; return all of it."""
        began = time.monotonic()
        until = began + DISCOVERY
        while not self._look() and time.monotonic() < until:
            time.sleep(LOOK)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0.0:
            time.sleep(min(LOOK, left))
            self._look()
        topics = [one.topic for one in self._needs]
        names = {f'{space.rstrip("/")}/{name}' for name, space in
                 self._node.get_node_names_and_namespaces() if name != NAME}
        return Heard(
            self._needs, time.monotonic() - began, dict(self._ears),
            {one: self._publishers(one) for one in topics},
            {one: self._subscribers(one) for one in topics},
            dict(self._node.get_topic_names_and_types()), names, self._states(names))

    def _look(self) -> bool:
        """Subscribe to what is there by now; return whether that is all that is needed."""
        complete = True
        self._hear('/clock', Clock, qos.SENSOR)
        for spec in self._nodes:
            if DRIVER in spec.remaps:
                self._hear(spec.topic(DRIVER), String, qos.LATCHED)
        for need in self._needs:
            if need.role.is_input:
                heard = self._hear(need.topic, need.role.kind, need.role.profile)
                complete &= heard or need.role.missing != 'error'
            else:
                complete &= bool(self._subscribers(need.topic))
        return complete

    def _hear(self, topic: str, kind: type, profile: QoSProfile) -> bool:
        if topic in self._ears:
            return True
        fitting = [one.profile for one in self._publishers(topic)
                   if one.type_name == type_name(kind)]
        if not fitting:
            return False
        is_picture = kind in (Image, CompressedImage)
        ear = self._ears[topic] = Ear(
            topic, kind, collections.deque(maxlen=KEPT_IMAGES if is_picture else KEPT))
        self._node.create_subscription(
            kind, topic, lambda message, info: self._take(ear, message, info),
            hearing(profile, fitting))
        return True

    def _take(self, ear: Ear, message: Any, info: Mapping[str, int]) -> None:
        ear.messages.append(message)
        if isinstance(message, Clock):
            self._clock_ns = to_nanoseconds(message.clock)
        if isinstance(message, (Image, CompressedImage)):
            ear.size += len(message.data)
        stamp_ns = _stamp_ns(message)
        if stamp_ns is not None:
            came_ns = int(info['received_timestamp']) or time.time_ns()
            ear.arrivals.append(Arrival(stamp_ns, int(info['source_timestamp']), came_ns,
                                        self._clock_ns))

    def _publishers(self, topic: str) -> list[End]:
        return _ends(self._node.get_publishers_info_by_topic(topic))

    def _subscribers(self, topic: str) -> list[End]:
        return _ends(self._node.get_subscriptions_info_by_topic(topic))

    def _states(self, names: set[str]) -> dict[str, str]:
        """Return the lifecycle states of our managed nodes that run."""
        found = {}
        for spec in self._nodes:
            full = f'{spec.namespace.rstrip("/")}/{spec.name}'
            if spec.name not in MANAGED or full not in names:
                continue
            client = self._node.create_client(GetState, f'{full}/get_state')
            try:
                if client.wait_for_service(QUESTION):
                    answer = client.call_async(GetState.Request())
                    until = time.monotonic() + QUESTION
                    while not answer.done() and time.monotonic() < until:
                        time.sleep(0.01)
                    found[spec.name] = (answer.result().current_state.label if answer.done()
                                        else 'silent')
            finally:
                self._node.destroy_client(client)
        return found


def hearing(profile: QoSProfile, publishers: Sequence[QoSProfile]) -> QoSProfile:
    """Return a profile like ours that hears all of these publishers, fitting or not."""
    best_effort = any(one.reliability == ReliabilityPolicy.BEST_EFFORT for one in publishers)
    volatile = any(one.durability == DurabilityPolicy.VOLATILE for one in publishers)
    return QoSProfile(
        history=profile.history, depth=max(profile.depth, DEPTH),
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else profile.reliability,
        durability=DurabilityPolicy.VOLATILE if volatile else profile.durability)


def _stamp_ns(message: Any) -> int | None:
    header = getattr(message, 'header', None)
    return to_nanoseconds(header.stamp) if header is not None else None


def _ends(infos: Sequence[Any]) -> list[End]:
    return [End(f'{one.node_namespace.rstrip("/")}/{one.node_name}', one.topic_type,
                one.qos_profile) for one in infos if one.node_name != NAME]
