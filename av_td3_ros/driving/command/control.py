"""The last word on an action: limits, and the mapping to a vehicle's own command."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from av_td3_ros.settings import setting

Action = npt.NDArray[np.float32]
"""float32[2]: steer (+ = left) and acceleration (- = brake), both in [-1, 1]."""
SHORTEST, LONGEST = 0.01, 0.2  # s: what a time between two actions counts as, whatever it was
RAMPING = 0.05    # s: the longest time between two actions that a stop's ramp counts
FIRST = 0.05      # brake that a controlled stop begins with at least: felt, and no coasting


@dataclasses.dataclass(frozen=True)
class CommandSettings:
    """Limit what reaches the vehicle."""

    speed_limit: float = setting(
        11.0, 'speed in m/s that the vehicle is kept under', minimum=0.5, maximum=60.0, live=True)
    speed_fade: float = setting(
        1.0, 'm/s below the speed limit over which acceleration fades to nothing; as far above '
        'it braking reaches overspeed_brake', minimum=0.1, maximum=10.0)
    overspeed_brake: float = setting(
        0.3, 'braking above the speed limit, 0 to 1', minimum=0.0, maximum=1.0)
    steering_rate: float = setting(
        5.0, 'largest change of steer per second; 2 is from full right to full left in 1 s',
        minimum=0.1, maximum=1000.0, live=True)
    steering_range: float = setting(
        0.6, "share of the vehicle's steering range that steer = 1 commands; less makes the "
        'vehicle easier to hold, but it must still get round its tightest corner',
        minimum=0.05, maximum=1.0)
    throttle_limit: float = setting(
        1.0, 'largest acceleration of the policy, 0 to 1; output ackermann: times '
        'ackermann.max_acceleration, in m/s^2', minimum=0.05, maximum=1.0, live=True)
    brake_limit: float = setting(
        1.0, 'hardest braking of the policy, 0 to 1 (a stop has its own); output ackermann: times '
        'ackermann.max_deceleration, in m/s^2', minimum=0.05, maximum=1.0, live=True)
    acceleration_rate: float = setting(
        1000.0, "largest change per second of the policy's acceleration, which goes from -1 to 1; "
        '1000: at once; output ackermann: see also ackermann.max_jerk, in m/s^3',
        minimum=0.1, maximum=1000.0, live=True)
    stop_brake: float = setting(
        0.6, 'braking of a controlled stop, 0 to 1', minimum=0.05, maximum=1.0, live=True)
    stop_rate: float = setting(
        1000.0, 'growth of the brake per second in a controlled stop, from 0.05 in its first '
        'command to stop_brake; 1000: at once', minimum=0.5, maximum=1000.0, live=True)
    stop_hold: float = setting(
        1.0, 'time in s that a controlled stop holds the steering before it centres it',
        minimum=0.0, maximum=60.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Pedals:
    """Say what full throttle and full brake do, in m/s^2, and the largest jerk, in m/s^3."""

    throttle: float = 1.0
    brake: float = 1.0
    jerk: float = math.inf

    def acceleration(self, share: float) -> float:
        """Return the acceleration in m/s^2 that a share of the pedals, -1 to 1, asks for."""
        return share * (self.throttle if share > 0.0 else self.brake)

    def share(self, acceleration: float) -> float:
        """Undo `acceleration`."""
        return acceleration / (self.throttle if acceleration > 0.0 else self.brake)


@dataclasses.dataclass(frozen=True, slots=True)
class CarlaCommand:
    """
    Hold what CarlaEgoVehicleControl holds: throttle and brake in [0, 1], steer + = right.

    Throttle and brake are never both above 0, and reverse is never set: braking with reverse
    throttle would drive backwards.
    """

    throttle: float
    steer: float
    brake: float
    hand_brake: bool = False
    reverse: bool = False


def limit_action(action: npt.ArrayLike, previous_applied: npt.ArrayLike, speed: float, dt: float,
                 settings: CommandSettings, pedals: Pedals | None = None) -> Action:
    """
    Return what of an action is applied, float32[2], given the one applied `dt` s before.

    Clips to [-1, 1], limits the steering rate, the acceleration and its change (also the jerk of
    the `pedals`), and at last keeps the speed (m/s) under its limit, at any jerk. An action of
    another shape or with numbers that are not finite, or a speed that is not finite, becomes the
    start of a controlled stop.
    """
    wanted = np.asarray(action, dtype=np.float64)
    # Plain numbers: an array of two costs more than what is done with it.
    numbers = wanted.tolist() if wanted.shape == (2,) else [math.nan]
    if not all(map(math.isfinite, (*numbers, speed))):
        return brake_action(previous_applied, 0.0, dt, settings)
    steer, acceleration = map(_clip, numbers)
    before, push = _numbers_of(previous_applied)
    steer = _turn(before, steer, dt, settings)
    acceleration = min(max(acceleration, -settings.brake_limit), settings.throttle_limit)
    acceleration = _ease(push, acceleration, dt, settings, pedals or Pedals())
    over = (speed - settings.speed_limit) / settings.speed_fade
    if over > 0.0:
        acceleration = min(acceleration, -settings.overspeed_brake * min(over, 1.0))
    elif acceleration > 0.0:
        acceleration *= min(-over, 1.0)
    return np.array((steer, acceleration), dtype=np.float32)


def brake_action(previous_applied: npt.ArrayLike = (0.0, 0.0), elapsed: float = 0.0,
                 dt: float = 0.05, settings: CommandSettings | None = None) -> Action:
    """
    Return the action of a controlled stop that began `elapsed` s ago, float32[2].

    The throttle is left at once, the brake grows at its own rate. The steering is first held, so
    that a vehicle in a curve stays in it, then centred. `dt` is the time in s since
    `previous_applied` was applied.
    """
    settings = settings or CommandSettings()
    steer, push = _numbers_of(previous_applied)
    if elapsed >= settings.stop_hold:
        steer = _turn(steer, 0.0, dt, settings)
    # Each command brakes harder than the one before, even where no time seems to pass.
    change = settings.stop_rate * _within(dt, RAMPING)
    brake = max(-push, 0.0)
    if brake > settings.stop_brake:
        brake = max(brake - change, settings.stop_brake)
    else:
        brake = min(max(brake + change, FIRST), settings.stop_brake)
    return np.array((steer, -brake), dtype=np.float32)


def to_carla(applied: npt.ArrayLike, settings: CommandSettings | None = None) -> CarlaCommand:
    """
    Map an applied action to CARLA's command; raises ValueError when it is not finite.

    steer = 1 becomes `steering_range` of the vehicle's steering.
    """
    settings = settings or CommandSettings()
    steer, acceleration = np.asarray(applied, dtype=np.float64).tolist()
    if not math.isfinite(steer + acceleration):
        raise ValueError(f'action ({steer}, {acceleration}) is not finite; limit it first')
    steer, acceleration = _clip(steer), _clip(acceleration)
    # Adding 0 turns -0 into 0, which is what people expect to read.
    return CarlaCommand(throttle=max(acceleration, 0.0),
                        steer=-steer * settings.steering_range + 0.0,
                        brake=max(-acceleration, 0.0) + 0.0)


def from_carla(throttle: float, steer: float, brake: float, settings: CommandSettings) -> Action:
    """Return the action float32[2] of a CARLA command; raise ValueError when it is not finite."""
    if not math.isfinite(throttle + steer + brake):
        raise ValueError(f'throttle {throttle}, steer {steer}, brake {brake}: not finite')
    return np.array((_clip(-steer / settings.steering_range) + 0.0, _clip(throttle - brake)),
                    dtype=np.float32)


def _numbers_of(previous_applied: npt.ArrayLike) -> tuple[float, float]:
    """Return steer and acceleration applied before, 0 for what is not a number."""
    steer, push = np.asarray(previous_applied, dtype=np.float64).tolist()
    return (_clip(steer) if math.isfinite(steer) else 0.0,
            _clip(push) if math.isfinite(push) else 0.0)


def _turn(before: float, wanted: float, dt: float, settings: CommandSettings) -> float:
    """Return `wanted`, or as much of the way to it as the steering rate allows in `dt` s."""
    # After a time jump or without a time there is nothing the rate could allow.
    most = settings.steering_rate * min(dt, LONGEST) if dt > 0.0 else 0.0
    return min(max(wanted, before - most), before + most)


def _ease(before: float, wanted: float, dt: float, settings: CommandSettings, pedals: Pedals
          ) -> float:
    """Return `wanted`, or as much of the way to it as rate and jerk allow in `dt` s."""
    # Unlike steering, braking must not wait for a clock that stands still.
    dt = _within(dt, LONGEST)
    most = settings.acceleration_rate * dt
    wanted = min(max(wanted, before - most), before + most)
    if math.isinf(pedals.jerk):
        return wanted
    start, most = pedals.acceleration(before), pedals.jerk * dt
    return pedals.share(min(max(pedals.acceleration(wanted), start - most), start + most))


def _within(dt: float, longest: float) -> float:
    """Return a time between two actions as one to count with, s; no number is none."""
    return min(max(dt, SHORTEST), longest) if dt > 0.0 else SHORTEST


def _clip(value: float) -> float:
    return min(max(value, -1.0), 1.0)
