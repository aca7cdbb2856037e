"""A plain TD3 in which known mistakes of visual TD3 can be made on purpose, one by one."""
from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_td3_ros.driving.perception.mask import SPEED_NUMBERS
from av_td3_ros.td3.agent import SATURATED, Replay, TD3Settings
from av_td3_ros.td3.augmentation import drop_vector, random_shift
from av_td3_ros.td3.capture import Prepared
from av_td3_ros.td3.networks import Actor, Critic, NetworkSettings
from av_td3_ros.td3.replay import Batch


@dataclasses.dataclass(frozen=True)
class Variant:
    """
    Which mistakes are made; none by default.

    cross_fed: the actor is judged on its own CNN's features, which the critic never learned from,
    and chooses the target action from the critic's. shared_cnn: actor and critic have one CNN,
    which both losses move. target_cnns: False lets the targets see with the online CNNs.
    separate_cnn_optimizers: the CNN has an Adam of its own, beside the clip of the head.
    """

    name: str
    cross_fed: bool = False
    shared_cnn: bool = False
    target_cnns: bool = True
    separate_cnn_optimizers: bool = False


OURS = Variant('ours')
ORIGINAL = Variant('original', cross_fed=True, target_cnns=False)
VARIANTS = (
    OURS,
    Variant('cross-fed features', cross_fed=True),
    Variant('one shared CNN', shared_cnn=True),
    Variant('no target CNNs', target_cnns=False),
    Variant('separate CNN optimisers', separate_cnn_optimizers=True),
)


def make_networks(network: NetworkSettings, seed: int) -> tuple[Actor, Critic]:
    """Return actor and critic with the initial weights that TD3 gives them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Actor(network), Critic(network)


class Descent:
    """Adam over one network, its CNN clipped with the head or beside it."""

    def __init__(self, network: nn.Module, settings: TD3Settings, clip_norm: float | None,
                 separate: bool) -> None:
        named = list(network.named_parameters())
        self.head = [p for name, p in named if not name.startswith('cnn.')]
        self.cnn = [p for name, p in named if name.startswith('cnn.')]
        self.clip_norm = clip_norm
        self.clipped = self.head if separate else self.head + self.cnn
        groups: list[dict[str, Any]] = [{'params': self.head, 'lr': settings.learning_rate},
                                        {'params': self.cnn, 'lr': settings.cnn_learning_rate}]
        self.adams = ([torch.optim.Adam([group]) for group in groups] if separate
                      else [torch.optim.Adam(groups)])

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Take one step; return the gradient norms of head and CNN before the clip."""
        for adam in self.adams:
            adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms = {'head_grad_norm': gradient_norm(self.head),
                 'cnn_grad_norm': gradient_norm(self.cnn)}
        norm = gradient_norm(self.clipped)
        if self.clip_norm is not None and norm > self.clip_norm:
            for parameter in self.clipped:
                assert parameter.grad is not None
                parameter.grad.mul_(self.clip_norm / norm)
        for adam in self.adams:
            adam.step()
        return norms


class EagerTD3:
    """
    TD3 in ordinary PyTorch, with the mistakes of a variant.

    Takes over `actor` and `critic`, both with a camera. Without mistakes it learns what
    av_td3_ros.td3.TD3 learns from the same weights, seed and batches.
    """

    def __init__(self, actor: Actor, critic: Critic, settings: TD3Settings, variant: Variant,
                 seed: int = 0) -> None:
        if actor.cnn is None or critic.cnn is None:
            raise ValueError('variants differ in their CNNs: network.frames must not be 0')
        self.settings, self.variant = settings, variant
        if variant.shared_cnn:
            actor.cnn = critic.cnn
        self.actor, self.critic = actor, critic
        # Together, so that a CNN that is shared is shared by the targets as well.
        self.actor_target, self.critic_target = copy.deepcopy((actor, critic))
        for target in (self.actor_target, self.critic_target):
            target.requires_grad_(False)
        if not variant.target_cnns:
            self.actor_target.cnn, self.critic_target.cnn = actor.cnn, critic.cnn
        separate = variant.separate_cnn_optimizers
        self.actor_descent = Descent(actor, settings, settings.actor_clip_norm, separate)
        self.critic_descent = Descent(critic, settings, settings.critic_clip_norm, separate)
        self.weight_type = next(actor.head.parameters()).dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.updates = 0

    def train(self, replay: Replay) -> dict[str, Tensor]:
        """Make one update (Fujimoto et al. 2018, algorithm 1) and return what it measured."""
        s = self.settings
        batch = self._prepare(replay.sample(s.batch_size, s.gamma, s.n_step))

        # Smooth the target policy with clipped noise.
        noise = torch.randn(batch.action.shape, generator=self.generator, dtype=self.weight_type)
        noise = (noise * s.policy_noise).clamp(-s.noise_clip, s.noise_clip)
        target_q = self._target_q(batch, noise)

        # Update the critics.
        q1, q2 = self.critic(batch.frames, batch.state, batch.action)
        norms = self.critic_descent.step(F.mse_loss(q1, target_q) + F.mse_loss(q2, target_q))
        measured = {'q_data': q1.detach().mean(), 'q_data_magnitude': q1.detach().abs().mean(),
                    **{f'critic_{name}': norm for name, norm in norms.items()}}

        # Delayed: update the actor, then every target.
        self.updates += 1
        if self.updates % s.policy_freq == 0:
            measured |= self._update_actor(batch)
            polyak_update(nn.ModuleList((self.actor, self.critic)),
                          nn.ModuleList((self.actor_target, self.critic_target)), s.tau)
        return measured

    @torch.no_grad()
    def td_error(self, batch: Batch) -> float:
        """Return the mean |Q1 - target| over a batch, its target without noise."""
        seen = self._prepare(batch, learning=False)
        q1, _ = self.critic(seen.frames, seen.state, seen.action)
        return float((q1 - self._target_q(seen, torch.zeros_like(seen.action))).abs().mean())

    @torch.no_grad()
    def saturated(self, batch: Batch) -> float:
        """Return the share of the policy's action components that are saturated."""
        seen = self._prepare(batch, learning=False)
        action = self.actor(seen.frames, seen.state)
        return float((action.abs() > SATURATED).double().mean())

    def _prepare(self, batch: Batch, learning: bool = True) -> Prepared:
        frames, next_frames = batch.frames, batch.next_frames
        if learning and self.settings.random_shift:
            frames, next_frames = (random_shift(f, self.settings.random_shift, self.generator)
                                   for f in (frames, next_frames))
        state, action, reward, next_state, discount = (
            t.to(self.weight_type) for t in (batch.state, batch.action, batch.reward,
                                             batch.next_state, batch.discount))
        shown = state, next_state
        if learning and self.settings.vector_dropout and state.shape[1]:
            shown = drop_vector(state, next_state, self.settings.vector_dropout, SPEED_NUMBERS,
                                self.generator)
        return Prepared(frames, state, action, reward, next_frames, next_state, discount, *shown,
                        torch.ones(()))

    @torch.no_grad()
    def _target_q(self, batch: Prepared, noise: Tensor) -> Tensor:
        features = self.critic_target.features(batch.next_frames)
        seen = (features if self.variant.cross_fed
                else actor_features(self.actor_target, batch.next_frames))
        action = torch.tanh(self.actor_target.head(torch.cat((seen, batch.next_shown_state), 1)))
        action = (action + noise).clamp(-1.0, 1.0)
        judged = torch.cat((features, batch.next_state, action), 1)
        q1, q2 = (head(judged).squeeze(1) for head in
                  (self.critic_target.head1, self.critic_target.head2))
        return batch.reward + batch.discount * torch.minimum(q1, q2)

    def _update_actor(self, batch: Prepared) -> dict[str, Tensor]:
        s = self.settings
        seen = actor_features(self.actor, batch.frames)
        pre_activation = self.actor.head(torch.cat((seen, batch.shown_state), 1))
        if self.variant.cross_fed:
            features = seen
        else:
            with torch.no_grad():
                features = self.critic.features(batch.frames)
        q_policy = self.critic.q1(features, batch.state, torch.tanh(pre_activation))
        scale = 1.0 / q_policy.detach().abs().mean() if s.scale_policy_loss else 1.0
        norms = self.actor_descent.step(-scale * q_policy.mean() + s.pre_activation_penalty
                                        * pre_activation.square().mean())
        return {'q_policy': q_policy.detach().mean(),
                **{f'actor_{name}': norm for name, norm in norms.items()}}


def actor_features(actor: Actor, frames: Tensor) -> Tensor:
    """Return the image features (B, features) of an actor."""
    assert actor.cnn is not None
    return actor.cnn(frames)  # type: ignore[no-any-return]


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together."""
    each = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(each))  # type: ignore[no-any-return]


@torch.no_grad()
def polyak_update(network: nn.Module, target: nn.Module, tau: float) -> None:
    """Move every parameter of `target` towards `network`, once where several modules share it."""
    for theirs, own in zip(target.parameters(), network.parameters(), strict=True):
        if theirs is not own:
            theirs.copy_(tau * own + (1 - tau) * theirs)
