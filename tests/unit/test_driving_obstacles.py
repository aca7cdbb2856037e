"""The gap to the vehicle ahead and how fast it closes, in situations computed by hand."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.driving.episode.planner import EpisodePlanSettings
from av_td3_ros.driving.perception.obstacles import (
    NOTHING_AHEAD,
    Ahead,
    Box,
    ObstacleMeter,
    ObstacleSettings,
)
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.settings import check
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.traffic import TrafficSettings
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import WorldSettings

STEP_NS = 50_000_000
STRAIGHT = np.c_[np.arange(101.0), np.zeros(101)]
OWN = Box(1000, 10.0, 0.0, 0.0, 4.0, 2.0)
CAR = Box(7, 30.0, 0.0, 0.0, 4.5, 1.8)


def meter(points: np.ndarray = STRAIGHT, **change: float) -> ObstacleMeter:
    return ObstacleMeter(ObstacleSettings(measured=True, **change), points)


def ego(x: float = 10.0, y: float = 0.0, yaw: float = 0.0, speed: float = 0.0, step: int = 1,
        lateral_speed: float = 0.0) -> VehicleState:
    return VehicleState(step * STEP_NS, x, y, yaw, speed, lateral_speed)


def at(box: Box, x: float, y: float = 0.0, yaw: float = 0.0) -> Box:
    return dataclasses.replace(box, x=x, y=y, yaw=yaw)


def test_the_gap_is_from_bumper_to_bumper() -> None:
    check(ObstacleSettings())
    # 20 m between the middles, less 2 m of the vehicle's and 2.25 m of the other's half length.
    assert meter().measure(ego(), [OWN, CAR]) == Ahead(pytest.approx(15.75), None)
    # Without a box of its own the settings tell its size.
    assert meter(vehicle_length=5.0).measure(ego(), [CAR]).gap == pytest.approx(15.25)


def test_the_closing_speed_is_known_from_the_second_step_on() -> None:
    one = meter()
    assert one.measure(ego(speed=9.0), [CAR]).closing_speed is None
    ahead = one.measure(ego(10.45, speed=9.0, step=2), [at(CAR, 30.2)])
    # The other moved 0.2 m in 0.05 s: 4 m/s.
    assert ahead.closing_speed == pytest.approx(9.0 - 4.0)
    oncoming = one.measure(ego(10.9, speed=9.0, step=3), [at(CAR, 29.7, yaw=math.pi)])
    assert oncoming.closing_speed == pytest.approx(9.0 + 10.0)


def test_the_speed_across_the_route_closes_nothing() -> None:
    one = meter()
    one.measure(ego(), [CAR])
    ahead = one.measure(ego(yaw=0.5, speed=8.0, lateral_speed=1.0, step=2), [at(CAR, 30.0, 0.3)])
    assert ahead.closing_speed == pytest.approx(8.0 * math.cos(0.5) - math.sin(0.5))


@pytest.mark.parametrize(('side', 'is_seen'), [(0.0, True), (1.9, True), (2.2, False),
                                               (-1.9, True), (-2.2, False), (3.5, False)])
def test_only_what_reaches_into_the_way_counts(side: float, is_seen: bool) -> None:
    # Half the vehicle, the margin and half the other: 1.0 + 0.25 + 0.9 = 2.15 m.
    ahead = meter().measure(ego(), [OWN, at(CAR, 30.0, side)])
    assert (ahead.gap is not None) == is_seen


def test_the_way_reaches_from_the_vehicle_to_the_route() -> None:
    beside = at(CAR, 30.0, 3.5)
    assert meter().measure(ego(y=1.0), [beside]) == NOTHING_AHEAD
    assert meter().measure(ego(y=1.6), [beside]).gap is not None
    assert meter().measure(ego(y=1.6), [CAR]).gap is not None


def test_what_crosses_the_way_counts_where_it_reaches_into_it() -> None:
    across = meter().measure(ego(), [OWN, at(CAR, 30.0, 1.0, math.pi / 2)])
    assert across.gap == pytest.approx(20.0 - 2.0 - 0.9)
    # A long one across both lanes has neither end in the way.
    truck = Box(8, 30.0, 0.0, math.pi / 2, 16.0, 2.4)
    assert meter().measure(ego(), [OWN, truck]).gap == pytest.approx(20.0 - 2.0 - 1.2)


def test_what_is_behind_beside_or_too_far_is_not_ahead() -> None:
    for other in (at(CAR, 4.0), at(CAR, 10.0, 3.0), at(CAR, 75.0), at(CAR, 60.0, 40.0)):
        assert meter().measure(ego(), [OWN, other]) == NOTHING_AHEAD
    assert meter(range=70.0).measure(ego(), [OWN, at(CAR, 75.0)]).gap is not None


def test_the_nearest_of_several_counts() -> None:
    boxes = [at(CAR, 50.0), dataclasses.replace(at(CAR, 22.0), id=8), at(OWN, 10.0),
             dataclasses.replace(at(CAR, 35.0), id=9)]
    assert meter().measure(ego(), boxes).gap == pytest.approx(12.0 - 2.0 - 2.25)


def test_the_gap_is_along_the_route_round_a_curve() -> None:
    turn = np.linspace(0.0, math.pi, 100)
    arc = np.c_[20.0 * np.sin(turn), 20.0 - 20.0 * np.cos(turn)]  # to the left, radius 20 m
    one = meter(arc)
    # A quarter of the circle ahead, heading as the route does there.
    car = Box(7, 20.0, 20.0, math.pi / 2, 4.5, 1.8)
    assert one.measure(ego(0.0), [car]).gap == pytest.approx(10.0 * math.pi - 2 * 2.25, abs=0.15)
    moved = one.measure(ego(0.0, speed=6.0, step=2), [at(car, 20.0, 20.2, math.pi / 2)])
    assert moved.closing_speed == pytest.approx(6.0 - 4.0, abs=0.05)
    # In the lane on the other side of the curve nobody is in the way.
    assert meter(arc).measure(ego(0.0), [at(car, 23.5, 20.0, math.pi / 2)]) == NOTHING_AHEAD


def test_a_route_that_comes_back_is_followed_where_the_vehicle_is() -> None:
    there_and_back = np.array([[0.0, 0.0], [200.0, 0.0], [200.0, 3.5], [0.0, 3.5]])
    one = meter(there_and_back)
    # The car on the way back is 390 m ahead.
    assert one.measure(ego(10.0), [at(CAR, 30.0, 3.5, math.pi)]) == NOTHING_AHEAD


def test_what_stands_behind_the_end_of_the_route_is_in_the_way() -> None:
    assert meter().measure(ego(95.0), [at(CAR, 104.0)]).gap == pytest.approx(9.0 - 2.25 - 2.25)


def test_a_box_put_elsewhere_has_no_speed() -> None:
    one = meter()
    one.measure(ego(), [at(CAR, 80.0)])
    jumped = one.measure(ego(step=2), [CAR])
    assert jumped.gap is not None and jumped.closing_speed is None
    again = one.measure(ego(step=3), [CAR])
    assert again.closing_speed == pytest.approx(0.0)


def test_a_vehicle_that_appears_or_vanishes_does_no_harm() -> None:
    one = meter()
    assert one.measure(ego(), []) == NOTHING_AHEAD
    assert one.measure(ego(step=2), [CAR]).closing_speed is None
    assert one.measure(ego(step=3), []) == NOTHING_AHEAD
    assert one.measure(ego(step=4), [CAR]).closing_speed is None
    assert one.measure(ego(step=4), [CAR]).closing_speed is None  # no time has passed


def test_unmeasured_is_unknown() -> None:
    assert meter().measure(ego(), None) == NOTHING_AHEAD


def test_contact_is_no_gap_and_not_less() -> None:
    assert meter().measure(ego(), [OWN, at(CAR, 13.0)]).gap == 0.0


def test_a_broken_route_is_refused() -> None:
    for points in ([[0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [0.0, 1.0]):
        with pytest.raises(ValueError, match='route'):
            ObstacleMeter(ObstacleSettings(), points)


def test_driving_behind_others_is_measured() -> None:
    settings = DriveSettings(
        world=WorldSettings(map='loop', camera=CameraSettings(width=64, height=48),
                            traffic=TrafficSettings(count=12, desired_speed=3.0)),
        episodes=EpisodePlanSettings(seed=2, min_length=100.0, max_length=150.0))
    drive, driver = Drive(settings, seed=1), PursuitDriver()
    gaps, proximity, reasons = [], [], []
    for index in range(3):
        step = drive.begin(index)
        driver.reset()
        while not step.is_last:
            step = drive.act(driver.act(step.state))
            proximity.append(step.terms.safety)
        gaps.append(drive.summary().min_ttc)
        reasons.append(step.reason)
    # Pursuit brakes for nobody: it runs into the slow ones, and the reward tells before.
    assert 'collision' in reasons
    assert min(gap for gap in gaps if gap is not None) < 0.5
    assert sum(-0.1 < term < 0.0 for term in proximity) > 10
