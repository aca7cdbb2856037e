"""Which odometry of a real vehicle is to be trusted, and which of it gets an image."""
from __future__ import annotations

import math

from av_td3_ros.driving.perception.vehicle_state import MeasurementError, VehicleState


class OdometryGate:
    """
    Let odometry through that is new and of now; `refused` counts what was not, by its reason.

    The stamps must be of the same clock as the `now_ns` that they are compared with.
    """

    def __init__(self, max_age: float) -> None:
        """`max_age` is how far in s a stamp may be from now, behind or ahead."""
        self._max_age_ns = round(max_age * 1e9)
        self._newest_ns = 0  # a stamp that nobody has set is none
        self.refused = {'broken': 0, 'stale': 0, 'backward': 0}

    def broken(self) -> None:
        """Count a message that was no measurement at all."""
        self.refused['broken'] += 1

    def check(self, vehicle: VehicleState, now_ns: int) -> None:
        """Raise MeasurementError, with what to look at, for odometry that is not to be used."""
        behind_ns = now_ns - vehicle.stamp_ns
        if abs(behind_ns) > self._max_age_ns:
            self.refused['stale'] += 1
            raise MeasurementError(
                f'its stamp is {abs(behind_ns) * 1e-9:.3f} s '
                f'{"old" if behind_ns > 0 else "in the future"}, at most '
                f"{self._max_age_ns * 1e-9:g} s is allowed: do this computer's clock and the "
                "vehicle's agree?")
        if vehicle.stamp_ns <= self._newest_ns:
            self.refused['backward'] += 1
            raise MeasurementError(
                f'its stamp is {(self._newest_ns - vehicle.stamp_ns) * 1e-9:.3f} s behind the '
                'newest one: is there more than one source?')
        self._newest_ns = vehicle.stamp_ns


def jump_reason(before: VehicleState | None, vehicle: VehicleState, max_jump: float) -> str:
    """
    Return why odometry is not to be driven on, '' where it is.

    It must not have moved more than `max_jump` m farther than its speed says.
    """
    if before is None:
        return ''
    dt = (vehicle.stamp_ns - before.stamp_ns) * 1e-9
    travelled = 0.5 * dt * (math.hypot(before.speed, before.lateral_speed)
                            + math.hypot(vehicle.speed, vehicle.lateral_speed))
    moved = math.hypot(vehicle.x - before.x, vehicle.y - before.y)
    # Less than the speed says is a vehicle in a curve or after a gap; only more is impossible.
    if moved - travelled <= max_jump:
        return ''
    return (f'the odometry jumped: {moved:.1f} m in {dt:.2f} s, of which its speed explains '
            f'{travelled:.1f} m')


class Pace:
    """Choose from a stream of stamps those that come nearest to a rate, however they jitter."""

    def __init__(self, period: float) -> None:
        """`period` is in s."""
        self._period_ns = round(period * 1e9)
        self._due_ns: int | None = None

    def is_due(self, stamp_ns: int) -> bool:
        """Return whether the one with this stamp is to be taken."""
        if self._due_ns is None or stamp_ns - self._due_ns > self._period_ns:
            self._due_ns = stamp_ns  # after a gap nothing is made up for
        # Early by up to half a period it is as near as the next one would be.
        if stamp_ns < self._due_ns - self._period_ns // 2:
            return False
        self._due_ns += self._period_ns
        return True
