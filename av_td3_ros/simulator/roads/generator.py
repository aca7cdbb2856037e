"""
Draw maps of many roads from a seed: each road differs, no two meet, and all can be driven.

A ROS session, like a CARLA server, has one map at a time: so one map holds the many roads that a
policy has to see, each so far from the next that the camera does not see the other.
"""
from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator

import numpy as np
from scenariogeneration import xodr
from scipy.spatial import cKDTree

from av_td3_ros.driving.route.geometry import FloatArray, arc_lengths
from av_td3_ros.settings import check, setting
from av_td3_ros.simulator.roads.drawing import RoadStyle, new_drawing
from av_td3_ros.simulator.roads.reference_line import (
    Corner,
    MapMakerError,
    Point,
    along,
    rounded_polyline,
    rounding_length,
    tangent_length,
    traced,
)
from av_td3_ros.simulator.roads.street_network import Street, draw_streets

GAP = 120.0             # m between two plots; the camera's draw_distance is 110 m
ROADSIDE = 20.0         # m between two parts of one road, for what stands beside it
TURNS = (0.35, 1.9)     # rad by which a curve turns: 20 to 109 degrees
LONGEST_CURVE = 130.0   # m
STRAIGHTS = (2.0, 60.0)  # m between two curves
S_CURVES = 0.35         # share of the curves that follow the last one at once
ARM_LENGTHS = (130.0, 200.0)  # m; with two of them, 150 m can be driven from any way in
JUNCTION_RADIUS = 8.0   # m, tightest lane in a junction
SLANT = 0.2             # rad by which an arm of a junction is off its even share of the circle
IDS = 2000              # ids of roads and junctions that a plot has to itself
ATTEMPTS = 500          # drawings of one plot until none of its roads comes near another

# What a road may be, dealt like cards, so that no kind is rare on any map.
TWO_WAY = tuple(RoadStyle(centre=centre, edge=edge)
                for centre in ('broken', 'solid', 'none') for edge in ('solid', 'none'))
ONE_WAY = tuple(RoadStyle(backward=0, edge=edge) for edge in ('solid', 'none'))
FOUR_LANES = tuple(RoadStyle(forward=2, backward=2, centre='solid', edge=edge)
                   for edge in ('solid', 'none'))
ROAD_STYLES = (*TWO_WAY, *ONE_WAY, *ONE_WAY, *FOUR_LANES)


@dataclasses.dataclass(frozen=True)
class RoadSettings:
    """Say what roads a map holds. A radius is that of the centre of the innermost lane."""

    roads: int = setting(16, 'roads that meet no other', minimum=0, maximum=500)
    junctions: int = setting(0, 'junctions of three or four streets, each apart from all others',
                             minimum=0, maximum=500)
    min_length: float = setting(250.0, 'shortest road in m', minimum=60.0, maximum=2000.0)
    max_length: float = setting(450.0, 'longest road in m', minimum=60.0, maximum=2000.0)
    min_radius: float = setting(15.0, 'radius of the tightest curves in m', minimum=8.0,
                                maximum=1000.0)
    max_radius: float = setting(100.0, 'radius of the widest curves in m', minimum=8.0,
                                maximum=1000.0)
    min_lane_width: float = setting(2.8, 'width of the narrowest lanes in m', minimum=2.5,
                                    maximum=6.0)
    max_lane_width: float = setting(4.0, 'width of the widest lanes in m', minimum=2.5,
                                    maximum=6.0)

    def __post_init__(self) -> None:
        """Refuse an empty range and a map without a road."""
        for name in ('length', 'radius', 'lane_width'):
            low, high = getattr(self, f'min_{name}'), getattr(self, f'max_{name}')
            if high < low:
                raise ValueError(f'max_{name} = {high:g} is below min_{name} = {low:g}; raise the '
                                 'one or lower the other')
        if self.roads + self.junctions == 0:
            raise ValueError('roads = 0 and junctions = 0 leave the map empty; ask for one of '
                             'them at least')


@dataclasses.dataclass(frozen=True)
class Plot:
    """Hold what lies in one plot, round the origin: nodes in m, streets, and their style."""

    nodes: dict[str, Point]
    streets: tuple[Street, ...]
    style: RoadStyle
    junction_reach: float = 0.0

    def lines(self) -> list[FloatArray]:
        """Return the reference lines from node to node, points (N, 2) at most 1 m apart."""
        return [traced(rounded_polyline(self.nodes[street.start], street.corners,
                                        self.nodes[street.end])) for street in self.streets]

    def moved(self, by: FloatArray) -> Plot:
        """Return the plot moved by (x, y) m."""
        x, y = map(float, by)
        return dataclasses.replace(
            self, nodes={name: (at[0] + x, at[1] + y) for name, at in self.nodes.items()},
            streets=tuple(dataclasses.replace(street, corners=tuple(
                Corner(corner.x + x, corner.y + y, corner.radius) for corner in street.corners))
                for street in self.streets))


def generate(name: str, settings: RoadSettings, seed: int) -> xodr.OpenDrive:
    """
    Draw a map called `name`; the same settings and seed give the same map.

    Raises ValueError for settings out of range and MapMakerError when no road of them fits.
    """
    drawing = new_drawing(name)
    for index, plot in enumerate(plots(settings, seed)):
        draw_streets(drawing, plot.nodes, plot.streets, plot.style, plot.junction_reach,
                     first_id=IDS * index)
    return drawing


def plots(settings: RoadSettings, seed: int) -> list[Plot]:
    """Return the roads and then the junctions of a map, in rows round the origin."""
    check(settings, 'roads')
    if seed < 0:
        raise ValueError(f'seed = {seed} is negative; give 0 or more')
    chance = random.Random(seed)
    road_styles, street_styles = _dealt(ROAD_STYLES, chance), _dealt(TWO_WAY, chance)
    made = [_clear_plot(settings, f'road {index}', next(road_styles), 1, chance)
            for index in range(settings.roads)]
    made += [_clear_plot(settings, f'junction {index}', next(street_styles), 3 + index % 2, chance)
             for index in range(settings.junctions)]
    return _in_rows(made)


def _dealt(styles: tuple[RoadStyle, ...], chance: random.Random) -> Iterator[RoadStyle]:
    while True:
        yield from chance.sample(styles, len(styles))


def _clear_plot(settings: RoadSettings, name: str, style: RoadStyle, arms: int,
                chance: random.Random) -> Plot:
    """Return a road (one arm) or a junction, drawn until no part of it comes near another."""
    width = round(chance.uniform(settings.min_lane_width, settings.max_lane_width), 2)
    style = dataclasses.replace(style, lane_width=width)
    for _ in range(ATTEMPTS):
        plot = (_road(settings, name, style, chance) if arms == 1
                else _junction(settings, name, style, arms, chance))
        if _is_clear(plot):
            return plot
    raise MapMakerError(
        f'{name}: in {ATTEMPTS} attempts no line of up to {settings.max_length:g} m with curves '
        f'of {settings.min_radius:g} to {settings.max_radius:g} m kept clear of itself; ask for '
        'shorter roads or wider curves')


def _road(settings: RoadSettings, name: str, style: RoadStyle, chance: random.Random) -> Plot:
    """Return a road that begins and ends in the open."""
    length = chance.uniform(settings.min_length, settings.max_length)
    corners, end = _wander(settings, style, chance.uniform(-math.pi, math.pi), length, 0.0, chance)
    return Plot({f'{name} start': (0.0, 0.0), f'{name} end': end},
                (Street(f'{name} start', f'{name} end', corners),), style)


def _junction(settings: RoadSettings, name: str, style: RoadStyle, arms: int,
              chance: random.Random) -> Plot:
    """Return three or four streets that meet in the origin and end in the open."""
    share = math.tau / 4.0 if arms == 4 or chance.random() < 0.5 else math.tau / 3.0
    heading = chance.uniform(-math.pi, math.pi)
    headings = [heading + share * arm + chance.uniform(-SLANT, SLANT) for arm in range(arms)]
    # The sharper an arm leans to the next, the farther out the turn between them has to begin.
    between = [after - before for before, after in itertools.pairwise(headings)]
    between.append(math.tau - sum(between))
    radius = JUNCTION_RADIUS + style.outermost
    reach = max(tangent_length(radius, math.pi - angle) for angle in between if angle < math.pi)
    reach = math.ceil(reach) + 1.0
    nodes, streets = {name: (0.0, 0.0)}, []
    for index, away in enumerate(headings):
        length = chance.uniform(*ARM_LENGTHS)
        corners, end = _wander(settings, style, away, length, reach + STRAIGHTS[0], chance)
        nodes[f'{name} arm {index}'] = end
        streets.append(Street(name, f'{name} arm {index}', corners))
    return Plot(nodes, tuple(streets), style, reach)


def _wander(settings: RoadSettings, style: RoadStyle, heading: float, length: float,
            straight: float, chance: random.Random) -> tuple[tuple[Corner, ...], Point]:
    """Return corners and end of a line of `length` m from the origin, straight at first."""
    at, corners = (0.0, 0.0), []
    used = straight  # m of the straight up to the next rounding, from `at`
    side = chance.choice((-1.0, 1.0))
    for _ in range(ATTEMPTS):
        low, high = settings.min_radius, settings.max_radius
        # Radii even on a logarithmic scale: a metre more changes a tight curve most.
        radius = round(style.outermost + low * (high / low) ** chance.random(), 2)
        sharpest = max(min(TURNS[1], LONGEST_CURVE / radius), TURNS[0])
        turn = side * chance.uniform(TURNS[0], sharpest)
        gap = STRAIGHTS[0] if chance.random() < S_CURVES else chance.uniform(*STRAIGHTS)
        needed = used + gap + rounding_length(radius, turn)
        if needed + STRAIGHTS[0] > length:
            # What is left is a straight; but a long one rather holds a shorter curve.
            if length - used < STRAIGHTS[1]:
                break
            continue
        tangent = tangent_length(radius, turn)
        at = along(at, heading, used + gap + tangent)
        corners.append(Corner(*at, radius))
        heading += turn
        length -= needed - tangent
        used = tangent
        side = -side if chance.random() < 0.65 else side
    return tuple(corners), along(at, heading, length)


def _is_clear(plot: Plot) -> bool:
    """Say whether no part of a plot's roads comes near another, but where they run on."""
    lines = plot.lines()
    clearance = plot.style.width + ROADSIDE
    through = lines if len(lines) == 1 else [
        np.concatenate([one[:0:-1], other]) for i, one in enumerate(lines) for other in lines[:i]]
    for line in through:
        at = arc_lengths(line)
        near = cKDTree(line).query_pairs(clearance, output_type='ndarray')
        if (np.abs(at[near[:, 0]] - at[near[:, 1]]) > 2.0 * clearance).any():
            return False
    return True


def _in_rows(made: list[Plot]) -> list[Plot]:
    """Return the plots side by side in rows, GAP apart, round the origin."""
    corners, sizes = [], []
    for plot in made:
        points = np.concatenate(plot.lines())
        corners.append(points.min(axis=0) - plot.style.width / 2.0)
        sizes.append(points.max(axis=0) + plot.style.width / 2.0 - corners[-1])
    across = math.ceil(math.sqrt(len(made)))
    places: list[FloatArray] = []
    y = 0.0
    for first in range(0, len(made), across):
        row = sizes[first:first + across]
        ends = np.cumsum([size[0] + GAP for size in row])
        places += [np.array([end - size[0], y]) for end, size in zip(ends, row, strict=True)]
        y += max(size[1] for size in row) + GAP
    middle = np.max(np.add(places, sizes), axis=0) / 2.0
    return [plot.moved(np.round(place - middle - corner, 1))
            for plot, place, corner in zip(made, places, corners, strict=True)]
