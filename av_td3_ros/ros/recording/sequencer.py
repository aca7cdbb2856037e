"""Bring numbered messages back into order, and say which ones are missing."""
from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar('T')


class Sequencer(Generic[T]):
    """
    Let messages numbered 1, 2, 3, ... out in order, each once.

    Those behind a gap wait for it to be filled, at most `patience` of them: then what is missing
    is given up and counted in `lost`.
    """

    def __init__(self, patience: int = 1000) -> None:
        self._patience = patience
        self._next = 1
        self._waiting: dict[int, T] = {}
        self.lost = 0
        self.duplicates = 0

    def add(self, number: int, message: T) -> list[T]:
        """Take a message; return those whose turn has come."""
        if number < self._next or number in self._waiting:
            self.duplicates += 1
            return []
        self._waiting[number] = message
        if len(self._waiting) > self._patience:
            self._give_up()
        return self._ready()

    def skip(self) -> list[T]:
        """Give up what is missing first; return the messages whose turn has come by that."""
        if self._waiting:
            self._give_up()
        return self._ready()

    def _give_up(self) -> None:
        first = min(self._waiting)
        self.lost += first - self._next
        self._next = first

    def _ready(self) -> list[T]:
        ready: list[T] = []
        while self._next in self._waiting:
            ready.append(self._waiting.pop(self._next))
            self._next += 1
        return ready

    @property
    def missing(self) -> tuple[int, int] | None:
        """Return the first and last number of the first gap, None when there is none."""
        if not self._waiting:
            return None
        return self._next, min(self._waiting) - 1
