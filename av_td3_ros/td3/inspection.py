"""Ask the networks of a checkpoint about stored states: what they see, do and expect."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_td3_ros.td3.agent import SATURATED, TD3
from av_td3_ros.td3.checkpoint import Checkpoint
from av_td3_ros.td3.diagnostics import NEWEST, examine, relative_change
from av_td3_ros.td3.replay import Batch, ReplayBuffer

SEEN = 256              # stored stacks that a checkpoint's networks are asked about
AT_ONCE = 64            # stacks in one pass
PARTS = ('actor', 'critic')
Array = NDArray[np.float32]


def _nothing() -> Array:
    return np.empty(0, np.float32)


@dataclasses.dataclass
class Look:
    """What a checkpoint shows; the fields from `actions` on are empty without a replay."""

    figures: dict[str, float]
    layers: list[dict[str, Any]]
    filters: dict[str, Array]
    learned_filters: dict[str, Array]
    actions: Array = dataclasses.field(default_factory=_nothing)
    blinded: dict[str, Array] = dataclasses.field(default_factory=dict)
    q_data: Array = dataclasses.field(default_factory=_nothing)
    q_policy: Array = dataclasses.field(default_factory=_nothing)
    q_recent: Array = dataclasses.field(default_factory=_nothing)
    returns: Array = dataclasses.field(default_factory=_nothing)
    features: dict[str, Array] = dataclasses.field(default_factory=dict)
    silent: dict[str, list[float]] = dataclasses.field(default_factory=dict)


def look_into(checkpoint: Checkpoint) -> Look:
    """
    Ask a checkpoint's networks; without a stored replay only their weights.

    Raises CheckpointError when a file was altered.
    """
    agent = TD3(checkpoint.settings, checkpoint.network)
    network, steps = checkpoint.network, checkpoint.stored_steps
    replay = ReplayBuffer(max(2, steps), network.frames, network.frame_size, network.state_size)
    checkpoint.restore(agent, replay if steps else None)
    counters: dict[str, float] = {
        key: float(checkpoint.counters[key]) for key in ('transitions', 'policy_version')
        if key in checkpoint.counters}
    look = Look(
        {'updates': agent.updates, 'updates_skipped': agent.skipped, 'frames': network.frames,
         'gamma': agent.settings.gamma, **counters, **_weight_figures(agent)},
        _layers(agent), _first_filters(agent, False), _first_filters(agent, True))
    if len(replay):
        look.figures['reward_largest'] = float(np.abs(replay.stored('reward')).max())
        version = int(counters.get('policy_version', 0))
        examined = examine(agent, replay, version)
        if 'policy_version' not in counters:
            for name in ('policy_age_mean', 'newest_policy_age'):
                examined.pop(name, None)
        look.figures |= examined
        _ask(agent, replay, look)
        look.figures = _gradients(agent, replay) | look.figures
    return look


def _weight_figures(agent: TD3) -> dict[str, float]:
    weights = [p.detach() for part in PARTS for p in getattr(agent, part).parameters()]
    broken = sum(int((~p.isfinite()).sum()) for p in weights)
    found = {'non_finite_weights': broken / sum(p.numel() for p in weights)}
    for part in PARTS:
        cnn = getattr(agent, part).cnn
        if cnn is not None:
            found[f'{part}_cnn_weight_change'] = relative_change(cnn, agent.first_cnns[part])
    return found


def _layers(agent: TD3) -> list[dict[str, Any]]:
    """Return norm and root mean square of each weight matrix, and the CNNs' change of it."""
    found = []
    for part in PARTS:
        for name, p in getattr(agent, part).named_parameters():
            if p.dim() < 2:
                continue
            weight = p.detach().float()
            first = agent.first_cnns[part].get(name.removeprefix('cnn.'))
            change = None if first is None else float(
                (weight - first).norm() / first.norm().clamp(min=1e-30))
            found.append({'layer': f'{part}.{name.removesuffix(".weight")}',
                          'shape': list(p.shape), 'norm': float(weight.norm()),
                          'rms': float(weight.square().mean().sqrt()), 'change': change})
    return found


def _first_filters(agent: TD3, learned: bool) -> dict[str, Array]:
    """Return the filters (out, frames, 8, 8) of each CNN's first layer, or how they changed."""
    name, found = 'convolutions.0.weight', {}
    for part in PARTS:
        first = agent.first_cnns[part].get(name)
        if first is not None:
            now = getattr(agent, part).cnn.get_parameter(name).detach()
            found[part] = (now - first if learned else now).float().numpy()
    return {} if learned and not any(one.any() for one in found.values()) else found


@torch.inference_mode()
def _ask(agent: TD3, replay: ReplayBuffer, look: Look) -> None:
    """Show stored stacks to actor and critic and note their answers in `look`."""
    batch = replay.sample_returns(SEEN, 0.0, replay.steps)
    asked: dict[str, list[Array]] = {}
    loudest: dict[str, list[Tensor]] = {}
    for frames, state, action in _parts(batch):
        seen = frames.to(agent.compute_type)
        numbers, driven = state.to(agent.weight_type), action.to(agent.weight_type)
        chosen = agent.actor(seen, numbers)
        answers = {'actions': chosen}
        if agent.network.frames:
            answers['black frames'] = agent.actor(torch.zeros_like(seen), numbers)
        if agent.network.state_size:
            answers['state of zeros'] = agent.actor(seen, torch.zeros_like(numbers))
        for part in PARTS:
            cnn = getattr(agent, part).cnn
            if cnn is not None:
                *channels, answers[part] = cnn.activations(seen)
                peaks = [x.amax((0, 2, 3)) for x in channels]
                loudest[part] = [torch.maximum(*pair) for pair in
                                 zip(loudest.get(part, peaks), peaks, strict=True)]
        features = answers.get('critic', numbers[:, :0])
        answers |= {'q_data': agent.critic.q1(features, numbers, driven),
                    'q_policy': agent.critic.q1(features, numbers, chosen)}
        for name, values in answers.items():
            asked.setdefault(name, []).append(values.float().numpy())
    answered = {name: np.concatenate(parts) for name, parts in asked.items()}
    look.actions, look.q_data, look.q_policy = (
        answered[name] for name in ('actions', 'q_data', 'q_policy'))
    look.blinded = {name: np.abs(answered[name] - look.actions)
                    for name in ('black frames', 'state of zeros') if name in answered}
    look.features = {part: answered[part] for part in PARTS if part in answered}
    look.silent = {part: [float((peak <= 0).float().mean()) for peak in peaks]
                   for part, peaks in loudest.items()}
    look.figures |= _answer_figures(look)

    recent = replay.sample_returns(SEEN, agent.settings.gamma, NEWEST)
    if len(recent.reward):
        values = [agent.critic(frames.to(agent.compute_type), state.to(agent.weight_type),
                               action.to(agent.weight_type))[0].float().numpy()
                  for frames, state, action in _parts(recent)]
        look.q_recent, look.returns = np.concatenate(values), recent.reward.numpy()
        observed = float(look.returns.mean())
        look.figures |= {
            'observed_return_mean': observed,
            'q_overestimation': float(look.q_recent.mean()) - observed,
            'observed_return_scale': abs(observed) + float(look.returns.std())}


def _parts(batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Return (frames, state, action) of a batch piece by piece."""
    for start in range(0, len(batch.reward), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        yield batch.frames[part], batch.state[part], batch.action[part]


def _answer_figures(look: Look) -> dict[str, float]:
    actions = look.actions
    found = {'saturated_fraction': (np.abs(actions) > SATURATED).mean(),
             'steer_mean': actions[:, 0].mean(), 'steer_std': actions[:, 0].std(),
             'acceleration_mean': actions[:, 1].mean(), 'acceleration_std': actions[:, 1].std(),
             'q1_mean': look.q_data.mean(), 'q1_std': look.q_data.std(),
             'q_policy_mean': look.q_policy.mean()}
    found |= {f'action_change_{"black_frames" if "frames" in name else "zero_state"}':
              change.mean() for name, change in look.blinded.items()}
    found |= {f'{part}_cnn_dead_layer': max(shares) for part, shares in look.silent.items()}
    return {name: float(value) for name, value in found.items()}


def _gradients(agent: TD3, replay: ReplayBuffer) -> dict[str, float]:
    """Make one more update of this copy of the agent, the actor's included, and measure it."""
    agent.updates += (-agent.updates - 1) % agent.settings.policy_freq
    return dict(agent.train(replay))
