"""The networks: a CNN of its own for the actor and for the critic, with MLP heads."""
from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from av_td3_ros.settings import flatten, setting

ACTION_SIZE = 2
"""Steer (+ = left) and acceleration, both in [-1, 1]."""

KERNELS = (8, 4, 3)
STRIDES = (4, 2, 1)


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The shape of actor and critic; both sides of a weight transfer must agree on it."""

    frames: int = setting(4, 'frames in a stack; 0 leaves the camera out', minimum=0, maximum=16)
    frame_size: int = setting(84, 'height and width of a frame in pixels', minimum=36,
                              maximum=512)
    state_size: int = setting(53, 'numbers in the state vector (3 + 2 a waypoint); 0 leaves it '
                              'out', minimum=0, maximum=1024)
    channels: tuple[int, ...] = setting((32, 64, 64), 'output channels of the three convolutions',
                                        minimum=1, maximum=1024)
    features: int = setting(64, 'image features that a CNN hands to the heads', minimum=1,
                            maximum=8192)
    hidden: tuple[int, ...] = setting((256, 256), 'widths of the hidden layers of each head',
                                      minimum=1, maximum=8192)
    layer_norm: bool = setting(True, 'LayerNorm after the CNN and in the hidden layers; without '
                               'it (or the loss scaling) the actor saturates for ever')
    feature_activation: str = setting('tanh', 'what follows the image features',
                                      choices=('tanh', 'relu'))
    feature_scale: float = setting(0.3, 'factor on the image features; below 1 the few numbers of '
                                   'state and action keep their say beside the many features',
                                   minimum=1e-3, maximum=10.0)
    last_layer_scale: float = setting(0.1, 'factor on the initial weights of the last actor layer '
                                      '(small: the first actions are near zero)', minimum=0.0,
                                      maximum=10.0)

    def __post_init__(self) -> None:
        """Raise ValueError for a network that sees nothing or has no three convolutions."""
        if not self.frames and not self.state_size:
            raise ValueError('network: frames = 0 and state_size = 0 leave nothing to act on; '
                             'set one of them')
        if len(self.channels) != len(KERNELS):
            raise ValueError(f'network: channels = {list(self.channels)} has '
                             f'{len(self.channels)} entries, expected {len(KERNELS)}')


def architecture_hash(network: NetworkSettings) -> str:
    """Return a SHA-256 hex digest of all that decides the weights' names, shapes and meaning."""
    described = flatten(network)
    del described['last_layer_scale']  # initial values only
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


class NatureCNN(nn.Module):
    """
    Turn stacks of frames into features: three convolutions and a projection (Mnih et al. 2015).

    Input (B, frames, H, W): uint8, or the same values 0 to 255 in a floating type, in which the
    CNN then computes (bfloat16 in the fast path). Output (B, features) in the parameters' type.
    Channels-last input is fastest. Pixels count as x / 127.5 - 1, in [-1, 1].
    """

    def __init__(self, network: NetworkSettings) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        size, channels = network.frame_size, network.frames
        for out, kernel, stride in zip(network.channels, KERNELS, STRIDES, strict=True):
            self.convolutions.append(nn.Conv2d(channels, out, kernel, stride))
            size, channels = (size - kernel) // stride + 1, out
        self.projection = nn.Linear(size * size * channels, network.features)
        self.norm = nn.LayerNorm(network.features) if network.layer_norm else nn.Identity()
        self.scale = network.feature_scale
        self.activation = torch.tanh if network.feature_activation == 'tanh' else torch.relu
        for layer in [*self.convolutions, self.projection]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (B, features)."""
        return self.activations(frames)[-1]

    def activations(self, frames: Tensor) -> list[Tensor]:
        """Return what follows each convolution, (B, C, H, W), and the features (B, features)."""
        own = self.projection.weight.dtype
        dtype = own if frames.dtype == torch.uint8 else frames.dtype
        x, each = frames.to(dtype), []
        for index, layer in enumerate(self.convolutions):
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            weight, bias = layer.weight, layer.bias
            if index == 0:
                # conv(x / 127.5 - 1) without touching the pixels, exact as there is no padding.
                weight, bias = weight / 127.5, bias - weight.sum((1, 2, 3))
            x = F.relu_(F.conv2d(x, weight.to(dtype), bias.to(dtype), layer.stride))
            each.append(x)
        # Height, width, channel order: channels-last memory is flattened without a copy.
        x = x.permute(0, 2, 3, 1).flatten(1)
        x = F.linear(x, self.projection.weight.to(dtype), self.projection.bias.to(dtype))
        return [*each, self.scale * self.activation(self.norm(x.to(own)))]


def mlp(inputs: int, hidden: Sequence[int], outputs: int, layer_norm: bool) -> nn.Sequential:
    """Return linear, (LayerNorm,) ReLU for each hidden width, and a linear output layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        if layer_norm:
            layers.append(nn.LayerNorm(width))
        layers.append(nn.ReLU())
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Actor(nn.Module):
    """The deterministic policy: its own CNN, then an MLP with tanh."""

    def __init__(self, network: NetworkSettings) -> None:
        super().__init__()
        self.network = network
        self.cnn = NatureCNN(network) if network.frames else None
        inputs = (network.features if network.frames else 0) + network.state_size
        self.head = mlp(inputs, network.hidden, ACTION_SIZE, network.layer_norm)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(network.last_layer_scale)
            last.bias.mul_(network.last_layer_scale)

    def pre_activation(self, frames: Tensor, state: Tensor) -> Tensor:
        """Return (B, 2) before the tanh."""
        seen = state if self.cnn is None else torch.cat((self.cnn(frames), state), 1)
        return self.head(seen)  # type: ignore[no-any-return]

    def forward(self, frames: Tensor, state: Tensor) -> Tensor:
        """Return actions (B, 2) in [-1, 1] for frames (B, F, H, W) and state (B, S)."""
        return torch.tanh(self.pre_activation(frames, state))

    @torch.inference_mode()
    def act(self, frames: NDArray[np.uint8], state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the action float32[2] for one observation: frames (F, H, W), state (S,)."""
        weight = next(self.head.parameters())
        # Views of received messages are often read-only, which torch does not like.
        seen, numbers = (torch.from_numpy(np.require(array, requirements=['C', 'W']))[None]
                         for array in (frames, state))
        action = self(seen.to(weight.device), numbers.to(weight.device, weight.dtype))
        return action[0].float().cpu().numpy()  # type: ignore[no-any-return]


class Critic(nn.Module):
    """Two action values over one CNN (not the actor's)."""

    def __init__(self, network: NetworkSettings) -> None:
        super().__init__()
        self.network = network
        self.cnn = NatureCNN(network) if network.frames else None
        inputs = (network.features if network.frames else 0) + network.state_size + ACTION_SIZE
        self.head1 = mlp(inputs, network.hidden, 1, network.layer_norm)
        self.head2 = mlp(inputs, network.hidden, 1, network.layer_norm)

    def features(self, frames: Tensor) -> Tensor:
        """Return the image features (B, features), (B, 0) without a camera."""
        if self.cnn is None:
            return next(self.head1.parameters()).new_empty((len(frames), 0))
        return self.cnn(frames)  # type: ignore[no-any-return]

    def q1(self, features: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Return the first critic's values (B,) from image features that are already there."""
        return self.head1(torch.cat((features, state, action), 1)).squeeze(1)  # type: ignore[no-any-return]

    def forward(self, frames: Tensor, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both critics' values, (B,) each."""
        seen = torch.cat((self.features(frames), state, action), 1)
        return self.head1(seen).squeeze(1), self.head2(seen).squeeze(1)
