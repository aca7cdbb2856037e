"""The mapping between actions and the commands of a vehicle that steers with its front wheels."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.command.control import Action, Pedals
from av_td3_ros.settings import setting

COASTING = 0.02  # an acceleration below this share means: neither throttle nor brake
GENTLE = 0.1     # m/s^2 that is asked for where 0 would mean: as quickly as possible


@dataclasses.dataclass(frozen=True)
class AckermannSettings:
    """What the vehicle can do: its own limits, which an action of 1 stands for."""

    max_steering_angle: float = setting(
        0.6, 'angle of the front wheels in rad that the whole steering range commands',
        minimum=0.05, maximum=1.5)
    max_steering_rate: float = setting(
        0.5, 'fastest change of that angle that is asked for, rad/s; 0: as fast as possible',
        minimum=0.0, maximum=10.0)
    max_acceleration: float = setting(
        2.0, 'acceleration in m/s^2 that full throttle asks for', minimum=0.1, maximum=10.0)
    max_deceleration: float = setting(
        5.0, 'deceleration in m/s^2 that full brake asks for', minimum=0.5, maximum=12.0)
    look_ahead: float = setting(
        1.0, 'time in s ahead whose speed is asked for while accelerating',
        minimum=0.05, maximum=10.0)
    max_jerk: float = setting(
        0.0, 'jerk in m/s^3 that is asked for, and that the accelerations which the policy asks '
        'for change with at most; 0: as quickly as possible', minimum=0.0, maximum=100.0)

    @property
    def pedals(self) -> Pedals:
        """Return what an acceleration of -1 to 1 stands for."""
        return Pedals(self.max_acceleration, self.max_deceleration, self.max_jerk or math.inf)


@dataclasses.dataclass(frozen=True, slots=True)
class AckermannCommand:
    """
    Hold what ackermann_msgs/AckermannDrive holds, in rad, m/s and their derivatives.

    Angles are + = left (REP 103). The speed is never negative: braking does not become reverse.
    The acceleration is a magnitude, also of braking, and never 0, which would mean as quickly as
    possible.
    """

    steering_angle: float
    steering_angle_velocity: float
    speed: float
    acceleration: float
    jerk: float


def to_ackermann(applied: npt.ArrayLike, speed: float, steering_range: float, speed_limit: float,
                 settings: AckermannSettings) -> AckermannCommand:
    """
    Map an applied action to a command, at a present speed in m/s.

    steer = 1 becomes `steering_range` of the vehicle's steering; braking asks for standstill,
    accelerating for the speed `look_ahead` s ahead, at most the limit (m/s). A speed that is not
    finite asks for standstill. Raises ValueError for an action that is not finite.
    """
    steer, acceleration = (float(one) for one in np.asarray(applied, dtype=np.float64))
    if not math.isfinite(steer + acceleration):
        raise ValueError(f'action ({steer}, {acceleration}) is not finite; limit it first')
    steer, acceleration = (min(max(one, -1.0), 1.0) for one in (steer, acceleration))
    s = settings
    if not math.isfinite(speed):
        acceleration, speed = min(acceleration, -COASTING), 0.0
    wanted = min(max(speed, 0.0), speed_limit)
    if acceleration <= -COASTING:
        wanted, size = 0.0, -acceleration * s.max_deceleration
    elif acceleration >= COASTING:
        size = acceleration * s.max_acceleration
        wanted = min(wanted + size * s.look_ahead, speed_limit)
    else:
        size = GENTLE
    return AckermannCommand(
        steering_angle=steer * steering_range * s.max_steering_angle + 0.0,
        steering_angle_velocity=s.max_steering_rate, speed=wanted,
        acceleration=max(size, GENTLE), jerk=s.max_jerk)


def from_ackermann(steering_angle: float, wanted_speed: float, acceleration: float, speed: float,
                   steering_range: float, settings: AckermannSettings) -> Action:
    """
    Return the action float32[2] that a command stands for, at a present speed in m/s.

    An acceleration of 0 means as quickly as possible. Raises ValueError for what is not finite.
    """
    if not math.isfinite(steering_angle + wanted_speed + acceleration + speed):
        raise ValueError(f'command of {steering_angle} rad, {wanted_speed} m/s, {acceleration} '
                         f'm/s^2 at {speed} m/s is not finite')
    steer = steering_angle / (steering_range * settings.max_steering_angle)
    change = max(wanted_speed, 0.0) - speed
    most = settings.max_acceleration if change > 0.0 else settings.max_deceleration
    size = abs(acceleration) / most if acceleration else 1.0
    # Near the speed that is asked for, less than the whole acceleration is meant.
    size = min(size, abs(change) / most, 1.0)
    return np.array((min(max(steer, -1.0), 1.0), math.copysign(size, change)), np.float32)
