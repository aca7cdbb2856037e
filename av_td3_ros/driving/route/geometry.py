"""Poses and frames in the plane (REP 103: x forward, y left, yaw counter-clockwise)."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Pose:
    """Hold a position in m and a heading in rad, counter-clockwise from the x axis."""

    x: float
    y: float
    yaw: float

    def distance(self, x: float, y: float) -> float:
        """Return the distance to the point (x, y) in m."""
        return math.hypot(x - self.x, y - self.y)

    def ahead(self, distance: float) -> Pose:
        """Return the pose `distance` m straight ahead (behind, when negative)."""
        return Pose(self.x + distance * math.cos(self.yaw),
                    self.y + distance * math.sin(self.yaw), self.yaw)

    def __str__(self) -> str:
        """Return the pose as people read it: metres and degrees."""
        return f'x {self.x:.1f} m, y {self.y:.1f} m, yaw {math.degrees(self.yaw):.0f} deg'


def wrap_angle(angle: float) -> float:
    """Return `angle` (rad) wrapped to (-pi, pi]."""
    wrapped = math.remainder(angle, math.tau)
    return math.pi if wrapped == -math.pi else wrapped


def wrap_angles(angles: ArrayLike) -> FloatArray:
    """Return angles (rad, any shape) wrapped to (-pi, pi]."""
    turned: FloatArray = math.pi - np.mod(math.pi - np.asarray(angles, np.float64), math.tau)
    return turned


def to_vehicle_frame(points: ArrayLike, pose: Pose) -> FloatArray:
    """
    Return map points as the vehicle at `pose` sees them: x ahead, y to its left.

    `points` is (N, 2) in m; so is the result, in float64.
    """
    shifted = np.asarray(points, np.float64).reshape(-1, 2) - (pose.x, pose.y)
    cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
    seen: FloatArray = shifted @ np.array([[cosine, -sine], [sine, cosine]])
    return seen


def from_vehicle_frame(points: ArrayLike, pose: Pose) -> FloatArray:
    """
    Return points of the frame of the vehicle at `pose` in the map's frame.

    `points` is (N, 2) in m; so is the result, in float64. Undoes `to_vehicle_frame`.
    """
    cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
    turned: FloatArray = np.asarray(points, np.float64).reshape(-1, 2) @ np.array(
        [[cosine, sine], [-sine, cosine]])
    turned += np.array([pose.x, pose.y])
    return turned


def arc_lengths(points: FloatArray) -> FloatArray:
    """Return the distance (N,) in m from the first of (N, 2) points along their polyline."""
    steps = np.hypot(*np.diff(points[:, :2], axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])
