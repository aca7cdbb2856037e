"""Vehicles that take each other's name: the first one is heard, the second one refused."""
from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from av_td3_ros.ros.recording.catch_up import MOST_SESSIONS

T = TypeVar('T')

ALIVE = 2.0  # s of wall time for which who drove before must be silent to be taken for gone
OVER = 10.0  # s without a word of the second one after which the conflict is over
HELD = 10_000  # messages kept at most while it is open whether vehicles were started again
_NAMED = re.compile(r'[0-9a-f]+\.(\d+)\.(.+)')


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Two sessions that drive at the same time under one vehicle's name."""

    vehicle: str
    first: str
    second: str

    def __str__(self) -> str:
        """Tell it in one line, with what to do."""
        return (f'two vehicles are named {self.vehicle!r}: that of {who(self.first)} is learned '
                f'from, that of {who(self.second)} is refused; give each a name of its own')


def who(session: str) -> str:
    """Say which recorder began a session, as far as its name tells."""
    named = _NAMED.fullmatch(session)
    where = f'process {named[1]} on {named[2]}' if named else 'a recorder'
    return f'{where} (session {session})'


@dataclasses.dataclass
class _Session(Generic[T]):
    """What was heard of a session, and what is kept back of it while it `waits`."""

    order: int
    since: float
    highest: int = 0
    heard_at: float = 0.0
    waits: bool = False
    refused: bool = False
    held: list[T] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Name(Generic[T]):
    """The sessions of a vehicle that were heard driving; `holder` is the one that is learned."""

    holder: str = ''
    sessions: dict[str, _Session[T]] = dataclasses.field(default_factory=dict)


class Rivals(Generic[T]):
    """
    Tell a vehicle that was started again from a second one of the same name.

    Whoever drives first under a name holds it. Another session's messages wait until the first
    one has been silent beside it for ALIVE, which is a restart, or speaks again: then there are
    two, and those of the second one are refused as long as the first one drives. `news` are
    conflicts not told yet. Not safe to use from two threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._names: dict[str, _Name[T]] = {}
        self._held = self._sessions = 0
        self.refused = 0
        self.news: list[Conflict] = []

    def hear(self, vehicle: str, session: str, number: int, message: T, is_new: bool) -> list[T]:
        """
        Take a message; return those that are to be learned from now.

        `is_new` is False for one that was asked for: it tells nothing of who drives. Raises
        ValueError for more sessions than are.
        """
        name = self._names.setdefault(vehicle, _Name())
        one = name.sessions.get(session)
        if not is_new or (one is not None and number <= one.highest):
            return self._pass(one, message) if session != name.holder else [message]
        if one is None:
            if self._sessions >= MOST_SESSIONS:
                raise ValueError(f'session {session!r} of vehicle {vehicle!r}: {MOST_SESSIONS} '
                                 'sessions are known already; restart this node')
            self._sessions += 1
            one = name.sessions[session] = _Session(len(name.sessions), self._clock())
        one.highest, one.heard_at = number, self._clock()
        holder = name.sessions.get(name.holder)
        if session == name.holder or holder is None:
            name.holder = session
            for other, rival in name.sessions.items():
                if rival.waits:
                    self._refuse(vehicle, session, other)
            return [message]
        if self._is_alone(one, holder):
            return [*self._take_over(name, session), message]
        if one.order < holder.order:  # it was only silent for a while
            name.holder = session
            self._refuse(vehicle, session, next(
                key for key, value in name.sessions.items() if value is holder))
            return [message]
        one.waits = not one.refused
        return self._pass(one, message)

    def release(self) -> list[T]:
        """Return what waited and need not any longer: who drove before is silent."""
        ready: list[T] = []
        for name in self._names.values():
            holder = name.sessions.get(name.holder)
            for session, one in name.sessions.items():
                if one.waits and holder is not None and self._is_alone(one, holder):
                    ready += self._take_over(name, session)
                    break
        return ready

    def close(self) -> list[T]:
        """Return all that still waits: who ends now hears nobody speak again."""
        return [message for name in self._names.values()
                for session, one in list(name.sessions.items()) if one.waits
                for message in self._take_over(name, session)]

    def is_kept_out(self, vehicle: str, session: str) -> bool:
        """Return whether nothing of a session is learned from now."""
        name = self._names.get(vehicle)
        one = None if name is None else name.sessions.get(session)
        return one is not None and (one.refused or one.waits)

    def conflicts(self) -> list[Conflict]:
        """Return the conflicts that go on."""
        now = self._clock()
        return [Conflict(vehicle, name.holder, session)
                for vehicle, name in self._names.items()
                for session, one in name.sessions.items()
                if one.refused and now - one.heard_at < OVER]

    def is_contested(self, vehicle: str) -> bool:
        """Return whether more than one recorder may answer to a name."""
        name, now = self._names.get(vehicle), self._clock()
        return name is not None and sum(
            now - one.heard_at < OVER for one in name.sessions.values()) > 1

    @property
    def vehicles(self) -> dict[str, float]:
        """Return for each vehicle how many s ago it was heard."""
        now = self._clock()
        return {vehicle: now - name.sessions[name.holder].heard_at
                for vehicle, name in self._names.items() if name.holder}

    def _is_alone(self, one: _Session[T], holder: _Session[T]) -> bool:
        """Return whether the holder of a name has said nothing for long beside another one."""
        return self._clock() - max(holder.heard_at, one.since) >= ALIVE

    def _pass(self, one: _Session[T] | None, message: T) -> list[T]:
        """Return, keep back or refuse a message of who does not hold the name."""
        if one is None or not (one.refused or one.waits):
            return [message]
        if one.refused:
            self.refused += 1
        elif self._held < HELD:  # what is not held will be asked for
            one.held.append(message)
            self._held += 1
        return []

    def _refuse(self, vehicle: str, first: str, second: str) -> None:
        one = self._names[vehicle].sessions[second]
        self.refused += len(one.held)
        self._held -= len(one.held)
        one.waits, one.refused, one.held = False, True, []
        self.news.append(Conflict(vehicle, first, second))

    def _take_over(self, name: _Name[T], session: str) -> list[T]:
        one = name.sessions[session]
        name.holder = session
        self._held -= len(one.held)
        ready, one.held, one.waits, one.refused = one.held, [], False, False
        return ready
