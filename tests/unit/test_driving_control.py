"""What reaches the vehicle: limits, controlled stops, and CARLA's command."""
from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from av_td3_ros.driving.command.ackermann import AckermannSettings
from av_td3_ros.driving.command.control import (
    CarlaCommand,
    CommandSettings,
    brake_action,
    limit_action,
    to_carla,
)
from av_td3_ros.settings import check

SETTINGS = CommandSettings()
CENTRED = (0.0, 0.0)


def applied(action: object, previous: tuple[float, float] = CENTRED, speed: float = 5.0,
            dt: float = 0.05, settings: CommandSettings = SETTINGS) -> list[float]:
    result = limit_action(action, previous, speed, dt, settings)  # type: ignore[arg-type]
    assert result.dtype == np.float32
    assert result.shape == (2,)
    assert np.isfinite(result).all()
    assert (np.abs(result) <= 1.0).all()
    return [pytest.approx(float(one)) for one in result]


def test_action_within_all_limits_is_applied_as_it_is() -> None:
    assert applied((0.2, 0.7)) == [0.2, 0.7]
    assert applied((-0.1, -0.9)) == [-0.1, -0.9]


def test_values_out_of_range_are_clipped() -> None:
    assert applied((9.0, 9.0), previous=(1.0, 0.0)) == [1.0, 1.0]
    assert applied((-9.0, -9.0), previous=(-1.0, 0.0)) == [-1.0, -1.0]


def test_steering_turns_no_faster_than_its_rate() -> None:
    assert applied((1.0, 0.0)) == [0.25, 0.0]  # 5 per s in 0.05 s
    assert applied((-1.0, 0.0), previous=(0.6, 0.0)) == [0.35, 0.0]
    assert applied((1.0, 0.0), dt=0.1) == [0.5, 0.0]
    assert applied((1.0, 0.0), dt=0.0, previous=(0.3, 0.0)) == [0.3, 0.0]
    assert applied((1.0, 0.0), dt=-1.0, previous=(0.3, 0.0)) == [0.3, 0.0]
    assert applied((1.0, 0.0), dt=math.nan, previous=(0.3, 0.0)) == [0.3, 0.0]


@pytest.mark.parametrize(('speed', 'wanted', 'allowed'), [
    (10.0, 0.8, 0.8), (10.5, 0.8, 0.4), (11.0, 0.8, 0.0), (11.5, 0.8, -0.15), (12.0, 0.8, -0.3),
    (30.0, 0.8, -0.3), (30.0, -0.9, -0.9), (10.5, -0.5, -0.5), (-3.0, 0.8, 0.8)])
def test_acceleration_fades_towards_the_speed_limit(speed: float, wanted: float, allowed: float
                                                    ) -> None:
    assert applied((0.0, wanted), speed=speed) == [0.0, allowed]


@pytest.mark.parametrize('action', [
    (math.nan, 0.5), (0.1, math.inf), (math.inf, -math.inf), (0.1,), (0.1, 0.2, 0.3), 0.5])
def test_action_that_makes_no_sense_brakes_and_holds_the_steering(action: object) -> None:
    assert applied(action, previous=(0.4, 0.9)) == [0.4, -0.6]


def test_unknown_speed_brakes() -> None:
    assert applied((0.1, 1.0), speed=math.nan) == [0.0, -0.6]


def test_steering_that_was_not_a_number_counts_as_centred() -> None:
    assert applied((0.1, 0.2), previous=(math.nan, 0.0)) == [0.1, 0.2]


def test_controlled_stop_holds_the_steering_then_centres_it() -> None:
    action, elapsed, steers = (0.4, 0.5), 0.0, []
    for _ in range(26):
        action = brake_action(action, elapsed, 0.05, SETTINGS)
        assert action[1] == pytest.approx(-0.6)
        steers.append(float(action[0]))
        elapsed += 0.05
    assert steers[:20] == [pytest.approx(0.4)] * 20
    assert steers[21:24] == [pytest.approx(0.0, abs=0.16)] + [pytest.approx(0.0)] * 2
    assert steers[-1] == 0.0


def test_the_brake_of_a_stop_grows_at_its_own_rate_whatever_the_clock() -> None:
    ramp = dataclasses.replace(SETTINGS, stop_rate=2.0)
    for dt, least in ((0.02, 0.04), (10.0, 0.1), (0.0, 0.02), (-5.0, 0.02), (math.nan, 0.02)):
        action, brakes = (0.4, 1.0), [0.0]  # from full throttle
        for _ in range(40):
            action = brake_action(action, 0.0, dt, ramp)
            brakes.append(-float(action[1]))
        assert brakes[1] == pytest.approx(max(least, 0.05))
        assert all(after - before > 0.99 * least or after == pytest.approx(0.6)
                   for before, after in itertools.pairwise(brakes))
        assert brakes[-1] == pytest.approx(0.6)
    # Harder braking than that is eased, not let go.
    assert brake_action((0.0, -1.0), 0.0, 0.05, ramp)[1] == pytest.approx(-0.9)


@pytest.mark.parametrize(('previous', 'wanted', 'allowed'), [
    (0.0, 1.0, 0.1), (0.5, -1.0, 0.4), (-0.5, 1.0, -0.4), (0.05, -0.02, -0.02)])
def test_acceleration_changes_no_faster_than_its_rate(previous: float, wanted: float,
                                                      allowed: float) -> None:
    slow = dataclasses.replace(SETTINGS, acceleration_rate=2.0)
    assert applied((0.0, wanted), previous=(0.0, previous), settings=slow) == [0.0, allowed]


def test_jerk_is_limited_in_the_units_of_the_vehicle() -> None:
    vehicle = AckermannSettings(max_acceleration=2.0, max_deceleration=5.0, max_jerk=10.0).pedals
    # 10 m/s^3 for 0.05 s are 0.5 m/s^2: of 2 m/s^2 throttle and of 5 m/s^2 brake.
    for previous, wanted, allowed in ((0.0, 1.0, 0.25), (0.0, -1.0, -0.1), (0.25, -1.0, 0.0),
                                      (0.1, -1.0, -0.06), (-0.06, 1.0, 0.1)):
        result = limit_action((0.0, wanted), (0.0, previous), 5.0, 0.05, SETTINGS, vehicle)
        assert result[1] == pytest.approx(allowed, abs=1e-6)


def test_the_speed_limit_is_kept_at_any_jerk() -> None:
    slow = dataclasses.replace(SETTINGS, acceleration_rate=0.1)
    assert applied((0.0, 1.0), previous=(0.0, 1.0), speed=12.0, settings=slow) == [0.0, -0.3]


def test_the_policy_s_pedals_may_be_limited() -> None:
    mild = dataclasses.replace(SETTINGS, throttle_limit=0.4, brake_limit=0.3)
    assert applied((0.0, 1.0), settings=mild) == [0.0, 0.4]
    assert applied((0.0, -1.0), settings=mild) == [0.0, -0.3]
    assert brake_action((0.0, 0.0), 0.0, 0.05, mild)[1] == pytest.approx(-0.6)  # a stop is a stop


def test_stop_without_a_history_goes_straight() -> None:
    np.testing.assert_allclose(brake_action(), [0.0, -0.6])


@pytest.mark.parametrize(('action', 'command'), [
    ((0.0, 0.0), CarlaCommand(0.0, 0.0, 0.0)),
    ((0.5, 0.25), CarlaCommand(0.25, -0.3, 0.0)),  # 0.6 of the vehicle's steering range
    ((-0.5, -0.75), CarlaCommand(0.0, 0.3, 0.75)),
    ((7.0, -7.0), CarlaCommand(0.0, -0.6, 1.0))])
def test_carla_steers_to_the_right_and_never_pushes_both_pedals(
        action: tuple[float, float], command: CarlaCommand) -> None:
    assert to_carla(action) == command


def test_carla_command_never_reverses() -> None:
    for acceleration in np.linspace(-1.0, 1.0, 21):
        command = to_carla((0.0, acceleration))
        assert not command.reverse
        assert not command.hand_brake
        assert min(command.throttle, command.brake) == 0.0
        assert math.copysign(1.0, command.brake) == 1.0


def test_carla_command_of_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match='not finite'):
        to_carla((math.nan, 0.0))


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(CommandSettings)])
def test_every_setting_changes_a_command(field: str) -> None:
    check(SETTINGS)
    rates = dataclasses.replace(SETTINGS, acceleration_rate=10.0, stop_rate=8.0)
    changed = dataclasses.replace(rates, **{field: getattr(rates, field) * 0.5})

    def commands(settings: CommandSettings) -> list[list[float]]:
        limited = [limit_action((1.0, 1.0), CENTRED, speed, 0.05, settings)
                   for speed in (5.0, 10.2, 13.0)]
        limited += [limit_action((0.0, wanted), (0.0, wanted), 5.0, 0.05, settings)
                    for wanted in (-1.0, 1.0)]
        stopped = brake_action((0.5, 0.0), 0.7, 0.05, settings)
        sent = to_carla((0.5, 0.0), settings).steer
        return [*(one.tolist() for one in [*limited, stopped]), [sent]]

    assert commands(changed) != commands(rates)
