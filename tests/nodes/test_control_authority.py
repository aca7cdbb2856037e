"""Who has the say over the vehicle: engaging, overriding, stopping, and the managed states."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ackermann_msgs.msg import AckermannDrive, AckermannDriveStamped
from av_td3_msgs.msg import Action, AppliedAction, Observation
from carla_msgs.msg import CarlaEgoVehicleControl
from harness import Log, Peer, Running, await_that
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import SetBool, Trigger

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_stamp

NODE = '/ego_vehicle/control_node'
PERIOD = 50_000_000
# So that a busy machine brakes in no test but those about braking.
PATIENT = {'action_timeout': 60.0, 'sensor_timeout': 0.0, 'human_timeout': 60.0,
           'command.steering_rate': 1000.0, 'command.steering_range': 1.0}
ACKERMANN = {'output': 'ackermann', 'ackermann.max_steering_angle': 0.5,
             'ackermann.max_acceleration': 2.0, 'ackermann.max_deceleration': 5.0,
             'ackermann.look_ahead': 1.0}


class Vehicle:
    """A vehicle, its driver, and the policy, as the control node knows them."""

    def __init__(self, peer: Peer, output: str) -> None:
        self._peer = peer
        carla = output == 'carla'
        self.commands = peer.hear(
            CarlaEgoVehicleControl if carla else AckermannDriveStamped,
            '/carla/ego_vehicle/vehicle_control_cmd' if carla
            else f'{NODE}/output/ackermann_command')
        self.applied = peer.hear(AppliedAction, '/ego_vehicle/applied_action')
        self.states = peer.hear(String, '/ego_vehicle/control_state', qos.LATCHED)
        self.observe = peer.speak(Observation, '/ego_vehicle/observation')
        self.act = peer.speak(Action, '/ego_vehicle/action')
        self._human = peer.speak(CarlaEgoVehicleControl if carla else AckermannDriveStamped,
                                 '/carla/ego_vehicle/vehicle_control_cmd_manual')
        self._override = peer.speak(Bool, '/carla/ego_vehicle/vehicle_control_manual_override')
        self._emergency = peer.speak(Bool, '/ego_vehicle/emergency_stop')
        self._stop = peer.speak(String, '/ego_vehicle/stop_request')
        self.step = 0

    def drive(self, steer: float = 0.5, acceleration: float = 0.4, speed: float = 5.0) -> Any:
        """Go on by one observation that the policy answers; return the command to it."""
        key = {'vehicle': 'ego_vehicle', 'episode': 1, 'step': self.step}
        stamp = to_stamp((self.step + 1) * PERIOD)
        self.act(Action(header=Header(stamp=stamp), steer=steer, acceleration=acceleration, **key))
        self.observe(Observation(header=Header(stamp=stamp), state=[speed / 30.0, 0.0, 0.0],
                                 is_first=self.step == 0, **key))
        self.step += 1
        return self.commands.next(lambda one: one.header.stamp == stamp)

    def engage(self, wanted: bool) -> SetBool.Response:
        """Call the service."""
        return self._peer.ask(SetBool, f'{NODE}/engage', SetBool.Request(data=wanted))

    def clear(self) -> Trigger.Response:
        """Call the service."""
        return self._peer.ask(Trigger, f'{NODE}/clear_emergency_stop', Trigger.Request())

    def change(self, transition: int) -> bool:
        """Change the managed state as `ros2 lifecycle set` does."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self._peer.ask(ChangeState, f'{NODE}/change_state', request).success

    def is_in(self) -> int:
        """Return the managed state."""
        return self._peer.ask(GetState, f'{NODE}/get_state', GetState.Request()).current_state.id

    def becomes(self, state: str) -> None:
        """Wait until the node says that this one drives."""
        self.states.next(lambda one: one.data == state)

    def emergency_stop(self) -> None:
        """Press the button."""
        self._emergency(Bool(data=True))
        self.becomes('emergency stop')

    def release(self) -> None:
        """Release the button."""
        self._emergency(Bool(data=False))

    def ask_to_stop(self, reason: str) -> None:
        """Ask for a controlled stop."""
        self._stop(String(data=reason))

    def override(self, wanted: bool) -> None:
        """Say whether a human drives."""
        self._override(Bool(data=wanted))

    def command(self, message: CarlaEgoVehicleControl | AckermannDriveStamped) -> None:
        """Command as the human driver."""
        self._human(message)


@pytest.fixture
def connect(peer: Peer, make: Callable[..., Running]) -> Callable[..., Vehicle]:
    """Return a function that starts the node with parameters of its own."""
    def connect(**parameters: Any) -> Vehicle:
        given = {**PATIENT, **{key.replace('__', '.'): value for key, value in parameters.items()}}
        node = make('control_node', given)
        vehicle = Vehicle(peer, given.get('output', 'carla'))
        node.connected(peer)
        node.spin()
        return vehicle

    return connect


def test_without_engaging_nobody_drives(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect(engaged_at_start=False)
    command = vehicle.drive()
    assert (command.throttle, command.brake) == (0.0, pytest.approx(0.6))
    assert vehicle.applied.next().source == AppliedAction.SOURCE_STOPPED
    vehicle.becomes('stopped: not engaged yet')
    assert vehicle.engage(True).success
    assert vehicle.drive().throttle == pytest.approx(0.4)
    assert vehicle.applied.next().source == AppliedAction.SOURCE_POLICY
    assert vehicle.engage(False).success
    command = vehicle.drive()
    assert command.brake == pytest.approx(0.6)
    assert command.steer == pytest.approx(-0.5)  # held first, not torn to the middle


def test_an_emergency_stop_is_latched(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    assert vehicle.drive().throttle > 0.0
    vehicle.emergency_stop()
    assert vehicle.drive().brake == 1.0
    assert vehicle.applied.next(lambda one: one.step == 1).source == (
        AppliedAction.SOURCE_EMERGENCY_STOP)
    refused = vehicle.engage(True)
    assert not refused.success and 'clear it first' in refused.message
    vehicle.override(True)  # not even a human gets by it
    assert vehicle.drive().brake == 1.0
    vehicle.override(False)
    held = vehicle.clear()
    assert not held.success and 'release it first' in held.message
    vehicle.release()
    cleared = None
    while cleared is None or 'release' in cleared.message:
        cleared = vehicle.clear()
    assert cleared.success and 'engaged again' in cleared.message
    assert vehicle.drive().brake == pytest.approx(0.6)
    assert vehicle.engage(True).success
    assert vehicle.drive().throttle > 0.0
    assert not vehicle.clear().success


def test_a_request_to_stop_tells_why_and_has_to_be_lifted(connect: Callable[..., Vehicle],
                                                          log: Log) -> None:
    vehicle = connect()
    vehicle.drive()
    vehicle.ask_to_stop('the vehicle leaves the ground')
    vehicle.becomes('stopped: the vehicle leaves the ground')
    assert 'drives now: stopped' in log.next('the vehicle leaves the ground')
    assert vehicle.drive().brake == pytest.approx(0.6)
    assert vehicle.engage(True).success
    assert vehicle.drive().throttle > 0.0


def test_a_human_overrides_and_is_recorded(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    vehicle.drive()
    vehicle.override(True)
    vehicle.becomes('human: override')
    # A human who says nothing is no driver: the vehicle brakes.
    assert vehicle.drive().brake == pytest.approx(0.6)
    assert vehicle.applied.next(lambda one: one.step == 1).source == AppliedAction.SOURCE_WATCHDOG
    vehicle.command(CarlaEgoVehicleControl(throttle=float('nan')))
    vehicle.command(CarlaEgoVehicleControl(throttle=0.25, steer=0.75))
    applied = None
    while applied is None or applied.source != AppliedAction.SOURCE_HUMAN:
        command = vehicle.drive()
        applied = vehicle.applied.next(lambda one: one.step == vehicle.step - 1)
    assert (command.throttle, command.steer) == (0.25, 0.75)
    assert (applied.steer, applied.acceleration) == (-0.75, 0.25)
    vehicle.override(False)
    vehicle.becomes('policy')
    assert vehicle.drive().throttle == pytest.approx(0.4)


def test_deactivating_brakes_and_activating_alone_does_not_drive(
        connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    assert vehicle.is_in() == State.PRIMARY_STATE_ACTIVE
    assert vehicle.drive().throttle > 0.0
    assert vehicle.change(Transition.TRANSITION_DEACTIVATE)
    assert vehicle.is_in() == State.PRIMARY_STATE_INACTIVE
    assert vehicle.drive().brake == pytest.approx(0.6)
    refused = vehicle.engage(True)
    assert not refused.success and 'activate it first' in refused.message
    assert vehicle.change(Transition.TRANSITION_ACTIVATE)
    assert vehicle.drive().brake == pytest.approx(0.6)
    assert vehicle.engage(True).success
    assert vehicle.drive().throttle > 0.0


def test_it_waits_to_be_started_where_it_is_managed(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect(autostart=False)
    assert vehicle.is_in() == State.PRIMARY_STATE_UNCONFIGURED
    assert vehicle.drive().brake == pytest.approx(0.6)
    assert vehicle.change(Transition.TRANSITION_CONFIGURE)
    assert vehicle.change(Transition.TRANSITION_ACTIVATE)
    assert vehicle.drive().throttle > 0.0


def test_an_ackermann_vehicle_gets_angles_and_speeds(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect(**ACKERMANN)
    drive = vehicle.drive(steer=0.5, acceleration=0.4, speed=5.0).drive
    assert drive.steering_angle == pytest.approx(0.25)  # + = left, of 0.5 rad
    assert (drive.speed, drive.acceleration) == (pytest.approx(5.8), pytest.approx(0.8))
    drive = vehicle.drive(steer=-1.0, acceleration=-0.5, speed=5.0).drive
    assert drive.steering_angle == pytest.approx(-0.5)
    # Braking asks for standstill; never for a speed below it.
    assert (drive.speed, drive.acceleration) == (0.0, pytest.approx(2.5))
    assert vehicle.drive(acceleration=1.0, speed=10.9).drive.speed <= 11.0


def test_an_ackermann_human_is_recorded_in_the_policy_s_terms(
        connect: Callable[..., Vehicle]) -> None:
    vehicle = connect(**ACKERMANN)
    vehicle.drive(speed=5.0)
    vehicle.override(True)
    vehicle.becomes('human: override')
    vehicle.command(AckermannDriveStamped(drive=AckermannDrive(
        steering_angle=0.25, speed=11.0, acceleration=1.0)))
    applied = None
    while applied is None or applied.source != AppliedAction.SOURCE_HUMAN:
        vehicle.drive(speed=5.0)
        applied = vehicle.applied.next(lambda one: one.step == vehicle.step - 1)
    assert (applied.steer, applied.acceleration) == (pytest.approx(0.5), pytest.approx(0.5))


def test_the_heartbeat_goes_on_without_observations(connect: Callable[..., Vehicle]) -> None:
    vehicle = connect(**ACKERMANN, heartbeat=50.0, engaged_at_start=False)
    for _ in range(5):
        assert vehicle.commands.next().drive.speed == 0.0
    vehicle.emergency_stop()
    assert vehicle.commands.next(
        lambda one: one.drive.acceleration == pytest.approx(5.0)).drive.speed == 0.0


def test_it_says_what_the_policy_s_driving_waits_for_and_may_give_up(
        connect: Callable[..., Vehicle]) -> None:
    vehicle = connect(action_timeout=0.05, disengage_after=0.3)
    vehicle.drive()
    vehicle.observe(Observation(vehicle='ego_vehicle', episode=1, step=vehicle.step,
                                header=Header(stamp=to_stamp(PERIOD * 9)), state=[0.1, 0.0, 0.0]))
    vehicle.becomes('policy: braking, no action comes')
    vehicle.becomes('stopped: no action comes for 0.3 s')
    assert vehicle.engage(True).success


def test_two_who_command_one_vehicle_are_one_too_many(peer: Peer,
                                                      connect: Callable[..., Vehicle]) -> None:
    vehicle = connect()
    vehicle.drive()
    topic = '/carla/ego_vehicle/vehicle_control_cmd'
    rival = peer.node.create_publisher(CarlaEgoVehicleControl, topic, qos.SENSOR)
    vehicle.becomes(f'stopped: {topic} is commanded by /peer too: end all but one')
    refused = vehicle.engage(True)
    assert not refused.success and 'end all but one' in refused.message
    peer.node.destroy_publisher(rival)
    await_that(lambda: vehicle.engage(True).success, 'the vehicle to itself again')
    assert vehicle.drive().throttle > 0.0


@pytest.mark.parametrize('kind', ['observation', 'action', 'hold'])
def test_a_second_session_in_the_domain_does_not_drive_a_vehicle(
        kind: str, peer: Peer, connect: Callable[..., Vehicle]) -> None:
    vehicle = connect(engaged_at_start=False)
    assert vehicle.engage(True).success
    vehicle.drive()
    topic, message = f'/ego_vehicle/{kind}', {
        'observation': Observation, 'action': Action, 'hold': Header}[kind]
    publishers = [peer.node.create_publisher(message, topic, qos.STEP)] if kind == 'hold' else []
    other = Peer(peer.domain, 'other_session')
    try:
        rival = other.node.create_publisher(message, topic, qos.STEP)
        vehicle.becomes(f'stopped: {topic} comes from /other_session, /peer: end all but one, or '
                        'give the other session a ROS_DOMAIN_ID or a vehicle of its own')
        refused = vehicle.engage(True)
        assert not refused.success and '/other_session' in refused.message
        other.node.destroy_publisher(rival)
    finally:
        other.close()
    await_that(lambda: vehicle.engage(True).success, 'the vehicle to itself again')
    assert vehicle.drive().throttle > 0.0
    for one in publishers:
        peer.node.destroy_publisher(one)
