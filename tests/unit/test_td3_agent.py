"""TD3 as it behaves: metrics, precision, seeds, what it refuses, and that its actor lives."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from driving_data import driven_steps

from av_td3_ros.td3 import PRESETS, TD3, Batch, NetworkSettings, ReplayBuffer, StepRecord
from av_td3_ros.td3 import TD3Settings as Settings
from av_td3_ros.td3.agent import compute_type
from av_td3_ros.td3.augmentation import random_shift

torch.set_num_threads(1)

SMALL = NetworkSettings(frame_size=36, state_size=5, channels=(8, 8, 8), features=32,
                        hidden=(64, 64))
TINY = dataclasses.replace(SMALL, frames=1, channels=(4, 4, 4), features=16, hidden=(32, 32))
SETTINGS = Settings(batch_size=16, precision='float32')

METRICS = {
    'critic_loss', 'q1_mean', 'q1_std', 'q2_mean', 'q2_std', 'target_q_mean', 'target_q_std',
    'td_error_mean', 'td_error_max', 'actor_loss', 'q_policy_mean', 'saturated_fraction',
    *(f'{net}_{cnn}grad_norm{clipped}' for net in ('actor', 'critic') for cnn in ('', 'cnn_')
      for clipped in ('', '_clipped'))}


def filled_replay(steps: int = 400, seed: int = 0) -> ReplayBuffer:
    """Return a buffer of episodes in which steering towards a bright half is rewarded."""
    random = np.random.default_rng(seed)
    replay = ReplayBuffer(1000, SMALL.frames, SMALL.frame_size, SMALL.state_size, seed)
    for number in range(steps):
        episode, step = divmod(number, 40)
        side = random.integers(2)
        frame = random.integers(0, 128, (36, 36), dtype=np.uint8)
        frame[:, side * 18:][:, :18] += 127
        action = random.uniform(-1, 1, 2).astype(np.float32)
        reward = float(1.0 + action[0] * (1 if side else -1) - 0.5 * (action[1] - 0.3) ** 2)
        replay.add(StepRecord('ego', episode, step, frame,
                              random.normal(size=5).astype(np.float32), action, reward,
                              step == 0, step == 39, step == 39 and episode % 2 == 0))
    return replay


def weights_of(agent: TD3) -> dict[str, torch.Tensor]:
    """Return copies of all parameters, targets included."""
    return {f'{part}.{name}': p.detach().clone()
            for part in ('actor', 'critic', 'actor_target', 'critic_target')
            for name, p in getattr(agent, part).named_parameters()}


def test_every_metric_is_measured_and_finite() -> None:
    agent, replay = TD3(SETTINGS, SMALL), filled_replay()
    for _ in range(2):
        metrics = agent.train(replay)
    assert set(metrics) == METRICS
    assert all(math.isfinite(value) for value in metrics.values())
    assert agent.updates == 2


def test_the_logged_norms_are_those_before_and_after_the_clip() -> None:
    settings = dataclasses.replace(SETTINGS, critic_clip_norm=0.01, actor_clip_norm=1e-4)
    agent, replay = TD3(settings, SMALL), filled_replay()
    for _ in range(2):
        metrics = agent.train(replay)
    for part, limit in (('critic', 0.01), ('actor', 1e-4)):
        assert metrics[f'{part}_grad_norm'] > 2 * limit
        assert metrics[f'{part}_grad_norm_clipped'] == pytest.approx(limit, rel=1e-4)
        shrink = limit / metrics[f'{part}_grad_norm']
        assert metrics[f'{part}_cnn_grad_norm_clipped'] == pytest.approx(
            shrink * metrics[f'{part}_cnn_grad_norm'], rel=1e-4)
        gradients = [p.grad for p in getattr(agent, part).parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        assert norm == pytest.approx(limit, rel=1e-4)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    ends = []
    for seed in (1, 1, 2):
        agent, replay = TD3(SETTINGS, SMALL, seed), filled_replay()
        for _ in range(5):
            agent.train(replay)
        ends.append(weights_of(agent))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not torch.equal(ends[0]['actor.head.0.weight'], ends[2]['actor.head.0.weight'])


def test_making_an_agent_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    TD3(SETTINGS, SMALL, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_targets_include_the_cnns_and_move_every_second_update() -> None:
    agent, replay = TD3(SETTINGS, SMALL), filled_replay()
    before = weights_of(agent)
    agent.train(replay)
    between = weights_of(agent)
    agent.train(replay)
    after = weights_of(agent)
    for name in before:
        part, _, parameter = name.partition('.')
        moved_first = not torch.equal(before[name], between[name])
        assert moved_first == (part == 'critic'), name
        if part.endswith('_target'):
            online = after[f'{part.removesuffix("_target")}.{parameter}']
            torch.testing.assert_close(after[name], 0.99 * before[name] + 0.01 * online)
            assert not torch.equal(before[name], after[name]), name


class PoisonedReplay:
    """A replay whose batches have something that is not finite in them while `poison` is set."""

    def __init__(self, replay: ReplayBuffer, poison: dict[str, float]) -> None:
        self.replay, self.poison = replay, poison

    def sample(self, batch_size: int, gamma: float, n_step: int) -> Batch:
        """Return a batch, spoiled."""
        batch = self.replay.sample(batch_size, gamma, n_step)
        for name, value in self.poison.items():
            getattr(batch, name)[0] = value
        return batch


@pytest.mark.parametrize('poison', [{'reward': math.nan}, {'reward': math.inf},
                                    {'reward': 1e30}, {'state': math.nan},
                                    {'next_state': math.inf}])
def test_what_is_not_finite_never_reaches_a_weight(poison: dict[str, float]) -> None:
    agent, replay = TD3(SETTINGS, SMALL), PoisonedReplay(filled_replay(), {})
    for _ in range(2):
        agent.train(replay)
    before, replay.poison = weights_of(agent), poison
    for _ in range(3):
        metrics = agent.train(replay)
    assert (agent.updates, agent.skipped, agent.skipped_in_row) == (2, 3, 3)
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(torch.equal(p, before[name]) for name, p in weights_of(agent).items())
    replay.poison = {}
    agent.train(replay)
    assert (agent.updates, agent.skipped, agent.skipped_in_row) == (3, 3, 0)
    assert all(bool(p.isfinite().all()) for p in weights_of(agent).values())


def test_an_actor_loss_that_is_not_finite_leaves_actor_and_targets_alone() -> None:
    agent, replay = TD3(dataclasses.replace(SETTINGS, policy_freq=1), SMALL), filled_replay()
    agent.train(replay)
    before = weights_of(agent)
    agent.actor.pre_activation = (  # type: ignore[method-assign]
        lambda frames, state: next(agent.actor.parameters()).sum() * math.nan
        * torch.ones(len(frames), 2))
    metrics = agent.train(replay)
    assert (agent.updates, agent.skipped) == (1, 1)
    assert all(math.isfinite(value) for value in metrics.values())
    after = weights_of(agent)
    assert all(torch.equal(p, before[name]) for name, p in after.items()
               if not name.startswith('critic.'))
    assert all(bool(p.isfinite().all()) for p in after.values())


@pytest.mark.parametrize(('name', 'value'), [('gamma', 1.5), ('batch_size', 0), ('tau', -0.1),
                                             ('precision', 'half'), ('actor_clip_norm', 0.0)])
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f'td3: {name} = '):
        TD3(dataclasses.replace(SETTINGS, **{name: value}), SMALL)


def test_auto_precision_is_bfloat16_only_where_the_processor_has_it() -> None:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
        text = file.read()
    expected = torch.bfloat16 if 'avx512_bf16' in text or 'amx_bf16' in text else torch.float32
    assert compute_type('auto', 'cpu') == expected
    assert compute_type('float64', 'cpu') == torch.float64


def test_bfloat16_keeps_float32_weights() -> None:
    agent = TD3(dataclasses.replace(SETTINGS, precision='bfloat16'), SMALL)
    replay = filled_replay()
    agent.train(replay)
    metrics = agent.train(replay)
    assert all(p.dtype == torch.float32 for p in weights_of(agent).values())
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_it_learns_to_look_at_the_image(precision: str) -> None:
    settings = dataclasses.replace(SETTINGS, precision=precision, gamma=0.0, n_step=1,
                                   batch_size=32, learning_rate=1e-3, cnn_learning_rate=1e-3)
    agent, replay = TD3(settings, SMALL), filled_replay()
    for _ in range(400):
        agent.train(replay)
    frames = np.full((2, 4, 36, 36), 64, np.uint8)
    frames[0, :, :, :18] += 127
    frames[1, :, :, 18:] += 127
    left, right = (agent.actor.act(f, np.zeros(5, np.float32)) for f in frames)
    assert left[0] < -0.5 and right[0] > 0.5


def _meaningless_replay() -> ReplayBuffer:
    """Return transitions of noise whose rewards are large and say nothing about the actions."""
    random = np.random.default_rng(0)
    replay = ReplayBuffer(600, TINY.frames, TINY.frame_size, TINY.state_size)
    for number in range(500):
        step = number % 50
        replay.add(StepRecord(
            'ego', number // 50, step, random.integers(0, 256, (36, 36), dtype=np.uint8),
            random.normal(size=5).astype(np.float32),
            random.uniform(-1, 1, 2).astype(np.float32), float(random.normal(5.0, 2.0)),
            step == 0, step == 49, False))
    return replay


def _driving_replay() -> ReplayBuffer:
    """Return transitions of a noisy pursuit driver in the embedded simulator."""
    replay = ReplayBuffer(1200, TINY.frames, TINY.frame_size, 53)
    for record in driven_steps(1000, TINY.frame_size):
        replay.add(record)
    return replay


@pytest.mark.parametrize('data', [_meaningless_replay, _driving_replay])
def test_the_actor_stays_alive(data: Callable[[], ReplayBuffer]) -> None:
    replay = data()
    agent = TD3(SETTINGS, dataclasses.replace(TINY, state_size=replay.state_size))
    lowest, saturated = math.inf, 0.0
    for _ in range(2000):
        metrics = agent.train(replay)
        if agent.updates >= 2:
            lowest = min(lowest, metrics['actor_grad_norm'])
            saturated = metrics['saturated_fraction']
    assert lowest > 0.0
    assert saturated < 0.05


def test_without_the_protections_the_actor_saturates() -> None:
    paper, network = PRESETS['paper']
    network = dataclasses.replace(TINY, layer_norm=False, feature_activation='relu',
                                  last_layer_scale=network.last_layer_scale)
    agent = TD3(dataclasses.replace(paper, batch_size=16, precision='float32'), network)
    replay = _meaningless_replay()
    for _ in range(1000):
        metrics = agent.train(replay)
    assert metrics['saturated_fraction'] > 0.5


@pytest.mark.parametrize('count', [1, 3, 4])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_random_shift_moves_all_frames_of_a_stack_together_and_repeats_the_edge(
        count: int, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(10, dtype=torch.uint8)
    frames = (rows[:, None] * 16 + rows[None]).expand(64, count, 10, 10).contiguous(
        memory_format=layout)
    shifted = random_shift(frames, 2, generator)
    assert shifted.shape == frames.shape and shifted.dtype == torch.uint8
    seen = set()
    for stack in shifted:
        assert bool((stack == stack[0]).all())
        dy, dx = (int(stack[0, 5, 5]) // 16) - 5, (int(stack[0, 5, 5]) % 16) - 5
        seen.add((dy, dx))
        wanted = ((rows.int() + dy).clamp(0, 9)[:, None] * 16
                  + (rows.int() + dx).clamp(0, 9)[None])
        assert bool((stack[0] == wanted).all())
    assert len(seen) > 15 and all(abs(dy) <= 2 and abs(dx) <= 2 for dy, dx in seen)


def test_training_with_random_shift_works() -> None:
    agent, replay = TD3(dataclasses.replace(SETTINGS, random_shift=3), SMALL), filled_replay()
    assert math.isfinite(agent.train(replay)['critic_loss'])
