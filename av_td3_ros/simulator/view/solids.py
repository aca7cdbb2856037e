"""What stands, ready to be projected: all that does not depend on where the camera is."""
from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.simulator.view.appearance import Appearance
from av_td3_ros.simulator.view.bodies import corners, parts_of

# Corners 0-3 stand on the lower level, 4-7 above them. Faces are painted in this order: top and
# bottom first, since one seen edge-on spills a pixel; then the sides front, left, back, right.
_BOX_FACES = np.array([[4, 5, 6, 7], [0, 1, 2, 3],
                       [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]])
FACES = np.concatenate([_BOX_FACES, 8 + _BOX_FACES])  # of a thing's two parts
_SIDE_AZIMUTHS = np.array([0.0, 0.5, 1.0, -0.5]) * math.pi


class Solids(NamedTuple):
    """
    Hold things that stand, each made of two upright boxes, m in the map's frame.

    middles (N, 2), radii (N,) and footprints (N, 4, 2) are those of the whole; corners
    (N, 16, 3) those of its parts. A face is seen from where its normal (N, 12, 3) times the eye
    is beyond its offset (N, 12); colours (N, 12, 3) are BGR in the light of the day.
    """

    middles: FloatArray
    radii: FloatArray
    footprints: FloatArray
    corners: FloatArray
    normals: FloatArray
    offsets: FloatArray
    colours: FloatArray

    def and_(self, others: Solids) -> Solids:
        """Return these and others."""
        return Solids(*map(np.concatenate, zip(self, others, strict=True)))


def solids_of(boxes: FloatArray, colours: FloatArray, kinds: NDArray[np.integer[Any]],
              look: Appearance, eye: float) -> Solids:
    """
    Return things (N, 6: x, y, yaw, length, width, height) of BGR colours (N, 3) as solids.

    They are seen in the light of `look` from an eye at height `eye` in m.
    """
    count = len(boxes)
    parts = parts_of(boxes, colours, kinds, eye)
    x, y, yaw, length, width, bottom, top = np.moveaxis(parts.boxes, -1, 0)
    cosine, sine = np.cos(yaw), np.sin(yaw)
    solid = np.empty((count, 2, 2, 4, 3))
    solid[..., :2] = corners(parts.boxes.reshape(-1, 7)).reshape(count, 2, 1, 4, 2)
    solid[..., 2] = parts.boxes[..., 5:, None]
    normals = np.zeros((count, 2, 6, 3))
    normals[:, :, 0, 2], normals[:, :, 1, 2] = 1.0, -1.0
    for face, (ahead, aside) in enumerate(((cosine, sine), (-sine, cosine),
                                           (-cosine, -sine), (sine, -cosine)), 2):
        normals[:, :, face, 0], normals[:, :, face, 1] = ahead, aside
    offsets = normals[..., 0] * x[..., None] + normals[..., 1] * y[..., None]
    offsets[..., 0], offsets[..., 1] = top, -bottom
    offsets[..., 2::2] += 0.5 * length[..., None]
    offsets[..., 3::2] += 0.5 * width[..., None]
    offsets[top <= bottom] = np.inf  # no part: never seen
    light = np.empty((count, 2, 6))
    light[..., 0] = look.shade_of_tops
    light[..., 1] = 0.5 * look.light * look.ambient
    light[..., 2:] = look.shade(yaw[..., None] + _SIDE_AZIMUTHS)
    paint = np.repeat(parts.sides[:, :, None], 6, axis=2)
    paint[:, :, 0] = parts.tops
    return Solids(boxes[:, :2], 0.5 * np.hypot(boxes[:, 3], boxes[:, 4]), corners(boxes),
                  solid.reshape(count, 16, 3), normals.reshape(count, 12, 3),
                  offsets.reshape(count, 12),
                  np.minimum(paint * light[..., None], 255.0).reshape(count, 12, 3))
