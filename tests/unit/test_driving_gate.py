"""What reaches the vehicle for any course of events, and how soon it is braked for each fault."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from av_td3_ros.driving.command.ackermann import AckermannSettings, to_ackermann
from av_td3_ros.driving.command.arbiter import Source
from av_td3_ros.driving.command.authority import Authority, Driver
from av_td3_ros.driving.command.control import CommandSettings, to_carla
from av_td3_ros.driving.command.control_settings import ControlSettings
from av_td3_ros.driving.command.gate import Choice, Command, CommandGate, Seen
from av_td3_ros.driving.command.watchdog import Now
from av_td3_ros.driving.perception.odometry_monitor import OdometrySettings
from av_td3_ros.driving.perception.vehicle_state import MeasurementError, VehicleState

SECOND = 1_000_000_000
PERIOD = SECOND // 50  # of control: the heartbeat's
FRAME = SECOND // 20
EPOCH = 1_700_000_000 * SECOND
LIMITS = CommandSettings(steering_rate=2.0, stop_rate=2.0, acceleration_rate=4.0)
VEHICLE = ControlSettings(
    output='ackermann', engaged_at_start=False, heartbeat=50.0, action_timeout=0.2,
    sensor_timeout=0.3, sensor_max_age=0.5, clock_tolerance=0.25, disengage_after=1.0,
    odometry=OdometrySettings(timeout=0.2, max_jump=1.0, frozen_after=1.0), command=LIMITS,
    ackermann=AckermannSettings(max_jerk=15.0))
SIMULATION = dataclasses.replace(VEHICLE, output='carla', heartbeat=0.0, sensor_max_age=0.0,
                                 clock_tolerance=0.0, disengage_after=0.0,
                                 odometry=OdometrySettings())


class Drive:
    """A gate whose policy drives a vehicle at 20 Hz, by a clock that a test moves."""

    def __init__(self, s: ControlSettings = VEHICLE) -> None:
        self.gate = CommandGate(s, Authority(True))
        self.gate.authority.is_active = True
        self.steady, self.offset, self.step = 0, EPOCH, 0
        self.x, self.speed = 0.0, 4.0
        self.wanted: tuple[float, float] = (0.3, 0.5)
        self.sends = {'observation': True, 'action': True, 'odometry': True}
        self.late_ns, self.moves = 0, True
        self.commands: list[tuple[int, Command]] = []

    @property
    def now(self) -> Now:
        """Return the present time by both clocks."""
        return Now(self.steady, self.steady + self.offset)

    def seen(self) -> Seen:
        """Return the next observation."""
        self.step += 1
        return Seen((1, self.step), self.now.ros - self.late_ns, self.speed, self.step == 1)

    def take(self) -> list[Command]:
        """Return what came of it, kept with its time."""
        due = self.gate.take()
        self.commands += [(self.steady, one) for one in due]
        return due

    def on(self, seconds: float) -> None:
        """Let some time pass, one tick of control after another."""
        for _ in range(round(seconds * SECOND / PERIOD)):
            self.steady += PERIOD
            self.x += self.speed * PERIOD / SECOND if self.moves else 0.0
            if self.sends['odometry']:
                self.gate.hear_odometry(VehicleState(
                    self.now.ros, self.x, 0.0, 0.0, self.speed), self.now)
            if self.sends['observation'] and self.steady % FRAME < PERIOD:
                self.gate.observe(self.seen(), self.now)
                if self.sends['action']:
                    self.gate.answer(Choice((1, self.step), *self.wanted), self.now)
            self.gate.tick(self.now)
            self.take()

    def braked_after(self, begun: int) -> float:
        """Return how many control periods after a time in ns the brake is commanded first."""
        return (next(when for when, one in self.commands
                     if when > begun and one.action[1] < 0.0) - begun) / PERIOD


def legal(command: Command, s: ControlSettings, speed: float) -> None:
    """Check what a vehicle may get at all, whatever it takes."""
    steer, acceleration = (float(one) for one in command.action)
    assert -1.0 <= steer <= 1.0 and -1.0 <= acceleration <= 1.0
    carla = to_carla(command.action, s.command)
    assert all(map(math.isfinite, (carla.throttle, carla.steer, carla.brake)))
    assert not carla.reverse and min(carla.throttle, carla.brake) == 0.0
    ackermann = to_ackermann(command.action, speed, s.command.steering_range,
                             s.command.speed_limit, s.ackermann)
    assert 0.0 <= ackermann.speed <= s.command.speed_limit
    assert 0.0 < ackermann.acceleration <= s.ackermann.max_deceleration + 1e-6
    assert abs(ackermann.steering_angle) <= s.ackermann.max_steering_angle
    if command.source in (Source.EMERGENCY_STOP, Source.STOPPED, Source.WATCHDOG):
        assert acceleration <= -0.05 + 1e-6 and ackermann.speed == 0.0
        assert command.source != Source.EMERGENCY_STOP or acceleration == -1.0


# -- anything may come, in any order, at any time

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)
STEPS = st.tuples(st.integers(0, 2), st.integers(0, 4))
STAMPS = st.one_of(st.integers(-2**40, 2**40), st.integers(-2**62, 2**62))
EVENTS = st.lists(st.tuples(
    st.integers(0, SECOND),                                        # time that passes, ns
    st.one_of(st.just(0), st.sampled_from([-3600, -1, 1, 3600])),  # s by which the clock leaps
    st.one_of(
        st.tuples(st.just('observe'), STEPS, STAMPS, ANY, st.booleans(), st.booleans()),
        st.tuples(st.just('answer'), STEPS, ANY, ANY),
        st.tuples(st.just('odometry'), STAMPS, ANY, ANY, ANY),
        st.tuples(st.just('hold'), STAMPS),
        st.tuples(st.just('human'), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0)),
        st.tuples(st.sampled_from(['engage', 'disengage', 'emergency', 'clear', 'activate',
                                   'deactivate', 'override', 'release', 'tick']))),
), max_size=60)


def happen(drive: Drive, what: tuple) -> None:
    """Let one thing happen to the gate, as the node would."""
    gate, authority, now = drive.gate, drive.gate.authority, drive.now
    name, *rest = what
    if name == 'observe':
        step, late, *others = rest
        gate.observe(Seen(step, now.ros - late, *others), now)
    elif name == 'answer':
        gate.answer(Choice(*rest), now)
    elif name == 'odometry':
        late, *numbers = rest
        try:
            gate.hear_odometry(VehicleState(now.ros - late, *numbers[:2], 0.0, numbers[2]), now)
        except MeasurementError as error:
            gate.refuse_odometry(str(error))
    elif name == 'hold':
        gate.hold(Seen((0, 0), now.ros - rest[0], math.nan), now)
    elif name == 'human':
        gate.hear_human(np.array(rest, np.float32), now)
    elif name == 'engage':
        gate.engage(now)
    elif name == 'tick':
        gate.tick(now)
    else:
        {'disengage': lambda: authority.disengage('asked'),
         'emergency': lambda: authority.stop_at_once('pressed'),
         'clear': authority.clear_emergency_stop,
         'activate': lambda: setattr(authority, 'is_active', True),
         'deactivate': lambda: setattr(authority, 'is_active', False),
         'override': lambda: setattr(authority, 'is_overridden', True),
         'release': lambda: setattr(authority, 'is_overridden', False)}[name]()
        gate.heed(now)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([VEHICLE, SIMULATION]), EVENTS)
def test_whatever_happens_commands_are_legal_and_silence_brakes(
        s: ControlSettings, events: list[tuple]) -> None:
    drive = Drive(s)
    for passed, leap, what in events:
        drive.steady += passed
        drive.offset += leap * SECOND
        happen(drive, what)
        for command in drive.take():
            legal(command, s, drive.gate.speed)
    # Nothing comes any more: after the longest limit the vehicle is braked, in two periods.
    drive.sends = dict.fromkeys(drive.sends, False)
    drive.on(max(s.human_timeout, s.sensor_timeout, s.action_timeout) + 2 * PERIOD / SECOND)
    silent = drive.steady
    drive.on(1.0)
    if s.heartbeat:
        after = [one.action[1] for when, one in drive.commands if when >= silent]
        assert len(after) >= 50 and max(after) <= -0.05 + 1e-6
        assert min(after[-10:]) <= -0.6 + 1e-6  # the ramp's end
        if drive.gate.authority.driver == Driver.EMERGENCY:
            assert max(after) == -1.0
    elif drive.commands and drive.gate.authority.driver != Driver.HUMAN:
        assert drive.commands[-1][1].action[1] <= -0.05 + 1e-6


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ANY, ANY, st.floats(-5.0, 40.0)), min_size=2, max_size=40))
@example([(1.0, 1.0, 5.0), (-1.0, -1.0, 5.0)])
def test_the_policy_s_commands_keep_to_rates_jerk_and_speed(
        wanted: list[tuple[float, float, float]]) -> None:
    drive = Drive(dataclasses.replace(VEHICLE, odometry=OdometrySettings()))
    pedals = VEHICLE.pedals
    before = np.zeros(2)
    for steer, acceleration, drive.speed in wanted:
        drive.steady += FRAME
        drive.gate.observe(drive.seen(), drive.now)
        drive.gate.answer(Choice((1, drive.step), steer, acceleration), drive.now)
        for one in drive.take():
            legal(one, VEHICLE, drive.speed)
            after = one.action.astype(float)
            assert abs(after[0] - before[0]) <= LIMITS.steering_rate * 0.05 + 1e-6
            rise = pedals.acceleration(after[1]) - pedals.acceleration(before[1])
            assert after[1] - before[1] <= LIMITS.acceleration_rate * 0.05 + 1e-6
            assert rise <= pedals.jerk * 0.05 + 1e-5
            if one.source == Source.POLICY and drive.speed < LIMITS.speed_limit - 1.0:
                assert before[1] - after[1] <= LIMITS.acceleration_rate * 0.05 + 1e-6
                assert -rise <= pedals.jerk * 0.05 + 1e-5
            if drive.speed >= LIMITS.speed_limit + 1.0:
                assert after[1] <= -min(LIMITS.overspeed_brake, 0.05) + 1e-6
            before = after


# -- each fault, in a drive where all was well


def silent(kind: str) -> Callable[[Drive], None]:
    return lambda drive: drive.sends.update({kind: False})


def broken_odometry(drive: Drive) -> None:
    drive.sends['odometry'] = False
    drive.gate.refuse_odometry('x = nan is not finite')


def late(drive: Drive) -> None:
    drive.late_ns = 2 * SECOND


def leap(seconds: float) -> Callable[[Drive], None]:
    def leap(drive: Drive) -> None:
        drive.offset += round(seconds * SECOND)

    return leap


def jump(drive: Drive) -> None:
    drive.x += 3.0


def freeze(drive: Drive) -> None:
    drive.moves = False


def stand(drive: Drive) -> None:
    drive.moves, drive.speed = False, 0.0


def want(*wanted: float) -> Callable[[Drive], None]:
    return lambda drive: setattr(drive, 'wanted', wanted)


# What goes wrong, its limit in s, and what is said of it.
FAULTS = {
    'action silent': (silent('action'), 0.2 + 0.05, 'no action comes'),
    'action nan': (want(math.nan, 0.5), 0.05, 'the actions cannot be used'),
    'action inf': (want(0.0, math.inf), 0.05, 'the actions cannot be used'),
    'observation silent': (silent('observation'), 0.3, 'no observation comes'),
    'observation old': (late, 0.05, 'the observations are not of now'),
    'odometry silent': (silent('odometry'), 0.2, 'no odometry that can be used'),
    'odometry nan': (broken_odometry, 0.2, 'no odometry that can be used'),
    'odometry jumps': (jump, 0.02, 'the odometry jumped'),
    'odometry frozen': (freeze, 1.0 / 4.0 + 0.02, 'the odometry is frozen'),
    'odometry at a stand under throttle': (stand, 1.0, 'the odometry stands still after 1 s'),
    'clock leaps ahead': (leap(3.0), 0.02, 'the clock has leapt'),
    'clock leaps back': (leap(-3.0), 0.02, 'the clock has leapt')}
LASTING = ('jumps', 'frozen', 'stand', 'leaps')


@pytest.mark.parametrize('name', FAULTS)
def test_the_brake_begins_within_two_periods_of_a_limit(name: str) -> None:
    inject, limit, reason = FAULTS[name]
    drive = Drive()
    drive.on(2.0)
    assert drive.gate.fault is None and drive.gate.authority.reason == ''
    assert drive.commands[-1][1].action[1] > 0.0
    begun = drive.steady
    inject(drive)
    drive.on(limit + 0.2)
    assert drive.braked_after(begun) - limit * SECOND / PERIOD <= 2.0
    told = drive.gate.fault.reason if drive.gate.fault else drive.gate.authority.reason
    assert told.startswith(reason)
    (alarm,) = drive.gate.take_alarms()  # once, not each period
    assert alarm.reason.startswith(reason) and alarm.details
    # The steering is held, then centred; the brake grows at its rate; it does not drive on.
    drive.on(3.0)
    after = [(when - begun, one.action) for when, one in drive.commands if when > begun]
    braking = [(when, action) for when, action in after if action[1] < 0.0]
    first = braking[0][0]
    assert all(action[1] < 0.0 for when, action in after if when > first)
    assert braking[0][1][1] >= -0.2  # no jerk at its beginning
    assert [action[0] for when, action in braking if when < first + 0.9 * SECOND] == (
        pytest.approx([braking[0][1][0]] * len([
            1 for when, _ in braking if when < first + 0.9 * SECOND])))
    assert braking[-1][1] == pytest.approx([0.0, -0.6])
    assert drive.gate.authority.driver == Driver.NOBODY


@pytest.mark.parametrize('name', FAULTS)
def test_after_a_fault_it_drives_on_once_it_may(name: str) -> None:
    inject, limit, _ = FAULTS[name]
    drive = Drive()
    drive.on(2.0)
    inject(drive)
    drive.on(limit + 0.3)
    lasts = any(word in name for word in LASTING)
    assert drive.gate.authority.is_engaged != lasts
    drive.moves, drive.speed, drive.late_ns, drive.wanted = True, 4.0, 0, (0.3, 0.5)
    drive.sends = dict.fromkeys(drive.sends, True)
    drive.on(0.5)
    assert (drive.commands[-1][1].action[1] > 0.0) != lasts
    if lasts:  # somebody has to look, and engages
        assert drive.gate.engage(drive.now) == ''
        drive.on(1.5)
        assert drive.commands[-1][1].action[1] > 0.0


def test_engaging_after_it_gave_up_is_not_undone_at_once() -> None:
    drive = Drive()
    drive.on(1.0)
    drive.sends['action'] = False
    drive.on(2.0)
    assert drive.gate.authority.reason == 'no action comes for 1 s'
    drive.gate.engage(drive.now)
    drive.on(0.1)
    assert drive.gate.authority.driver == Driver.POLICY
    drive.sends['action'] = True
    drive.on(0.3)
    assert drive.commands[-1][1].action[1] > 0.0


IDLE = dataclasses.replace(VEHICLE, idle_timeout=1.0)


def test_at_the_end_of_its_route_it_waits_for_somebody_to_engage() -> None:
    drive = Drive(IDLE)
    drive.on(1.0)
    drive.step += 1
    drive.gate.observe(Seen((1, drive.step), drive.now.ros, 4.0, is_last=True), drive.now)
    drive.sends['observation'] = drive.sends['action'] = False
    for _ in range(60):  # frames go on, of no episode
        drive.gate.hold(Seen((0, 0), drive.now.ros, math.nan), drive.now)
        drive.on(0.06)
    assert drive.gate.authority.reason == 'there is nothing to drive for 1 s'
    (alarm,) = drive.gate.take_alarms()
    assert 'publish one that begins where the vehicle stands, then engage' in alarm.details
    drive.sends = dict.fromkeys(drive.sends, True)
    drive.on(1.0)  # the next route alone moves nothing
    assert drive.commands[-1][1].action[1] < 0.0
    assert drive.gate.engage(drive.now) == ''
    drive.on(0.5)
    assert drive.commands[-1][1].action[1] > 0.0


def test_engaged_without_anything_to_drive_it_gives_up() -> None:
    drive = Drive(dataclasses.replace(IDLE, engaged_at_start=False))
    drive.gate.authority.disengage('at first')
    drive.sends = dict.fromkeys(drive.sends, False)
    assert drive.gate.engage(drive.now) == ''
    drive.on(2.5)
    assert drive.gate.authority.driver == Driver.NOBODY
    assert drive.gate.authority.reason == 'no observation comes for 1 s'


def test_a_lockstep_world_may_stand_still_and_set_the_vehicle_down() -> None:
    drive = Drive(dataclasses.replace(SIMULATION, sensor_timeout=0.0))
    for episode in range(3):
        drive.steady += 3600 * SECOND  # the learner catches up
        drive.gate.tick(drive.now)
        for step in range(5):
            stamp = (episode * 100 + step) * FRAME
            drive.gate.observe(Seen((episode, step), stamp, 5.0, step == 0), drive.now)
            drive.gate.answer(Choice((episode, step), 0.5, 0.5), drive.now)
            (command,) = drive.take()
            assert (command.source, command.action[1]) == (
                Source.POLICY, pytest.approx(min(0.5, 0.2 * (step + 1))))
    assert drive.gate.take_alarms() == []


def sources(drive: Drive) -> Iterator[Source]:
    return (one.source for _, one in drive.commands if one.answers is not None)


def test_a_human_is_obeyed_at_once_and_a_lacking_one_braked_for() -> None:
    drive = Drive()
    drive.on(1.0)
    drive.gate.hear_human(np.array((-0.4, 0.2), np.float32), drive.now)
    drive.gate.authority.is_overridden = True
    drive.gate.heed(drive.now)
    assert drive.take()[-1].action == pytest.approx([-0.4, 0.2])
    drive.on(0.3)
    assert list(sources(drive))[-1] == Source.HUMAN
    drive.on(0.5)
    assert drive.gate.lacks_human and drive.commands[-1][1].action[1] < 0.0


@pytest.mark.parametrize('s', [VEHICLE, SIMULATION], ids=['vehicle', 'simulation'])
def test_an_emergency_stop_brakes_with_all_there_is_at_once(s: ControlSettings) -> None:
    drive = Drive(s)
    drive.on(1.0)
    drive.gate.authority.stop_at_once('pressed')
    drive.gate.heed(drive.now)
    drive.on(0.1)
    assert drive.commands[-1][1].action[1] == -1.0
