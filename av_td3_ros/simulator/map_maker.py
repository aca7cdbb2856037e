"""
Make the OpenDRIVE maps of config/maps: `python -m av_td3_ros.simulator.map_maker --out DIR`.

A road's reference line is a polyline whose corners are rounded by spiral, arc and spiral, so that
its curvature is continuous. Every number written is rounded and the files bear no date: the same
code writes the same bytes.
"""
from __future__ import annotations

import argparse
import dataclasses
import math
import random
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from scenariogeneration import xodr

LANE_WIDTH = 3.5
MARKING_WIDTH = 0.15
# Where the maps lie on the earth matters to GNSS only; CARLA wants to be told.
GEO_REFERENCE = '+proj=tmerc +lat_0=49 +lon_0=8 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs'

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Corner:
    """Hold a corner of a polyline in m and the radius in m that rounds it."""

    x: float
    y: float
    radius: float


@dataclasses.dataclass(frozen=True)
class Piece:
    """Hold one geometry of a reference line: its start pose, length and curvatures in 1/m."""

    x: float
    y: float
    heading: float
    length: float
    start_curvature: float = 0.0
    end_curvature: float = 0.0


@dataclasses.dataclass(frozen=True)
class Street:
    """Hold a street of a town: the names of the nodes it joins and its corners in between."""

    start: str
    end: str
    corners: tuple[Corner, ...] = ()


class MapMakerError(ValueError):
    """Report a map that cannot be built as drawn."""


def rounded_polyline(start: Point, corners: Sequence[Corner], end: Point) -> list[Piece]:
    """
    Return the pieces of the line from `start` by the `corners` to `end`.

    Raises MapMakerError when two roundings need more of a straight than it is long.
    """
    vertices = [start, *((corner.x, corner.y) for corner in corners), end]
    pieces: list[Piece] = []
    used = 0.0
    for index, corner in enumerate(corners, start=1):
        before = _heading(vertices[index - 1], vertices[index])
        turn = _turn(*vertices[index - 1:index + 2])
        cut = tangent_length(corner.radius, turn)
        pieces += _straight(vertices[index - 1], vertices[index], used, cut)
        pieces += _rounding(vertices[index], before, turn, corner.radius)
        used = cut
    return pieces + _straight(vertices[-2], vertices[-1], used, 0.0)


def tangent_length(radius: float, turn: float) -> float:
    """Return how much of each straight (m) the rounding of a corner by `turn` rad takes."""
    if abs(turn) < 1e-6:
        return 0.0
    length = _spiral_length(radius, turn)
    x, y = _spiral_end(length, radius)
    half = length / (2.0 * radius)
    shift = y - radius * (1.0 - math.cos(half))
    return (radius + shift) * math.tan(abs(turn) / 2.0) + x - radius * math.sin(half)


def largest_radius(room: float, turn: float) -> float:
    """Return the largest radius in m whose rounding takes at most `room` m of each straight."""
    low, high = 0.0, 10_000.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if tangent_length(middle, turn) <= room else (low, middle)
    return math.floor(low * 100.0) / 100.0


def loop() -> xodr.OpenDrive:
    """Return a closed loop of some 800 m with lines and curves of both directions."""
    corners = [Corner(0, 0, 30), Corner(130, -15, 35), Corner(215, 55, 20), Corner(170, 125, 25),
               Corner(235, 205, 32), Corner(120, 260, 40), Corner(75, 165, 25),
               Corner(-15, 215, 22), Corner(-75, 125, 35), Corner(-5, 85, 18)]
    return _circuit('loop', corners)


def winding(seed: int = 101) -> xodr.OpenDrive:
    """Return a closed circuit of 2.5-4 km that winds both ways with radii of 15 to 100 m."""
    return _circuit('winding', winding_corners(seed))


def winding_corners(seed: int) -> list[Corner]:
    """Return the corners of a winding circuit: a star whose points lie at random in and out."""
    chance = random.Random(seed)
    count = 26
    shares = [chance.uniform(0.5, 1.6) for _ in range(count)]
    points: list[Point] = []
    angle = 0.0
    for index, share in enumerate(shares):
        angle += math.tau * share / sum(shares)
        reach = 360.0 + (1 if index % 2 else -1) * chance.uniform(5.0, 70.0)
        points.append((round(reach * math.cos(angle), 1), round(reach * math.sin(angle), 1)))
    turns = [_turn(points[i - 1], points[i], points[(i + 1) % count]) for i in range(count)]
    # Radii are wished for evenly on a logarithmic scale, then cut to the straights' length.
    wishes = [min(100.0, 15.0 * (110.0 / 15.0) ** chance.random()) for _ in range(count)]
    corners: list[Corner] = []
    for i in range(count):
        room: list[float] = []
        for j in (i - 1, (i + 1) % count):
            mine, other = (tangent_length(wishes[k], turns[k]) for k in (i, j))
            straight = math.dist(points[i], points[j]) - 4.0
            room.append(mine if mine + other <= straight else straight * mine / (mine + other))
        radius = min(wishes[i], largest_radius(min(room), turns[i]))
        corners.append(Corner(*points[i], math.floor(radius * 2.0) / 2.0))
    return corners


def town() -> xodr.OpenDrive:
    """Return a small town: crooked blocks, eight junctions of three or four two-way streets."""
    nodes = {'b1': (105.0, 0.0), 'c1': (215.0, 6.0),
             'a2': (4.0, 95.0), 'b2': (110.0, 102.0), 'c2': (208.0, 98.0), 'd2': (318.0, 92.0),
             'b3': (100.0, 206.0), 'c3': (212.0, 196.0)}
    streets = [
        Street('a2', 'b1', (Corner(0, -4, 24),)),
        Street('b1', 'c1', (Corner(160, -5, 60),)),
        Street('c1', 'd2', (Corner(322, 0, 20),)),
        Street('a2', 'b2'),
        Street('b2', 'c2', (Corner(158, 108, 50),)),
        Street('c2', 'd2'),
        Street('a2', 'b3', (Corner(-2, 200, 30),)),
        Street('b3', 'c3'),
        Street('c3', 'd2', (Corner(310, 202, 25),)),
        Street('b1', 'b2'),
        Street('c1', 'c2'),
        Street('b2', 'b3', (Corner(113, 154, 40),)),
        Street('c2', 'c3'),
    ]
    return _town('town', nodes, streets, junction_reach=21.0)


MAPS: dict[str, Callable[[], xodr.OpenDrive]] = {'loop': loop, 'winding': winding, 'town': town}


def opendrive_text(drawing: xodr.OpenDrive) -> str:
    """Return the OpenDRIVE text of a drawing, without the date it was made."""
    root = drawing.get_element()
    header = root.find('header')
    assert header is not None
    del header.attrib['date']
    ET.indent(root, space=' ')
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, 'unicode') + '\n'


def write_maps(directory: Path) -> list[Path]:
    """Write every map of MAPS into `directory` and return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, make in MAPS.items():
        file = directory / f'{name}.xodr'
        file.write_text(opendrive_text(make()), encoding='utf-8', newline='\n')
        files.append(file)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the maps and say where they are."""
    parser = argparse.ArgumentParser(description='Make the OpenDRIVE maps.')
    parser.add_argument('--out', type=Path, default=Path('config/maps'), metavar='DIR',
                        help='where the maps go (default: config/maps)')
    for file in write_maps(parser.parse_args(arguments).out):
        print(file)
    return 0


def _circuit(name: str, corners: Sequence[Corner]) -> xodr.OpenDrive:
    """Return a closed circuit, one road from each straight to the next."""
    count = len(corners)
    points = [(corner.x, corner.y) for corner in corners]
    cuts = [tangent_length(corner.radius, _turn(points[i - 1], points[i], points[(i + 1) % count]))
            for i, corner in enumerate(corners)]
    joints = [_along(points[i - 1], _heading(points[i - 1], points[i]),
                     (math.dist(points[i - 1], points[i]) + cuts[i - 1] - cuts[i]) / 2.0)
              for i in range(count)]
    drawing = xodr.OpenDrive(name, geo_reference=GEO_REFERENCE)
    for i, corner in enumerate(corners):
        try:
            pieces = rounded_polyline(joints[i], [corner], joints[(i + 1) % count])
        except MapMakerError as error:
            raise MapMakerError(f'{name}, corner {i}: {error}') from error
        lanes = _two_way_lanes()
        for lane in (lanes.lanesections[0].leftlanes[0], lanes.lanesections[0].rightlanes[0]):
            for link in ('predecessor', 'successor'):
                lane.add_link(link, lane.lane_id)
        road = xodr.Road(i, _plan_view(pieces), lanes, name=f'{name} {i}')
        road.add_predecessor(xodr.ElementType.road, (i - 1) % count, xodr.ContactPoint.end)
        road.add_successor(xodr.ElementType.road, (i + 1) % count, xodr.ContactPoint.start)
        drawing.add_road(road)
    return drawing


@dataclasses.dataclass(frozen=True)
class _Arm:
    """Hold where a street meets a junction: its road, contact, mouth and direction away."""

    road: int
    contact: xodr.ContactPoint
    mouth: Point
    away: float

    @property
    def lane_in(self) -> int:
        return -1 if self.contact == xodr.ContactPoint.end else 1

    @property
    def lane_out(self) -> int:
        return -self.lane_in


def _town(name: str, nodes: dict[str, Point], streets: Sequence[Street],
          junction_reach: float) -> xodr.OpenDrive:
    """Return streets between nodes; a node is a junction that reaches `junction_reach` m out."""
    drawing = xodr.OpenDrive(name, geo_reference=GEO_REFERENCE)
    junction_ids = {node: 1000 + index for index, node in enumerate(nodes)}
    arms: dict[str, list[_Arm]] = {node: [] for node in nodes}
    for index, street in enumerate(streets):
        start, end = nodes[street.start], nodes[street.end]
        via = [(corner.x, corner.y) for corner in street.corners]
        first, last = _heading(start, (*via, end)[0]), _heading(end, (start, *via)[-1])
        mouths = _along(start, first, junction_reach), _along(end, last, junction_reach)
        try:
            pieces = rounded_polyline(mouths[0], street.corners, mouths[1])
        except MapMakerError as error:
            raise MapMakerError(f'{name}, {street.start}-{street.end}: {error}') from error
        road = xodr.Road(index, _plan_view(pieces), _two_way_lanes(),
                         name=f'{street.start}-{street.end}')
        road.add_predecessor(xodr.ElementType.junction, junction_ids[street.start])
        road.add_successor(xodr.ElementType.junction, junction_ids[street.end])
        drawing.add_road(road)
        arms[street.start].append(_Arm(index, xodr.ContactPoint.start, mouths[0], first))
        arms[street.end].append(_Arm(index, xodr.ContactPoint.end, mouths[1], last))

    road_id = 100
    for node, around in arms.items():
        if len(around) < 3:
            raise MapMakerError(f'{name}: node {node} has {len(around)} streets, a junction '
                                'needs three; draw a bend as a corner of one street')
        junction = xodr.Junction(node, junction_ids[node])
        for source in around:
            turns = {arm: math.remainder(arm.away - source.away - math.pi, math.tau)
                     for arm in around if arm is not source}
            rightmost = min(turns, key=lambda arm: turns[arm])
            for target, turn in turns.items():
                radius = largest_radius(junction_reach - 0.5, turn) if abs(turn) > 1e-4 else 0.0
                corners = [Corner(*nodes[node], radius)] if radius else []
                drawing.add_road(_connecting_road(
                    road_id, rounded_polyline(source.mouth, corners, target.mouth), source,
                    target, junction_ids[node], kerb=target is rightmost))
                link = xodr.Connection(source.road, road_id, xodr.ContactPoint.start)
                junction.add_connection(link.add_lanelink(source.lane_in, -1))
                road_id += 1
        drawing.add_junction(junction)
    return drawing


def _connecting_road(road_id: int, pieces: Iterable[Piece], source: _Arm, target: _Arm,
                     junction: int, kerb: bool) -> xodr.Road:
    """Return the one-way road through a junction; only its kerb, if any, is painted."""
    lane = _lane(xodr.RoadMarkType.solid if kerb else None)
    lane.add_link('predecessor', source.lane_in).add_link('successor', target.lane_out)
    section = xodr.LaneSection(0, xodr.standard_lane())
    section.centerlane.roadmark = []
    road = xodr.Road(road_id, _plan_view(pieces),
                     xodr.Lanes().add_lanesection(section.add_right_lane(lane)), junction)
    road.add_predecessor(xodr.ElementType.road, source.road, source.contact)
    road.add_successor(xodr.ElementType.road, target.road, target.contact)
    return road


def _two_way_lanes() -> xodr.Lanes:
    """Return one lane a direction between solid edges, with a broken line in the middle."""
    centre = xodr.Lane(xodr.LaneType.none)
    centre.add_roadmark(_marking(xodr.RoadMarkType.broken))
    section = xodr.LaneSection(0, centre)
    section.add_left_lane(_lane(xodr.RoadMarkType.solid))
    section.add_right_lane(_lane(xodr.RoadMarkType.solid))
    return xodr.Lanes().add_lanesection(section)


def _lane(outer: xodr.RoadMarkType | None) -> xodr.Lane:
    lane = xodr.Lane(xodr.LaneType.driving, a=LANE_WIDTH)
    lane.add_roadmark(_marking(outer if outer is not None else xodr.RoadMarkType.none))
    return lane


def _marking(kind: xodr.RoadMarkType) -> xodr.RoadMark:
    change = (xodr.LaneChange.both if kind == xodr.RoadMarkType.broken else xodr.LaneChange.none)
    return xodr.RoadMark(kind, width=MARKING_WIDTH, color=xodr.RoadMarkColor.white,
                         laneChange=change)


def _plan_view(pieces: Iterable[Piece]) -> xodr.PlanView:
    """Return the reference line of a road, with every number rounded to what is written."""
    view = xodr.PlanView()
    s = 0.0
    for piece in pieces:
        length = round(piece.length, 6)
        first, last = round(piece.start_curvature, 9), round(piece.end_curvature, 9)
        geometry: xodr.Line | xodr.Arc | xodr.Spiral
        if first == last == 0.0:
            geometry = xodr.Line(length)
        elif first == last:
            geometry = xodr.Arc(first, length=length)
        else:
            geometry = xodr.Spiral(first, last, length=length)
        view.add_fixed_geometry(geometry, round(piece.x, 6), round(piece.y, 6),
                                round(piece.heading % math.tau, 9), s)
        s = round(s + length, 6)
    return view


def _straight(start: Point, end: Point, cut_start: float, cut_end: float) -> list[Piece]:
    """Return the line between two points less what the roundings at its ends take."""
    length = math.dist(start, end) - cut_start - cut_end
    if length < -1e-6:
        raise MapMakerError(f'the straight from {start} to {end} is {-length:.1f} m too short '
                            'for the radii at its ends; use smaller radii')
    if length < 0.01:
        return []
    heading = _heading(start, end)
    return [Piece(*_along(start, heading, cut_start), heading, length)]


def _rounding(corner: Point, heading: float, turn: float, radius: float) -> list[Piece]:
    """Return spiral, arc and spiral round a corner that is reached on `heading`."""
    if abs(turn) < 1e-6:
        return []
    curvature = math.copysign(1.0 / radius, turn)
    length = _spiral_length(radius, turn)
    start = _along(corner, heading, -tangent_length(radius, turn))
    ahead, aside = _spiral_end(length, radius)
    aside = math.copysign(aside, turn)
    arc_start = _along(_along(start, heading, ahead), heading + math.pi / 2.0, aside)
    arc_heading = heading + curvature * length / 2.0
    arc_length = (abs(turn) - length / radius) * radius
    arc_end = _along(arc_start, arc_heading + curvature * arc_length / 2.0,
                     2.0 * radius * math.sin(arc_length / radius / 2.0))
    return [Piece(*start, heading, length, 0.0, curvature),
            Piece(*arc_start, arc_heading, arc_length, curvature, curvature),
            Piece(*arc_end, arc_heading + curvature * arc_length, length, curvature, 0.0)]


def _spiral_length(radius: float, turn: float) -> float:
    """Return a length in m for the spirals of a corner: two thirds of the turn stay arc."""
    return min(0.5 * radius, abs(turn) * radius / 3.0, 20.0)


def _spiral_end(length: float, radius: float) -> Point:
    """Return where a left spiral from curvature 0 to 1/radius ends, in its start's frame."""
    steps = 64
    x = y = 0.0
    for i in range(steps + 1):
        s = length * i / steps
        heading = s * s / (2.0 * radius * length)
        weight = 1.0 if i in (0, steps) else 4.0 if i % 2 else 2.0
        x += weight * math.cos(heading)
        y += weight * math.sin(heading)
    return x * length / steps / 3.0, y * length / steps / 3.0


def _along(start: Point, heading: float, distance: float) -> Point:
    return (start[0] + distance * math.cos(heading), start[1] + distance * math.sin(heading))


def _turn(before: Point, corner: Point, after: Point) -> float:
    """Return by how much a polyline turns at its corner, in rad, left positive."""
    return math.remainder(_heading(corner, after) - _heading(before, corner), math.tau)


def _heading(start: Point, end: Point) -> float:
    return math.atan2(end[1] - start[1], end[0] - start[0])


if __name__ == '__main__':
    sys.exit(main())
