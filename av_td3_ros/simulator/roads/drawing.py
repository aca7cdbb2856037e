"""Roads as OpenDRIVE: their lanes and markings, the lines they follow, and the text of a map."""
from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Literal

from scenariogeneration import xodr

from av_td3_ros.simulator.roads.reference_line import Piece

MARKING_WIDTH = 0.15
# Where the maps lie on the earth matters to GNSS only; CARLA wants to be told.
GEO_REFERENCE = '+proj=tmerc +lat_0=49 +lon_0=8 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs'

Paint = Literal['broken', 'solid', 'none']


@dataclasses.dataclass(frozen=True)
class RoadStyle:
    """
    Hold a road's cross-section: lanes along and against its line, their width in m, its paint.

    `centre` is painted on the reference line, `edge` on both outer sides (on a one-way road the
    reference line is one of them); lanes of the same direction are parted by a broken line.
    """

    lane_width: float = 3.5
    forward: int = 1
    backward: int = 1
    centre: Paint = 'broken'
    edge: Paint = 'solid'

    @property
    def width(self) -> float:
        """Return the width of the road in m."""
        return (self.forward + self.backward) * self.lane_width

    @property
    def outermost(self) -> float:
        """Return how far the centre of the outermost lane is from the reference line in m."""
        return (max(self.forward, self.backward) - 0.5) * self.lane_width


def new_drawing(name: str) -> xodr.OpenDrive:
    """Return a map without roads."""
    return xodr.OpenDrive(name, geo_reference=GEO_REFERENCE)


def opendrive_text(drawing: xodr.OpenDrive) -> str:
    """Return the OpenDRIVE text of a drawing, without the date it was made."""
    root = drawing.get_element()
    header = root.find('header')
    assert header is not None
    del header.attrib['date']
    ET.indent(root, space=' ')
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, 'unicode') + '\n'


def lanes(style: RoadStyle) -> xodr.Lanes:
    """Return the lanes of a road, to the right along its line and to the left against it."""
    centre = xodr.Lane(xodr.LaneType.none)
    centre.add_roadmark(_marking(style.centre if style.backward else style.edge))
    section = xodr.LaneSection(0, centre)
    for count, add in ((style.backward, section.add_left_lane),
                       (style.forward, section.add_right_lane)):
        for index in range(count):
            add(lane(style.lane_width, style.edge if index == count - 1 else 'broken'))
    return xodr.Lanes().add_lanesection(section)


def lane(width: float, outer: Paint) -> xodr.Lane:
    """Return a driving lane with what is painted on its side away from the reference line."""
    drawn = xodr.Lane(xodr.LaneType.driving, a=width)
    drawn.add_roadmark(_marking(outer))
    return drawn


def plan_view(pieces: Iterable[Piece]) -> xodr.PlanView:
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


def _marking(paint: Paint) -> xodr.RoadMark:
    change = xodr.LaneChange.both if paint == 'broken' else xodr.LaneChange.none
    return xodr.RoadMark(xodr.RoadMarkType[paint], width=MARKING_WIDTH,
                         color=xodr.RoadMarkColor.white, laneChange=change)
