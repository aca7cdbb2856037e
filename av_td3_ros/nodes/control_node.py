"""Has the last word on what reaches the vehicle: one command for each observation."""
from __future__ import annotations

import math
import time

from ackermann_msgs.msg import AckermannDriveStamped
from av_td3_msgs.msg import Action, AppliedAction, Observation
from carla_msgs.msg import CarlaEgoVehicleControl
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import SetBool, Trigger

from av_td3_ros.driving.command.arbiter import Source
from av_td3_ros.driving.command.authority import Authority, Driver
from av_td3_ros.driving.command.control_settings import ControlSettings
from av_td3_ros.driving.command.gate import Choice, Command, CommandGate, Seen
from av_td3_ros.driving.command.watchdog import Now
from av_td3_ros.driving.perception.state import SPEED_SCALE
from av_td3_ros.ros import qos
from av_td3_ros.ros.commands import CommandMapping
from av_td3_ros.ros.conversions import from_odometry, to_nanoseconds
from av_td3_ros.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Meter, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.lifecycle import start
from av_td3_ros.ros.parameters import accept_changes, declare_settings
from av_td3_ros.ros.runtime import Throttle, every, run
from av_td3_ros.ros.tracing import Trace

SOURCES = {Source.POLICY: AppliedAction.SOURCE_POLICY,
           Source.HUMAN: AppliedAction.SOURCE_HUMAN,
           Source.WATCHDOG: AppliedAction.SOURCE_WATCHDOG,
           Source.EMERGENCY_STOP: AppliedAction.SOURCE_EMERGENCY_STOP,
           Source.REPEATED: AppliedAction.SOURCE_REPEATED,
           Source.STOPPED: AppliedAction.SOURCE_STOPPED}
WATCH = 0.02   # s of wall time between two looks of the watchdog; the heartbeat's, where faster
TORN = 2_000_000  # ns that may pass while two clocks are read, or they are read again


class ControlNode(LifecycleNode):
    """
    Passes everything that happens to the gate, and what comes out of it to the vehicle.

    Active and engaged, it lets the policy drive. Otherwise it stops the vehicle and keeps it
    there, or passes on what a human commands.
    """

    def __init__(self) -> None:
        super().__init__('control_node')
        self._inputs = Inputs(self)
        s = self.settings = declare_settings(self, ControlSettings)
        accept_changes(self, self.settings, self._apply)
        self.refusal: Exception | None = None
        self._trace = Trace(s.trace)
        self._authority = Authority(s.engaged_at_start)
        self._gate = CommandGate(s, self._authority)
        self._mapping = CommandMapping(s.output, s.command, s.ackermann)
        self._last = Header()
        self._faults: dict[str, Throttle] = {}
        self._sent, self._observed = Meter(), Meter()
        self._told = self._alarm = ''
        self._lacked_human = False
        self._actions = self.create_publisher(AppliedAction, '~/output/applied_action', qos.STEP)
        self._states = self.create_publisher(String, '~/output/state', qos.LATCHED)
        if s.output == 'carla':
            kind = CarlaEgoVehicleControl
            self._commands = self.create_publisher(kind, '~/output/vehicle_command', qos.SENSOR)
        else:
            kind = AckermannDriveStamped
            self._commands = self.create_publisher(kind, '~/output/ackermann_command', qos.SENSOR)
        self._inputs.listen(Observation, '~/input/observation', self._on_observation,
                                 qos.STEP)
        self._inputs.listen(Action, '~/input/action', self._on_action, qos.STEP)
        self._inputs.listen(Header, '~/input/hold', self._on_hold, qos.STEP)
        if s.odometry.timeout:
            self._inputs.listen(Odometry, '~/input/odometry', self._on_odometry, qos.VEHICLE)
        self._inputs.listen(kind, '~/input/human_command', self._on_human_command, qos.SENSOR)
        self._inputs.listen(Bool, '~/input/override', self._on_override, qos.SENSOR)
        for profile in qos.ANY:  # each publisher is heard by some of them, and twice is no harm
            self._inputs.listen(Bool, '~/input/emergency_stop', self._on_emergency_stop,
                                     profile, event_callbacks=qos.QUIET)
        self._inputs.listen(String, '~/input/stop_request', self._on_stop_request, qos.SENSOR)
        self._driven_by = [self.resolve_topic_name(f'~/input/{role}')
                           for role in ('observation', 'action', 'hold')]
        self._inputs.serve(SetBool, '~/engage', self._on_engage)
        self._inputs.serve(Trigger, '~/clear_emergency_stop', self._on_clear)
        every(self, min(WATCH, 1.0 / s.heartbeat) if s.heartbeat else WATCH, self._tick)
        diagnostics = Diagnostics(self)
        diagnostics.add('who drives', self._tell_driver)
        diagnostics.add('commands', self._tell_commands)
        diagnostics.add('inputs', self._inputs.tell)
        every(self, 1.0, self._watch_for_rivals)
        if s.autostart:
            start(self)  # which tells who drives
        else:
            self._tell()

    def _apply(self, settings: ControlSettings) -> None:
        self.settings = self._gate.settings = settings
        self._mapping = CommandMapping(settings.output, settings.command, settings.ackermann)

    def _now(self) -> Now:
        """Return the time by both clocks, read at one instant."""
        while True:
            before = time.monotonic_ns()
            ros, after = self.get_clock().now().nanoseconds, time.monotonic_ns()
            if after - before < TORN:  # or this process was put aside in between
                return Now(after, ros)

    # -- who has the say

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the policy drive, if it is engaged."""
        self._authority.is_active = True
        self._tell()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Brake, and stay so until somebody activates and engages again."""
        self._authority.disengage('the node was deactivated')
        self._authority.is_active = False
        self._heed()
        return super().on_deactivate(state)

    def _on_engage(self, request: SetBool.Request, response: SetBool.Response
                   ) -> SetBool.Response:
        if request.data:
            refused = self._rival() or self._gate.engage(self._now())
            response.success = not refused
            response.message = refused or self._engaged()
            self._tell()
        else:
            response.success, response.message = True, 'disengaged'
            self._authority.disengage('disengaged')
            self._heed()
        return response

    def _engaged(self) -> str:
        """Say what being engaged comes to now."""
        words = 'engaged'
        if self._authority.driver == Driver.HUMAN:
            words += ', once the human overrides no longer'
        if self._observed.age is None:
            limit = self.settings.idle_timeout
            words += ('; there is nothing to drive, as no observation comes: is there a route?'
                      + (f' Without one this ends in {limit:g} s' if limit else ''))
        return words

    def _on_emergency_stop(self, message: Bool) -> None:
        self._authority.is_pressed = message.data
        if message.data and self._authority.stop_at_once('emergency stop'):
            self._heed()

    def _on_clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        refused = self._authority.clear_emergency_stop()
        response.success = not refused
        response.message = refused or 'stopped until engaged again'
        self._tell()
        return response

    def _on_stop_request(self, message: String) -> None:
        if self._authority.disengage(message.data or 'a stop was asked for'):
            self._heed()

    def _on_override(self, message: Bool) -> None:
        if message.data != self._authority.is_overridden:
            self._authority.is_overridden = message.data
            self._heed()

    def _heed(self) -> None:
        """Act on a change of who drives before the next frame."""
        self._gate.heed(self._now())
        self._pass_on()

    def _rival(self) -> str:
        """Return who else has the vehicle's say, commands it or makes what it is driven by."""
        commanded = self._others_on(self._commands.topic_name, self.get_name())
        if commanded:
            return f'{self._commands.topic_name} is commanded by {commanded} too: end all but one'
        if self.settings.engaged_at_start:  # a simulated vehicle's nodes may be started again
            return ''
        for topic in self._driven_by:
            others = self._others_on(topic)
            if ', ' in others:
                return (f'{topic} comes from {others}: end all but one, or give the other session '
                        'a ROS_DOMAIN_ID or a vehicle of its own')
        return ''

    def _others_on(self, topic: str, without: str = '') -> str:
        """Return who publishes a topic, '' for nobody; one of this node is not told of."""
        if self.count_publishers(topic) < 1 + bool(without):
            return ''
        names = [(one.node_namespace, one.node_name)
                 for one in self.get_publishers_info_by_topic(topic)]
        own = (self.get_namespace(), without)
        if own in names:
            names.remove(own)
        return ', '.join(sorted(f'{space.rstrip("/")}/{name}' for space, name in names))

    def _watch_for_rivals(self) -> None:
        rival = self._rival()
        if rival and self._authority.disengage(rival):
            self._heed()

    # -- what comes in

    def _on_observation(self, message: Observation) -> None:
        self._observed.note()
        self._last = message.header
        speed = message.state[0] * SPEED_SCALE if len(message.state) else math.nan
        self._gate.observe(Seen(
            (message.episode, message.step), to_nanoseconds(message.header.stamp), speed,
            message.is_first, message.is_last, message), self._now())
        self._pass_on()

    def _on_action(self, message: Action) -> None:
        self._trace.mark('action arrived', to_nanoseconds(message.header.stamp))
        self._gate.answer(Choice((message.episode, message.step), message.steer,
                                 message.acceleration, message), self._now())
        self._pass_on()

    def _on_hold(self, header: Header) -> None:
        self._last = header
        # As an observation has it; of no episode and no step.
        seen = Seen((0, 0), to_nanoseconds(header.stamp), math.nan,
                    origin=Observation(header=header))
        self._gate.hold(seen, self._now())
        self._pass_on()

    def _on_odometry(self, message: Odometry) -> None:
        try:
            self._gate.hear_odometry(from_odometry(message), self._now())
        except ValueError as error:
            self._gate.refuse_odometry(str(error))
            self._inputs.refuse('odometry', error)

    def _on_human_command(self, message: CarlaEgoVehicleControl | AckermannDriveStamped) -> None:
        try:
            action = self._mapping.from_message(message, self._gate.speed)
        except ValueError as error:
            self._inputs.refuse('human_command', error)
            return
        self._gate.hear_human(action, self._now())
        self._pass_on()

    def _tick(self) -> None:
        self._gate.tick(self._now())
        self._pass_on()

    # -- what goes out

    def _pass_on(self) -> None:
        """Send what the gate lets through, and say who drives when that has changed."""
        for one in self._gate.take():
            self._send(one)
        self._tell()

    def _send(self, one: Command) -> None:
        if one.stamp_of is None:
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._last.frame_id)
        else:
            header = one.stamp_of.origin.header
        if one.answers is not None:
            self._trace.mark('commanded', to_nanoseconds(header.stamp))
        self._commands.publish(self._mapping.to_message(header, one.action, self._gate.speed))
        self._sent.note()
        if one.answers is None:
            return
        seen, chosen = one.answers.origin, one.choice.origin if one.choice is not None else None
        self._actions.publish(AppliedAction(
            header=header, vehicle=seen.vehicle, episode=seen.episode, step=seen.step,
            steer=float(one.action[0]), acceleration=float(one.action[1]),
            source=SOURCES[one.source], exploring=chosen is not None and chosen.exploring,
            policy_version=chosen.policy_version if chosen is not None else 0))

    def _tell(self) -> None:
        driver, reason = self._authority.driver, self._authority.reason
        fault = self._gate.fault if driver == Driver.POLICY else None
        if fault is not None:
            reason = f'braking, {fault.reason}'
        for one in self._gate.take_alarms():
            self._alarm = one.details
            throttle = self._faults.setdefault(one.reason, Throttle())
            if throttle.ready():  # what comes and goes all the time fills no log
                self.get_logger().error(f'{one.details} ({throttle.count} times so far)')
        lacks_human = self._gate.lacks_human
        if lacks_human and not self._lacked_human:
            self.get_logger().warning(
                'a human overrides, but no command of theirs has come for '
                f'{self.settings.human_timeout:g} s: braking')
        self._lacked_human = lacks_human
        state = f'{driver.value}: {reason}' if reason not in ('', driver.value) else driver.value
        if state != self._told:
            self._told = state
            self._states.publish(String(data=state))
            if driver in (Driver.POLICY, Driver.HUMAN) and fault is None:
                self.get_logger().info(f'drives now: {state}')
            else:
                self.get_logger().warning(f'drives now: {state}')

    def _tell_driver(self) -> Reading:
        driver = self._authority.driver
        doubt = self._gate.fault if driver == Driver.POLICY else None
        level = {Driver.EMERGENCY: ERROR, Driver.NOBODY: WARN}.get(
            driver, WARN if doubt is not None or self._gate.lacks_human else OK)
        remedy = {Driver.EMERGENCY: '; call ~/clear_emergency_stop, then ~/engage',
                  Driver.NOBODY: '; call ~/engage'}.get(driver, '')
        return Reading(level, self._told + remedy, {
            'engaged': self._authority.is_engaged, 'active': self._authority.is_active,
            'override': self._authority.is_overridden,
            'human commands refused': self._inputs.refused('human_command'),
            'odometry refused': self._gate.odometry_refused, 'newest fault': self._alarm,
            **{f'times: {reason}': one.count for reason, one in self._faults.items()}})

    def _tell_commands(self) -> Reading:
        values = {'rate [1/s]': self._sent.rate, 'observations a second': self._observed.rate,
                  **dict(zip(('steer', 'acceleration'), self._gate.applied.tolist(),
                             strict=True))}
        if self._sent.age is None:
            if self._sent.count and not self.settings.sensor_timeout:
                return Reading(OK, 'no command is asked for: the world waits', values)
            return Reading(WARN, 'no command sent: no observation comes', values)
        return Reading(OK, f'{self._sent.rate:.1f} commands a second', values)

    def close(self) -> None:
        """Leave the vehicle braking."""
        if self.context.ok():
            self._gate.leave(self._now())
            self._pass_on()
        self._trace.close()


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(ControlNode, args)


if __name__ == '__main__':
    main()
