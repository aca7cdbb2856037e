"""Stops for the edge of the ground, for what is ahead, and for odometry that jumps."""
from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from av_td3_ros.driving.perception.obstacles import NOTHING_AHEAD, Ahead
from av_td3_ros.driving.perception.odometry_gate import jump_reason
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.proving_ground.ground import (
    GroundSettings,
    collision_reason,
    edge_reason,
    stopping_distance,
)

GROUND = GroundSettings(length=100.0, width=40.0, margin=0.5, deceleration=3.0, reaction_time=0.3)
BODY = (4.5, 1.8)
DT = 0.02  # s, of odometry at 50 Hz
FLOATS = st.floats(allow_nan=False, allow_infinity=False, min_value=0.0, max_value=1.0)


def at(x: float, y: float, yaw: float = 0.0, speed: float = 0.0, yaw_rate: float = 0.0
       ) -> VehicleState:
    return VehicleState(0, x, y, yaw, speed, 0.0, yaw_rate)


def inside(vehicle: VehicleState, ground: GroundSettings, margin: float = 0.0) -> bool:
    """Say whether all four corners of the body are on the ground: worked out corner by corner."""
    for ahead in (-0.5, 0.5):
        for left in (-0.5, 0.5):
            x = (vehicle.x + ahead * BODY[0] * math.cos(vehicle.yaw)
                 - left * BODY[1] * math.sin(vehicle.yaw) - ground.x)
            y = (vehicle.y + ahead * BODY[0] * math.sin(vehicle.yaw)
                 + left * BODY[1] * math.cos(vehicle.yaw) - ground.y)
            along = x * math.cos(ground.yaw) + y * math.sin(ground.yaw)
            across = y * math.cos(ground.yaw) - x * math.sin(ground.yaw)
            if (abs(along) > 0.5 * ground.length - margin
                    or abs(across) > 0.5 * ground.width - margin):
                return False
    return True


def moved(vehicle: VehicleState, curvature: float, braking: float) -> VehicleState:
    """Return the vehicle one odometry period later."""
    speed = max(0.0, vehicle.speed - braking * DT)
    mean = 0.5 * (vehicle.speed + speed)
    turn = curvature * mean * DT
    middle = vehicle.yaw + 0.5 * turn
    return VehicleState(vehicle.stamp_ns + round(DT * 1e9),
                        vehicle.x + mean * DT * math.cos(middle),
                        vehicle.y + mean * DT * math.sin(middle), vehicle.yaw + turn, speed, 0.0,
                        curvature * speed)


def test_standing_in_the_middle_is_no_reason_and_without_a_rectangle_everything_is() -> None:
    assert edge_reason(at(0.0, 0.0), *BODY, GROUND) == ''
    assert not GroundSettings().is_given and GROUND.is_given
    assert edge_reason(at(0.0, 0.0), *BODY, GroundSettings()) != ''


def test_the_ground_may_lie_anywhere_in_any_direction() -> None:
    ground = dataclasses.replace(GROUND, x=1000.0, y=-500.0, yaw=0.7)
    near = 0.5 * 100.0 - 0.5 * 4.5 - 0.5 - 0.1
    standing = at(1000.0 + near * math.cos(0.7), -500.0 + near * math.sin(0.7), 0.7)
    assert edge_reason(standing, *BODY, ground) == ''
    assert 'by hand' in edge_reason(dataclasses.replace(standing, yaw=0.9), *BODY, ground)
    assert 'by hand' in edge_reason(at(0.0, 0.0), *BODY, ground)


def test_the_braking_distance_decides_and_the_words_tell_it() -> None:
    needed = stopping_distance(10.0, GROUND)
    assert needed == pytest.approx(3.0 + 100.0 / 6.0)
    last = 50.0 - 0.5 - 0.5 * BODY[0] - needed
    assert edge_reason(at(last - 0.01, 0.0, speed=10.0), *BODY, GROUND) == ''
    assert edge_reason(at(last + 0.4, 0.0, speed=10.0), *BODY, GROUND) == (
        'the ground ends ahead: at 10.0 m/s a stop takes 19.7 m and might go 0.4 m too far')
    # Backwards it is the other edge.
    assert edge_reason(at(last + 0.4, 0.0, speed=-10.0), *BODY, GROUND) == ''
    assert edge_reason(at(-last - 0.4, 0.0, speed=-10.0), *BODY, GROUND) != ''


def test_a_curve_that_leads_away_from_the_edge_or_towards_it_counts() -> None:
    wide = dataclasses.replace(GROUND, width=50.0)
    ahead = at(0.0, 14.0, speed=8.0)
    assert edge_reason(ahead, *BODY, wide) == ''
    assert edge_reason(dataclasses.replace(ahead, yaw_rate=1.0), *BODY, wide) != ''
    assert edge_reason(dataclasses.replace(ahead, yaw_rate=-1.0), *BODY, wide) == ''


@settings(deadline=None, max_examples=25)
@given(FLOATS, FLOATS, st.floats(-math.pi, math.pi), st.floats(0.0, 12.0), st.floats(-0.15, 0.15),
       st.floats(0.0, 1.0), st.floats(0.0, 3.0))
def test_a_vehicle_that_brakes_when_it_is_told_to_stops_on_the_ground(
        along: float, across: float, yaw: float, speed: float, curvature: float,
        reaction: float, hold: float) -> None:
    """Whatever it drove, however soon it reacts and whenever it centres its steering."""
    ground = dataclasses.replace(GROUND, yaw=0.4, margin=0.6)
    x, y = (along - 0.5) * ground.length, (across - 0.5) * ground.width
    vehicle = at(math.cos(0.4) * x - math.sin(0.4) * y, math.sin(0.4) * x + math.cos(0.4) * y, yaw,
                 speed, curvature * speed)
    assume(not edge_reason(vehicle, *BODY, ground))
    told = None
    for _ in range(800):
        now = vehicle.stamp_ns * 1e-9
        if told is None and edge_reason(vehicle, *BODY, ground):
            told = now
        # One period less: the pose before the telling one was that much farther from the edge.
        acts = told is not None and now - told >= reaction * (ground.reaction_time - DT)
        held = curvature if told is None or now - told < hold else 0.0
        vehicle = moved(vehicle, held, ground.deceleration if acts else 0.0)
        assert inside(vehicle, ground), (vehicle, told)
        if vehicle.speed == 0.0:
            break


@settings(deadline=None)
@given(st.floats(0.1, 15.0), st.floats(0.0, 100.0), st.floats(0.0, 1.0))
def test_braking_at_the_last_moment_just_avoids_what_stands_ahead(
        speed: float, gap: float, share: float) -> None:
    vehicle = at(0.0, 0.0, speed=speed)
    assume(not collision_reason(vehicle, Ahead(gap, speed), GROUND))
    ground, told = GROUND, None
    while vehicle.speed > 0.0 and vehicle.x < gap + 10.0:
        left = gap - vehicle.x
        assert left > -1e-9
        if told is None and collision_reason(vehicle, Ahead(left, vehicle.speed), ground):
            told = vehicle.stamp_ns * 1e-9
        acts = told is not None and (vehicle.stamp_ns * 1e-9 - told
                                     >= share * ground.reaction_time - 2.0 * DT)
        vehicle = moved(vehicle, 0.0, ground.deceleration if acts else 0.0)


def test_nothing_ahead_or_nothing_getting_closer_is_no_reason() -> None:
    driving = at(0.0, 0.0, speed=10.0)
    assert collision_reason(driving, NOTHING_AHEAD, GROUND) == ''
    assert collision_reason(driving, Ahead(1.0, -2.0), GROUND) == ''
    assert collision_reason(driving, Ahead(1.0, 0.0), GROUND) == ''
    assert collision_reason(driving, Ahead(12.0, 4.0), GROUND) == ''


def test_what_was_not_seen_moving_is_taken_to_stand() -> None:
    driving = at(0.0, 0.0, speed=10.0)
    assert collision_reason(driving, Ahead(25.0, None), GROUND) == ''
    assert collision_reason(driving, Ahead(15.0, None), GROUND) == (
        'collision ahead: 15.0 m, closing at 10.0 m/s, and braking takes 19.7 m')


def test_a_vehicle_that_is_somewhere_else_at_once_is_not_driven_on() -> None:
    before = at(0.0, 0.0, speed=8.0)
    after = dataclasses.replace(before, x=0.16, stamp_ns=20_000_000)
    assert jump_reason(None, before, GROUND.max_jump) == ''
    assert jump_reason(before, after, GROUND.max_jump) == ''
    assert jump_reason(before, dataclasses.replace(after, stamp_ns=10**9), GROUND.max_jump) == ''
    assert jump_reason(before, dataclasses.replace(after, y=3.0), GROUND.max_jump) == (
        'the odometry jumped: 3.0 m in 0.02 s, of which its speed explains 0.2 m')
