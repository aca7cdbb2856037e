"""Who has the say, and what is applied then, for any course of events."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av_td3_ros.driving.command.ackermann import AckermannSettings, from_ackermann, to_ackermann
from av_td3_ros.driving.command.arbiter import Arbiter, Source
from av_td3_ros.driving.command.authority import Authority, Driver
from av_td3_ros.driving.command.control import CommandSettings, from_carla, to_carla

LIMITS = CommandSettings(steering_rate=2.0, stop_brake=0.6, stop_hold=1.0)
VEHICLE = AckermannSettings()
STEP = 50_000_000  # ns
ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)
EVENTS = st.lists(st.one_of(
    st.tuples(st.just('policy'), ANY, ANY, ANY),
    st.sampled_from(['engage', 'disengage', 'emergency', 'clear', 'activate', 'deactivate',
                     'override', 'release', 'human', 'silence', 'act'])), max_size=60)


def active(engaged: bool = True) -> Arbiter:
    """Return an arbiter whose policy drives, if it is engaged."""
    authority = Authority(engaged)
    authority.is_active = True
    return Arbiter(LIMITS, authority)


def happen(arbiter: Arbiter, event: object, now: int) -> Source | None:
    """Let one thing happen; return the source of what was applied, None when nothing was."""
    authority = arbiter.authority
    if isinstance(event, tuple):
        if authority.driver != Driver.POLICY:
            return None
        arbiter.follow(event[1:3], event[3], now)
        return Source.POLICY
    if event == 'act':
        return arbiter.act(now)[1]
    {'engage': authority.engage, 'disengage': lambda: authority.disengage('asked'),
     'emergency': lambda: authority.stop_at_once('pressed'),
     'clear': authority.clear_emergency_stop,
     'activate': lambda: setattr(authority, 'is_active', True),
     'deactivate': lambda: setattr(authority, 'is_active', False),
     'override': lambda: setattr(authority, 'is_overridden', True),
     'release': lambda: setattr(authority, 'is_overridden', False),
     'human': lambda: arbiter.hear_human(np.array((0.3, 0.2), np.float32)),
     'silence': lambda: arbiter.hear_human(None)}[str(event)]()
    return None


@settings(max_examples=300, deadline=None)
@given(EVENTS, ANY)
def test_every_command_is_one_that_a_vehicle_may_get(events: list[object], speed: float) -> None:
    arbiter = active()
    for number, event in enumerate(events):
        source = happen(arbiter, event, number * STEP)
        steer, acceleration = arbiter.applied
        assert -1.0 <= steer <= 1.0 and -1.0 <= acceleration <= 1.0
        carla = to_carla(arbiter.applied, LIMITS)
        assert not carla.reverse and not (carla.throttle > 0.0 and carla.brake > 0.0)
        ackermann = to_ackermann(arbiter.applied, speed, 0.6, 11.0, VEHICLE)
        assert 0.0 <= ackermann.speed <= 11.0 and ackermann.acceleration > 0.0
        assert abs(ackermann.steering_angle) <= VEHICLE.max_steering_angle
        if source in (Source.EMERGENCY_STOP, Source.STOPPED, Source.WATCHDOG):
            assert acceleration <= -0.6 + 1e-6 and ackermann.speed == 0.0


def test_the_strongest_has_the_say() -> None:
    arbiter = active()
    authority = arbiter.authority
    assert (authority.driver, authority.reason) == (Driver.POLICY, '')
    authority.is_overridden = True
    assert authority.driver == Driver.HUMAN
    assert authority.stop_at_once('pressed') and not authority.stop_at_once('again')
    assert (authority.driver, authority.reason) == (Driver.EMERGENCY, 'pressed')
    assert 'clear it first' in authority.engage()
    authority.is_pressed = True
    assert 'release it first' in authority.clear_emergency_stop()
    authority.is_pressed = False
    assert authority.clear_emergency_stop() == ''
    assert authority.clear_emergency_stop() == 'there is no emergency stop'
    authority.is_overridden = False
    assert (authority.driver, authority.reason) == (Driver.NOBODY, 'after an emergency stop')
    assert authority.engage() == '' and authority.driver == Driver.POLICY


def test_the_first_reason_to_stop_is_kept_until_somebody_engages() -> None:
    authority = active().authority
    assert authority.disengage('the ground ends here')
    assert not authority.disengage('a second reason')
    assert authority.reason == 'the ground ends here'
    authority.engage()
    assert authority.disengage('a third one') and authority.reason == 'a third one'


def test_a_stop_holds_the_steering_then_centres_it() -> None:
    arbiter = active()
    for step in range(20):
        arbiter.follow((0.5, 0.5), 5.0, step * STEP)
    assert arbiter.applied[0] == pytest.approx(0.5)
    arbiter.authority.disengage('asked')
    for step in range(20, 40):
        action, source = arbiter.act(step * STEP)
        assert (source, action.tolist()) == (Source.STOPPED, pytest.approx([0.5, -0.6]))
    for step in range(40, 46):
        arbiter.act(step * STEP)
    assert arbiter.applied[0] == pytest.approx(0.0, abs=1e-6)


@given(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), st.floats(0.0, 10.0))
def test_what_a_human_commands_is_the_action_that_would_have_commanded_it(
        steer: float, acceleration: float, speed: float) -> None:
    said = to_carla((steer, acceleration), LIMITS)
    back = from_carla(said.throttle, said.steer, said.brake, LIMITS)
    assert back == pytest.approx([steer, acceleration], abs=1e-6)
    command = to_ackermann((steer, acceleration), speed, 0.6, 60.0, VEHICLE)
    back = from_ackermann(command.steering_angle, command.speed, command.acceleration, speed,
                          0.6, VEHICLE)
    assert back[0] == pytest.approx(steer, abs=1e-6)
    if speed > 5.0 and abs(acceleration) > 0.06:  # slower than that, it stands before long
        assert back[1] == pytest.approx(acceleration, abs=1e-6)


@pytest.mark.parametrize('broken', [math.nan, math.inf])
def test_commands_that_are_not_numbers_are_refused(broken: float) -> None:
    with pytest.raises(ValueError, match='not finite'):
        from_carla(broken, 0.0, 0.0, LIMITS)
    with pytest.raises(ValueError, match='not finite'):
        from_ackermann(0.0, broken, 0.0, 5.0, 0.6, VEHICLE)
    with pytest.raises(ValueError, match='limit it first'):
        to_ackermann((broken, 0.0), 5.0, 0.6, 11.0, VEHICLE)
    # A vehicle whose speed nobody knows is asked to stand.
    assert to_ackermann((0.0, 1.0), broken, 0.6, 11.0, VEHICLE).speed == 0.0
