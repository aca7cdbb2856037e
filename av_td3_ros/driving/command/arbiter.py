"""What is applied, whoever drives: the policy within limits, a human, or a controlled stop."""
from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.command.authority import Authority, Driver
from av_td3_ros.driving.command.control import (
    Action,
    CommandSettings,
    Pedals,
    brake_action,
    limit_action,
)

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

    Times `now_ns` are in ns, of one clock from call to call: limits and the course of a stop are
    counted in it. `applied` is the action, float32[2], that was applied last.
    """

    def __init__(self, settings: CommandSettings, authority: Authority,
                 pedals: Pedals | None = None) -> None:
        """Begin with nothing applied; settings and authority may be changed from outside."""
        self.settings, self.authority = settings, authority
        self.applied: Action = np.zeros(2, np.float32)
        self._pedals = pedals or Pedals()
        self._applied_ns: int | None = None
        self._braking_since_ns: int | None = None
        self._human: Action | None = None

    @property
    def knows_human(self) -> bool:
        """Say whether it is known what a human driver commands."""
        return self._human is not None

    def set_down(self) -> None:
        """Forget what was applied: the vehicle was set down elsewhere."""
        self.applied, self._applied_ns = np.zeros(2, np.float32), None

    def hear_human(self, action: Action | None) -> None:
        """Take what the human driver commands; None when that is not known any more."""
        self._human = action

    def follow(self, action: npt.ArrayLike, speed: float, now_ns: int) -> Action:
        """Apply what the policy wants at a speed in m/s, as far as the limits allow."""
        self._braking_since_ns = None
        return self._apply(limit_action(action, self.applied, speed, self._elapsed(now_ns),
                                        self.settings, self._pedals), now_ns)

    def act(self, now_ns: int) -> tuple[Action, Source]:
        """Apply what there is without the policy: a human's command, or a stop."""
        driver = self.authority.driver
        if driver == Driver.HUMAN and self._human is not None:
            self._braking_since_ns = None
            return self._apply(self._human, now_ns), Source.HUMAN
        source = {Driver.EMERGENCY: Source.EMERGENCY_STOP,
                  Driver.NOBODY: Source.STOPPED}.get(driver, Source.WATCHDOG)
        if self._braking_since_ns is None:
            self._braking_since_ns = now_ns
        action = brake_action(self.applied, max(now_ns - self._braking_since_ns, 0) * 1e-9,
                              self._elapsed(now_ns), self.settings)
        if driver == Driver.EMERGENCY:
            action[1] = -1.0
        return self._apply(action, now_ns), source

    def _apply(self, action: Action, now_ns: int) -> Action:
        self.applied, self._applied_ns = action, now_ns
        return action

    def _elapsed(self, now_ns: int) -> float:
        """Return the time in s since the last applied action; a camera period at the first."""
        return PERIOD if self._applied_ns is None else (now_ns - self._applied_ns) * 1e-9
