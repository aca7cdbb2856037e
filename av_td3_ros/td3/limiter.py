"""The ratio of training to collecting, as an object of its own."""
from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping

from av_td3_ros.settings import setting


@dataclasses.dataclass(frozen=True)
class LimiterSettings:
    """How much is learned from each transition."""

    updates_per_transition: float = setting(0.5, 'updates for each transition received',
                                            minimum=0.0, maximum=100.0, live=True)
    start_after: int = setting(1000, 'transitions received before the first update', minimum=1)
    slack: int = setting(64, 'updates that learning may lag behind before a lockstep world has '
                         'to wait', minimum=1)


class UpdateLimiter:
    """
    Say when the learner may update and when the world must wait for it.

    One thread reports transitions, another one updates. The world waits once more than `slack`
    updates are due, and goes on when half of them are: it is not switched at every step.
    """

    def __init__(self, settings: LimiterSettings) -> None:
        self.settings = settings
        self.transitions = self.updates = 0
        self._waiting = False
        self._from = (settings.start_after, 0, 0.0)
        self._changed = threading.Condition()

    @property
    def due(self) -> float:
        """Return the updates that the transitions so far allow and that are not made yet."""
        transitions, updates, due = self._from
        new = max(0, self.transitions - max(transitions, self.settings.start_after))
        return due + new * self.settings.updates_per_transition - (self.updates - updates)

    def received(self, transitions: int = 1) -> None:
        """Count transitions that have arrived."""
        with self._changed:
            self.transitions += transitions
            self._changed.notify_all()

    def updated(self) -> None:
        """Count one update."""
        with self._changed:
            self.updates += 1

    def may_update(self) -> bool:
        """Return whether an update is due."""
        return self.due >= 1.0

    def wait(self, timeout: float) -> bool:
        """Wait until an update is due, at most `timeout` wall seconds; return whether it is."""
        with self._changed:
            return self._changed.wait_for(self.may_update, timeout)

    def world_must_wait(self) -> bool:
        """Return whether a lockstep world must stand still until the learner has caught up."""
        due = self.due
        limit = self.settings.slack / 2 if self._waiting else self.settings.slack
        # One more update must always be possible while the world stands, or both wait for ever.
        self._waiting = due > limit and due >= 1.0
        return self._waiting

    def change(self, settings: LimiterSettings) -> None:
        """Take another ratio for the transitions that come from now on."""
        with self._changed:
            self._from = self.transitions, self.updates, self.due
            self.settings = settings
            self._changed.notify_all()

    def state_dict(self) -> dict[str, float]:
        """Return the counters."""
        return {'transitions': self.transitions, 'updates': self.updates, 'due': self.due}

    def load_state_dict(self, values: Mapping[str, float]) -> None:
        """Restore the counters; a ratio that has changed since holds for what comes from now."""
        with self._changed:
            self.transitions, self.updates = int(values['transitions']), int(values['updates'])
            self._from = self.transitions, self.updates, values['due']
            self._waiting = False
            self._changed.notify_all()
