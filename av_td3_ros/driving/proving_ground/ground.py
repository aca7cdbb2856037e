"""When a real vehicle among virtual ones must stop: the ground's edge, and what is ahead."""
from __future__ import annotations

import dataclasses
import math

import numpy as np

from av_td3_ros.driving.perception.obstacles import Ahead
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import FloatArray, Pose, arc_lengths, to_vehicle_frame
from av_td3_ros.settings import setting

SLOW = 0.5         # m/s under which a yaw rate tells no curvature
TIGHTEST = 0.3     # 1/m; no car turns on less than 3 m
PLACES = 12        # places of the way to the stop that are looked at
# The shares of the way after which the steering may have been centred: a controlled stop holds it
# for a while, and nobody knows where on the way that ends.
CENTRED_AFTER = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


@dataclasses.dataclass(frozen=True)
class GroundSettings:
    """Give the drivable rectangle in the ground frame, and what a controlled stop needs."""

    x: float = setting(0.0, 'x of the middle of the drivable rectangle in the ground frame, m',
                       minimum=-1e7, maximum=1e7)
    y: float = setting(0.0, 'y of the middle of the drivable rectangle in the ground frame, m',
                       minimum=-1e7, maximum=1e7)
    yaw: float = setting(0.0, "direction of the rectangle's length in the ground frame, rad",
                         minimum=-6.3, maximum=6.3)
    length: float = setting(0.0, 'length of the drivable rectangle in m; 0 = not given, and '
                            'nothing moves', minimum=0.0, maximum=1e5)
    width: float = setting(0.0, 'width of the drivable rectangle in m; 0 = not given, and '
                           'nothing moves', minimum=0.0, maximum=1e5)
    margin: float = setting(0.5, "m that the vehicle's body keeps from the edge", minimum=0.0,
                            maximum=100.0)
    deceleration: float = setting(3.0, 'deceleration in m/s^2 that a controlled stop is sure to '
                                  'reach', minimum=0.1, maximum=12.0)
    reaction_time: float = setting(0.4, 'time in s from a pose until the brakes act on it',
                                   minimum=0.0, maximum=5.0)
    max_jump: float = setting(1.0, 'm between where the vehicle is and where its speed should '
                              'have brought it, beyond which its odometry is not trusted',
                              minimum=0.05, maximum=100.0)

    @property
    def is_given(self) -> bool:
        """Say whether there is a rectangle."""
        return self.length > 0.0 and self.width > 0.0


def stopping_distance(speed: float, settings: GroundSettings) -> float:
    """Return the m that a controlled stop takes from `speed` m/s, reaction time included."""
    speed = abs(speed)
    return speed * settings.reaction_time + 0.5 * speed * speed / settings.deceleration


def edge_reason(vehicle: VehicleState, length: float, width: float, settings: GroundSettings
                ) -> str:
    """
    Return why a vehicle must stop for the edge of the ground, '' when it need not.

    It must when its body (`length` by `width` m about its place in the ground frame) is outside
    the rectangle, or would be on the way to the end of a controlled stop begun now, whether the
    steering is held or centred meanwhile.
    """
    if _outside(_corners(np.array([[vehicle.x, vehicle.y, vehicle.yaw]]), length, width),
                settings) > 0.0:
        return (f'the vehicle is at the edge of the ground or outside '
                f'(x {vehicle.x:.1f} m, y {vehicle.y:.1f} m): bring it back by hand')
    distance = stopping_distance(math.hypot(vehicle.speed, vehicle.lateral_speed), settings)
    beyond = _outside(_corners(_ways(vehicle, distance), length, width), settings)
    if beyond <= 0.0:
        return ''
    return (f'the ground ends ahead: at {vehicle.speed:.1f} m/s a stop takes {distance:.1f} m and '
            f'might go {beyond:.1f} m too far')


def collision_reason(vehicle: VehicleState, ahead: Ahead, settings: GroundSettings) -> str:
    """
    Return why a vehicle must stop for what is ahead, '' while it may still brake by itself.

    It must once the gap is no more than the way on which a controlled stop takes the closing speed
    away; what has not been seen moving is taken to stand.
    """
    if ahead.gap is None:
        return ''
    closing = vehicle.speed if ahead.closing_speed is None else ahead.closing_speed
    if closing <= 0.0:
        return ''
    needed = stopping_distance(closing, settings)
    if ahead.gap > needed:
        return ''
    return (f'collision ahead: {ahead.gap:.1f} m, closing at {closing:.1f} m/s, and braking takes '
            f'{needed:.1f} m')


def length_on_ground(points: FloatArray, settings: GroundSettings) -> float:
    """Return how many m of a route (N, 2) in the ground frame lie on the ground without a gap."""
    off = [_outside(point[None], settings) > 0.0 for point in points]
    inside = off.index(True) if True in off else len(points)
    return float(arc_lengths(points[:inside])[-1]) if inside else 0.0


def _ways(vehicle: VehicleState, distance: float) -> FloatArray:
    """Return (N, 3) x, y, yaw on the ways to the end of a controlled stop."""
    backward = vehicle.speed < 0.0
    speed = math.hypot(vehicle.speed, vehicle.lateral_speed)
    bend = abs(vehicle.yaw_rate) / speed if speed > SLOW else 0.0
    bend = math.copysign(min(bend, TIGHTEST), vehicle.yaw_rate)
    course = vehicle.yaw + math.atan2(vehicle.lateral_speed, vehicle.speed)
    at = np.linspace(0.0, distance, PLACES)
    bent = np.minimum(at, distance * CENTRED_AFTER[:, None])
    turned = bend * bent
    if bend:
        ahead, left = np.sin(turned) / bend, (1.0 - np.cos(turned)) / bend
    else:
        ahead, left = bent, np.zeros_like(bent)
    ahead = ahead + (at - bent) * np.cos(turned)
    left = left + (at - bent) * np.sin(turned)
    x = vehicle.x + math.cos(course) * ahead - math.sin(course) * left
    y = vehicle.y + math.sin(course) * ahead + math.cos(course) * left
    heading = course + turned + (math.pi if backward else 0.0)
    ways: FloatArray = np.stack([x, y, heading], axis=-1).reshape(-1, 3)
    return ways


def _corners(poses: FloatArray, length: float, width: float) -> FloatArray:
    """Return the corners (4 N, 2) of a body at (N, 3) x, y, yaw."""
    ahead = 0.5 * length * np.array([1.0, 1.0, -1.0, -1.0])
    left = 0.5 * width * np.array([1.0, -1.0, 1.0, -1.0])
    cosine, sine = np.cos(poses[:, 2:]), np.sin(poses[:, 2:])
    corners: FloatArray = np.stack([poses[:, :1] + cosine * ahead - sine * left,
                                    poses[:, 1:2] + sine * ahead + cosine * left], axis=-1)
    return corners.reshape(-1, 2)


def _outside(points: FloatArray, settings: GroundSettings) -> float:
    """Return how far the farthest of (N, 2) points is beyond the edge's margin, m."""
    seen = np.abs(to_vehicle_frame(points, Pose(settings.x, settings.y, settings.yaw)))
    half = 0.5 * np.array([settings.length, settings.width]) - settings.margin
    return float((seen - half).max())
