"""A driver without learning: pure pursuit for the steering, PID for the speed."""
from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.perception.state import (
    HEADING_SCALE,
    LATERAL_SCALE,
    SPEED_SCALE,
    WAYPOINT_SCALE,
)
from av_td3_ros.settings import setting

Points = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class PursuitSettings:
    """Tune the driver and tell it about its vehicle."""

    target_speed: float = setting(10.0, 'speed in m/s on straight road', minimum=0.5, maximum=60.0)
    wheelbase: float = setting(2.6, 'm between the axles', minimum=0.5, maximum=10.0)
    rear_axle: float = setting(
        1.3, 'm from the rear axle forward to the point that the odometry follows',
        minimum=-5.0, maximum=5.0)
    max_steering_angle: float = setting(
        0.36, "angle of the front wheels in rad at steer = 1: the vehicle's own times "
        'command.steering_range', minimum=0.05, maximum=1.5)
    look_ahead: float = setting(6.0, 'shortest look-ahead distance in m',
                                minimum=1.0, maximum=50.0)
    look_ahead_time: float = setting(0.8, 'look-ahead in s of travel, where that is farther',
                                     minimum=0.0, maximum=5.0)
    max_lateral_acceleration: float = setting(
        3.5, 'lateral acceleration in m/s^2 that limits the speed in curves',
        minimum=0.1, maximum=20.0)
    max_deceleration: float = setting(
        2.5, 'deceleration in m/s^2 with which a curve ahead is approached',
        minimum=0.1, maximum=20.0)
    proportional: float = setting(0.5, 'PID gain on the speed error, per m/s',
                                  minimum=0.0, maximum=10.0)
    integral: float = setting(0.3, 'PID gain on the sum of the speed error, per m',
                              minimum=0.0, maximum=10.0)
    derivative: float = setting(0.13, 'PID gain on the change of speed, per m/s^2',
                                minimum=0.0, maximum=10.0)
    smoothing: float = setting(
        0.2, 'time constant in s with which the speed aimed at follows what the curves allow',
        minimum=0.0, maximum=5.0)
    time_step: float = setting(0.05, 'time in s between two calls', minimum=1e-3, maximum=1.0)


class PursuitDriver:
    """Drive from the state vector alone, behind the same interface as a learned policy."""

    def __init__(self, settings: PursuitSettings | None = None) -> None:
        self.settings = settings or PursuitSettings()
        self.reset()

    def reset(self) -> None:
        """Forget the drive so far: the PID's sum and the last speed."""
        self._sum = 0.0
        self._last_speed: float | None = None
        self._target: float | None = None

    def act(self, state: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """
        Return the action float32[2] for a state vector of 3 + 2n numbers, n at least 1.

        Raises ValueError for another size or numbers that are not finite.
        """
        vector = np.asarray(state, dtype=np.float64)
        if vector.ndim != 1 or len(vector) < 5 or len(vector) % 2 == 0:
            raise ValueError(f'a state vector of shape {vector.shape} does not have 3 + 2n '
                             'numbers for n waypoints')
        if not math.isfinite(float(vector.sum())):
            raise ValueError('the state vector holds numbers that are not finite')
        speed = float(vector[0]) * SPEED_SCALE
        path = self._path(vector)
        return np.array((self._steer(speed, path), self._accelerate(speed, path)),
                        dtype=np.float32)

    def _path(self, vector: Points) -> Points:
        """Return the route from the vehicle's place on it, (1 + n, 2) m in the vehicle's frame."""
        lateral = float(vector[1]) * LATERAL_SCALE
        heading = float(vector[2]) * HEADING_SCALE
        here = (-lateral * math.sin(heading), -lateral * math.cos(heading))
        return np.concatenate(([here], vector[3:].reshape(-1, 2) * WAYPOINT_SCALE))

    def _steer(self, speed: float, path: Points) -> float:
        """Aim a circle from the rear axle through the look-ahead point (Coulter 1992)."""
        reach = max(self.settings.look_ahead, self.settings.look_ahead_time * speed)
        from_axle = path + np.array((self.settings.rear_axle, 0.0))
        target_x, target_y = _point_at_distance(from_axle, reach)
        squared = target_x * target_x + target_y * target_y
        if squared < 1e-6:
            return 0.0
        angle = math.atan(self.settings.wheelbase * 2.0 * target_y / squared)
        return min(max(angle / self.settings.max_steering_angle, -1.0), 1.0)

    def _accelerate(self, speed: float, path: Points) -> float:
        settings = self.settings
        allowed = self._allowed_speed(path)
        if self._target is None:
            self._target = allowed
        # What curves allow comes in steps, as they reach one waypoint after the other.
        self._target += (allowed - self._target) * settings.time_step / (
            settings.time_step + settings.smoothing)
        error = self._target - speed
        # On the measurement, not on the error: a target that jumps gives no kick.
        change = 0.0 if self._last_speed is None else speed - self._last_speed
        self._last_speed = speed
        total = self._sum + error * settings.time_step
        wanted = (settings.proportional * error + settings.integral * total
                  - settings.derivative * change / settings.time_step)
        if abs(wanted) < 1.0 or wanted * error < 0.0:
            # A sum that grows while the command is at its limit would overshoot later.
            self._sum = total
        return min(max(wanted, -1.0), 1.0)

    def _allowed_speed(self, path: Points) -> float:
        """Return the speed in m/s that lets every curve ahead be taken at its own speed."""
        settings = self.settings
        steps = np.diff(path, axis=0)
        lengths = np.hypot(steps[:, 0], steps[:, 1])
        real = lengths > 0.1  # the route's end is repeated
        steps, lengths = steps[real], lengths[real]
        if len(steps) < 2:
            return settings.target_speed
        cross = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
        dot = (steps[:-1] * steps[1:]).sum(axis=1)
        curvature = np.abs(np.arctan2(cross, dot)) * 2.0 / (lengths[:-1] + lengths[1:])
        curve_squared = settings.max_lateral_acceleration / np.maximum(curvature, 1e-6)
        distances = np.cumsum(lengths)[:-1]
        allowed = np.sqrt(curve_squared + 2.0 * settings.max_deceleration * distances)
        return float(min(settings.target_speed, allowed.min()))


def _point_at_distance(path: Points, reach: float) -> tuple[float, float]:
    """Return where a path first gets `reach` m from the origin, or its last point."""
    points = path.tolist()
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 * x1 + y1 * y1 < reach * reach:
            continue
        dx, dy = x1 - x0, y1 - y0
        # Solve |p0 + t (p1 - p0)| = reach for the larger t.
        a, half_b, c = dx * dx + dy * dy, x0 * dx + y0 * dy, x0 * x0 + y0 * y0 - reach * reach
        root = half_b * half_b - a * c
        if a == 0.0 or root < 0.0:
            return x1, y1
        share = min(max((-half_b + math.sqrt(root)) / a, 0.0), 1.0)
        return x0 + share * dx, y0 + share * dy
    return points[-1][0], points[-1][1]
