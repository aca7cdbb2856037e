"""The networks' sizes, normalisation and independence."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from av_td3_ros.td3 import PRESETS, Actor, Critic, NetworkSettings, architecture_hash

SMALL = NetworkSettings(frame_size=36, channels=(4, 4, 4), features=8, hidden=(16, 16))


@pytest.mark.parametrize(('waypoints', 'inputs'), [(1, 517), (10, 535), (25, 565)])
def test_the_paper_preset_has_the_sizes_of_the_nature_cnn(waypoints: int, inputs: int) -> None:
    network = dataclasses.replace(PRESETS['paper'][1], state_size=3 + 2 * waypoints)
    shapes = {name: tuple(p.shape) for name, p in Actor(network).named_parameters()}
    assert shapes['cnn.convolutions.0.weight'] == (32, 4, 8, 8)
    assert shapes['cnn.convolutions.1.weight'] == (64, 32, 4, 4)
    assert shapes['cnn.convolutions.2.weight'] == (64, 64, 3, 3)
    assert shapes['cnn.projection.weight'] == (512, 3136)
    assert shapes['head.0.weight'] == (256, inputs)


def test_actor_and_critic_share_no_parameter() -> None:
    actor, critic = Actor(SMALL), Critic(SMALL)
    ours = {p.data_ptr() for p in actor.parameters()}
    assert not ours & {p.data_ptr() for p in critic.parameters()}


def test_pixels_count_from_minus_one_to_one() -> None:
    cnn = Actor(dataclasses.replace(SMALL, layer_norm=False)).cnn
    assert cnn is not None
    frames = torch.randint(0, 256, (5, 4, 36, 36), dtype=torch.uint8)
    x = frames.float() / 127.5 - 1.0
    for conv in cnn.convolutions:
        x = torch.relu(conv(x))
    expected = cnn.scale * torch.tanh(cnn.projection(x.permute(0, 2, 3, 1).flatten(1)))
    torch.testing.assert_close(cnn(frames), expected, atol=1e-5, rtol=1e-4)


def test_the_memory_format_of_the_frames_changes_nothing() -> None:
    cnn = Actor(SMALL).cnn
    assert cnn is not None
    frames = torch.randint(0, 256, (5, 4, 36, 36), dtype=torch.uint8)
    channels_last = frames.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(cnn(frames), cnn(channels_last))


def test_one_observation_gives_one_action_near_zero_at_first() -> None:
    actor = Actor(NetworkSettings())
    frames = np.random.default_rng(0).integers(0, 256, (4, 84, 84), dtype=np.uint8)
    action = actor.act(frames, np.zeros(53, np.float32))
    assert action.shape == (2,) and action.dtype == np.float32
    assert np.abs(action).max() < 0.2


@pytest.mark.parametrize('change', [{'frames': 0}, {'state_size': 0}])
def test_camera_or_vector_alone_is_enough(change: dict[str, int]) -> None:
    network = dataclasses.replace(SMALL, **change)
    frames = torch.zeros(3, network.frames, 36, 36, dtype=torch.uint8)
    state = torch.zeros(3, network.state_size)
    assert Actor(network)(frames, state).shape == (3, 2)
    q1, q2 = Critic(network)(frames, state, torch.zeros(3, 2))
    assert q1.shape == q2.shape == (3,)


def test_a_network_that_sees_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match='frames = 0 and state_size = 0'):
        NetworkSettings(frames=0, state_size=0)
    with pytest.raises(ValueError, match='channels'):
        NetworkSettings(channels=(32, 64))


def test_the_architecture_hash_tells_what_matters_from_what_does_not() -> None:
    first = architecture_hash(SMALL)
    assert first == architecture_hash(dataclasses.replace(SMALL, last_layer_scale=1.0))
    for change in ({'features': 9}, {'layer_norm': False}, {'feature_activation': 'relu'},
                   {'state_size': 23}):
        assert first != architecture_hash(dataclasses.replace(SMALL, **change))


def test_the_paper_preset_is_that_of_the_original() -> None:
    td3, network = PRESETS['paper']
    assert (td3.gamma, td3.tau, td3.batch_size, td3.learning_rate, td3.cnn_learning_rate,
            td3.policy_freq, td3.policy_noise, td3.noise_clip, td3.n_step) == (
                0.99, 0.005, 256, 3e-4, 1e-4, 2, 0.2, 0.5, 1)
    assert (td3.actor_clip_norm, td3.critic_clip_norm) == (1.0, 10.0)
    assert not td3.scale_policy_loss and td3.pre_activation_penalty == 0.0
    assert not network.layer_norm and network.feature_activation == 'relu'
