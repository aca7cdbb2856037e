"""How far a camera is from the one that a policy was trained with."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from av_td3_ros.driving.camera.calibration import FISHEYE, Calibration
from av_td3_ros.driving.camera.view import MountingSettings, ViewSettings, orientation
from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.settings import from_mapping

# Each moves what is near by about a pixel of the 84 of an observation.
ANGLE = math.radians(1.0)
FIELD_OF_VIEW = math.radians(2.0)
ASPECT = 0.02  # of itself
AHEAD = 0.1    # m
ASIDE = 0.05   # m
UP = 0.05      # m
COARSE = 0.8   # of the recorded pixels; more than recorded are averaged away

SIMULATOR = 'world.camera.'  # where a policy trained in the embedded simulator keeps its camera
IN_DEGREES = ('fov', 'pitch', 'yaw')


def recorded_camera(settings: Mapping[str, Mapping[str, Any]]) -> ViewSettings | None:
    """
    Return the camera that a policy was trained with from its settings, {node: {key: value}}.

    None where they do not tell. Raises ValueError for what is no camera.
    """
    simulator = settings.get('simulator_node', {})
    known = {field.name for field in dataclasses.fields(ViewSettings)}
    values = {key[len(SIMULATOR):]: value for key, value in simulator.items()
              if key.startswith(SIMULATOR)}
    if not values:
        return None
    values = {key: math.radians(value) if key in IN_DEGREES else value
              for key, value in values.items() if key in known}
    return from_mapping(ViewSettings, values, "the policy's recorded camera")


def uncalibrated_camera(calibration: Calibration, mounting: MountingSettings) -> ViewSettings:
    """
    Return the camera without distortion that comes nearest to images taken as they are.

    Its direction is that of the image's middle, its field of view that between the edges' middles.
    """
    width, height = calibration.image_size
    left, middle, right = _rays(calibration, [(-0.5, 0.5 * height - 0.5),
                                              (0.5 * width - 0.5, 0.5 * height - 0.5),
                                              (width - 0.5, 0.5 * height - 0.5)])
    forward, leftward, up = orientation(mounting) @ middle
    return ViewSettings(
        width, height, math.acos(float(np.clip(left @ right, -1.0, 1.0))),
        mounting.x, mounting.y, mounting.z, math.atan2(-up, math.hypot(forward, leftward)),
        math.atan2(leftward, forward), mounting.roll)


def compare_cameras(recorded: ViewSettings, actual: ViewSettings) -> list[str]:
    """Return one sentence for each way in which a camera is not the recorded one: by how much."""
    said = []
    if (by := actual.fov - recorded.fov) and abs(by) > FIELD_OF_VIEW:
        said.append(f'the field of view of {_angle(actual.fov)} is {_angle(abs(by))} '
                    f'{"wider" if by > 0.0 else "narrower"} than the recorded '
                    f'{_angle(recorded.fov)}: '
                    + ('set camera.calibrate, which crops it' if by > 0.0 else
                       'take a wider lens, or train with this field of view'))
    if squeezed := compare_aspects(recorded, actual.width, actual.height):
        said.append(f'{squeezed}: set camera.calibrate, or publish images of that aspect')
    for name, more, less in (('pitch', 'down', 'up'), ('yaw', 'left', 'right'),
                             ('roll', 'clockwise', 'counter-clockwise')):
        is_, was = getattr(actual, name), getattr(recorded, name)
        by = math.remainder(is_ - was, math.tau)
        if abs(by) > ANGLE:
            way, back = (more, less) if by > 0.0 else (less, more)
            said.append(f'the {name} of {_angle(is_)} is {_angle(abs(by))} farther {way} than '
                        f'the recorded {_angle(was)}: turn the camera {back} by that, or set '
                        'camera.calibrate')
    for name, meaning, more, less, limit in (
            ('z', 'height', 'above', 'below', UP), ('x', 'place', 'ahead of', 'behind', AHEAD),
            ('y', 'place', 'to the left of', 'to the right of', ASIDE)):
        is_, was = getattr(actual, name), getattr(recorded, name)
        by = is_ - was
        if abs(by) > limit:
            said.append(f'the {meaning} {name} = {is_:.2f} m is {abs(by):.2f} m '
                        f'{more if by > 0.0 else less} the recorded {was:.2f} m: mount the '
                        'camera there, or set camera.calibrate')
    if actual.width * actual.height < COARSE * recorded.width * recorded.height:
        said.append(f'images of {actual.width}x{actual.height} are coarser than the recorded '
                    f'{recorded.width}x{recorded.height}: publish larger ones')
    return said


def compare_aspects(recorded: ViewSettings, width: int, height: int) -> str:
    """Return by how much images taken as they are get squeezed, '' where they do not."""
    was, is_ = recorded.width / recorded.height, width / height
    by = is_ / was - 1.0
    if abs(by) <= ASPECT:
        return ''
    return (f'the aspect of {is_:.2f} ({width}x{height}) is {100.0 * abs(by):.0f} % '
            f'{"wider" if by > 0.0 else "narrower"} than the recorded {was:.2f} '
            f'({recorded.width}x{recorded.height})')


def _rays(calibration: Calibration, pixels: list[tuple[float, float]]) -> FloatArray:
    """Return unit directions (N, 3), right, down, ahead, that pixels of the image show."""
    whole = (np.array(pixels) + 0.5) * calibration.binning - 0.5 + calibration.region[:2]
    turn = np.eye(3)
    if calibration.rectified:
        matrix, turn = np.reshape(calibration.p, (3, 4))[:, :3], np.reshape(calibration.r, (3, 3))
        flat = (whole - matrix[:2, 2]) / np.diag(matrix)[:2]
    else:
        undistort = (cv2.fisheye.undistortPoints if calibration.model == FISHEYE
                     else cv2.undistortPoints)
        flat = np.asarray(undistort(whole[:, None], np.reshape(calibration.k, (3, 3)),
                                    np.array(calibration.d or (0.0,) * 4)))[:, 0]
    rays: FloatArray = np.column_stack([flat, np.ones(len(flat))]) @ turn
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def _angle(radians: float) -> str:
    return f'{radians:.3f} rad ({math.degrees(radians):.1f} deg)'
