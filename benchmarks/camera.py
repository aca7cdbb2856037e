"""Measure the camera of the simulator with traffic, in time of one core, whoever shares it."""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from av_td3_ros.simulator.traffic import TrafficSettings
from av_td3_ros.simulator.vehicle.dynamics import VehicleCommand
from av_td3_ros.simulator.view.appearance import AppearanceSettings
from av_td3_ros.simulator.view.camera import Camera, CameraSettings, Vehicles
from av_td3_ros.simulator.world import World, WorldSettings
from benchmarks import at_least_one, conclude

GOAL_FRAMES_PER_SECOND = 400.0
GOAL_TICK_MS = 3.5
MAPS = ('loop', 'winding', 'town')
WORLDS = ('clean', 'moderate', 'cluttered')
VEHICLES = 20
ROUNDS = 3  # another process on the core slows any one of them


def in_view(world: World) -> Vehicles:
    """Return 20 vehicles along the lane ahead of the ego vehicle and beside it, all in view."""
    pose = world.ego_pose
    path = world.road_map.lane_ahead(pose, 85.0, 1.0, np.random.default_rng(0))
    boxes = []
    for index in range(VEHICLES):
        x, y = path[min(7 + 4 * index, len(path) - 2)]
        next_x, next_y = path[min(8 + 4 * index, len(path) - 1)]
        yaw = np.arctan2(next_y - y, next_x - x)
        side = 3.5 * (index % 2)
        boxes.append((x - side * np.sin(yaw), y + side * np.cos(yaw), yaw, 4.5, 1.8, 1.5))
    return Vehicles(np.array(boxes), np.full((VEHICLES, 3), (60.0, 60.0, 180.0)))


def camera_row(world: World, settings: CameraSettings, frames: int) -> float:
    """Return the median time of one frame in ms over places all over the map."""
    camera = Camera(settings, world.scenery)
    places = world.spawn_points[::max(1, len(world.spawn_points) // 20)]
    times = []
    for place in places:
        world.teleport(place)
        vehicles = in_view(world)
        for index in range(max(2, frames // len(places))):
            pose = place.ahead(0.4 * index)
            start = time.thread_time()
            camera.render(pose, vehicles, world.appearance)
            if index:  # the first of an episode also makes its noise
                times.append(time.thread_time() - start)
    return 1e3 * float(np.median(times))


def tick_row(world: World, ticks: int) -> float:
    """Return the median time of a whole step of the world in ms."""
    times = []
    for index in range(ticks):
        if index % 50 == 0:
            world.teleport(world.spawn_points[index * 7 % len(world.spawn_points)])
            world.set_velocity(8.0)
        start = time.thread_time()
        world.tick(VehicleCommand(throttle=0.3))
        times.append(time.thread_time() - start)
    return 1e3 * float(np.median(times))


def measure(frames: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the claims and the table; every row is the best of interleaved rounds of medians."""
    cv2.setNumThreads(1)
    worlds = {(name, look): World(WorldSettings(
        map=name, traffic=TrafficSettings(count=VEHICLES),
        appearance=AppearanceSettings(world=look))) for name in MAPS for look in WORLDS}
    rounds = [{key: (camera_row(world, CameraSettings(), frames), tick_row(world, frames))
               for key, world in worlds.items()} for _ in range(ROUNDS)]
    table = []
    for name, look in worlds:
        frame_ms, tick_ms = (min(one[name, look][column] for one in rounds) for column in (0, 1))
        table.append({'map': name, 'world': look, 'frame_ms': round(frame_ms, 3),
                      'frames_per_second': round(1e3 / frame_ms, 1), 'tick_ms': round(tick_ms, 3)})
    slowest = min(row['frames_per_second'] for row in table)
    tick = max(row['tick_ms'] for row in table)
    claims = [
        {'name': f'320x240 with {VEHICLES} vehicles in view, slowest world', 'value': slowest,
         'unit': 'frames/s', 'goal': GOAL_FRAMES_PER_SECOND,
         'holds': slowest >= GOAL_FRAMES_PER_SECOND},
        {'name': f'World.tick with {VEHICLES} vehicles, slowest world', 'value': tick,
         'unit': 'ms', 'goal': GOAL_TICK_MS, 'holds': tick <= GOAL_TICK_MS}]
    return claims, table


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=at_least_one, default=300,
                        help='frames in every row and round')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    claims, table = measure(options.frames)
    print(f'{"map":10}{"world":12}{"frame ms":>10}{"frames/s":>10}{"tick ms":>10}')
    for row in table:
        print(f'{row["map"]:10}{row["world"]:12}{row["frame_ms"]:10.2f}'
              f'{row["frames_per_second"]:10.0f}{row["tick_ms"]:10.2f}')
    return conclude('camera', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
