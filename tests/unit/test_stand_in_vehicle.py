"""The vehicle of the bench: delay, noise, limits, and the stop when nobody commands it."""
from __future__ import annotations

import math

import numpy as np
import pytest

from av_td3_ros.simulator.vehicle.stand_in_vehicle import (
    DriveCommand,
    StandInSettings,
    StandInVehicle,
)

DT = 0.02
QUIET = {'position_noise': 0.0, 'yaw_noise': 0.0, 'speed_noise': 0.0, 'yaw_rate_noise': 0.0}


def vehicle(**settings: float) -> StandInVehicle:
    return StandInVehicle(StandInSettings(**{**QUIET, **settings}), 100.0)


def drive(car: StandInVehicle, seconds: float, command: DriveCommand | None = None) -> None:
    """Go on for some time, with one command a period."""
    for _ in range(round(seconds / DT)):
        now = car._now + DT
        if command is not None:
            car.command(command, now)
        car.advance(now)


def test_it_stands_without_commands_and_where_it_was_put() -> None:
    car = vehicle(x=3.0, y=-2.0, yaw=0.5)
    drive(car, 5.0)
    seen = car.measure(7)
    assert (seen.stamp_ns, seen.x, seen.y, seen.yaw, seen.speed) == (7, 3.0, -2.0, 0.5, 0.0)
    assert not car.is_heard()


@pytest.mark.parametrize('speed', [1.0, 5.0, 10.0])
def test_it_reaches_and_holds_the_speed_that_is_commanded(speed: float) -> None:
    car = vehicle()
    drive(car, 15.0, DriveCommand(0.0, speed, 2.0))
    assert car.body.speed == pytest.approx(speed, abs=0.15)


def test_the_acceleration_is_a_limit() -> None:
    slow, fast = vehicle(), vehicle()
    drive(slow, 3.0, DriveCommand(0.0, 10.0, 1.0))
    drive(fast, 3.0, DriveCommand(0.0, 10.0, 0.0))
    assert slow.body.speed == pytest.approx(2.8, abs=0.3)
    assert fast.body.speed > 7.0


def test_braking_stops_it_and_never_drives_it_backwards() -> None:
    car = vehicle()
    drive(car, 8.0, DriveCommand(0.0, 8.0))
    for command in (DriveCommand(0.0, 0.0, -4.0), DriveCommand(0.0, -5.0, 3.0)):
        drive(car, 4.0, command)
        assert car.body.speed == pytest.approx(0.0, abs=1e-6)


def test_a_command_acts_after_the_delay() -> None:
    car = vehicle(delay=0.2)
    drive(car, 0.18, DriveCommand(0.3, 5.0))
    assert (car.body.throttle, car.body.steering_angle) == (0.0, 0.0)
    drive(car, 0.06, DriveCommand(0.3, 5.0))
    assert car.body.throttle > 0.0 and car.body.steering_angle > 0.0


def test_steering_is_the_angle_of_the_front_wheels_left_positive() -> None:
    car = vehicle()
    drive(car, 6.0, DriveCommand(0.1, 3.0))
    assert car.body.steering_angle == pytest.approx(0.1, abs=1e-3)
    assert car.body.yaw_rate == pytest.approx(3.0 * math.tan(0.1) / car.body.wheelbase, rel=0.1)


def test_it_stops_by_itself_when_no_command_comes() -> None:
    car = vehicle(command_timeout=0.5, timeout_deceleration=4.0)
    drive(car, 8.0, DriveCommand(0.0, 8.0))
    drive(car, 0.4)
    assert car.is_heard() and car.body.speed > 7.5
    drive(car, 0.2)
    assert not car.is_heard()
    drive(car, 2.6)
    assert car.body.speed == pytest.approx(0.0, abs=1e-6)


def test_a_command_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match='not finite'):
        DriveCommand(math.nan, 1.0)


def test_what_it_measures_is_as_noisy_as_it_is_told() -> None:
    car = StandInVehicle(StandInSettings(position_noise=0.05, yaw_noise=0.01), 0.0)
    seen = [car.measure(0) for _ in range(2000)]
    assert np.std([one.x for one in seen]) == pytest.approx(0.05, rel=0.1)
    assert np.std([one.yaw for one in seen]) == pytest.approx(0.01, rel=0.1)
    other = StandInVehicle(StandInSettings(position_noise=0.05, yaw_noise=0.01), 0.0)
    assert other.measure(0) == seen[0]
