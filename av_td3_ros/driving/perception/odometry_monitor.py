"""Whether odometry may be driven on: it comes, it is of now, and it moves as it says."""
from __future__ import annotations

import dataclasses
import math

from av_td3_ros.driving.perception.odometry_gate import OdometryGate, jump_reason
from av_td3_ros.driving.perception.vehicle_state import MeasurementError, VehicleState
from av_td3_ros.settings import setting

MOVED = 0.05   # m: less than that may be noise
SLOW = 0.3     # m/s: a speed below it may be noise as well
FASTEST = 100.0  # m/s: beyond it a speed is no speed of a car, but in another unit or broken
THROTTLE = 0.2  # acceleration, 0 to 1, at which a vehicle must move


@dataclasses.dataclass(frozen=True)
class OdometrySettings:
    """Say when odometry is not to be driven on."""

    timeout: float = setting(
        0.0, 'wall time in s without odometry that can be used after which the vehicle is '
        'stopped; 0: odometry is not looked at, for a world that stands still or teleports',
        minimum=0.0, maximum=60.0)
    max_age: float = setting(
        0.25, "difference in s between an odometry's stamp and now, by this node's clock, beyond "
        'which it is refused', minimum=0.01, maximum=60.0)
    max_jump: float = setting(
        1.0, 'm that the pose may go farther, or stay behind, what the speed says',
        minimum=0.01, maximum=100.0)
    frozen_after: float = setting(
        2.0, f'wall time in s with {THROTTLE:g} of the throttle or more in which the pose must '
        'have moved; 0: any, for a vehicle whose wheels are off the ground', minimum=0.0,
        maximum=60.0)


class OdometryMonitor:
    """
    Watch a stream of odometry, message by message, and its silence.

    Stamps and `now_ros` are ns of one clock, `now` is ns of a clock that never leaps. `speed` is
    the newest one in m/s, NaN before the first.
    """

    def __init__(self, settings: OdometrySettings) -> None:
        """Begin without any; a timeout of 0 watches nothing."""
        self._settings = settings
        self._gate = OdometryGate(settings.max_age)
        self.refused = 0
        self._newest: VehicleState | None = None
        self._heard_at: int | None = None
        self._refusal = ''
        self._breach = ''
        self._anchor = (math.nan, math.nan)
        self._claimed = 0.0
        self._moved_at = self._pushed_at = 0
        self._is_pushed = False

    @property
    def is_on(self) -> bool:
        """Say whether anything is watched at all."""
        return self._settings.timeout > 0.0

    @property
    def speed(self) -> float:
        """Return the newest speed in m/s, NaN where none is known."""
        return self._newest.speed if self._newest is not None else math.nan

    def restart(self) -> None:
        """Forget the stamps so far: their clock has leapt."""
        self._gate = OdometryGate(self._settings.max_age)
        self._newest, self._heard_at = None, None

    def refuse(self, why: str) -> None:
        """Count a message that could not be used, and keep why."""
        self.refused += 1
        self._refusal = why

    def hear(self, vehicle: VehicleState, now: int, now_ros: int) -> None:
        """Take a measurement; raise MeasurementError for one that is not of now."""
        if abs(vehicle.speed) > FASTEST:
            raise MeasurementError(f'its speed is {vehicle.speed:g} m/s: is it in another unit?')
        self._gate.check(vehicle, now_ros)
        before, self._newest = self._newest, vehicle
        if before is None or self._heard_at is None or now - self._heard_at > self._limit:
            self._settle(vehicle, now)  # after a gap nothing is known of the way between
        else:
            self._follow(before, vehicle, now)
        self._heard_at = now

    def silence(self, now: int) -> str:
        """Say for how long no odometry has come that can be used, '' while it does."""
        if not self.is_on:
            return ''
        if self._heard_at is None:
            self._heard_at = now  # the first one has as long as the next
        if now - self._heard_at <= self._limit:
            return ''
        why = f'; the last one was refused: {self._refusal}' if self._refusal else ''
        return f'no odometry that can be used for {self._settings.timeout:g} s{why}'

    def breach(self, now: int, acceleration: float) -> str:
        """
        Return, once, what no working odometry does while `acceleration` (-1 to 1) is applied.

        '' when there is nothing to tell.
        """
        breach, self._breach = self._breach, ''
        if not self.is_on:
            return ''
        if acceleration < THROTTLE or not self._settings.frozen_after:
            self._is_pushed = False
        elif not self._is_pushed:
            self._is_pushed, self._pushed_at = True, now
        elif now - max(self._pushed_at, self._moved_at) > self._settings.frozen_after * 1e9:
            self._is_pushed = False
            return breach or (f'the odometry stands still after {self._settings.frozen_after:g} s '
                              'of throttle: is it frozen, or is the vehicle held?')
        return breach

    @property
    def _limit(self) -> float:
        return self._settings.timeout * 1e9

    def _settle(self, vehicle: VehicleState, now: int) -> None:
        self._anchor, self._claimed, self._moved_at = (vehicle.x, vehicle.y), 0.0, now

    def _follow(self, before: VehicleState, vehicle: VehicleState, now: int) -> None:
        self._refusal = ''
        self._breach = self._breach or jump_reason(before, vehicle, self._settings.max_jump)
        moved = math.dist(self._anchor, (vehicle.x, vehicle.y))
        if not moved <= MOVED:
            self._settle(vehicle, now)
            return
        if abs(vehicle.speed) > SLOW:
            self._claimed += vehicle.speed * (vehicle.stamp_ns - before.stamp_ns) * 1e-9
        if abs(self._claimed) - moved > self._settings.max_jump:
            self._breach = self._breach or (
                f'the odometry is frozen: {abs(self._claimed):.1f} m by its speed, '
                f'{moved:.2f} m by its pose')
            self._settle(vehicle, now)
