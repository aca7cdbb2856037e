"""What is measured of a vehicle: only numbers that can be computed with get in."""
from __future__ import annotations

import math

import numpy as np
import pytest

from av_td3_ros.driving.perception.vehicle_state import Events, MeasurementError, VehicleState


@pytest.mark.parametrize('name', ['x', 'y', 'yaw', 'speed', 'lateral_speed', 'yaw_rate'])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_number_that_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    numbers = {'x': 1.0, 'y': 2.0, 'yaw': 0.1, 'speed': 5.0, name: value}
    with pytest.raises(MeasurementError, match=rf'odometry at 70 ns: {name} = '):
        VehicleState(stamp_ns=70, **numbers)


def test_opposite_infinities_do_not_cancel() -> None:
    with pytest.raises(MeasurementError, match='x = inf'):
        VehicleState(0, math.inf, -math.inf, 0.0, 0.0)


def test_numbers_too_large_to_add_are_refused() -> None:
    with pytest.raises(MeasurementError, match='units'):
        VehicleState(0, 1.7e308, 1.7e308, 0.0, 0.0)


def test_numpy_scalars_become_plain_numbers() -> None:
    state = VehicleState(0, np.float32(0.5), 1, np.float64(0.25), np.float32(3.0))
    assert [type(one) for one in (state.x, state.y, state.yaw, state.speed)] == [float] * 4
    assert (state.x, state.y, state.yaw, state.speed) == (0.5, 1.0, 0.25, 3.0)


def test_refused_measurement_is_a_value_error() -> None:
    assert issubclass(MeasurementError, ValueError)


def test_time_to_collision_comes_from_the_closing_speed() -> None:
    assert Events(gap=12.0, closing_speed=4.0).time_to_collision == 3.0
    assert Events(gap=-0.5, closing_speed=4.0).time_to_collision == 0.0


@pytest.mark.parametrize('events', [
    Events(), Events(gap=5.0), Events(gap=5.0, closing_speed=0.0),
    Events(gap=5.0, closing_speed=-2.0), Events(closing_speed=2.0)])
def test_nothing_that_gets_closer_has_no_time_to_collision(events: Events) -> None:
    assert events.time_to_collision is None


def test_gap_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(MeasurementError, match='gap'):
        Events(gap=math.nan)
