"""What a learner lacks is asked for page by page until it is there or known to be nowhere."""
from __future__ import annotations

import random

from av_td3_ros.ros.recording.catch_up import ANSWER, SILENCE, SURVEY, Answer, CatchUp, Question

CAR = 'ego_vehicle'
PAGE = 10


class World:
    """A learner's catching up, a recorder, and the time that passes."""

    def __init__(self, reached: dict[tuple[str, str], int] | None = None) -> None:
        self.now = 100.0
        self.sessions: dict[str, range] = {}
        self.gone: set[tuple[str, int]] = set()  # what the recorder lost
        self.learner: CatchUp[tuple[str, int]] = CatchUp(reached or {}, lambda: self.now)
        self.taken: list[tuple[str, int]] = []
        self.questions: list[Question] = []

    def send(self, session: str, *numbers: int) -> None:
        """Let transitions come in."""
        for number in numbers:
            self.taken += self.learner.add(CAR, session, number, (session, number))

    def answer(self, question: Question) -> tuple[Answer, list[int]]:
        """Return what the recorder answers, and the numbers that it sends."""
        there = {name: (one[0], one[-1]) for name, one in self.sessions.items()}
        page = [number for number in self.sessions.get(question.session, range(0))
                if question.first <= number <= question.last
                and (question.session, number) not in self.gone][:PAGE]
        if not question.session:
            return Answer(True, sessions=there), []
        if not page:
            return Answer(False, sessions=there), []
        return Answer(True, page[0], page[-1], there), page

    def turn(self, loss: float = 0.0, chance: random.Random | None = None) -> None:
        """Ask what is to be asked, and let half a second pass; some of all this gets lost."""
        def arrives() -> bool:
            return chance is None or chance.random() >= loss

        question = self.learner.ask(CAR)
        if question is not None:
            self.questions.append(question)
            answer, page = self.answer(question)
            if arrives():
                self.send(question.session, *(number for number in page if arrives()))
                if arrives():
                    self.taken += self.learner.answered(CAR, question, answer)
        self.now += SURVEY / 2


def test_a_session_that_nobody_heard_of_is_found_and_fetched() -> None:
    world = World()
    world.sessions = {'a': range(1, 36)}
    for _ in range(20):
        world.turn()
    assert world.taken == [('a', number) for number in range(1, 36)]
    assert [one for one in world.questions if one.session] == [
        Question('a', first, 35) for first in (1, 11, 21, 31)]
    assert (world.learner.lost, world.learner.duplicates) == (0, 0)


def test_it_goes_on_where_the_checkpoint_ended() -> None:
    world = World({(CAR, 'a'): 30, (CAR, 'b'): 4})
    world.sessions = {'a': range(1, 36), 'b': range(1, 5), 'c': range(1, 3)}
    for _ in range(20):
        world.turn()
    assert sorted(world.taken) == [*(('a', number) for number in range(31, 36)), ('c', 1),
                                   ('c', 2)]


def test_what_is_on_its_way_is_not_asked_for() -> None:
    world = World()
    for number in range(1, 50):
        world.sessions = {'a': range(1, number + 2)}
        world.send('a', number)  # always one behind the recorder
        world.turn()
    assert not [one for one in world.questions if one.session]


def test_only_what_the_recorder_has_not_is_given_up() -> None:
    world = World()
    world.sessions = {'a': range(4, 9)}
    world.gone = {('a', 6)}
    world.send('a', 8)
    for _ in range(20):
        world.turn()
    assert world.taken == [('a', number) for number in (4, 5, 7, 8)]
    assert world.learner.lost == 4  # 1, 2, 3 and 6


def test_a_silent_recorder_is_asked_again_and_told_of_but_nothing_is_given_up() -> None:
    world = World()
    world.send('a', 1, 5)
    assert world.learner.ask(CAR) == Question('a', 2, 4)
    assert world.learner.ask(CAR) is None  # it has a while to answer
    world.now += ANSWER
    assert world.learner.ask(CAR) == Question('a', 2, 4)
    assert world.learner.silent() == []
    world.send('a', *range(6, 5000))
    world.now += SILENCE
    assert world.learner.silent() == [CAR]
    assert (world.taken, world.learner.lost) == ([('a', 1)], 0)
    assert world.learner.waiting == 1000
    world.sessions = {'a': range(1, 5000)}
    for _ in range(1100):
        world.turn()
    assert world.taken == [('a', number) for number in range(1, 5000)]


def test_whatever_gets_lost_on_the_way_everything_comes_once() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        world = World()
        for number in range(1, 120):
            world.sessions = {'a': range(1, 60), 'b': range(1, number + 1)}
            if chance.random() > 0.3:
                world.send('b', number)
            world.turn(0.2, chance)
        world.sessions['b'] = range(1, 120)
        for _ in range(2000):
            world.turn(0.2, chance)
        for session, end in (('a', 60), ('b', 120)):
            assert [number for name, number in world.taken if name == session] == list(
                range(1, end)), (seed, session)
        assert world.learner.lost == 0
