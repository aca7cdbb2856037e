"""Bring numbered messages back into order, and say which ones are missing."""
from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar('T')
HIGHEST = 1 << 48


class Sequencer(Generic[T]):
    """
    Let messages numbered from `reached` + 1 on out in order, each once.

    Those behind a gap wait until it is filled or given up, at most `patience` of them: who is
    further ahead is left out and counts as missing. Nothing is given up unless told.
    """

    def __init__(self, patience: int = 1000, reached: int = 0) -> None:
        self._patience = patience
        self._next = reached + 1
        self._highest = reached
        self._waiting: dict[int, T] = {}
        self.lost = 0
        self.duplicates = 0

    def add(self, number: int, message: T) -> list[T]:
        """
        Take a message; return those whose turn has come.

        Raises ValueError for a number that no recorder gets to.
        """
        if number > HIGHEST:
            raise ValueError(f'sequence number {number}: a recorder counts from 1')
        if number < self._next or number in self._waiting:
            self.duplicates += 1
            return []
        self._highest = max(self._highest, number)
        if number == self._next or len(self._waiting) < self._patience:
            self._waiting[number] = message
        return self._ready()

    def expect(self, highest: int) -> None:
        """Know that messages up to this number exist."""
        self._highest = max(self._highest, min(highest, HIGHEST))

    def give_up(self, last: int) -> list[T]:
        """Give up what is missing up to this number; return those whose turn has come by that."""
        last, ready = min(last, HIGHEST), self._ready()
        while self._next <= last:
            # In leaps: a number that somebody made up may be far ahead.
            there = min((one for one in self._waiting if one <= last), default=last + 1)
            self.lost += there - self._next
            self._next = there
            ready += self._ready()
        return ready

    def _ready(self) -> list[T]:
        ready: list[T] = []
        while self._next in self._waiting:
            ready.append(self._waiting.pop(self._next))
            self._next += 1
        return ready

    @property
    def reached(self) -> int:
        """Return the last number up to which nothing is missing."""
        return self._next - 1

    @property
    def waiting(self) -> int:
        """Return how many wait behind a gap."""
        return len(self._waiting)

    @property
    def missing(self) -> tuple[int, int] | None:
        """Return the first and last number of the first gap, None when there is none."""
        if self._waiting:
            return self._next, min(self._waiting) - 1
        return (self._next, self._highest) if self._highest >= self._next else None
