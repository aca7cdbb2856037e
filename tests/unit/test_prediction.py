"""Where the steering leads, and where the vehicle was."""
from __future__ import annotations

import math

import numpy as np
import pytest

from av_td3_ros.driving.command.control import CommandSettings, to_carla
from av_td3_ros.driving.display.prediction import (
    PredictionSettings,
    Trail,
    edges,
    predicted_path,
)
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.simulator.vehicle.dynamics import EgoVehicle, VehicleCommand, VehicleSettings

SETTINGS = PredictionSettings()


def test_the_defaults_are_those_of_the_embedded_vehicle() -> None:
    vehicle = EgoVehicle()
    assert SETTINGS.steering_angle == pytest.approx(
        VehicleSettings().max_steering_angle * CommandSettings().steering_range)
    assert SETTINGS.wheelbase == pytest.approx(vehicle.wheelbase, abs=0.01)
    assert (SETTINGS.length, SETTINGS.width) == pytest.approx(
        (vehicle.length, vehicle.width), abs=0.01)


@pytest.mark.parametrize('steer', [-0.6, 0.0, 0.3])
def test_the_vehicle_goes_where_its_steering_is_said_to_lead(steer: float) -> None:
    vehicle = EgoVehicle()
    vehicle.reset(Pose(0.0, 0.0, 0.0), speed=3.0)
    command = to_carla((steer, 0.1))
    for _ in range(40):  # until the wheels have turned
        vehicle.step(VehicleCommand(throttle=0.0, steer=-command.steer), 0.02)
    start = vehicle.pose
    path = predicted_path(steer, 3.0, SETTINGS)
    drive = []
    for _ in range(150):
        vehicle.step(VehicleCommand(throttle=0.15, steer=-command.steer), 0.02)
        drive.append((vehicle.x - start.x, vehicle.y - start.y))
    cosine, sine = math.cos(start.yaw), math.sin(start.yaw)
    seen = np.array(drive) @ np.array([[cosine, -sine], [sine, cosine]])
    for point in path[1:9, :2]:
        assert np.hypot(*(seen - point).T).min() < 0.25


def test_left_is_left_and_the_way_has_the_vehicles_width() -> None:
    path = predicted_path(1.0, 5.0, SETTINGS)
    assert path[-1, 1] > 1.0 and path[-1, 2] > 0.0
    left, right = edges(path, 0.8)
    assert np.hypot(*(left - right).T) == pytest.approx(np.full(len(path), 1.6))
    assert left[0, 1] > right[0, 1]
    assert predicted_path(-1.0, 5.0, SETTINGS)[:, 1] == pytest.approx(-path[:, 1])


def test_what_is_no_number_counts_as_nothing() -> None:
    straight = predicted_path(math.nan, math.inf, SETTINGS)
    assert straight[:, 1] == pytest.approx(np.zeros(len(straight)))
    assert straight[-1, 0] == pytest.approx(SETTINGS.shortest)


def test_a_trail_keeps_the_last_metres() -> None:
    trail = Trail(10.0)
    for step in range(300):
        trail.add(VehicleState(step, 0.1 * step, 0.0, 0.0, speed=2.0))
    points = trail.points
    assert points[-1].x - points[0].x == pytest.approx(10.0, abs=1.5)
    assert points[-1].x == pytest.approx(29.9, abs=0.6)
    trail.add(VehicleState(400, 90.0, 0.0, 0.0, speed=2.0))
    assert [one.x for one in trail.points] == [90.0]
