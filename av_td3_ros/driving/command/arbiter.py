"""What is applied, whoever drives: the policy within limits, a human, or a controlled stop."""
from __future__ import annotations

import enum
import math

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.command.authority import Authority, Driver
from av_td3_ros.driving.command.control import Action, CommandSettings, brake_action, limit_action

PERIOD = 0.05  # s: what passes for the time since the action before the first one


class Source(enum.Enum):
    """Name what an applied action came from."""

    POLICY = enum.auto()
    HUMAN = enum.auto()
    WATCHDOG = enum.auto()
    EMERGENCY_STOP = enum.auto()
    REPEATED = enum.auto()
    STOPPED = enum.auto()


class Arbiter:
    """
    Turn what policy and human want into one applied action after another.

    Times `now` are in s, of one clock from call to call: limits and the course of a stop are
    counted in it. `applied` is the action, float32[2], that was applied last.
    """

    def __init__(self, settings: CommandSettings, authority: Authority) -> None:
        """Begin with nothing applied; both may be changed from outside."""
        self.settings, self.authority = settings, authority
        self.applied: Action = np.zeros(2, np.float32)
        self._applied_at: float | None = None
        self._braking_since: float | None = None
        self._human: Action | None = None

    def set_down(self) -> None:
        """Forget what was applied: the vehicle was set down elsewhere."""
        self.applied, self._applied_at = np.zeros(2, np.float32), None

    def hear_human(self, action: Action | None) -> None:
        """Take what the human driver commands; None when that is not known any more."""
        self._human = action

    def follow(self, action: npt.ArrayLike, speed: float, now: float) -> Action:
        """Apply what the policy wants at a speed in m/s, as far as the limits allow."""
        self._braking_since = None
        return self._apply(limit_action(action, self.applied, speed, self._elapsed(now),
                                        self.settings), now)

    def act(self, now: float) -> tuple[Action, Source]:
        """Apply what there is without the policy: a human's command, or a stop."""
        driver = self.authority.driver
        if driver == Driver.HUMAN and self._human is not None:
            self._braking_since = None
            return self._apply(self._human, now), Source.HUMAN
        source = {Driver.EMERGENCY: Source.EMERGENCY_STOP,
                  Driver.NOBODY: Source.STOPPED}.get(driver, Source.WATCHDOG)
        if self._braking_since is None:
            self._braking_since = now
        action = brake_action(self.applied, max(now - self._braking_since, 0.0),
                              self._elapsed(now), self.settings)
        if driver == Driver.EMERGENCY:
            action[1] = -1.0
        return self._apply(action, now), source

    def _apply(self, action: Action, now: float) -> Action:
        self.applied, self._applied_at = action, now
        return action

    def _elapsed(self, now: float) -> float:
        """Return the time in s since the last applied action; a camera period at the first."""
        passed = PERIOD if self._applied_at is None else now - self._applied_at
        return passed if math.isfinite(passed) else 0.0
