"""When an episode ends: every reason, its limits, and which of them the world decided."""
from __future__ import annotations

import math

import pytest

from av_td3_ros.driving.episode.termination import (
    REASONS,
    TerminationSettings,
    is_collision,
    is_standing,
    judge,
)

SETTINGS = TerminationSettings()
ON_THE_WAY = {'lateral': 0.3, 'remaining': 100.0, 'steps': 10, 'standing_steps': 0,
              'collided': False}


def test_driving_on_the_road_goes_on() -> None:
    assert judge(SETTINGS, **ON_THE_WAY) is None


@pytest.mark.parametrize(('change', 'reason'), [
    ({'collided': True}, 'collision'),
    ({'lateral': 2.51}, 'off_road'),
    ({'lateral': -2.51}, 'off_road'),
    ({'remaining': 2.0}, 'route_completed'),
    ({'standing_steps': 60}, 'stuck'),
    ({'steps': 1000}, 'time_limit')])
def test_each_reason_ends_the_episode(change: dict[str, float], reason: str) -> None:
    ending = judge(SETTINGS, **(ON_THE_WAY | change))
    assert ending is not None
    assert ending.reason == reason
    assert ending.reason in REASONS
    assert ending.terminal == (reason != 'time_limit')


@pytest.mark.parametrize('change', [
    {'lateral': 2.5}, {'lateral': -2.5}, {'remaining': 2.01}, {'standing_steps': 59},
    {'steps': 999}])
def test_short_of_its_limit_it_goes_on(change: dict[str, float]) -> None:
    assert judge(SETTINGS, **(ON_THE_WAY | change)) is None


def test_the_gravest_of_several_reasons_is_given() -> None:
    everything = {'lateral': 9.0, 'remaining': 0.0, 'steps': 1000, 'standing_steps': 60,
                  'collided': True}
    reasons = []
    for change in ({}, {'collided': False}, {'lateral': 0.0}, {'remaining': 50.0},
                   {'standing_steps': 0}):
        everything |= change
        ending = judge(SETTINGS, **everything)
        assert ending is not None
        reasons.append(ending.reason)
    assert reasons == ['collision', 'off_road', 'route_completed', 'stuck', 'time_limit']


def test_standing_behind_an_obstacle_is_waiting() -> None:
    assert is_standing(SETTINGS, speed=0.1, gap=None)
    assert is_standing(SETTINGS, speed=0.1, gap=8.5)
    assert is_standing(SETTINGS, speed=-3.0, gap=None)
    assert not is_standing(SETTINGS, speed=0.1, gap=7.5)
    assert not is_standing(SETTINGS, speed=0.5, gap=None)


def test_light_contacts_can_be_let_pass() -> None:
    lenient = TerminationSettings(min_collision_impulse=100.0)
    assert is_collision(SETTINGS, 0.0)
    assert not is_collision(SETTINGS, None)
    assert is_collision(lenient, 100.0)
    assert not is_collision(lenient, 99.0)
    assert is_collision(lenient, math.nan)
