"""What the benchmarks compare with is what they say it is."""
from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_td3_parity import PLAIN, SETTINGS, SMALL, RecordedBatches
from torch import nn

from av_td3_ros.td3 import PRESETS, TD3, NetworkSettings, StepRecord, TD3Settings
from benchmarks import _variants, ablation, faults, latency, learner
from benchmarks._variants import ORIGINAL, OURS, VARIANTS, EagerTD3, Variant

UPDATES = 6
PAPER = dataclasses.replace(SETTINGS, scale_policy_loss=False, pre_activation_penalty=0.0,
                            n_step=1)
PARTS = ('actor', 'critic', 'actor_target', 'critic_target')


def trained(variant: Variant, settings: TD3Settings = SETTINGS,
            network: NetworkSettings = SMALL) -> tuple[TD3, EagerTD3]:
    """Return our agent and a variant after the same updates from the same weights."""
    ours = TD3(settings, network, seed=11)
    other = EagerTD3(copy.deepcopy(ours.actor), copy.deepcopy(ours.critic), settings, variant,
                     seed=11)
    batches, same = RecordedBatches(network), RecordedBatches(network)
    for _ in range(UPDATES):
        ours.train(batches)
        other.train(same)
    return ours, other


def difference(ours: TD3, other: EagerTD3, parts: tuple[str, ...] = PARTS) -> float:
    """Return the largest relative difference of a weight or target."""
    worst = 0.0
    for part in parts:
        theirs: nn.Module = getattr(other, part)
        found = dict(theirs.named_parameters())
        for name, parameter in getattr(ours, part).named_parameters():
            apart = (parameter - found[name]).norm() / parameter.norm()
            assert apart.isfinite()
            worst = max(worst, apart.item())
    return worst


@pytest.mark.parametrize('recipe', ['default', 'paper'])
def test_the_variant_without_mistakes_is_ours(recipe: str) -> None:
    if recipe == 'default':
        ours, other = trained(OURS)
    else:
        ours, other = trained(OURS, PAPER, dataclasses.replace(SMALL, **PLAIN))
    assert difference(ours, other) < 1e-9


def test_the_variant_without_mistakes_shifts_frames_as_ours() -> None:
    assert difference(*trained(OURS, dataclasses.replace(SETTINGS, random_shift=2))) < 1e-9


@pytest.mark.parametrize('variant', [*VARIANTS[1:], ORIGINAL], ids=lambda v: v.name)
def test_each_mistake_changes_what_is_learned(variant: Variant) -> None:
    ours, other = trained(variant)
    assert difference(ours, other, ('actor',)) > 1e-6
    assert difference(ours, other, ('critic',)) > 1e-6


@pytest.mark.parametrize('setting', [
    {'scale_policy_loss': False}, {'pre_activation_penalty': 0.5}, {'actor_clip_norm': None},
    {'critic_clip_norm': 0.1}, {'cnn_learning_rate': 1e-3}, {'policy_freq': 3}])
def test_every_setting_is_read(setting: dict[str, float | None]) -> None:
    ours, _ = trained(OURS)
    _, other = trained(OURS, dataclasses.replace(SETTINGS, **setting))
    assert difference(ours, other) > 1e-6


def test_a_shared_cnn_is_one_object_and_its_target_another() -> None:
    _, other = trained(Variant('', shared_cnn=True))
    assert other.actor.cnn is other.critic.cnn
    assert other.actor_target.cnn is other.critic_target.cnn
    assert other.actor_target.cnn is not other.actor.cnn


def test_targets_without_cnns_see_with_the_online_ones() -> None:
    _, other = trained(Variant('', target_cnns=False))
    assert other.actor_target.cnn is other.actor.cnn
    assert other.critic_target.cnn is other.critic.cnn
    assert all(p.requires_grad for p in other.critic.parameters())


def test_cross_fed_features_carry_the_value_into_the_actors_cnn() -> None:
    settings = dataclasses.replace(PAPER, policy_noise=0.0)
    network = dataclasses.replace(SMALL, **PLAIN, last_layer_scale=0.0)
    norms = {}
    for variant in (OURS, Variant('', cross_fed=True)):
        agent = EagerTD3(*_variants.make_networks(network, 0), settings, variant)
        batches = RecordedBatches(network)
        agent.train(batches)
        norms[variant.cross_fed] = float(agent.train(batches)['actor_cnn_grad_norm'])
    # Through the action alone nothing passes an actor whose last layer is zero.
    assert norms[False] == 0.0
    assert norms[True] > 0.0


def test_a_cnn_with_an_optimiser_of_its_own_escapes_the_clip() -> None:
    layers = nn.ModuleDict({'cnn': nn.Linear(1, 1, bias=False), 'rest': nn.Linear(1, 1)})
    settings = dataclasses.replace(SETTINGS, critic_clip_norm=1e-3)
    for separate in (True, False):
        descent = _variants.Descent(layers, settings, settings.critic_clip_norm, separate)
        descent.step(sum((p.sum() * 10 for p in layers.parameters()), torch.zeros(())))
        assert (float(_variants.gradient_norm(descent.cnn)) == 10.0) is separate
        assert float(_variants.gradient_norm(descent.clipped)) == pytest.approx(1e-3)
        assert len(descent.adams) == (2 if separate else 1)


def test_an_update_costs_what_its_layers_cost() -> None:
    settings, network = PRESETS['paper']
    cnn, heads = learner.update_gflop(settings, network, learner.OURS_PASSES)
    # Multiply-adds of one stack of frames, layer by layer.
    first = 20 * 20 * 32 * 8 * 8 * 4
    whole = first + 9 * 9 * 64 * 4 * 4 * 32 + 7 * 7 * 64 * 3 * 3 * 64 + 3136 * 512
    passes = 2 * whole + (3 * whole - first) + (whole + 3 * whole - first) / 2
    assert cnn == pytest.approx(2 * 256 * passes / 1e9)
    assert 32 < cnn + heads < 32.6
    assert sum(learner.update_gflop(settings, network, learner.ORIGINAL_PASSES)) < cnn


def test_the_originals_buffer_stores_whole_stacks_of_floats() -> None:
    buffer = learner.FloatStacks(20, NetworkSettings(), seed=0)
    assert 226_000 < buffer.bytes_per_transition < 227_000
    batch = buffer.sample(6, 0.99, 1)
    assert batch.frames.shape == (6, 4, 84, 84)
    assert batch.frames.dtype == torch.float32
    assert -1.0 <= float(batch.frames.min()) < -0.9
    assert 0.9 < float(batch.frames.max()) <= 1.0
    assert batch.next_state.shape == (6, 53)
    assert batch.reward.shape == batch.discount.shape == (6,)


def test_a_clock_adds_up_the_calls_made_through_it() -> None:
    clock = learner.Clock()
    double = clock.timed(lambda x: 2 * x)
    assert [double(1), double(2)] == [2, 4]
    assert clock.seconds > 0.0


def steps(episodes: int, length: int) -> list[StepRecord]:
    """Return short episodes that end by truncation."""
    random = np.random.default_rng(0)
    return [StepRecord('v', episode, step, random.integers(0, 256, (36, 36), np.uint8),
                       random.normal(size=7).astype(np.float32),
                       random.uniform(-1, 1, 2).astype(np.float32), 1.0, step == 0,
                       step == length - 1, False)
            for episode in range(episodes) for step in range(length)]


def test_whole_episodes_are_held_out() -> None:
    training, held_out = ablation.split(steps(10, 5))
    assert {r.episode for r in held_out} == {4, 9}
    assert len(training) == 40
    assert not {r.episode for r in training} & {r.episode for r in held_out}


def test_too_few_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match='4 episodes'):
        ablation.split(steps(4, 5))


def test_an_ablation_keeps_its_whole_series() -> None:
    data = ablation.Data.of(steps(10, 8), seed=0)
    settings = dataclasses.replace(PAPER, precision='float32')
    network = dataclasses.replace(SMALL, **PLAIN, frames=4)
    row = ablation.run('ours', settings, network, OURS, data, updates=10, every=4)
    assert [point['update'] for point in row['series']] == [4, 8, 10]
    assert len(row['actor_gradients']) == 5
    assert row['actor_gradient_lowest'] == min(row['actor_gradients'][2:])
    assert row['actor_gradient_end'] == row['actor_gradients'][-1]
    assert row == ablation.run('ours', settings, network, OURS, data, updates=10, every=4)


def test_every_protection_is_on_where_all_are() -> None:
    rows = {name: (settings, network) for name, settings, network in ablation.protections()}
    settings, network = rows['all']
    wanted_settings, wanted_network = PRESETS['default']
    assert settings.pre_activation_penalty == wanted_settings.pre_activation_penalty > 0
    assert settings.scale_policy_loss
    assert dataclasses.replace(network, features=0) == dataclasses.replace(wanted_network,
                                                                           features=0)
    plain, plain_network = rows['none']
    assert (plain, plain_network) == ablation.paper()
    assert not plain.scale_policy_loss
    assert not plain_network.layer_norm


def test_faults_injected_anew_replace_their_rows_only(tmp_path: Path) -> None:
    first, second = list(faults.FAULTS)[:2]
    file = tmp_path / 'faults.json'
    rows = [{'fault': one, 'times': 1, 'details': []} for one in (first, second)]
    claims = [{'name': one, 'fault': one, 'holds': True} for one in (first, second)]
    file.write_text(json.dumps({'table': rows, 'claims': claims}))
    again = [{'fault': first, 'times': 9, 'details': [{'topic': '/a', 'sent': 2}]}]
    table, told = faults.merged(file, again, [{'name': 'new', 'fault': first, 'holds': False}])
    assert [(one['fault'], one['times']) for one in table] == [(first, 9), (second, 1)]
    assert [one['name'] for one in told] == ['new', second]
    tables = faults.page(table)
    assert list(tables) == ['rows', first] and 'details' not in tables['rows']
    assert '/a' in tables[first]


def test_a_row_of_latency_is_judged_and_shown() -> None:
    found = {'whole': np.array([4.0, 5.0, 30.0]), 'lost': np.zeros(0),
             'elsewhere': np.array([0.1]), 'image arrived': np.array([1.0, 2.0, 3.0])}
    rows = [latency.row(latency.Case(320, 240), found),
            latency.row(latency.Case(800, 600, learning=False), found),
            latency.row(latency.Case(800, 600, peer=True), found)]
    claims = latency.claims_of(rows)
    assert [(one['value'], one['holds']) for one in claims] == [
        (5.0, True), (5.0, True), (29.5, False)]
    page = latency.page(rows, claims, ['python -m benchmarks.latency --json x'])
    assert '| 800x600 bgra8 | learns | plain node | 3 | 0 | 0.10 | 5.00 | 29.50 | 30.00 |' in page
    assert page.count(' | no |') == 1 and '    python -m benchmarks.latency --json x' in page


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
            ) -> str:
    """Return what a benchmark says of options with which there is nothing to measure."""
    name, *words = command.split()
    benchmark = importlib.import_module(f'benchmarks.{name}')
    monkeypatch.setattr(sys, 'argv', [name, *words])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize('command', [
    'latency --only nosuch', 'latency --driver nosuch', 'latency --levers --only nosuch',
    'latency --only 320x240 --levers'])
def test_latency_of_nothing_names_what_there_is(
        command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(monkeypatch, capsys, command)
    assert '320x240 bgra8, 800x600 bgra8, 800x600 jpeg' in said
    assert 'ours, plain node' in said and 'learner not nice' in said


@pytest.mark.parametrize(('command', 'told'), [
    ('latency --frames 0', "--frames: '0' is no whole number of at least 1"),
    ('latency --lever-frames x', "'x' is no whole number"),
    ('fleet --vehicles 4 0', "--vehicles: '0' is no whole number of at least 1"),
    ('fleet --seconds 0', "--seconds: '0' is no number above 0"),
    ('fleet --alone nan', "--alone: 'nan' is no number above 0"),
    ('hosts --vehicles -1', "'-1' is no whole number"), ('soak --minutes x', "'x' is no number"),
    ('replay --steps 1.5', "'1.5' is no whole number"), ('learner --rounds 0', '--rounds'),
    ('camera --frames 0', '--frames'), ('camera_view --images 0', '--images'),
    ('faults --times 0', '--times'), ('lockstep --steps 0', '--steps'),
    ('ablation --updates 0', '--updates'), ('weights --steps 0', '--steps'),
    ('ranks --updates 0', '--updates'), ('learning --workers 0', '--workers'),
    ('vehicle_in_the_loop --seconds 0', '--seconds')])
def test_a_benchmark_of_nothing_is_refused(
        command: str, told: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refusal(monkeypatch, capsys, command)


def test_the_learner_beside_the_plain_node_has_a_bag_to_learn_from(
        monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(case: latency.Case, frames: int, domain: int, bag: Path) -> dict[str, np.ndarray]:
        measured.append((case.driver, case.learning, frames))
        assert case.peer == bag.is_dir()
        bag.mkdir(exist_ok=True)
        return {'whole': np.ones(3), 'lost': np.zeros(0), 'elsewhere': np.zeros(1)}

    monkeypatch.setattr(latency, 'measure', measure)
    monkeypatch.setattr(latency, 'ros_environment', lambda _: {})
    monkeypatch.setattr(latency, 'keep_memory', lambda: None)
    monkeypatch.setattr(latency, 'take_domain', lambda simulated: (0, None))
    monkeypatch.setattr(sys, 'argv', [
        'latency', '--driver', 'plain', '--only', '320', '--learner', 'learns',
        '--lever-frames', '7', '--peer-frames', '9'])
    assert latency.main() == 0
    assert measured == [('ours', True, 7), ('plain node', True, 9)]
