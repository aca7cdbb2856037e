"""The vehicle stops rather than guesses: real processes that are stopped, killed, or go mad."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from av_td3_msgs.msg import Action, AppliedAction, Observation, Transition
from carla_msgs.msg import CarlaEgoVehicleControl
from diagnostic_msgs.msg import DiagnosticArray
from harness import SPECS, Log, Peer, Running, await_that, parameter_file
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool

from av_td3_ros.cli.session import Session
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_stamp
from benchmarks._faults_control import DEATHS, INJECTIONS, Rig, Seen, control_death, inject

NODE = '/ego_vehicle/control_node'
# The machine may be busy with other tests; how soon it is, benchmarks.faults measures.
SOON = 25.0  # control periods, which are 0.5 s
MANY = ('policy stopped (SIGSTOP)', 'policy killed (SIGKILL)', 'policy sends NaN',
        'policy sends 5000 other actions a second, none that fits',
        'policy sends 5000 other actions a second beside those that fit',
        'odometry NaN', 'odometry jumps 3 m', 'emergency stop', 'human takes over')


@pytest.fixture(scope='module')
def rig(ros: None) -> Iterator[Rig]:
    """Start the control node, a vehicle and a policy as processes, once for all faults."""
    with Rig() as rig:
        yield rig


@pytest.mark.parametrize('name', MANY)
def test_the_vehicle_is_braked(rig: Rig, name: str) -> None:
    seen = Seen()
    inject(rig, INJECTIONS[name], seen)
    assert (seen.wrong, seen.relapsed) == (0, 0)
    if seen.periods:  # else it must not brake at all
        assert seen.missed == 0 and max(seen.periods) < SOON
    else:
        assert 'beside those that fit' in name


def test_a_vehicle_stops_by_itself_when_the_control_node_is_killed(ros: None) -> None:
    name = 'control_node killed (SIGKILL)'
    outcome = control_death(DEATHS[name], 1, name)
    (slower,) = outcome.claims
    assert slower['value'] < 2.0
    assert re.search(r'stands after [\d.]+ s', outcome.happened)


class Policy:
    """Observations, and the actions to them."""

    def __init__(self, peer: Peer) -> None:
        self.observe = peer.speak(Observation, '/ego_vehicle/observation')
        self.act = peer.speak(Action, '/ego_vehicle/action')
        self.step = 0

    def drive(self, answered: bool = True) -> int:
        """Send one observation, and the action to it; return its step."""
        step, self.step = self.step, self.step + 1
        header = Header(stamp=to_stamp((step + 1) * 50_000_000))
        self.observe(Observation(
            header=header, vehicle='ego_vehicle', episode=1, step=step, height=2, width=2, count=1,
            frames=[0, 1, 2, 3], state=[0.1, 0.0, 0.0], is_first=step == 0))
        if answered:
            self.act(Action(header=header, vehicle='ego_vehicle', episode=1, step=step, steer=0.1,
                            acceleration=0.4, policy_version=3))
        return step


def test_a_fault_is_told_once_in_the_log_and_in_the_diagnostics(
        peer: Peer, make: Callable[..., Running], log: Log) -> None:
    node = make('control_node', {'action_timeout': 0.1, 'sensor_timeout': 60.0,
                                 'heartbeat': 50.0})
    commands = peer.hear(CarlaEgoVehicleControl, '/carla/ego_vehicle/vehicle_control_cmd')
    diagnostics = peer.hear(DiagnosticArray, '/diagnostics')
    policy = Policy(peer)
    node.connected(peer)
    node.spin()
    policy.drive()
    commands.next(lambda one: one.throttle > 0.0)
    policy.drive(answered=False)
    assert 'no action for step 1 of episode 1' in log.next('is the policy node alive?')
    told = diagnostics.next(lambda one: any(
        'braking, no action comes' in status.message for status in one.status))
    values = {value.key: value.value for status in told.status for value in status.values}
    assert values['times: no action comes'] == '1'
    assert 'no action for step 1' in values['newest fault']
    for _ in range(100):  # it brakes on, two seconds long
        assert commands.next(lambda one: one.throttle == 0.0).brake > 0.0
    policy.drive()
    commands.next(lambda one: one.throttle > 0.0)
    said = log.next('drives now: policy')
    assert 'braking' in said  # the next line after the fault
    assert 'braking' not in log.next('drives now: policy')


def test_engaging_after_it_gave_up_is_not_undone_at_once(peer: Peer, make: Callable[..., Running]
                                                         ) -> None:
    node = make('control_node', {'action_timeout': 0.05, 'disengage_after': 2.0,
                                 'sensor_timeout': 60.0})
    commands = peer.hear(CarlaEgoVehicleControl, '/carla/ego_vehicle/vehicle_control_cmd')
    policy = Policy(peer)
    node.connected(peer)
    node.spin()
    policy.drive(answered=False)
    commands.next(lambda one: one.brake > 0.0)
    await_that(lambda: not node.node._authority.is_engaged, 'the end of its patience')
    assert peer.ask(SetBool, f'{NODE}/engage', SetBool.Request(data=True)).success
    policy.drive(answered=False)
    commands.next(lambda one: one.brake > 0.0)  # by the watchdog again: it is still engaged
    policy.drive()
    assert commands.next(lambda one: one.throttle > 0.0).brake == 0.0


def test_a_human_who_takes_over_is_an_intervention_end_to_end(peer: Peer, tmp_path: Path) -> None:
    file = parameter_file(tmp_path, {
        'control_node': {'action_timeout': 60.0, 'sensor_timeout': 0.0, 'human_timeout': 60.0,
                         'command.steering_range': 1.0},
        'recorder_node': {}})
    specs = [SPECS['control_node'], SPECS['recorder_node']]
    with Session(specs, file, tmp_path / 'logs'):
        commands = peer.hear(CarlaEgoVehicleControl, '/carla/ego_vehicle/vehicle_control_cmd')
        transitions = peer.hear(Transition, '/learner/transition', qos.TRANSITION)
        diagnostics = peer.hear(DiagnosticArray, '/diagnostics')
        policy = Policy(peer)
        override = peer.speak(Bool, '/carla/ego_vehicle/vehicle_control_manual_override')
        human = peer.speak(CarlaEgoVehicleControl,
                           '/carla/ego_vehicle/vehicle_control_cmd_manual')
        await_that(lambda: peer.node.count_subscribers('/ego_vehicle/observation') == 2
                   and peer.node.count_publishers('/learner/transition')
                   and peer.node.count_publishers('/ego_vehicle/applied_action'), 'both nodes')
        def drive() -> CarlaEgoVehicleControl:
            stamp = to_stamp((policy.drive() + 1) * 50_000_000)
            return commands.next(lambda one: one.header.stamp == stamp)

        def until(wanted: Callable[[CarlaEgoVehicleControl], bool]) -> None:
            while not wanted(drive()):
                pass

        def recorded(source: int) -> list[Transition]:
            """Drive on until the recorder, which may hear later than others, has such a step."""
            return await_that(lambda: drive() and [
                one for one in transitions.messages if one.source == source],
                f'a recorded step of source {source}')

        await_that(lambda: policy.drive() and commands.messages, 'the first command')
        for _ in range(5):
            assert drive().throttle > 0.0
        recorded(AppliedAction.SOURCE_POLICY)  # or nobody would be taken over from
        override(Bool(data=True))
        until(lambda one: one.brake > 0.0)  # until the human's command is known
        human(CarlaEgoVehicleControl(throttle=0.25, steer=0.75))
        until(lambda one: one.steer == 0.75)
        taken = recorded(AppliedAction.SOURCE_HUMAN)[0]
        assert (taken.steer, taken.acceleration) == (-0.75, 0.25)  # what was applied
        diagnostics.next(lambda one: any(
            value.key == 'interventions' and value.value == '1'
            for status in one.status for value in status.values))
