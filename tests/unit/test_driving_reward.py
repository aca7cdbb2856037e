"""What driving is worth: hand-computed situations, bounds, and the sums of whole drives."""
from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av_td3_ros.driving.episode import reward as terms
from av_td3_ros.driving.episode.episode import DrivingSettings, Episode
from av_td3_ros.driving.episode.reward import RewardSettings, Situation
from av_td3_ros.driving.episode.termination import FAILURES, REASONS
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.settings import check, described_fields

SETTINGS = RewardSettings()
CRUISE = Situation(dt=0.05, progress=0.5, speed=10.0, target_speed=10.0, lateral=0.0,
                   heading_error=0.0)
STEP_NS = 50_000_000


def situation(**change: object) -> Situation:
    return dataclasses.replace(CRUISE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(('metres', 'worth'), [
    (0.5, 1.0), (0.25, 0.5), (0.0, 0.0), (-0.1, -0.2), (0.9, 1.0), (-5.0, -1.0)])
def test_progress_is_metres_over_those_of_the_target_speed(metres: float, worth: float) -> None:
    assert terms.progress(SETTINGS, situation(progress=metres)) == pytest.approx(worth)


def test_progress_of_a_late_step_is_measured_by_its_own_time() -> None:
    assert terms.progress(SETTINGS, situation(progress=0.5, dt=0.1)) == pytest.approx(0.5)


def test_completing_the_route_earns_a_bonus() -> None:
    assert terms.progress(SETTINGS, situation(reason='route_completed')) == pytest.approx(6.0)


@pytest.mark.parametrize(('speed', 'worth'), [
    (10.0, 0.0), (5.0, -0.5), (0.0, -1.0), (-4.0, -1.0), (12.0, -0.2), (30.0, -1.0)])
def test_efficiency_falls_on_both_sides_of_the_target_speed(speed: float, worth: float) -> None:
    assert terms.efficiency(SETTINGS, situation(speed=speed)) == pytest.approx(worth)


@pytest.mark.parametrize(('lateral', 'heading', 'worth'), [
    (0.0, 0.0, 0.0), (0.875, 0.0, -0.5), (-1.75, 0.0, -1.0), (2.5, 0.0, -2.5 / 1.75),
    (20.0, 0.0, -1.5), (0.0, 0.5, -0.1), (0.0, -3.0, -0.2), (-20.0, 3.0, -1.7)])
def test_lane_costs_lateral_and_heading_error(lateral: float, heading: float, worth: float
                                              ) -> None:
    assert terms.lane(SETTINGS, situation(lateral=lateral, heading_error=heading)
                      ) == pytest.approx(worth)


@pytest.mark.parametrize(('jerk', 'lateral', 'worth'), [
    (0.0, 0.0, 0.0), (15.0, 0.0, -0.125), (-30.0, 0.0, -0.5), (300.0, 0.0, -0.5),
    (0.0, -3.0, -0.125), (0.0, 60.0, -0.5), (99.0, 99.0, -1.0)])
def test_comfort_costs_jerk_and_lateral_acceleration(jerk: float, lateral: float, worth: float
                                                     ) -> None:
    assert terms.comfort(SETTINGS, situation(jerk=jerk, lateral_acceleration=lateral)
                         ) == pytest.approx(worth)


@pytest.mark.parametrize(('gap', 'time', 'worth'), [
    (None, None, 0.0), (50.0, None, 0.0), (4.0, None, 0.0), (1.0, None, -0.75), (0.0, None, -1.0),
    (-1.0, None, -1.0), (20.0, 2.5, 0.0), (20.0, 1.0, -0.6), (1.0, 1.0, -0.75), (3.0, 0.5, -0.8),
    (math.inf, None, 0.0)])
def test_proximity_costs_by_distance_or_time(gap: float | None, time: float | None, worth: float
                                             ) -> None:
    assert terms.proximity(SETTINGS, situation(gap=gap, time_to_collision=time)
                           ) == pytest.approx(worth)


@pytest.mark.parametrize(('reason', 'impact', 'worth'), [
    ('', 10.0, 0.0), ('route_completed', 10.0, 0.0), ('time_limit', 10.0, 0.0),
    ('off_road', 10.0, -5.0), ('stuck', 0.0, -5.0), ('collision', 0.0, -5.0),
    ('collision', 5.0, -7.5), ('collision', 10.0, -10.0), ('collision', 90.0, -10.0)])
def test_failure_costs_and_a_collision_by_its_speed(reason: str, impact: float, worth: float
                                                    ) -> None:
    assert terms.failure(SETTINGS, situation(reason=reason, impact_speed=impact)
                         ) == pytest.approx(worth)


def test_total_is_the_sum_of_the_weighted_and_scaled_terms() -> None:
    settings = RewardSettings(progress=2.0, efficiency=3.0, lane=4.0, comfort=5.0, safety=6.0,
                              scale=0.5)
    step = terms.reward(settings, situation(
        progress=0.25, speed=5.0, lateral=0.875, jerk=15.0, gap=1.0))
    assert step.progress == pytest.approx(0.5 * 2.0 * 0.5)
    assert step.efficiency == pytest.approx(0.5 * 3.0 * -0.5)
    assert step.lane == pytest.approx(0.5 * 4.0 * -0.5)
    assert step.comfort == pytest.approx(0.5 * 5.0 * -0.125)
    assert step.safety == pytest.approx(0.5 * 6.0 * -0.75)
    assert step.total == pytest.approx(0.5 - 0.75 - 1.0 - 0.3125 - 2.25)


def test_every_term_stays_within_its_documented_bounds() -> None:
    extremes = (-1e6, -1.0, 0.0, 1e-3, 1.0, 1e6)
    for value, reason, gap in itertools.product(
            extremes, ('', 'collision', 'off_road', 'stuck', 'route_completed', 'time_limit'),
            (None, *extremes)):
        wild = situation(progress=value, speed=value, lateral=value, heading_error=value,
                         jerk=value, lateral_acceleration=value, gap=gap, time_to_collision=gap,
                         impact_speed=value, reason=reason)
        assert -1.0 <= terms.progress(SETTINGS, wild) <= 6.0
        assert -1.0 <= terms.efficiency(SETTINGS, wild) <= 0.0
        assert -1.7 <= terms.lane(SETTINGS, wild) <= 0.0
        assert -1.0 <= terms.comfort(SETTINGS, wild) <= 0.0
        assert -11.0 <= terms.safety(SETTINGS, wild) <= 0.0


NUMBER = st.floats(allow_nan=False)
SITUATIONS = st.builds(
    Situation, dt=st.floats(1e-9, 10.0), progress=NUMBER, speed=NUMBER,
    target_speed=st.floats(0.5, 60.0), lateral=NUMBER, heading_error=NUMBER, jerk=NUMBER,
    lateral_acceleration=NUMBER, gap=st.none() | NUMBER, time_to_collision=st.none() | NUMBER,
    impact_speed=NUMBER, reason=st.sampled_from(('', *REASONS)))
ANY_SETTINGS = st.builds(RewardSettings, **{
    key: st.floats(about.minimum, about.maximum)
    for key, _, about in described_fields(RewardSettings)})


@given(ANY_SETTINGS, SITUATIONS)
def test_no_setting_and_no_situation_leaves_the_bounds(settings: RewardSettings, one: Situation
                                                       ) -> None:
    check(settings)
    step, limits = terms.reward(settings, one), terms.bounds(settings)
    assert list(limits) == [field.name for field in dataclasses.fields(step)]
    for term, (low, high) in limits.items():
        slack = 1e-12 * (high - low)  # of adding in another order
        assert low - slack <= getattr(step, term) <= high + slack, term
    # Only progress can pay.
    assert max(step.efficiency, step.lane, step.comfort, step.safety) <= 0.0
    if one.progress <= 0.0 and one.reason != 'route_completed':
        assert step.total <= 0.0
    if one.reason in FAILURES:
        assert step.safety <= -0.999 * settings.scale * settings.safety * settings.failure_penalty


def test_the_bounds_are_reached_and_those_of_the_page() -> None:
    limits = terms.bounds(SETTINGS)
    assert limits == {
        'progress': pytest.approx((-0.1, 0.6)), 'efficiency': pytest.approx((-0.01, 0.0)),
        'lane': pytest.approx((-0.085, 0.0)), 'comfort': pytest.approx((-0.005, 0.0)),
        'safety': pytest.approx((-1.1, 0.0)), 'total': pytest.approx((-1.3, 0.6))}
    worst = terms.reward(SETTINGS, Situation(
        0.05, progress=-9.0, speed=-9.0, target_speed=10.0, lateral=9.0, heading_error=3.0,
        jerk=99.0, lateral_acceleration=99.0, gap=0.0, impact_speed=99.0, reason='collision'))
    assert dataclasses.asdict(worst) == {
        name: pytest.approx(low) for name, (low, _) in limits.items()}
    best = terms.reward(SETTINGS, situation(reason='route_completed'))
    assert dataclasses.asdict(best) == {
        name: pytest.approx(high) for name, (_, high) in limits.items()}


def test_moving_pays_from_a_speed_on_that_is_no_creeping() -> None:
    def total(speed: float) -> float:
        return terms.reward(SETTINGS, situation(progress=0.05 * speed, speed=speed)).total

    assert total(0.90) < 0.0 < total(0.92)


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(RewardSettings)])
def test_every_setting_changes_the_reward(field: str) -> None:
    changed = dataclasses.replace(SETTINGS, **{field: getattr(SETTINGS, field) * 1.5 + 0.1})
    situations = [
        situation(speed=8.0, lateral=0.5, heading_error=0.3, jerk=9.0, lateral_acceleration=2.0),
        situation(gap=2.0), situation(gap=9.0, time_to_collision=1.0),
        situation(reason='off_road'), situation(reason='route_completed')]
    assert any(terms.reward(changed, one) != terms.reward(SETTINGS, one) for one in situations)


def drive(speed: float, yaw: float = 0.0, steps: int = 2000, length: float = 250.0
          ) -> tuple[list[float], str]:
    """Drive straight on from a straight route's start; return the rewards and the result."""
    episode = Episode(DrivingSettings(), np.c_[np.arange(length + 1.0), np.zeros(int(length) + 1)])
    rewards = []
    step = episode.first(VehicleState(0, 0.0, 0.0, yaw, speed))
    for index in range(1, steps + 1):
        if step.is_last:
            break
        way = speed * 0.05 * index
        step = episode.step(VehicleState(index * STEP_NS, way * math.cos(yaw),
                                         way * math.sin(yaw), yaw, speed))
        rewards.append(step.reward)
    return rewards, step.reason


def test_a_perfect_drive_returns_its_length_and_the_bonus() -> None:
    rewards, result = drive(10.0)
    assert result == 'route_completed'
    # 248 m to the goal's tolerance: 496 steps of 0.1, and the bonus of 5 x 0.1.
    assert len(rewards) == 496
    assert sum(rewards) == pytest.approx(49.6 + 0.5)


def test_standing_still_never_pays() -> None:
    rewards, result = drive(0.0)
    assert result == 'stuck'
    assert max(rewards) < 0.0
    # 60 steps of efficiency -0.1 x 0.1, and failure -5 x 0.1.
    assert sum(rewards) == pytest.approx(-0.6 - 0.5)


def test_creeping_along_returns_less_than_driving() -> None:
    slow, _ = drive(1.0)
    assert sum(slow) < 0.2 * sum(drive(10.0)[0])
    assert all(reward < 0.002 for reward in slow)


def test_leaving_the_road_costs_what_it_earned_and_all_that_was_to_come() -> None:
    rewards, result = drive(10.0, yaw=0.3)
    assert result == 'off_road'
    # 0.5 m a step at 0.3 rad: beyond 2.5 m of lateral error in step 17.
    assert len(rewards) == 17
    share, lateral = math.cos(0.3), 0.5 * math.sin(0.3) * np.arange(1, 18)
    lane = -0.05 * np.minimum(lateral / 1.75, 1.5).sum() - 17 * 0.05 * 0.2 * 0.3
    assert sum(rewards) == pytest.approx(17 * 0.1 * share + lane - 0.5)
    assert rewards[-1] < -0.4
    assert sum(rewards) < 0.5 * 17 * 0.1


def test_reversing_loses_what_driving_earned() -> None:
    rewards, _ = drive(-5.0, steps=20)
    assert max(rewards) < 0.0


def test_driving_too_fast_earns_no_more_per_step() -> None:
    assert drive(13.0, steps=50)[0][10] < drive(10.0, steps=50)[0][10]
