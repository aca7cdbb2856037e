"""
Make the OpenDRIVE maps of config/maps: `python -m av_td3_ros.simulator.roads.map_maker --out DIR`.

Every number written is rounded and the files bear no date: the same code writes the same bytes.
"""
from __future__ import annotations

import argparse
import functools
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scenariogeneration import xodr

from av_td3_ros.simulator.roads.drawing import (
    RoadStyle,
    lanes,
    new_drawing,
    opendrive_text,
    plan_view,
)
from av_td3_ros.simulator.roads.generator import RoadSettings, generate
from av_td3_ros.simulator.roads.reference_line import (
    Corner,
    MapMakerError,
    Point,
    along,
    heading_to,
    largest_radius,
    rounded_polyline,
    tangent_length,
    turn_at,
)
from av_td3_ros.simulator.roads.street_network import Street, draw_streets

# The maps of train and test are of the same kind and share no road.
GENERATED = {
    'train/roads': (1001, RoadSettings(roads=48)),
    'train/streets': (1002, RoadSettings(roads=12, junctions=12)),
    'test/roads_a': (2001, RoadSettings(roads=16)),
    'test/roads_b': (2002, RoadSettings(roads=16)),
    'test/streets': (2003, RoadSettings(roads=4, junctions=6)),
}


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
    turns = [turn_at(points[i - 1], points[i], points[(i + 1) % count]) for i in range(count)]
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
    drawing = new_drawing('town')
    draw_streets(drawing, nodes, streets, RoadStyle(), junction_reach=21.0)
    return drawing


MAPS: dict[str, Callable[[], xodr.OpenDrive]] = {
    'loop': loop, 'winding': winding, 'town': town,
    **{name: functools.partial(generate, name, settings, seed)
       for name, (seed, settings) in GENERATED.items()}}


def write_maps(directory: Path) -> list[Path]:
    """Write every map of MAPS into `directory` and return the files."""
    files = []
    for name, make in MAPS.items():
        file = directory / f'{name}.xodr'
        file.parent.mkdir(parents=True, exist_ok=True)
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
    turns = [turn_at(points[i - 1], points[i], points[(i + 1) % count]) for i in range(count)]
    cuts = [tangent_length(corner.radius, turn)
            for corner, turn in zip(corners, turns, strict=True)]
    joints = [along(points[i - 1], heading_to(points[i - 1], points[i]),
                    (math.dist(points[i - 1], points[i]) + cuts[i - 1] - cuts[i]) / 2.0)
              for i in range(count)]
    drawing = new_drawing(name)
    for i, corner in enumerate(corners):
        try:
            pieces = rounded_polyline(joints[i], [corner], joints[(i + 1) % count])
        except MapMakerError as error:
            raise MapMakerError(f'{name}, corner {i}: {error}') from error
        sides = lanes(RoadStyle())
        for lane in (sides.lanesections[0].leftlanes[0], sides.lanesections[0].rightlanes[0]):
            for link in ('predecessor', 'successor'):
                lane.add_link(link, lane.lane_id)
        road = xodr.Road(i, plan_view(pieces), sides, name=f'{name} {i}')
        road.add_predecessor(xodr.ElementType.road, (i - 1) % count, xodr.ContactPoint.end)
        road.add_successor(xodr.ElementType.road, (i + 1) % count, xodr.ContactPoint.start)
        drawing.add_road(road)
    return drawing


if __name__ == '__main__':
    sys.exit(main())
