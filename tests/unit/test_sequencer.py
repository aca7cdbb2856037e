"""Numbered messages come out in order, each once, and what is missing is known."""
from __future__ import annotations

import random

from av_td3_ros.ros.recording.sequencer import Sequencer


def feed(sequencer: Sequencer[str], *numbers: int) -> list[int]:
    """Add messages; return the numbers of those that come out."""
    return [int(one) for number in numbers for one in sequencer.add(number, str(number))]


def test_in_order_they_pass() -> None:
    one: Sequencer[str] = Sequencer()
    assert [feed(one, number) for number in (1, 2, 3)] == [[1], [2], [3]]
    assert one.missing is None
    assert (one.lost, one.duplicates) == (0, 0)


def test_those_behind_a_gap_wait_until_it_is_filled() -> None:
    one: Sequencer[str] = Sequencer()
    assert feed(one, 1, 5, 6, 4) == [1]
    assert one.missing == (2, 3)
    assert feed(one, 3) == []
    assert one.missing == (2, 2)
    assert feed(one, 2) == [2, 3, 4, 5, 6]
    assert one.missing is None


def test_what_was_sent_before_the_first_one_seen_is_missing_too() -> None:
    one: Sequencer[str] = Sequencer()
    assert feed(one, 4) == []
    assert one.missing == (1, 3)
    assert feed(one, 1, 2, 3) == [1, 2, 3, 4]


def test_copies_are_left_out_and_counted() -> None:
    one: Sequencer[str] = Sequencer()
    assert feed(one, 1, 1, 3, 3, 2, 2) == [1, 2, 3]
    assert one.duplicates == 3


def test_who_is_too_far_ahead_is_left_out_and_missing() -> None:
    one: Sequencer[str] = Sequencer(patience=3)
    assert feed(one, 1, 4, 5, 6, 8) == [1]
    assert (one.missing, one.waiting, one.lost) == ((2, 3), 3, 0)
    assert feed(one, 2, 3) == [2, 3, 4, 5, 6]
    assert one.missing == (7, 8)
    assert feed(one, 8, 7) == [7, 8]
    assert (one.missing, one.reached, one.lost, one.duplicates) == (None, 8, 0, 0)


def test_a_gap_can_be_given_up() -> None:
    one: Sequencer[str] = Sequencer()
    assert one.give_up(0) == []
    assert feed(one, 1, 3, 4, 7) == [1]
    assert [int(number) for number in one.give_up(2)] == [3, 4]
    assert (one.lost, one.missing) == (1, (5, 6))
    assert feed(one, 2) == []  # too late
    assert [int(number) for number in one.give_up(9)] == [7]
    assert (one.lost, one.duplicates, one.reached) == (5, 1, 9)


def test_what_exists_and_has_not_come_is_missing() -> None:
    one: Sequencer[str] = Sequencer(reached=5)
    assert one.missing is None
    one.expect(8)
    assert (one.missing, one.reached) == ((6, 8), 5)
    assert feed(one, 5, 6, 7) == [6, 7]
    assert one.missing == (8, 8)


def test_any_order_comes_out_sorted() -> None:
    for seed in range(20):
        numbers = list(range(1, 40))
        random.Random(seed).shuffle(numbers)
        one: Sequencer[str] = Sequencer()
        assert feed(one, *numbers) == list(range(1, 40))
        assert (one.lost, one.duplicates) == (0, 0)
