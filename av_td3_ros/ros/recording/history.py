"""What a recorder has of every session, in memory and on disk."""
from __future__ import annotations

import collections
from typing import NamedTuple

from av_td3_ros.ros.recording.bag import TransitionBag

PAGE = 100  # transitions sent again at once: no queue on the way overflows


class Kept(NamedTuple):
    """A transition in memory, serialised."""

    session: str
    sequence: int
    data: bytes


class History:
    """Find transitions again: the newest `kept` in memory, all of them in the bag, if any."""

    def __init__(self, kept: int, bag: TransitionBag | None = None) -> None:
        self._kept: collections.deque[Kept] = collections.deque(maxlen=kept)
        self._bag = bag

    def note(self, session: str, sequence: int, data: bytes) -> None:
        """Take the next transition of a session."""
        self._kept.append(Kept(session, sequence, data))

    def sessions(self) -> dict[str, tuple[int, int]]:
        """Return the first and the last number that is there of every session."""
        found = self._bag.sessions() if self._bag is not None else {}
        for one in self._kept:
            first, last = found.get(one.session, (one.sequence, one.sequence))
            found[one.session] = min(first, one.sequence), max(last, one.sequence)
        return found

    def page(self, session: str, first: int, last: int = 0) -> list[Kept]:
        """
        Return the transitions from number `first` on, at most up to `last` and PAGE of them.

        Raises OSError or ValueError when the bag cannot be read.
        """
        there = self.sessions().get(session)
        if there is None:
            return []
        first = max(first, there[0])
        last = min(last or there[1], there[1], first + PAGE - 1)
        found = {one.sequence: one for one in self._kept
                 if one.session == session and first <= one.sequence <= last}
        if self._bag is not None and len(found) < last - first + 1:
            for sequence, data in self._bag.read(session, first, last):
                found.setdefault(sequence, Kept(session, sequence, data))
        return [found[sequence] for sequence in sorted(found)]
