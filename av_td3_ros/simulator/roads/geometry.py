"""The road as plain arrays: lane surfaces, painted markings and the boxes beside the road."""
from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from typing import Literal

import numpy as np

from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.driving.route.road_map import Lane, Marking, RoadMap

MarkingKind = Literal['broken', 'solid']
MarkingColour = Literal['white', 'yellow']
RoadsideKind = Literal['building', 'tree', 'post']

# Metres by which the lanes of a junction are widened where no line is painted: between the paths
# that turn different ways there is asphalt too, though it belongs to no lane.
JUNCTION_FILL = 1.5
# Metres that stay free between the edge of any lane and a box.
CLEARANCE = 1.7
# Metres; boxes that touch have their middles in neighbouring cells of this size.
CELL = 24.0


@dataclasses.dataclass(frozen=True)
class LaneStrip:
    """Hold the surface of one lane between two edges, both (N, 2) in m, along its direction."""

    left: FloatArray
    right: FloatArray
    is_junction: bool


@dataclasses.dataclass(frozen=True)
class MarkingStrip:
    """Hold one painted line: its middle (N, 2) in m, its kind, width in m and colour."""

    points: FloatArray
    kind: MarkingKind
    width: float
    colour: MarkingColour


@dataclasses.dataclass(frozen=True)
class RoadsideBox:
    """Hold a box that stands beside the road: its middle, heading and sizes in m and rad."""

    x: float
    y: float
    yaw: float
    length: float
    width: float
    height: float
    kind: RoadsideKind


@dataclasses.dataclass(frozen=True)
class RoadGeometry:
    """Hold everything of a map that the camera draws."""

    lanes: tuple[LaneStrip, ...]
    markings: tuple[MarkingStrip, ...]
    boxes: tuple[RoadsideBox, ...]

    @classmethod
    def from_map(cls, road_map: RoadMap, spacing: float = 2.0, seed: int = 0,
                 box_distance: float = 12.0) -> RoadGeometry:
        """
        Read a map's surfaces and markings every `spacing` m and place boxes beside its lanes.

        Along each side of the road a box stands every `box_distance` m on average (none when it
        is 0), off every lane and off each other; `seed` decides which and where.
        """
        strips = [_strip(road_map, lane, spacing) for lane in road_map.lanes]
        markings = [marking for lane in road_map.lanes
                    for marking in _markings(road_map, lane, spacing)]
        boxes = _boxes(road_map, box_distance, np.random.default_rng(seed))
        return cls(tuple(strips), tuple(markings), tuple(boxes))


def _stations(lane: Lane, spacing: float) -> FloatArray:
    """Return distances along a lane, at most `spacing` m apart, both ends included."""
    count = max(2, math.ceil(lane.length / spacing) + 1)
    return np.linspace(0.0, lane.length, count, dtype=np.float64)


def _edges(lane: Lane, stations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the left and the right edge (N, 2) of a lane at distances along it."""
    x, y, yaw, width = (np.interp(stations, lane.distances, column) for column in
                        (lane.points[:, 0], lane.points[:, 1], lane.yaws, lane.widths))
    centre: FloatArray = np.stack([x, y], axis=1)
    aside: FloatArray = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1) * width[:, None] / 2.0
    return centre + aside, centre - aside


def _strip(road_map: RoadMap, lane: Lane, spacing: float) -> LaneStrip:
    stations = _stations(lane, spacing)
    left, right = _edges(lane, stations)
    if lane.is_junction:
        painted = road_map.lane_markings(lane, len(lane.s) // 2)
        fill = JUNCTION_FILL * np.sin(math.pi * stations / lane.length) ** 2
        outward = (left - right) / np.linalg.norm(left - right, axis=1, keepdims=True)
        left = left + outward * (fill * (painted[0].kind == 'none'))[:, None]
        right = right - outward * (fill * (painted[1].kind == 'none'))[:, None]
    return LaneStrip(left, right, lane.is_junction)


def _markings(road_map: RoadMap, lane: Lane, spacing: float) -> list[MarkingStrip]:
    """Return what is painted along a lane; the line between two lanes belongs to one of them."""
    stations = _stations(lane, spacing)
    nearest = np.searchsorted(lane.distances, stations).clip(0, len(lane.distances) - 1)
    seen = [road_map.lane_markings(lane, int(at)) for at in nearest]
    left, right = _edges(lane, stations)
    strips = _runs(right, [sides[1] for sides in seen])
    # A lane's left line is its neighbour's right line, but in the middle of the road, where both
    # have it on their left: there the lane with the negative id paints, or the only one.
    if abs(lane.lane_id) == 1 and (lane.lane_id < 0 or not road_map.has_lane(
            lane.road_id, lane.section_id, -1)):
        strips += _runs(left, [sides[0] for sides in seen])
    return strips


def _runs(edge: FloatArray, markings: list[Marking]) -> list[MarkingStrip]:
    """Return an edge cut where its marking changes, without the parts that have none."""
    strips = []
    start = 0
    for at in range(1, len(markings) + 1):
        if at < len(markings) and markings[at] == markings[start]:
            continue
        marking = markings[start]
        if marking.kind in ('broken', 'solid') and at - start > 1:
            # The next marking starts at its first point: the line reaches up to it.
            strips.append(MarkingStrip(edge[start:at + 1].copy(),
                                       'broken' if marking.kind == 'broken' else 'solid',
                                       marking.width, marking.colour))
        start = at
    return strips


def _boxes(road_map: RoadMap, box_distance: float, rng: np.random.Generator) -> list[RoadsideBox]:
    """Return boxes on both sides of every road outside junctions, clear of lanes and boxes."""
    if box_distance <= 0.0:
        return []
    half_lane = max(float(lane.widths.max()) for lane in road_map.lanes) / 2.0
    boxes: list[RoadsideBox] = []
    placed: dict[tuple[int, int], list[tuple[float, float, float]]] = defaultdict(list)
    sides = [(lane, -1.0) for lane in road_map.lanes if not lane.is_junction]
    sides += [(lane, 1.0) for lane in road_map.lanes
              if not lane.is_junction and _is_leftmost(road_map, lane)]
    for lane, side in sides:
        at = float(rng.uniform(0.0, box_distance))
        while at < lane.length:
            box = _random_box(lane, at, side, rng)
            reach = math.hypot(box.length, box.width) / 2.0
            off_road = road_map.distance_to_lanes(_outline(box)).min() > half_lane + CLEARANCE
            column, row = int(box.x // CELL), int(box.y // CELL)
            near = (other for i in (-1, 0, 1) for j in (-1, 0, 1)
                    for other in placed.get((column + i, row + j), ()))
            if off_road and all(math.hypot(box.x - x, box.y - y) > reach + other
                                for x, y, other in near):
                boxes.append(box)
                placed[column, row].append((box.x, box.y, reach))
            at += float(rng.uniform(0.4, 1.6)) * box_distance
    return boxes


def _is_leftmost(road_map: RoadMap, lane: Lane) -> bool:
    """Say whether the road ends left of a lane: on a one-way road."""
    return abs(lane.lane_id) == 1 and not road_map.has_lane(lane.road_id, lane.section_id,
                                                            -lane.lane_id)


def _random_box(lane: Lane, at: float, side: float, rng: np.random.Generator) -> RoadsideBox:
    """Return a box to the right (side -1) or left (1) of a lane, turned roughly along it."""
    kind: RoadsideKind = ('post', 'tree', 'building')[int(rng.choice(3, p=(0.35, 0.4, 0.25)))]
    if kind == 'post':
        length = width = float(rng.uniform(0.15, 0.3))
        height, gap = float(rng.uniform(1.0, 6.0)), float(rng.uniform(1.8, 3.0))
    elif kind == 'tree':
        length = width = float(rng.uniform(0.8, 3.0))
        height, gap = float(rng.uniform(2.5, 9.0)), float(rng.uniform(2.0, 12.0))
    else:
        length, width = float(rng.uniform(6.0, 18.0)), float(rng.uniform(5.0, 12.0))
        height, gap = float(rng.uniform(3.0, 14.0)), float(rng.uniform(3.0, 15.0))
    pose = lane.pose_at(at)
    edge = float(np.interp(at, lane.distances, lane.widths)) / 2.0
    aside = side * (edge + gap + width / 2.0)
    return RoadsideBox(pose.x - aside * math.sin(pose.yaw), pose.y + aside * math.cos(pose.yaw),
                       pose.yaw + float(rng.normal(0.0, 0.1)), length, width, height, kind)


def _outline(box: RoadsideBox) -> FloatArray:
    """Return points (N, 2) round a box's footprint, at most 1 m apart, and its middle."""
    along = np.linspace(-0.5, 0.5, math.ceil(box.length) + 1) * box.length
    across = np.linspace(-0.5, 0.5, math.ceil(box.width) + 1) * box.width
    local = np.concatenate([
        [(0.0, 0.0)],
        *(np.stack([along, np.full_like(along, side * box.width)], axis=1)
          for side in (-0.5, 0.5)),
        *(np.stack([np.full_like(across, side * box.length), across], axis=1)
          for side in (-0.5, 0.5))])
    cosine, sine = math.cos(box.yaw), math.sin(box.yaw)
    outline: FloatArray = local @ np.array([[cosine, sine], [-sine, cosine]]) + (box.x, box.y)
    return outline
