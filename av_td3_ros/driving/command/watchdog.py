"""Why the policy must not drive on: actions, observations, odometry and clocks that fail it."""
from __future__ import annotations

import dataclasses
import math

from av_td3_ros.driving.command.control_settings import ControlSettings
from av_td3_ros.driving.perception.odometry_monitor import OdometryMonitor

SECOND = 1_000_000_000  # ns


@dataclasses.dataclass(frozen=True, slots=True)
class Now:
    """Hold one instant in ns by two clocks: one that never leaps, and the one of the stamps."""

    steady: int
    ros: int


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """
    Say what is wrong: in few words that stay the same, and with figures and remedy.

    A `lasting` one is over when somebody has looked at it; any other when it is gone.
    """

    reason: str
    details: str
    lasting: bool = False


class Watchdog:
    """
    Watch what the policy drives by. All times come from outside, as `Now`.

    Ages of what has arrived are counted by the steady clock, so that a world which stands still or
    a clock that leaps changes none of them.
    """

    def __init__(self, settings: ControlSettings) -> None:
        """Begin with nothing heard; live settings may be changed from outside."""
        self.settings = settings
        self.odometry = OdometryMonitor(settings.odometry)
        self._heard_at: int | None = None
        self._stamp_ns: int | None = None
        self._idle_since: int | None = None
        self._asked_at: int | None = None
        self._asked_step = (0, 0)
        self._lack: Fault | None = None
        self._before: Now | None = None

    # -- what happens

    def begin(self, now: Now) -> None:
        """Count from here what must come, and how long there is nothing to drive."""
        if self._heard_at is None:
            self._heard_at = self._idle_since = now.steady
        elif self._idle_since is not None:
            self._idle_since = now.steady

    def hear(self, stamp_ns: int, drives: bool, now: Now) -> None:
        """Note a frame with its stamp; `drives`: it is one of an episode that goes on."""
        self._heard_at, self._stamp_ns = now.steady, stamp_ns
        if drives:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now.steady

    def ask(self, step: tuple[int, int], now: Now) -> None:
        """Begin to wait for the action at a step of an episode, where none is waited for yet."""
        if self._asked_at is None:
            self._asked_at, self._asked_step = now.steady, step

    def answer(self) -> None:
        """Note an action that can be applied."""
        self._asked_at, self._lack = None, None

    def leave(self) -> None:
        """Wait for no action any more: what it would answer has been seen to."""
        self._asked_at = None

    def refuse(self, error: str) -> None:
        """Note an action that cannot be applied."""
        self._asked_at = None
        self._lack = Fault('the actions cannot be used', f'{error}; look at the policy node')

    # -- what comes of it

    def is_overdue(self, now: Now) -> bool:
        """Say whether an action has been waited for too long."""
        return (self._asked_at is not None
                and now.steady - self._asked_at > self.settings.action_timeout * SECOND)

    def check(self, now: Now, acceleration: float) -> Fault | None:
        """
        Return what is wrong now, the worst first, while `acceleration` (-1 to 1) is applied.

        A lasting fault is returned once.
        """
        before, self._before = self._before, now
        lasting = self._leap(before, now) or self._breach(now, acceleration)
        if lasting is not None:
            return lasting
        if self.is_overdue(now) and self._lack is None:
            episode, step = self._asked_step
            self._lack = Fault(
                'no action comes', f'no action for step {step} of episode {episode} within '
                f'{self.settings.action_timeout:g} s: braking; is the policy node alive?')
        return (self._silence(now) or self._age(now) or self._odometry(now) or self._lack
                or self._idle(now))

    def _leap(self, before: Now | None, now: Now) -> Fault | None:
        limit = self.settings.clock_tolerance
        if before is None or not limit:
            return None
        leap = ((now.ros - before.ros) - (now.steady - before.steady)) / SECOND
        if abs(leap) <= limit:
            return None
        self.odometry.restart()
        return Fault('the clock has leapt', f'the clock has leapt by {leap:+.3f} s: see to what '
                     'sets it, and to the clocks of the sensors', lasting=True)

    def _breach(self, now: Now, acceleration: float) -> Fault | None:
        breach = self.odometry.breach(now.steady, acceleration)
        return Fault(breach.split(':')[0], breach, lasting=True) if breach else None

    def _silence(self, now: Now) -> Fault | None:
        limit = self.settings.sensor_timeout
        if not limit or self._heard_at is None or now.steady - self._heard_at <= limit * SECOND:
            return None
        return Fault('no observation comes', f'no observation for {limit:g} s: stopping; are '
                     'camera, odometry and environment node alive?')

    def _age(self, now: Now) -> Fault | None:
        limit = self.settings.sensor_max_age
        if not limit or self._stamp_ns is None:
            return None
        age = (now.ros - self._stamp_ns) / SECOND
        if abs(age) <= limit:
            return None
        how = 'old' if age > 0.0 else 'in the future'
        return Fault('the observations are not of now',
                     f'the newest observation is {_few(abs(age))} s {how}, at most {limit:g} s is '
                     'allowed: is the camera delayed, and do the clocks agree?')

    def _odometry(self, now: Now) -> Fault | None:
        silence = self.odometry.silence(now.steady)
        return Fault('no odometry that can be used', f'{silence}: is the localisation alive?'
                     ) if silence else None

    def _idle(self, now: Now) -> Fault | None:
        limit = self.settings.idle_timeout
        if (not limit or self._idle_since is None
                or now.steady - self._idle_since <= limit * SECOND):
            return None
        return Fault('there is nothing to drive', f'no episode to drive for {limit:g} s: the '
                     'route is at its end, was left, or there is none (environment_node logs '
                     'which); publish one that begins where the vehicle stands, then engage')


def _few(seconds: float) -> str:
    """Return a duration in figures that fit a line, whatever a stamp says."""
    return f'{seconds:.2f}' if math.isfinite(seconds) and seconds < 1e4 else 'thousands of'
