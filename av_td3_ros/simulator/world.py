"""One simulated world: the ego vehicle, the traffic and the camera, moved one step at a time."""
from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np

from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import FloatArray, Pose
from av_td3_ros.driving.route.road_map import MapError, RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.settings import group, setting
from av_td3_ros.simulator.roads.geometry import RoadGeometry
from av_td3_ros.simulator.roads.lane_lines import LaneLines
from av_td3_ros.simulator.traffic import Traffic, TrafficSettings, TrafficVehicle
from av_td3_ros.simulator.vehicle.contact import contacts
from av_td3_ros.simulator.vehicle.dynamics import (
    GRAVITY,
    EgoVehicle,
    VehicleCommand,
    VehicleInfo,
    VehicleSettings,
)
from av_td3_ros.simulator.view.appearance import Appearance, AppearanceSettings
from av_td3_ros.simulator.view.camera import Camera, CameraSettings, Image, Vehicles
from av_td3_ros.simulator.view.scenery import Scenery

STATIC_ID = 0  # what is no vehicle, in Collision.other_id
CONTACT_REACH = 30.0  # m; roadside boxes farther off are not looked at
SAME_PLACE = 1e-3  # m and rad within which two starts are the same one
CLEAR_OF_EGO = 15.0  # m round the ego vehicle in which no traffic appears
LONGEST_GAP = 0.5  # s of silence about a real vehicle that traffic makes up for
MASS_OF_VOLUME = 110.0  # kg/m^3, of traffic vehicles


@dataclasses.dataclass(frozen=True)
class WorldSettings:
    """Choose the map, the time step and everything in it."""

    map: str = setting('loop', 'a map of config/maps by its name, or the path of an .xodr file')
    fixed_delta_seconds: float = setting(0.05, 'simulated time of one step, s', minimum=0.001,
                                         maximum=0.5)
    spawn_point: int = setting(0, "number of the map's spawn point where the ego vehicle starts",
                               minimum=0)
    roadside_distance: float = setting(12.0, 'mean distance of the boxes along the road, m; '
                                       '0 = none', minimum=0.0, maximum=1000.0)
    camera: CameraSettings = group(CameraSettings, 'the front camera')
    appearance: AppearanceSettings = group(AppearanceSettings, 'how the world looks')
    traffic: TrafficSettings = group(TrafficSettings, 'the other vehicles')
    vehicle: VehicleSettings = group(VehicleSettings, 'the ego vehicle')


@dataclasses.dataclass(frozen=True)
class Collision:
    """
    Hold one contact: who was hit (0 = nothing that drives) and the normal impulse.

    The impulse acts on the ego vehicle, along the map's axes, in N s.
    """

    other_id: int
    normal_impulse: tuple[float, float]

    @property
    def magnitude(self) -> float:
        """Return the size of the impulse in N s."""
        return math.hypot(*self.normal_impulse)


@dataclasses.dataclass(frozen=True)
class Imu:
    """Hold what an inertial unit in the ego vehicle measures: m/s^2 (with gravity) and rad/s."""

    linear_acceleration: tuple[float, float, float]
    angular_velocity: tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """
    Hold the world after one step.

    `acceleration` is the ego vehicle's (longitudinal, lateral) mean over the step in m/s^2;
    `image` is (height, width, 4) bgra8, None when nothing was rendered; `lane_invasion` the types
    of the lines crossed in this step (0 other, 1 broken, 2 solid).
    """

    frame: int
    stamp_ns: int
    ego: VehicleState
    acceleration: tuple[float, float]
    image: Image | None
    collision: Collision | None
    lane_invasion: tuple[int, ...]
    vehicles: tuple[TrafficVehicle, ...]


class World:
    """
    Simulate one ego vehicle on one map; nothing moves but in `tick` and `follow`.

    The same settings, seed and calls give the same snapshots, images included. `stamp_ns` is the
    simulated time, or that of the real vehicle that is followed.
    """

    def __init__(self, settings: WorldSettings | None = None, seed: int = 0) -> None:
        """
        Load the map and place everything; `seed` decides everything random.

        Raises MapError for a map that is unknown, broken or not drivable and ValueError for a
        spawn point that the map does not have.
        """
        self.settings = settings or WorldSettings()
        self._seed = seed
        try:
            file = map_file(self.settings.map)
            self.road_map, self.geometry, self.scenery = _read(
                file, file.stat().st_mtime_ns, self.settings.roadside_distance)
        except FileNotFoundError as error:
            raise MapError(str(error)) from error
        self.spawn_points: tuple[Pose, ...] = self.road_map.spawn_points()
        if not self.spawn_points:
            raise MapError(f'map {self.road_map.name!r} has no lane with 30 m to drive ahead; '
                           'take a larger map')
        if self.settings.spawn_point >= len(self.spawn_points):
            raise ValueError(
                f'map {self.road_map.name!r} has {len(self.spawn_points)} spawn points; '
                f'spawn_point = {self.settings.spawn_point} must be below that')
        self.ego = EgoVehicle(self.settings.vehicle)
        self.traffic = Traffic(self.road_map, self.settings.traffic, np.random.default_rng(0))
        self.camera = Camera(self.settings.camera, self.scenery)
        self._lines = LaneLines(self.geometry.markings)
        self._step_ns = round(self.settings.fixed_delta_seconds * 1e9)
        self._dt = self._step_ns * 1e-9
        self.frame = 0
        self.stamp_ns = 0
        self.appearance = Appearance()
        self.teleport(self.spawn_points[self.settings.spawn_point])

    @property
    def vehicle_state(self) -> VehicleState:
        """Return where the ego vehicle is and how it moves."""
        ego = self.ego
        return VehicleState(self.stamp_ns, ego.x, ego.y, ego.yaw, ego.speed, ego.lateral_speed,
                            ego.yaw_rate)

    @property
    def ego_pose(self) -> Pose:
        """Return where the ego vehicle is."""
        return self.ego.pose

    def vehicle_info(self) -> VehicleInfo:
        """Return what does not change about the ego vehicle."""
        return self.ego.info()

    def imu(self) -> Imu:
        """Return the inertial measurement of the last step."""
        ahead, aside = self.ego.acceleration
        return Imu((ahead, aside, GRAVITY), (0.0, 0.0, self.ego.yaw_rate))

    def teleport(self, pose: Pose) -> None:
        """
        Put the ego vehicle to `pose`, standing, and begin a new episode there.

        Look, road condition and traffic depend on the seed and the pose alone: an episode is the
        same whatever was driven before it and however often its reset was asked for.
        """
        self.ego.reset(pose)
        self._lines.place(pose, self.ego.length, self.ego.width)
        place = [round(value / SAME_PLACE) % 2**32 for value in (pose.x, pose.y, pose.yaw)]
        look, cars = (np.random.default_rng((self._seed, *place, stream)) for stream in (0, 1))
        self.appearance = Appearance.sample(self.settings.appearance, look)
        self.ego.grip = self.settings.vehicle.grip * self.appearance.grip
        self.traffic.spawn(self.ego.pose, CLEAR_OF_EGO, cars)

    def set_velocity(self, speed: float) -> None:
        """Set the ego vehicle's longitudinal speed in m/s; it neither slides nor turns then."""
        self.ego.set_velocity(speed)

    def tick(self, command: VehicleCommand, render: bool = True) -> Snapshot:
        """Move everything on by one step, the ego vehicle as `command` says."""
        before = self.ego.pose
        self.ego.step(command, self._dt)
        vehicles = self._move_traffic(self._dt)
        self.stamp_ns += self._step_ns
        collision = self._collide(vehicles)
        if collision is not None:
            # Inelastic: the car ends where it was before it would have gone into the other.
            self.ego.x, self.ego.y, self.ego.yaw = before.x, before.y, before.yaw
            self.ego.stop(self._dt)
        return self._snapshot(vehicles, collision, render)

    def follow(self, vehicle: VehicleState, render: bool = True) -> Snapshot:
        """
        Move everything on to the time of `vehicle`, a real one that moves by itself.

        Camera, traffic and contacts follow it; nothing here moves it. Over more than half a second
        traffic moves half a second. Raises ValueError where time does not go forward.
        """
        dt = (vehicle.stamp_ns - self.stamp_ns) * 1e-9
        if dt <= 0.0:
            raise ValueError(f'World.follow: {-dt:.3f} s before the step before; leave out what '
                             'comes late')
        dt = min(dt, LONGEST_GAP)
        self.ego.place(Pose(vehicle.x, vehicle.y, vehicle.yaw), vehicle.speed,
                       vehicle.lateral_speed, vehicle.yaw_rate, dt)
        vehicles = self._move_traffic(dt)
        self.stamp_ns = vehicle.stamp_ns
        return self._snapshot(vehicles, self._collide(vehicles), render)

    def _move_traffic(self, dt: float) -> tuple[TrafficVehicle, ...]:
        ego = self.ego
        for _ in range(steps := math.ceil(dt / self._dt - 1e-6)):
            self.traffic.step(dt / steps, (ego.x, ego.y, ego.yaw, ego.speed, ego.length))
        return tuple(self.traffic.vehicles)

    def _snapshot(self, vehicles: tuple[TrafficVehicle, ...], collision: Collision | None,
                  render: bool) -> Snapshot:
        self.frame += 1
        crossed = self._lines.move(self.ego.pose, self.ego.length, self.ego.width)
        image = self.render(vehicles) if render else None
        return Snapshot(self.frame, self.stamp_ns, self.vehicle_state, self.ego.acceleration,
                        image, collision, crossed, vehicles)

    def render(self, vehicles: tuple[TrafficVehicle, ...] | None = None) -> Image:
        """Return what the front camera sees now, (height, width, 4) bgra8."""
        seen = tuple(self.traffic.vehicles) if vehicles is None else vehicles
        return self.camera.render(self.ego.pose, _drawn(seen), self.appearance)

    def _collide(self, vehicles: tuple[TrafficVehicle, ...]) -> Collision | None:
        """Return the hardest contact in which the ego vehicle and another close in."""
        ego = self.ego
        others = self.scenery.around(ego.x, ego.y, CONTACT_REACH).obstacles
        if vehicles:
            moving = np.array([one[1:4] + one[5:7] for one in vehicles], np.float64)
            others = np.concatenate([moving, others])
        box = np.array([ego.x, ego.y, ego.yaw, ego.length, ego.width])
        hardest = None
        for contact in contacts(box, others):
            velocity_x, velocity_y = ego.world_velocity()
            mass, other_id = ego.mass, STATIC_ID
            if contact.index < len(vehicles):
                other = vehicles[contact.index]
                velocity_x -= other.speed * math.cos(other.yaw)
                velocity_y -= other.speed * math.sin(other.yaw)
                other_mass = MASS_OF_VOLUME * other.length * other.width * other.height
                mass, other_id = mass * other_mass / (mass + other_mass), other.id
            closing = velocity_x * contact.normal[0] + velocity_y * contact.normal[1]
            if closing <= 1e-3:
                continue
            impulse = -mass * closing
            found = Collision(other_id, (impulse * contact.normal[0],
                                         impulse * contact.normal[1]))
            if hardest is None or found.magnitude > hardest.magnitude:
                hardest = found
        return hardest


@functools.lru_cache(maxsize=8)
def _read(file: Path, changed_ns: int, box_distance: float
          ) -> tuple[RoadMap, RoadGeometry, Scenery]:
    """Return what never changes of a map; worlds of one map share it."""
    road_map = RoadMap.from_file(file)
    geometry = RoadGeometry.from_map(road_map, box_distance=box_distance)
    return road_map, geometry, Scenery.from_geometry(geometry)


def _drawn(vehicles: tuple[TrafficVehicle, ...]) -> Vehicles:
    if not vehicles:
        return Vehicles()
    boxes: FloatArray = np.array([one[1:4] + one[5:8] for one in vehicles], np.float64)
    return Vehicles(boxes, np.array([one.colour[::-1] for one in vehicles], np.float64))
