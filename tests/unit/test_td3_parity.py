"""TD3 against a second implementation, written from the paper's equations in float64."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from av_td3_ros.td3 import TD3, Batch, NetworkSettings, TD3Settings

torch.set_num_threads(1)

UPDATES = 50
SMALL = NetworkSettings(frames=3, frame_size=36, state_size=7, channels=(4, 6, 5), features=16,
                        hidden=(12, 10), last_layer_scale=0.5)
SETTINGS = TD3Settings(gamma=0.9, tau=0.02, policy_noise=0.4, batch_size=8, learning_rate=1e-3,
                       cnn_learning_rate=4e-4, actor_clip_norm=0.05, critic_clip_norm=1.0,
                       random_shift=0, precision='float64')
PLAIN = {'layer_norm': False, 'feature_activation': 'relu'}


def positive(x: Tensor) -> Tensor:
    """Return max(x, 0), whose slope at 0 is 0."""
    return torch.where(x > 0, x, torch.zeros_like(x))


class RecordedBatches:
    """A replay that hands out the same batches, in the same order, to everyone who asks."""

    def __init__(self, network: NetworkSettings, seed: int = 3) -> None:
        self.network, self.seed = network, seed
        self.drawn = 0

    def sample(self, batch_size: int, gamma: float, n_step: int) -> Batch:
        """Return random but learnable transitions; some are terminal."""
        n, random = self.network, np.random.default_rng((self.seed, self.drawn))
        self.drawn += 1
        size = n.frame_size if n.frames else 0
        stacks = random.integers(0, 256, (2, batch_size, n.frames, size, size), dtype=np.uint8)
        states = random.normal(size=(2, batch_size, n.state_size))
        actions = random.uniform(-1, 1, (batch_size, 2))
        rewards = 2.0 + actions @ (0.5, 1.0) + states.sum((0, 2)) / 5
        discount = gamma ** n_step * (random.random(batch_size) < 0.8)
        numbers = [torch.from_numpy(x.astype(np.float32)) for x in
                   (states[0], actions, rewards, states[1], discount)]
        return Batch(torch.from_numpy(stacks[0]), *numbers[:3], torch.from_numpy(stacks[1]),
                     *numbers[3:])


class Reference:
    """
    Algorithm 1 of Fujimoto et al. 2018 on plain tensors: no modules, no optimisers, no in-place.

    Starts from the weights of an agent and draws the same noise.
    """

    def __init__(self, agent: TD3, settings: TD3Settings, network: NetworkSettings) -> None:
        self.s, self.n = settings, network
        self.noise = torch.Generator()
        self.noise.set_state(agent.generator.get_state())
        self.weights = {part: {name: p.detach().clone().double().contiguous()
                               for name, p in getattr(agent, part).named_parameters()}
                        for part in ('actor', 'critic')}
        self.targets = {part: dict(w) for part, w in self.weights.items()}
        self.moments = {part: {name: (torch.zeros_like(p), torch.zeros_like(p))
                               for name, p in w.items()} for part, w in self.weights.items()}
        self.steps = {'actor': 0, 'critic': 0}
        self.gradients: dict[str, dict[str, Tensor]] = {}

    def normalised(self, w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        if not self.n.layer_norm:
            return x
        centred = x - x.mean(1, keepdim=True)
        spread = torch.sqrt((centred ** 2).mean(1, keepdim=True) + 1e-5)
        return centred / spread * w[f'{name}.weight'] + w[f'{name}.bias']

    def image_features(self, w: dict[str, Tensor], frames: Tensor) -> Tensor:
        if not self.n.frames:
            return torch.zeros(len(frames), 0, dtype=torch.float64)
        x = frames.double() / 127.5 - 1.0
        for index, stride in enumerate((4, 2, 1)):
            x = conv2d(x, w[f'cnn.convolutions.{index}.weight'],
                       w[f'cnn.convolutions.{index}.bias'], stride=stride)
            x = positive(x)
        flat = x.permute(0, 2, 3, 1).reshape(len(x), -1)
        y = flat @ w['cnn.projection.weight'].T + w['cnn.projection.bias']
        y = self.normalised(w, 'cnn.norm', y)
        bounded = torch.tanh(y) if self.n.feature_activation == 'tanh' else positive(y)
        return self.n.feature_scale * bounded

    def perceptron(self, w: dict[str, Tensor], head: str, x: Tensor) -> Tensor:
        index = 0
        for _ in self.n.hidden:
            x = x @ w[f'{head}.{index}.weight'].T + w[f'{head}.{index}.bias']
            if self.n.layer_norm:
                index += 1
                x = self.normalised(w, f'{head}.{index}', x)
            x = positive(x)
            index += 2
        return x @ w[f'{head}.{index}.weight'].T + w[f'{head}.{index}.bias']

    def policy(self, w: dict[str, Tensor], frames: Tensor, state: Tensor) -> Tensor:
        """Return the action before its tanh."""
        return self.perceptron(w, 'head', torch.cat((self.image_features(w, frames), state), 1))

    def value(self, w: dict[str, Tensor], head: str, features: Tensor, state: Tensor,
              action: Tensor) -> Tensor:
        return self.perceptron(w, head, torch.cat((features, state, action), 1))[:, 0]

    def descend(self, part: str, loss: Tensor, leaves: dict[str, Tensor], limit: float) -> None:
        """Clip by the norm of all gradients together, then one step of Adam (Kingma 2015)."""
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())),
                             strict=True))
        self.gradients[part] = gradients
        norm = torch.sqrt(sum((g ** 2).sum() for g in gradients.values()))
        shrink = min(1.0, limit / float(norm))
        self.steps[part] += 1
        t = self.steps[part]
        for name, gradient in gradients.items():
            rate = self.s.cnn_learning_rate if name.startswith('cnn.') else self.s.learning_rate
            m, v = self.moments[part][name]
            m = 0.9 * m + 0.1 * shrink * gradient
            v = 0.999 * v + 0.001 * (shrink * gradient) ** 2
            self.moments[part][name] = m, v
            step = (m / (1 - 0.9 ** t)) / (torch.sqrt(v / (1 - 0.999 ** t)) + 1e-8)
            self.weights[part][name] = self.weights[part][name] - rate * step

    def update(self, batch: Batch) -> None:
        s = self.s
        state, action, reward, next_state, discount = (
            t.double() for t in (batch.state, batch.action, batch.reward, batch.next_state,
                                 batch.discount))
        hidden = torch.zeros(len(state), 1)
        if s.vector_dropout and self.n.state_size:
            hidden = (torch.rand(len(state), 1, generator=self.noise) < s.vector_dropout).double()
        shown, next_shown = (torch.cat((x[:, :1], x[:, 1:] * (1 - hidden)), 1)
                             for x in (state, next_state))
        epsilon = torch.randn(action.shape, generator=self.noise, dtype=torch.float64)
        epsilon = torch.clip(s.policy_noise * epsilon, -s.noise_clip, s.noise_clip)
        proposed = torch.tanh(self.policy(self.targets['actor'], batch.next_frames, next_shown))
        proposed = torch.clip(proposed + epsilon, -1, 1)
        seen = self.image_features(self.targets['critic'], batch.next_frames)
        values = [self.value(self.targets['critic'], head, seen, next_state, proposed)
                  for head in ('head1', 'head2')]
        y = reward + discount * torch.stack(values).min(0).values

        leaves = {name: p.requires_grad_() for name, p in self.weights['critic'].items()}
        seen = self.image_features(leaves, batch.frames)
        loss = sum(((y - self.value(leaves, head, seen, state, action)) ** 2).mean()
                   for head in ('head1', 'head2'))
        self.descend('critic', loss, leaves, s.critic_clip_norm or np.inf)
        self.weights['critic'] = {n: p.detach() for n, p in self.weights['critic'].items()}

        if self.steps['critic'] % s.policy_freq:
            return
        leaves = {name: p.requires_grad_() for name, p in self.weights['actor'].items()}
        before_tanh = self.policy(leaves, batch.frames, shown)
        critic = self.weights['critic']
        q = self.value(critic, 'head1', self.image_features(critic, batch.frames), state,
                       torch.tanh(before_tanh))
        scale = float(q.detach().abs().mean()) if s.scale_policy_loss else 1.0
        loss = -q.mean() / scale + s.pre_activation_penalty * (before_tanh ** 2).mean()
        self.descend('actor', loss, leaves, s.actor_clip_norm or np.inf)
        self.weights['actor'] = {n: p.detach() for n, p in self.weights['actor'].items()}
        for part, target in self.targets.items():
            for name, p in self.weights[part].items():
                target[name] = s.tau * p + (1 - s.tau) * target[name]


def largest_difference(agent: TD3, settings: TD3Settings, network: NetworkSettings,
                       updates: int = UPDATES) -> float:
    """Return the largest relative difference of a weight or target after some updates."""
    reference = Reference(agent, settings, network)
    ours, theirs = RecordedBatches(network), RecordedBatches(network)
    for _ in range(updates):
        agent.train(ours)
        reference.update(theirs.sample(settings.batch_size, settings.gamma, settings.n_step))
    worst = 0.0
    for part in ('actor', 'critic'):
        for module, wanted in ((getattr(agent, part), reference.weights[part]),
                               (getattr(agent, f'{part}_target'), reference.targets[part])):
            for name, found in module.named_parameters():
                difference = (found - wanted[name]).norm() / wanted[name].norm()
                assert difference.isfinite(), name
                worst = max(worst, difference.item())
    return worst


@pytest.mark.parametrize('recipe', ['default', 'paper'])
@pytest.mark.parametrize('seen', ['vector', 'image', 'both'])
def test_every_weight_and_target_agrees_after_fifty_updates(seen: str, recipe: str) -> None:
    network, settings = SMALL, SETTINGS
    if seen == 'vector':
        network = dataclasses.replace(network, frames=0)
    if seen == 'image':
        network = dataclasses.replace(network, state_size=0)
    if recipe == 'paper':
        network = dataclasses.replace(network, **PLAIN)
        settings = dataclasses.replace(settings, scale_policy_loss=False, n_step=1,
                                       pre_activation_penalty=0.0, actor_clip_norm=None)
    agent = TD3(settings, network, seed=11)
    assert largest_difference(agent, settings, network) < 1e-9


def _without_double_q(agent: TD3) -> None:
    agent.critic_target.register_forward_hook(lambda critic, seen, q: (q[1], q[1]))


def _critic_on_the_actors_features(agent: TD3) -> None:
    critic_features, actor_cnn = agent.critic.features, agent.actor.cnn
    agent.critic.features = (  # type: ignore[method-assign]
        lambda frames: critic_features(frames) if torch.is_grad_enabled() else actor_cnn(frames))


def _features_not_held_constant(agent: TD3) -> None:
    """Let the actor's loss reach the actor's CNN through the critic's features as well."""
    q1, cnn = agent.critic.q1, agent.actor.cnn
    seen: list[Tensor] = []
    pre_activation = agent.actor.pre_activation

    def looking(frames: Tensor, state: Tensor) -> Tensor:
        seen[:] = [frames]
        return pre_activation(frames, state)

    agent.actor.pre_activation = looking  # type: ignore[method-assign]
    agent.critic.q1 = lambda features, state, action: q1(  # type: ignore[method-assign]
        features + cnn(seen[0]) - cnn(seen[0]).detach(), state, action)


def _no_actor_target_cnn(agent: TD3) -> None:
    agent.actor_target.cnn = agent.actor.cnn


def _no_critic_target_cnn(agent: TD3) -> None:
    agent.critic_target.cnn = agent.critic.cnn


def _unclipped_cnn(agent: TD3) -> None:
    optimizer = agent.critic_optimizer
    step, cnn = optimizer.adam.step, optimizer.parameters[optimizer.cnn_from:]

    def step_unclipped() -> None:
        shrink = optimizer.norms['grad_norm_clipped'] / optimizer.norms['grad_norm']
        for parameter in cnn:
            parameter.grad /= shrink
        step()

    optimizer.adam.step = step_unclipped  # type: ignore[method-assign]


def _setting(**changes: object) -> Callable[[TD3], None]:
    def change(agent: TD3) -> None:
        agent.settings = dataclasses.replace(agent.settings, **changes)  # type: ignore[arg-type]
    return change


@pytest.mark.parametrize('broken', [
    _without_double_q, _critic_on_the_actors_features, _features_not_held_constant,
    _no_actor_target_cnn, _no_critic_target_cnn, _unclipped_cnn,
    _setting(policy_noise=0.0), _setting(vector_dropout=0.0), _setting(vector_dropout=0.9),
    _setting(noise_clip=2.0), _setting(policy_freq=1),
    _setting(tau=1.0), _setting(gamma=1.0), _setting(n_step=1), _setting(scale_policy_loss=False),
    _setting(pre_activation_penalty=0.0)])
def test_an_update_broken_on_purpose_is_noticed(broken: Callable[[TD3], None]) -> None:
    agent = TD3(SETTINGS, SMALL, seed=11)
    broken(agent)
    assert largest_difference(agent, SETTINGS, SMALL, updates=6) > 1e-6


@pytest.mark.parametrize('clip', ['actor_clip_norm', 'critic_clip_norm', 'learning_rate',
                                  'cnn_learning_rate'])
def test_a_setting_of_the_optimisers_that_is_not_read_is_noticed(clip: str) -> None:
    value = getattr(SETTINGS, clip) / 2
    agent = TD3(dataclasses.replace(SETTINGS, **{clip: value}), SMALL, seed=11)
    assert largest_difference(agent, SETTINGS, SMALL, updates=6) > 1e-6


def test_float32_gradients_of_one_update_agree() -> None:
    settings = dataclasses.replace(SETTINGS, precision='float32', policy_freq=1,
                                   actor_clip_norm=None, critic_clip_norm=None)
    assert _gradient_difference(settings, SMALL) < 1e-4


def test_bfloat16_gradients_stay_close_to_float32() -> None:
    network = dataclasses.replace(SMALL, channels=(16, 16, 16), features=64, hidden=(64, 64))
    settings = dataclasses.replace(SETTINGS, precision='bfloat16', policy_freq=1, batch_size=64,
                                   actor_clip_norm=None, critic_clip_norm=None)
    assert 1e-5 < _gradient_difference(settings, network) < 0.15


def _gradient_difference(settings: TD3Settings, network: NetworkSettings) -> float:
    """Return the relative difference of the whole gradient, the worse of actor and critic."""
    agent = TD3(settings, network, seed=11)
    reference = Reference(agent, settings, network)
    # The generators' streams differ between float32 and float64: leave the noise out.
    agent.settings = reference.s = dataclasses.replace(settings, policy_noise=0.0)
    agent.train(RecordedBatches(network))
    reference.update(RecordedBatches(network).sample(settings.batch_size, settings.gamma,
                                                     settings.n_step))
    worst = 0.0
    for part, wanted in reference.gradients.items():
        found = dict(getattr(agent, part).named_parameters())
        difference = torch.cat([(found[n].grad - g).flatten() for n, g in wanted.items()])
        whole = torch.cat([g.flatten() for g in wanted.values()])
        assert difference.isfinite().all()
        worst = max(worst, float(difference.norm() / whole.norm()))
    return worst
