"""The replay: against a naive one that stores whole stacks, and its edges one by one."""
from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av_td3_ros.td3 import ReplayBuffer, ReplayError, StepRecord
from av_td3_ros.td3.replay import TRANSITIONS, VEHICLES, DuplicateError, ReplayCounts

STACK, SIZE, STATE, GAMMA = 3, 4, 2, 0.9


def record(number: int, step: int, *, vehicle: str = 'ego', episode: int = 0, last: bool = False,
           terminal: bool = False, **changes: Any) -> StepRecord:
    """Return a step whose frame and state carry `number` and whose reward is number."""
    made = StepRecord(vehicle, episode, step, np.full((SIZE, SIZE), number % 256, np.uint8),
                      np.array((number, 0), np.float32),
                      None if last else np.array((0.5, -0.5), np.float32),
                      None if last else float(number), step == 0, last, terminal)
    return dataclasses.replace(made, **changes)


def buffer(capacity: int = 64, **changes: Any) -> ReplayBuffer:
    """Return a small buffer for the records above."""
    return ReplayBuffer(capacity, STACK, SIZE, STATE, **changes)


def transitions(replay: ReplayBuffer, n_step: int = 1, draws: int = 400
                ) -> dict[int, tuple[tuple[int, ...], tuple[int, ...], int, float, float]]:
    """Return all that is sampled: number -> (stack, next stack, next number, reward, discount)."""
    found = {}
    batch = replay.sample(draws, GAMMA, n_step)
    for i in range(draws):
        stacks = [tuple(int(f[0, 0]) for f in frames[i]) for frames in
                  (batch.frames, batch.next_frames)]
        assert all((f == f[0, 0]).all() for f in batch.frames[i])
        found[int(batch.state[i, 0])] = (*stacks, int(batch.next_state[i, 0]),
                                         round(float(batch.reward[i]), 3),
                                         round(float(batch.discount[i]), 5))
    return found


def test_a_stack_is_padded_with_the_first_frame_of_its_episode() -> None:
    replay = buffer()
    for number in range(10, 14):
        replay.add(record(number, number - 10, last=number == 13))
    replay.add(record(20, 0, episode=1))
    replay.add(record(21, 1, episode=1))
    assert len(replay) == 4 and replay.steps == 6
    assert transitions(replay) == {
        10: ((10, 10, 10), (10, 10, 11), 11, 10.0, 0.9),
        11: ((10, 10, 11), (10, 11, 12), 12, 11.0, 0.9),
        12: ((10, 11, 12), (11, 12, 13), 13, 12.0, 0.9),
        20: ((20, 20, 20), (20, 20, 21), 21, 20.0, 0.9)}


def test_a_truncated_episode_bootstraps_and_a_terminal_one_does_not() -> None:
    replay = buffer()
    replay.add(record(1, 0))
    replay.add(record(2, 1, last=True))
    replay.add(record(3, 0, episode=1))
    replay.add(record(4, 1, episode=1, last=True, terminal=True))
    found = transitions(replay)
    assert found[1][4] == 0.9 and found[3][4] == 0.0


@pytest.mark.parametrize(('terminal', 'discounts'), [(False, (0.729, 0.81, 0.9)),
                                                     (True, (0.0, 0.0, 0.0))])
def test_n_step_returns_end_with_the_episode(terminal: bool,
                                             discounts: tuple[float, ...]) -> None:
    replay = buffer()
    for number in range(4):
        replay.add(record(number, number, last=number == 3, terminal=terminal and number == 3))
    found = transitions(replay, n_step=3)
    # 0 + 0.9 * 1 + 0.81 * 2 = 2.52; 1 + 0.9 * 2 = 2.8; 2
    assert [found[n][2:] for n in range(3)] == [
        (3, 2.52, discounts[0]), (3, 2.8, discounts[1]), (3, 2.0, discounts[2])]


def test_no_stack_and_no_return_reaches_across_a_lost_step() -> None:
    replay = buffer()
    for step in (0, 1, 2, 4, 5, 6, 7):
        replay.add(record(step, step))
    found = transitions(replay, n_step=5)
    assert sorted(found) == [0, 1, 6]
    assert found[1][2:4] == (2, 1.0)
    assert found[6] == ((4, 5, 6), (5, 6, 7), 7, 6.0, 0.9)


def test_an_episode_whose_start_was_lost_is_used_as_soon_as_a_stack_is_whole() -> None:
    replay = buffer()
    for step in range(5, 10):
        replay.add(record(step, step))
    assert sorted(transitions(replay)) == [7, 8]


def test_two_vehicles_may_interleave() -> None:
    replay = buffer()
    for step in range(3):
        replay.add(record(step, step, vehicle='a'))
        replay.add(record(100 + step, step, vehicle='b'))
    assert transitions(replay) == {
        0: ((0, 0, 0), (0, 0, 1), 1, 0.0, 0.9), 1: ((0, 0, 1), (0, 1, 2), 2, 1.0, 0.9),
        100: ((100, 100, 100), (100, 100, 101), 101, 100.0, 0.9),
        101: ((100, 100, 101), (100, 101, 102), 102, 101.0, 0.9)}


def test_a_restarted_vehicle_of_the_same_name_comes_under_a_new_session() -> None:
    replay = buffer()
    replay.add(record(0, 0, episode=7, session='one'))
    replay.add(record(1, 0, episode=0, session='two'))
    replay.add(record(2, 1, episode=0, session='two'))
    assert sorted(transitions(replay)) == [1]


def test_an_overwritten_frame_takes_its_stacks_with_it() -> None:
    replay = buffer(capacity=5)
    for step in range(8):
        replay.add(record(step, step))
    # Steps 3 to 7 are left; the stack of 4 would need frame 2.
    assert sorted(transitions(replay)) == [5, 6]
    assert len(replay) == 2 and replay.steps == 5 and replay.total == 8


class NaiveReplay:
    """Whole stacks in lists, with the same rules, the obvious way."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.steps: list[StepRecord] = []

    def transitions(self, n_step: int
                    ) -> dict[int, tuple[tuple[int, ...], tuple[int, ...], int, float, float]]:
        kept = self.steps[-self.capacity:]
        # What had been forgotten when a step came cannot be tied to it either.
        by_key = {(r.vehicle, r.episode, r.step): r for r in kept}
        found = {}
        for one in kept:
            stack = self.stack(by_key, one)
            following = self.after(by_key, one)
            if stack is None or following is None:
                continue
            reward, discount, last = 0.0, 1.0, one
            for _ in range(n_step):
                after = self.after(by_key, last)
                if after is None:
                    break
                assert last.reward is not None
                reward += discount * last.reward
                discount, last = discount * GAMMA, after
            next_stack = self.stack(by_key, last)
            assert next_stack is not None
            found[int(one.state[0])] = (stack, next_stack, int(last.state[0]), round(reward, 3),
                                        0.0 if last.is_terminal else round(discount, 5))
        return found

    @staticmethod
    def after(by_key: dict[tuple[str, int, int], StepRecord], one: StepRecord
              ) -> StepRecord | None:
        return by_key.get((one.vehicle, one.episode, one.step + 1))

    @staticmethod
    def stack(by_key: dict[tuple[str, int, int], StepRecord], one: StepRecord
              ) -> tuple[int, ...] | None:
        numbers = []
        for back in range(STACK):
            seen = by_key.get((one.vehicle, one.episode, max(0, one.step - back)))
            if seen is None:
                return None
            numbers.append(int(seen.frame[0, 0]))
        return tuple(reversed(numbers))


def _truncations_end_it(replay: ReplayBuffer) -> None:
    """Take every last step for terminal, as if a time limit were a crash."""
    add = replay.add
    replay.add = lambda one: add(dataclasses.replace(  # type: ignore[method-assign]
        one, is_terminal=one.is_last))


def _crashes_bootstrap(replay: ReplayBuffer) -> None:
    add = replay.add
    replay.add = lambda one: add(dataclasses.replace(  # type: ignore[method-assign]
        one, is_terminal=False))


def _stacks_ignore_gaps(replay: ReplayBuffer) -> None:
    add, count = replay.add, iter(range(1, 1000))
    replay.add = lambda one: add(dataclasses.replace(  # type: ignore[method-assign]
        one, step=next(count), is_first=False) if one.step else one)


@pytest.mark.parametrize('broken', [None, _truncations_end_it, _crashes_bootstrap,
                                    _stacks_ignore_gaps])
def test_a_replay_broken_on_purpose_is_noticed(broken: Callable[[ReplayBuffer], None] | None
                                               ) -> None:
    replay, naive = buffer(), NaiveReplay(64)
    if broken is not None:
        broken(replay)
    for number, step in enumerate((0, 1, 2, 4, 5, 6, 7, 8)):
        naive.steps.append(record(number, step, last=step == 8))
    for number in range(20, 24):
        naive.steps.append(record(number, number - 20, episode=1, last=number == 23,
                                  terminal=number == 23))
    for one in naive.steps:
        replay.add(one)
    assert (transitions(replay) == naive.transitions(n_step=1)) == (broken is None)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[StepRecord]]:
    """Draw a capacity and a stream of steps of up to three vehicles with lost ones in it."""
    capacity = draw(st.integers(4, 24))
    made: list[StepRecord] = []
    at = dict.fromkeys('abc'[:draw(st.integers(1, 3))], (0, 0))
    for number in range(draw(st.integers(2, 40))):
        vehicle = draw(st.sampled_from(sorted(at)))
        episode, step = at[vehicle]
        kind = draw(st.sampled_from(('step',) * 8 + ('lost', 'truncated', 'terminal')))
        last = kind in ('truncated', 'terminal')
        if kind != 'lost':
            made.append(record(number, step, vehicle=vehicle, episode=episode, last=last,
                               terminal=kind == 'terminal'))
        at[vehicle] = (episode + 1, 0) if last else (episode, step + 1)
    return capacity, made


ALIKE = st.sampled_from((TRANSITIONS, VEHICLES))


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(1, 4), ALIKE)
def test_sampling_equals_a_naive_buffer_that_stores_whole_stacks(
        history: tuple[int, list[StepRecord]], n_step: int, alike: str) -> None:
    capacity, steps = history
    replay, naive, expected = buffer(capacity, alike=alike), NaiveReplay(capacity), {}
    for step in steps:
        replay.add(step)
        naive.steps.append(step)
        expected = naive.transitions(n_step)
        assert len(replay) == len(expected)
    if expected:
        assert transitions(replay, n_step, 60 * len(expected)) == expected


@settings(max_examples=50, deadline=None)
@given(histories(), st.integers(4, 24), ALIKE)
def test_an_exported_buffer_goes_on_as_the_same_buffer(
        history: tuple[int, list[StepRecord]], other_capacity: int, alike: str) -> None:
    capacity, steps = history
    replay, half = buffer(capacity, alike=alike), len(steps) // 2
    for step in steps[:half]:
        replay.add(step)
    exported = replay.state_dict()
    copy = buffer(capacity, seed=9, alike=alike)
    smaller = buffer(min(capacity, other_capacity), alike=alike)
    naive = NaiveReplay(min(capacity, other_capacity))
    naive.steps = steps
    for other in (copy, smaller):
        other.load_state_dict(exported, [replay.segment(0, replay.total)])
    for step in steps[half:]:
        for one in (replay, copy, smaller):
            one.add(step)
    assert len(copy) == len(replay)
    if len(replay):
        ours, theirs = replay.sample(16, GAMMA, 2), copy.sample(16, GAMMA, 2)
        assert all(bool((a == b).all()) for a, b in zip(ours, theirs, strict=True))
    if len(smaller):
        found = transitions(smaller, 2, 60 * len(smaller))
        assert found == naive.transitions(2)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'frame': np.zeros((SIZE, SIZE + 1), np.uint8)}, r'frame is uint8\[4, 5\]'),
    ({'frame': np.zeros((SIZE, SIZE), np.float32)}, r'frame is float32'),
    ({'state': np.zeros(3, np.float32)}, r'state has shape \[3\], expected \[2\]'),
    ({'state': np.array((np.nan, 0), np.float32)}, r'state \[nan, 0.0\] is not finite'),
    ({'action': np.array((0, 1.5), np.float32)}, r'action \[0.0, 1.5\] is outside'),
    ({'action': np.array((np.inf, 0), np.float32)}, r'action \[inf, 0.0\] is not finite'),
    ({'action': None}, 'no action'),
    ({'reward': None}, 'no reward'),
    ({'reward': float('nan')}, 'reward nan is not finite'),
    ({'is_terminal': True}, 'is_terminal without is_last'),
    ({'step': -1}, 'must not be negative'),
    ({'step': 1}, 'duplicate or out of order.*step 1'),
    ({'step': 0}, 'duplicate or out of order'),
    ({'is_first': True}, 'is_first, but the episode already has step 1')])
def test_a_broken_step_is_refused_and_changes_nothing(changes: dict[str, Any],
                                                      message: str) -> None:
    replay = buffer()
    replay.add(record(0, 0))
    replay.add(record(1, 1))
    with pytest.raises(ReplayError, match=message):
        replay.add(record(2, **({'step': 2} | changes)))
    assert replay.steps == 2
    replay.add(record(2, 2))
    assert transitions(replay)[1] == ((0, 0, 1), (0, 1, 2), 2, 1.0, 0.9)


def test_a_step_after_the_end_of_its_episode_is_refused() -> None:
    replay = buffer()
    replay.add(record(0, 0))
    replay.add(record(1, 1, last=True))
    with pytest.raises(ReplayError, match='the episode ended at step 1'):
        replay.add(record(2, 2))


def test_the_last_step_needs_no_action_and_ignores_what_stands_there() -> None:
    replay = buffer()
    replay.add(record(0, 0))
    replay.add(record(1, 1, last=True, action=np.array((np.nan, 9), np.float32),
                      reward=float('nan')))
    assert transitions(replay)[0] == ((0, 0, 0), (0, 0, 1), 1, 0.0, 0.9)


def test_an_empty_buffer_says_so() -> None:
    replay = buffer()
    with pytest.raises(ReplayError, match='no transition to sample yet'):
        replay.sample(4, GAMMA, 1)
    replay.add(record(0, 0))
    with pytest.raises(ReplayError, match='no transition to sample yet'):
        replay.sample(4, GAMMA, 1)


def test_all_transitions_are_drawn_equally_often_and_by_the_seed() -> None:
    first, second = buffer(seed=5), buffer(seed=5)
    for replay in (first, second):
        for number in range(21):
            replay.add(record(number, number))
    drawn = first.sample(20_000, GAMMA, 1).state[:, 0].numpy().astype(int)
    counts = np.bincount(drawn, minlength=20)
    assert len(counts) == 20
    # Binomial with mean 1000 and standard deviation 31.
    assert np.abs(counts - 1000).max() < 5 * 31
    assert (second.sample(20_000, GAMMA, 1).state[:, 0].numpy() == drawn).all()


def shares_of(replay: ReplayBuffer, names: str, draws: int = 20_000) -> dict[str, float]:
    """Return the share of each vehicle in a batch; frames hold 50 times the vehicle's number."""
    drawn = replay.sample(draws, GAMMA, 1).frames[:, -1, 0, 0].numpy()
    return {name: float((drawn == 50 * number).mean()) for number, name in enumerate(names)}


def fill(replay: ReplayBuffer, name: str, number: int, first: int, last: int) -> None:
    """Add steps of a vehicle to a replay, all of one episode."""
    for step in range(first, last):
        replay.add(record(50 * number, step, vehicle=name))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(16, 200))
def test_each_vehicle_has_the_same_share_whatever_it_drove(lengths: list[int], capacity: int
                                                           ) -> None:
    replay, names = buffer(capacity, alike=VEHICLES), 'abcd'[:len(lengths)]
    for step in range(max(lengths)):  # together: at the end the longest one drives alone
        for number, name in enumerate(names):
            if step < lengths[number]:
                fill(replay, name, number, step, step + 1)
    there = [name for name, count in zip(names, replay.transitions_of(names), strict=True)
             if count]
    assert sum(replay.transitions_of(names)) == len(replay)
    if there:
        for name, share in shares_of(replay, names).items():
            wanted = 1 / len(there) if name in there else 0.0
            assert share == pytest.approx(wanted, abs=5 * 0.0036), name


def test_a_vehicle_that_joins_has_its_share_at_once_and_one_that_left_keeps_it() -> None:
    replay = buffer(100, alike=VEHICLES)
    fill(replay, 'a', 0, 0, 90)
    fill(replay, 'b', 1, 0, 3)
    assert shares_of(replay, 'ab') == pytest.approx({'a': 0.5, 'b': 0.5}, abs=0.02)
    uniform = buffer(100)
    fill(uniform, 'a', 0, 0, 90)
    fill(uniform, 'b', 1, 0, 3)
    assert shares_of(uniform, 'ab')['b'] < 0.05
    fill(replay, 'c', 2, 0, 97)  # nothing is left of a, all of b
    assert shares_of(replay, 'abc') == pytest.approx({'a': 0.0, 'b': 0.5, 'c': 0.5}, abs=0.02)


def test_a_replay_from_before_it_was_known_whose_steps_are_goes_on() -> None:
    replay = buffer(64, alike=VEHICLES)
    fill(replay, 'a', 0, 0, 10)
    state, segment = replay.state_dict(), replay.segment(0, replay.total)
    del state['vehicles'], segment['vehicle']
    other = buffer(64, alike=VEHICLES)
    other.load_state_dict(state, [segment])
    fill(other, 'b', 1, 0, 4)
    assert shares_of(other, 'ab') == pytest.approx({'a': 0.5, 'b': 0.5}, abs=0.02)


def test_a_transition_takes_at_most_8_kilobytes() -> None:
    assert ReplayBuffer(100).bytes_per_step <= 8192


def test_frames_can_live_in_a_file(tmp_path: Path) -> None:
    in_file, in_memory = buffer(8, path=tmp_path), buffer(8)
    for replay in (in_file, in_memory):
        for number in range(12):
            replay.add(record(number, number))
    assert not list(tmp_path.iterdir())  # it has no name: gone with the process, whatever happens
    assert str(tmp_path) in Path('/proc/self/maps').read_text()
    assert transitions(in_file) == transitions(in_memory)


def test_a_file_that_does_not_fit_on_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match='no folder: make it'):
        ReplayBuffer(10, 1, 84, STATE, path=tmp_path / 'nowhere')
    with pytest.raises(ReplayError, match=r'70560\.0 GB of frames in .*smaller capacity'):
        ReplayBuffer(10**10, 1, 84, STATE, path=tmp_path)


def test_what_is_irregular_is_counted() -> None:
    replay = buffer()
    replay.add(record(0, 0))
    replay.add(record(1, 1))
    replay.add(record(3, 3))  # step 2 is missing
    replay.add(record(4, 0, episode=1))  # episode 0 has not ended
    for _ in range(2):
        with pytest.raises(DuplicateError):
            replay.add(record(4, 0, episode=1))
    with pytest.raises(ReplayError, match='not finite'):
        replay.add(record(5, 1, episode=1, reward=float('nan')))
    replay.add(record(5, 1, episode=1, last=True))
    replay.add(record(6, 0, episode=0, session='after a restart'))
    replay.add(record(7, 0, vehicle='another'))
    assert replay.counts == ReplayCounts(broken=1, duplicate=2, gaps=1, unfinished=1, restarts=1)


def test_an_episode_that_never_ends_is_learned_from_all_the_same() -> None:
    replay = buffer(16)
    for step in range(1000):
        replay.add(record(step, step))
    assert sorted(transitions(replay)) == [n % 1000 for n in range(986, 999)]
    assert replay.counts == ReplayCounts()


def test_context_completes_its_neighbours_and_is_never_drawn() -> None:
    replay = buffer()
    for step in range(8):
        replay.add(record(step, step, is_context=step not in (3, 4)))
    assert len(replay) == 2
    assert transitions(replay, n_step=3) == {
        3: ((1, 2, 3), (4, 5, 6), 6, 3 + 0.9 * 4 + 0.81 * 5, 0.729),
        4: ((2, 3, 4), (5, 6, 7), 7, 4 + 0.9 * 5 + 0.81 * 6, 0.729)}


def test_observed_returns_are_those_of_episodes_that_have_ended() -> None:
    replay = buffer()
    assert len(replay.sample_returns(20, GAMMA, newest=50).reward) == 0
    for step in range(4):
        replay.add(record(step, step, last=step == 3, terminal=step == 3))
    for step in range(4):  # goes on: what will follow is not known
        replay.add(record(100 + step, step, episode=1))
    batch = replay.sample_returns(200, GAMMA, newest=50)
    assert {(int(s), round(float(r), 4)) for s, r in zip(batch.state[:, 0], batch.reward,
                                                         strict=True)} == {
        (0, 0 + 0.9 * 1 + 0.81 * 2), (1, 1 + 0.9 * 2), (2, 2.0)}
    assert len(replay.sample_returns(200, GAMMA, newest=3).reward) == 0
    seen = replay.sample_returns(9, 0.0, newest=50, seed=4).state
    assert (seen == replay.sample_returns(9, 0.0, newest=50, seed=4).state).all()


def test_a_vector_only_buffer_stores_no_frames() -> None:
    replay = ReplayBuffer(8, frames=0, state_size=STATE)
    for number in range(4):
        replay.add(record(number, number))
    batch = replay.sample(5, GAMMA, 1)
    assert batch.frames.shape == (5, 0, 0, 0) and batch.state.shape == (5, STATE)
    assert replay.bytes_per_step < 128


def test_adding_and_sampling_from_two_threads_never_mixes_steps() -> None:
    replay = buffer(capacity=50)
    for number in range(10):
        replay.add(record(number, number))

    def add_more() -> None:
        for number in range(10, 3000):
            replay.add(record(number, number))

    adder = threading.Thread(target=add_more)
    adder.start()
    for stack, next_stack, following, _, _ in _sampled_while(adder, replay):
        assert next_stack == tuple(n % 256 for n in range(following - 2, following + 1))
        assert stack == tuple(n % 256 for n in range(following - 3, following))
    adder.join()
    assert replay.total == 3000


def _sampled_while(adder: threading.Thread, replay: ReplayBuffer) -> Iterator[Any]:
    while adder.is_alive():
        for number, found in transitions(replay, draws=8).items():
            if number > STACK:
                yield found
