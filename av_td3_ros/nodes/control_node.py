"""Has the last word on what reaches the vehicle: one command for each observation."""
from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
from ackermann_msgs.msg import AckermannDriveStamped
from av_td3_msgs.msg import Action, AppliedAction, Observation
from carla_msgs.msg import CarlaEgoVehicleControl
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import SetBool, Trigger

from av_td3_ros.driving.command.ackermann import AckermannSettings
from av_td3_ros.driving.command.arbiter import Arbiter, Source
from av_td3_ros.driving.command.authority import Authority, Driver
from av_td3_ros.driving.command.control import CommandSettings
from av_td3_ros.driving.perception.state import SPEED_SCALE
from av_td3_ros.ros import qos
from av_td3_ros.ros.commands import OUTPUTS, CommandMapping
from av_td3_ros.ros.conversions import to_nanoseconds
from av_td3_ros.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Meter, Reading
from av_td3_ros.ros.lifecycle import start
from av_td3_ros.ros.parameters import accept_changes, declare_settings
from av_td3_ros.ros.runtime import Throttle, every, run, tell_refusal
from av_td3_ros.ros.tracing import Trace
from av_td3_ros.settings import group, setting

SOURCES = {Source.POLICY: AppliedAction.SOURCE_POLICY,
           Source.HUMAN: AppliedAction.SOURCE_HUMAN,
           Source.WATCHDOG: AppliedAction.SOURCE_WATCHDOG,
           Source.EMERGENCY_STOP: AppliedAction.SOURCE_EMERGENCY_STOP,
           Source.REPEATED: AppliedAction.SOURCE_REPEATED,
           Source.STOPPED: AppliedAction.SOURCE_STOPPED}
STANDING = np.array((0.0, -1.0), np.float32)


@dataclasses.dataclass(frozen=True)
class ControlSettings:
    """What the control node is told."""

    output: str = setting('carla', "what the vehicle takes: CARLA's own command, or an Ackermann "
                          'drive command', choices=OUTPUTS)
    autostart: bool = setting(True, 'configure and activate at the start; false: wait for '
                              '`ros2 lifecycle set`')
    engaged_at_start: bool = setting(True, 'let the policy drive as soon as the node is active; '
                                     'false on a real vehicle: wait for the service ~/engage')
    heartbeat: float = setting(0.0, 'commands a second that are sent whatever comes, so that the '
                               'vehicle stops by itself when this node is gone; 0: one for each '
                               'observation only, as a lockstep world wants it', minimum=0.0,
                               maximum=200.0)
    action_timeout: float = setting(
        0.5, 'wall time in s after an observation at which the brake takes over from an action '
        'that has not come', minimum=0.01, maximum=60.0, live=True)
    sensor_timeout: float = setting(
        0.5, 'wall time in s without an observation after which the vehicle is stopped; 0: never, '
        'for a lockstep world, which may stand still', minimum=0.0, maximum=60.0, live=True)
    disengage_after: float = setting(
        0.0, 'wall time in s without action or observation after which somebody has to engage '
        'again; 0: it drives on when they come back', minimum=0.0, maximum=600.0, live=True)
    human_timeout: float = setting(
        0.5, "wall time in s without a human driver's command after which an override brakes",
        minimum=0.05, maximum=60.0, live=True)
    command: CommandSettings = group(CommandSettings, 'limits on what reaches the vehicle')
    ackermann: AckermannSettings = group(AckermannSettings, 'the vehicle behind output ackermann')
    trace: str = setting('', 'CSV file to write at the end: when each frame reached each stage; '
                         'empty: none')


class ControlNode(LifecycleNode):
    """
    Waits for the action to an observation, limits it, and sends it; brakes without one.

    Active and engaged, it lets the policy drive. Otherwise it stops the vehicle and keeps it
    there, or passes on what a human commands.
    """

    def __init__(self) -> None:
        super().__init__('control_node')
        s = self.settings = declare_settings(self, ControlSettings)
        accept_changes(self, self.settings, self._apply)
        self.refusal: Exception | None = None
        self._trace = Trace(s.trace)
        self._authority = Authority(s.engaged_at_start)
        self._arbiter = Arbiter(s.command, self._authority)
        self._mapping = CommandMapping(s.output, s.command, s.ackermann)
        self._open: Observation | None = None
        self._early: Action | None = None
        self._unanswered_since = self._heard_at = 0.0
        self._repeated: tuple[int, int] | None = None
        self._last: Header | None = None
        self._is_stopped = True
        self._speed = math.nan
        self._human_at = self._missing_since = -math.inf
        self._stale, self._refused = Throttle(), Throttle()
        self._sent, self._observed = Meter(), Meter()
        self._actions = self.create_publisher(AppliedAction, '~/output/applied_action', qos.STEP)
        self._states = self.create_publisher(String, '~/output/state', qos.LATCHED)
        if s.output == 'carla':
            kind = CarlaEgoVehicleControl
            self._commands = self.create_publisher(kind, '~/output/vehicle_command', qos.SENSOR)
        else:
            kind = AckermannDriveStamped
            self._commands = self.create_publisher(kind, '~/output/ackermann_command', qos.SENSOR)
        self.create_subscription(Observation, '~/input/observation', self._on_observation,
                                 qos.STEP)
        self.create_subscription(Action, '~/input/action', self._on_action, qos.STEP)
        self.create_subscription(Header, '~/input/hold', self._on_hold, qos.STEP)
        self.create_subscription(kind, '~/input/human_command', self._on_human_command, qos.SENSOR)
        self.create_subscription(Bool, '~/input/override', self._on_override, qos.SENSOR)
        self.create_subscription(Bool, '~/input/emergency_stop', self._on_emergency_stop,
                                 qos.SENSOR)
        self.create_subscription(String, '~/input/stop_request', self._on_stop_request, qos.SENSOR)
        self.create_service(SetBool, '~/engage', self._on_engage)
        self.create_service(Trigger, '~/clear_emergency_stop', self._on_clear)
        every(self, 0.02, self._watch)
        if s.heartbeat:
            every(self, 1.0 / s.heartbeat, self._beat)
        diagnostics = Diagnostics(self)
        diagnostics.add('who drives', self._tell_driver)
        diagnostics.add('commands', self._tell_commands)
        every(self, 1.0, self._watch_for_rivals)
        self._told = self._missing = ''
        if s.autostart:
            start(self)  # which tells who drives
        else:
            self._tell()

    def _apply(self, settings: ControlSettings) -> None:
        self.settings = settings
        self._arbiter.settings = settings.command
        self._mapping = CommandMapping(settings.output, settings.command, settings.ackermann)

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
        self._tell(at_once=True)
        return super().on_deactivate(state)

    def _on_engage(self, request: SetBool.Request, response: SetBool.Response
                   ) -> SetBool.Response:
        if request.data:
            refused = self._rival() or self._authority.engage()
            response.success = not refused
            response.message = refused or ('engaged' if self._observed.age is not None else
                                           'engaged, but there is nothing to drive yet: no '
                                           'observation comes; is there a route?')
        else:
            response.success, response.message = True, 'disengaged'
            self._authority.disengage('disengaged')
        self._tell(at_once=not request.data)
        return response

    def _on_emergency_stop(self, message: Bool) -> None:
        self._authority.is_pressed = message.data
        if message.data and self._authority.stop_at_once('emergency stop'):
            self._tell(at_once=True)

    def _on_clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        refused = self._authority.clear_emergency_stop()
        response.success = not refused
        response.message = refused or 'stopped until engaged again'
        self._tell()
        return response

    def _on_stop_request(self, message: String) -> None:
        if self._authority.disengage(message.data or 'a stop was asked for'):
            self._tell(at_once=True)

    def _on_override(self, message: Bool) -> None:
        if message.data != self._authority.is_overridden:
            self._authority.is_overridden = message.data
            self._tell(at_once=message.data)

    def _on_human_command(self, message: CarlaEgoVehicleControl | AckermannDriveStamped) -> None:
        try:
            self._arbiter.hear_human(self._mapping.from_message(message, self._speed))
        except ValueError as error:
            tell_refusal(self, self._refused, 'human command', error)
            return
        self._human_at = time.monotonic()
        if self._authority.driver == Driver.HUMAN:
            self._beat()

    def _tell(self, at_once: bool = False) -> None:
        """Say who drives when that has changed; `at_once` acts on it before the next frame."""
        driver, reason = self._authority.driver, self._authority.reason
        if driver == Driver.POLICY and self._missing:
            reason = f'braking, {self._missing}'
        state = f'{driver.value}: {reason}' if reason not in ('', driver.value) else driver.value
        if state != self._told:
            self._told = state
            self._states.publish(String(data=state))
            if driver in (Driver.POLICY, Driver.HUMAN) and not self._missing:
                self.get_logger().info(f'drives now: {state}')
            else:
                self.get_logger().warning(f'drives now: {state}')
        if at_once:
            if self._open is not None and driver != Driver.POLICY:
                self._act(self._open)
            self._beat()

    def _tell_driver(self) -> Reading:
        driver = self._authority.driver
        level = {Driver.EMERGENCY: ERROR, Driver.NOBODY: WARN}.get(
            driver, WARN if self._missing else OK)
        remedy = {Driver.EMERGENCY: '; call ~/clear_emergency_stop, then ~/engage',
                  Driver.NOBODY: '; call ~/engage'}.get(driver, '')
        return Reading(level, self._told + remedy, {
            'engaged': self._authority.is_engaged, 'active': self._authority.is_active,
            'override': self._authority.is_overridden,
            'human commands refused': self._refused.count})

    def _tell_commands(self) -> Reading:
        values = {'rate [1/s]': self._sent.rate, 'observations a second': self._observed.rate,
                  'actions that did not come': self._stale.count,
                  **dict(zip(('steer', 'acceleration'), self._arbiter.applied.tolist(),
                             strict=True))}
        if self._sent.age is None:
            return Reading(WARN, 'no command sent: no observation comes', values)
        return Reading(OK, f'{self._sent.rate:.1f} commands a second', values)

    # -- one command for each observation

    def _on_observation(self, message: Observation) -> None:
        self._heard_at = time.monotonic()
        self._observed.note()
        self._speed = message.state[0] * SPEED_SCALE if len(message.state) else math.nan
        if self._open is not None:
            # In real time a frame may come before the action to the one before it.
            self._repeat(self._open)
        else:
            self._unanswered_since = self._heard_at
        if message.is_first and not self.settings.heartbeat:  # the vehicle was set down anew
            self._arbiter.set_down()
        if message.is_last:
            self._stop(message.header)
            return
        if self._authority.driver != Driver.POLICY:
            self._early = None
            self._act(message)
            return
        self._open = message
        if self._early is not None:
            early, self._early = self._early, None
            self._on_action(early)

    def _on_action(self, message: Action) -> None:
        self._trace.mark('action arrived', to_nanoseconds(message.header.stamp))
        answered, key = self._open, (message.episode, message.step)
        if answered is None or key not in ((answered.episode, answered.step), self._repeated):
            # Ahead of its observation it waits for it; behind it, it is too late.
            self._early = message
            return
        self._lacks('')
        action = self._arbiter.follow((message.steer, message.acceleration), self._speed,
                                      self._time(answered.header))
        self._send(answered, action, Source.POLICY, message)

    def _on_hold(self, header: Header) -> None:
        self._heard_at = time.monotonic()
        self._open = None
        self._stop(header)

    def _watch(self) -> None:
        """Brake when an action, or every observation, has not come for too long."""
        now = time.monotonic()
        if now - self._human_at > self.settings.human_timeout:
            self._arbiter.hear_human(None)
        limit = self.settings.sensor_timeout
        if limit and self._last is not None and not self._is_stopped \
                and now - self._heard_at > limit:
            self.get_logger().error(f'no observation for {limit:g} s: stopping; are camera, '
                                    'odometry and environment node alive?')
            self._open = None
            self._stop(self._last)
            self._lacks('no observation comes')
            return
        self._give_up(now)
        if self._open is None or now - self._unanswered_since <= self.settings.action_timeout:
            return
        if self._stale.ready():
            self.get_logger().warning(
                f'no action for step {self._open.step} of episode {self._open.episode} within '
                f'{self.settings.action_timeout:g} s: braking ({self._stale.count} times so far); '
                'is the policy node alive?')
        self._lacks('no action comes')
        self._act(self._open)

    def _lacks(self, missing: str) -> None:
        """Note what the policy's driving waits for, '' when it goes on."""
        if missing and not self._missing:
            self._missing_since = time.monotonic()
        if missing != self._missing:
            self._missing = missing
            self._tell()

    def _give_up(self, now: float) -> None:
        limit = self.settings.disengage_after
        if limit and self._missing and now - self._missing_since > limit \
                and self._authority.disengage(f'{self._missing} for {limit:g} s'):
            self._tell(at_once=True)

    def _rival(self) -> str:
        """Return what is wrong when another node commands the vehicle too, '' otherwise."""
        topic = self._commands.topic_name
        if self.count_publishers(topic) < 2:
            return ''
        own = (self.get_namespace(), self.get_name())
        names = [(one.node_namespace, one.node_name)
                 for one in self.get_publishers_info_by_topic(topic)]
        if own in names:
            names.remove(own)
        others = ', '.join(sorted({f'{space.rstrip("/")}/{name}' for space, name in names}))
        return f'{topic} is commanded by {others} too: end all but one'

    def _watch_for_rivals(self) -> None:
        rival = self._rival()
        if rival and self._authority.disengage(rival):
            self._tell(at_once=True)

    def _act(self, observation: Observation) -> None:
        """Do without the policy: pass on what a human commands, or stop."""
        action, source = self._arbiter.act(self._time(observation.header))
        if (source == Source.WATCHDOG and self._authority.driver == Driver.HUMAN
                and self._stale.ready()):
            self.get_logger().warning(
                'a human overrides, but no command of theirs has come for '
                f'{self.settings.human_timeout:g} s: braking')
        self._send(observation, action, source, None)

    def _repeat(self, observation: Observation) -> None:
        self._repeated = observation.episode, observation.step
        self._send(observation, self._arbiter.applied, Source.REPEATED, None)

    def _send(self, observation: Observation, action: np.ndarray, source: Source,
              chosen: Action | None) -> None:
        self._open = None
        self._trace.mark('commanded', to_nanoseconds(observation.header.stamp))
        self._command(observation.header, action)
        self._actions.publish(AppliedAction(
            header=observation.header, vehicle=observation.vehicle, episode=observation.episode,
            step=observation.step, steer=float(action[0]), acceleration=float(action[1]),
            source=SOURCES[source], exploring=chosen is not None and chosen.exploring,
            policy_version=chosen.policy_version if chosen is not None else 0))

    def _stop(self, header: Header) -> None:
        """Stand: outside an episode the policy does not drive."""
        if self.settings.heartbeat:  # as a passenger would like it; a simulator is not one
            self._command(header, self._arbiter.act(self._time(header))[0])
        else:
            self._command(header, STANDING)
        self._is_stopped = True

    def _command(self, header: Header, action: np.ndarray) -> None:
        self._publish(header, action)
        self._last, self._is_stopped = header, False

    def _publish(self, header: Header, action: np.ndarray) -> None:
        self._commands.publish(self._mapping.to_message(header, action, self._speed))
        self._sent.note()

    def _beat(self) -> None:
        """Send a command although no observation asks for one, where the vehicle wants that."""
        if not self.settings.heartbeat:
            return
        header = Header(stamp=self.get_clock().now().to_msg(),
                        frame_id=self._last.frame_id if self._last is not None else '')
        if self._authority.driver != Driver.POLICY or self._is_stopped:
            self._arbiter.act(self._time(header))
        self._publish(header, self._arbiter.applied)

    def _time(self, header: Header) -> int:
        """Return the ns that limits count in: simulated where observations set the pace."""
        return (time.monotonic_ns() if self.settings.heartbeat
                else to_nanoseconds(header.stamp))

    def close(self) -> None:
        """Leave the vehicle braking."""
        header = self._open.header if self._open is not None else self._last
        if header is not None and self.context.ok():
            self._stop(header)
        self._trace.close()


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(ControlNode, args)


if __name__ == '__main__':
    main()
