"""Where a vehicle is along a route, and what of the route lies ahead of it."""
from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.perception.vehicle_state import LARGEST, PlanarPose

SEARCH_AHEAD = 10.0   # m of route ahead of the last position that are searched, at least
SEARCH_BEHIND = 5.0   # m of route behind it
START_TOLERANCE = 1.0  # m: of places about equally near, the first call takes the earliest
SHORTEST_SEGMENT = 1e-3  # m: points nearer than this to the one before are dropped
HEADING_COST = 3.0    # m of distance that a heading error of 1 rad counts as in the first call


@dataclasses.dataclass(frozen=True, slots=True)
class RoutePosition:
    """
    Hold a vehicle's place on its route.

    distance: m along the route from its start; lateral: m, positive with the vehicle left of the
    route; heading_error: rad in [-pi, pi], the vehicle's yaw minus the route's; remaining: m to
    the route's end; completion: distance over length, 0 to 1.
    """

    distance: float
    lateral: float
    heading_error: float
    remaining: float
    completion: float


class RouteTracker:
    """
    Follow a vehicle along a polyline, closed and self-crossing ones included.

    `points` are (N, 2) x, y or (N, 3) x, y, yaw, float64, metres and radians in the map's frame.
    Raises ValueError for another shape, numbers that are not finite, or under two distinct points.
    """

    def __init__(self, points: npt.ArrayLike) -> None:
        given = np.asarray(points, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] not in (2, 3):
            raise ValueError(f'route points have shape {given.shape}, expected (N, 2) or (N, 3)')
        if not np.isfinite(given).all():
            bad = int(np.flatnonzero(~np.isfinite(given).all(axis=1))[0])
            raise ValueError(f'route point {bad} is not finite: {given[bad].tolist()}')
        if np.abs(given[:, :2]).max(initial=0.0) > LARGEST:
            raise ValueError(f'route points lie farther than {LARGEST:g} m from the origin')
        kept = _distinct(given)
        if len(kept) < 2:
            raise ValueError(f'a route needs two distinct points, got {len(kept)} of {len(given)}')
        self._x = np.ascontiguousarray(kept[:, 0])
        self._y = np.ascontiguousarray(kept[:, 1])
        steps = np.diff(kept[:, :2], axis=0)
        self._lengths = np.hypot(steps[:, 0], steps[:, 1])
        self._tangent_x = steps[:, 0] / self._lengths
        self._tangent_y = steps[:, 1] / self._lengths
        self._distances = np.concatenate(([0.0], np.cumsum(self._lengths)))
        yaw = kept[:, 2] if kept.shape[1] == 3 else _vertex_yaws(self._tangent_x, self._tangent_y)
        self._yaw = np.unwrap(yaw)
        self.length = float(self._distances[-1])
        self._last: tuple[float, float, float] | None = None  # distance, x, y

    def reset(self) -> None:
        """Forget the last position: the next update searches the whole route."""
        self._last = None

    def update(self, x: float, y: float, yaw: float) -> RoutePosition:
        """
        Return the place on the route nearest to (x, y), metres, of a vehicle heading to yaw, rad.

        The first call searches the whole route and prefers the earliest of equally good places;
        later ones search from 5 m behind the last place to 10 m or more ahead of it.
        """
        if self._last is None:
            segment, along = self._search_everywhere(x, y, yaw)
        else:
            before, last_x, last_y = self._last
            moved = math.hypot(x - last_x, y - last_y)
            low = before - max(SEARCH_BEHIND, moved)
            # A late measurement must not leave the vehicle ahead of its window.
            high = before + max(SEARCH_AHEAD, 1.5 * moved + SEARCH_BEHIND)
            segment, along = self._search(x, y, *self._segments_between(low, high))
        return self._locate(x, y, yaw, segment, along)

    def waypoints_ahead(self, pose: PlanarPose, count: int, spacing: float = 2.0
                        ) -> npt.NDArray[np.float32]:
        """
        Return (count, 2) float32 route points ahead of the last update, in the frame of `pose`.

        The first lies `spacing` metres beyond the last position; the route's end is repeated.
        """
        distance = self._last[0] if self._last is not None else 0.0
        distances = distance + spacing * np.arange(1, count + 1)
        dx = np.interp(distances, self._distances, self._x) - pose.x
        dy = np.interp(distances, self._distances, self._y) - pose.y
        cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
        ahead = np.empty((count, 2), dtype=np.float32)
        ahead[:, 0] = cos * dx + sin * dy
        ahead[:, 1] = cos * dy - sin * dx
        return ahead

    def points_at(self, distances: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return (N, 2) points of the map's frame at distances in m along the route."""
        return np.stack([np.interp(distances, self._distances, self._x),
                         np.interp(distances, self._distances, self._y)], axis=1)

    def _segments_between(self, low: float, high: float) -> tuple[int, int]:
        """Return the half-open range of segments that overlap distances low to high, m."""
        first = int(self._distances.searchsorted(low, side='right')) - 1
        last = int(self._distances.searchsorted(high, side='left'))
        count = len(self._lengths)
        first = min(max(first, 0), count - 1)
        return first, min(max(last, first + 1), count)

    def _offsets(self, x: float, y: float, first: int, last: int
                 ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return m along each segment to its point nearest to (x, y), and the distance squared."""
        dx = x - self._x[first:last]
        dy = y - self._y[first:last]
        tangent_x, tangent_y = self._tangent_x[first:last], self._tangent_y[first:last]
        along = np.minimum(np.maximum(dx * tangent_x + dy * tangent_y, 0.0),
                           self._lengths[first:last])
        dx -= along * tangent_x
        dy -= along * tangent_y
        return along, dx * dx + dy * dy

    def _search(self, x: float, y: float, first: int, last: int) -> tuple[int, float]:
        along, squared = self._offsets(x, y, first, last)
        nearest = int(squared.argmin())
        return first + nearest, float(along[nearest])

    def _search_everywhere(self, x: float, y: float, yaw: float) -> tuple[int, float]:
        along, squared = self._offsets(x, y, 0, len(self._lengths))
        turn = np.abs(np.remainder(self._yaw[:-1] - yaw + math.pi, math.tau) - math.pi)
        cost = np.sqrt(squared) + HEADING_COST * turn
        # A closed route starts where it ends: begin with the first good place, then let it slide
        # to the nearest one close by.
        early = int(np.flatnonzero(cost <= cost.min() + START_TOLERANCE)[0])
        here = float(self._distances[early] + along[early])
        return self._search(x, y, *self._segments_between(here, here + 2.0 * START_TOLERANCE))

    def _locate(self, x: float, y: float, yaw: float, segment: int, along: float
                ) -> RoutePosition:
        tangent_x, tangent_y = float(self._tangent_x[segment]), float(self._tangent_y[segment])
        dx = x - (float(self._x[segment]) + along * tangent_x)
        dy = y - (float(self._y[segment]) + along * tangent_y)
        distance = float(self._distances[segment]) + along
        lateral = tangent_x * dy - tangent_y * dx
        if 0.0 < distance < self.length:
            # At a kink the offset is not square to the segment; its length is what counts there.
            # Beyond the route's ends only the part across it does.
            lateral = math.copysign(math.hypot(dx, dy), lateral)
        share = along / float(self._lengths[segment])
        yaw_here, yaw_next = float(self._yaw[segment]), float(self._yaw[segment + 1])
        route_yaw = yaw_here + share * (yaw_next - yaw_here)
        self._last = (distance, x, y)
        return RoutePosition(distance, lateral, math.remainder(yaw - route_yaw, math.tau),
                             self.length - distance, distance / self.length)


def _distinct(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the points without those that repeat the one before."""
    if len(points) < 2:
        return points
    gaps = np.hypot(*np.diff(points[:, :2], axis=0).T)
    kept: npt.NDArray[np.float64] = points[np.concatenate(([True], gaps >= SHORTEST_SEGMENT))]
    return kept


def _vertex_yaws(tangent_x: npt.NDArray[np.float64], tangent_y: npt.NDArray[np.float64]
                 ) -> npt.NDArray[np.float64]:
    """Return the route's yaw at each point: the mean direction of the segments that meet there."""
    before_x, before_y = np.r_[tangent_x[0], tangent_x], np.r_[tangent_y[0], tangent_y]
    after_x, after_y = np.r_[tangent_x, tangent_x[-1]], np.r_[tangent_y, tangent_y[-1]]
    yaws: npt.NDArray[np.float64] = np.arctan2(before_y + after_y, before_x + after_x)
    return yaws
