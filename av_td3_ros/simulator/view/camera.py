"""A front camera in perspective: what the ego vehicle sees of roads, vehicles and boxes."""
from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from av_td3_ros.driving.route.geometry import FloatArray, Pose
from av_td3_ros.settings import setting
from av_td3_ros.simulator.view.appearance import (
    TEXTURE_CELL,
    TEXTURE_NEUTRAL,
    TEXTURE_SIZE,
    Appearance,
)
from av_td3_ros.simulator.view.bodies import VEHICLE, corners, paint_boxes
from av_td3_ros.simulator.view.projection import cut_ahead, paint_order
from av_td3_ros.simulator.view.scenery import ASPHALT, Scenery, Surroundings
from av_td3_ros.simulator.view.solids import FACES, Solids, solids_of

Image = NDArray[np.uint8]
IntArray = NDArray[np.int32]

NEAR = 0.2  # m, nothing closer than this is drawn
SHIFT = 4  # fractional bits of the pixel coordinates given to OpenCV
FARTHEST_TEXTURE = 45.0  # m; farther away the ground's grain is finer than a pixel
SHADOW_MARGIN = 0.12  # m by which a vehicle darkens the ground beside it
NOISE_MARGIN = 64  # pixels by which the noise is larger than the image


@dataclasses.dataclass(frozen=True)
class CameraSettings:
    """Choose the camera's image and where it sits on the vehicle (x forward, y left, z up)."""

    width: int = setting(320, 'image width, pixels', minimum=16, maximum=4096)
    height: int = setting(240, 'image height, pixels', minimum=16, maximum=4096)
    fov: float = setting(90.0, 'horizontal field of view, degrees', minimum=10.0, maximum=150.0)
    x: float = setting(0.8, "position ahead of the vehicle's middle, m", minimum=-10.0,
                       maximum=10.0)
    y: float = setting(0.0, "position to the left of the vehicle's middle, m", minimum=-5.0,
                       maximum=5.0)
    z: float = setting(1.6, 'height above the ground, m', minimum=0.2, maximum=50.0)
    pitch: float = setting(8.0, 'pitch, + = down, degrees', minimum=-60.0, maximum=85.0)
    yaw: float = setting(0.0, 'yaw, + = left, degrees', minimum=-180.0, maximum=180.0)
    draw_distance: float = setting(110.0, 'what is farther away is not drawn, m', minimum=10.0,
                                   maximum=1000.0)


class Intrinsics(NamedTuple):
    """Hold a pinhole camera's focal length and principal point in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Vehicles:
    """
    Hold the vehicles to draw.

    boxes (N, 6) are x, y, yaw, length, width, height in m and rad; colours (N, 3) BGR in [0, 255].
    """

    boxes: FloatArray = dataclasses.field(default_factory=lambda: np.zeros((0, 6)))
    colours: FloatArray = dataclasses.field(default_factory=lambda: np.zeros((0, 3)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Dressed:
    """Hold what one appearance looks like in this camera; made once an episode."""

    appearance: Appearance
    background: Image
    haze: tuple[slice, Image, Image] | None
    horizon: FloatArray
    piece_colours: FloatArray
    piece_missing: NDArray[np.bool_]
    box_colours: FloatArray
    noise: tuple[Image, Image] | None  # what is added, and what is then taken away


@dataclasses.dataclass(frozen=True, eq=False)
class _Near:
    """
    Hold what one appearance makes of what lies and stands round one place.

    pieces (P, 12, 2), centres (2, P) and radii (P,) are float32 in m; colours (P, 3) are BGR.
    """

    around: Surroundings
    dressed: _Dressed
    pieces: NDArray[np.float32]
    centres: NDArray[np.float32]
    radii: NDArray[np.float32]
    colours: FloatArray
    is_paint: NDArray[np.bool_]
    solids: Solids


class Camera:
    """
    Draw what a pinhole camera on the vehicle sees.

    The ground is painted first, then everything that stands, far to near. The principal point is
    the image's middle, (width / 2, height / 2), with a pixel's centre at its index + 0.5.
    """

    def __init__(self, settings: CameraSettings, scenery: Scenery) -> None:
        """Prepare a camera for one map."""
        self.settings = settings
        self.scenery = scenery
        pitch = math.radians(settings.pitch)
        self._sine, self._cosine = math.sin(pitch), math.cos(pitch)
        self._focal = 0.5 * settings.width / math.tan(math.radians(0.5 * settings.fov))
        self._mount_yaw = math.radians(settings.yaw)
        self._half_view = _half_view(settings, self._focal)
        # (u, v, 1) * depth from (forward, left, up) relative to the camera.
        centre_u, centre_v = 0.5 * settings.width - 0.5, 0.5 * settings.height - 0.5
        forward = np.array([self._cosine, 0.0, -self._sine])
        upward = np.array([self._sine, 0.0, self._cosine])
        leftward = np.array([0.0, 1.0, 0.0])
        self._projection = np.stack([centre_u * forward - self._focal * leftward,
                                     centre_v * forward - self._focal * upward, forward], axis=1)
        self._horizon_row = min(max(
            math.ceil(centre_v - self._focal * math.tan(pitch)), 0), settings.height)
        self._texture_rows, *self._texture_ground = self._place_texture()
        self._canvas = np.empty((settings.height, settings.width, 3), np.uint8)
        self._dressed: _Dressed | None = None
        self._near: _Near | None = None
        self._frame = 0

    def intrinsics(self) -> Intrinsics:
        """Return the camera matrix' entries."""
        size = self.settings
        return Intrinsics(self._focal, self._focal, 0.5 * size.width, 0.5 * size.height)

    def project(self, points: FloatArray, pose: Pose) -> FloatArray:
        """
        Return where points of the map (N, 3) are in the image of a vehicle at `pose`.

        The result (N, 2) is in pixels, (0, 0) the upper left corner; nan behind the camera.
        """
        seen = self._to_camera(np.asarray(points, np.float64), self._place(pose))
        image = seen @ self._projection
        depth = np.where(image[:, 2] > 0.0, image[:, 2], np.nan)
        projected: FloatArray = image[:, :2] / depth[:, None] + 0.5
        return projected

    def render(self, pose: Pose, vehicles: Vehicles | None = None,
               appearance: Appearance | None = None) -> Image:
        """
        Return the image (height, width, 4) bgra8 that the vehicle at `pose` takes.

        A new appearance object starts a new sequence of noise.
        """
        dressed = self._dress(appearance)
        look = dressed.appearance
        place = self._place(pose)
        near = self._look_up(place, dressed)
        image = self._canvas
        image[:] = dressed.background
        self._paint_ground(image, place, near)
        solids = near.solids
        if vehicles is not None and len(vehicles.boxes):
            kinds = np.full(len(vehicles.boxes), VEHICLE, np.int8)
            solids = solids.and_(solids_of(vehicles.boxes, vehicles.colours, kinds, look,
                                           self.settings.z))
        order = self._standing(place, solids)
        if vehicles is not None and len(vehicles.boxes):
            seen = order[order >= len(near.solids.radii)] - len(near.solids.radii)
            self._paint_contact_shadows(image, place, vehicles.boxes[seen], look)
        if look.texture is not None:
            self._paint_texture(image, place, look.texture)
        if dressed.haze is not None:
            start, clear, veil = dressed.haze
            rows = image[start]
            cv2.multiply(rows, clear, dst=rows, scale=1.0 / 255.0)
            cv2.add(rows, veil, dst=rows)
        if len(order):
            self._paint_solids(image, place, solids, order, dressed)
        if look.blur > 0.0:
            cv2.GaussianBlur(image, (3, 3), look.blur, dst=image)
        if dressed.noise is not None:
            # A low-discrepancy walk over the noise: no two frames in a row alike, and repeatable.
            row = int(self._frame * 0.7548776662 % 1.0 * NOISE_MARGIN)
            column = int(self._frame * 0.5698402910 % 1.0 * NOISE_MARGIN)
            added, taken = (one[row:row + image.shape[0], column:column + image.shape[1]]
                            for one in dressed.noise)
            cv2.add(image, added, dst=image)
            cv2.subtract(image, taken, dst=image)
        self._frame += 1
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), np.uint8)

    def _look_up(self, place: Pose, dressed: _Dressed) -> _Near:
        """Return what lies round a place; the same until the grid cell or the look changes."""
        around = self.scenery.around(place.x, place.y, self.settings.draw_distance)
        near = self._near
        if near is not None and near.around is around and near.dressed is dressed:
            return near
        there = ~dressed.piece_missing[around.piece_ids]
        self._near = near = _Near(
            around, dressed, around.pieces[there],
            np.ascontiguousarray(around.piece_centres[there].T), around.piece_radii[there],
            dressed.piece_colours[around.piece_ids[there]], around.layers[there] != ASPHALT,
            solids_of(around.boxes, dressed.box_colours[around.box_ids], around.box_kinds,
                      dressed.appearance, self.settings.z))
        return near

    def _standing(self, place: Pose, solids: Solids) -> NDArray[np.intp]:
        """Return the indices of the solids in view, the farthest first."""
        flat = (solids.middles - (place.x, place.y)).T
        seen = self._in_view(flat, solids.radii, place)
        seen &= np.hypot(*flat) - solids.radii < self.settings.draw_distance
        chosen = np.flatnonzero(seen)
        cosine, sine = math.cos(place.yaw), math.sin(place.yaw)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        footprints = solids.footprints[chosen].reshape(-1, 2) - (place.x, place.y)
        return chosen[paint_order((footprints @ turn).reshape(-1, 4, 2))]

    # -- the camera's own geometry

    def _place(self, pose: Pose) -> Pose:
        """Return the camera's position and heading in the map."""
        ahead, aside = self.settings.x, self.settings.y
        cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
        return Pose(pose.x + cosine * ahead - sine * aside,
                    pose.y + sine * ahead + cosine * aside, pose.yaw + self._mount_yaw)

    def _to_camera(self, points: FloatArray, place: Pose) -> FloatArray:
        """Return map points (..., 3) as forward, left, up of the camera, before its pitch."""
        cosine, sine = math.cos(place.yaw), math.sin(place.yaw)
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        seen: FloatArray = (points - (place.x, place.y, self.settings.z)) @ turn
        return seen

    def _ground_projection(self, place: Pose) -> tuple[FloatArray, FloatArray]:
        """Return (2, 3) and (3,) that take ground points relative to the camera to the image."""
        cosine, sine = math.cos(place.yaw), math.sin(place.yaw)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        return turn @ self._projection[:2], -self.settings.z * self._projection[2]

    def _place_texture(self) -> tuple[slice, NDArray[np.float32], NDArray[np.float32]]:
        """
        Return the rows that show near ground, and where every second pixel of them lies.

        That is forward (R, 1) and left (R, C), in cells of the texture.
        """
        size, height = self.settings, self.settings.z
        rows = np.arange(size.height // 2) * 2 + 0.5
        columns = np.arange(size.width // 2) * 2 + 0.5
        slope = (rows - (0.5 * size.height - 0.5)) / self._focal  # down over forward, unpitched
        down = slope * self._cosine + self._sine
        ahead = self._cosine - slope * self._sine
        distance = np.where(down > 1e-3, height / np.maximum(down, 1e-3), np.inf)
        reached = (down > 1e-3) & (ahead * distance < FARTHEST_TEXTURE)
        first = int(np.argmax(reached)) if reached.any() else len(rows)
        sideways = -(columns - (0.5 * size.width - 0.5)) / self._focal
        forward, left = (one.astype(np.float32) / np.float32(TEXTURE_CELL) for one in (
            (ahead * distance)[first:, None], distance[first:, None] * sideways))
        return slice(2 * first, 2 * len(rows)), forward, left

    # -- one episode's look

    def _dress(self, appearance: Appearance | None) -> _Dressed:
        if self._dressed is not None and (
                appearance is None or appearance is self._dressed.appearance):
            return self._dressed
        look = appearance or Appearance()
        rng = np.random.default_rng(look.seed)
        everything = self.scenery.everything
        colours = np.array([look.asphalt, look.white, look.yellow])[everything.layers]
        worn = look.marking_wear * rng.random(len(colours)) * (everything.layers != ASPHALT)
        colours += worn[:, None] * (np.array(look.asphalt) - colours)
        missing = rng.random(len(colours)) < look.marking_missing
        noise = None
        if look.noise > 0.0:
            shape = (self.settings.height + NOISE_MARGIN, self.settings.width + NOISE_MARGIN, 3)
            drawn = rng.standard_normal(shape, np.float32)
            drawn *= np.float32(look.noise)
            drawn += np.float32(128.5)
            levels = np.clip(drawn, 0.0, 255.0).astype(np.uint8)
            noise = np.maximum(levels, 128) - 128, 128 - np.minimum(levels, 128)
        self._dressed = _Dressed(look, self._background(look), self._haze(look),
                                 np.array(look.horizon), colours,
                                 missing & (everything.layers != ASPHALT),
                                 paint_boxes(everything.box_kinds, rng), noise)
        self._frame = 0
        return self._dressed

    def _background(self, look: Appearance) -> Image:
        """Return the sky and the bare ground."""
        size = self.settings
        rows = np.arange(size.height)
        slope = (rows - (0.5 * size.height - 0.5)) / self._focal
        down = slope * self._cosine + self._sine
        sky = np.clip(-2.0 * down, 0.0, 1.0)[:, None]
        above = (1.0 - sky) * np.array(look.horizon) + sky * np.array(look.sky)
        column = np.where((rows < self._horizon_row)[:, None], above, np.array(look.ground))
        return np.ascontiguousarray(np.broadcast_to(
            column[:, None].astype(np.uint8), (size.height, size.width, 3)))

    def _haze(self, look: Appearance) -> tuple[slice, Image, Image] | None:
        """Return the rows of ground that haze dims, what is left of them and what is added."""
        size = self.settings
        rows = np.arange(self._horizon_row, size.height)
        slope = (rows - (0.5 * size.height - 0.5)) / self._focal
        down = np.maximum(slope * self._cosine + self._sine, 1e-6)
        ahead = self._cosine - slope * self._sine
        clear = np.exp(-look.haze * np.maximum(size.z * ahead / down, 0.0))
        clear = clear[clear < 0.99]
        if not len(clear):
            return None
        veil = (1.0 - clear)[:, None] * np.array(look.horizon)
        shape = (len(clear), size.width, 3)
        kept = np.broadcast_to((255.0 * clear + 0.5)[:, None, None], shape)
        start = self._horizon_row
        return (slice(start, start + len(clear)), kept.astype(np.uint8, order='C'),
                np.broadcast_to(veil[:, None], shape).astype(np.uint8, order='C'))

    # -- painting

    def _paint_ground(self, image: Image, place: Pose, near: _Near) -> None:
        origin = np.array([place.x, place.y], np.float32)
        flat = near.centres - origin[:, None]
        chosen = np.flatnonzero(self._in_view(flat, near.radii, place))
        if not len(chosen):
            return
        turn, offset = self._ground_projection(place)
        projected = ((near.pieces[chosen] - origin).reshape(-1, 2) @ turn.astype(np.float32)
                     + offset.astype(np.float32)).reshape(len(chosen), -1, 3)
        for polygon, colour, is_paint in zip(
                _polygons(projected), near.colours[chosen].tolist(),
                near.is_paint[chosen].tolist(), strict=True):
            if len(polygon) > 2:
                cv2.fillPoly(image, [polygon], colour, cv2.LINE_AA if is_paint else cv2.LINE_8,
                             SHIFT)

    def _paint_contact_shadows(self, image: Image, place: Pose, vehicles: FloatArray,
                               look: Appearance) -> None:
        """Darken the ground under vehicles (N, 6), so that they stand on it."""
        turn, offset = self._ground_projection(place)
        ground = (corners(vehicles, SHADOW_MARGIN) - (place.x, place.y)) @ turn + offset
        colour = tuple(0.35 * channel for channel in look.asphalt)
        for polygon in _polygons(ground):
            if len(polygon) > 2:
                cv2.fillConvexPoly(image, polygon, colour, cv2.LINE_8, SHIFT)

    def _paint_texture(self, image: Image, place: Pose, texture: Image) -> None:
        """Multiply the near ground by a pattern that lies still on the map."""
        forward, left = self._texture_ground
        if not left.size:
            return
        cosine, sine = np.float32(math.cos(place.yaw)), np.float32(math.sin(place.yaw))
        across = (cosine * forward - sine * left
                  + np.float32(place.x / TEXTURE_CELL % TEXTURE_SIZE)).astype(np.int32)
        along = (sine * forward + cosine * left
                 + np.float32(place.y / TEXTURE_CELL % TEXTURE_SIZE)).astype(np.int32)
        across &= TEXTURE_SIZE - 1
        along &= TEXTURE_SIZE - 1
        along *= TEXTURE_SIZE
        along += across
        rows = image[self._texture_rows]
        pattern = cv2.resize(texture.reshape(-1).take(along), (rows.shape[1], rows.shape[0]),
                             interpolation=cv2.INTER_LINEAR)
        cv2.multiply(rows, cv2.cvtColor(pattern, cv2.COLOR_GRAY2BGR), dst=rows,
                     scale=1.0 / TEXTURE_NEUTRAL)

    def _paint_solids(self, image: Image, place: Pose, solids: Solids, order: NDArray[np.intp],
                      dressed: _Dressed) -> None:
        """Paint the solids with these indices, one after the other."""
        eye = np.array([place.x, place.y, self.settings.z])
        facing = solids.normals[order].reshape(-1, 3) @ eye
        thing, face = np.nonzero(facing.reshape(len(order), -1) > solids.offsets[order])
        if not len(thing):
            return
        projected = self._to_camera(solids.corners[order].reshape(-1, 3), place)
        projected = (projected @ self._projection).reshape(len(order), -1, 3)
        depth = projected[..., 2]
        # Of each part, between two corners that lie opposite.
        clear = np.exp(-dressed.appearance.haze
                       * np.maximum(0.5 * (depth[:, 0::8] + depth[:, 6::8]), 0.0))
        lit = solids.colours[order[thing], face]
        colours = (dressed.horizon + (lit - dressed.horizon)
                   * clear[thing, face // 6][:, None]).tolist()
        polygons = _polygons(projected[thing[:, None], FACES[face]])
        for polygon, colour in zip(polygons, colours, strict=True):
            if len(polygon) > 2:
                cv2.fillConvexPoly(image, polygon, colour, cv2.LINE_8, SHIFT)

    def _in_view(self, flat: NDArray[np.floating[Any]], radii: NDArray[np.floating[Any]],
                 place: Pose) -> NDArray[np.bool_]:
        """Return which discs (2, N) around points relative to the camera may be in the image."""
        left, right = place.yaw + self._half_view, place.yaw - self._half_view
        # How far outside the view's left and right border they are, m.
        outside = np.array([[-math.sin(left), math.cos(left)],
                            [math.sin(right), -math.cos(right)]], flat.dtype) @ flat
        # A view of more than half the circle is left only where both its borders are.
        worst = np.maximum if self._half_view <= 0.5 * math.pi else np.minimum
        return np.asarray(worst(outside[0], outside[1]) <= radii)


def _half_view(settings: CameraSettings, focal: float) -> float:
    """Return half the angle that the image covers on the level ground, rad."""
    pitch = math.radians(settings.pitch)
    half_width, half_height = 0.5 * settings.width / focal, 0.5 * settings.height / focal
    ahead = min(math.cos(pitch) - down * math.sin(pitch) for down in (-half_height, half_height))
    return math.pi if ahead <= 0.0 else math.atan2(half_width, ahead)


def _polygons(projected: NDArray[np.floating[Any]]) -> list[IntArray]:
    """
    Return polygons (N, V, 3: u, v, 1 times depth) in OpenCV's fixed-point pixels.

    What is nearer than the near plane is cut off; a polygon with nothing left is empty.
    """
    depth = projected[..., 2]
    scale = (1 << SHIFT) / np.maximum(depth, NEAR)
    pixels = np.empty((*depth.shape, 2), np.int32)
    for axis in (0, 1):
        pixels[..., axis] = np.rint(projected[..., axis] * scale)
    polygons = list(pixels)
    if depth.size and depth.min() < NEAR:
        partly = np.flatnonzero(depth.min(axis=1) < NEAR)
        cuts = cut_ahead(projected[partly], NEAR)
        joined = np.concatenate(cuts)
        points = np.rint(joined[:, :2] * ((1 << SHIFT) / joined[:, 2:])).astype(np.int32)
        end = 0
        for index, cut in zip(partly.tolist(), cuts, strict=True):
            start, end = end, end + len(cut)
            polygons[index] = points[start:end]
    return polygons
