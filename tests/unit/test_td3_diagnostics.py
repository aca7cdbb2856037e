"""Health figures: each one says what it is meant to say."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from av_td3_ros.td3 import TD3, NetworkSettings, ReplayBuffer, StepRecord, TD3Settings
from av_td3_ros.td3.diagnostics import NOW, examine, examine_cnn

NETWORK = NetworkSettings(frame_size=36, state_size=2, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
SETTINGS = TD3Settings(batch_size=8, precision='float32', gamma=0.5)


def filled() -> ReplayBuffer:
    """Return ten ended episodes of ten steps that earn 1 each, driven by policies 0 to 9."""
    replay, random = ReplayBuffer(200, 4, 36, 2), np.random.default_rng(0)
    for number in range(110):
        episode, step = divmod(number, 11)
        replay.add(StepRecord('ego', episode, step, random.integers(0, 256, (36, 36), np.uint8),
                              np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, step == 0,
                              step == 10, step == 10, episode))
    return replay


def test_values_are_compared_with_the_returns_that_followed() -> None:
    agent, replay = TD3(SETTINGS, NETWORK), filled()
    with torch.no_grad():
        last = agent.critic.head1[-1]
        last.weight.zero_()
        last.bias.fill_(7.0)
    found = examine(agent, replay, policy_version=12)
    # 1 + 0.5 + 0.25 + ...: between 1 and 2, by how far the end is.
    assert 1.5 < found['observed_return_mean'] < 2.0
    assert found['q_overestimation'] == pytest.approx(7.0 - found['observed_return_mean'])
    assert found['policy_age_mean'] == pytest.approx(12 - 4.5)
    newest = replay.stored('policy_version')[-NOW:]
    assert found['newest_policy_age'] == pytest.approx(12 - newest.mean())
    assert found['newest_policy_age'] < found['policy_age_mean']
    assert found['draws_per_transition'] == 0.0


def test_learning_moves_the_weights_and_counts_the_draws() -> None:
    agent, replay = TD3(SETTINGS, NETWORK), filled()
    before = examine(agent, replay, 1)
    assert before['actor_cnn_weight_change'] == before['critic_cnn_weight_change'] == 0.0
    for _ in range(11):
        agent.train(replay)
    after = examine(agent, replay, 1)
    assert after['critic_cnn_weight_change'] > 0.0 and after['actor_cnn_weight_change'] > 0.0
    assert after['draws_per_transition'] == pytest.approx(11 * 8 / 110)


def test_looking_changes_nothing_of_what_is_learned() -> None:
    ends = []
    for looks in (0, 3):
        agent, replay = TD3(SETTINGS, NETWORK), filled()
        for _ in range(4):
            agent.train(replay)
            for _ in range(looks):
                examine(agent, replay, 1)
        ends.append(agent.actor.head[0].weight.detach().clone())
    assert torch.equal(*ends)


def test_dead_units_are_those_that_never_answer() -> None:
    agent = TD3(SETTINGS, NETWORK)
    frames = torch.randint(0, 256, (16, 4, 36, 36), dtype=torch.uint8)
    cnn = agent.actor.cnn
    assert cnn is not None
    alive = examine_cnn(cnn, frames)
    assert alive['dead_units'] < 0.3 and alive['feature_std'] > 0.0
    with torch.no_grad():
        cnn.convolutions[2].bias.fill_(-1e6)
    dead = examine_cnn(cnn, frames)
    assert dead['dead_units'] >= 1 / 3 and dead['feature_std'] == pytest.approx(0.0, abs=1e-6)
    assert dead['feature_norm'] >= 0.0


def test_nothing_to_look_at_is_left_out() -> None:
    agent = TD3(SETTINGS, dataclasses.replace(NETWORK, frames=0))
    assert examine(agent, ReplayBuffer(10, 0, 36, 2), 1) == {}


def test_data_of_another_run_has_no_age_and_empty_slots_do_not_count() -> None:
    agent, replay = TD3(SETTINGS, NETWORK), ReplayBuffer(5000, 4, 36, 2)
    for number in range(110):
        episode, step = divmod(number, 11)
        replay.add(StepRecord('ego', episode, step, np.zeros((36, 36), np.uint8),
                              np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, step == 0,
                              step == 10, False, -1 if episode < 5 else 8))
    assert examine(agent, replay, 10)['policy_age_mean'] == 2.0
    assert examine(agent, replay, 10, drawn=220)['draws_per_transition'] == 2.0
    assert replay.stored('policy_version').tolist() == [-1] * 55 + [8] * 55
