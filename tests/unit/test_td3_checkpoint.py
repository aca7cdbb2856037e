"""Checkpoints: exact resume, whole or not at all, and refusals with their reason."""
from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from av_td3_ros.td3 import (
    TD3,
    CheckpointError,
    Checkpoints,
    LimiterSettings,
    NetworkSettings,
    ReplayBuffer,
    StepRecord,
    TD3Settings,
    UpdateLimiter,
    checkpoint,
    load_checkpoint,
)
from av_td3_ros.td3.demonstrations import MixedReplay
from av_td3_ros.td3.replay import SEGMENT

torch.set_num_threads(1)

NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
SETTINGS = TD3Settings(batch_size=8, precision='float32')


def add_steps(replay: ReplayBuffer, first: int, count: int) -> None:
    """Add the steps of two interleaved vehicles, the same for the same numbers."""
    for number in range(first, first + count):
        episode, step = divmod(number // 2, 30)
        random = np.random.default_rng(number)
        replay.add(StepRecord(
            f'vehicle{number % 2}', episode, step,
            random.integers(0, 256, (36, 36), dtype=np.uint8),
            random.normal(size=3).astype(np.float32),
            random.uniform(-1, 1, 2).astype(np.float32), float(random.normal()), step == 0,
            step == 29, step == 29 and episode % 2 == 1))


def learner(seed: int = 0, capacity: int = 300) -> tuple[TD3, ReplayBuffer, UpdateLimiter]:
    """Return everything that a checkpoint holds."""
    replay = ReplayBuffer(capacity, NETWORK.frames, NETWORK.frame_size, NETWORK.state_size, seed)
    return TD3(SETTINGS, NETWORK, seed), replay, UpdateLimiter(LimiterSettings())


def bits(agent: TD3) -> list[bytes]:
    """Return every number that learning depends on, as bytes."""
    tensors = [p for part in (agent.actor, agent.critic, agent.actor_target, agent.critic_target)
               for p in part.parameters()]
    tensors += [t for optimizer in (agent.actor_optimizer, agent.critic_optimizer)
                for t in optimizer.tensors().values()]
    return [t.detach().numpy().tobytes() for t in tensors] + [
        agent.generator.get_state().numpy().tobytes()]


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    agent, replay, limiter = learner()
    add_steps(replay, 0, 400)
    limiter.received(400)
    for _ in range(7):
        agent.train(replay)
        limiter.updated()
    Checkpoints(tmp_path).save(agent, replay, limiter, {'sequence': 17}, {'steps': 9})

    resumed, resumed_replay, resumed_limiter = learner(seed=5)
    checkpoint = load_checkpoint(tmp_path)
    checkpoint.restore(resumed, resumed_replay, resumed_limiter)
    assert checkpoint.counters == {'sequence': 17} and checkpoint.config == {'steps': 9}
    assert (resumed.updates, resumed_limiter.updates, resumed_limiter.transitions) == (7, 7, 400)
    assert len(resumed_replay) == len(replay)
    for one, memory in ((agent, replay), (resumed, resumed_replay)):
        for round_ in range(7):
            add_steps(memory, 400 + 10 * round_, 10)
            one.train(memory)
    assert bits(agent) == bits(resumed)


def test_demonstrations_and_the_first_weights_come_back_too(tmp_path: Path) -> None:
    agent, replay, _ = learner()
    shown = ReplayBuffer(2 * SEGMENT, 4, 36, 3, seed=9)
    add_steps(replay, 0, 100)
    add_steps(shown, 500, SEGMENT + 50)
    mixed = MixedReplay(replay, shown, 0.5)
    for _ in range(3):
        agent.train(mixed)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(agent, replay, demonstrations=shown)
    checkpoints.save(agent, replay, demonstrations=shown)  # full segments are shared

    resumed, memory, _ = learner(seed=5)
    demonstrations = ReplayBuffer(2 * SEGMENT, 4, 36, 3, seed=1)
    load_checkpoint(tmp_path).restore(resumed, memory, demonstrations=demonstrations)
    assert len(demonstrations) == len(shown)
    for one, source in ((agent, mixed), (resumed, MixedReplay(memory, demonstrations, 0.5))):
        for _ in range(3):
            one.train(source)
    assert bits(agent) == bits(resumed)
    for name, weights in agent.first_cnns['critic'].items():
        assert torch.equal(weights, resumed.first_cnns['critic'][name])
    Checkpoints(tmp_path / 'without').save(agent, replay)
    with pytest.raises(CheckpointError, match='holds no demonstrations'):
        load_checkpoint(tmp_path / 'without').restore(resumed, memory,
                                                      demonstrations=demonstrations)


@pytest.mark.parametrize('updates', [0, 4])
def test_going_back_changes_the_agent_in_place(tmp_path: Path, updates: int) -> None:
    agent, replay, _ = learner()
    add_steps(replay, 0, 100)
    for _ in range(updates):
        agent.train(replay)
    path = Checkpoints(tmp_path).save(agent, replay)
    wanted = bits(agent)
    for _ in range(4):
        agent.train(replay)
    before = {name: tensor.data_ptr() for name, tensor in agent.critic_optimizer.tensors().items()}
    load_checkpoint(path).restore(agent)
    after = agent.critic_optimizer.tensors()
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == before
    if updates:
        assert bits(agent) == wanted
    else:  # as good as none
        assert all(not tensor.any() for tensor in after.values())


def test_a_checkpoint_before_the_first_update_resumes_too(tmp_path: Path) -> None:
    agent, replay, _ = learner()
    Checkpoints(tmp_path).save(agent, replay)
    resumed, resumed_replay, _ = learner(seed=3)
    load_checkpoint(tmp_path).restore(resumed, resumed_replay)
    for memory in (replay, resumed_replay):
        add_steps(memory, 0, 50)
    agent.train(replay)
    resumed.train(resumed_replay)
    assert bits(agent) == bits(resumed)


def test_the_actor_can_be_taken_out_to_drive(tmp_path: Path) -> None:
    agent, _, _ = learner()
    path = Checkpoints(tmp_path).save(agent)
    frames = np.random.default_rng(0).integers(0, 256, (4, 36, 36), dtype=np.uint8)
    state = np.ones(3, np.float32)
    actor = load_checkpoint(path).actor()
    assert (actor.act(frames, state) == agent.actor.act(frames, state)).all()


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    agent, _, _ = learner()
    checkpoints = Checkpoints(tmp_path, keep=2)
    for updates, score in ((10, 1.0), (20, 5.0), (30, None), (40, 3.0), (50, None)):
        agent.updates = updates
        checkpoints.save(agent, score=score)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['00000020', '00000040', '00000050', 'best', 'latest']
    assert os.readlink(tmp_path / 'latest') == '00000050'
    assert os.readlink(tmp_path / 'best') == '00000020'
    assert load_checkpoint(tmp_path).updates == 50
    assert load_checkpoint(tmp_path / 'best').score == 5.0
    agent.updates = 60
    Checkpoints(tmp_path, keep=2).save(agent, score=4.0)
    assert os.readlink(tmp_path / 'best') == '00000020'


def test_a_pinned_checkpoint_is_kept_under_its_name(tmp_path: Path) -> None:
    agent, _, _ = learner()
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(agent, pin='untrained')
    for agent.updates in range(1, 4):
        checkpoints.save(agent)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        '00000000', '00000003', 'latest', 'untrained']
    assert load_checkpoint(tmp_path / 'untrained').updates == 0


def test_saving_twice_at_the_same_update_keeps_the_later(tmp_path: Path) -> None:
    agent, _, _ = learner()
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(agent, counters={'n': 1})
    checkpoints.save(agent, counters={'n': 2})
    assert load_checkpoint(tmp_path).counters == {'n': 2}
    assert len([path for path in tmp_path.iterdir() if path.name != 'latest']) == 1


def test_full_replay_segments_are_written_once_and_shared(tmp_path: Path) -> None:
    agent, replay, _ = learner(capacity=3 * SEGMENT)
    checkpoints = Checkpoints(tmp_path)
    add_steps(replay, 0, SEGMENT + 100)
    first = checkpoints.save(agent, replay)
    add_steps(replay, SEGMENT + 100, SEGMENT)
    agent.updates = 1
    second = checkpoints.save(agent, replay)
    inodes = [[(path / 'replay' / f'{i:08d}.safetensors').stat().st_ino for i in range(2)]
              for path in (first, second)]
    assert inodes[0][0] == inodes[1][0] and inodes[0][1] != inodes[1][1]
    copy = learner(capacity=3 * SEGMENT)[1]
    load_checkpoint(second).restore(learner()[0], copy)
    assert len(copy) == len(replay) and copy.total == 2 * SEGMENT + 100


def test_a_replay_that_was_set_back_does_not_reuse_old_segments(tmp_path: Path) -> None:
    agent, replay, _ = learner(capacity=3 * SEGMENT)
    checkpoints = Checkpoints(tmp_path)
    early = checkpoints.save(agent, replay)
    add_steps(replay, 0, SEGMENT)
    agent.updates = 1
    checkpoints.save(agent, replay)
    load_checkpoint(early).restore(agent, replay)
    add_steps(replay, 60, SEGMENT)  # other steps under the same numbers
    agent.updates = 2
    checkpoints.save(agent, replay)
    copy = learner(capacity=3 * SEGMENT)[1]
    load_checkpoint(tmp_path).restore(learner()[0], copy)
    ours, theirs = replay.sample(64, 0.9, 1), copy.sample(64, 0.9, 1)
    assert torch.equal(ours.state, theirs.state) and torch.equal(ours.frames, theirs.frames)


def _saved(tmp_path: Path) -> Path:
    agent, replay, limiter = learner()
    add_steps(replay, 0, 40)
    agent.train(replay)
    return Checkpoints(tmp_path).save(agent, replay, limiter)


@pytest.mark.parametrize('name', ['agent.safetensors', 'state.json', 'manifest.json',
                                  'replay/00000000.safetensors'])
@pytest.mark.parametrize('damage', ['truncated', 'altered', 'missing'])
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(tmp_path: Path, name: str,
                                                             damage: str) -> None:
    path = _saved(tmp_path) / name
    data = bytearray(path.read_bytes())
    if damage == 'missing':
        path.unlink()
    elif damage == 'truncated':
        path.write_bytes(data[:-10])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    agent, replay, limiter = learner(seed=8)
    before = bits(agent)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_checkpoint(path.parent if path.parent.name != 'replay' else path.parent.parent
                        ).restore(agent, replay, limiter)
    assert bits(agent) == before and replay.total == 0


def test_another_architecture_is_refused_by_what_differs(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    other = TD3(SETTINGS, dataclasses.replace(NETWORK, features=9))
    with pytest.raises(CheckpointError, match='features 8 there, 9 here'):
        load_checkpoint(path).restore(other)


def test_a_replay_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    agent = learner(seed=8)[0]
    before = bits(agent)
    with pytest.raises(CheckpointError, match='frame_size = 36, this one has 84'):
        load_checkpoint(path).restore(agent, ReplayBuffer(10, state_size=3))
    assert bits(agent) == before


def test_a_place_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='no checkpoint here'):
        load_checkpoint(tmp_path / 'nowhere')


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    files = [file for file in path.rglob('*') if file.is_file()]
    assert {file.suffix for file in files} == {'.safetensors', '.json'}
    assert json.loads((path / 'state.json').read_text())['updates'] == 1


FILE_EVENTS = ('open', 'os.mkdir', 'os.rename', 'os.link', 'os.symlink', 'os.remove', 'os.rmdir')


PIECE = 20_000  # bytes that are written at once in these tests


def _killed_at(event_number: int) -> None:
    """End this process by SIGKILL when it is about to touch the disk for the n-th time."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == event_number:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(file: BinaryIO, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            file.write(data[start:start + PIECE])
            file.flush()
            count()

    sys.addaudithook(lambda event, arguments: count() if event in FILE_EVENTS else None)
    checkpoint.write_bytes = write


def test_a_process_killed_at_any_point_of_the_writing_leaves_a_whole_checkpoint(
        tmp_path: Path) -> None:
    agent, replay, limiter = learner(capacity=SEGMENT + 100)
    add_steps(replay, 0, SEGMENT + 40)
    checkpoints = Checkpoints(tmp_path, keep=2)  # knows a full segment, which is linked
    for agent.updates in range(3):
        checkpoints.save(agent, replay, limiter)
    newest, event_number, status = 2, 0, -1
    while status != 0:
        event_number += 1
        agent.updates = newest + 1
        child = os.fork()
        if child == 0:
            try:
                _killed_at(event_number)
                checkpoints.save(agent, replay, limiter)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL)
        found = load_checkpoint(tmp_path)
        other, other_replay, other_limiter = learner(seed=3, capacity=SEGMENT + 100)
        found.restore(other, other_replay, other_limiter)
        assert found.updates in (newest, newest + 1) and other_replay.total == SEGMENT + 40
        newest = found.updates
    # Every stage was hit: before the rename nothing new is seen, after it the new one is.
    assert event_number > 15 and newest > 2
    assert not list(tmp_path.glob('.writing-*'))


def test_a_checkpoint_of_another_device_leaves_the_randomness_alone(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    state = json.loads((path / 'state.json').read_text())
    state |= {'device': 'cuda', 'generator': base64.b64encode(bytes(16)).decode()}
    data = json.dumps(state).encode()
    (path / 'state.json').write_bytes(data)
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest['state.json'] = {'size': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
    (path / 'manifest.json').write_text(json.dumps(manifest))
    agent = learner(seed=8)[0]
    before = agent.generator.get_state()
    load_checkpoint(path).restore(agent)
    assert torch.equal(agent.generator.get_state(), before)
    assert agent.updates == 1
