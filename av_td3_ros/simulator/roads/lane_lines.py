"""Which painted lines a vehicle stands on, and which it has just come onto."""
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from av_td3_ros.driving.route.geometry import FloatArray, Pose
from av_td3_ros.simulator.roads.geometry import MarkingStrip

OTHER, BROKEN, SOLID = 0, 1, 2  # carla_msgs/CarlaLaneInvasionEvent
JOINT = 0.3  # m; ends of lines this close to each other are one line
CELL = 16.0  # m, grid of the look-up by position
REACH = 8.0  # m round a cell; more than half a vehicle's diagonal

_KINDS = {'broken': BROKEN, 'solid': SOLID}


class LaneLines:
    """
    Watch one vehicle crossing painted lines; each crossing is told once.

    A crossing begins when any part of the body comes over a line and lasts until all of it has
    left the line. Pieces of one line that meet end to end count as the same line.
    """

    def __init__(self, markings: Sequence[MarkingStrip]) -> None:
        """Join the pieces of paint to lines; a broken line is crossed in its gaps as well."""
        ends = [np.stack([line.points[:-1].T, line.points[1:].T]) for line in markings]
        # First and last points, x and y, of each segment: (2, 2, S).
        self._segments: FloatArray = np.concatenate([np.zeros((2, 2, 0)), *ends], axis=2)
        joined = _join(markings)
        self._line_of = np.repeat(np.array(joined, np.intp),
                                  [len(line.points) - 1 for line in markings])
        self._kind_of = {line: _KINDS.get(strip.kind, OTHER)
                         for line, strip in zip(joined, markings, strict=True)}
        self._cells: dict[tuple[int, int], tuple[FloatArray, NDArray[np.intp]]] = {}
        self._under: frozenset[int] = frozenset()

    def place(self, pose: Pose, length: float, width: float) -> None:
        """Start anew with a vehicle at `pose`; lines already under it count as crossed."""
        self._under = self._find(pose, length, width)

    def move(self, pose: Pose, length: float, width: float) -> tuple[int, ...]:
        """Return the types (OTHER, BROKEN, SOLID) of the lines that the vehicle came onto."""
        under = self._find(pose, length, width)
        crossed = sorted(self._kind_of[line] for line in under - self._under)
        self._under = under
        return tuple(crossed)

    def _find(self, pose: Pose, length: float, width: float) -> frozenset[int]:
        """Return the lines that cross the vehicle's footprint."""
        segments, lines = self._near(pose)
        if not len(lines):
            return frozenset()
        cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
        start, end = (np.array([[cosine, sine], [-sine, cosine]])
                      @ (segments - np.array([[pose.x], [pose.y]])))
        step = end - start
        step[np.abs(step) < 1e-12] = 1e-12
        half = np.array([[0.5 * length], [0.5 * width]])
        one, other = (-half - start) / step, (half - start) / step
        enter, leave = np.minimum(one, other), np.maximum(one, other)
        inside = (np.maximum(np.maximum(enter[0], enter[1]), 0.0)
                  <= np.minimum(np.minimum(leave[0], leave[1]), 1.0))
        return frozenset(lines[inside].tolist())

    def _near(self, pose: Pose) -> tuple[FloatArray, NDArray[np.intp]]:
        cell = (math.floor(pose.x / CELL), math.floor(pose.y / CELL))
        near = self._cells.get(cell)
        if near is None:
            low = np.array(cell)[:, None] * CELL - REACH
            high = low + CELL + 2.0 * REACH
            close = ((self._segments.max(axis=0) >= low)
                     & (self._segments.min(axis=0) <= high)).all(axis=0)
            near = self._segments[..., close], self._line_of[close]
            self._cells[cell] = near
        return near


def _join(markings: Sequence[MarkingStrip]) -> list[int]:
    """Return for every piece of paint the number of the line it belongs to."""
    owner = list(range(len(markings)))

    def root(index: int) -> int:
        while owner[index] != index:
            owner[index] = owner[owner[index]]
            index = owner[index]
        return index

    ends: dict[tuple[int, int], list[tuple[float, float, int]]] = defaultdict(list)
    for index, line in enumerate(markings):
        for x, y in (line.points[0].tolist(), line.points[-1].tolist()):
            column, row = math.floor(x / JOINT), math.floor(y / JOINT)
            for cell in ((column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                for other_x, other_y, other in ends[cell]:
                    if (markings[other].kind == line.kind
                            and math.hypot(x - other_x, y - other_y) < JOINT):
                        owner[root(index)] = root(other)
            ends[column, row].append((x, y, index))
    return [root(index) for index in range(len(markings))]
