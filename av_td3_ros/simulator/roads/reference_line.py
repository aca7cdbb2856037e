"""
The line that a road follows: a polyline whose corners are rounded by spiral, arc and spiral.

So its curvature is continuous. Lengths are in m, angles in rad, curvatures in 1/m, left positive.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from av_td3_ros.driving.route.geometry import FloatArray

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
        before = heading_to(vertices[index - 1], vertices[index])
        turn = turn_at(*vertices[index - 1:index + 2])
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


def rounding_length(radius: float, turn: float) -> float:
    """Return how long (m) the rounding of a corner by `turn` rad is, both spirals included."""
    return abs(turn) * radius + _spiral_length(radius, turn)


def largest_radius(room: float, turn: float) -> float:
    """Return the largest radius in m whose rounding takes at most `room` m of each straight."""
    low, high = 0.0, 10_000.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if tangent_length(middle, turn) <= room else (low, middle)
    return math.floor(low * 100.0) / 100.0


def traced(pieces: Iterable[Piece], spacing: float = 1.0) -> FloatArray:
    """Return points (N, 2) along pieces, at most `spacing` m apart."""
    points = []
    for piece in pieces:
        step = piece.length / math.ceil(piece.length / spacing)
        # The heading in the middle of a step leads to its end within mm.
        middles = np.arange(0.5 * step, piece.length, step)
        bend = (piece.end_curvature - piece.start_curvature) / piece.length
        heading = piece.heading + (piece.start_curvature + 0.5 * bend * middles) * middles
        moves = step * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        points.append(np.cumsum(moves, axis=0) - moves + (piece.x, piece.y))
    return np.concatenate([*points, points[-1][-1:] + moves[-1]])


def along(start: Point, heading: float, distance: float) -> Point:
    """Return the point `distance` m from another on a heading."""
    return (start[0] + distance * math.cos(heading), start[1] + distance * math.sin(heading))


def turn_at(before: Point, corner: Point, after: Point) -> float:
    """Return by how much a polyline turns at its corner, in rad, left positive."""
    return math.remainder(heading_to(corner, after) - heading_to(before, corner), math.tau)


def heading_to(start: Point, end: Point) -> float:
    """Return the heading from one point to another in rad."""
    return math.atan2(end[1] - start[1], end[0] - start[0])


def _straight(start: Point, end: Point, cut_start: float, cut_end: float) -> list[Piece]:
    """Return the line between two points less what the roundings at its ends take."""
    length = math.dist(start, end) - cut_start - cut_end
    if length < -1e-6:
        raise MapMakerError(f'the straight from {start} to {end} is {-length:.1f} m too short '
                            'for the radii at its ends; use smaller radii')
    if length < 0.01:
        return []
    heading = heading_to(start, end)
    return [Piece(*along(start, heading, cut_start), heading, length)]


def _rounding(corner: Point, heading: float, turn: float, radius: float) -> list[Piece]:
    """Return spiral, arc and spiral round a corner that is reached on `heading`."""
    if abs(turn) < 1e-6:
        return []
    curvature = math.copysign(1.0 / radius, turn)
    length = _spiral_length(radius, turn)
    start = along(corner, heading, -tangent_length(radius, turn))
    ahead, aside = _spiral_end(length, radius)
    aside = math.copysign(aside, turn)
    arc_start = along(along(start, heading, ahead), heading + math.pi / 2.0, aside)
    arc_heading = heading + curvature * length / 2.0
    arc_length = (abs(turn) - length / radius) * radius
    arc_end = along(arc_start, arc_heading + curvature * arc_length / 2.0,
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
