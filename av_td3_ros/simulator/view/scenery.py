"""What the camera sees of a map: ground pieces and standing boxes, found by its position."""
from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_td3_ros.driving.route.geometry import FloatArray, arc_lengths
from av_td3_ros.simulator.roads.geometry import RoadGeometry

SECTIONS = 6  # cross-sections of one ground piece
PIECE_LENGTH = 10.0  # m
DASH_LENGTH, DASH_GAP = 3.0, 6.0  # m, a broken line outside towns
SEAM = 0.06  # m by which neighbouring surfaces overlap
CELL = 16.0  # m, grid of the look-up by position
MOST_CELLS = 512  # cells kept, some 40 KB each

ASPHALT, WHITE, YELLOW = 0, 1, 2  # layers; the higher is painted over the lower
BUILDING, TREE, POST = 0, 1, 2
TRUNK_SHARE = 0.25  # a trunk's thickness over the crown's
_LAYERS = {'white': WHITE, 'yellow': YELLOW}
_KINDS = {'building': BUILDING, 'tree': TREE, 'post': POST}

Float32Array = NDArray[np.float32]
IntArray = NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """
    Hold what stands and lies around one place.

    pieces (P, 12, 2) are closed ground polygons in m, sorted by layer (P,); piece_ids (P,) number
    them in the map. boxes (B, 6) are x, y, yaw, length, width, height; box_kinds and box_ids (B,).
    obstacles (B, 5) are what of them a vehicle can run into: of a tree the trunk, no height.
    """

    pieces: Float32Array
    layers: NDArray[np.int8]
    piece_centres: Float32Array
    piece_radii: Float32Array
    piece_ids: IntArray
    boxes: FloatArray
    box_kinds: NDArray[np.int8]
    box_ids: IntArray
    obstacles: FloatArray


class Scenery:
    """
    Hold a map's ground and boxes in plain arrays.

    A look-up by position costs the same on any map: what lies round a grid cell is gathered once.
    """

    def __init__(self, surfaces: Iterable[tuple[ArrayLike, ArrayLike]] = (),
                 markings: Iterable[tuple[ArrayLike, str, float, str]] = (),
                 boxes: ArrayLike | None = None, box_kinds: Sequence[str] | None = None) -> None:
        """
        Cut everything into pieces.

        surfaces are (left edge (N, 2), right edge (N, 2)); markings are (middle (N, 2), 'solid' or
        'broken', width, 'white' or 'yellow'); boxes (B, 6) are x, y, yaw, length, width, height
        and box_kinds 'building', 'tree' or 'post' each. All in m and rad. Raises ValueError for
        another kind or colour.
        """
        pieces: list[FloatArray] = []
        layers: list[int] = []
        for left, right in surfaces:
            cut = _cut_strip(*_widened(np.asarray(left, np.float64),
                                       np.asarray(right, np.float64)))
            pieces += cut
            layers += [ASPHALT] * len(cut)
        for points, kind, width, colour in markings:
            if kind not in ('solid', 'broken') or colour not in _LAYERS:
                raise ValueError(f'Scenery: marking {kind!r} in {colour!r} is unknown; use '
                                 f"'solid' or 'broken' in one of {sorted(_LAYERS)}")
            cut = _cut_marking(np.asarray(points, np.float64), kind == 'broken', width)
            pieces += cut
            layers += [_LAYERS[colour]] * len(cut)
        order = np.argsort(layers, kind='stable')
        polygons = np.array(pieces, np.float64).reshape(-1, 2 * SECTIONS, 2)[order]
        middles = 0.5 * (polygons.min(axis=1) + polygons.max(axis=1))
        self.boxes: FloatArray = np.asarray(
            np.zeros((0, 6)) if boxes is None else boxes, np.float64).reshape(-1, 6)
        named = box_kinds if box_kinds is not None else ['building'] * len(self.boxes)
        if len(named) != len(self.boxes) or not set(named) <= set(_KINDS):
            raise ValueError(f'Scenery: {len(self.boxes)} boxes need as many kinds out of '
                             f'{sorted(_KINDS)}, got {list(named)}')
        kinds = np.array([_KINDS[one] for one in named], np.int8)
        obstacles = self.boxes[:, :5].copy()
        obstacles[kinds == TREE, 3:5] *= TRUNK_SHARE
        self.everything = Surroundings(
            polygons.astype(np.float32), np.array(layers, np.int8)[order],
            middles.astype(np.float32),
            np.hypot(*np.moveaxis(polygons - middles[:, None], -1, 0)).max(
                axis=1, initial=0.0).astype(np.float32),
            np.arange(len(polygons)), self.boxes,
            kinds, np.arange(len(self.boxes)), obstacles)
        self._found: dict[tuple[int, int, float], Surroundings] = {}

    @classmethod
    def from_geometry(cls, geometry: RoadGeometry) -> Scenery:
        """Return the scenery of a map's road geometry."""
        return cls([(lane.left, lane.right) for lane in geometry.lanes],
                   [(line.points, line.kind, line.width, line.colour)
                    for line in geometry.markings],
                   [(box.x, box.y, box.yaw, box.length, box.width, box.height)
                    for box in geometry.boxes],
                   [box.kind for box in geometry.boxes])

    def around(self, x: float, y: float, distance: float) -> Surroundings:
        """Return what lies within `distance` m of (x, y), and a little more."""
        cell = (math.floor(x / CELL), math.floor(y / CELL), distance)
        found = self._found.get(cell)
        if found is None:
            found = self._gather((cell[0] + 0.5) * CELL, (cell[1] + 0.5) * CELL,
                                 distance + CELL / math.sqrt(2.0))
            if len(self._found) >= MOST_CELLS:
                del self._found[next(iter(self._found))]
            self._found[cell] = found
        return found

    def _gather(self, x: float, y: float, distance: float) -> Surroundings:
        everything = self.everything
        gaps = np.hypot(*(everything.piece_centres.T.astype(np.float64) - [[x], [y]]))
        near = gaps - everything.piece_radii <= distance
        radii = 0.5 * np.hypot(self.boxes[:, 3], self.boxes[:, 4])
        close = np.hypot(self.boxes[:, 0] - x, self.boxes[:, 1] - y) - radii <= distance
        return Surroundings(everything.pieces[near], everything.layers[near],
                            everything.piece_centres[near], everything.piece_radii[near],
                            everything.piece_ids[near], self.boxes[close],
                            everything.box_kinds[close], everything.box_ids[close],
                            everything.obstacles[close])


def resample(points: FloatArray, distances: FloatArray) -> FloatArray:
    """Return the points of a polyline (N, 2) at `distances` (M,) in m along it."""
    lengths = arc_lengths(points)
    return np.column_stack([np.interp(distances, lengths, points[:, 0]),
                            np.interp(distances, lengths, points[:, 1])])


def normals(points: FloatArray) -> FloatArray:
    """Return the unit normals (N, 2) of a polyline, to its left."""
    ahead = np.gradient(points, axis=0)
    ahead /= np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), 1e-9)[:, None]
    return np.column_stack([-ahead[:, 1], ahead[:, 0]])


def _widened(left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a strip's edges apart by a seam more, so that no ground shines through beside it."""
    outward = left - right
    outward *= SEAM / np.maximum(np.hypot(outward[:, 0], outward[:, 1]), 1e-9)[:, None]
    return left + outward, right - outward


def _cut_strip(left: FloatArray, right: FloatArray) -> list[FloatArray]:
    """Return the ground polygons (12, 2) that a strip between two edges (N, 2) is made of."""
    pieces = []
    middle = arc_lengths(0.5 * (left + right))
    count = max(1, math.ceil(middle[-1] / PIECE_LENGTH - 1e-6))
    ends = np.linspace(0.0, middle[-1], count + 1)
    for start, end in itertools.pairwise(ends):
        at = np.linspace(start, end, SECTIONS)
        # Both edges by the middle's length, so that a cross-section stays one.
        one, other = (np.column_stack([np.interp(at, middle, edge[:, 0]),
                                       np.interp(at, middle, edge[:, 1])])
                      for edge in (left, right))
        pieces.append(np.concatenate([one, other[::-1]]))
    return pieces


def _cut_marking(points: FloatArray, broken: bool, width: float) -> list[FloatArray]:
    """Return the polygons of a painted line; the dashes of a broken one start at its start."""
    aside = 0.5 * width * normals(points)
    if not broken:
        return _cut_strip(points + aside, points - aside)
    pieces = []
    length = arc_lengths(points)[-1]
    for start in np.arange(0.0, length, DASH_LENGTH + DASH_GAP):
        dash = resample(points, np.linspace(start, min(start + DASH_LENGTH, length), SECTIONS))
        aside = 0.5 * width * normals(dash)
        pieces.append(np.concatenate([dash + aside, (dash - aside)[::-1]]))
    return pieces
