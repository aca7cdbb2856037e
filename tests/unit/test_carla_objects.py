"""The objects file, as carla_spawn_objects and the bridge read it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_maps import straight_road

from av_td3_ros.paths import config_directory
from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.settings import check
from av_td3_ros.simulator.carla.objects import CarlaCameraSettings, objects
from av_td3_ros.simulator.view.camera import CameraSettings

SHIPPED = config_directory() / 'carla' / 'objects.json'
# Types of the bridge's actor_factory, with the attributes that their blueprints take.
SENSORS = {
    'sensor.pseudo.markers': set(), 'sensor.pseudo.tf': set(), 'sensor.pseudo.odom': set(),
    'sensor.pseudo.speedometer': set(), 'actor.pseudo.control': set(),
    'sensor.other.imu': set(), 'sensor.other.gnss': set(), 'sensor.other.collision': set(),
    'sensor.other.lane_invasion': set(),
    'sensor.camera.rgb': {'image_size_x', 'image_size_y', 'fov'}}
PLACE = {'x', 'y', 'z', 'roll', 'pitch', 'yaw'}


def shipped(role: str = 'ego_vehicle', kind: str = '', **camera: Any
            ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the global sensors and the vehicle of the shipped file."""
    described = objects(SHIPPED, role, kind, CarlaCameraSettings(**camera))['objects']
    (vehicle,) = [one for one in described if one['type'].startswith('vehicle.')]
    return [one for one in described if one is not vehicle], vehicle


def test_every_object_is_one_that_the_bridge_spawns() -> None:
    world, vehicle = shipped()
    assert all('pseudo' in one['type'] for one in world)  # others need a spawn point
    for sensor in [*world, *vehicle['sensors']]:
        assert {*sensor} - {'type', 'id', 'spawn_point'} == SENSORS[sensor['type']]
        assert {*sensor.get('spawn_point', {})} <= PLACE
        assert all(isinstance(one, float) for one in sensor.get('spawn_point', {}).values())
    names = [one['id'] for one in vehicle['sensors']]
    assert len(set(names)) == len(names)


def test_every_topic_of_the_profile_has_its_sensor() -> None:
    world, vehicle = shipped('hero')
    told = {f'/carla/{one["id"]}' for one in world} | {
        f'/carla/hero/{one["id"]}' for one in vehicle['sensors']}
    own = {f'/carla/hero/{name}' for name in (
        'waypoints', 'goal', 'vehicle_control_cmd', 'vehicle_control_cmd_manual',
        'vehicle_control_manual_override')}  # of the vehicle itself and the waypoint publisher
    bound = {spec.topic(role) for spec in session_nodes('carla', 'hero', learning=True)
             for role in spec.remaps if spec.name in ('environment_node', 'control_node')}
    own |= {'/carla/world_info', '/carla/status'}  # of the bridge itself
    bound = {one for one in bound if one.startswith('/carla/')} - own
    assert bound and all(any(one == topic or one.startswith(f'{topic}/') for topic in told)
                         for one in bound), bound


def test_the_image_comes_last_in_a_tick() -> None:
    _, vehicle = shipped()
    assert vehicle['sensors'][-1]['id'] == 'rgb_front'


def test_the_camera_is_that_of_the_embedded_simulator_unless_told() -> None:
    ours, theirs = CarlaCameraSettings(), CameraSettings()
    for key in ('width', 'height', 'fov', 'x', 'y', 'z', 'pitch'):
        assert getattr(ours, key) == getattr(theirs, key), key
    read = json.loads(SHIPPED.read_text())
    assert objects(SHIPPED, 'ego_vehicle', '', ours) == read


def test_vehicle_and_camera_are_as_told() -> None:
    _, vehicle = shipped('hero', 'vehicle.audi.a2', width=640, height=480, fov=70.0, pitch=-3.0)
    camera = vehicle['sensors'][-1]
    assert (vehicle['id'], vehicle['type']) == ('hero', 'vehicle.audi.a2')
    assert (camera['image_size_x'], camera['image_size_y'], camera['fov']) == (640, 480, 70.0)
    assert camera['spawn_point']['pitch'] == -3.0


@pytest.mark.parametrize(('text', 'words'), [
    ('no json', 'is no objects file'), ('[]', 'is no objects file'),
    (straight_road(), 'is no objects file'),
    ('{"objects": []}', '0 vehicles and 0 sensors'),
    ('{"objects": [{"type": "vehicle.a", "id": "a"}]}', "1 vehicles and 0 sensors 'rgb_front'")])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / 'mine.json'
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
        objects(file, 'hero', '', CarlaCameraSettings())


def test_an_impossible_camera_is_refused() -> None:
    with pytest.raises(ValueError, match='width = 4 is out of range'):
        check(CarlaCameraSettings(width=4), 'camera')
