"""Where a vehicle has driven and where its steering takes it: what viewers draw."""
from __future__ import annotations

import collections
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.settings import setting

SPACING = 0.5  # m between two points of a path
TELEPORT = 5.0  # m between two measurements that nobody has driven


@dataclasses.dataclass(frozen=True)
class PredictionSettings:
    """Say how steering turns into a path."""

    steering_angle: float = setting(
        0.36, 'front wheel angle in rad at an applied steer of 1: what steering_range of the '
        "control node leaves of the vehicle's largest", minimum=0.01, maximum=1.2, live=True)
    wheelbase: float = setting(2.58, 'distance between the axles, m', minimum=0.1, maximum=10.0,
                               live=True)
    width: float = setting(1.61, 'width of the vehicle, m', minimum=0.1, maximum=5.0, live=True)
    length: float = setting(4.51, 'length of the vehicle, m', minimum=0.1, maximum=30.0,
                            live=True)
    horizon: float = setting(1.5, 's of driving that are predicted', minimum=0.1, maximum=10.0,
                             live=True)
    shortest: float = setting(6.0, 'm that are predicted at least, also at standstill',
                              minimum=0.5, maximum=50.0, live=True)


def predicted_path(steer: float, speed: float, settings: PredictionSettings) -> FloatArray:
    """
    Return where the vehicle's middle goes with its wheels held, (N, 3): x, y in m, heading in rad.

    In the vehicle's frame, of the kinematic single-track model: `steer` is the applied one in
    [-1, 1], + = left; `speed` is in m/s. What is not finite counts as 0.
    """
    steer = min(max(steer, -1.0), 1.0) if math.isfinite(steer) else 0.0
    speed = abs(speed) if math.isfinite(speed) else 0.0
    tangent = math.tan(steer * settings.steering_angle)
    slip = math.atan(0.5 * tangent)
    curvature = math.cos(slip) * tangent / settings.wheelbase
    length = min(max(settings.horizon * speed, settings.shortest), 100.0)
    along = np.arange(0.0, length + SPACING, SPACING)
    heading = slip + curvature * along
    # The chord of an arc points half way between the directions at its ends.
    half = 0.5 * curvature * along
    chord = along * np.sinc(half / math.pi)
    return np.stack([chord * np.cos(slip + half), chord * np.sin(slip + half), heading], axis=1)


def edges(path: FloatArray, half_width: float) -> tuple[FloatArray, FloatArray]:
    """Return the left and the right edge (N, 2) of a path (N, 3) of x, y, heading."""
    normal = half_width * np.stack([-np.sin(path[:, 2]), np.cos(path[:, 2])], axis=1)
    return path[:, :2] + normal, path[:, :2] - normal


class Driven(NamedTuple):
    """Hold a place that the vehicle was at: m, and m/s."""

    x: float
    y: float
    speed: float


class Trail:
    """Keep the last metres driven; a teleport begins a new trail."""

    def __init__(self, length: float) -> None:
        """`length` is in m."""
        self.length = length
        self._points: collections.deque[Driven] = collections.deque()

    @property
    def points(self) -> list[Driven]:
        """Return the places driven, the oldest first."""
        return list(self._points)

    def add(self, vehicle: VehicleState) -> None:
        """Take where the vehicle is now."""
        here = Driven(vehicle.x, vehicle.y, vehicle.speed)
        if self._points:
            last = self._points[-1]
            moved = math.hypot(here.x - last.x, here.y - last.y)
            if moved > TELEPORT:
                self._points.clear()
            elif moved < SPACING:
                return
        self._points.append(here)
        while len(self._points) > 2 and SPACING * (len(self._points) - 1) > self.length:
            self._points.popleft()

    def clear(self) -> None:
        """Forget where the vehicle was."""
        self._points.clear()
