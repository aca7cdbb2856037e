"""What is measured of a vehicle at one instant."""
from __future__ import annotations

import dataclasses
import math
from typing import Protocol

LARGEST = 1e8  # m, m/s, rad: farther than any grid on earth counts
NUMBERS = ('x', 'y', 'yaw', 'speed', 'lateral_speed', 'yaw_rate')


class MeasurementError(ValueError):
    """A measurement that nothing may be computed from: not finite, or out of time order."""


class PlanarPose(Protocol):
    """Anything with a position in metres and a yaw in radians, counter-clockwise."""

    @property
    def x(self) -> float: ...

    @property
    def y(self) -> float: ...

    @property
    def yaw(self) -> float: ...


@dataclasses.dataclass(frozen=True, slots=True)
class VehicleState:
    """
    Hold a vehicle's pose and motion: SI units, axes of REP 103 (x forward, y left, yaw left).

    `speed` is the signed longitudinal speed, `lateral_speed` is positive to the left; both are in
    the vehicle's frame. `stamp_ns` is simulated time in nanoseconds.

    Raises MeasurementError when a number is not finite.
    """

    stamp_ns: int
    x: float
    y: float
    yaw: float
    speed: float
    lateral_speed: float = 0.0
    yaw_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not finite; make plain numbers of numpy's."""
        # One test for the usual case: a sum is below a bound only when each of its parts is.
        total = (abs(self.x) + abs(self.y) + abs(self.yaw) + abs(self.speed)
                 + abs(self.lateral_speed) + abs(self.yaw_rate))
        if total <= LARGEST:
            if type(total) is not float:
                for name in NUMBERS:
                    object.__setattr__(self, name, float(getattr(self, name)))
            return
        for name in NUMBERS:
            value = getattr(self, name)
            if not math.isfinite(value):
                raise MeasurementError(
                    f'odometry at {self.stamp_ns} ns: {name} = {value} is not finite; '
                    'drop this measurement and check its source')
        raise MeasurementError(f'odometry at {self.stamp_ns} ns is too large to compute with: '
                               f'{self}; check its units (metres, radians, m/s)')


@dataclasses.dataclass(frozen=True, slots=True)
class Events:
    """
    Hold what happened to a vehicle since the step before, and what is ahead of it.

    `collision_impulse` is in N s, None without a collision; `hit_vehicle` tells whether what was
    hit is a vehicle. `gap` is the free distance in metres
    to the nearest obstacle ahead and `closing_speed` how fast it shrinks in m/s (positive: getting
    closer); both are None where nothing measures them or nothing is ahead.

    Raises MeasurementError when gap or closing_speed is not a number.
    """

    collision_impulse: float | None = None
    lane_invasions: int = 0
    gap: float | None = None
    closing_speed: float | None = None
    hit_vehicle: bool = False

    def __post_init__(self) -> None:
        """Refuse distances and speeds that are not numbers."""
        for name in ('gap', 'closing_speed'):
            value = getattr(self, name)
            if value is not None and math.isnan(value):
                raise MeasurementError(f'{name} to the obstacle ahead is not a number; '
                                       'give None where it is not known')

    @property
    def time_to_collision(self) -> float | None:
        """Return gap over closing speed in seconds, None when nothing ahead gets closer."""
        if self.gap is None or self.closing_speed is None or self.closing_speed <= 0.0:
            return None
        return max(self.gap, 0.0) / self.closing_speed


NO_EVENTS = Events()
