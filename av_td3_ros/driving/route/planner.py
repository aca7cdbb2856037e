"""Routes along lanes: the shortest one to a goal, and random drives to train on."""
from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np

from av_td3_ros.driving.route.geometry import FloatArray, Pose
from av_td3_ros.driving.route.road_map import LanePart, RoadMap

# Distance in m between two points of a route.
ROUTE_SPACING = 1.0
# A random drive tries this many lanes before it takes the longest way it has found.
MAX_LANES_TRIED = 5000


class RouteError(ValueError):
    """Report that no route leads from one pose to another, or far enough."""


@dataclasses.dataclass(frozen=True, eq=False)
class Route:
    """
    Hold a way to drive: x, y, yaw (N, 3) float64 every ROUTE_SPACING m, and lane widths (N,).

    It starts beside the start pose and ends less than ROUTE_SPACING before the goal.
    """

    points: FloatArray
    lane_widths: FloatArray

    @property
    def length(self) -> float:
        """Return the length in m."""
        return (len(self.points) - 1) * ROUTE_SPACING

    @property
    def start(self) -> Pose:
        """Return the first point as a pose."""
        return Pose(*map(float, self.points[0]))

    @property
    def goal(self) -> Pose:
        """Return the last point as a pose."""
        return Pose(*map(float, self.points[-1]))


class RoutePlanner:
    """Plan routes over the lanes of a map. A route keeps to its lanes: it never changes lane."""

    def __init__(self, road_map: RoadMap) -> None:
        """Plan on `road_map`."""
        self.road_map = road_map

    def plan(self, start: Pose, goal: Pose) -> Route:
        """
        Return the shortest route (Dijkstra 1959) between the lanes that fit two poses best.

        Raises RouteError when no lane leads from one to the other, or they are the same place.
        """
        lanes = self.road_map.lanes
        first, start_at = self.road_map.locate(start)
        last, goal_at = self.road_map.locate(goal)
        if first == last and goal_at >= start_at:
            if goal_at - start_at < ROUTE_SPACING:
                raise RouteError(f'goal ({goal}) is where the start ({start}) is; '
                                 f'set a goal at least {ROUTE_SPACING} m further along the lane')
            return self._route([LanePart(first, start_at, goal_at)])

        # A queue entry: metres to the lane's start, the lane. The start lane itself stays
        # unvisited, so that a circuit can lead back into it from behind.
        came_from: dict[int, int] = {}
        queue = [(lanes[first].length - start_at, after, first)
                 for after in lanes[first].successors]
        heapq.heapify(queue)
        while queue:
            driven, lane, before = heapq.heappop(queue)
            if lane in came_from:
                continue
            came_from[lane] = before
            if lane == last:
                return self._route(self._parts(came_from, first, start_at, last, goal_at))
            for after in lanes[lane].successors:
                if after not in came_from:
                    heapq.heappush(queue, (driven + lanes[lane].length, after, lane))
        raise RouteError(f'no lane leads from the start ({start}) to the goal ({goal}) on map '
                         f'{self.road_map.name!r}; choose a goal that the lane at the start leads '
                         'to without changing lane')

    def sample_goal(self, start: Pose, min_length: float, max_length: float,
                    rng: np.random.Generator) -> Route:
        """
        Return a random drive from a pose: at each junction any branch, and any length in range.

        It may pass a place more than once. Raises RouteError when every way ends before
        `min_length` m, ValueError when the range of lengths is empty.
        """
        if not ROUTE_SPACING <= min_length <= max_length:
            raise ValueError(f'route lengths from {min_length} to {max_length} m are no range; '
                             f'give {ROUTE_SPACING} <= min_length <= max_length')
        lanes = self.road_map.lanes
        first, start_at = self.road_map.locate(start)
        wanted = float(rng.uniform(min_length, max_length))
        longest: list[int] = []
        longest_length = -1.0
        # Depth first, so that a dead end is backed out of; an entry: metres at the end, lanes.
        stack: list[tuple[float, tuple[int, ...]]] = [(lanes[first].length - start_at, (first,))]
        for _ in range(MAX_LANES_TRIED):
            if not stack:
                break
            driven, path = stack.pop()
            if driven > longest_length:
                longest, longest_length = list(path), driven
            if driven >= wanted:
                break
            successors = lanes[path[-1]].successors
            stack += [(driven + lanes[successors[i]].length, (*path, successors[i]))
                      for i in rng.permutation(len(successors))]
        if longest_length < min_length:
            raise RouteError(f'every way from the start ({start}) on map {self.road_map.name!r} '
                             f'ends within {longest_length:.0f} m, {min_length:.0f} m were asked '
                             'for; start elsewhere or ask for less')
        parts = [LanePart(lane, 0.0, lanes[lane].length) for lane in longest]
        parts[0] = dataclasses.replace(parts[0], start=start_at)
        parts[-1] = dataclasses.replace(
            parts[-1], end=parts[-1].end - max(longest_length - wanted, 0.0))
        return self._route(parts)

    def _parts(self, came_from: dict[int, int], first: int, start_at: float, last: int,
               goal_at: float) -> list[LanePart]:
        """Return the parts of lanes from the first to the last, walked back from the last."""
        lanes = self.road_map.lanes
        parts = [LanePart(last, 0.0, goal_at)]
        lane = came_from[last]
        while lane != first:
            parts.append(LanePart(lane, 0.0, lanes[lane].length))
            lane = came_from[lane]
        parts.append(LanePart(first, start_at, lanes[first].length))
        return parts[::-1]

    def _route(self, parts: Sequence[LanePart]) -> Route:
        traced = self.road_map.trace(parts, ROUTE_SPACING)
        return Route(np.ascontiguousarray(traced[:, :3]), np.ascontiguousarray(traced[:, 3]))
