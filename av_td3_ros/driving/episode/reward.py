"""
What a step of driving is worth: five bounded terms, each a pure function with its own weight.

Only progress can be positive, and only while the vehicle moves along its route; so standing still
never pays. With the default scale a perfect drive of 250 m at the target speed of 10 m/s returns
about 50.
"""
from __future__ import annotations

import dataclasses

from av_td3_ros.driving.episode.termination import COLLISION, FAILURES, ROUTE_COMPLETED
from av_td3_ros.settings import setting

MAX_LATERAL_COST = 1.5  # half lane widths: beyond, the lateral error costs no more
MAX_HEADING_COST = 1.0  # rad: beyond, the heading error costs no more


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """Hold the weights of the terms and the scales inside them."""

    progress: float = setting(1.0, 'weight of progress along the route and of the goal',
                              minimum=0.0, maximum=100.0)
    efficiency: float = setting(0.1, 'weight of keeping the target speed',
                                minimum=0.0, maximum=100.0)
    lane: float = setting(0.5, 'weight of keeping to the centre and direction of the lane',
                          minimum=0.0, maximum=100.0)
    comfort: float = setting(0.05, 'weight of low jerk and low lateral acceleration',
                             minimum=0.0, maximum=100.0)
    safety: float = setting(1.0, 'weight of keeping distance and of not failing',
                            minimum=0.0, maximum=100.0)
    scale: float = setting(0.1, 'factor on all terms, so that returns are of order 1 to 100',
                           minimum=1e-6, maximum=1e3)
    goal_bonus: float = setting(
        5.0, 'progress earned by completing the route, in steps at the target speed',
        minimum=0.0, maximum=1e3)
    half_lane_width: float = setting(1.75, 'lateral error in m that costs 1 in the lane term',
                                     minimum=0.1, maximum=10.0)
    heading_share: float = setting(0.2, 'what 1 rad of heading error costs in the lane term',
                                   minimum=0.0, maximum=10.0)
    jerk_limit: float = setting(30.0, 'longitudinal jerk in m/s^3 that costs all of its half of '
                                'the comfort term', minimum=0.1, maximum=1e3)
    lateral_acceleration_limit: float = setting(
        6.0, 'lateral acceleration in m/s^2 that costs all of its half of the comfort term',
        minimum=0.1, maximum=100.0)
    failure_penalty: float = setting(
        5.0, 'cost of leaving the road or being stuck; a collision costs up to twice as much',
        minimum=0.0, maximum=1e3)
    safe_gap: float = setting(4.0, 'distance in m to an obstacle ahead under which it costs',
                              minimum=0.1, maximum=100.0)
    safe_time: float = setting(2.5, 'time to collision in s under which it costs',
                               minimum=0.1, maximum=60.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """
    Hold all that the reward of one step depends on.

    dt: s since the step before; progress: m along the route in that time; speed and target_speed:
    m/s; lateral: m; heading_error: rad; jerk: m/s^3; lateral_acceleration: m/s^2; gap: m and
    time_to_collision: s to an obstacle ahead, None when unknown or none; impact_speed: m/s just
    before a collision; reason: why the episode ends at this step, '' while it goes on.
    """

    dt: float
    progress: float
    speed: float
    target_speed: float
    lateral: float
    heading_error: float
    jerk: float = 0.0
    lateral_acceleration: float = 0.0
    gap: float | None = None
    time_to_collision: float | None = None
    impact_speed: float = 0.0
    reason: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class RewardTerms:
    """Hold the weighted and scaled terms of one step's reward, and their sum."""

    progress: float
    efficiency: float
    lane: float
    comfort: float
    safety: float
    total: float


NO_REWARD = RewardTerms(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def reward(settings: RewardSettings, situation: Situation) -> RewardTerms:
    """Return the terms of one step's reward, weighted and scaled, with their sum as total."""
    scale = settings.scale
    progress_term = scale * settings.progress * progress(settings, situation)
    efficiency_term = scale * settings.efficiency * efficiency(settings, situation)
    lane_term = scale * settings.lane * lane(settings, situation)
    comfort_term = scale * settings.comfort * comfort(settings, situation)
    safety_term = scale * settings.safety * safety(settings, situation)
    total = progress_term + efficiency_term + lane_term + comfort_term + safety_term
    return RewardTerms(progress_term, efficiency_term, lane_term, comfort_term, safety_term, total)


def bounds(settings: RewardSettings) -> dict[str, tuple[float, float]]:
    """Return {term: (lowest, highest)} of the weighted and scaled terms and of their total."""
    lane_cost = MAX_LATERAL_COST + settings.heading_share * MAX_HEADING_COST
    unweighted = {'progress': (-1.0, 1.0 + settings.goal_bonus), 'efficiency': (-1.0, 0.0),
                  'lane': (-lane_cost, 0.0), 'comfort': (-1.0, 0.0),
                  'safety': (-1.0 - 2.0 * settings.failure_penalty, 0.0)}
    found = {term: (settings.scale * getattr(settings, term) * low,
                    settings.scale * getattr(settings, term) * high)
             for term, (low, high) in unweighted.items()}
    return {**found, 'total': (sum(low for low, _ in found.values()),
                               sum(high for _, high in found.values()))}


def progress(settings: RewardSettings, situation: Situation) -> float:
    """
    Return metres along the route over those of the target speed, in [-1, 1], and the goal bonus.

    Going faster than the target earns nothing more; going back costs what going ahead earned.
    """
    share = situation.progress / (situation.target_speed * situation.dt)
    bonus = settings.goal_bonus if situation.reason == ROUTE_COMPLETED else 0.0
    return min(max(share, -1.0), 1.0) + bonus


def efficiency(settings: RewardSettings, situation: Situation) -> float:
    """Return 0 at the target speed down to -1 at standstill, backwards or at twice the target."""
    return -min(abs(situation.speed / situation.target_speed - 1.0), 1.0)


def lane(settings: RewardSettings, situation: Situation) -> float:
    """
    Return 0 on the centre line along its direction, down to -1.5 - heading_share.

    The lateral part is -1 at the lane's edge and stays at -1.5 from one and a half of that.
    """
    lateral = min(abs(situation.lateral) / settings.half_lane_width, MAX_LATERAL_COST)
    heading = min(abs(situation.heading_error), MAX_HEADING_COST)
    return -lateral - settings.heading_share * heading


def comfort(settings: RewardSettings, situation: Situation) -> float:
    """Return 0 for a smooth ride down to -1: half for jerk, half for lateral acceleration."""
    jerk = min(abs(situation.jerk) / settings.jerk_limit, 1.0)
    lateral = min(abs(situation.lateral_acceleration) / settings.lateral_acceleration_limit, 1.0)
    return -0.5 * (jerk * jerk + lateral * lateral)


def safety(settings: RewardSettings, situation: Situation) -> float:
    """Return proximity plus failure: 0 when safe, down to -1 - 2 failure_penalty."""
    return proximity(settings, situation) + failure(settings, situation)


def proximity(settings: RewardSettings, situation: Situation) -> float:
    """Return 0 with room ahead down to -1 at contact: by distance or by time, the worse one."""
    cost = 0.0
    if situation.gap is not None:
        cost = 1.0 - max(situation.gap, 0.0) / settings.safe_gap
    if situation.time_to_collision is not None:
        cost = max(cost, 1.0 - max(situation.time_to_collision, 0.0) / settings.safe_time)
    return -max(cost, 0.0)


def failure(settings: RewardSettings, situation: Situation) -> float:
    """
    Return -failure_penalty at the step that leaves the road or is stuck, else 0.

    A collision costs once to twice as much, rising with the impact speed up to the target speed.
    """
    if situation.reason not in FAILURES:
        return 0.0
    severity = 1.0
    if situation.reason == COLLISION:
        severity += min(abs(situation.impact_speed) / situation.target_speed, 1.0)
    return -settings.failure_penalty * severity
