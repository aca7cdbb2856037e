"""What a camera_info says: which pixel of the image shows a direction."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from av_td3_ros.driving.route.geometry import FloatArray

PLUMB_BOB, RATIONAL, FISHEYE = 'plumb_bob', 'rational_polynomial', 'equidistant'
COEFFICIENTS = {PLUMB_BOB: (4, 5), RATIONAL: (8,), FISHEYE: (4,)}  # how many D may hold
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
WIDEST = math.radians(85.0)  # from the axis; farther out the polynomials of a lens mean nothing
CALIBRATE = 'calibrate the camera (docs/camera.md) and have its driver publish the result'


class Region(NamedTuple):
    """Hold the part of the sensor that is published, in its own pixels; all 0: the whole."""

    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0


WHOLE = Region()


@dataclasses.dataclass(frozen=True)
class Calibration:
    """
    Hold a camera's calibration as sensor_msgs/CameraInfo does.

    k and r are row by row 3x3, p is 3x4; width, height, k, p and the region are in pixels of the
    whole sensor, before binning. An image that is `rectified` obeys r and p, a raw one k and d;
    without d and a model it has no distortion.
    Pixel (0, 0) is the middle of the upper left one. Raises ValueError with what is wrong, and
    what to do, for a calibration that cannot be one.
    """

    width: int
    height: int
    k: tuple[float, ...]
    d: tuple[float, ...] = ()
    model: str = PLUMB_BOB
    r: tuple[float, ...] = IDENTITY
    p: tuple[float, ...] = (0.0,) * 12
    binning: tuple[int, int] = (1, 1)
    region: Region = WHOLE
    rectified: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no calibration."""
        for name, size in (('k', 9), ('r', 9), ('p', 12)):
            values = getattr(self, name)
            if len(values) != size:
                raise ValueError(f'camera_info: {name} has {len(values)} numbers, not {size}')
        for name in ('k', 'd', 'r', 'p'):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f'camera_info: {name} = {list(getattr(self, name))} is not '
                                 f'finite: {CALIBRATE}')
        if self.width < 1 or self.height < 1:
            raise ValueError(f'camera_info: {self.width}x{self.height} has no pixels: the driver '
                             'must fill in the size that it was calibrated at')
        if self.rectified:
            self._check_rectified()
        else:
            self._check_raw()
        x, y, width, height = self.region
        if min(self.region) < 0 or x + width > self.width or y + height > self.height:
            raise ValueError(f'camera_info: roi {width}x{height} at ({x}, {y}) is not within the '
                             f'sensor of {self.width}x{self.height}')
        if min(self.binning) < 1 or min(self.image_size) < 1:
            raise ValueError(f'camera_info: binning {self.binning[0]}x{self.binning[1]} leaves '
                             f'no pixels of {self.width}x{self.height}')

    def _check_rectified(self) -> None:
        if not (self.p[0] > 0.0 and self.p[5] > 0.0):
            raise ValueError(f'camera_info: focal lengths P[0] = {self.p[0]:g} and P[5] = '
                             f'{self.p[5]:g} are not positive, so the image is not rectified: '
                             f'{CALIBRATE}, or set camera.rectified to false')
        turn = np.reshape(self.r, (3, 3))
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3):
            raise ValueError(f'camera_info: R = {list(self.r)} is no rotation: {CALIBRATE}')

    def _check_raw(self) -> None:
        if not (self.k[0] > 0.0 and self.k[4] > 0.0):
            raise ValueError(f'camera_info: focal lengths K[0] = {self.k[0]:g} and K[4] = '
                             f'{self.k[4]:g} are not positive: the camera is not calibrated; '
                             f'{CALIBRATE}')
        if not any(self.d) and self.model in ('', PLUMB_BOB, RATIONAL):
            return  # a pinhole
        if self.model not in COEFFICIENTS:
            raise ValueError(f'camera_info: distortion model {self.model!r} is not known; '
                             f'calibrate with one of {", ".join(COEFFICIENTS)}')
        if len(self.d) not in COEFFICIENTS[self.model]:
            raise ValueError(f'camera_info: {self.model} takes {COEFFICIENTS[self.model][-1]} '
                             f'coefficients, D has {len(self.d)}: {CALIBRATE}')

    @property
    def image_size(self) -> tuple[int, int]:
        """Return width and height of the published images."""
        whole = self.region.width and self.region.height
        width, height = self.region[2:] if whole else (self.width, self.height)
        return width // self.binning[0], height // self.binning[1]

    def project(self, rays: ArrayLike) -> FloatArray:
        """
        Return the pixels (N, 2) that show directions (N, 3): x right, y down, z ahead.

        They may lie outside of the image; nan where the lens shows nothing.
        """
        seen: FloatArray = np.asarray(rays, np.float64).reshape(-1, 3)
        if self.rectified:
            matrix, model = np.reshape(self.p, (3, 4))[:, :3], ''
            seen = seen @ np.reshape(self.r, (3, 3)).T
        else:
            matrix, model = np.reshape(self.k, (3, 3)), self.model
        flat = _distort(seen, model, self.d)
        pixels = flat @ matrix[:2, :2].T + matrix[:2, 2]
        binning = np.array(self.binning)
        published: FloatArray = (pixels - self.region[:2] + 0.5) / binning - 0.5
        return published


def _distort(rays: FloatArray, model: str, d: tuple[float, ...]) -> FloatArray:
    """Return where rays (N, 3) pierce the plane at z = 1 behind the lens, nan where nowhere."""
    aside = np.hypot(rays[:, 0], rays[:, 1])
    angle = np.arctan2(aside, rays[:, 2])
    with np.errstate(divide='ignore', invalid='ignore'):
        if model == FISHEYE:
            bent = _fisheye(angle, d) / np.where(aside > 0.0, aside, 1.0)
            bent[angle > _last_rising(lambda one: _fisheye(one, d), math.pi)] = np.nan
            result: FloatArray = rays[:, :2] * bent[:, None]
            return result
        flat = rays[:, :2] / rays[:, 2:]
        flat[angle > WIDEST] = np.nan
        if not any(d) or not model:
            return np.asarray(flat)
        k = np.zeros(8)
        k[:len(d)] = d
        radius: FloatArray = np.hypot(flat[:, 0], flat[:, 1])
        # Farther out the polynomial turns back and would show the middle of the image again.
        flat[radius > _last_rising(lambda one: one * _radial(one, k), math.tan(WIDEST))] = np.nan
        x, y = flat.T
        square = radius**2
        factor = _radial(radius, k)
        return np.stack([x * factor + 2.0 * k[2] * x * y + k[3] * (square + 2.0 * x * x),
                         y * factor + k[2] * (square + 2.0 * y * y) + 2.0 * k[3] * x * y], axis=1)


def _radial(radius: FloatArray, k: FloatArray) -> FloatArray:
    """Return by what plumb_bob and rational_polynomial stretch a radius (OpenCV's k1 to k6)."""
    square = radius**2
    above = 1.0 + square * (k[0] + square * (k[1] + square * k[4]))
    below = 1.0 + square * (k[5] + square * (k[6] + square * k[7]))
    factor: FloatArray = above / below
    return factor


def _fisheye(angle: FloatArray, d: tuple[float, ...]) -> FloatArray:
    """Return the radius at which an angle from the axis is seen (Kannala and Brandt 2006)."""
    square = angle**2
    radius: FloatArray = angle * (1.0 + square * (d[0] + square * (
        d[1] + square * (d[2] + square * d[3]))))
    return radius


def _last_rising(function: Callable[[FloatArray], FloatArray], end: float) -> float:
    """Return up to where a function that starts at 0 rises, `end` at most."""
    places = np.linspace(0.0, end, 4001, dtype=np.float64)
    values = function(places)
    falls = np.flatnonzero(~(np.diff(values) > 0.0))
    return float(places[falls[0]]) if len(falls) else end
