"""Who has the say over the vehicle: emergency stop, human, controlled stop, then the policy."""
from __future__ import annotations

import enum


class Driver(enum.Enum):
    """Name who drives, the strongest first."""

    EMERGENCY = 'emergency stop'
    HUMAN = 'human'
    NOBODY = 'stopped'
    POLICY = 'policy'


class Authority:
    """
    Keep who drives, and why it is not the policy.

    An emergency stop is latched: only `clear_emergency_stop` ends it, once the button is released
    (`is_pressed`), and what follows is a stop until somebody engages again. A request to stop, and
    leaving the active state, disengage as well. A human overrides everything but an emergency
    stop, and gives back what was before.
    """

    def __init__(self, engaged: bool) -> None:
        """Begin inactive, and engaged or not."""
        self.is_active = False
        self.is_engaged = engaged
        self.is_overridden = False
        self.is_pressed = False
        self._emergency = ''
        self._stopped = '' if engaged else 'not engaged yet'

    @property
    def driver(self) -> Driver:
        """Return who drives now."""
        if self._emergency:
            return Driver.EMERGENCY
        if self.is_overridden:
            return Driver.HUMAN
        return Driver.POLICY if self.is_active and self.is_engaged else Driver.NOBODY

    @property
    def reason(self) -> str:
        """Return why the policy does not drive, '' when it does."""
        if self._emergency:
            return self._emergency
        if self.is_overridden:
            return 'override'
        if not self.is_active:
            return 'the node is not active'
        return '' if self.is_engaged else self._stopped

    def engage(self) -> str:
        """Let the policy drive; return why that is refused, '' when it is not."""
        if self._emergency:
            return ('there is an emergency stop: '
                    f'{"release it, then " if self.is_pressed else ""}clear it first')
        if not self.is_active:
            return 'the node is not active: activate it first'
        self.is_engaged = True
        return ''

    def disengage(self, reason: str) -> bool:
        """Stop under control; return whether the policy had the say until now."""
        was = self.is_engaged
        if was:  # the first reason is what has to be mended
            self._stopped = reason
        self.is_engaged = False
        return was

    def stop_at_once(self, reason: str) -> bool:
        """Latch an emergency stop; return whether it is a new one."""
        if self._emergency:
            return False
        self._emergency = reason
        self.disengage('after an emergency stop')
        return True

    def clear_emergency_stop(self) -> str:
        """End an emergency stop; return why that is refused, '' when it is not."""
        if not self._emergency:
            return 'there is no emergency stop'
        if self.is_pressed:
            return 'the emergency stop is still pressed: release it first (false on its topic)'
        self._emergency = ''
        return ''
