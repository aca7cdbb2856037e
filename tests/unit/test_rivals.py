"""Who holds a vehicle's name: the first who drives, until it is silent."""
from __future__ import annotations

from av_td3_ros.ros.recording.rivals import ALIVE, OVER, Conflict, Rivals

CAR = 'ego_vehicle'


class Street:
    """What the recorders of a name send, and the time that passes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rivals: Rivals[tuple[str, int]] = Rivals(lambda: self.now)
        self.taken: list[tuple[str, int]] = []

    def send(self, session: str, *numbers: int, is_new: bool = True) -> None:
        """Let transitions come in, a twentieth of a second apart."""
        for number in numbers:
            self.taken += self.rivals.hear(CAR, session, number, (session, number), is_new)
            self.now += 0.05

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.taken += self.rivals.release()

    def of(self, session: str) -> list[int]:
        """Return which transitions of a session were let through."""
        return [number for name, number in self.taken if name == session]


def test_a_vehicle_that_is_started_again_is_heard_from_its_first_transition() -> None:
    street = Street()
    street.send('a', *range(1, 6))
    street.send('b', *range(1, 6))
    assert street.of('b') == []
    street.wait(ALIVE)
    street.send('b', 6)
    assert street.of('b') == [1, 2, 3, 4, 5, 6]
    assert (street.rivals.news, street.rivals.refused) == ([], 0)


def test_a_first_one_that_stood_still_is_heard_and_nothing_of_the_second_one() -> None:
    street = Street()
    street.send('a', 1)
    street.wait(60.0)  # its world was paused
    street.send('b', 1, 2)
    street.send('a', 2)
    street.send('b', 3)
    assert street.of('a') == [1, 2] and street.of('b') == []
    assert street.rivals.news == [Conflict(CAR, 'a', 'b')]


def test_of_two_that_drive_at_once_the_first_one_is_heard_and_both_are_named() -> None:
    street = Street()
    street.send('1a.7.north', 1)
    for number in range(1, 4):
        street.send('2b.9.south', number)
        street.send('1a.7.north', number + 1)
    assert street.of('1a.7.north') == [1, 2, 3, 4] and street.of('2b.9.south') == []
    assert street.rivals.news == [Conflict(CAR, '1a.7.north', '2b.9.south')]  # once
    assert street.rivals.refused == 3
    for words in ('process 7 on north', 'process 9 on south', repr(CAR)):
        assert words in str(street.rivals.news[0])
    assert street.rivals.conflicts() == street.rivals.news
    assert street.rivals.is_kept_out(CAR, '2b.9.south')
    assert not street.rivals.is_kept_out(CAR, '1a.7.north')
    street.wait(OVER)
    assert street.rivals.conflicts() == []
    assert street.rivals.is_kept_out(CAR, '2b.9.south')  # its transitions are not asked for


def test_once_the_first_one_is_gone_the_second_one_is_heard() -> None:
    street = Street()
    street.send('a', 1)
    street.send('b', 1)
    street.send('a', 2)
    street.wait(ALIVE)
    street.send('b', 2, 3)
    assert street.of('b') == [2, 3]  # the rest will be asked for
    assert not street.rivals.is_kept_out(CAR, 'b') and street.rivals.conflicts() == []


def test_a_first_one_that_was_only_silent_for_a_while_stays_the_first() -> None:
    street = Street()
    street.send('a', 1)
    street.send('b', 1)
    street.wait(ALIVE)
    street.send('b', 2)
    street.send('a', 2)
    street.send('b', 3)
    assert street.of('a') == [1, 2] and street.of('b') == [1, 2]
    assert street.rivals.news == [Conflict(CAR, 'a', 'b')]


def test_what_was_asked_for_of_an_earlier_session_is_no_rival() -> None:
    street = Street()
    street.send('b', 1)
    street.send('a', 1, 2, 3, is_new=False)
    street.send('b', 2)
    street.send('b', 1)  # again
    assert street.of('a') == [1, 2, 3] and street.of('b') == [1, 2, 1]
    assert street.rivals.news == []


def test_what_waits_when_the_learner_ends_is_not_left_out() -> None:
    street = Street()
    street.send('a', 1)
    street.send('b', 1, 2)
    assert street.rivals.close() == [('b', 1), ('b', 2)]
    assert street.rivals.close() == []
    street.send('c', 1)
    street.send('b', 3)
    street.send('c', 2)
    assert street.rivals.close() == []  # refused


def test_it_tells_who_is_heard() -> None:
    street = Street()
    street.send('a', 1)
    street.wait(3.0)
    assert {name: round(ago, 2) for name, ago in street.rivals.vehicles.items()} == {CAR: 3.05}
    assert not street.rivals.is_contested(CAR)
    street.send('b', 1)
    assert street.rivals.is_contested(CAR)
