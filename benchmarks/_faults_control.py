"""Faults around control_node: how soon the vehicle is braked, with real processes of each part."""
from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
import yaml
from ackermann_msgs.msg import AckermannDriveStamped
from av_td3_msgs.msg import Action, Observation
from nav_msgs.msg import Odometry
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import SetBool, Trigger

from av_td3_ros.cli.session import Session
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_stamp
from av_td3_ros.ros.graph import NodeSpec, profile_parameters, session_nodes
from av_td3_ros.ros.runtime import (
    PARENT,
    DomainLease,
    leave,
    make_executor,
    ros_environment,
    spin,
)
from benchmarks._faults import Fault, Outcome, claim

NODES = ('control_node', 'stand_in_vehicle_node')
PERIOD = 0.02    # s: of control, the heartbeat of the profile vehicle
GOAL = 2.0       # control periods from a limit to the first braking command
FRAME = 0.05     # s between two observations
PATIENCE = 30.0  # s for what must come about between two injections
LIMITS = {'action_timeout': 0.2, 'sensor_timeout': 0.3, 'sensor_max_age': 0.5,
          'odometry.timeout': 0.2, 'odometry.max_jump': 1.0, 'human_timeout': 0.5}
HUMAN = 0.15     # rad that the human steers, which the policy never does
SILENT = 0.5     # s without a command after which the stand-in stops by itself
SLOWER = 0.3     # m/s by which it must have become slower to count as braking


def _wait(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Return what `condition` returns once it is true; raise TimeoutError when it never is."""
    until = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f'waited {timeout:g} s in vain for {what}')
        time.sleep(0.002)
    return result


class Rig:
    """
    The control node, a stand-in vehicle and a policy as processes, and the world around them here.

    The world sends observations, hands on the vehicle's odometry, and keeps when it heard what.
    With `leaps` the control node goes by a /clock that this world tells, and may let leap.
    """

    def __init__(self, leaps: bool = False) -> None:
        self._leaps = leaps
        self.sends = {'observation': True, 'odometry': True}
        self.late = self.offset = self.shift = 0.0
        self.frozen: Odometry | None = None
        self.is_broken = False
        self.commands: list[tuple[float, Any]] = []
        self.asked: dict[int, float] = {}
        self.answered: dict[int, float] = {}
        self.odometry_sent: list[tuple[float, float]] = []
        self.speed = 0.0
        self.broken_at: float | None = None
        self._step = 0
        self._ending = threading.Event()

    def __enter__(self) -> Rig:
        """Start all processes and drive."""
        self._lease = DomainLease()
        os.environ['ROS_DOMAIN_ID'] = str(self._lease.domain)
        os.environ.update(ros_environment(os.environ))
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        control = {**profile_parameters('vehicle')['control_node'], **LIMITS,
                   'use_sim_time': self._leaps}
        self._file = folder / 'parameters.yaml'
        self._file.write_text(yaml.safe_dump({
            '/**/control_node': {'ros__parameters': control},
            '/**/stand_in_vehicle_node': {'ros__parameters': {
                'vehicle.command_timeout': SILENT, 'vehicle.speed_noise': 0.0}}}))
        self.logs = folder / 'logs'
        self._specs = {one.name: one for profile in ('vehicle_in_the_loop_bench', 'vehicle')
                       for one in session_nodes(profile, 'ego_vehicle', learning=False)
            if one.name in NODES}
        self._specs['stand_in_vehicle_node'] = self._specs['stand_in_vehicle_node'].with_topic(
            '~/output/odometry', '/stand_in/odometry')
        self._sessions = {name: self._begin(spec) for name, spec in self._specs.items()}
        self.policy = self._begin_policy()
        self._join()
        self.drive()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End everything."""
        self._ending.set()
        self._worker.join()
        self._executor.wake()
        self._thread.join()
        leave(self._executor, self._node)
        self._context.try_shutdown()
        for one in (self.policy, *self._sessions.values()):
            if isinstance(one, Session):
                one.stop()
            else:
                one.kill()
                one.wait()
        self._folder.cleanup()
        self._lease.release()

    def _begin(self, spec: NodeSpec) -> Session:
        return Session([spec], self._file, self.logs).__enter__()

    def _begin_policy(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('_faulty_policy.py'))],
            env={**os.environ, PARENT: str(os.getpid())})

    def _join(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self._lease.domain,
                   signal_handler_options=SignalHandlerOptions.NO)
        node = self._node = rclpy.create_node('rig', context=self._context)
        self._observe = node.create_publisher(Observation, '/ego_vehicle/observation', qos.STEP)
        self._measure = node.create_publisher(Odometry, '/vehicle/odometry', qos.SENSOR)
        self._clock = node.create_publisher(Clock, '/clock', qos.SENSOR)
        self._modes = node.create_publisher(String, '/faulty_policy/mode', qos.STEP)
        self._press = node.create_publisher(Bool, '/vehicle/emergency_stop', qos.VEHICLE)
        self._override = node.create_publisher(Bool, '/vehicle/override', qos.SENSOR)
        self._human = node.create_publisher(AckermannDriveStamped, '/vehicle/human_command',
                                            qos.SENSOR)
        node.create_subscription(AckermannDriveStamped, '/vehicle/command', self._on_command,
                                 qos.EVENT)
        node.create_subscription(Action, '/ego_vehicle/action', self._on_action, qos.EVENT)
        node.create_subscription(Odometry, '/stand_in/odometry', self._on_odometry, qos.SENSOR)
        self._engage = node.create_client(SetBool, '/ego_vehicle/control_node/engage')
        self._clear = node.create_client(
            Trigger, '/ego_vehicle/control_node/clear_emergency_stop')
        self._executor = make_executor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(
            target=spin, args=(self._executor, self._context, self._ending.is_set))
        self._thread.start()
        self._worker = threading.Thread(target=self._work)
        self._worker.start()

    # -- the world

    def _stamp(self) -> Any:
        return to_stamp(time.time_ns() + round((self.offset - self.late) * 1e9))

    def _work(self) -> None:
        due, count = time.monotonic(), 0
        while not self._ending.wait(max(due - time.monotonic(), 0.0)):
            if self._leaps:
                self._clock.publish(Clock(clock=to_stamp(
                    time.time_ns() + round(self.offset * 1e9))))
            self._human.publish(self._human_command())
            count += 1
            if self.sends['observation'] and count % round(FRAME / 0.01) == 0:
                self._step += 1
                self.asked[self._step] = time.monotonic()
                self._observe.publish(Observation(
                    header=Header(stamp=self._stamp(), frame_id='ego_vehicle'),
                    vehicle='ego_vehicle', episode=1, step=self._step,
                    state=[self.speed / 30.0, 0.0, 0.0], is_first=self._step == 1))
            due = max(due + 0.01, time.monotonic() - 0.05)

    def _human_command(self) -> AckermannDriveStamped:
        message = AckermannDriveStamped()
        message.drive.steering_angle, message.drive.speed = HUMAN, self.speed + 1.0
        message.drive.acceleration = 0.5
        return message

    def _on_odometry(self, message: Odometry) -> None:
        self.speed = message.twist.twist.linear.x
        if not self.sends['odometry']:
            return
        shown = self.frozen or message
        twist, place = shown.twist.twist.linear.x, shown.pose.pose.position.x
        message = Odometry(header=Header(stamp=self._stamp(), frame_id='ground'),
                           pose=shown.pose, twist=shown.twist)
        message.pose.pose.position.x = math.nan if self.is_broken else place + self.shift
        self._newest = message
        self.odometry_sent.append((time.monotonic(), twist))
        self._measure.publish(message)
        message.pose.pose.position.x = place

    def _on_command(self, message: AckermannDriveStamped) -> None:
        self.commands.append((time.monotonic(), message.drive))

    def _on_action(self, message: Action) -> None:
        if message.step in self.asked and message.episode == 1:
            if math.isfinite(message.steer):
                self.answered.setdefault(message.step, time.monotonic())
            elif self.broken_at is None:
                self.broken_at = time.monotonic()

    # -- what a fault does

    def freeze(self, wanted: bool) -> None:
        """Let the odometry repeat its newest numbers, with new stamps."""
        self.frozen = self._newest if wanted else None

    def mode(self, name: str) -> None:
        """Tell the policy how to answer."""
        self._modes.publish(String(data=name))

    def press(self, wanted: bool) -> None:
        """Press or release the emergency stop, by a publisher that nobody confirms."""
        self._press.publish(Bool(data=wanted))

    def override(self, wanted: bool) -> None:
        """Let the human drive."""
        self._override.publish(Bool(data=wanted))

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the control node."""
        os.kill(self._sessions[name].process_ids()[name], number)

    def restart(self, name: str) -> None:
        """Start a node again that was killed."""
        self._sessions[name].stop()
        self._sessions[name] = self._begin(self._specs[name])

    def restart_policy(self) -> None:
        """Start the policy again."""
        self.policy.kill()
        self.policy.wait()
        self.policy = self._begin_policy()

    def first_unanswered(self, since: float) -> float:
        """Return when the first observation was sent that got no action."""
        return min(when for step, when in list(self.asked.items())
                   if when > since - 1.0 and step not in self.answered)

    # -- driving

    def ask(self, client: Any, request: Any) -> Any:
        """Return the answer of a service, None while there is none."""
        if not client.service_is_ready():
            return None
        future = client.call_async(request)
        try:
            _wait(future.done, f'an answer of {client.srv_name}', 1.0)
        except TimeoutError:  # it was asked for of a node that had died
            client.remove_pending_request(future)
            return None
        return future.result()

    def drive(self) -> None:
        """Engage, and go on until the vehicle rolls by the policy's throttle."""
        def rolls() -> bool:
            now = time.monotonic()
            newest = [drive for when, drive in self.commands[-20:] if when > now - 0.4]
            if len(newest) > 10 and all(one.speed > 0.0 for one in newest):
                return self.speed > 1.0
            self.press(False)
            if not any(one.speed > 0.0 for one in newest):
                self.ask(self._clear, Trigger.Request())
                self.ask(self._engage, SetBool.Request(data=True))
                time.sleep(0.3)
            return False

        _wait(rolls, 'the vehicle to drive', 2 * PATIENCE)


@dataclasses.dataclass(frozen=True)
class Injection:
    """
    Say how a fault begins and ends.

    `begin` returns a function that tells, once all is over, when the limit was passed (s of the
    monotonic clock); None for what must not make the vehicle brake. `shows` tells a command that
    answers the fault from the others.
    """

    begin: Callable[[Rig], Callable[[], float] | None]
    end: Callable[[Rig], None]
    shows: Callable[[Any], bool] = lambda drive: drive.speed == 0.0
    lasts: float = 0.8  # s that it is given


def _set(**values: Any) -> Callable[[Rig], None]:
    def set_all(rig: Rig) -> None:
        for name, value in values.items():
            if name in rig.sends:
                rig.sends[name] = value
            else:
                setattr(rig, name, value)

    return set_all


def _unanswered(begin: Callable[[Rig], None]) -> Callable[[Rig], Callable[[], float]]:
    """Begin a fault that leaves observations without an action."""
    def begun(rig: Rig) -> Callable[[], float]:
        since = time.monotonic()
        begin(rig)
        return lambda: rig.first_unanswered(since) + LIMITS['action_timeout']

    return begun


def _at_once(begin: Callable[[Rig], None]) -> Callable[[Rig], Callable[[], float]]:
    def begun(rig: Rig) -> Callable[[], float]:
        since = time.monotonic()
        begin(rig)
        return lambda: since

    return begun


def _last(what: str, limit: float, begin: Callable[[Rig], None]
          ) -> Callable[[Rig], Callable[[], float]]:
    """Begin a silence; its limit counts from the last good message."""
    def begun(rig: Rig) -> Callable[[], float]:
        begin(rig)
        now = time.monotonic()
        times = (list(rig.asked.values()) if what == 'observation'
                 else [when for when, _ in rig.odometry_sent])
        last = max(when for when in times if when <= now)
        return lambda: last + limit

    return begun


def _next(what: str, begin: Callable[[Rig], None]) -> Callable[[Rig], Callable[[], float]]:
    """Begin what the next message shows at once."""
    def begun(rig: Rig) -> Callable[[], float]:
        since = time.monotonic()
        begin(rig)

        def limit() -> float:
            times = (list(rig.asked.values()) if what == 'observation'
                     else [when for when, _ in rig.odometry_sent])
            return min(when for when in times if when >= since)

        return limit

    return begun


def _broken(mode: str) -> Callable[[Rig], Callable[[], float]]:
    def begun(rig: Rig) -> Callable[[], float]:
        rig.broken_at = None
        rig.mode(mode)
        return lambda: _wait(lambda: rig.broken_at, 'a broken action')

    return begun


def _frozen(rig: Rig) -> Callable[[], float]:
    rig.freeze(True)
    since = time.monotonic()

    def limit() -> float:
        claimed, before = 0.0, since
        for when, speed in rig.odometry_sent:
            if when > since:
                claimed += speed * (when - before)
                before = when
                if claimed > LIMITS['odometry.max_jump']:
                    return when
        raise TimeoutError('the vehicle was too slow to tell that its odometry is frozen')

    return limit


def _none(begin: Callable[[Rig], None]) -> Callable[[Rig], None]:
    return begin


def _good(rig: Rig) -> None:
    rig.mode('good')


INJECTIONS: dict[str, Injection] = {
    'policy stopped (SIGSTOP)': Injection(
        _unanswered(lambda rig: rig.policy.send_signal(signal.SIGSTOP)),
        lambda rig: rig.policy.send_signal(signal.SIGCONT)),
    'policy killed (SIGKILL)': Injection(
        _unanswered(lambda rig: rig.policy.kill()), lambda rig: rig.restart_policy()),
    'policy sends 5000 other actions a second, none that fits': Injection(
        _unanswered(lambda rig: rig.mode('noise')), _good),
    'policy sends 5000 other actions a second beside those that fit': Injection(
        _none(lambda rig: rig.mode('flood')), _good, lasts=1.5),
    'policy sends NaN': Injection(_broken('nan'), _good),
    'policy sends infinities': Injection(_broken('infinite'), _good),
    'policy sends 1e30': Injection(_none(lambda rig: rig.mode('huge')), _good),
    'policy answers other steps': Injection(
        _unanswered(lambda rig: rig.mode('wrong step')), _good),
    'observations silent': Injection(
        _last('observation', LIMITS['sensor_timeout'], _set(observation=False)),
        _set(observation=True)),
    'observations 2 s old': Injection(_next('observation', _set(late=2.0)), _set(late=0.0)),
    'odometry silent': Injection(
        _last('odometry', LIMITS['odometry.timeout'], _set(odometry=False)), _set(odometry=True)),
    'odometry NaN': Injection(
        _last('odometry', LIMITS['odometry.timeout'], _set(is_broken=True)),
        _set(is_broken=False)),
    'odometry jumps 3 m': Injection(_next('odometry', _set(shift=3.0)), _set(shift=0.0)),
    'odometry frozen': Injection(_frozen, lambda rig: rig.freeze(False), lasts=2.0),
    'emergency stop': Injection(
        _at_once(lambda rig: rig.press(True)), lambda rig: rig.press(False),
        lambda drive: drive.speed == 0.0 and drive.acceleration > 4.9),
    'human takes over': Injection(
        _at_once(lambda rig: rig.override(True)), lambda rig: rig.override(False),
        lambda drive: abs(drive.steering_angle - HUMAN) < 1e-3)}
LEAPS: dict[str, Injection] = {
    'clock leaps 3 s ahead': Injection(
        _at_once(lambda rig: setattr(rig, 'offset', rig.offset + 3.0)), lambda rig: None),
    'clock leaps 3 s back': Injection(
        _at_once(lambda rig: setattr(rig, 'offset', rig.offset - 3.0)), lambda rig: None)}
DEATHS = {'control_node killed (SIGKILL)': signal.SIGKILL,
          'control_node stopped (SIGSTOP)': signal.SIGSTOP}


def _wrong(drive: Any) -> bool:
    """Say whether a command is one that no vehicle may get."""
    numbers = (drive.steering_angle, drive.speed, drive.acceleration, drive.jerk)
    return (not all(map(math.isfinite, numbers)) or not 0.0 <= drive.speed <= 11.0
            or not 0.0 < drive.acceleration <= 5.0 + 1e-3 or abs(drive.steering_angle) > 0.6)


@dataclasses.dataclass
class Seen:
    """Hold what an injection has shown: periods to the answer, wrong commands, longest gap."""

    periods: list[float] = dataclasses.field(default_factory=list)
    missed: int = 0
    wrong: int = 0
    relapsed: int = 0
    gap: float = 0.0


def inject(rig: Rig, injection: Injection, seen: Seen) -> None:
    """Inject once into a drive that goes well, note what came of it, and drive again."""
    rig.drive()
    time.sleep(random.uniform(0.0, FRAME))  # at any place between two frames
    since = time.monotonic()
    limit = injection.begin(rig)
    time.sleep(injection.lasts)
    over = time.monotonic()
    injection.end(rig)
    commands = [(when, drive) for when, drive in rig.commands if since <= when <= over]
    seen.wrong += sum(_wrong(drive) for _, drive in commands)
    times = [when for when, _ in commands]
    seen.gap = max([seen.gap, *(after - before for before, after in itertools.pairwise(times))])
    answers = [when for when, drive in commands if injection.shows(drive)]
    if limit is None:
        seen.missed += len(answers)  # it had to drive on
        return
    if not answers:
        seen.missed += 1
        return
    seen.periods.append((answers[0] - limit()) / PERIOD)
    seen.relapsed += any(when > answers[0] and not injection.shows(drive)
                         for when, drive in commands)


def control_fault(injection: Injection, leaps: bool, times: int, name: str) -> Outcome:
    """Inject a fault so often; return how soon the vehicle was braked."""
    seen = Seen()
    with Rig(leaps) as rig:
        for _ in range(times):
            inject(rig, injection, seen)
    lost = (f'{seen.missed} not braked, {seen.wrong} commands wrong, {seen.relapsed} times driven '
            f'on, longest gap between commands {1e3 * seen.gap:.0f} ms')
    claims = [claim(f'{name}: wrong commands', seen.wrong + seen.missed + seen.relapsed, '', 0)]
    if not seen.periods:
        return Outcome(times, 'drives on' if not seen.missed else 'brakes although it need not',
                       lost, claims)
    claims.append(claim(f'{name}: from the limit to the first such command',
                        round(max(seen.periods), 2), 'control periods', GOAL))
    return Outcome(times, f'answered {statistics.median(seen.periods):.2f} control periods after '
                   f'the limit, at most {max(seen.periods):.2f}', lost, claims)


def control_death(number: int, times: int, name: str) -> Outcome:
    """End or stop the control node so often; return how soon the vehicle stops by itself."""
    slower, stopped = [], []
    with Rig() as rig:
        for _ in range(times):
            rig.drive()
            speed = rig.speed
            rig.signal('control_node', number)
            time.sleep(0.05)  # what was on its way has arrived
            last = rig.commands[-1][0]
            _wait(lambda speed=speed: rig.speed < speed - SLOWER, 'the vehicle to become slower')
            slower.append(time.monotonic() - last - SILENT)
            _wait(lambda: abs(rig.speed) < 0.05, 'the vehicle to stand')
            stopped.append(time.monotonic() - last - SILENT)
            if number == signal.SIGSTOP:
                rig.signal('control_node', signal.SIGCONT)
            else:
                rig.restart('control_node')
    return Outcome(times, f'the vehicle is {SLOWER:g} m/s slower {max(slower):.2f} s after its '
                   f'own limit of {SILENT:g} s and stands after {max(stopped):.2f} s', 'nothing',
                   [claim(f'{name}: slower after the own limit of the vehicle',
                          round(max(slower), 2), 's', 0.5)])


FAULTS: dict[str, Fault] = {
    **{name: Fault(20, functools.partial(control_fault, one, leaps, name=name))
       for leaps, injections in ((False, INJECTIONS), (True, LEAPS))
       for name, one in injections.items()},
    **{name: Fault(10, functools.partial(control_death, number, name=name))
       for name, number in DEATHS.items()}}
