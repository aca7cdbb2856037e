"""What reaches the vehicle: limits, controlled stops, and CARLA's command."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

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
    changed = dataclasses.replace(SETTINGS, **{field: getattr(SETTINGS, field) * 0.5})

    def commands(settings: CommandSettings) -> list[list[float]]:
        limited = [limit_action((1.0, 1.0), CENTRED, speed, 0.05, settings)
                   for speed in (5.0, 10.2, 13.0)]
        stopped = brake_action((0.5, 0.0), 0.7, 0.05, settings)
        sent = to_carla((0.5, 0.0), settings).steer
        return [*(one.tolist() for one in [*limited, stopped]), [sent]]

    assert commands(changed) != commands(SETTINGS)
