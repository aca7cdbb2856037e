"""Observations and applied actions become steps, in whatever order they come."""
from __future__ import annotations

import dataclasses
import random

from av_td3_ros.driving.episode.trajectory import PATIENCE, JoinedStep, TrajectoryJoiner


@dataclasses.dataclass(frozen=True)
class Seen:
    episode: int
    step: int
    is_first: bool = False
    is_last: bool = False


@dataclasses.dataclass(frozen=True)
class Done:
    episode: int
    step: int


Joiner = TrajectoryJoiner[Seen, Done]


def feed(joiner: Joiner, words: str) -> list[str]:
    """
    Feed messages such as 'o0.3' (observation 3 of episode 0), 'a0.3', 'l0.4' (the last one).

    Return the steps that come out, such as '0.3' and '0.4 end'.
    """
    steps: list[JoinedStep[Seen, Done]] = []
    for word in words.split():
        episode, step = map(int, word[1:].split('.'))
        if word[0] == 'a':
            steps += joiner.add_action(Done(episode, step))
        else:
            steps += joiner.add_observation(
                Seen(episode, step, step == 0, word[0] == 'l'))
    for one in steps:
        seen, done, after = one.observation, one.action, one.following
        if seen.is_last:
            assert done is None and after is None
        else:
            assert done is not None and after is not None
            assert (done.episode, done.step) == (seen.episode, seen.step)
            assert (after.episode, after.step) == (seen.episode, seen.step + 1)
    return [f'{one.observation.episode}.{one.observation.step}'
            + (' end' if one.observation.is_last else '') for one in steps]


def test_a_step_comes_out_with_the_observation_after_it() -> None:
    joiner = Joiner()
    assert feed(joiner, 'o0.0') == []
    assert feed(joiner, 'a0.0') == []
    assert feed(joiner, 'o0.1') == ['0.0']
    assert feed(joiner, 'a0.1 l0.2') == ['0.1', '0.2 end']
    assert feed(joiner, 'o1.0 a1.0 o1.1') == ['1.0']
    assert joiner.incomplete == 0


def test_an_action_may_come_before_its_observation_or_long_after() -> None:
    assert feed(Joiner(), 'a0.0 o0.0 a0.1 o0.1 l0.2') == ['0.0', '0.1', '0.2 end']
    late = Joiner()
    assert feed(late, 'o0.0 o0.1 o0.2 o0.3 o0.4 l0.5') == []
    assert feed(late, 'a0.0 a0.1') == ['0.0', '0.1']
    assert feed(late, 'a0.2 a0.3 a0.4') == ['0.2', '0.3', '0.4', '0.5 end']
    assert late.incomplete == 0


def test_any_mixture_of_the_two_gives_every_step() -> None:
    shuffled = random.Random(0)
    for _ in range(50):
        observations = [f'o0.{step}' for step in range(9)] + ['l0.9', 'o1.0', 'o1.1', 'l1.2']
        actions = [f'a0.{step}' for step in range(9)] + ['a1.0', 'a1.1']
        words = []
        while observations or actions:
            words.append(shuffled.choice([one for one in (observations, actions) if one]).pop(0))
        joiner = Joiner()
        assert feed(joiner, ' '.join(words)) == [
            *(f'0.{step}' for step in range(9)), '0.9 end', '1.0', '1.1', '1.2 end']
        assert joiner.incomplete == 0


def test_a_step_whose_action_never_came_is_left_out() -> None:
    joiner = Joiner()
    assert feed(joiner, 'o0.0 a0.0 o0.1 o0.2 a0.2 o0.3') == ['0.0', '0.2']
    assert joiner.incomplete == 1


def test_a_step_without_a_successor_is_left_out() -> None:
    joiner = Joiner()
    # Observation 2 was lost: nothing is known of what followed 1.
    assert feed(joiner, 'o0.0 a0.0 o0.1 a0.1 o0.3 a0.3 l0.4') == ['0.0', '0.3', '0.4 end']
    assert joiner.incomplete == 1
    # An interrupted episode ends without a last observation.
    assert feed(joiner, 'o1.0 a1.0 o1.1 a1.1 o2.0 a2.0 o2.1') == ['1.0', '2.0']
    assert joiner.incomplete == 2


def test_copies_are_left_out() -> None:
    assert feed(Joiner(), 'o0.0 o0.0 a0.0 a0.0 o0.1 o0.0 a0.1 l0.2 l0.2') == [
        '0.0', '0.1', '0.2 end']


def test_without_any_action_it_does_not_wait_for_ever() -> None:
    joiner = Joiner()
    for step in range(3 * PATIENCE):
        feed(joiner, f'o0.{step}')
    assert joiner.incomplete == 2 * PATIENCE
