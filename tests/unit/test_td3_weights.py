"""Actor weights: what is packed drives the same, and what does not verify is refused."""
from __future__ import annotations

import collections
import dataclasses
import gc
import hashlib

import numpy as np
import pytest
import safetensors.torch
import torch
from driving_data import driven_steps

from av_td3_ros.paths import pretrained_policy
from av_td3_ros.td3 import (
    Actor,
    ActorWeights,
    NetworkSettings,
    WeightsError,
    load_policy,
    pack,
    unpack,
)

NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))


def resealed(weights: ActorWeights, tensors: dict[str, torch.Tensor]) -> ActorWeights:
    """Return weights with other tensors and a hash that matches them."""
    data = safetensors.torch.save(tensors, {'version': str(weights.version),
                                            'architecture': weights.architecture})
    return dataclasses.replace(weights, data=data, sha256=hashlib.sha256(data).hexdigest())


def test_unpacked_weights_drive_as_the_packed_ones() -> None:
    sender, receiver = Actor(NETWORK), Actor(NETWORK)
    weights = pack(sender, version=12)
    receiver.load_state_dict(unpack(weights, NETWORK))
    frames = np.random.default_rng(0).integers(0, 256, (4, 36, 36), dtype=np.uint8)
    state = np.ones(3, np.float32)
    assert weights.version == 12
    assert (sender.act(frames, state) == receiver.act(frames, state)).all()


def test_weights_of_a_double_precision_actor_are_sent_as_float32() -> None:
    tensors = unpack(pack(Actor(NETWORK).double(), 1), NETWORK)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_what_is_sent_for_hours_leaves_nothing_for_the_garbage_collector() -> None:
    actor = Actor(NETWORK)
    pack(actor, version=1)
    gc.collect()
    gc.disable()
    try:
        for version in range(50):
            pack(actor, version)
        assert gc.collect() < 50
    finally:
        gc.enable()


def test_half_precision_takes_half_the_bytes_and_acts_the_same() -> None:
    policy = load_policy(pretrained_policy())
    whole, half = (pack(policy.actor, 1, precision) for precision in ('float32', 'float16'))
    assert len(half.data) < 0.51 * len(whole.data)
    received = Actor(policy.network).eval()
    received.load_state_dict(unpack(half, policy.network))
    assert {tensor.dtype for tensor in received.state_dict().values()} == {torch.float32}
    stack: collections.deque[np.ndarray] = collections.deque(maxlen=policy.network.frames)
    worst = 0.0
    for step in driven_steps(150, policy.network.frame_size):
        stack.extend([step.frame] * (policy.network.frames if step.is_first else 1))
        seen = np.stack(stack), step.state
        worst = max(worst, float(np.abs(policy.actor.act(*seen) - received.act(*seen)).max()))
    assert 0.0 < worst < 1e-3


def test_what_float16_cannot_hold_stays_float32() -> None:
    actor = Actor(NETWORK)
    with torch.no_grad():
        actor.head[0].bias[3] = 70_000.0  # type: ignore[union-attr,operator,index]
    weights = pack(actor, 1, 'float16')
    types = {name: tensor.dtype for name, tensor in
             safetensors.torch.load(weights.data).items()}
    assert types.pop('head.0.bias') == torch.float32
    assert set(types.values()) == {torch.float16}
    assert float(unpack(weights, NETWORK)['head.0.bias'][3]) == 70_000.0


def test_weights_of_another_type_are_refused() -> None:
    weights = pack(Actor(NETWORK), 1)
    for dtype in (torch.bfloat16, torch.float64, torch.int8):
        tensors = {name: tensor.to(dtype) for name, tensor in Actor(NETWORK).state_dict().items()}
        with pytest.raises(WeightsError, match=f'is {dtype}, expected one of float32, float16'):
            unpack(resealed(weights, tensors), NETWORK)


@pytest.mark.parametrize('precision', ['float32', 'float16'])
def test_one_altered_byte_is_refused(precision: str) -> None:
    weights = pack(Actor(NETWORK), 1, precision)
    data = bytearray(weights.data)
    data[-1] ^= 1
    with pytest.raises(WeightsError, match='weights 1: SHA-256 is'):
        unpack(dataclasses.replace(weights, data=bytes(data)), NETWORK)


def test_another_architecture_is_refused() -> None:
    weights = pack(Actor(NETWORK), 1)
    with pytest.raises(WeightsError, match='architecture is'):
        unpack(weights, dataclasses.replace(NETWORK, features=9))


def test_a_version_that_is_not_that_of_the_data_is_refused() -> None:
    weights = dataclasses.replace(pack(Actor(NETWORK), 1), version=2)
    with pytest.raises(WeightsError, match="the data say version '1', expected '2'"):
        unpack(weights, NETWORK)


@pytest.mark.parametrize('precision', ['float32', 'float16'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, precision: str) -> None:
    actor = Actor(NETWORK)
    with torch.no_grad():
        actor.head[0].bias[3] = value  # type: ignore[union-attr,operator,index]
    with pytest.raises(WeightsError, match=r'head\.0\.bias holds a value that is not finite'):
        unpack(pack(actor, 1, precision), NETWORK)


def test_missing_unknown_and_misshapen_tensors_are_refused() -> None:
    weights, tensors = pack(Actor(NETWORK), 1), Actor(NETWORK).state_dict()
    bias = tensors['head.0.bias']
    without = {name: t for name, t in tensors.items() if name != 'head.0.bias'}
    for changed, message in ((without, r'head\.0\.bias is missing'),
                             (tensors | {'extra': torch.ones(1)}, 'extra is unknown'),
                             (tensors | {'head.0.bias': bias[:-1].clone()}, r'\[7\], expected')):
        with pytest.raises(WeightsError, match=message):
            unpack(resealed(weights, dict(changed)), NETWORK)


def test_bytes_that_are_no_safetensors_are_refused() -> None:
    weights = pack(Actor(NETWORK), 1)
    for data in (b'', b'\xff' * 100):
        broken = dataclasses.replace(weights, data=data,
                                     sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(WeightsError, match='not safetensors'):
            unpack(broken, NETWORK)
