"""Images of a real camera, with a lens that bends, made from those of the embedded simulator."""
from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from av_td3_ros.driving.camera.calibration import FISHEYE, Calibration
from av_td3_ros.driving.camera.view import (
    CameraViewSettings,
    MountingSettings,
    ViewSettings,
    orientation,
)
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.simulator.view.appearance import Appearance
from av_td3_ros.simulator.view.camera import Camera, CameraSettings, Vehicles
from av_td3_ros.simulator.view.scenery import Scenery

TRAINED = CameraSettings()  # the embedded simulator's own
WIDE_FOV = 130.0  # degrees of the image that the lens' one is cut from
WIDE = (1920, 1440)


def calibration(width: int = 800, height: int = 600, fov: float = 100.0, **others: object
                ) -> Calibration:
    """Return a pinhole of a horizontal field of view (degrees), or what `others` make of it."""
    focal = 0.5 * width / math.tan(math.radians(0.5 * fov))
    k = (focal, 0.0, 0.5 * width - 0.5, 0.0, focal, 0.5 * height - 0.5, 0.0, 0.0, 1.0)
    p = (focal, 0.0, k[2], 0.0, 0.0, focal, k[5], 0.0, 0.0, 0.0, 1.0, 0.0)
    return Calibration(**{'width': width, 'height': height, 'k': k, 'p': p, **others})


def training_camera(camera: CameraSettings = TRAINED) -> ViewSettings:
    """Return the embedded simulator's camera as the view that images are turned to."""
    return ViewSettings(camera.width, camera.height, math.radians(camera.fov), camera.x, camera.y,
                        camera.z, math.radians(camera.pitch), math.radians(camera.yaw))


def turned_to(camera: CameraSettings, mounting: MountingSettings) -> CameraViewSettings:
    """Return settings that turn images of a mounting to those of the simulator's camera."""
    return CameraViewSettings(calibrate=True, mounting=mounting, training=training_camera(camera))


class RealCamera:
    """A camera with a lens on a vehicle in the embedded simulator."""

    def __init__(self, lens: Calibration, mounting: MountingSettings, scenery: Scenery) -> None:
        degrees = math.degrees
        settings = CameraSettings(
            width=WIDE[0], height=WIDE[1], fov=WIDE_FOV, x=mounting.x, y=mounting.y,
            z=mounting.z, pitch=degrees(mounting.pitch), yaw=degrees(mounting.yaw))
        self._camera = Camera(settings, scenery)
        # OpenCV says which direction a pixel shows; the simulator's camera knows no roll.
        width, height = lens.image_size
        pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 1, 2)
        matrix, d = np.reshape(lens.k, (3, 3)), np.array(lens.d or (0.0,) * 4)
        undistort = cv2.fisheye.undistortPoints if lens.model == FISHEYE else cv2.undistortPoints
        flat = undistort(pixels.astype(np.float64), matrix, d)[:, 0]
        rays = np.column_stack([flat, np.ones(len(flat))])
        level = dataclasses.replace(mounting, roll=0.0)
        rays = rays @ orientation(mounting).T @ orientation(level)
        fx, fy, cx, cy = self._camera.intrinsics()
        places = rays[:, :2] / rays[:, 2:] * (fx, fy) + (cx - 0.5, cy - 0.5)
        self._sources = places.reshape(height, width, 2).astype(np.float32)
        inside = ((self._sources > 0) & (self._sources < np.array(WIDE) - 1)).all()
        assert inside, 'the lens sees more than the simulator draws for it'

    def render(self, pose: Pose, appearance: Appearance | None = None,
               vehicles: Vehicles | None = None) -> np.ndarray:
        """Return the image (H, W, 4) bgra8 that the lens makes."""
        wide = self._camera.render(pose, vehicles, appearance)
        return cv2.remap(wide, self._sources, None, cv2.INTER_LINEAR)
