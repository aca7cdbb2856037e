"""Which boxes a vehicle touches in the plane, and along which direction."""
from __future__ import annotations

import dataclasses

import numpy as np

from av_td3_ros.driving.route.geometry import FloatArray


@dataclasses.dataclass(frozen=True)
class Contact:
    """Hold the box that is touched: its index, the direction towards it and the overlap in m."""

    index: int
    normal: tuple[float, float]
    depth: float


def contacts(box: FloatArray, others: FloatArray) -> list[Contact]:
    """
    Return the boxes of `others` (N, 5) that `box` (5,) overlaps: x, y, yaw, length, width.

    Two rectangles are apart exactly when one of their four side directions separates them; the
    direction of the least overlap is the contact's normal, a unit vector of the map.
    """
    reach = 0.5 * float(np.hypot(box[3], box[4]))
    offsets = others[:, :2] - box[:2]
    close = np.flatnonzero(np.hypot(offsets[:, 0], offsets[:, 1])
                           < reach + 0.5 * np.hypot(others[:, 3], others[:, 4]))
    if not len(close):
        return []
    offsets, others = offsets[close], others[close]
    own = np.repeat(_axes(box[None, 2]), len(close), axis=0)
    theirs = _axes(others[:, 2])
    axes = np.concatenate([own, theirs], axis=1)  # (n, 4, 2), unit vectors
    halves = 0.5 * np.repeat(box[None, 3:5], len(close), axis=0)
    extent = (np.abs(axes @ own.transpose(0, 2, 1)) @ halves[..., None]
              + np.abs(axes @ theirs.transpose(0, 2, 1)) @ (0.5 * others[:, 3:5, None]))[..., 0]
    along = (axes @ offsets[..., None])[..., 0]
    overlap = extent - np.abs(along)
    least = overlap.argmin(axis=1)
    found = []
    for index in np.flatnonzero(overlap.min(axis=1) > 0.0).tolist():
        axis = int(least[index])
        x, y = (axes[index, axis] * (1.0 if along[index, axis] >= 0.0 else -1.0)).tolist()
        found.append(Contact(int(close[index]), (x, y), float(overlap[index, axis])))
    return found


def _axes(yaw: FloatArray) -> FloatArray:
    """Return the directions ahead and to the left (N, 2, 2) of boxes."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.stack([np.stack([cosine, sine], axis=-1), np.stack([-sine, cosine], axis=-1)],
                    axis=1)
