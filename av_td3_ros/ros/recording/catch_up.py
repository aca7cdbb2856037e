"""What a learner lacks of each recorder's sessions, and what it asks for next."""
from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from av_td3_ros.ros.recording.sequencer import Sequencer

T = TypeVar('T')

MOST_SESSIONS = 10_000  # of all vehicles that one learner hears
SURVEY = 1.0  # s between two questions which sessions there are
ANSWER = 3.0  # s after which a question counts as lost on its way
ARRIVAL = 2.0  # s that a page may take on its way after its answer; twice as long each time
LONGEST = 16.0  # s that it may take at most
SILENCE = 10.0  # s without an answer that are worth a warning


@dataclasses.dataclass(frozen=True)
class Question:
    """Ask for the numbers `first` to `last` of a session; without it, for all sessions' names."""

    session: str = ''
    first: int = 0
    last: int = 0


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a recorder says: the page that it sends, and the range of each session it has."""

    accepted: bool
    first: int = 0
    last: int = 0
    sessions: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    message: str = ''


@dataclasses.dataclass
class _Vehicle:
    """What was asked of one recorder."""

    heard_at: float
    asked: Question | None = None
    asked_at: float = 0.0
    surveyed_at: float | None = None
    page: tuple[str, int] | None = None  # on its way: session and last number
    page_since: float = 0.0
    patience: float = ARRIVAL
    claims: dict[str, int] = dataclasses.field(default_factory=dict)


class CatchUp(Generic[T]):
    """
    Put the transitions of every vehicle and session in order, and ask for what is missing.

    One page of one session at a time is asked for, the next one when it has come: the learner sets
    the pace. Only what its recorder says it has not got is given up. `reached` is the last number
    that is there of each vehicle and session, as a checkpoint tells. Not safe to use from two
    threads.
    """

    def __init__(self, reached: Mapping[tuple[str, str], int],
                 clock: Callable[[], float] = time.monotonic,
                 is_kept_out: Callable[[str, str], bool] = lambda vehicle, session: False) -> None:
        """Ask nothing of the sessions of which `is_kept_out(vehicle, session)` is true."""
        self._clock, self._is_kept_out = clock, is_kept_out
        self._asked_for: dict[tuple[str, str], int] = {}
        self._sequencers: dict[tuple[str, str], Sequencer[T]] = {
            key: Sequencer(reached=number) for key, number in reached.items()}
        self._sessions: dict[str, list[str]] = {}
        for vehicle, session in reached:
            self._sessions.setdefault(vehicle, []).append(session)
        self._vehicles: dict[str, _Vehicle] = {}
        self.recovered = 0

    def add(self, vehicle: str, session: str, number: int, message: T) -> list[T]:
        """
        Take a transition; return those whose turn has come.

        Raises ValueError for a number that no recorder gets to, and for more sessions than are.
        """
        if (vehicle, session) not in self._sequencers and len(self._sequencers) >= MOST_SESSIONS:
            raise ValueError(f'session {session!r} of vehicle {vehicle!r}: {MOST_SESSIONS} '
                             'sessions are known already; restart this node')
        sequencer = self._of(vehicle, session)
        ready = sequencer.add(number, message)
        known = self._vehicles.get(vehicle)
        if known is not None and known.page is not None:
            name, last = known.page
            if session == name and sequencer.reached >= last:
                known.page, known.patience = None, ARRIVAL
            elif session == name and ready:
                known.page_since, known.patience = self._clock(), ARRIVAL
        return ready

    def ask(self, vehicle: str) -> Question | None:
        """Return what the recorder of a vehicle is to be asked now, None for nothing."""
        now, known = self._clock(), self._know(vehicle)
        if known.asked is not None and now - known.asked_at < ANSWER:
            return None
        if known.page is not None:
            if now - known.page_since < known.patience:
                return None
            # The network may be slow and have all of it: the same again would make it slower.
            known.page, known.patience = None, min(2 * known.patience, LONGEST)
        question = next(self._gaps(vehicle), None)
        surveyed = known.surveyed_at
        if question is None and (surveyed is None or now - surveyed >= SURVEY):
            known.surveyed_at = now
            question = Question()
        known.asked, known.asked_at = question, now
        if question is not None and question.session:
            key = vehicle, question.session
            self._asked_for[key] = max(self._asked_for.get(key, 0), question.last)
        return question

    def was_asked_for(self, vehicle: str, session: str, number: int) -> bool:
        """Return whether a transition may have come because it was asked for."""
        return number <= self._asked_for.get((vehicle, session), 0)

    def answered(self, vehicle: str, question: Question, answer: Answer,
                 is_contested: bool = False) -> list[T]:
        """
        Take an answer; return those whose turn has come as something was given up.

        Where the vehicle's name `is_contested`, one who does not know the session may be another.
        """
        now, known = self._clock(), self._know(vehicle)
        known.heard_at = now
        if known.asked == question:
            known.asked = None
        ready: list[T] = []
        if question.session:
            sequencer = self._of(vehicle, question.session)
            is_other = is_contested and question.session not in answer.sessions
            gone = (answer.first - 1 if answer.accepted else
                    sequencer.reached if is_other else question.last)
            if gone > sequencer.reached:
                ready = sequencer.give_up(gone)
            if answer.accepted:
                self.recovered += answer.last - answer.first + 1
                if sequencer.reached < answer.last:
                    known.page, known.page_since = (question.session, answer.last), now
        for session, (_, last) in answer.sessions.items():
            # What was there a survey ago should be here: what is newer may be on its way.
            claimed = known.claims.get(session, 0)
            if not question.session:
                known.claims[session] = last
            if self._of(vehicle, session).reached < claimed:
                self._of(vehicle, session).expect(claimed)
        return ready

    def _know(self, vehicle: str) -> _Vehicle:
        return self._vehicles.setdefault(vehicle, _Vehicle(self._clock()))

    def _of(self, vehicle: str, session: str) -> Sequencer[T]:
        found = self._sequencers.get((vehicle, session))
        if found is None:
            found = self._sequencers[vehicle, session] = Sequencer()
            self._sessions.setdefault(vehicle, []).append(session)
        return found

    def _gaps(self, vehicle: str) -> Iterator[Question]:
        for session in self._sessions.get(vehicle, ()):
            missing = self._sequencers[vehicle, session].missing
            if missing is not None and not self._is_kept_out(vehicle, session):
                yield Question(session, *missing)

    def lacks(self, vehicle: str) -> bool:
        """Return whether something of a vehicle is missing."""
        return next(self._gaps(vehicle), None) is not None

    def heard_at(self, vehicle: str) -> float:
        """Return when the recorder of a vehicle last answered, or was first asked for."""
        return self._know(vehicle).heard_at

    def silent(self) -> list[str]:
        """Return the vehicles that lack something and whose recorder does not answer."""
        now = self._clock()
        return [vehicle for vehicle, known in self._vehicles.items()
                if known.page is None and now - known.heard_at > SILENCE
                and self.lacks(vehicle)]

    @property
    def lost(self) -> int:
        """Return how many transitions were given up."""
        return sum(one.lost for one in self._sequencers.values())

    @property
    def duplicates(self) -> int:
        """Return how many came more than once."""
        return sum(one.duplicates for one in self._sequencers.values())

    @property
    def waiting(self) -> int:
        """Return how many wait behind a gap."""
        return sum(one.waiting for one in self._sequencers.values())
