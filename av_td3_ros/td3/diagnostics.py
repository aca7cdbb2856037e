"""What tells whether learning is well: the CNNs' health, values against returns, age of data."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from av_td3_ros.td3.agent import TD3
from av_td3_ros.td3.networks import NatureCNN
from av_td3_ros.td3.replay import ReplayBuffer

LOOKED_AT = 32
"""Transitions that one look takes."""

NEWEST = 2000
"""Returns are looked at on so many of the newest steps: other policies drove the older ones."""
NOW = 50
"""So many of the newest steps tell which policy drives now."""


def examine(agent: TD3, replay: ReplayBuffer, policy_version: int, drawn: int | None = None
            ) -> dict[str, float]:
    """
    Return health figures of an agent and the data that it learns from, without changing either.

    draws_per_transition: how often each transition was drawn so far, on average; `drawn` says how
    many draws there were, where not all came from `replay`.
    policy_age_mean: published versions between the policies that drove the data and the newest;
    left out where no policy of this run drove any. newest_policy_age: the same for the newest.
    observed_return_mean, q_overestimation: the discounted return that followed recent actions,
    and by how much Q1 exceeds it. Left out where no return is known yet.
    {actor,critic}_cnn_*: see `examine_cnn`, and weight_change, the distance from the first
    weights relative to their norm.
    """
    found: dict[str, float] = {}
    if not len(replay):
        return found
    draws = agent.updates * agent.settings.batch_size if drawn is None else drawn
    found['draws_per_transition'] = draws / replay.total
    for name, newest in (('policy_age_mean', 0), ('newest_policy_age', NOW)):
        driven_by = replay.mean_policy_version(newest)
        if math.isfinite(driven_by):
            found[name] = policy_version - driven_by
    gamma, seed = agent.settings.gamma, agent.updates
    batch = replay.sample_returns(LOOKED_AT, gamma, NEWEST, seed)
    is_known = len(batch.reward) > 0
    if not is_known:  # with gamma = 0 every return is: any recent stack will do
        batch = replay.sample_returns(LOOKED_AT, 0.0, NEWEST, seed)
    if not len(batch.reward):
        return found
    frames = batch.frames.to(agent.device).to(agent.compute_type)
    features = frames.new_empty((len(frames), 0), dtype=agent.weight_type)
    for name, network in (('actor', agent.actor), ('critic', agent.critic)):  # in this order
        if network.cnn is not None:
            with torch.inference_mode():
                *channels, features = network.cnn.activations(frames)
            figures = _judge_activations(network.cnn, channels, features)
            figures['weight_change'] = relative_change(network.cnn, agent.first_cnns[name])
            found |= {f'{name}_cnn_{figure}': value for figure, value in figures.items()}
    if is_known:
        state, action = (t.to(agent.device, agent.weight_type)
                         for t in (batch.state, batch.action))
        with torch.inference_mode():
            q1 = agent.critic.q1(features, state, action)
        observed = float(batch.reward.mean())
        found |= {'observed_return_mean': observed,
                  'q_overestimation': float(q1.mean()) - observed}
    return found


@torch.inference_mode()
def examine_cnn(cnn: NatureCNN, frames: Tensor) -> dict[str, float]:
    """
    Return how a CNN answers stacks of frames (B, F, H, W).

    dead_units: the share of ReLU channels that are zero everywhere on every stack. feature_norm:
    the mean length of the feature vector. feature_std: the deviation of a feature between stacks,
    mean over features; 0 says that the CNN sees no difference between them.
    """
    *channels, features = cnn.activations(frames)
    return _judge_activations(cnn, channels, features)


def _judge_activations(cnn: NatureCNN, channels: list[Tensor], features: Tensor
                       ) -> dict[str, float]:
    silent = [(x.amax((0, 2, 3)) <= 0).float() for x in channels]
    if cnn.activation is torch.relu:
        silent.append((features.amax(0) <= 0).float())
    return {'dead_units': float(torch.cat(silent).mean()),
            'feature_norm': float(features.float().norm(dim=1).mean()),
            'feature_std': float(features.float().std(0, correction=0).mean())}


def relative_change(cnn: NatureCNN, first: dict[str, Tensor]) -> float:
    """Return the distance of a CNN's weights from `first`, relative to the norm of these."""
    moved = sum(float((p.detach() - first[name]).square().sum())
                for name, p in cnn.named_parameters())
    length = sum(float(tensor.square().sum()) for tensor in first.values())
    return math.sqrt(moved / max(length, 1e-30))
