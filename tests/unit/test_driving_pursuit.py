"""The pursuit driver at the wheel of a kinematic bicycle, seeing only the state vector."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from av_td3_ros.driving.command.pursuit import PursuitDriver, PursuitSettings
from av_td3_ros.driving.episode.episode import DrivingSettings, Episode
from av_td3_ros.driving.episode.metrics import EpisodeMetrics
from av_td3_ros.driving.episode.termination import TerminationSettings
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.settings import check

WHEELBASE = 2.6   # m
MAX_STEERING = 0.36  # rad, as the driver is told by default
TO_REAR = 1.3     # m from the vehicle's reference to its rear axle


def winding_road(seed: int, length: float = 500.0) -> np.ndarray:
    """Return a road of straights and arcs of both directions, radii from 15 m, a point a metre."""
    rng = np.random.default_rng(seed)
    pieces, total, side = [], 0.0, 1.0
    while total < length:
        radius = rng.choice([15.0, rng.uniform(15.0, 60.0)])
        side = -side
        for curvature, extent in ((0.0, rng.uniform(5.0, 40.0)),
                                  (side / radius, radius * rng.uniform(0.3, 1.8))):
            pieces.append(np.full(int(extent / 0.1), curvature))
            total += extent
    curvatures = np.concatenate(pieces)
    yaw = np.cumsum(curvatures) * 0.1
    x, y = np.cumsum(np.cos(yaw)) * 0.1, np.cumsum(np.sin(yaw)) * 0.1
    return np.stack([x, y, yaw], axis=1)[::10]


def drive(road: np.ndarray, settings: PursuitSettings | None = None, waypoints: int = 25,
          aside: float = 0.0, turned: float = 0.0) -> EpisodeMetrics:
    """Drive a kinematic bicycle with 20 commands a second along the road from standstill."""
    driver = PursuitDriver(settings)
    episode = Episode(DrivingSettings(
        waypoints=waypoints, termination=TerminationSettings(max_steps=4000)), road)
    x, y, yaw = road[0] + (0.0, aside, turned)
    speed, yaw_rate, stamp_ns = 0.0, 0.0, 0

    def seen() -> VehicleState:
        return VehicleState(stamp_ns, x + TO_REAR * math.cos(yaw), y + TO_REAR * math.sin(yaw),
                            yaw, speed, yaw_rate=yaw_rate)

    step = episode.first(seen())
    while not step.is_last:
        steer, acceleration = driver.act(step.state)
        assert -1.0 <= steer <= 1.0
        assert -1.0 <= acceleration <= 1.0
        for _ in range(5):
            yaw_rate = speed * math.tan(MAX_STEERING * steer) / WHEELBASE
            x += 0.01 * speed * math.cos(yaw)
            y += 0.01 * speed * math.sin(yaw)
            yaw += 0.01 * yaw_rate
            speed = max(speed + 0.01 * acceleration * (3.0 if acceleration > 0.0 else 8.0), 0.0)
        stamp_ns += 50_000_000
        step = episode.step(seen())
    return episode.summary()


@pytest.mark.parametrize('seed', range(4))
def test_winding_road_is_completed_close_to_its_centre(seed: int) -> None:
    metrics = drive(winding_road(seed))
    assert metrics.result == 'route_completed'
    assert metrics.cross_track_rms < 0.3
    assert metrics.cross_track_max < 1.0
    assert metrics.mean_speed > 8.0
    assert metrics.lateral_acceleration_rms < 4.0


def test_straight_road_is_driven_at_the_target_speed() -> None:
    road = np.c_[np.arange(301.0), np.zeros(301), np.zeros(301)]
    metrics = drive(road, PursuitSettings(target_speed=12.0))
    assert metrics.success
    assert 12.0 <= metrics.max_speed < 12.8
    assert metrics.cross_track_max < 0.01


def test_start_beside_and_askew_is_brought_back() -> None:
    road = np.c_[np.arange(201.0), np.zeros(201), np.zeros(201)]
    metrics = drive(road, aside=1.5, turned=-0.3)
    assert metrics.success
    assert metrics.cross_track_rms < 0.5


@pytest.mark.parametrize('waypoints', [5, 10, 40])
def test_any_number_of_waypoints_in_reach_will_do(waypoints: int) -> None:
    assert drive(winding_road(1), PursuitSettings(target_speed=6.0), waypoints).success


def state(speed: float, lateral: float, heading: float, points: list[tuple[float, float]]
          ) -> np.ndarray:
    ahead = (np.array(points) / 50.0).ravel()
    return np.array([speed / 30.0, lateral / 3.5, heading / math.pi, *ahead], dtype=np.float32)


def test_steering_is_the_circle_through_the_look_ahead_point() -> None:
    # A left-hand circle of 20 m through the rear axle: the wheels stand at atan(2.6 / 20).
    angles = 2.0 * np.arange(1, 26) / 20.0
    on_circle = np.stack([20.0 * np.sin(angles), 20.0 * (1.0 - np.cos(angles))], axis=1)
    driver = PursuitDriver(PursuitSettings(rear_axle=0.0))
    steer = driver.act(state(5.0, 0.0, 0.0, on_circle.tolist()))[0]
    assert steer == pytest.approx(math.atan(2.6 / 20.0) / MAX_STEERING, rel=0.01)
    mirrored = (on_circle * (1.0, -1.0)).tolist()
    assert driver.act(state(5.0, 0.0, 0.0, mirrored))[0] == pytest.approx(-steer)


def test_speed_is_the_documented_pid() -> None:
    straight = [(2.0 * index, 0.0) for index in range(1, 26)]
    driver = PursuitDriver()
    first = driver.act(state(9.0, 0.0, 0.0, straight))[1]
    assert first == pytest.approx(0.5 * 1.0 + 0.3 * 0.05, abs=1e-4)
    second = driver.act(state(9.1, 0.0, 0.0, straight))[1]
    assert second == pytest.approx(0.5 * 0.9 + 0.3 * 0.095 - 0.13 * 2.0, abs=1e-4)
    driver.reset()
    assert driver.act(state(9.0, 0.0, 0.0, straight))[1] == first


def test_end_of_the_route_is_driven_through() -> None:
    assert PursuitDriver().act(state(5.0, 0.0, 0.0, [(0.5, 0.0)] * 25))[1] == 1.0
    assert PursuitDriver(PursuitSettings(rear_axle=0.0)).act(
        state(5.0, 0.0, 0.0, [(0.0, 0.0)] * 25))[0] == 0.0


@pytest.mark.parametrize('bad', [
    np.zeros(4), np.zeros(3), np.zeros((1, 53)), np.full(53, np.nan)])
def test_state_that_cannot_be_read_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match='state vector'):
        PursuitDriver().act(bad)


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(PursuitSettings)])
def test_every_setting_changes_the_drive(field: str) -> None:
    check(PursuitSettings())
    usual = PursuitSettings()
    changed = dataclasses.replace(usual, **{field: getattr(usual, field) * 1.4})
    road = winding_road(2, length=120.0)
    assert drive(road, changed) != drive(road, usual)
