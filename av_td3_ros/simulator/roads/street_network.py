"""Streets between nodes as OpenDRIVE: where three or more meet there is a junction."""
from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from scenariogeneration import xodr

from av_td3_ros.simulator.roads.drawing import RoadStyle, lane, lanes, plan_view
from av_td3_ros.simulator.roads.reference_line import (
    Corner,
    MapMakerError,
    Piece,
    Point,
    along,
    heading_to,
    largest_radius,
    rounded_polyline,
)

CONNECTIONS, JUNCTIONS = 100, 1000  # what their ids begin with, above those of the streets


@dataclasses.dataclass(frozen=True)
class Street:
    """Hold a street: the names of the nodes it joins and its corners in between."""

    start: str
    end: str
    corners: tuple[Corner, ...] = ()


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


def draw_streets(drawing: xodr.OpenDrive, nodes: Mapping[str, Point], streets: Sequence[Street],
                 style: RoadStyle, junction_reach: float, first_id: int = 0) -> None:
    """
    Add streets to a drawing; junctions reach `junction_reach` m out of their nodes.

    A node of one street is a dead end. Ids are numbered from `first_id`. Raises MapMakerError for
    a node of two streets, for radii larger than the straights allow, and for a junction of streets
    with more or less than one lane a direction.
    """
    meeting = Counter(node for street in streets for node in (street.start, street.end))
    reach = {node: junction_reach if meeting[node] > 1 else 0.0 for node in nodes}
    junction_ids = {node: first_id + JUNCTIONS + index for index, node in enumerate(nodes)
                    if meeting[node] > 1}
    _check(meeting, style)
    arms: dict[str, list[_Arm]] = {node: [] for node in nodes}
    for index, street in enumerate(streets, start=first_id):
        pieces, first, last = _street_line(nodes, street, reach)
        road = xodr.Road(index, plan_view(pieces), lanes(style),
                         name=f'{street.start}-{street.end}')
        if street.start in junction_ids:
            road.add_predecessor(xodr.ElementType.junction, junction_ids[street.start])
        if street.end in junction_ids:
            road.add_successor(xodr.ElementType.junction, junction_ids[street.end])
        drawing.add_road(road)
        arms[street.start].append(_Arm(index, xodr.ContactPoint.start,
                                       along(nodes[street.start], first, reach[street.start]),
                                       first))
        arms[street.end].append(_Arm(index, xodr.ContactPoint.end,
                                     along(nodes[street.end], last, reach[street.end]), last))

    road_id = first_id + CONNECTIONS
    for node, junction_id in junction_ids.items():
        junction = xodr.Junction(node, junction_id)
        for source in arms[node]:
            turns = {arm: math.remainder(arm.away - source.away - math.pi, math.tau)
                     for arm in arms[node] if arm is not source}
            rightmost = min(turns, key=lambda arm: turns[arm])
            for target, turn in turns.items():
                radius = largest_radius(junction_reach - 0.5, turn) if abs(turn) > 1e-4 else 0.0
                corners = [Corner(*nodes[node], radius)] if radius else []
                drawing.add_road(_connecting_road(
                    road_id, rounded_polyline(source.mouth, corners, target.mouth), source,
                    target, junction_id, style, kerb=target is rightmost))
                link = xodr.Connection(source.road, road_id, xodr.ContactPoint.start)
                junction.add_connection(link.add_lanelink(source.lane_in, -1))
                road_id += 1
        drawing.add_junction(junction)


def _check(meeting: Mapping[str, int], style: RoadStyle) -> None:
    """Raise MapMakerError for what cannot be drawn."""
    for node, count in meeting.items():
        if count == 2:
            raise MapMakerError(f'node {node} has 2 streets, a junction needs three; draw a bend '
                                'as a corner of one street')
        if count > 2 and (style.forward, style.backward) != (1, 1):
            raise MapMakerError(f'junction {node}: streets of {style.forward} lanes along and '
                                f'{style.backward} against cannot meet; use one a direction')


def _street_line(nodes: Mapping[str, Point], street: Street, reach: Mapping[str, float]
                 ) -> tuple[list[Piece], float, float]:
    """Return the line of a street between its mouths and its headings away from both nodes."""
    start, end = nodes[street.start], nodes[street.end]
    via = [(corner.x, corner.y) for corner in street.corners]
    first, last = heading_to(start, (*via, end)[0]), heading_to(end, (start, *via)[-1])
    try:
        pieces = rounded_polyline(along(start, first, reach[street.start]), street.corners,
                                  along(end, last, reach[street.end]))
    except MapMakerError as error:
        raise MapMakerError(f'{street.start}-{street.end}: {error}') from error
    return pieces, first, last


def _connecting_road(road_id: int, pieces: Iterable[Piece], source: _Arm, target: _Arm,
                     junction: int, style: RoadStyle, kerb: bool) -> xodr.Road:
    """Return the one-way road through a junction; only its kerb, if any, is painted."""
    through = lane(style.lane_width, style.edge if kerb else 'none')
    through.add_link('predecessor', source.lane_in).add_link('successor', target.lane_out)
    section = xodr.LaneSection(0, xodr.standard_lane())
    section.centerlane.roadmark = []
    road = xodr.Road(road_id, plan_view(pieces),
                     xodr.Lanes().add_lanesection(section.add_right_lane(through)), junction)
    road.add_predecessor(xodr.ElementType.road, source.road, source.contact)
    road.add_successor(xodr.ElementType.road, target.road, target.contact)
    return road
