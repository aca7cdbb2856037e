"""Whole drives through an episode: flags, endings, state, and what it refuses."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from av_td3_ros.driving.episode.episode import DrivingSettings, Episode
from av_td3_ros.driving.episode.termination import TerminationSettings
from av_td3_ros.driving.perception.vehicle_state import Events, MeasurementError, VehicleState
from av_td3_ros.settings import check, described_fields, from_mapping

STEP_NS = 50_000_000
ROUTE = np.c_[np.arange(301.0), np.zeros(301)]


def at(index: int, x: float, y: float = 0.0, speed: float = 10.0, **more: float) -> VehicleState:
    return VehicleState(index * STEP_NS, x, y, 0.0, speed, **more)


def test_first_step_has_no_reward_and_the_state_of_the_vehicle() -> None:
    step = Episode(DrivingSettings(), ROUTE).first(at(0, 5.0, 0.7, speed=6.0))
    assert (step.is_first, step.is_last, step.is_terminal) == (True, False, False)
    assert (step.reward, step.terms.total, step.reason) == (0.0, 0.0, '')
    assert step.state.shape == (53,)
    assert step.state.dtype == np.float32
    np.testing.assert_allclose(step.state[:5], [0.2, 0.2, 0.0, 0.04, -0.014], atol=1e-6)


@pytest.mark.parametrize('waypoints', [1, 10, 25])
def test_number_of_waypoints_sets_the_size_of_the_state(waypoints: int) -> None:
    settings = DrivingSettings(waypoints=waypoints)
    step = Episode(settings, ROUTE).first(at(0, 0.0))
    assert step.state.shape == (3 + 2 * waypoints,) == (settings.state_size,)


def test_time_limit_is_a_truncation() -> None:
    episode = Episode(DrivingSettings(termination=TerminationSettings(max_steps=3)), ROUTE)
    episode.first(at(0, 0.0))
    steps = [episode.step(at(index, 0.5 * index)) for index in (1, 2, 3)]
    assert [step.is_last for step in steps] == [False, False, True]
    assert not steps[-1].is_terminal
    assert steps[-1].reason == 'time_limit'


def test_collision_is_terminal_and_scaled_by_the_speed_before_it() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(at(0, 0.0, speed=5.0))
    step = episode.step(at(1, 0.1, speed=0.0), Events(collision_impulse=900.0))
    assert (step.is_last, step.is_terminal, step.reason) == (True, True, 'collision')
    assert step.terms.safety == pytest.approx(-0.1 * 5.0 * 1.5)
    assert episode.summary().collisions == 1


def test_sixty_steps_of_standing_are_stuck_but_not_behind_an_obstacle() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(at(0, 0.0, speed=0.0))
    for index in range(1, 100):
        assert not episode.step(at(index, 0.0, speed=0.0), Events(gap=4.0)).is_last
    for index in range(100, 159):
        assert not episode.step(at(index, 0.0, speed=0.0)).is_last
    assert episode.step(at(159, 0.0, speed=0.0)).reason == 'stuck'


def test_moving_on_in_time_is_not_stuck() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(at(0, 0.0, speed=0.0))
    for index in range(1, 200):
        moving = index % 50 == 0
        assert not episode.step(at(index, 0.0, speed=1.0 if moving else 0.0)).is_last


def test_time_between_steps_is_that_of_the_stamps() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(VehicleState(0, 0.0, 0.0, 0.0, 10.0))
    step = episode.step(VehicleState(200_000_000, 1.0, 0.0, 0.0, 10.0))
    # 1 m in 0.2 s is half of what the target speed of 10 m/s makes.
    assert step.terms.progress == pytest.approx(0.1 * 0.5)
    assert episode.summary().duration == pytest.approx(0.2)


def test_jerk_costs_comfort_once_two_accelerations_are_known() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(at(0, 0.0, speed=0.0))
    assert episode.step(at(1, 0.0, speed=0.05)).terms.comfort == 0.0  # 1 m/s^2
    step = episode.step(at(2, 0.0, speed=0.175))  # 2.5 m/s^2: a jerk of 30 m/s^3
    assert step.terms.comfort == pytest.approx(-0.1 * 0.05 * 0.5)


def test_stamp_that_does_not_advance_is_refused_and_changes_nothing() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(at(1, 0.0))
    for index in (1, 0):
        with pytest.raises(MeasurementError, match='not newer'):
            episode.step(at(index, 0.5))
    assert episode.step(at(2, 0.5)).terms.progress == pytest.approx(0.1)
    assert episode.steps == 1


def test_step_before_the_first_and_after_the_last_is_an_error() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    with pytest.raises(RuntimeError, match=r'first\(\)'):
        episode.step(at(0, 0.0))
    episode.first(at(0, 0.0))
    episode.step(at(1, 0.0, y=5.0))
    assert episode.is_over
    with pytest.raises(RuntimeError, match='off_road'):
        episode.step(at(2, 0.0))


def test_first_begins_anew() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(at(0, 200.0))
    episode.step(at(1, 200.5, y=5.0))
    assert episode.first(at(2, 0.0)).position.distance == 0.0
    assert not episode.is_over
    assert episode.step(at(3, 0.5)).reason == ''
    assert episode.summary().steps == 1


def test_summary_of_a_completed_drive() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    step = episode.first(at(0, 0.0))
    returned, index = 0.0, 0
    while not step.is_last:
        index += 1
        step = episode.step(at(index, 0.5 * index, y=0.3), Events(lane_invasions=index == 5))
        returned += step.reward
    metrics = episode.summary()
    assert (metrics.result, metrics.success, metrics.steps) == ('route_completed', True, 596)
    assert metrics.total_reward == pytest.approx(returned)
    assert metrics.route_length == pytest.approx(300.0)
    assert metrics.route_completion == 1.0
    assert metrics.mean_speed == pytest.approx(10.0)
    assert metrics.cross_track_rms == pytest.approx(0.3)
    assert metrics.lane_invasions == 1
    assert metrics.duration == pytest.approx(29.8)


def test_completion_of_a_failed_drive_is_its_farthest_point() -> None:
    episode = Episode(DrivingSettings(), ROUTE)
    episode.first(at(0, 0.0))
    for index, x in enumerate((10.0, 30.0, 60.0, 55.0), start=1):
        episode.step(at(index, x))
    episode.step(at(5, 55.0, y=9.0))
    assert episode.summary().route_completion == pytest.approx(0.2)


def test_closed_route_is_not_completed_at_its_start() -> None:
    angle = np.linspace(0.0, math.tau, 201)
    loop = np.c_[30.0 * np.sin(angle), 30.0 - 30.0 * np.cos(angle)]
    episode = Episode(DrivingSettings(), loop)
    episode.first(at(0, 0.0))
    assert not episode.step(at(1, 0.5)).is_last


def test_settings_are_described_in_range_and_readable_from_parameters() -> None:
    settings = from_mapping(DrivingSettings, {'target_speed': 8, 'reward.lane': 0.25,
                                              'termination.max_lateral': 2.0})
    assert (settings.target_speed, settings.reward.lane, settings.termination.max_lateral) == (
        8.0, 0.25, 2.0)
    check(DrivingSettings())
    assert all(about.description for _, _, about in described_fields(DrivingSettings))


@pytest.mark.parametrize('field', [field.name for field in
                                   dataclasses.fields(TerminationSettings)])
def test_every_termination_setting_changes_some_drive(field: str) -> None:
    usual = getattr(TerminationSettings(), field)
    other = TerminationSettings(**{field: type(usual)(usual * 0.5) or 500.0})

    def results(settings: TerminationSettings) -> list[tuple[str, int]]:
        found = []
        for speed, lateral, events in ((10.0, 0.0, Events()), (0.0, 0.0, Events()),
                                       (0.3, 0.0, Events()), (0.0, 0.0, Events(gap=6.0)),
                                       (1.0, 2.0, Events()), (5.0, 0.0, Events(90.0))):
            episode = Episode(DrivingSettings(termination=settings), ROUTE)
            step, index = episode.first(at(0, 0.0, lateral)), 0
            while not step.is_last:
                index += 1
                step = episode.step(at(index, 0.05 * speed * index, lateral, speed), events)
            found.append((step.reason, index))
        return found

    assert results(other) != results(TerminationSettings())
