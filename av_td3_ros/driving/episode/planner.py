"""Where each training or evaluation episode begins and where it leads."""
from __future__ import annotations

import dataclasses
import math

import numpy as np

from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.driving.route.planner import RouteError, RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.settings import setting

ATTEMPTS = 200
COMFORTABLE_DECELERATION = 2.5  # m/s^2


@dataclasses.dataclass(frozen=True)
class EpisodePlanSettings:
    """Say how long the routes are and how the vehicle stands at their start."""

    seed: int = setting(0, 'seed of starts and goals; episode i is the same for the same seed',
                        minimum=0, maximum=2**31 - 1)
    min_length: float = setting(150.0, 'shortest route in m', minimum=20.0, maximum=100000.0)
    max_length: float = setting(300.0, 'longest route in m', minimum=20.0, maximum=100000.0)
    max_offset: float = setting(0.5, 'largest lateral distance of a start from the lane centre, '
                                'm', minimum=0.0, maximum=1.5)
    max_yaw_offset: float = setting(0.1, 'largest heading error of a start, rad', minimum=0.0,
                                    maximum=0.8)
    max_speed: float = setting(0.0, 'largest speed of a start, m/s; 0 starts at standstill',
                               minimum=0.0, maximum=30.0)
    standing_share: float = setting(0.25, 'share of the starts at standstill where max_speed is '
                                    'above 0', minimum=0.0, maximum=1.0)

    def __post_init__(self) -> None:
        """Refuse an empty range of lengths."""
        if self.max_length < self.min_length:
            raise ValueError(f'episodes: max_length = {self.max_length} is below min_length = '
                             f'{self.min_length}')


def check_room_to_stop(episodes: EpisodePlanSettings, target_speed: float) -> None:
    """Raise ValueError when a route may be too short to stop from `target_speed` m/s on it."""
    needed = target_speed**2 / (2.0 * COMFORTABLE_DECELERATION)
    if episodes.min_length < needed:
        raise ValueError(
            f'episodes.min_length = {episodes.min_length:g} m is less than the {needed:.1f} m in '
            f'which driving.target_speed = {target_speed:g} m/s is braked at '
            f'{COMFORTABLE_DECELERATION:g} m/s^2; set episodes.min_length to {math.ceil(needed)} '
            'or more, or driving.target_speed lower')


@dataclasses.dataclass(frozen=True)
class EpisodePlan:
    """Hold a start pose, its speed in m/s, and the goal."""

    start: Pose
    speed: float
    goal: Pose
    route_length: float


class EpisodePlanner:
    """Choose starts and goals on a map's lanes; the same index gives the same episode."""

    def __init__(self, road_map: RoadMap, settings: EpisodePlanSettings) -> None:
        """Raise ValueError when the map has no place to start from."""
        self._planner = RoutePlanner(road_map)
        self._spawns = road_map.spawn_points()
        self._name = road_map.name
        self.height = road_map.height
        self._settings = settings
        if not self._spawns:
            raise ValueError(f'map {road_map.name!r} has no lane with room to start from; a start '
                             'needs 30 m to drive ahead: take a larger map')

    def plan(self, index: int) -> EpisodePlan:
        """
        Return episode `index`.

        Raises ValueError when no route of the wanted length is found, which names map and length.
        """
        s = self._settings
        rng = np.random.default_rng((s.seed, index))
        for _ in range(ATTEMPTS):
            spawn = self._spawns[int(rng.integers(len(self._spawns)))]
            try:
                drive = self._planner.sample_goal(spawn, s.min_length, s.max_length, rng)
                # What is driven is the shortest way there, as everybody plans it.
                route = self._planner.plan(spawn, drive.goal)
            except RouteError:
                continue
            if route.length < s.min_length:
                continue
            offset, yaw = rng.uniform(-1, 1, 2) * (s.max_offset, s.max_yaw_offset)
            standing = s.max_speed == 0.0 or rng.random() < s.standing_share
            speed = 0.0 if standing else float(rng.uniform(0.0, s.max_speed))
            left = Pose(spawn.x, spawn.y, spawn.yaw + np.pi / 2).ahead(float(offset))
            start = Pose(left.x, left.y, spawn.yaw + float(yaw))
            return EpisodePlan(start, speed, route.goal, route.length)
        raise ValueError(f'no route of {s.min_length:g} to {s.max_length:g} m found on map '
                         f'{self._name!r} in {ATTEMPTS} attempts; ask for shorter routes '
                         '(episodes.min_length) or take a larger map')
