"""One command for each observation, and the brake without what a policy drives by."""
from __future__ import annotations

import dataclasses
import math

import numpy as np

from av_td3_ros.driving.command.arbiter import Arbiter, Source
from av_td3_ros.driving.command.authority import Authority, Driver
from av_td3_ros.driving.command.control import Action
from av_td3_ros.driving.command.control_settings import ControlSettings
from av_td3_ros.driving.command.watchdog import SECOND, Fault, Now, Watchdog
from av_td3_ros.driving.perception.vehicle_state import VehicleState

STANDING = np.array((0.0, -1.0), np.float32)


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """
    Hold what counts of an observation: which step it is, when it was made, and its speed in m/s.

    `origin` is the caller's, to know it again; so is that of a `Choice`.
    """

    step: tuple[int, int]
    stamp_ns: int
    speed: float
    is_first: bool = False
    is_last: bool = False
    origin: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Hold what the policy wants at a step: steer and acceleration, whatever numbers they are."""

    step: tuple[int, int]
    steer: float
    acceleration: float
    origin: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """
    Hold one action, float32[2], on its way to the vehicle.

    `answers` is the observation that it is applied on, None outside of the steps of an episode;
    `stamp_of` one whose stamp it carries, None for the present time.
    """

    action: Action
    source: Source
    answers: Seen | None = None
    stamp_of: Seen | None = None
    choice: Choice | None = None


class CommandGate:
    """
    Let through what may reach the vehicle; whatever else happens, the vehicle is braked.

    Each method takes one thing that happens, and the time at which it does; `take` returns the
    commands that came of it. Where the vehicle wants a heartbeat, they are sent at a fixed rate by
    `tick` as well, and limits count the time that really passes; else that of the stamps.
    """

    def __init__(self, settings: ControlSettings, authority: Authority) -> None:
        """Begin with nothing heard."""
        self.authority = authority
        self.fault: Fault | None = None
        self._alarms: list[Fault] = []
        self._watchdog = Watchdog(settings)
        self._arbiter = Arbiter(settings.command, authority, settings.pedals)
        self._due: list[Command] = []
        self._open: Seen | None = None
        self._early: Choice | None = None
        self._repeated: tuple[int, int] | None = None
        self._newest: Seen | None = None
        self._observed_speed = math.nan
        self._stands = True
        self._human_at: int | None = None
        self._faulty_since = 0
        self.settings = settings

    @property
    def settings(self) -> ControlSettings:
        """Return the settings; set, those that are live count from now on."""
        return self._watchdog.settings

    @settings.setter
    def settings(self, settings: ControlSettings) -> None:
        self._watchdog.settings = settings
        self._arbiter.settings = settings.command

    @property
    def applied(self) -> Action:
        """Return the action, float32[2], that was applied last."""
        return self._arbiter.applied

    @property
    def speed(self) -> float:
        """Return the newest speed in m/s, NaN where it is not known."""
        odometry = self._watchdog.odometry
        return odometry.speed if odometry.is_on else self._observed_speed

    @property
    def odometry_refused(self) -> int:
        """Return how many odometry messages could not be used."""
        return self._watchdog.odometry.refused

    @property
    def open_step(self) -> tuple[int, int] | None:
        """Return episode and step that wait for an action."""
        return self._open.step if self._open is not None else None

    @property
    def lacks_human(self) -> bool:
        """Say whether a human has the say, but it is not known what they command."""
        return self.authority.driver == Driver.HUMAN and not self._arbiter.knows_human

    def take_alarms(self) -> list[Fault]:
        """Return what has gone wrong since the last call, each beginning once."""
        alarms, self._alarms = self._alarms, []
        return alarms

    def take(self) -> list[Command]:
        """Return what is to be sent, in this order, and forget it."""
        due, self._due = self._due, []
        return due

    # -- what happens

    def observe(self, seen: Seen, now: Now) -> None:
        """Take an observation: it waits for its action, or is answered without the policy."""
        self._watch(now)
        self._watchdog.hear(seen.stamp_ns, not seen.is_last, now)
        self._newest, self._observed_speed = seen, seen.speed
        if self._open is not None:
            # In real time a frame may come before the action to the one before it.
            self._repeat(self._open, now)
        self._watchdog.ask(seen.step, now)
        if seen.is_first and not self.settings.heartbeat:  # the vehicle was set down anew
            self._arbiter.set_down()
        if seen.is_last:
            self._stand(seen, now)
        elif self.authority.driver != Driver.POLICY:
            self._early = None
            self._act(seen, now)
        else:
            self._open = seen
            if self._early is not None:
                early, self._early = self._early, None
                self.answer(early, now)

    def hold(self, seen: Seen, now: Now) -> None:
        """Stand: this frame belongs to no episode."""
        self._watchdog.hear(seen.stamp_ns, False, now)
        self._newest = seen
        self._stand(seen, now)

    def answer(self, choice: Choice, now: Now) -> None:
        """Take an action of the policy; one that fits no observation waits for its own."""
        answered = self._open
        if answered is None or choice.step not in (answered.step, self._repeated):
            # Ahead of its observation it waits for it; behind it, it is too late.
            self._early = choice
            return
        if not math.isfinite(choice.steer + choice.acceleration):
            self._watchdog.refuse(f'steer {choice.steer:g}, acceleration {choice.acceleration:g}: '
                                  'not finite')
        else:
            self._watchdog.answer()
        self._watch(now)
        if self._open is None:  # the watchdog has braked
            return
        if self.fault is not None:
            self._act(answered, now)
            return
        action = self._arbiter.follow((choice.steer, choice.acceleration), self.speed,
                                      self._time(answered, now))
        self._send(answered, action, Source.POLICY, choice)

    def hear_odometry(self, vehicle: VehicleState, now: Now) -> None:
        """Take a measurement of the vehicle; raise MeasurementError for one that is not of now."""
        self._watch(now)  # whose clock may have leapt
        self._watchdog.odometry.hear(vehicle, now.steady, now.ros)
        self._watch(now)

    def refuse_odometry(self, why: str) -> None:
        """Note a measurement that cannot be used."""
        self._watchdog.odometry.refuse(why)

    def hear_human(self, action: Action, now: Now) -> None:
        """Take what a human driver commands, float32[2]."""
        self._arbiter.hear_human(action)
        self._human_at = now.steady
        if self.authority.driver == Driver.HUMAN:
            self._beat(now)

    def tick(self, now: Now) -> None:
        """Look after what does not happen, and send what the vehicle wants in any case."""
        self._watch(now)
        self._beat(now)

    def engage(self, now: Now) -> str:
        """Let the policy drive; return why that is refused, '' when it is not."""
        refused = self.authority.engage()
        if not refused:
            # What is missing may be so because nobody drove: it has its time to come.
            self._early, self._faulty_since = None, now.steady
            self._watchdog.begin(now)
        return refused

    def heed(self, now: Now) -> None:
        """Act on a change of who drives before the next observation."""
        if self._open is not None and self.authority.driver != Driver.POLICY:
            self._act(self._open, now)
        self._beat(now)

    def leave(self, now: Now) -> None:
        """Leave the vehicle braking."""
        last = self._open or self._newest
        if last is not None:
            self._stand(last, now)

    # -- what comes of it

    def _watch(self, now: Now) -> None:
        """Brake for what is wrong: at once, and for as long as it is."""
        human_limit = self.settings.human_timeout * SECOND
        if self._human_at is not None and now.steady - self._human_at > human_limit:
            self._arbiter.hear_human(None)
        drives = self.authority.driver == Driver.POLICY and not self._stands
        push = float(self._arbiter.applied[1]) if drives else 0.0
        fault = self._watchdog.check(now, push)
        if fault is not None and fault.lasting:
            self._alarms.append(fault)
            if self.authority.disengage(fault.reason):
                self.heed(now)
            return
        is_new, self.fault = fault is not None and self.fault is None, fault
        if is_new:
            self._faulty_since = now.steady
        if fault is None:
            return
        if is_new and self._open is None and not self._stands and not self.settings.heartbeat:
            # Nobody asks for a command any more, and this is the last: none will come to grow.
            self._due.append(Command(STANDING, Source.WATCHDOG, stamp_of=self._newest))
            self._stands = True
        if self.authority.driver != Driver.POLICY:
            return
        if is_new:
            self._alarms.append(fault)
        limit = self.settings.disengage_after
        if limit and now.steady - self._faulty_since > limit * SECOND:
            self.authority.disengage(f'{fault.reason} for {limit:g} s')
            self.heed(now)
        elif self._open is not None and (is_new or self._watchdog.is_overdue(now)):
            self._act(self._open, now)

    def _beat(self, now: Now) -> None:
        """Send a command although no observation asks for one, where the vehicle wants that."""
        if not self.settings.heartbeat:
            return
        source = Source.REPEATED
        if self.authority.driver != Driver.POLICY or self._stands or self.fault is not None:
            _, source = self._arbiter.act(now.steady)
        self._due.append(Command(self._arbiter.applied, source))

    def _act(self, seen: Seen, now: Now) -> None:
        """Do without the policy: pass on what a human commands, or stop."""
        action, source = self._arbiter.act(self._time(seen, now))
        self._send(seen, action, source, None)

    def _repeat(self, seen: Seen, now: Now) -> None:
        self._repeated = seen.step
        if self.fault is not None:
            self._act(seen, now)
        else:
            self._send(seen, self._arbiter.applied, Source.REPEATED, None)

    def _send(self, seen: Seen, action: Action, source: Source, choice: Choice | None) -> None:
        self._open, self._stands = None, False
        if source not in (Source.POLICY, Source.REPEATED):
            self._watchdog.leave()
        self._due.append(Command(action, source, answers=seen, stamp_of=seen, choice=choice))

    def _stand(self, seen: Seen, now: Now) -> None:
        """Stand: outside an episode the policy does not drive."""
        self._open = None
        self._watchdog.leave()
        action, source = STANDING, Source.STOPPED
        if self.settings.heartbeat:  # as a passenger would like it; a simulator is not one
            action, source = self._arbiter.act(self._time(seen, now))
        self._due.append(Command(action, source, stamp_of=seen))
        self._stands = True

    def _time(self, seen: Seen, now: Now) -> int:
        """Return the ns that limits count in: simulated where observations set the pace."""
        return now.steady if self.settings.heartbeat else seen.stamp_ns
