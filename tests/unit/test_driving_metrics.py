"""Metrics of a drive by hand, and summaries with their intervals."""
from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from av_td3_ros.driving.episode.metrics import (
    EpisodeMeter,
    EpisodeMetrics,
    driving_score,
    summarise,
)

STILL = {'dt': 0.1, 'reward': 0.0, 'speed': 0.0, 'yaw_rate': 0.0, 'lateral': 0.0, 'jerk': None,
         'time_to_collision': None, 'collided': False, 'lane_invasions': 0}


def measured(*steps: dict[str, object], reason: str = 'time_limit') -> EpisodeMetrics:
    meter = EpisodeMeter(half_lane_width=1.75)
    for step in steps:
        meter.add(**(STILL | step))  # type: ignore[arg-type]
    return meter.result(reason, route_length=100.0, route_completion=0.4)


def test_metrics_of_two_steps_computed_by_hand() -> None:
    metrics = measured(
        {'dt': 0.1, 'reward': 1.0, 'speed': 4.0, 'yaw_rate': 0.5, 'lateral': 3.0, 'jerk': 5.0,
         'lane_invasions': 2},
        {'dt': 0.3, 'reward': -0.5, 'speed': 8.0, 'yaw_rate': 0.25, 'lateral': -1.0, 'jerk': -6.0,
         'time_to_collision': 2.5, 'collided': True},
        reason='collision')
    assert metrics == EpisodeMetrics(
        result='collision', success=False, total_reward=0.5, steps=2, duration=pytest.approx(0.4),
        route_length=100.0, route_completion=0.4,
        driving_score=pytest.approx(0.4 * 2.4 / 2.8 * 0.65), distance=pytest.approx(2.8),
        mean_speed=pytest.approx(7.0), max_speed=8.0, collisions=1, vehicle_collisions=0,
        lane_invasions=2,
        off_road_share=pytest.approx(0.25), cross_track_rms=pytest.approx(math.sqrt(3.0)),
        cross_track_max=3.0, jerk_rms=pytest.approx(5.0),  # without that of the crash
        lateral_acceleration_rms=pytest.approx(2.0), min_ttc=2.5, steering_reversals=0)


def test_the_driving_score_is_completion_times_the_penalties() -> None:
    # 3 m of 4 m in the lane, one vehicle and one wall hit.
    step = {'dt': 0.1, 'speed': 10.0}
    metrics = measured(step, step | {'collided': True, 'hit_vehicle': True}, step,
                       step | {'collided': True, 'lateral': 2.0})
    assert metrics.vehicle_collisions == 1 and metrics.collisions == 2
    assert metrics.driving_score == pytest.approx(0.4 * 0.75 * 0.60 * 0.65)
    assert driving_score(1.0, 0.0, 0, 0) == 1.0
    assert driving_score(0.8, 0.5, 2, 0) == pytest.approx(0.8 * 0.5 * 0.36)


def test_an_episode_without_steps_has_metrics_of_zero() -> None:
    metrics = measured()
    assert (metrics.steps, metrics.mean_speed, metrics.cross_track_rms) == (0, 0.0, 0.0)


def test_steering_reversals_are_turns_of_the_curve_driven() -> None:
    wave = [{'speed': 10.0, 'yaw_rate': 0.4 * math.sin(index * math.tau / 20)}
            for index in range(101)]  # five periods: ten extremes, and back to zero
    assert measured(*wave).steering_reversals == 10


@pytest.mark.parametrize(('speed', 'curvature'), [(10.0, 0.004), (0.5, 0.5)])
def test_small_corrections_and_creeping_are_no_reversals(speed: float, curvature: float) -> None:
    wave = [{'speed': speed, 'yaw_rate': speed * curvature * (-1) ** index} for index in range(40)]
    assert measured(*wave).steering_reversals == 0


def test_metrics_survive_json() -> None:
    metrics = measured({'speed': 3.0, 'time_to_collision': 1.5}, reason='route_completed')
    values = json.loads(json.dumps(metrics.to_dict()))
    assert values['return'] == 0.0
    assert values['route_completion'] == 1.0
    assert EpisodeMetrics.from_dict(values | {'path': []}) == metrics


def test_missing_metrics_are_named() -> None:
    values = measured().to_dict()
    del values['jerk_rms'], values['return']
    with pytest.raises(ValueError, match='return, jerk_rms'):
        EpisodeMetrics.from_dict(values)


def episodes(*changes: dict[str, object]) -> list[EpisodeMetrics]:
    base = measured({'speed': 10.0})
    return [dataclasses.replace(base, **change) for change in changes]  # type: ignore[arg-type]


def test_summary_has_means_over_episodes_and_rates_over_distance() -> None:
    summary = summarise(episodes(
        {'success': True, 'distance': 900.0, 'duration': 90.0, 'collisions': 0,
         'total_reward': 10.0},
        {'success': False, 'distance': 100.0, 'duration': 30.0, 'collisions': 2,
         'total_reward': 0.0}))
    assert summary['success']['mean'] == 0.5
    assert summary['mean_return']['mean'] == 5.0
    assert summary['collisions_per_km']['mean'] == pytest.approx(2.0)
    assert summary['mean_speed']['mean'] == pytest.approx(1000.0 / 120.0)
    assert summary['completion_time']['mean'] == pytest.approx(90.0)
    assert all(one['low'] <= one['mean'] <= one['high'] for one in summary.values())


def test_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, size=200)
    drives = episodes(*({'total_reward': float(value)} for value in values))
    summary = summarise(drives)['mean_return']
    error = 1.96 * values.std() / math.sqrt(200)
    assert summary['mean'] == pytest.approx(values.mean())
    assert summary['low'] == pytest.approx(values.mean() - error, abs=0.05)
    assert summary['high'] == pytest.approx(values.mean() + error, abs=0.05)


def test_summary_is_reproducible_from_its_seed() -> None:
    drives = episodes(*({'total_reward': float(value)} for value in range(10)))
    assert summarise(drives, seed=4) == summarise(drives, seed=4)
    assert summarise(drives, seed=4) != summarise(drives, seed=5)


def test_what_no_episode_has_is_left_out() -> None:
    summary = summarise([measured()])
    assert 'min_ttc' not in summary
    assert 'completion_time' not in summary
    assert 'collisions_per_km' not in summary
    assert summary['success'] == {'mean': 0.0, 'low': 0.0, 'high': 0.0}


def test_time_to_collision_is_averaged_over_the_episodes_that_have_one() -> None:
    summary = summarise(episodes({'min_ttc': 2.0}, {'min_ttc': None}, {'min_ttc': 4.0}))
    assert summary['min_ttc']['mean'] == pytest.approx(3.0)


def test_nothing_to_summarise_is_an_error() -> None:
    with pytest.raises(ValueError, match='at least one'):
        summarise([])
