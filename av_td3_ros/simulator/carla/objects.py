"""What carla_spawn_objects puts into a CARLA world: the ego vehicle, its sensors, its camera."""
from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from av_td3_ros.reading import brief, read_json
from av_td3_ros.settings import setting

CAMERA = 'rgb_front'


@dataclasses.dataclass(frozen=True)
class CarlaCameraSettings:
    """Say what the front camera sees; the place is counted from the vehicle's middle."""

    width: int = setting(320, 'width of the image in pixels', minimum=16, maximum=7680)
    height: int = setting(240, 'height of the image in pixels', minimum=16, maximum=4320)
    fov: float = setting(90.0, 'horizontal field of view in degrees', minimum=10.0, maximum=170.0)
    x: float = setting(0.8, 'm ahead of the middle', minimum=-10.0, maximum=10.0)
    y: float = setting(0.0, 'm to the left of the middle', minimum=-5.0, maximum=5.0)
    z: float = setting(1.6, 'm above the ground', minimum=0.2, maximum=50.0)
    pitch: float = setting(8.0, 'pitch in degrees, + = down', minimum=-60.0, maximum=85.0)


def objects(file: Path, vehicle: str, kind: str, camera: CarlaCameraSettings) -> dict[str, Any]:
    """
    Return the objects of a file with the ego vehicle's role name, its kind and its camera set.

    `kind` is a blueprint such as vehicle.tesla.model3; empty: as the file says. Raises ValueError
    for a file without exactly one vehicle with a camera of the id rgb_front.
    """
    try:
        described: dict[str, Any] = copy.deepcopy(read_json(file))
        vehicles = [one for one in described['objects'] if one['type'].startswith('vehicle.')]
        cameras = [one for vehicle_ in vehicles for one in _sensors(vehicle_)
                   if one['id'] == CAMERA]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{file} is no objects file of carla_spawn_objects ({brief(error)}); '
                         'config/carla/objects.json is one') from error
    if len(vehicles) != 1 or len(cameras) != 1:
        raise ValueError(f'{file} has {len(vehicles)} vehicles and {len(cameras)} sensors '
                         f'{CAMERA!r}; it needs one of each')
    vehicles[0].update(id=vehicle, type=kind or vehicles[0]['type'])
    cameras[0].update(image_size_x=camera.width, image_size_y=camera.height, fov=camera.fov)
    cameras[0]['spawn_point'] = {'x': camera.x, 'y': camera.y, 'z': camera.z,
                                 'roll': 0.0, 'pitch': camera.pitch, 'yaw': 0.0}
    return described


def _sensors(vehicle: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from vehicle.get('sensors', [])
