"""What whole drives of the simulator earn: a lap, standing still, leaving the road."""
from __future__ import annotations

import pytest

from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.simulator.example_drives import (
    FAST,
    OFF_AT_ONCE,
    OFF_LATER,
    PERFECT,
    SLOW,
    STANDING,
    TERMS,
    ExampleDrive,
    example_drives,
)
from av_td3_ros.td3 import TD3Settings

GAMMA = TD3Settings().gamma


@pytest.fixture(scope='module')
def drives() -> dict[str, ExampleDrive]:
    """Drive the examples with the shipped reward."""
    return example_drives(DrivingSettings(), GAMMA)


def test_the_sums_are_those_of_the_terms(drives: dict[str, ExampleDrive]) -> None:
    for one in drives.values():
        assert one.return_ == pytest.approx(sum(one.sums[term] for term in TERMS))
        assert max(one.sums[term] for term in TERMS if term != 'progress') <= 0.0
        # What never ends early is worth at most 1 / (1 - gamma) steps at the target speed.
        assert one.discounted <= 0.1 / (1.0 - GAMMA)


def test_a_lap_earns_its_length_less_little(drives: dict[str, ExampleDrive]) -> None:
    lap = drives[PERFECT]
    assert lap.reason == 'route_completed' and lap.completion == 1.0
    # 0.2 a metre of route, the bonus of 0.5, and the goal's tolerance of 2 m.
    assert lap.sums['progress'] == pytest.approx(0.2 * 860.0 + 0.5, rel=0.03)
    assert lap.return_ > 0.95 * lap.sums['progress']
    assert lap.sums['safety'] == 0.0


def test_standing_still_does_not_pay(drives: dict[str, ExampleDrive]) -> None:
    standing = drives[STANDING]
    assert (standing.reason, standing.steps) == ('stuck', 60)
    assert standing.return_ == pytest.approx(-0.6 - 0.5, abs=0.02)
    assert standing.sums['progress'] == 0.0
    # Discounted from the start, nothing is worse: not even driving as badly as one can.
    assert all(standing.discounted < other.discounted for name, other in drives.items()
               if name != STANDING)


def test_leaving_the_road_costs_but_less_than_never_moving(drives: dict[str, ExampleDrive]
                                                            ) -> None:
    at_once, later = drives[OFF_AT_ONCE], drives[OFF_LATER]
    assert at_once.reason == later.reason == 'off_road'
    assert at_once.return_ < 0.0 < later.return_
    assert drives[STANDING].return_ < at_once.return_
    assert later.return_ < 0.15 * drives[PERFECT].return_
    assert at_once.sums['safety'] == later.sums['safety'] == pytest.approx(-0.5)


def test_neither_creeping_nor_racing_beats_driving_well(drives: dict[str, ExampleDrive]) -> None:
    assert drives[SLOW].return_ < 0.0
    assert drives[FAST].reason == 'route_completed'
    assert drives[FAST].steps < drives[PERFECT].steps
    assert drives[FAST].return_ < drives[PERFECT].return_
