"""When an episode ends, and whether the world or only the clock ended it."""
from __future__ import annotations

import dataclasses

from av_td3_ros.settings import setting

COLLISION = 'collision'
OFF_ROAD = 'off_road'
STUCK = 'stuck'
ROUTE_COMPLETED = 'route_completed'
TIME_LIMIT = 'time_limit'
REASONS = (COLLISION, OFF_ROAD, STUCK, ROUTE_COMPLETED, TIME_LIMIT)
FAILURES = (COLLISION, OFF_ROAD, STUCK)


@dataclasses.dataclass(frozen=True)
class TerminationSettings:
    """Say when an episode ends."""

    max_lateral: float = setting(
        2.5, 'lateral error in m beyond which the vehicle has left the road',
        minimum=0.1, maximum=100.0)
    max_steps: int = setting(
        1000, 'steps after which an episode is cut off (a truncation)', minimum=1)
    stuck_speed: float = setting(
        0.5, 'speed in m/s under which a step counts as standing', minimum=0.0, maximum=10.0)
    stuck_steps: int = setting(
        60, 'steps of standing in a row after which the vehicle is stuck', minimum=1)
    waiting_gap: float = setting(
        8.0, 'standing at most this many m behind an obstacle is waiting, not being stuck',
        minimum=0.0, maximum=100.0)
    goal_tolerance: float = setting(
        2.0, 'm before the end of the route at which it counts as completed',
        minimum=0.0, maximum=100.0)
    min_collision_impulse: float = setting(
        0.0, 'collisions with a smaller impulse in N s do not end the episode', minimum=0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """Say why an episode ends; `terminal` is False for a truncation, which is bootstrapped."""

    reason: str
    terminal: bool


def judge(settings: TerminationSettings, *, lateral: float, remaining: float, steps: int,
          standing_steps: int, collided: bool) -> Ending | None:
    """
    Return how the episode ends at this step, or None while it goes on.

    lateral, remaining: m; steps: taken so far; standing_steps: the last ones in a row that
    `is_standing` holds for. Where several reasons hold, the gravest is given.
    """
    if collided:
        return Ending(COLLISION, terminal=True)
    if abs(lateral) > settings.max_lateral:
        return Ending(OFF_ROAD, terminal=True)
    if remaining <= settings.goal_tolerance:
        return Ending(ROUTE_COMPLETED, terminal=True)
    if standing_steps >= settings.stuck_steps:
        return Ending(STUCK, terminal=True)
    if steps >= settings.max_steps:
        return Ending(TIME_LIMIT, terminal=False)
    return None


def is_collision(settings: TerminationSettings, impulse: float | None) -> bool:
    """Return whether an impulse in N s (None: no contact) counts; one that is NaN does."""
    return impulse is not None and not impulse < settings.min_collision_impulse


def is_standing(settings: TerminationSettings, speed: float, gap: float | None) -> bool:
    """Return whether a vehicle at `speed` m/s stands without an obstacle `gap` m ahead."""
    waiting = gap is not None and gap <= settings.waiting_gap
    return speed < settings.stuck_speed and not waiting
