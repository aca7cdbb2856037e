"""Twin delayed deep deterministic policy gradient from pixels (Fujimoto et al. 2018)."""
from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_td3_ros.driving.perception.mask import SPEED_NUMBERS
from av_td3_ros.settings import check, setting
from av_td3_ros.td3.augmentation import drop_vector, random_shift
from av_td3_ros.td3.capture import CapturedUpdate, Measured, Outcome, Prepared
from av_td3_ros.td3.networks import Actor, Critic, NetworkSettings
from av_td3_ros.td3.optimizer import ClippedAdam
from av_td3_ros.td3.ranks import ALONE, Ranks
from av_td3_ros.td3.replay import Batch

SATURATED = 0.99
"""An action component beyond this magnitude has next to no gradient left in its tanh."""

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float64': torch.float64}


@dataclasses.dataclass(frozen=True)
class TD3Settings:
    """How TD3 learns; the defaults are what learned to drive best."""

    gamma: float = setting(0.95, 'discount of one step', minimum=0.0, maximum=1.0)
    n_step: int = setting(3, 'rewards summed before bootstrapping', minimum=1, maximum=64)
    tau: float = setting(0.01, 'share of the network that its target takes on at each delayed '
                         'update', minimum=0.0, maximum=1.0)
    batch_size: int = setting(64, 'transitions in one update', minimum=1, maximum=65536)
    learning_rate: float = setting(6e-4, 'Adam learning rate of the heads', minimum=0.0,
                                   maximum=1.0)
    cnn_learning_rate: float = setting(6e-4, 'Adam learning rate of the CNNs', minimum=0.0,
                                       maximum=1.0)
    policy_freq: int = setting(2, 'critic updates for each update of the actor and the targets',
                               minimum=1, maximum=1000)
    policy_noise: float = setting(0.2, 'standard deviation of the noise on the target action',
                                  minimum=0.0, maximum=2.0)
    noise_clip: float = setting(0.5, 'limit of the noise on the target action', minimum=0.0,
                                maximum=2.0)
    actor_clip_norm: float | None = setting(1.0, "limit of the actor's gradient norm, CNN "
                                            'included; null: no limit', minimum=1e-12)
    critic_clip_norm: float | None = setting(10.0, "limit of the critic's gradient norm, CNN "
                                             'included; null: no limit', minimum=1e-12)
    scale_policy_loss: bool = setting(True, 'divide the policy loss by the mean |Q| of the batch, '
                                      'held constant (Fujimoto and Gu 2021, eq. 5)')
    pre_activation_penalty: float = setting(1e-2, "weight of the actor's mean squared output "
                                            'before the tanh, which keeps it from saturating',
                                            minimum=0.0, maximum=100.0)
    smoothness_penalty: float = setting(0.0, 'weight of the mean squared difference between the '
                                        "actor's action and the one that its target takes where "
                                        'it leads to (Mysore et al. 2021)', minimum=0.0,
                                        maximum=1000.0)
    random_shift: int = setting(4, 'shift each stack of a batch by up to so many pixels (Yarats '
                                'et al. 2021); 0: off', minimum=0, maximum=32)
    vector_dropout: float = setting(0.5, 'share of a batch in which the actor is shown the state '
                                    'vector zeroed but for the speed, so that it learns to drive '
                                    'by the camera; the critics see it always (Pinto et al. 2017)',
                                    minimum=0.0, maximum=1.0)
    precision: str = setting('auto', 'arithmetic of the CNNs: bfloat16 and float32 keep float32 '
                             'weights, float64 is double precision throughout; auto: bfloat16 '
                             'where the processor has it', choices=('auto', *PRECISIONS))
    cuda_graph: bool = setting(True, 'on a GPU replay each kind of update as one captured graph '
                               'instead of launching its kernels one by one; not with several '
                               'ranks')


PRESETS: dict[str, tuple[TD3Settings, NetworkSettings]] = {
    'default': (TD3Settings(), NetworkSettings()),
    'paper': (TD3Settings(gamma=0.99, n_step=1, tau=0.005, batch_size=256, learning_rate=3e-4,
                          cnn_learning_rate=1e-4, scale_policy_loss=False,
                          pre_activation_penalty=0.0, random_shift=0, vector_dropout=0.0),
              NetworkSettings(features=512, feature_scale=1.0, layer_norm=False,
                              feature_activation='relu', last_layer_scale=1.0)),
}


class Metrics(Mapping[str, float]):
    """Named numbers of one update that leave the device only when the first one is read."""

    def __init__(self, *measured: Measured) -> None:
        self._measured = measured
        self._names = tuple(name for one in measured for name in one.names)
        self._values: dict[str, float] | None = None

    def __getitem__(self, name: str) -> float:
        if self._values is None:
            values = [value for one in self._measured for value in one.values.tolist()]
            self._values = dict(zip(self._names, values, strict=True))
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Replay(Protocol):
    """What TD3 samples from."""

    def sample(self, batch_size: int, gamma: float, n_step: int) -> Batch:
        """Return a batch of transitions."""


class TD3:
    """
    TD3 with a CNN of its own for actor and critic, and target networks that include them.

    `updates` counts the updates made, `skipped` those refused because a loss or a gradient was
    not finite and `skipped_in_row` the latest of these without one made in between. A refused
    update changes no weight; where only the actor's was refused, the critics keep theirs.
    `first_cnns` holds the CNNs' weights from before the first update, by 'actor' and 'critic'.
    All randomness comes from `seed`.

    Several `ranks` with a batch each learn as one learns from their batches joined: every mean
    over a batch is one over all of them, and what is drawn at random is drawn for all.
    """

    def __init__(self, settings: TD3Settings, network: NetworkSettings, seed: int = 0,
                 device: str = 'cpu', ranks: Ranks = ALONE) -> None:
        check(settings, 'td3')
        check(network, 'network')
        self.settings, self.network, self.device = settings, network, torch.device(device)
        self.ranks = ranks
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)  # a graph is captured on the current one
            torch.backends.cudnn.allow_tf32 = False  # float32 shall be float32
        self.compute_type = compute_type(settings.precision, device)
        self.weight_type = (torch.float64 if self.compute_type == torch.float64
                            else torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor, critic = Actor(network), Critic(network)
        self.actor = actor.to(self.device, self.weight_type)
        self.critic = critic.to(self.device, self.weight_type)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.first_cnns = {name: _cnn_weights(network) for name, network in
                           (('actor', self.actor), ('critic', self.critic))}
        rates = settings.learning_rate, settings.cnn_learning_rate
        self.actor_optimizer = ClippedAdam(self.actor, *rates, settings.actor_clip_norm, ranks)
        self.critic_optimizer = ClippedAdam(self.critic, *rates, settings.critic_clip_norm, ranks)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = self.skipped = self.skipped_in_row = 0
        # Nobody watches over an exchange with other ranks that a graph replays: were one of them
        # dead, this one would wait for it for ever.
        captures = settings.cuda_graph and self.device.type == 'cuda' and ranks.count == 1
        self._plain_update = CapturedUpdate(self._update_critics, captures)
        self._delayed_update = CapturedUpdate(self._update_all, captures)
        self._of_critics = self._of_actor = Measured.nothing()

    def train(self, replay: Replay, share: float | None = None) -> Metrics:
        """
        Make one update (Fujimoto et al. 2018, algorithm 1) and return what it measured.

        `share` is the weight of this rank's batch, 1 / ranks unless said otherwise.
        """
        s = self.settings

        # Sample a mini-batch of transitions (s, a, r, s').
        batch = self._prepare(replay.sample(s.batch_size, s.gamma, s.n_step),
                              1.0 / self.ranks.count if share is None else share)
        delayed = (self.updates + 1) % s.policy_freq == 0
        update = self._delayed_update if delayed else self._plain_update
        finite, of_critics, of_actor = update(batch, self._noise_like(batch.action))
        if not finite:
            self.skipped += 1
            self.skipped_in_row += 1
        else:
            self.updates += 1
            self.skipped_in_row = 0
            self._of_critics = of_critics
            self._of_actor = of_actor if delayed else self._of_actor
        return Metrics(self._of_critics, self._of_actor)

    def _update_critics(self, batch: Prepared, noise: Tensor,
                        next_action: Tensor | None = None) -> Outcome:
        s = self.settings

        # Smooth the target policy with clipped noise; the smaller of the two target critics.
        with torch.no_grad():
            noise = (noise * s.policy_noise).clamp(-s.noise_clip, s.noise_clip)
            if next_action is None:
                next_action = self.actor_target(batch.next_frames, batch.next_shown_state)
            next_q1, next_q2 = self.critic_target(batch.next_frames, batch.next_state,
                                                  (next_action + noise).clamp(-1.0, 1.0))
            target_q = batch.reward + batch.discount * torch.minimum(next_q1, next_q2)

        # Update the critics.
        q1, q2 = self.critic(batch.frames, batch.state, batch.action)
        critic_loss = F.mse_loss(q1, target_q) + F.mse_loss(q2, target_q)
        finite = self.critic_optimizer.step(critic_loss, batch.share)
        return (finite, self._measure_critic(batch.share, q1, q2, target_q, critic_loss),
                Measured.nothing())

    def _update_all(self, batch: Prepared, noise: Tensor) -> Outcome:
        s = self.settings
        with torch.no_grad():
            next_action = self.actor_target(batch.next_frames, batch.next_shown_state)
        finite, of_critics, _ = self._update_critics(batch, noise, next_action)

        # Delayed: update the actor by the deterministic policy gradient, ...
        with torch.no_grad():
            features = self.critic.features(batch.frames)
        pre_activation = self.actor.pre_activation(batch.frames, batch.shown_state)
        action = torch.tanh(pre_activation)
        q_policy = self.critic.q1(features, batch.state, action)
        magnitude = q_policy.detach().abs().mean()
        if s.scale_policy_loss:
            self.ranks.average([magnitude], batch.share)
        scale = 1.0 / magnitude if s.scale_policy_loss else 1.0
        actor_loss = (-scale * q_policy.mean()
                      + s.pre_activation_penalty * pre_activation.square().mean()
                      + s.smoothness_penalty * F.mse_loss(action, next_action))
        finite = self.actor_optimizer.step(actor_loss, batch.share, finite)

        # ... then every target.
        tau = s.tau * finite.to(self.weight_type)  # 0 leaves them as they are
        polyak_update(self.actor, self.actor_target, tau)
        polyak_update(self.critic, self.critic_target, tau)
        return (finite, of_critics,
                self._measure_actor(batch.share, q_policy, action, actor_loss))

    def _prepare(self, batch: Batch, share: float) -> Prepared:
        """Move a batch to the device; frames are cast once for all networks that see them."""
        frames, next_frames = batch.frames.to(self.device), batch.next_frames.to(self.device)
        if self.settings.random_shift and self.network.frames:
            frames, next_frames = (random_shift(f, self.settings.random_shift, self.generator,
                                                self.ranks) for f in (frames, next_frames))
        numbers = (t.to(self.device, self.weight_type) for t in
                   (batch.state, batch.action, batch.reward, batch.next_state, batch.discount))
        state, action, reward, next_state, discount = numbers
        shown = state, next_state
        if self.settings.vector_dropout and self.network.state_size:
            shown = drop_vector(state, next_state, self.settings.vector_dropout, SPEED_NUMBERS,
                                self.generator, self.ranks)
        return Prepared(frames.to(self.compute_type), state, action, reward,
                        next_frames.to(self.compute_type), next_state, discount, *shown,
                        torch.full((), share, dtype=self.weight_type, device=self.device))

    def _noise_like(self, tensor: Tensor) -> Tensor:
        """Draw noise for the batches of all ranks and return that of this one."""
        count, *rest = tensor.shape
        return self.ranks.own(torch.randn((self.ranks.count * count, *rest), dtype=tensor.dtype,
                                          generator=self.generator, device=self.device))

    @torch.no_grad()
    def _measure_critic(self, share: Tensor, q1: Tensor, q2: Tensor, target_q: Tensor,
                        loss: Tensor) -> Measured:
        error = (q1 - target_q).abs()
        return Measured.of({
            **self.ranks.summarise(
                share, means={'critic_loss': loss, 'td_error_mean': error},
                spreads={'q1': q1, 'q2': q2, 'target_q': target_q},
                largest={'td_error_max': error}),
            **{f'critic_{name}': norm for name, norm in self.critic_optimizer.norms.items()}})

    @torch.no_grad()
    def _measure_actor(self, share: Tensor, q_policy: Tensor, action: Tensor, loss: Tensor
                       ) -> Measured:
        return Measured.of({
            **self.ranks.summarise(share, means={
                'actor_loss': loss, 'q_policy_mean': q_policy,
                'saturated_fraction': (action.abs() > SATURATED).to(q_policy.dtype)},
                spreads={}, largest={}),
            **{f'actor_{name}': norm for name, norm in self.actor_optimizer.norms.items()}})


@torch.no_grad()
def polyak_update(network: nn.Module, target: nn.Module, tau: Tensor) -> None:
    """Move every parameter of `target` towards `network`: target += tau (network - target)."""
    moved: list[Tensor] = list(target.parameters())
    weights: list[Any] = [tau] * len(moved)  # also tensors, whatever the stubs say
    torch._foreach_lerp_(moved, list(network.parameters()), weights)


def _cnn_weights(network: Actor | Critic) -> dict[str, Tensor]:
    return ({} if network.cnn is None else
            {name: p.detach().clone() for name, p in network.cnn.named_parameters()})


def compute_type(precision: str, device: str) -> torch.dtype:
    """Return the type that the CNNs compute in; 'auto' asks the hardware."""
    if precision != 'auto':
        return PRECISIONS[precision]
    if device.startswith('cuda'):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            flags = next((line.split() for line in file if line.startswith('flags')), [])
    except OSError:
        return False
    return 'avx512_bf16' in flags or 'amx_bf16' in flags
