"""What the training camera would see, made from the image of a calibrated camera on a vehicle."""
from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_td3_ros.driving.camera.calibration import Calibration
from av_td3_ros.driving.camera.image import Frame, ImageError
from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.settings import group, setting

STRIDE = 2.0       # source pixels between two samples; interpolation reads those between
MOST_SAMPLES = 16  # of a pixel, along an axis
STEEP = 90.0       # percentile of the pixels whose size in the source decides
LEAST_SEEN = 0.98  # of the training camera's view; less is worth a warning
TALLER = 1.15      # by how much standing things may look taller or shorter

# Forward, left, up from an image's right, down, ahead.
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclasses.dataclass(frozen=True)
class MountingSettings:
    """Say where the camera sits on the vehicle (x forward, y left, z up) and where it looks."""

    x: float = setting(0.8, "position ahead of the vehicle's middle, m", minimum=-10.0,
                       maximum=10.0)
    y: float = setting(0.0, "position to the left of the vehicle's middle, m", minimum=-5.0,
                       maximum=5.0)
    z: float = setting(1.6, 'height above the road, m', minimum=0.2, maximum=10.0)
    pitch: float = setting(0.0, 'pitch, + = down, rad', minimum=-1.5, maximum=1.5)
    yaw: float = setting(0.0, 'yaw, + = left, rad', minimum=-3.2, maximum=3.2)
    roll: float = setting(0.0, 'roll, + = clockwise as seen from behind, rad', minimum=-3.2,
                          maximum=3.2)


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """Describe a camera without distortion as a policy knows it; places as of the mounting."""

    width: int = setting(320, 'image width, pixels', minimum=16, maximum=4096)
    height: int = setting(240, 'image height, pixels', minimum=16, maximum=4096)
    fov: float = setting(1.5708, 'horizontal field of view, rad', minimum=0.17,
                         maximum=2.7)
    x: float = setting(0.8, "position ahead of the vehicle's middle, m", minimum=-10.0,
                       maximum=10.0)
    y: float = setting(0.0, "position to the left of the vehicle's middle, m", minimum=-5.0,
                       maximum=5.0)
    z: float = setting(1.6, 'height above the road, m', minimum=0.2, maximum=50.0)
    pitch: float = setting(0.13963, 'pitch, + = down, rad', minimum=-1.5, maximum=1.5)
    yaw: float = setting(0.0, 'yaw, + = left, rad', minimum=-3.2, maximum=3.2)
    roll: float = setting(0.0, 'roll, + = clockwise as seen from behind, rad', minimum=-3.2,
                          maximum=3.2)


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """Say how much of the image, at its edges, does not show the world: a bonnet, a caption."""

    left: int = setting(0, 'pixels at the left', minimum=0, maximum=8192)
    right: int = setting(0, 'pixels at the right', minimum=0, maximum=8192)
    top: int = setting(0, 'pixels at the top', minimum=0, maximum=8192)
    bottom: int = setting(0, 'pixels at the bottom', minimum=0, maximum=8192)


@dataclasses.dataclass(frozen=True)
class CameraViewSettings:
    """Choose how the camera's image is turned into what the policy was trained with."""

    calibrate: bool = setting(False, 'undistort images by camera_info and turn them to the '
                              "training camera's view; false takes them as they are")
    rectified: bool = setting(False, 'the images are rectified already (image_rect)')
    mounting: MountingSettings = group(MountingSettings, 'the camera on this vehicle')
    training: ViewSettings = group(ViewSettings, 'the camera that the policy was trained with')
    crop: CropSettings = group(CropSettings, 'what of the image is left out')


def orientation(camera: MountingSettings | ViewSettings) -> FloatArray:
    """Return (3, 3) that takes right, down, ahead of a camera to forward, left, up (REP 103)."""
    cosine, sine = np.cos, np.sin
    yaw, pitch, roll = camera.yaw, camera.pitch, camera.roll
    about_z = np.array([[cosine(yaw), -sine(yaw), 0], [sine(yaw), cosine(yaw), 0], [0, 0, 1]])
    about_y = np.array([[cosine(pitch), 0, sine(pitch)], [0, 1, 0],
                        [-sine(pitch), 0, cosine(pitch)]])
    about_x = np.array([[1, 0, 0], [0, cosine(roll), -sine(roll)], [0, sine(roll), cosine(roll)]])
    turned: FloatArray = about_z @ about_y @ about_x @ _OPTICAL
    return turned


class CameraView:
    """
    Turn the images of one calibrated camera to the training camera's view.

    Below the training camera's horizon a pixel shows the point of a flat road that the training
    camera would see there: lines, which a lane is kept by, come to lie right whatever the height
    and the place of the mounting. A rotation alone, from 1.2 m to 1.6 m, would show them a third
    too far aside, and the vehicle nearer to the lane's middle or farther from it than it is. From
    the horizon up directions are kept; at the horizon both agree. What stands on the road keeps
    its foot there and changes its height by the ratio of the two heights. With both cameras in
    one place this is the homography K_train R K^-1.

    Pixels that the camera does not see repeat the nearest one that it does, as the edges that
    random_shift moves in do in training. Black ones bring edges that no road has: by its camera
    alone a policy completed none of 10 routes with them and 8 with these (docs/camera.md).
    """

    def __init__(self, calibration: Calibration, settings: CameraViewSettings,
                 size: tuple[int, int]) -> None:
        """
        Make the tables for images of `size` (width, height), of the training camera's whole view.

        Raises ValueError when the camera sees nothing of it.
        """
        self.calibration = calibration
        self.settings = settings
        self._size = size
        crop, (width, height) = settings.crop, calibration.image_size
        self._low = np.array([crop.left, crop.top], np.float64)
        self._high = np.array([width - 1 - crop.right, height - 1 - crop.bottom], np.float64)
        if (self._low > self._high).any():
            raise ValueError(f'camera.crop leaves nothing of images of {width}x{height}')
        coarse = self._sources(1, 1)
        self.seen = self._is_seen(coarse)
        if not self.seen.any():
            raise ValueError('the camera sees nothing of what the training camera saw: correct '
                             'pitch, yaw and roll of camera.mounting (rad) and camera.crop')
        self.scale = _scale(coarse, self.seen)
        across, down = (min(max(math.ceil(one / STRIDE), 1), MOST_SAMPLES) for one in self.scale)
        sources = self._sources(across, down)
        seen = self._is_seen(sources)
        sources = np.clip(_nearest(sources, seen), self._low, self._high).astype(np.float32)
        self._maps = cv2.convertMaps(sources[..., 0], sources[..., 1], cv2.CV_16SC2)

    def __call__(self, image: Frame) -> Frame:
        """
        Return the training camera's view, uint8 (height, width) or with the image's channels.

        Raises ImageError when the image's size is not that of the calibration.
        """
        height, width = image.shape[:2]
        if (width, height) != self.calibration.image_size:
            raise ImageError('image of {}x{}, camera_info is of {}x{}: calibrate at the size that '
                             'is published, or have the driver tell binning and roi'.format(
                                 width, height, *self.calibration.image_size))
        turned = cv2.remap(image, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        small = cv2.resize(turned, self._size, interpolation=cv2.INTER_AREA)
        return small.view(np.uint8)

    @property
    def coverage(self) -> float:
        """Return the share of the view that the camera sees."""
        return float(self.seen.mean())

    def source_of(self, pixels: ArrayLike) -> FloatArray:
        """
        Return where in the camera's image the pixels (N, 2) of the view come from.

        Pixel (0, 0) is the middle of the upper left one; nan where the lens shows nothing.
        """
        view, (width, height) = self.settings.training, self._size
        half = math.tan(0.5 * view.fov)
        column, row = np.asarray(pixels, np.float64).reshape(-1, 2).T
        right = ((column + 0.5) / width * 2.0 - 1.0) * half
        below = ((row + 0.5) / height * 2.0 - 1.0) * half * view.height / view.width
        rays: FloatArray = np.stack([right, below, np.ones_like(right)], 1) @ orientation(view).T
        mounting = self.settings.mounting
        # From the other camera to the same point of the road, up to a factor; 0 at the horizon.
        apart = np.array([view.x - mounting.x, view.y - mounting.y, view.z - mounting.z])
        rays += np.maximum(-rays[:, 2:], 0.0) / view.z * apart
        return self.calibration.project(rays @ orientation(mounting))

    def warnings(self) -> list[str]:
        """Return what this camera cannot give of the training camera's view, in sentences."""
        said = []
        if self.coverage < LEAST_SEEN:
            said.append(
                f"the camera sees {100.0 * self.coverage:.0f} % of the training camera's view, "
                f'the rest repeats the edges ({_sides(self.seen)}): take a wider lens or '
                "correct camera.mounting and camera.crop")
        if min(self.scale) < 1.0:
            width, height = self.calibration.image_size
            said.append(f'a pixel of the {self._size[0]}x{self._size[1]} view is '
                        f'{min(self.scale):.2f} pixels of the {width}x{height} image: publish '
                        'larger images')
        ratio = self.settings.training.z / self.settings.mounting.z
        if not 1.0 / TALLER < ratio < TALLER:
            said.append(
                f'the camera is mounted at {self.settings.mounting.z:.2f} m, the training '
                f"camera at {self.settings.training.z:.2f} m: the road's lines lie right, but "
                f'vehicles look {ratio:.2f} times as high as they are: mount it at '
                f'{self.settings.training.z:.2f} m, or train with the height of this vehicle')
        return said

    def _sources(self, across: int, down: int) -> FloatArray:
        """Return the source (H, W, 2) of each of the samples, so many of a pixel."""
        width, height = self._size[0] * across, self._size[1] * down
        columns = (np.arange(width) + 0.5) / across - 0.5
        rows = (np.arange(height) + 0.5) / down - 0.5
        grid = np.stack(np.meshgrid(columns, rows), axis=-1)
        return self.source_of(grid).reshape(height, width, 2)

    def _is_seen(self, sources: FloatArray) -> NDArray[np.bool_]:
        inside = (sources > self._low - 0.5) & (sources < self._high + 0.5)
        return np.asarray(inside.all(axis=-1))


def _scale(sources: FloatArray, seen: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how many source pixels a pixel of the view is wide and high, where it is large."""
    steps = (np.hypot(*np.moveaxis(np.diff(sources, axis=1), -1, 0))[seen[:, 1:] & seen[:, :-1]],
             np.hypot(*np.moveaxis(np.diff(sources, axis=0), -1, 0))[seen[1:] & seen[:-1]])
    across, down = (float(np.percentile(one, STEEP)) if one.size else 1.0 for one in steps)
    return across, down


def _nearest(sources: FloatArray, seen: NDArray[np.bool_]) -> FloatArray:
    """Return the sources with those that are not seen taken from the nearest that are."""
    if seen.all():
        return sources
    _, labels = cv2.distanceTransformWithLabels(
        (~seen).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    by_label = np.empty((labels.max() + 1, 2))
    by_label[labels[seen]] = sources[seen]
    filled: FloatArray = by_label[labels]
    return filled


def _sides(seen: NDArray[np.bool_]) -> str:
    """Say at which sides of the view something is missing."""
    missing = {side: 100.0 * float(1.0 - part.mean()) for side, part in (
        ('left', seen[:, :seen.shape[1] // 4]), ('right', seen[:, -(seen.shape[1] // 4):]),
        ('top', seen[:seen.shape[0] // 4]), ('bottom', seen[-(seen.shape[0] // 4):]))}
    return ', '.join(f'{share:.0f} % of the {side} quarter' for side, share in missing.items()
                     if share >= 0.5)
