"""What standing things are made of: upright boxes, each with its own sizes and colours."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.simulator.view.appearance import Colour
from av_td3_ros.simulator.view.scenery import BUILDING, POST, TREE, TRUNK_SHARE

VEHICLE = 3  # the kind after those of the roadside
_GLASS: Colour = (52.0, 44.0, 38.0)
_TRUNK: Colour = (44.0, 62.0, 84.0)
_GROUND_CLEARANCE = 0.2  # m, under vehicles
_PAINTS: dict[int, tuple[Colour, ...]] = {
    BUILDING: ((110.0, 130.0, 168.0), (172.0, 184.0, 192.0), (120.0, 140.0, 150.0),
               (92.0, 104.0, 150.0), (196.0, 200.0, 188.0)),
    TREE: ((52.0, 104.0, 58.0), (48.0, 88.0, 72.0), (60.0, 120.0, 84.0)),
    POST: ((150.0, 150.0, 150.0), (70.0, 70.0, 190.0))}

# By kind and part: length, width, bottom and top over those of the whole, and how far back over
# its length. A vehicle is a body with a glass cabin on it, a tree a trunk with a crown.
_SHAPES = np.zeros((4, 2, 5))
_SHAPES[[BUILDING, POST], 0] = (1.0, 1.0, 0.0, 1.0, 0.0)
_SHAPES[TREE] = ((TRUNK_SHARE, TRUNK_SHARE, 0.0, 0.35, 0.0), (1.0, 1.0, 0.35, 1.0, 0.0))
_SHAPES[VEHICLE] = ((1.0, 1.0, 0.0, 0.58, 0.0), (0.55, 0.9, 0.58, 1.0, 0.04))

_CORNER_SIGNS = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])


class Parts(NamedTuple):
    """
    Hold the upright boxes that things are made of, each thing's two in painting order.

    boxes (N, 2, 7) are x, y, yaw, length, width, bottom, top in m and rad, without height where
    there is none; sides and tops (N, 2, 3) are BGR colours in full light.
    """

    boxes: FloatArray
    sides: FloatArray
    tops: FloatArray


def parts_of(boxes: FloatArray, colours: FloatArray, kinds: NDArray[np.integer[Any]],
             eye: float) -> Parts:
    """
    Return the parts of things (N, 6: x, y, yaw, length, width, height).

    The two parts of one thing are ordered for an eye at height `eye` in m.
    """
    shapes = _SHAPES[kinds]
    vehicle, tree = kinds == VEHICLE, kinds == TREE
    parts = np.empty((len(boxes), 2, 7))
    parts[..., :3] = boxes[:, None, :3]
    parts[..., 3:5] = boxes[:, None, 3:5] * shapes[..., :2]
    parts[..., 5:] = boxes[:, 5, None, None] * shapes[..., 2:4]
    parts[vehicle, 0, 5] = _GROUND_CLEARANCE
    back = shapes[:, 1, 4] * boxes[:, 3]
    parts[:, 1, 0] -= back * np.cos(boxes[:, 2])
    parts[:, 1, 1] -= back * np.sin(boxes[:, 2])
    sides = np.repeat(colours[:, None], 2, axis=1)
    tops = sides.copy()
    sides[vehicle, 1] = _GLASS
    sides[tree, 0] = tops[tree, 0] = _TRUNK
    # From below the level where they meet, a body hides its cabin.
    upper_first = vehicle & (eye < parts[:, 0, 6])
    if upper_first.any():
        for array in (parts, sides, tops):
            array[upper_first] = array[upper_first, ::-1]
    return Parts(parts, sides, tops)


def corners(boxes: FloatArray, margin: float = 0.0) -> FloatArray:
    """Return the corners (N, 4, 2) of boxes (N, 5 or more: x, y, yaw, length, width), widened."""
    cosine, sine = np.cos(boxes[:, 2, None]), np.sin(boxes[:, 2, None])
    ahead = _CORNER_SIGNS[:, 0] * (0.5 * boxes[:, 3, None] + margin)
    aside = _CORNER_SIGNS[:, 1] * (0.5 * boxes[:, 4, None] + margin)
    found = np.empty((len(boxes), 4, 2))
    found[..., 0] = boxes[:, 0, None] + cosine * ahead - sine * aside
    found[..., 1] = boxes[:, 1, None] + sine * ahead + cosine * aside
    return found


def paint_boxes(kinds: NDArray[np.integer[Any]], rng: np.random.Generator) -> FloatArray:
    """Return a colour (B, 3) for every roadside box."""
    colours = np.zeros((len(kinds), 3))
    for kind, choices in _PAINTS.items():
        mask = kinds == kind
        colours[mask] = np.array(choices)[rng.integers(len(choices), size=int(mask.sum()))]
    return colours * rng.uniform(0.85, 1.15, (len(kinds), 1))
