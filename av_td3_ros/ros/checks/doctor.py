"""Look at a live ROS graph as a session would: what is there, does it fit, does it come well?"""
from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence

from ackermann_msgs.msg import AckermannDriveStamped
from carla_msgs.msg import CarlaEgoVehicleControl
from nav_msgs.msg import Odometry, Path
from rclpy.duration import Infinite
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, qos_check_compatible
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from av_td3_ros.driving import checkup
from av_td3_ros.driving.camera.image import Frame, decode_compressed, decode_image
from av_td3_ros.driving.camera.view import CameraViewSettings, ViewSettings
from av_td3_ros.driving.checkup import Finding
from av_td3_ros.driving.perception.pairing import PairingSettings
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.ros.checks.listening import DRIVER, Ear, Heard, Need, Role, type_name
from av_td3_ros.ros.conversions import from_camera_info, from_odometry
from av_td3_ros.ros.graph import NodeSpec
from av_td3_ros.ros.markers import from_markers


def incompatible(publisher: QoSProfile, subscriber: QoSProfile) -> str:
    """Return by the middleware's rules why these two do not talk, '' when they do."""
    level, reason = qos_check_compatible(_resolved(publisher), _resolved(subscriber))
    if level != QoSCompatibility.ERROR:
        return ''
    return '; '.join(part.replace('ERROR: ', '').strip().lower()
                     for part in reason.split(';') if part.startswith('ERROR'))


def _resolved(profile: QoSProfile) -> QoSProfile:
    """Return a profile as the graph shows it: without a deadline or lease of its own, endless."""
    return QoSProfile(
        history=profile.history, depth=profile.depth, reliability=profile.reliability,
        durability=profile.durability, liveliness=profile.liveliness,
        deadline=profile.deadline if profile.deadline.nanoseconds else Infinite,
        liveliness_lease_duration=profile.liveliness_lease_duration
        if profile.liveliness_lease_duration.nanoseconds else Infinite)


@dataclasses.dataclass(frozen=True)
class Expectation:
    """
    Hold what the sensors are measured against.

    camera_rate: images a second that the policy was trained with; max_gap: s between two images
    at most; max_lateral: m that the vehicle may be beside its route; resets: routes and starts are
    our own; engaged_at_start: the policy may drive without being told to; camera: how images are
    taken, frame_size: pixels; picture: width and height of the training's images, recorded: its
    camera, None where they are not known.
    """

    camera_rate: float
    max_gap: float
    max_lateral: float
    resets: bool
    engaged_at_start: bool
    pairing: PairingSettings
    camera: CameraViewSettings
    frame_size: int
    picture: tuple[int, int] | None = None
    recorded: ViewSettings | None = None


def examine(heard: Heard, expected: Expectation, nodes: Sequence[NodeSpec]) -> list[Finding]:
    """Return what is to be said of a graph, check by check, in the order of the data's way."""
    return [*_servers(heard, nodes), *_topics(heard), *_camera(heard, expected),
            *_odometry(heard, expected), *_together(heard, expected),
            *_way(heard, expected), *_control(heard, expected, nodes)]


# -- who is there

def _servers(heard: Heard, nodes: Sequence[NodeSpec]) -> list[Finding]:
    found = []
    for spec in nodes:
        is_server = any(one.server == spec.name for one in heard.needs)
        full = f'{spec.namespace.rstrip("/")}/{spec.name}'
        if is_server and full not in heard.nodes:
            found.append(Finding(
                spec.name, 'warning', 'does not run: what it publishes was not checked',
                'it comes with the session; start it to have it checked '
                f'(ros2 run av_td3_ros {spec.name}, or ros2 launch)'))
    return found


def _topics(heard: Heard) -> list[Finding]:
    return [(_input if one.role.is_input else _output)(one, heard) for one in heard.needs
            if not one.server or heard.ends(one)
            or any(node.endswith(f'/{one.server}') for node in heard.nodes)]


def _input(need: Need, heard: Heard) -> Finding:
    role, ends = need.role, heard.ends(need)
    check = f'{role.short} topic'
    if not ends:
        return Finding(check, role.missing, f'nobody publishes {need.topic} ({role.type_name})',
                       '' if role.missing == 'ok' else
                       f'{role.instead or "start it"}{_elsewhere(role, heard)}')
    wrong = sorted({one.type_name for one in ends} - {role.type_name})
    who = ', '.join(sorted({one.node for one in ends}))
    if wrong:
        return Finding(check, 'error', f'{need.topic} is {", ".join(wrong)} (from {who}), '
                       f'expected {role.type_name}', _other_type(role, wrong))
    for one in ends:
        why = incompatible(one.profile, role.profile)
        if why:
            return Finding(check, 'error', f'QoS of {one.node} on {need.topic} does not fit '
                           f'{role.node}: {why}', 'publish it '
                           f'{_words(role.profile)}, or put a relay between that does')
    ear = heard.ears.get(need.topic)
    if ear is not None and not ear.messages and _streams(role):
        return Finding(check, 'error', f'{need.topic} is published by {who}, but nothing came in '
                       f'{heard.seconds:g} s', 'is the sensor on, and the discovery range the '
                       'same on every computer?')
    if len(ends) > 1 and role.kind in (Image, CompressedImage, Odometry, Path):
        return Finding(check, 'error', f'{need.topic} has {len(ends)} publishers ({who})',
                       'end all but one: their messages mix')
    return Finding(check, 'ok', f'{need.topic}, {role.type_name} from {who}; QoS fits')


def _output(need: Need, heard: Heard) -> Finding:
    role, ends = need.role, heard.ends(need)
    check = f'{role.short} topic'
    if not ends:
        return Finding(check, role.missing, f'nobody subscribes to {need.topic} '
                       f'({role.type_name})', role.instead or 'start the vehicle interface, or '
                       f'bind it to this topic{_elsewhere(role, heard)}')
    wrong = sorted({one.type_name for one in ends} - {role.type_name})
    who = ', '.join(sorted({one.node for one in ends}))
    if wrong:
        return Finding(check, 'error', f'{need.topic} is taken as {", ".join(wrong)} (by {who}), '
                       f'{role.node} sends {role.type_name}', _other_type(role, wrong))
    for one in ends:
        why = incompatible(role.profile, one.profile)
        if why:
            return Finding(check, 'error', f'QoS of {one.node} on {need.topic} does not fit '
                           f'{role.node}: {why}', f'subscribe {_words(role.profile)}')
    return Finding(check, 'ok', f'{need.topic}, {role.type_name} to {who}; QoS fits')


def _streams(role: Role) -> bool:
    return role.kind in (Image, CompressedImage, Odometry, CameraInfo, MarkerArray)


def _elsewhere(role: Role, heard: Heard) -> str:
    """Name topics of the right type that have other names."""
    found = sorted(topic for topic, types in heard.topics.items() if role.type_name in types
                   and topic not in {one.topic for one in heard.needs})
    return f'; the same type is on {", ".join(found[:3])}: remap it' if found else ''


def _other_type(role: Role, wrong: Sequence[str]) -> str:
    transports = {type_name(Image): 'raw', type_name(CompressedImage): 'compressed'}
    commands = {type_name(CarlaEgoVehicleControl): 'carla',
                type_name(AckermannDriveStamped): 'ackermann'}
    for key, values in (('environment_node image_transport', transports),
                        ('control_node output', commands)):
        if role.type_name in values and wrong[0] in values:
            return f'set {key} to {values[wrong[0]]}, or publish {role.type_name}'
    return f'publish {role.type_name}, or bind another topic'


def _words(profile: QoSProfile) -> str:
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return f'reliable and {"transient local" if latched else "volatile or transient local"}'


# -- what comes

def _camera(heard: Heard, expected: Expectation) -> list[Finding]:
    ear, found = heard.ear('image'), []
    if ear is None or not ear.arrivals:
        return []
    found += _times('image', ear)
    found.append(checkup.judge_camera_rate(ear.arrivals, expected.camera_rate, expected.max_gap))
    size = None
    for message in ear.messages:
        try:
            frame, encoding = _decode(message)
        except ValueError as error:
            found.append(Finding('image', 'error', str(error), 'look at the camera driver'))
            break
        size = frame.shape[1], frame.shape[0]
    else:
        found.append(checkup.judge_picture(frame, encoding, expected.picture))
    info = heard.ear('camera_info')
    if info is not None and info.last is not None:
        found += _calibration(info.last, size, ear.last.header.frame_id, expected)
    return found


def _calibration(message: CameraInfo, size: tuple[int, int] | None, frame: str,
                 expected: Expectation) -> list[Finding]:
    settings = expected.camera
    try:
        calibration = from_camera_info(message, settings.rectified)
    except ValueError as error:
        # Nobody needs it as long as images are taken as they are.
        return [Finding('camera_info', 'error' if settings.calibrate else 'warning', str(error),
                        'calibrate it: ros2 run camera_calibration cameracalibrator')]
    found = checkup.judge_camera_info(calibration, size, (message.header.frame_id, frame))
    if found.level == 'error':
        return [found]
    return [found, *checkup.judge_camera_view(
        calibration, settings, expected.frame_size, expected.recorded)]


def _decode(message: Image | CompressedImage) -> tuple[Frame, str]:
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data), 'bgr8'
    return decode_image(message.data, message.height, message.width, message.encoding,
                        message.step), message.encoding


def _odometry(heard: Heard, expected: Expectation) -> list[Finding]:
    found = []
    camera = heard.ear('image')
    rate = checkup.rate_of(camera.arrivals) if camera is not None else None
    for need in heard.needs:
        ear = heard.ears.get(need.topic)
        if need.role.kind is not Odometry or ear is None or not ear.arrivals:
            continue
        prefix = need.role.short
        found += _times(prefix, ear)
        part = [checkup.judge_odometry_rate(
            ear.arrivals, rate or expected.camera_rate)]
        try:
            states = [from_odometry(one) for one in ear.messages]
        except ValueError as error:
            part.append(Finding('odometry numbers', 'error', str(error), 'mend its source'))
        else:
            rotations = [one.pose.pose.orientation for one in ear.messages]
            part.append(checkup.judge_quaternions([
                math.sqrt(one.x**2 + one.y**2 + one.z**2 + one.w**2) for one in rotations]))
            part.append(checkup.judge_motion(states))
        found += [dataclasses.replace(one, check=one.check.replace('odometry', prefix))
                  for one in part]
    return found


def _times(name: str, ear: Ear) -> list[Finding]:
    clocks = checkup.judge_clocks(name, ear.arrivals)
    return [checkup.judge_stamps(name, ear.arrivals), *([clocks] if clocks else [])]


def _together(heard: Heard, expected: Expectation) -> list[Finding]:
    images, odometry, others = (heard.ear(one) for one in ('image', 'odometry', 'markers'))
    if images is None or odometry is None or not images.arrivals or not odometry.arrivals:
        return []
    stamps = _stamps(odometry)
    found = [checkup.judge_pairing(_stamps(images), stamps, expected.pairing)]
    if others is not None:
        marked = []
        for one in others.messages:
            try:
                marked.append(from_markers(one)[0])
            except ValueError as error:
                return [*found, Finding('markers', 'error', str(error), 'mend their source')]
        met = len(set(marked) & set(stamps)) if marked else 0
        well = bool(marked) and met >= checkup.PAIRED * (min(len(marked), len(stamps)) - 2)
        found.append(Finding(
            'markers', 'ok' if well else 'error',
            f'{met} of {len(stamps)} odometry messages have markers of their stamp',
            '' if well else 'publish them with the stamp of the odometry, or set '
            'obstacles.measured to false'))
    return found


def _stamps(ear: Ear) -> list[int]:
    return sorted(one.stamp_ns for one in ear.arrivals)


def _way(heard: Heard, expected: Expectation) -> list[Finding]:
    odometry, route = heard.ear('odometry'), heard.ear('path')
    pose = odometry.last if odometry is not None else None
    path = route.last if route is not None else None
    found = []
    if pose is not None:
        found.append(checkup.judge_frames(
            pose.header.frame_id, pose.child_frame_id,
            path.header.frame_id if path is not None and path.poses else None))
    if path is not None and (path.poses or not expected.resets):
        state: VehicleState | None = None
        if pose is not None and not expected.resets:  # a teleport would bring it to its start
            with contextlib.suppress(ValueError):  # said where odometry is judged
                state = from_odometry(pose)
        found.append(checkup.judge_route(
            [(one.pose.position.x, one.pose.position.y) for one in path.poses], state,
            expected.max_lateral))
    elif route is not None and not expected.resets:
        found.append(Finding('route', 'error', 'no route came', 'publish one, latched; a '
                             'simulator plans the way to the goal that it is given'))
    world = heard.ear('world_info')
    if world is not None:
        found.append(_world(world))
    return found


def _world(ear: Ear) -> Finding:
    if ear.last is None:
        return Finding('world', 'error', 'no map came', 'publish it latched')
    try:
        RoadMap.from_text(ear.last.opendrive, ear.last.map_name)
    except ValueError as error:
        return Finding('world', 'error', f'map {ear.last.map_name!r}: {error}', 'load another')
    return Finding('world', 'ok', f'map {ear.last.map_name!r}')


# -- who drives

def _control(heard: Heard, expected: Expectation, nodes: Sequence[NodeSpec]) -> list[Finding]:
    found = []
    spec = next(one for one in nodes if one.name == 'control_node')
    ours = f'{spec.namespace.rstrip("/")}/{spec.name}'
    for need in heard.needs:
        if need.role.is_input or need.role.node != 'control_node':
            continue
        others = sorted({one.node for one in heard.publishers[need.topic]} - {ours})
        count = len(heard.publishers[need.topic])
        if others:
            found.append(Finding('command', 'error', f'{", ".join(others)} commands the vehicle '
                                 f'on {need.topic}', 'end it, or let it speak to '
                                 'control_node ~/input/human_command'))
        elif count > 1:
            found.append(Finding('command', 'error', f'{count} control nodes command the vehicle',
                                 'end all but one'))
        else:
            found.append(Finding('command', 'ok', f'nobody but {ours} commands the vehicle'
                                 if count else f'nobody commands {need.topic} yet'))
    for name in ('emergency_stop', 'override'):
        for need in heard.needs:
            ear = heard.ears.get(need.topic)
            if need.role.short == name and ear is not None and ear.last is not None:
                found.append(Finding(
                    name, 'warning' if ear.last.data else 'ok',
                    'is pressed' if ear.last.data and name == 'emergency_stop' else
                    'a human drives' if ear.last.data else 'released',
                    'release it, and call control_node/clear_emergency_stop'
                    if ear.last.data and name == 'emergency_stop' else ''))
    found += _driver(heard, spec, expected)
    for name, state in heard.states.items():
        found.append(Finding(
            f'{name} state', 'ok' if state == 'active' else 'warning', state,
            '' if state == 'active' else f'ros2 lifecycle set {_full(nodes, name)} '
            f'{"configure, then activate" if state == "unconfigured" else "activate"}'))
    return found


def _driver(heard: Heard, control: NodeSpec, expected: Expectation) -> list[Finding]:
    """Tell who drives, where control_node runs and says it."""
    ear = heard.ears.get(control.topic(DRIVER)) if DRIVER in control.remaps else None
    if ear is None or ear.last is None:
        return []
    state = ear.last.data
    service = f'{control.namespace.rstrip("/")}/{control.name}'
    if state.startswith('policy') and not expected.engaged_at_start:
        return [Finding('driver', 'warning', f'{state}: the vehicle obeys it now',
                        f'ros2 service call {service}/engage std_srvs/srv/SetBool '
                        "'{data: false}'")]
    if state.startswith('emergency stop'):
        return [Finding('driver', 'warning', state, f'ros2 service call {service}'
                        '/clear_emergency_stop std_srvs/srv/Trigger')]
    return [Finding('driver', 'ok', state)]


def _full(nodes: Sequence[NodeSpec], name: str) -> str:
    spec = next(one for one in nodes if one.name == name)
    return f'{spec.namespace.rstrip("/")}/{name}'
