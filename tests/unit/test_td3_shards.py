"""A learner of two ranks, each a process: what each keeps, what is saved, and what is lost."""
from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_td3_learner import SETTINGS, step

from av_td3_ros.td3 import CheckpointError, StepRecord, learner, load_checkpoint
from av_td3_ros.td3.learner import Learner
from av_td3_ros.td3.ranks import FOLLOWER, RanksError, enlist
from av_td3_ros.td3.replay import VEHICLES, DuplicateError, ReplayBuffer, ReplayError
from av_td3_ros.td3.shards import ShardedReplay, pack_steps, rank_of, shares, unpack_steps
from av_td3_ros.td3.vehicle_steps import weights as weights_of

STEPS = 60  # of six episodes
UPDATES = 4

Lead = Callable[..., Learner]


@pytest.fixture
def lead() -> Iterator[Lead]:
    """Return a function that starts a learner of two ranks."""
    started: list[Learner] = []

    def start(**changes: Any) -> Learner:
        started.append(learner.lead(dataclasses.replace(SETTINGS, ranks=2, **changes)))
        return started[-1]

    yield start
    for one in started:
        one.close()


def teach(one: Learner, first: int = 0, last: int = STEPS, reward: float = 1.0) -> None:
    """Let a learner take steps."""
    for number in range(first, last):
        one.take(dataclasses.replace(step(number), reward=reward))


def learn(one: Learner, updates: int = UPDATES) -> list[dict[str, float]]:
    """Return the curves of some updates, none of them skipped."""
    curves = []
    for _ in range(updates):
        assert one.wait(0.0)
        metrics = one.update()
        assert metrics is not None
        curves.append(dict(metrics))
    return curves


def weights(one: Learner) -> dict[str, torch.Tensor]:
    """Return copies of all weights."""
    return {f'{part}.{name}': tensor.clone() for part in ('actor', 'critic', 'actor_target')
            for name, tensor in getattr(one.agent, part).state_dict().items()}


def test_what_is_sent_to_a_rank_arrives_as_it_was() -> None:
    sent = [('replay', step(3)), ('demonstrations', dataclasses.replace(
        step(9), action=None, reward=None, policy_version=np.int64(7)))]
    for (name, there), (wanted, here) in zip(unpack_steps(pack_steps(sent)), sent, strict=True):
        assert name == wanted
        for field in dataclasses.fields(StepRecord):
            assert np.array_equal(getattr(there, field.name), getattr(here, field.name))


def test_an_episode_lies_with_one_rank_and_each_rank_has_as_many() -> None:
    ranks = [rank_of(step(number), 3) for number in range(90)]
    assert all(len(set(ranks[first:first + 10])) == 1 for first in range(0, 90, 10))
    assert [ranks.count(rank) for rank in range(3)] == [30, 30, 30]
    firsts = {rank_of(step(0, session=session), 3) for session in 'abcdefgh'}
    assert len(firsts) > 1  # not every vehicle begins with the same one


def test_the_larger_shard_counts_as_much_more() -> None:
    assert shares([30, 10]) == [0.75, 0.25]
    assert shares([0, 10]) == [0.0, 1.0]
    assert shares([0, 0]) == [0.5, 0.5]  # demonstrations, which all have


def test_of_vehicles_that_are_drawn_alike_each_counts_the_same_over_all_ranks() -> None:
    # The first vehicle has 30 and 10 transitions with the two ranks, the second one 0 and 2.
    assert weights_of([[30, 0], [10, 2]]) == [0.75, 1.25]
    assert weights_of([[0, 0], [0, 0]]) == [0, 0]
    buffers = []
    for lengths in ((31, 0), (11, 3)):
        one = ReplayBuffer(64, 0, 36, 2, alike=VEHICLES)
        for name, length in zip('ab', lengths, strict=True):
            for number in range(length):
                one.add(dataclasses.replace(step(0), vehicle=name, step=number, is_last=False,
                                            is_terminal=False, is_first=number == 0,
                                            state=np.array((ord(name), number), np.float32)))
        one.know_whole({'a': 40, 'b': 2})
        buffers.append(one)
    share = dict.fromkeys('ab', 0.0)
    for one, weight in zip(buffers, shares([0.75, 1.25]), strict=True):
        drawn = one.sample(20_000, 0.9, 1).state[:, 0].numpy()
        for name in share:
            share[name] += weight * float((drawn == ord(name)).mean())
    assert share == pytest.approx({'a': 0.5, 'b': 0.5}, abs=0.02)


def test_two_ranks_draw_vehicles_alike(lead: Lead) -> None:
    one = lead(sampling=VEHICLES)
    for name, episodes in (('long', 8), ('short', 1)):  # the short one lies with one rank alone
        for number in range(10 * episodes):
            one.take(dataclasses.replace(step(number), vehicle=name))
    one.begin_driving()
    learn(one)
    held = one.own.transitions_of(['long', 'short'])
    assert held[0] == 36 and sum(held) in (36, 45)
    whole = [72, 9]
    weight = sum(here / there for here, there in zip(held, whole, strict=True)) / 2
    assert isinstance(one.replay, ShardedReplay)
    assert one.replay.round() == pytest.approx(weight)


def test_two_ranks_share_out_learn_save_and_go_on_as_if_never_interrupted(
        lead: Lead, tmp_path: Path) -> None:
    one = lead(run=str(tmp_path / 'run'))
    teach(one)
    one.take_demonstration(step(1000))
    one.take_demonstration(step(1001))
    one.begin_driving()
    one.wait(0.0)  # hands out what the other one keeps
    assert len(one.own) == len(one.replay) // 2 == 27
    assert (one.replay.total, len(one.demonstrations)) == (STEPS, 1)
    with pytest.raises(DuplicateError):
        one.take(step(STEPS - 1))
    with pytest.raises(ReplayError, match='state has shape'):
        one.take(dataclasses.replace(step(STEPS), state=np.zeros(3, np.float32)))
    assert (one.replay.counts.duplicate, one.replay.counts.broken) == (1, 1)
    learn(one)
    one.save()  # refuses where the other rank has other weights
    saved = load_checkpoint(one.checkpoint)
    assert (saved.ranks, saved.stored_steps) == (2, STEPS)
    teach(one, STEPS, STEPS + 20)
    curves, wanted, size = learn(one), weights(one), len(one.replay)
    one.close()

    with pytest.raises(CheckpointError, match=r'replay of 2 ranks, here are 1; go on with ranks'):
        Learner(dataclasses.replace(SETTINGS, resume=str(saved.path)))
    again = lead(resume=str(saved.path))
    again.begin_driving()
    with pytest.raises(DuplicateError):
        again.take(step(STEPS - 1))  # the other rank has it
    teach(again, STEPS, STEPS + 20)
    assert learn(again)[1:] == curves[1:]  # the first one tells of the actor's before, too
    assert len(again.replay) == size
    for name, weight in weights(again).items():
        assert torch.equal(weight, wanted[name]), name


def test_one_rank_without_data_or_with_bad_data_holds_nobody_up(lead: Lead, tmp_path: Path
                                                                ) -> None:
    one = lead(run=str(tmp_path), skips_tolerated=2)
    near, far = ([number for number in range(STEPS) if rank_of(step(number), 2) == rank]
                 for rank in (0, 1))
    for number in near[:20]:
        one.take(step(number))
    one.begin_driving()
    learn(one, 2)
    one.save()
    good = one.checkpoint
    before = weights(one)
    for number in far[-10:]:
        one.take(dataclasses.replace(step(number), reward=1e30))  # its square is not finite
    assert one.wait(0.0) and one.update() is None and one.update() is None
    assert one.agent.skipped == 2
    for name, weight in weights(one).items():
        assert torch.equal(weight, before[name]), name
    assert f'went back to {good}' in one.recover()
    one.save()  # the other rank went back as well


def test_a_rank_that_is_killed_ends_the_learner_with_its_name(lead: Lead) -> None:
    one = lead()
    teach(one)
    one.begin_driving()
    learn(one, 1)
    (process,) = one.ranks.processes.values()
    os.kill(process.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(RanksError, match='rank 1 of 2 was killed by SIGKILL'):
        learn(one, 3)
    assert time.monotonic() - started < 10.0


def test_a_rank_that_is_silent_ends_the_learner(lead: Lead) -> None:
    one = lead(rank_timeout=12.0)  # also what the other rank has to come into being
    teach(one)
    one.begin_driving()
    learn(one, 1)
    (process,) = one.ranks.processes.values()
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RanksError, match='has lost the others'):
            learn(one, 3)
    finally:
        os.kill(process.pid, signal.SIGKILL)


def test_more_ranks_than_gpus_are_refused() -> None:
    if torch.cuda.device_count() >= 64:
        pytest.skip('there are as many')
    with pytest.raises(ValueError, match='each rank needs a GPU of its own'):
        enlist(64, 'cuda', 10.0)


def test_more_ranks_than_cores_are_refused() -> None:
    with pytest.raises(ValueError, match=r'ranks = 5000 on the processor: this process may use'):
        enlist(5000, 'cpu', 10.0)


def test_a_rank_whose_first_one_is_gone_ends_at_once() -> None:
    gone = subprocess.Popen(['true'])
    gone.wait()
    rank = subprocess.run([sys.executable, '-m', FOLLOWER, '--port', '1', '--parent',
                           str(gone.pid)], capture_output=True, text=True, check=False)
    assert (rank.returncode, rank.stderr) == (1, f'[FATAL] rank 0, process {gone.pid}, is gone\n')
