"""Human driving: picked out with what its stacks and returns need, and mixed into batches."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from av_td3_ros.td3 import ReplayBuffer, ReplayError, StepRecord
from av_td3_ros.td3.demonstrations import HumanSteps, MixedReplay

STACK, N_STEP, GAMMA = 3, 2, 0.9


def record(number: int, step: int, episode: int = 0, last: bool = False) -> StepRecord:
    """Return a step that carries its number."""
    return StepRecord('ego', episode, step, np.full((4, 4), number, np.uint8),
                      np.array((number,), np.float32), np.zeros(2, np.float32), float(number),
                      step == 0, last, False)


def buffer() -> ReplayBuffer:
    """Return an empty buffer for the records above."""
    return ReplayBuffer(100, STACK, 4, 1)


def drawn(replay: ReplayBuffer | MixedReplay, count: int = 400
          ) -> dict[int, tuple[list[int], float, int]]:
    """Return number -> (stack, n-step reward, number of the state bootstrapped from)."""
    batch = replay.sample(count, GAMMA, N_STEP)
    assert batch.frames.is_contiguous(memory_format=torch.channels_last)
    return {int(batch.state[i, 0]): ([int(f[0, 0]) for f in batch.frames[i]],
                                     round(float(batch.reward[i]), 3),
                                     int(batch.next_state[i, 0])) for i in range(count)}


def test_what_a_human_drove_comes_with_whole_stacks_and_returns() -> None:
    store = buffer()
    human = HumanSteps(store, STACK, N_STEP)
    for step in range(30):
        human.add(record(step, step), human=step in (10, 11, 20))
    assert len(store) == 3
    assert drawn(store) == {10: ([8, 9, 10], 10 + 0.9 * 11, 12),
                            11: ([9, 10, 11], 11 + 0.9 * 12, 13),
                            20: ([18, 19, 20], 38.9, 22)}


def test_an_intervention_at_both_ends_of_an_episode() -> None:
    store = buffer()
    human = HumanSteps(store, STACK, N_STEP)
    for step in range(6):
        human.add(record(step, step, last=step == 5), human=step in (0, 4, 5))
    for step in range(6):
        human.add(record(10 + step, step, episode=1), human=False)
    assert drawn(store) == {0: ([0, 0, 0], 0.9, 2), 4: ([2, 3, 4], 4.0, 5)}


def test_without_a_human_nothing_is_kept() -> None:
    store = buffer()
    human = HumanSteps(store, STACK, N_STEP)
    for step in range(20):
        human.add(record(step, step), human=False)
    assert store.steps == 0


@pytest.mark.parametrize(('share', 'shown'), [(0.5, 32), (0.25, 16), (0.0, 0), (1.0, 64)])
def test_a_share_of_each_batch_is_drawn_from_the_demonstrations(share: float, shown: int) -> None:
    replay, demonstrations = buffer(), buffer()
    mixed = MixedReplay(replay, demonstrations, share)
    for step in range(80):
        replay.add(record(step % 20, step))
    assert max(drawn(mixed)) < 20
    for step in range(20):
        demonstrations.add(record(100 + step, step))
    assert len(mixed) == 79 + 19
    batch = mixed.sample(64, GAMMA, N_STEP)
    assert int((batch.state >= 100).sum()) == shown
    assert batch.frames.is_contiguous(memory_format=torch.channels_last)
    assert (batch.frames[:, -1, 0, 0].float() == batch.state[:, 0]).all()


def test_a_few_driven_transitions_are_not_drawn_again_and_again() -> None:
    replay, demonstrations = buffer(), buffer()
    mixed = MixedReplay(replay, demonstrations, 0.5)
    for step in range(20):
        demonstrations.add(record(100 + step, step))
    for step in range(10):
        replay.add(record(step, step))
    assert int((mixed.sample(9, GAMMA, N_STEP).state < 100).sum()) == 5
    assert int((mixed.sample(10, GAMMA, N_STEP).state < 100).sum()) == 0
    assert mixed.drawn == 5


def test_demonstrations_alone_make_whole_batches() -> None:
    demonstrations = buffer()
    mixed = MixedReplay(buffer(), demonstrations, 0.5)
    with pytest.raises(ReplayError, match='no transition to sample yet'):
        mixed.sample(4, GAMMA, N_STEP)
    for step in range(5):
        demonstrations.add(dataclasses.replace(record(step, step)))
    assert len(mixed.sample(6, GAMMA, N_STEP).reward) == 6
