"""How far ahead on its way a vehicle meets the nearest other one, and how fast it gets closer."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.driving.route.tracker import RouteTracker
from av_td3_ros.settings import setting

OWN_REACH = 1.0  # m: the box whose middle is this near to the vehicle's is the vehicle itself
TOP_SPEED = 70.0  # m/s: a box that moves faster was put elsewhere
SPACING = 1.0    # m between the points of the route ahead
BEYOND = 20.0    # m that the way goes straight on after the route's end

# Points of a box, as shares of its length and width: no two neighbours are farther apart than a
# vehicle is wide, so a box that reaches into the vehicle's way has one of them in it.
_SHARES_ALONG, _SHARES_ACROSS = (one.ravel() for one in np.meshgrid(
    np.linspace(-0.5, 0.5, 9), np.linspace(-0.5, 0.5, 5)))


@dataclasses.dataclass(frozen=True)
class ObstacleSettings:
    """Say whether other vehicles are measured, and which of them are in the way."""

    measured: bool = setting(False, 'wait for the markers of the other vehicles at each step and '
                             'measure the gap to the nearest one ahead')
    range: float = setting(60.0, 'm of the route ahead in which others are looked for',
                           minimum=1.0, maximum=500.0)
    margin: float = setting(0.25, 'm on either side of the vehicle that belong to its way',
                            minimum=0.0, maximum=5.0)
    vehicle_length: float = setting(4.5, 'length of the vehicle in m where its own marker is not '
                                    'among the others', minimum=0.1, maximum=30.0)
    vehicle_width: float = setting(1.8, 'width of the vehicle in m where its own marker is not '
                                   'among the others', minimum=0.1, maximum=5.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """Hold a road user's outline on the map: its middle and sizes in m, its heading in rad."""

    id: int
    x: float
    y: float
    yaw: float
    length: float
    width: float
    height: float = 1.5


class Ahead(NamedTuple):
    """
    Hold what is ahead: the free distance to it in m and how fast that shrinks in m/s.

    Both are None with nothing ahead; closing_speed also for what was not seen a step ago.
    """

    gap: float | None
    closing_speed: float | None


NOTHING_AHEAD = Ahead(None, None)


class ObstacleMeter:
    """
    Find the nearest vehicle in the way along one route, step by step.

    The way is as wide as the vehicle and a margin, and reaches across from where the vehicle is
    to the route's centre. A velocity is the way of a box's middle from one step to the next over
    the time between; the first step has none, nor has a box that was put elsewhere. So each
    episode takes a new meter. `route_points` are (N, 2) x, y in m; raises ValueError as
    RouteTracker does.
    """

    def __init__(self, settings: ObstacleSettings, route_points: npt.ArrayLike) -> None:
        self._settings = settings
        self._tracker = RouteTracker(_lengthened(np.asarray(route_points, np.float64)))
        self._stamp_ns = 0
        self._places: dict[int, tuple[float, float]] = {}

    def measure(self, vehicle: VehicleState, boxes: Sequence[Box] | None) -> Ahead:
        """
        Return what is ahead of a vehicle among `boxes` of the same time; None: nobody measured.

        The vehicle's own box may be among them, and then tells its size.
        """
        if boxes is None:
            return NOTHING_AHEAD
        velocities = self._velocities(vehicle.stamp_ns, boxes)
        position = self._tracker.update(vehicle.x, vehicle.y, vehicle.yaw)
        own, others = _split(vehicle, boxes)
        if not others:
            return NOTHING_AHEAD
        length = own.length if own is not None else self._settings.vehicle_length
        half = self._settings.margin + 0.5 * (
            own.width if own is not None else self._settings.vehicle_width)
        found = self._nearest(position.distance, others, half - min(position.lateral, 0.0),
                              half + max(position.lateral, 0.0))
        if found is None:
            return NOTHING_AHEAD
        box, distance, tangent_x, tangent_y = found
        gap = max(distance - 0.5 * length, 0.0)
        if box.id not in velocities:
            return Ahead(gap, None)
        velocity_x, velocity_y = velocities[box.id]
        own_speed = (vehicle.speed * math.cos(position.heading_error)
                     - vehicle.lateral_speed * math.sin(position.heading_error))
        return Ahead(gap, own_speed - (velocity_x * tangent_x + velocity_y * tangent_y))

    def _velocities(self, stamp_ns: int, boxes: Sequence[Box]) -> dict[int, tuple[float, float]]:
        """Return the velocity (x, y) in m/s of each box that was there a step ago."""
        dt = (stamp_ns - self._stamp_ns) * 1e-9
        before, self._places = self._places, {one.id: (one.x, one.y) for one in boxes}
        self._stamp_ns = stamp_ns
        if dt <= 0.0:
            return {}
        moved = {one.id: ((one.x - before[one.id][0]) / dt, (one.y - before[one.id][1]) / dt)
                 for one in boxes if one.id in before}
        return {key: velocity for key, velocity in moved.items()
                if math.hypot(*velocity) <= TOP_SPEED}

    def _nearest(self, start: float, others: Sequence[Box], right: float, left: float
                 ) -> tuple[Box, float, float, float] | None:
        """
        Return the nearest box that reaches into the way beyond `start` m of the route.

        With it: how far beyond, and the route's direction (x, y) there. `right` and `left` are how
        far the way reaches to either side of the route, m.
        """
        end = min(start + self._settings.range, self._tracker.length)
        way = self._tracker.points_at(np.arange(start, end, SPACING, np.float64))
        if len(way) < 2:
            return None
        best: tuple[Box, float, float, float] | None = None
        for box in others:
            reach = 0.5 * math.hypot(box.length, box.width) + max(right, left) + SPACING
            if np.hypot(way[:, 0] - box.x, way[:, 1] - box.y).min() > reach:
                continue
            found = _first_in_way(way, box, right, left)
            if found is not None and (best is None or found[0] < best[1]):
                best = (box, *found)
        return best


def _first_in_way(way: FloatArray, box: Box, right: float, left: float
                  ) -> tuple[float, float, float] | None:
    """Return how far along a way (N, 2) a box begins and the way's direction, None off it."""
    x, y = _outline(box)
    steps = np.diff(way, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    tangent_x, tangent_y = steps[:, 0] / lengths, steps[:, 1] / lengths
    dx, dy = x[:, None] - way[:-1, 0], y[:, None] - way[:-1, 1]
    along = dx * tangent_x + dy * tangent_y
    within = np.minimum(np.maximum(along, 0.0), lengths)
    off_x, off_y = dx - within * tangent_x, dy - within * tangent_y
    squared = off_x * off_x + off_y * off_y
    segment = squared.argmin(axis=1)
    row = np.arange(len(x))
    lateral = np.copysign(np.sqrt(squared[row, segment]),
                          (tangent_x * off_y - tangent_y * off_x)[row, segment])
    is_before = (segment == 0) & (along[row, segment] < 0.0)
    is_beyond = (segment == len(lengths) - 1) & (along[row, segment] > lengths[-1])
    in_way = (-right <= lateral) & (lateral <= left) & ~is_before & ~is_beyond
    if not in_way.any():
        return None
    distances = np.concatenate([[0.0], np.cumsum(lengths)])[segment] + within[row, segment]
    first = int(np.where(in_way, distances, np.inf).argmin())
    place = int(segment[first])
    return float(distances[first]), float(tangent_x[place]), float(tangent_y[place])


def _outline(box: Box) -> tuple[FloatArray, FloatArray]:
    """Return x and y of points all over a box."""
    ahead, left = box.length * _SHARES_ALONG, box.width * _SHARES_ACROSS
    cosine, sine = math.cos(box.yaw), math.sin(box.yaw)
    return box.x + cosine * ahead - sine * left, box.y + sine * ahead + cosine * left


def _split(vehicle: VehicleState, boxes: Sequence[Box]) -> tuple[Box | None, list[Box]]:
    """Return the vehicle's own box, None when it is not there, and the others."""
    own = min(boxes, key=lambda one: math.hypot(one.x - vehicle.x, one.y - vehicle.y),
              default=None)
    if own is None or math.hypot(own.x - vehicle.x, own.y - vehicle.y) > OWN_REACH:
        return None, list(boxes)
    return own, [one for one in boxes if one is not own]


def _lengthened(points: FloatArray) -> FloatArray:
    """Return a route that goes straight on after its end: what stands there is in the way too."""
    if points.ndim != 2 or len(points) < 2 or points.shape[1] < 2:
        return points  # refused by the tracker, with its words
    points = points[:, :2]
    steps = points[-1] - points[:-1]
    apart = np.flatnonzero(np.hypot(steps[:, 0], steps[:, 1]) > 1e-3)
    if not len(apart):
        return points
    step = steps[apart[-1]]
    lengthened: FloatArray = np.concatenate(
        [points, [points[-1] + step * (BEYOND / math.hypot(*step))]])
    return lengthened
