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


def test_patience_ends() -> None:
    one: Sequencer[str] = Sequencer(patience=3)
    assert feed(one, 1, 4, 5, 6) == [1]
    assert feed(one, 8) == [4, 5, 6]
    assert one.lost == 2
    assert one.missing == (7, 7)
    assert feed(one, 3) == []  # too late
    assert one.duplicates == 1


def test_a_gap_can_be_given_up() -> None:
    one: Sequencer[str] = Sequencer()
    assert one.skip() == []
    assert feed(one, 1, 3, 4, 7) == [1]
    assert [int(number) for number in one.skip()] == [3, 4]
    assert (one.lost, one.missing) == (1, (5, 6))


def test_any_order_comes_out_sorted() -> None:
    for seed in range(20):
        numbers = list(range(1, 40))
        random.Random(seed).shuffle(numbers)
        one: Sequencer[str] = Sequencer()
        assert feed(one, *numbers) == list(range(1, 40))
        assert (one.lost, one.duplicates) == (0, 0)
