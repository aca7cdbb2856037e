"""The control node: one command for each observation, and the brake when in doubt."""
from __future__ import annotations

import itertools
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from av_td3_msgs.msg import Action, AppliedAction, Observation
from carla_msgs.msg import CarlaEgoVehicleControl
from harness import SPECS, Log, Peer, Running, await_that, parameter_file
from std_msgs.msg import Header

from av_td3_ros.cli.session import Session
from av_td3_ros.ros.conversions import to_stamp

PERIOD = 50_000_000
NODE = '/ego_vehicle/control_node'
# So that a busy machine brakes in no test but those about braking.
PATIENT = {'action_timeout': 60.0, 'sensor_timeout': 0.0, 'command.steering_rate': 1000.0,
           'command.steering_range': 1.0}


class Vehicle:
    """What comes before and after the control node."""

    def __init__(self, peer: Peer) -> None:
        self.commands = peer.hear(CarlaEgoVehicleControl, '/carla/ego_vehicle/vehicle_control_cmd')
        self.applied = peer.hear(AppliedAction, '/ego_vehicle/applied_action')
        self.observe = peer.speak(Observation, '/ego_vehicle/observation')
        self.act = peer.speak(Action, '/ego_vehicle/action')
        self.hold = peer.speak(Header, '/ego_vehicle/hold')

    def observation(self, step: int, speed: float = 5.0, episode: int = 1, **flags: bool) -> None:
        """Publish an observation."""
        self.observe(Observation(
            header=Header(stamp=to_stamp((step + 1) * PERIOD)), vehicle='ego_vehicle',
            episode=episode, step=step, state=[speed / 30.0, 0.0, 0.0], **flags))

    def action(self, step: int, steer: float = 0.0, acceleration: float = 0.5, episode: int = 1,
               version: int = 7, exploring: bool = True) -> None:
        """Publish an action."""
        self.act(Action(header=Header(stamp=to_stamp((step + 1) * PERIOD)),
                        vehicle='ego_vehicle', episode=episode, step=step, steer=steer,
                        acceleration=acceleration, policy_version=version, exploring=exploring))


@pytest.fixture
def connect(peer: Peer, make: Callable[..., Running]) -> Callable[..., Vehicle]:
    """Return a function that starts the node with parameters of its own."""
    def connect(parameters: dict[str, float] | None = None) -> Vehicle:
        node = make('control_node', {**PATIENT, **(parameters or {})})
        vehicle = Vehicle(peer)
        node.connected(peer)
        node.spin()
        return vehicle

    return connect


def test_every_observation_gets_exactly_one_command(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    for step in range(10):
        vehicle.observation(step, is_first=step == 0)
        vehicle.action(step, acceleration=step / 10)
        vehicle.action(step, acceleration=-1.0)  # said twice, applied once
        assert vehicle.commands.next().throttle == pytest.approx(step / 10)
    assert len(vehicle.commands.messages) == 10
    stamps = [one.header.stamp for one in vehicle.commands.messages]
    assert stamps == [to_stamp((step + 1) * PERIOD) for step in range(10)]
    for step in range(10):
        applied = vehicle.applied.next()
        assert (applied.episode, applied.step, applied.vehicle) == (1, step, 'ego_vehicle')
        assert (applied.source, applied.policy_version, applied.exploring) == (
            AppliedAction.SOURCE_POLICY, 7, True)


def test_an_action_may_come_before_its_observation(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    vehicle.action(0, acceleration=0.4)
    vehicle.observation(0, is_first=True)
    assert vehicle.commands.next().throttle == pytest.approx(0.4)
    vehicle.observation(1)
    vehicle.action(1, acceleration=0.3)
    assert vehicle.commands.next().throttle == pytest.approx(0.3)
    assert len(vehicle.commands.messages) == 2


def test_left_inside_is_negative_for_carla(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    vehicle.observation(0, is_first=True)
    vehicle.action(0, steer=0.5, acceleration=0.25)
    command = vehicle.commands.next()
    assert (command.steer, command.throttle, command.brake) == (-0.5, 0.25, 0.0)
    vehicle.observation(1)
    vehicle.action(1, steer=-0.25, acceleration=-0.75)
    command = vehicle.commands.next()
    assert (command.steer, command.throttle, command.brake) == (0.25, 0.0, 0.75)
    assert not command.reverse and not command.hand_brake
    # What is learned from keeps the sign of REP 103.
    assert [vehicle.applied.next().steer for _ in range(2)] == [0.5, -0.25]


def test_the_steering_range_of_the_policy_may_be_less_than_that_of_the_vehicle(
        connect: Callable[..., Vehicle]) -> None:
    vehicle = connect({'command.steering_range': 0.5})
    vehicle.observation(0, is_first=True)
    vehicle.action(0, steer=-0.5)
    assert vehicle.commands.next().steer == 0.25
    assert vehicle.applied.next().steer == -0.5


def test_what_is_applied_is_limited(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect({'command.steering_rate': 5.0, 'command.speed_limit': 8.0})
    vehicle.observation(0, is_first=True)
    vehicle.action(0, steer=1.0, acceleration=2.0)
    assert vehicle.commands.next().steer == pytest.approx(-0.25)  # 5 a second for 0.05 s
    vehicle.observation(1, speed=12.0)
    vehicle.action(1, steer=1.0, acceleration=1.0)
    fast = vehicle.commands.next()
    assert fast.steer == pytest.approx(-0.5)
    assert fast.throttle == 0.0 and fast.brake > 0.0
    # An episode begins with straight wheels.
    vehicle.observation(0, episode=2, is_first=True)
    vehicle.action(0, episode=2, steer=-1.0)
    assert vehicle.commands.next().steer == pytest.approx(0.25)


@pytest.mark.parametrize('use_sim_time', [False, True])
def test_the_brake_takes_over_when_no_action_comes(connect: Callable[..., Vehicle], log: Log,
                                                   use_sim_time: bool) -> None:
    # By simulated time as well, although nobody tells it here: the world may stand still.
    vehicle = connect({'action_timeout': 0.1, 'use_sim_time': use_sim_time})
    vehicle.observation(0, is_first=True)
    command = vehicle.commands.next()
    assert (command.throttle, command.brake) == (0.0, pytest.approx(0.6))
    applied = vehicle.applied.next()
    assert (applied.source, applied.policy_version) == (AppliedAction.SOURCE_WATCHDOG, 0)
    assert applied.acceleration == pytest.approx(-0.6)
    assert 'is the policy node alive?' in log.next('no action for step 0 of episode 1')


def test_a_controlled_stop_holds_the_steering_before_it_centres_it(
        peer: Peer, connect: Callable[..., Vehicle]) -> None:
    vehicle = connect({'command.steering_rate': 2.0, 'command.stop_hold': 0.15})
    for step in range(3):
        vehicle.observation(step, is_first=step == 0)
        vehicle.action(step, steer=0.3)
        vehicle.commands.next()
    assert peer.set_parameter(NODE, 'action_timeout', 0.01).successful
    steers = []
    for step in range(3, 9):
        vehicle.observation(step)
        steers.append(vehicle.applied.next(lambda one, step=step: one.step == step).steer)
    assert steers == pytest.approx([0.3, 0.3, 0.3, 0.2, 0.1, 0.0], abs=1e-6)
    assert all(one.brake == pytest.approx(0.6) for one in vehicle.commands.messages[3:])


def test_an_action_that_is_too_late_is_left_out(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect({'action_timeout': 0.5})
    vehicle.observation(0, is_first=True)
    assert vehicle.commands.next().brake > 0.0
    vehicle.action(0, acceleration=0.9)  # to an observation that has been answered
    vehicle.observation(1)
    vehicle.action(1, acceleration=0.3)
    assert vehicle.commands.next().throttle == pytest.approx(0.3)
    vehicle.observation(2)
    vehicle.action(1, acceleration=0.9)
    vehicle.action(2, episode=0, acceleration=0.8)
    vehicle.action(2, acceleration=0.4)
    assert vehicle.commands.next().throttle == pytest.approx(0.4)
    assert [vehicle.applied.next().step for _ in range(3)] == [0, 1, 2]


def test_a_frame_that_comes_before_the_action_repeats_the_last_one(
        connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    vehicle.observation(0, is_first=True)
    vehicle.action(0, steer=0.2, acceleration=0.3)
    vehicle.commands.next()
    vehicle.observation(1)
    vehicle.observation(2)
    repeated = vehicle.commands.next()
    assert (repeated.steer, repeated.throttle) == (pytest.approx(-0.2), pytest.approx(0.3))
    vehicle.action(1, acceleration=0.6)  # one frame late is better than none
    assert vehicle.commands.next().throttle == pytest.approx(0.6)
    told = [vehicle.applied.next() for _ in range(3)]
    assert [(one.step, one.source) for one in told] == [
        (0, AppliedAction.SOURCE_POLICY), (1, AppliedAction.SOURCE_REPEATED),
        (2, AppliedAction.SOURCE_POLICY)]


def test_the_vehicle_is_stopped_when_no_observation_comes_any_more(
        connect: Callable[..., Vehicle], log: Log) -> None:
    vehicle = connect({'sensor_timeout': 0.1})
    vehicle.observation(0, is_first=True)
    vehicle.action(0, acceleration=1.0)
    assert vehicle.commands.next(lambda one: one.brake > 0.0).throttle == 0.0
    assert 'are camera, odometry and environment node alive?' in log.next('no observation for')


@pytest.mark.parametrize('broken', [math.nan, math.inf])
def test_an_action_that_is_not_a_number_brakes(connect: Callable[..., Vehicle], broken: float
                                               ) -> None:
    vehicle = connect()
    vehicle.observation(0, is_first=True)
    vehicle.action(0, steer=broken)
    command = vehicle.commands.next()
    assert (command.throttle, command.steer) == (0.0, 0.0)
    assert command.brake == pytest.approx(0.6)


def test_the_last_observation_and_a_hold_are_answered_with_the_brake(
        connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    vehicle.observation(0, is_first=True)
    vehicle.action(0)
    vehicle.commands.next()
    vehicle.observation(1, is_last=True)
    last = vehicle.commands.next()
    assert (last.throttle, last.brake, last.steer) == (0.0, 1.0, 0.0)
    vehicle.hold(Header(stamp=to_stamp(3 * PERIOD)))
    held = vehicle.commands.next()
    assert (held.throttle, held.brake, held.header.stamp) == (0.0, 1.0, to_stamp(3 * PERIOD))
    # Nobody chose these, so there is nothing to learn from them.
    vehicle.observation(0, episode=2, is_first=True)
    vehicle.action(0, episode=2)
    assert [vehicle.applied.next().episode for _ in range(2)] == [1, 2]


def test_a_live_parameter_changes_what_happens(peer: Peer, connect: Callable[..., Vehicle]
                                               ) -> None:
    vehicle = connect()
    vehicle.observation(0, is_first=True)
    assert peer.set_parameter(NODE, 'action_timeout', 0.05).successful
    assert vehicle.commands.next().brake > 0.0  # it would have waited for a minute


@pytest.mark.parametrize(('name', 'value', 'reason'), [
    ('action_timeout', 0.0, 'range'),
    ('action_timeout', 'soon', 'type'),
    ('command.steering_range', 0.5, 'read'),  # read-only, or read at start
    ('no.such', 1.0, ''),
])
def test_a_parameter_that_cannot_be_changed_is_rejected_with_the_reason(
        peer: Peer, connect: Callable[..., Vehicle], name: str, value: object, reason: str
        ) -> None:
    vehicle = connect()
    result = peer.set_parameter(NODE, name, value)
    assert not result.successful
    assert reason in result.reason and result.reason
    vehicle.observation(0, is_first=True)
    vehicle.action(0, acceleration=0.5)
    assert vehicle.commands.next().throttle == pytest.approx(0.5)


def test_a_node_that_is_told_to_end_leaves_the_vehicle_braking(peer: Peer, tmp_path: Path
                                                               ) -> None:
    file = parameter_file(tmp_path, {'control_node': PATIENT})
    with Session([SPECS['control_node']], file, tmp_path / 'logs') as session:
        vehicle = Vehicle(peer)
        steps = itertools.count()
        await_that(lambda: vehicle.observation(next(steps)) or vehicle.commands.messages,
                   'the first command of the process')
        newest = next(steps)
        vehicle.observation(newest)
        vehicle.applied.next(lambda one: one.step == newest - 1)
        process = session.process_ids()['control_node']
        os.kill(process, signal.SIGINT)
        stamp = to_stamp((newest + 1) * PERIOD)
        last = vehicle.commands.next(lambda one: one.header.stamp == stamp)
        assert (last.throttle, last.brake) == (0.0, 1.0)
        await_that(lambda: session.states()['control_node'] == 'ended', 'the end of the node')
