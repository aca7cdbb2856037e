"""A vehicle with drive-by-wire for the bench: slow to act, noisy to measure, stops unheard."""
from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np

from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.settings import group, setting
from av_td3_ros.simulator.vehicle.dynamics import EgoVehicle, VehicleCommand, VehicleSettings

SETTLING = 0.4    # s in which the speed controller takes a difference of speed away
HOLDING = 0.3     # brake at standstill
LONGEST_STEP = 0.5  # s; a process that was stopped for longer does not make up for it


@dataclasses.dataclass(frozen=True)
class StandInSettings:
    """Choose the vehicle, its place on the ground, and how bad its actuators and sensors are."""

    x: float = setting(0.0, 'x of where it stands at first in the ground frame, m',
                       minimum=-1e7, maximum=1e7)
    y: float = setting(0.0, 'y of where it stands at first in the ground frame, m',
                       minimum=-1e7, maximum=1e7)
    yaw: float = setting(0.0, 'direction in which it stands at first, rad', minimum=-6.3,
                         maximum=6.3)
    delay: float = setting(0.1, 'time in s from a command until the actuators begin to move',
                           minimum=0.0, maximum=2.0)
    command_timeout: float = setting(0.5, 'time in s without a command after which it stops by '
                                     'itself', minimum=0.05, maximum=10.0)
    timeout_deceleration: float = setting(4.0, 'deceleration of that stop, m/s^2', minimum=0.5,
                                          maximum=12.0)
    max_speed: float = setting(15.0, 'speed in m/s above which it does not drive, whatever is '
                               'commanded', minimum=0.5, maximum=60.0)
    position_noise: float = setting(0.01, 'standard deviation of the measured x and y, m',
                                    minimum=0.0, maximum=5.0)
    yaw_noise: float = setting(0.001, 'standard deviation of the measured direction, rad',
                               minimum=0.0, maximum=0.5)
    speed_noise: float = setting(0.02, 'standard deviation of the measured speeds, m/s',
                                 minimum=0.0, maximum=2.0)
    yaw_rate_noise: float = setting(0.002, 'standard deviation of the measured yaw rate, rad/s',
                                    minimum=0.0, maximum=0.5)
    seed: int = setting(0, 'seed of the noise', minimum=0, maximum=2**31 - 1)
    body: VehicleSettings = group(VehicleSettings, 'its dynamics')


@dataclasses.dataclass(frozen=True)
class DriveCommand:
    """
    Hold what AckermannDrive holds: front wheel angle (rad, + = left), speed, acceleration.

    The speed (m/s) is reached with at most the acceleration's size (m/s^2), 0 as fast as possible.
    Raises ValueError for what is not finite.
    """

    steering_angle: float
    speed: float
    acceleration: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not finite."""
        if not math.isfinite(self.steering_angle + self.speed + self.acceleration):
            raise ValueError(f'{self} is not finite: it is left out')


class StandInVehicle:
    """Drive as commanded, `delay` s later; forwards only. All times are in s of one clock."""

    def __init__(self, settings: StandInSettings, now: float) -> None:
        """Stand at the place of the settings."""
        self._settings = settings
        self._body = EgoVehicle(settings.body)
        self._body.reset(Pose(settings.x, settings.y, settings.yaw))
        self._random = np.random.default_rng(settings.seed)
        self._coming: collections.deque[tuple[float, DriveCommand]] = collections.deque()
        self._acting = DriveCommand(0.0, 0.0)
        self._heard = -math.inf
        self._now = now

    @property
    def body(self) -> EgoVehicle:
        """Return the vehicle as it really is."""
        return self._body

    def is_heard(self) -> bool:
        """Say whether commands come; without them it stops."""
        return self._now - self._heard <= self._settings.command_timeout

    def command(self, command: DriveCommand, now: float) -> None:
        """Take a command that comes `now`."""
        self._coming.append((now, command))
        self._heard = now

    def advance(self, now: float) -> None:
        """Move on to the time `now`."""
        dt, self._now = min(now - self._now, LONGEST_STEP), now
        while self._coming and self._coming[0][0] <= now - self._settings.delay:
            self._acting = self._coming.popleft()[1]
        if dt > 0.0:
            self._body.step(self._actuate(), dt)

    def measure(self, stamp_ns: int) -> VehicleState:
        """Return what its sensors say now."""
        body, s = self._body, self._settings
        noise = self._random.standard_normal(6) * (
            s.position_noise, s.position_noise, s.yaw_noise, s.speed_noise, s.speed_noise,
            s.yaw_rate_noise)
        return VehicleState(
            stamp_ns, body.x + noise[0], body.y + noise[1], wrap_angle(body.yaw + noise[2]),
            body.speed + noise[3], body.lateral_speed + noise[4], body.yaw_rate + noise[5])

    def _actuate(self) -> VehicleCommand:
        s, command = self._settings, self._acting
        steer = command.steering_angle / s.body.max_steering_angle
        if not self.is_heard():
            return self._pedals(steer, 0.0, s.timeout_deceleration)
        return self._pedals(steer, command.speed, abs(command.acceleration))

    def _pedals(self, steer: float, speed: float, limit: float) -> VehicleCommand:
        """Return the pedals that bring the speed to `speed` with at most `limit` m/s^2."""
        limits, now = self._settings.body, self._body.speed
        speed = min(max(speed, 0.0), self._settings.max_speed)
        if speed == 0.0 and now < 0.05:
            return VehicleCommand(steer=steer, brake=HOLDING)
        # A stop is meant to be one: it does not get softer towards its end.
        wanted = (speed - now) / SETTLING if speed > 0.0 else -limits.max_deceleration
        if limit > 0.0:
            wanted = min(max(wanted, -limit), limit)
        # What the engine's drag takes away is put on top; the loop settles the rest.
        pedal = wanted + limits.engine_brake * min(now / 2.0, 1.0)
        return VehicleCommand(throttle=max(pedal, 0.0) / limits.max_acceleration, steer=steer,
                              brake=max(-pedal, 0.0) / limits.max_deceleration)
