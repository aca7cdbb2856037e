"""The actor as an ONNX model drives as it does in torch."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from av_td3_ros.td3 import NetworkSettings
from av_td3_ros.td3.networks import Actor
from av_td3_ros.td3.onnx_actor import OnnxActor

torch.set_num_threads(1)
NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                          hidden=(8, 8), last_layer_scale=1.0)
Seen = tuple[np.ndarray, np.ndarray]


def actor(seed: int, network: NetworkSettings = NETWORK) -> Actor:
    """Return an untrained actor."""
    torch.manual_seed(seed)
    return Actor(network).eval()


def trained(seed: int, network: NetworkSettings = NETWORK) -> Actor:
    """Return an actor whose every parameter was learned: none is like another one any more."""
    made = actor(seed, network)
    with torch.no_grad():
        for one in made.parameters():
            one += 0.3 * torch.randn(one.shape)
    return made


def seen(network: NetworkSettings) -> list[Seen]:
    """Return observations at random."""
    random = np.random.default_rng(0)
    shape = network.frames, network.frame_size, network.frame_size
    return [(random.integers(0, 256, shape, np.uint8),
             random.standard_normal(network.state_size).astype(np.float32)) for _ in range(20)]


@pytest.mark.parametrize('changes', [
    {}, {'frames': 0}, {'state_size': 0}, {'layer_norm': False}, {'feature_activation': 'relu'}],
    ids=str)
def test_it_acts_as_the_actor(changes: dict[str, object]) -> None:
    network = dataclasses.replace(NETWORK, **changes)  # type: ignore[arg-type]
    own = actor(1, network)
    other = OnnxActor(own)
    for one in seen(network):
        assert other.act(*one) == pytest.approx(own.act(*one), abs=1e-5)


def test_renewed_it_acts_as_another_one_and_stays_itself() -> None:
    first, second = actor(1), trained(2)  # as a session begins, and as it goes on
    one = OnnxActor(first)
    other = one.renewed(second)
    assert {item.name for item in one._model.graph.initializer} == set(first.state_dict())
    for frames, state in seen(NETWORK):
        assert one.act(frames, state) == pytest.approx(first.act(frames, state), abs=1e-5)
        assert other.act(frames, state) == pytest.approx(second.act(frames, state), abs=1e-5)
        assert np.abs(one.act(frames, state) - other.act(frames, state)).max() > 1e-3
