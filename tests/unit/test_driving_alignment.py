"""A proving ground put onto virtual roads, and a drive fitted to a lane."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.proving_ground.alignment import (
    StartSettings,
    at_centre,
    fit_to_lane,
    place_at,
    to_ground,
    to_map,
)
from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file

PLACES = st.floats(-1e4, 1e4)
ANGLES = st.floats(-math.pi, math.pi)
POSES = st.builds(Pose, PLACES, PLACES, ANGLES)
ROADS = RoadMap.from_file(map_file('winding'))


def near(one: Pose, other: Pose, distance: float = 1e-6, angle: float = 1e-9) -> bool:
    """Say whether two poses are the same but for rounding."""
    return one.distance(other.x, other.y) < distance and abs(
        wrap_angle(one.yaw - other.yaw)) < angle


def pose_of(vehicle: VehicleState) -> Pose:
    return Pose(vehicle.x, vehicle.y, vehicle.yaw)


def driven(origin: Pose, start: Pose, length: float = 80.0, noise: float = 0.0) -> np.ndarray:
    """Return (N, 3) what a vehicle on the ground measures that drives along a lane of the map."""
    lane = ROADS.lane_ahead(start, length, 1.0)
    steps = np.diff(lane, axis=0)
    yaws = np.arctan2(steps[:, 1], steps[:, 0])
    random = np.random.default_rng(0)
    poses = [to_ground(origin, Pose(x, y, yaw))
             for (x, y), yaw in zip(lane[:-1].tolist(), yaws.tolist(), strict=True)]
    return np.array([(one.x, one.y, one.yaw) for one in poses]) + (
        noise * random.standard_normal((len(poses), 3)))


@given(POSES, POSES, st.floats(-20, 20), st.floats(-2, 2), st.floats(-1, 1))
def test_the_ground_put_onto_the_map_keeps_distances_and_speeds(
        origin: Pose, place: Pose, speed: float, lateral: float, yaw_rate: float) -> None:
    vehicle = VehicleState(7, place.x, place.y, place.yaw, speed, lateral, yaw_rate)
    moved = to_map(origin, vehicle)
    assert near(to_ground(origin, pose_of(moved)), place)
    assert moved.stamp_ns == 7
    assert (moved.speed, moved.lateral_speed, moved.yaw_rate) == (speed, lateral, yaw_rate)
    ahead = to_map(origin, VehicleState(7, *_ahead(place), place.yaw, speed))
    assert math.hypot(ahead.x - moved.x, ahead.y - moved.y) == pytest.approx(5.0)
    assert near(Pose(ahead.x, ahead.y, ahead.yaw), pose_of(moved).ahead(5.0))


def _ahead(place: Pose) -> tuple[float, float]:
    there = place.ahead(5.0)
    return there.x, there.y


@given(POSES, POSES)
def test_one_pose_is_enough_to_place_the_ground(first: Pose, start: Pose) -> None:
    origin = place_at(first, start)
    assert near(pose_of(to_map(origin, VehicleState(0, first.x, first.y, first.yaw, 0.0))), start)


def test_the_middle_of_a_vehicle_that_measures_its_rear_axle() -> None:
    rear = VehicleState(0, 1.0, 2.0, math.pi / 2, 5.0, 0.0, 0.4)
    middle = at_centre(rear, 1.4)
    assert (middle.x, middle.y) == pytest.approx((1.0, 3.4))
    assert (middle.speed, middle.lateral_speed, middle.yaw_rate) == pytest.approx((5.0, 0.56, 0.4))


@pytest.mark.parametrize('origin', [
    Pose(0.0, 0.0, 0.0), Pose(-310.0, 45.0, 2.5), Pose(-5.2e6, 4.1e5, -0.7)])
def test_a_drive_along_a_lane_finds_the_ground(origin: Pose) -> None:
    start = ROADS.spawn_points()[3]
    poses = driven(origin, start)
    fit = fit_to_lane(poses, ROADS.lane_ahead(start, 120.0, 0.5))
    assert near(fit.origin, origin, 0.02 + 1e-3 * abs(origin.x) / 1e3, 1e-3)
    assert fit.rms < 0.01
    assert np.abs(fit.residuals).max() < 0.03


def test_noise_is_averaged_and_shows_in_the_residuals() -> None:
    start, origin = ROADS.spawn_points()[3], Pose(20.0, -8.0, 1.2)
    fit = fit_to_lane(driven(origin, start, noise=0.05), ROADS.lane_ahead(start, 120.0, 0.5))
    assert near(fit.origin, origin, 0.25, 0.01)
    assert 0.03 < fit.rms < 0.08


def test_the_heading_of_a_long_drive_counts_for_more_than_its_first_pose() -> None:
    start, origin = ROADS.spawn_points()[3], Pose(20.0, -8.0, 1.2)
    poses = driven(origin, start)
    poses[0, 2] += 0.1  # a heading that is wrong by 6 degrees
    fit = fit_to_lane(poses, ROADS.lane_ahead(start, 120.0, 0.5))
    assert near(fit.origin, origin, 0.02, 1e-3)
    assert fit.start_yaw == pytest.approx(0.1, abs=0.02)
    short = fit_to_lane(poses[:3], ROADS.lane_ahead(start, 120.0, 0.5))
    assert wrap_angle(short.origin.yaw - origin.yaw) == pytest.approx(-0.1, abs=0.02)


@pytest.mark.parametrize(('poses', 'lane', 'words'), [
    (np.zeros((3, 2)), np.eye(2), 'not .N, 3.'), ([[math.nan] * 3], np.eye(2), 'finite'),
    (np.zeros((1, 3)), np.zeros((1, 2)), 'road ahead'),
    ([[float(x), 0.0, 0.0] for x in range(40)], [(0.0, 0.0), (20.0, 0.0)], 'past the end')])
def test_what_cannot_be_fitted_is_refused(poses: object, lane: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_to_lane(poses, lane)


def test_the_start_is_given_as_parameters() -> None:
    assert StartSettings(1.0, 2.0, 3.0).origin == Pose(1.0, 2.0, 3.0)
