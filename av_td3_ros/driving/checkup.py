"""Judge what a vehicle's sensors have sent for some seconds: is it fit to drive on?"""
from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.camera.calibration import Calibration
from av_td3_ros.driving.camera.check import compare_cameras, uncalibrated_camera
from av_td3_ros.driving.camera.image import Frame, to_observation_frame
from av_td3_ros.driving.camera.view import (
    CameraView,
    CameraViewSettings,
    MountingSettings,
    ViewSettings,
)
from av_td3_ros.driving.perception.pairing import PairingSettings, StampPairer
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import wrap_angle
from av_td3_ros.driving.route.tracker import RouteTracker

Level = Literal['ok', 'skipped', 'warning', 'error']
Floats = npt.NDArray[np.float64]
LEVELS: tuple[Level, ...] = ('ok', 'skipped', 'warning', 'error')

AGE_WARNING = 0.15      # s between stamp and arrival
AGE_ERROR = 0.5         # s; at 5 m/s the vehicle is 2.5 m further by then
EARLY = 0.02            # s that a stamp may lie in the future: what a good time service leaves
EARLY_SIMULATED = 0.2   # s; a message may overtake the clock's
CLOCKS = 0.1            # s of transport, or of difference between two hosts' clocks, that is a lot
RATE_WARNING = 0.1      # share that a camera's rate may be off what the policy was trained with
RATE_ERROR = 0.3
GAP = 1.8               # times the usual step, from which on something is missing
LOST = 0.05             # share of the messages that may be missing
PAIRED = 0.95           # share of the images that must meet their odometry
MOVING = 1.0            # m/s from which speed and heading can be told from poses
WINDOW = 0.2            # s over which poses are compared
ALIKE = 0.3             # share that speed may differ from the poses'
JUMP = 60.0             # m/s between two poses that is no driving
FLAT = 2.0              # grey levels that the pixels of a picture differ at least
SHAPE = 0.05            # share that width over height may differ
CENTRAL = 0.2           # share of a picture at its edges where no optical axis is
HEADING = 0.8           # rad between vehicle and route at the start


@dataclasses.dataclass(frozen=True)
class Finding:
    """Hold what one check found, and what to do where it is not well."""

    check: str
    level: Level
    found: str
    remedy: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """
    Hold the times of one message in ns: its stamp, when it was sent, when it came.

    `sent_ns` is the sender's wall clock (0: not told), `came_ns` ours, `clock_ns` simulated time
    when it came (None: nobody publishes it).
    """

    stamp_ns: int
    sent_ns: int
    came_ns: int
    clock_ns: int | None = None

    @property
    def is_simulated(self) -> bool:
        """Return whether the stamp is of simulated time: nearer to it than to the wall clock."""
        return (self.clock_ns is not None
                and abs(self.clock_ns - self.stamp_ns) < abs(self.came_ns - self.stamp_ns))

    @property
    def age(self) -> float:
        """Return how old the stamp was when the message came, s."""
        now = self.clock_ns if self.is_simulated else self.came_ns
        assert now is not None
        return (now - self.stamp_ns) * 1e-9


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level of some findings, ok where there are none."""
    return max((one.level for one in findings), key=LEVELS.index, default='ok')


def rate_of(arrivals: Sequence[Arrival]) -> float | None:
    """Return the rate in Hz by the stamps, by the arrivals where stamps do not grow; or None."""
    for times in ([one.stamp_ns for one in arrivals], [one.came_ns for one in arrivals]):
        steps = np.diff(np.asarray(times, np.float64))
        if len(steps) and (steps > 0).all():
            return 1e9 / _period(steps)
    return None


def judge_stamps(name: str, arrivals: Sequence[Arrival]) -> Finding:
    """Judge whether stamps are there, in order, and of about now. `arrivals` is not empty."""
    check = f'{name} stamps'
    if any(one.stamp_ns == 0 for one in arrivals):
        return Finding(check, 'error', 'stamps are zero',
                       'have the driver fill header.stamp with the time of the measurement')
    steps = np.diff([one.stamp_ns for one in arrivals])
    if (steps < 0).any():
        return Finding(check, 'error', f'stamps go backwards, by up to {-steps.min() * 1e-9:.3g} '
                       f's, {int((steps < 0).sum())} times in {len(arrivals)}',
                       'look for two publishers, a bag that loops, a clock that is set anew')
    if (steps == 0).any():
        return Finding(check, 'error', f'{int((steps == 0).sum())} of {len(arrivals)} messages '
                       'carry the stamp of the one before', 'stamp each message on its own')
    ages = np.array([one.age for one in arrivals])
    age, spread = float(np.median(ages)), float(ages.max() - ages.min())
    simulated = all(one.is_simulated for one in arrivals)
    base = 'simulated time' if simulated else 'wall clock'
    if age < -(EARLY_SIMULATED if simulated else EARLY):
        return Finding(check, 'error', f'stamps lie {-age:.3f} s in the future ({base})',
                       "the sender's clock is ahead: synchronise both computers (chrony, PTP)")
    found = f'{age * 1e3:.0f} ms old on arrival, at most {ages.max() * 1e3:.0f} ms ({base})'
    if age <= AGE_WARNING:
        return Finding(check, 'ok', found)
    steady = age > 1.0 and spread < 0.1 * age
    return Finding(
        check, 'error' if age > AGE_ERROR else 'warning',
        f'{age:.3f} s old on arrival, spread {spread:.3f} s ({base})',
        'always the same age: a clock is off, or stamps are of another clock (since boot, a '
        'recording): synchronise the computers (chrony, PTP), set use_sim_time for a recording'
        if steady else 'the way is slow: compress images, use a cable, free the computer')


def judge_clocks(name: str, arrivals: Sequence[Arrival]) -> Finding | None:
    """Judge the sender's clock against ours by when messages were sent; None if nobody tells."""
    delays = [(one.came_ns - one.sent_ns) * 1e-9 for one in arrivals if one.sent_ns]
    if not delays:
        return None
    delay = float(np.median(delays))
    check, found = f'{name} transport', f'{delay * 1e3:.1f} ms from publisher to here'
    if delay < -EARLY:
        return Finding(check, 'error', f'comes {-delay:.3f} s before it was sent',
                       "the sender's clock is ahead: synchronise both computers (chrony, PTP)")
    if delay > CLOCKS:
        return Finding(check, 'error' if delay > AGE_ERROR else 'warning', found,
                       "the sender's clock is behind, or the network is slow: compare `date "
                       "+%s.%N` on both, synchronise (chrony, PTP), look at the load")
    return Finding(check, 'ok', found)


def judge_camera_rate(arrivals: Sequence[Arrival], wanted: float, max_gap: float) -> Finding:
    """Judge a camera's rate against that of the training (Hz); gaps beyond `max_gap` s."""
    check, rate = 'camera rate', rate_of(arrivals)
    if rate is None:
        return Finding(check, 'warning', f'{len(arrivals)} image in the time listened',
                       'listen longer with --seconds')
    found = f'{rate:.1f} Hz, {_loss_text(arrivals)}; the policy expects {wanted:g} Hz'
    off = rate / wanted - 1.0
    gap = float(np.diff([one.stamp_ns for one in arrivals]).max()) * 1e-9
    remedy = (f'set the camera to {wanted:g} Hz: the policy judges motion by the distance of '
              'frames')
    if abs(off) > RATE_ERROR:
        return Finding(check, 'error', found, remedy)
    if gap > max_gap:
        return Finding(check, 'error', f'{found}; a gap of {gap:.2f} s',
                       f'look for lost images: after {max_gap:g} s (frame.max_gap) the frame '
                       'stack starts anew')
    if abs(off) > RATE_WARNING:
        return Finding(check, 'warning', found, remedy)
    if _lost(arrivals) > LOST:
        return Finding(check, 'warning', found, 'look at network and load: `ros2 topic hz`')
    return Finding(check, 'ok', found)


def judge_odometry_rate(arrivals: Sequence[Arrival], camera_rate: float) -> Finding:
    """Judge the odometry's rate against the camera's, Hz."""
    check, rate = 'odometry rate', rate_of(arrivals)
    if rate is None:
        return Finding(check, 'warning', f'{len(arrivals)} message in the time listened',
                       'listen longer with --seconds')
    found = f'{rate:.1f} Hz, {_loss_text(arrivals)}'
    if rate < 0.95 * camera_rate:
        return Finding(check, 'error', f'{found}; slower than the camera ({camera_rate:.1f} Hz)',
                       'publish odometry at the rate of the camera or faster (50 Hz)')
    if _lost(arrivals) > LOST:
        return Finding(check, 'warning', found, 'look at network and load: `ros2 topic hz`')
    return Finding(check, 'ok', found)


def judge_pairing(images_ns: Sequence[int], odometry_ns: Sequence[int],
                  settings: PairingSettings) -> Finding:
    """Judge by the pairer itself how many images meet an odometry, from the stamps of both."""
    check = 'pairing'
    pairer: StampPairer[int, int] = StampPairer.from_settings(settings)
    # Images before the first odometry or behind the last say nothing.
    inside = [one for one in images_ns if odometry_ns[0] <= one <= odometry_ns[-1]]
    if not inside:
        return Finding(check, 'error', 'no image was taken while odometry was measured: their '
                       f'stamps are {abs(images_ns[-1] - odometry_ns[-1]) * 1e-9:.3g} s apart',
                       'let both be stamped by one clock (both simulated or both wall time)')
    count = 0
    for stamp_ns, is_image in sorted([(one, True) for one in inside]
                                     + [(one, False) for one in odometry_ns]):
        count += len(pairer.add_image(stamp_ns, stamp_ns) if is_image
                     else pairer.add_odometry(stamp_ns, stamp_ns))
    stamps = np.asarray(odometry_ns)
    offs = [float(np.abs(stamps - one).min()) * 1e-9 for one in inside]
    found = (f'{count} of {len(inside)} images meet an odometry within pairing.tolerance = '
             f'{settings.tolerance:g} s; the nearest is up to {max(offs):.4f} s away')
    if count >= PAIRED * len(inside):
        return Finding(check, 'ok', found)
    needed = math.ceil(max(offs) * 1e3 + 1) * 1e-3
    remedy = (f'set environment_node pairing.tolerance to {needed:g}' if needed <= 0.05 else
              'publish odometry faster, or stamp both at the time of the measurement')
    return Finding(check, 'error', found, remedy)


def judge_motion(states: Sequence[VehicleState]) -> Finding:
    """Judge speeds (body frame, m/s) and headings of odometry against the way of its poses."""
    check = 'odometry motion'
    windows = _windows(states)
    if not windows:
        return Finding(check, 'skipped',
                       'stands still: units and frame of the twist cannot be told',
                       'run this check again while the vehicle rolls faster than '
                       f'{MOVING:g} m/s')
    # Columns: way in the frame of the poses, the same in the vehicle's frame, what twist says.
    ground, body, twist = (np.array(part) for part in zip(*windows, strict=True))
    way, told = np.median(np.hypot(*body.T)), np.median(np.hypot(*twist.T))
    if _differ(body, twist) <= ALIKE:
        return Finding(check, 'ok', f'twist agrees with the poses at {way:.1f} m/s')
    if _differ(ground, twist) <= ALIKE:
        return Finding(check, 'error', 'twist is given in the frame of the poses',
                       "give it in the vehicle's frame (child_frame_id): x forward, y left")
    if _differ(-body, twist) <= ALIKE:
        return Finding(check, 'error', 'the vehicle moves opposite to its twist or heading',
                       'turn the yaw by pi, or change the sign of twist.linear')
    for factor, unit in ((3.6, 'km/h'), (2.237, 'mph')):
        if _differ(body * factor, twist) <= 0.1:
            return Finding(check, 'error', f'twist looks like {unit}: {told:.1f} at '
                           f'{way:.1f} m/s by the poses', 'give twist.linear in m/s')
    return Finding(check, 'error', f'twist says {told:.1f} m/s, the poses {way:.1f} m/s, or '
                   'another direction', 'look at the units (m, rad, m/s), the axes (REP 103: x '
                   'forward, y left, yaw counter-clockwise) and the mounting of the sensor')


def judge_quaternions(norms: Sequence[float]) -> Finding:
    """Judge by the norms of the orientations whether they are rotations."""
    off = max((abs(one - 1.0) for one in norms), default=0.0)
    if off <= 0.01:
        return Finding('odometry orientation', 'ok', 'unit quaternions')
    return Finding('odometry orientation', 'error', f'quaternions are not of length 1 but '
                   f'{min(norms):.3g} to {max(norms):.3g}',
                   'fill pose.pose.orientation with the heading')


def judge_frames(frame: str, child: str, route_frame: str | None) -> Finding:
    """Judge the names of the frames that poses are given in."""
    check = 'frames'
    found = f'odometry in {frame!r} of {child!r}' + (
        f', route in {route_frame!r}' if route_frame is not None else '')
    if route_frame is not None and route_frame != frame:
        return Finding(check, 'error', found, 'give route and odometry in one frame: nothing '
                       'transforms between them')
    if frame not in ('map', 'odom') or not child:
        return Finding(check, 'warning', found, "name them as REP 105 does: header.frame_id 'map' "
                       "or 'odom', child_frame_id the vehicle's")
    return Finding(check, 'ok', found)


def judge_picture(frame: Frame, encoding: str, trained: tuple[int, int] | None) -> Finding:
    """
    Judge a decoded image, (H, W, channels), by what is on it and by its shape.

    `trained` is width and height of the camera that the policy was trained with, pixels.
    """
    height, width = frame.shape[:2]
    found = f'{width}x{height} {encoding}'
    grey = to_observation_frame(frame, encoding)
    if float(grey.std()) < FLAT:
        return Finding('image', 'warning', f'{found}, all of it one grey ({grey.mean():.0f} of '
                       '255)', 'take the cap off the lens; look at exposure and light')
    if trained is None:
        return Finding('image', 'ok', f'{found}, decoded')
    ratio, wanted = width / height, trained[0] / trained[1]
    if abs(ratio / wanted - 1.0) > SHAPE:
        return Finding('image', 'warning', f'{found}: {ratio:.2f} times as wide as high, the '
                       f'policy was trained on {wanted:.2f} ({trained[0]}x{trained[1]})',
                       'crop it to that shape: squeezed into the same square, the road looks '
                       'different')
    return Finding('image', 'ok', f'{found}, decoded; the shape that the policy was trained on')


def judge_camera_info(calibration: Calibration, image: tuple[int, int] | None,
                      frames: tuple[str, str] | None) -> Finding:
    """
    Judge a calibration against the `image` it is to belong to, width and height in pixels.

    `frames` are the frame ids of camera_info and image.
    """
    check, size = 'camera_info', calibration.image_size
    matrix = calibration.p[:3] + calibration.p[4:] if calibration.rectified else calibration.k
    (fx, middle_x), (fy, middle_y) = (matrix[0], matrix[2]), (matrix[4], matrix[5])
    view = uncalibrated_camera(calibration, MountingSettings()).fov
    found = f'{size[0]}x{size[1]}, {math.degrees(view):.1f} degrees wide'
    if image is not None and image != size:
        return Finding(check, 'error', f'{found}; the image has {image[0]}x{image[1]}',
                       'calibrate at the size that is published, or scale the calibration')
    if not 0.7 < fx / fy < 1.4:
        return Finding(check, 'warning', f'{found}; fx {fx:.0f} and fy {fy:.0f} are far apart: '
                       'pixels are not square', 'calibrate again with more views')
    if not (CENTRAL < middle_x / calibration.width < 1.0 - CENTRAL
            and CENTRAL < middle_y / calibration.height < 1.0 - CENTRAL):
        return Finding(check, 'warning', f'{found}; the optical axis is at {middle_x:.0f}, '
                       f'{middle_y:.0f}', 'calibrate again, or tell the region in roi')
    if frames is not None and frames[0] != frames[1]:
        return Finding(check, 'warning', f'{found}; frame {frames[0]!r}, the image has '
                       f'{frames[1]!r}', 'give both the frame of the camera')
    return Finding(check, 'ok', found)


def judge_camera_view(calibration: Calibration, settings: CameraViewSettings, size: int,
                      recorded: ViewSettings | None) -> list[Finding]:
    """
    Judge a camera against the one that the policy was trained with, None: not known.

    `settings` are what the images are to be turned by, to `size` x `size` pixels.
    """
    check = 'camera view'
    try:
        if not settings.calibrate:
            if recorded is None:
                return [Finding(check, 'skipped', 'the camera of the training is not known '
                                'without a policy', 'name it: --policy')]
            said = compare_cameras(recorded, uncalibrated_camera(calibration, settings.mounting))
            well = "mounted and wide as the training's (camera.mounting)"
        else:
            view = CameraView(calibration, settings, (size, size))
            said = view.warnings()
            if recorded is not None and compare_cameras(recorded, settings.training):
                said.append('camera.training is another camera than the policy was trained with: '
                            'set it to the world.camera of its config.yaml')
            well = f"turned to the training camera's view, of which it sees {view.coverage:.0%}"
    except ValueError as error:
        return [Finding(check, 'error', *_parted(str(error)))]
    return [Finding(check, 'warning', *_parted(one)) for one in said] or [
        Finding(check, 'ok', well)]


def judge_route(points: Sequence[tuple[float, float]], vehicle: VehicleState | None,
                max_lateral: float) -> Finding:
    """Judge a route (m) and where the vehicle is on it; beyond `max_lateral` m nothing drives."""
    check = 'route'
    try:
        route = RouteTracker(points)
    except ValueError as error:
        return Finding(check, 'error', str(error), 'publish a nav_msgs/Path of 2 points or more')
    found = f'{len(points)} points, {route.length:.0f} m'
    if vehicle is None:
        return Finding(check, 'ok', found)
    route.update(vehicle.x, vehicle.y, vehicle.yaw)  # the earliest of places about as near
    at = route.update(vehicle.x, vehicle.y, vehicle.yaw)
    found += (f'; the vehicle is {abs(at.lateral):.1f} m beside it, {at.remaining:.0f} m before '
              f'its end, {math.degrees(at.heading_error):.0f} degrees off its direction')
    if abs(at.lateral) > max_lateral:
        return Finding(check, 'error', found, f'begin within {max_lateral:g} m of the route '
                       '(driving.termination.max_lateral), or publish one from here')
    if abs(wrap_angle(at.heading_error)) > HEADING:
        return Finding(check, 'error', found, 'turn the vehicle, or the order of the points')
    if at.remaining < 2.0 * max_lateral:
        return Finding(check, 'error', found, 'the vehicle is at the end: publish a new route')
    return Finding(check, 'ok', found)


def _parted(sentence: str) -> tuple[str, str]:
    """Part a sentence that ends in a colon and what to do."""
    found, colon, remedy = sentence.rpartition(': ')
    return (found, remedy) if colon else (remedy, '')


def _period(steps: Floats) -> float:
    """Return the mean of time steps without the gaps; a median would not see 40, 60, 40, 60."""
    return float(steps[steps < GAP * np.median(steps)].mean())


def _lost(arrivals: Sequence[Arrival]) -> float:
    """Return the share of messages that did not come, as the gaps of the stamps tell."""
    steps = np.diff([one.stamp_ns for one in arrivals]).astype(np.float64)
    if not len(steps) or (steps <= 0).any():
        return 0.0
    missing = float(np.maximum(np.rint(steps / _period(steps)) - 1, 0).sum())
    return missing / (missing + len(arrivals))


def _loss_text(arrivals: Sequence[Arrival]) -> str:
    return f'{_lost(arrivals) * 100:.0f} % lost'


def _windows(states: Sequence[VehicleState]
             ) -> list[tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]:
    """Return (way in the poses' frame, way in the body's, twist), m/s, of each moving window."""
    found = []
    earlier: collections.deque[VehicleState] = collections.deque()
    for state in states:
        earlier.append(state)
        while state.stamp_ns - earlier[0].stamp_ns > 2e9 * WINDOW:
            earlier.popleft()
        first = earlier[0]
        dt = (state.stamp_ns - first.stamp_ns) * 1e-9
        if dt < WINDOW:
            continue
        x, y = (state.x - first.x) / dt, (state.y - first.y) / dt
        way, told = math.hypot(x, y), math.hypot(state.speed, state.lateral_speed)
        if max(way, told) < MOVING or way > JUMP:  # a teleport tells nothing
            earlier.clear()
            earlier.append(state)
            continue
        yaw = first.yaw + wrap_angle(state.yaw - first.yaw) / 2
        cos, sin = math.cos(yaw), math.sin(yaw)
        found.append(((x, y), (cos * x + sin * y, cos * y - sin * x),
                      ((state.speed + first.speed) / 2,
                       (state.lateral_speed + first.lateral_speed) / 2)))
        earlier.clear()
        earlier.append(state)
    return found


def _differ(one: Floats, other: Floats) -> float:
    """Return the median difference of two series of speeds over their median size."""
    size = np.median(np.hypot(*one.T)) + 1e-9
    return float(np.median(np.hypot(*(one - other).T)) / size)
