"""The diagnosis of real runs and checkpoints: well is called well, each illness by its name."""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from av_td3_ros.cli import diagnose
from av_td3_ros.td3 import (
    TD3,
    Checkpoints,
    NetworkSettings,
    ReplayBuffer,
    StepRecord,
    TD3Settings,
    load_checkpoint,
)
from av_td3_ros.td3.diagnostics import examine

torch.set_num_threads(1)

NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(8, 8, 8), features=8,
                          hidden=(16, 16))
SETTINGS = TD3Settings(batch_size=16, gamma=0.8, n_step=1, precision='float32')
UPDATES = 1000
PICTURES = ['cnns.png', 'values.png', 'actions.png', 'features.png', 'filters.png']
COUNTERS = {'policy_version': 20, 'transitions': 800, 'episodes': 20}


def drive(replay: ReplayBuffer, network: NetworkSettings = NETWORK) -> None:
    """Add 20 episodes of a world that rewards to do what state and frame say."""
    random = np.random.default_rng(1)
    for episode in range(20):
        for step in range(41):
            wanted = random.uniform(-0.8, 0.8, 2)
            frame = np.zeros((network.frame_size, network.frame_size))
            frame[:, :network.frame_size // 2] = 128 + 127 * wanted[1]
            action = random.uniform(-1, 1, 2)
            replay.add(StepRecord(
                'car', episode, step, frame.astype(np.uint8),
                np.array([wanted[0], 0.5, -0.5], np.float32)[:network.state_size],
                action.astype(np.float32), 1.0 - float(np.abs(action - wanted).sum()), step == 0,
                step == 40, False, policy_version=episode + 1))


def learn(network: NetworkSettings = NETWORK, updates: int = UPDATES) -> tuple[TD3, ReplayBuffer]:
    replay = ReplayBuffer(1000, network.frames, network.frame_size, network.state_size)
    drive(replay, network)
    agent = TD3(SETTINGS, network)
    for _ in range(updates):
        agent.train(replay)
    return agent, replay


@pytest.fixture(scope='module')
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a small agent that has learned."""
    agent, replay = learn()
    return Checkpoints(tmp_path_factory.mktemp('learned')).save(agent, replay, counters=COUNTERS)


@pytest.fixture
def ill(learned: Path, tmp_path: Path) -> Callable[[Callable[[TD3], None]], Path]:
    """Return a function that saves the learned agent again, with something done to it."""
    def ill(harm: Callable[[TD3], None]) -> Path:
        checkpoint = load_checkpoint(learned)
        agent, replay = TD3(SETTINGS, NETWORK), ReplayBuffer(1000, 4, 36, 3)
        checkpoint.restore(agent, replay)
        with torch.no_grad():
            harm(agent)
        return Checkpoints(tmp_path / 'ill').save(agent, replay, counters=COUNTERS)

    return ill


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out, where many cases are only about what is said."""
    for name in ('draw_run', 'draw_checkpoint'):
        monkeypatch.setattr(diagnose, name, lambda *_: [])


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    diagnose.add_arguments(parser)
    return diagnose.run(parser.parse_args([str(one) for one in arguments]))


def result(folder: Path) -> dict:
    return json.loads((folder / 'diagnosis.json').read_text())


def severities(folder: Path, severity: str) -> set[str]:
    return {one['name'] for one in result(folder)['findings'] if one['severity'] == severity}


def record(number: int, **metrics: float) -> dict:
    """Return a learner record as a healthy run writes it, all its metrics included."""
    updates = 50 * number
    return {
        'kind': 'learner', 'wall_time': 4.0 * number, 'updates': updates,
        'transitions': 1000 + 2 * updates, 'transitions_lost': 0, 'transitions_refused': 0,
        'updates_skipped': 0, 'episodes': number, 'replay_size': 999 + 2 * updates,
        'policy_version': number + 1, 'updates_per_second': 12.5, 'updates_per_transition': 0.4,
        'world_waiting': False, 'finished': False, 'checkpoint': '/somewhere/00000000',
        'metrics': {} if not number else {
            'critic_loss': 0.01 / number, 'q1_mean': 0.01 * number, 'q1_std': 0.5,
            'q2_mean': 0.01 * number, 'q2_std': 0.5, 'target_q_mean': 0.01 * number,
            'target_q_std': 0.5, 'td_error_mean': 0.03, 'td_error_max': 0.1,
            'critic_grad_norm': 0.5, 'critic_cnn_grad_norm': 0.03,
            'critic_grad_norm_clipped': 0.5, 'critic_cnn_grad_norm_clipped': 0.03,
            'actor_loss': -0.9, 'q_policy_mean': 0.011 * number, 'saturated_fraction': 0.0,
            'actor_grad_norm': 0.1, 'actor_cnn_grad_norm': 0.01, 'actor_grad_norm_clipped': 0.1,
            'actor_cnn_grad_norm_clipped': 0.01, 'draws_per_transition': 25.0,
            'policy_age_mean': 0.5 * number, 'observed_return_mean': 0.02 * number,
            'q_overestimation': -0.01 * number,
            **{f'{part}_cnn_{name}': value for part in ('actor', 'critic') for name, value in (
                ('dead_units', 0.01), ('feature_norm', 1.4), ('feature_std', 0.1),
                ('weight_change', 0.001 * updates / 50 + 0.1))},
            **metrics}}


def write_run(run: Path, last: dict | None = None, tail: str = '') -> Path:
    run.mkdir(parents=True, exist_ok=True)
    records = [record(number) for number in range(40)]
    records += [record(number, **(last or {})) for number in range(40, 60)]
    episodes = [{'kind': 'episode', 'return': 3.0, 'result': 'time_limit', 'transitions': 500}]
    (run / 'metrics.jsonl').write_text(
        ''.join(json.dumps(one) + '\n' for one in [*records, *episodes]) + tail)
    return run


def test_a_healthy_checkpoint_is_well_in_every_respect(learned, tmp_path, capsys):
    assert command(learned, '--out', tmp_path) == 0
    assert severities(tmp_path, 'sick') == severities(tmp_path, 'watch') == set()
    said = result(tmp_path)
    assert said['verdict'] == 'well' and said['updates'] == UPDATES
    # The rest needs the counters of a learner.
    assert set(said['not_measured']) == {
        'lost transitions', 'refused transitions', 'learner keeps up'}
    assert 'nothing sick' in capsys.readouterr().out


def test_the_figures_are_those_of_the_checkpoint(learned, undrawn, tmp_path):
    command(learned, '--out', tmp_path)
    figures = result(tmp_path)['figures']['checkpoint']
    agent, replay = TD3(SETTINGS, NETWORK), ReplayBuffer(1000, 4, 36, 3)
    load_checkpoint(learned).restore(agent, replay)
    expected = examine(agent, replay, 20)
    for name in ('policy_age_mean', 'draws_per_transition', 'actor_cnn_feature_norm',
                 'critic_cnn_feature_std', 'actor_cnn_weight_change'):
        assert figures[name] == pytest.approx(expected[name]), name
    assert figures['newest_policy_age'] == pytest.approx(20 - (41 * 20 + 9 * 19) / 50)
    layers = {one['layer']: one for one in result(tmp_path)['layers']}
    weight = agent.actor.cnn.convolutions[0].weight.detach()
    assert layers['actor.cnn.convolutions.0']['norm'] == pytest.approx(float(weight.norm()))
    assert layers['actor.cnn.convolutions.0']['shape'] == [8, 4, 8, 8]
    assert layers['critic.head1.0']['change'] is None


def test_looking_changes_no_checkpoint(learned, tmp_path):
    before = {path: path.read_bytes() for path in learned.rglob('*') if path.is_file()}
    command(learned, '--out', tmp_path)
    assert {path: path.read_bytes() for path in learned.rglob('*') if path.is_file()} == before


def saturate(agent: TD3) -> None:
    agent.actor.head[-1].weight *= 100


def numb(agent: TD3) -> None:
    agent.actor.head[-1].bias.fill_(50.0)
    agent.settings = dataclasses.replace(agent.settings, pre_activation_penalty=0.0)


def kill_cnn(agent: TD3) -> None:
    for layer in agent.actor.cnn.convolutions:
        layer.weight.copy_(-layer.weight.abs())
        layer.bias.fill_(-1e4)


def explode(agent: TD3) -> None:
    agent.critic.head1[-1].bias.fill_(1e6)


def stand_still(agent: TD3) -> None:
    for name, first in agent.first_cnns['critic'].items():
        agent.critic.cnn.get_parameter(name).copy_(first)


def break_weights(agent: TD3) -> None:
    agent.critic.head2[0].weight[0, 0] = torch.nan


@pytest.mark.parametrize(('harm', 'names'), [
    (saturate, {'saturated actions'}),
    (numb, {'saturated actions', 'actor gradient', 'varied actions'}),
    (kill_cnn, {'actor CNN: dead units', 'actor CNN: features differ'}),
    (explode, {'Q within reach of rewards', 'Q against observed returns'}),
    (stand_still, {'critic CNN: moves'}),
    (break_weights, {'finite weights'}),
])
def test_each_illness_of_a_checkpoint_is_named(ill, undrawn, harm, names, tmp_path, capsys):
    assert command(ill(harm), '--out', tmp_path) == 2
    assert names <= severities(tmp_path, 'sick')
    said = capsys.readouterr().out
    report = (tmp_path / 'diagnosis.md').read_text()
    for name in names:
        assert f'sick: {name}. ' in said and f'## Sick: {name}' in report
    assert 'What to do: ' in said


def test_a_dead_actor_cnn_leaves_the_critic_well(ill, undrawn, tmp_path):
    command(ill(kill_cnn), '--out', tmp_path)
    assert not any(name.startswith('critic') for name in severities(tmp_path, 'sick'))


def test_an_actor_that_does_not_look_is_to_watch(ill, undrawn, tmp_path):
    def look_away(agent: TD3) -> None:
        agent.actor.head[0].weight[:, :NETWORK.features] = 0

    command(ill(look_away), '--out', tmp_path)
    assert 'looks at the camera' in severities(tmp_path, 'watch')
    figures = result(tmp_path)['figures']['checkpoint']
    assert figures['action_change_black_frames'] == 0.0
    assert figures['action_change_zero_state'] > 0.01


def test_without_a_replay_the_weights_are_looked_at(tmp_path):
    path = Checkpoints(tmp_path).save(TD3(SETTINGS, NETWORK))
    assert command(path) == 0
    said = result(tmp_path / f'{path.name}-diagnosis')
    assert [one['name'] for one in said['findings']] == ['finite weights']
    assert 'saturated actions' in said['not_measured']
    assert said['pictures'] == ['filters.png'] and said['layers']


@pytest.mark.parametrize('network', [
    NetworkSettings(frames=0, frame_size=36, state_size=3, hidden=(8,)),
    NetworkSettings(frames=1, frame_size=36, state_size=0, channels=(2, 2, 2), features=4,
                    hidden=(8,), feature_activation='relu', layer_norm=False)])
def test_other_networks_can_be_looked_at(network, tmp_path):
    agent, replay = learn(network, updates=4)
    path = Checkpoints(tmp_path / 'all').save(agent, replay)
    command(path, '--out', tmp_path)
    said = result(tmp_path)
    assert ('filters.png' in said['pictures']) == (network.frames > 0)
    blind = 'action_change_black_frames' not in said['figures']['checkpoint']
    assert blind == (network.frames == 0)


def test_a_run_is_looked_at_with_its_newest_checkpoint(learned, tmp_path, capsys):
    run = write_run(tmp_path / 'run')
    agent, replay = TD3(SETTINGS, NETWORK), ReplayBuffer(1000, 4, 36, 3)
    load_checkpoint(learned).restore(agent, replay)
    Checkpoints(run / 'checkpoints').save(agent, replay, counters=COUNTERS, config={
        'limiter.updates_per_transition': 0.5, 'limiter.start_after': 1000, 'limiter.slack': 64})
    assert command(run) == 0
    said = result(run / 'diagnosis')
    assert said['not_measured'] == [] and said['pictures'] == PICTURES
    assert set(said['figures']) == {'checkpoint', 'metrics.jsonl'}
    for name in PICTURES:
        image = cv2.imread(str(run / 'diagnosis' / name))
        assert image is not None and image.std() > 10
        assert f'![{Path(name).stem}]({name})' in (run / 'diagnosis' / 'diagnosis.md').read_text()
    assert f'report: {run / "diagnosis" / "diagnosis.md"}' in capsys.readouterr().out
    # Its checkpoints, and one of them, alone.
    for path in (run / 'checkpoints', run / 'checkpoints' / 'latest'):
        assert command(path) == 0
        said = result(run / 'diagnosis-00001000')
        assert said['run'] is None and set(said['figures']) == {'checkpoint'}


@pytest.mark.parametrize(('last', 'name'), [
    ({'saturated_fraction': 1.0}, 'saturated actions'),
    ({'actor_grad_norm': 0.0}, 'actor gradient'),
    ({'q_policy_mean': 16_462_581.0, 'q1_mean': 51.0}, 'Q under the policy'),
    ({'q1_mean': 1e6, 'q2_mean': 1e6, 'q_policy_mean': 1e6}, 'Q within reach of rewards'),
    ({'q_overestimation': 50.0}, 'Q against observed returns'),
    ({'actor_cnn_dead_units': 1.0}, 'actor CNN: dead units'),
    ({'critic_cnn_feature_std': 0.0}, 'critic CNN: features differ'),
    ({'critic_cnn_grad_norm': 0.0}, 'critic CNN: gradient'),
    ({'actor_cnn_weight_change': 0.0}, 'actor CNN: moves'),
    ({'policy_age_mean': 60.0}, 'age of the data'),
])
def test_each_illness_of_a_run_is_named(tmp_path, undrawn, last, name):
    assert command(write_run(tmp_path, last)) == 2
    assert name in severities(tmp_path / 'diagnosis', 'sick')


def test_a_single_odd_measurement_makes_no_illness(tmp_path, undrawn):
    write_run(tmp_path)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write(json.dumps(record(60, saturated_fraction=1.0, actor_grad_norm=0.0)) + '\n')
    assert command(tmp_path) == 0
    assert severities(tmp_path / 'diagnosis', 'sick') == set()


def test_an_older_run_shows_what_it_has(tmp_path, capsys):
    """Killed in the middle of a line, without the figures of a look, no checkpoint."""
    records = [{'kind': 'learner', 'updates': 10 * number, 'transitions': 20 * number,
                'metrics': {'critic_loss': 1.0, 'q1_mean': float('nan'), 'odd': None}}
               for number in range(30)]
    (tmp_path / 'metrics.jsonl').write_text(
        ''.join(json.dumps(one) + '\n' for one in records) + '{"kind": "lear')
    assert command(tmp_path) == 0
    said = result(tmp_path / 'diagnosis')
    assert said['findings'] == [] and 'TD error' in said['not_measured']
    assert said['pictures'] == ['cnns.png', 'values.png']
    assert 'no checkpoint here' in capsys.readouterr().out


def test_settings_of_a_run_come_from_its_configuration(tmp_path, undrawn):
    write_run(tmp_path)
    (tmp_path / 'config.yaml').write_text(
        '/**/learner_node:\n  ros__parameters:\n    offline: true\n    td3: {gamma: 0.9}\n'
        '    limiter: {updates_per_transition: 40.0, start_after: 10, slack: 64}\n')
    assert command(tmp_path) == 2
    figures = result(tmp_path / 'diagnosis')['figures']['metrics.jsonl']
    assert (figures['gamma'], figures['offline']) == (0.9, 1.0)
    assert severities(tmp_path / 'diagnosis', 'sick') == {'learner keeps up'}
    (tmp_path / 'config.yaml').write_text('- nothing\n')
    assert command(tmp_path) == 0


def test_a_checkpoint_that_cannot_be_read_is_told_beside_the_run(tmp_path, capsys):
    run = write_run(tmp_path / 'run')
    path = Checkpoints(run / 'checkpoints').save(TD3(SETTINGS, NETWORK))
    data = bytearray((path / 'agent.safetensors').read_bytes())
    data[len(data) // 2] ^= 1
    (path / 'agent.safetensors').write_bytes(data)
    assert command(run) == 0
    assert 'truncated or altered' in capsys.readouterr().out
    with pytest.raises(ValueError, match='truncated or altered'):
        command(path)


@pytest.mark.parametrize('lost', ['its JSON files', 'all'])
def test_an_older_checkpoint_is_not_taken_for_the_newest(tmp_path, undrawn, capsys, lost):
    run = write_run(tmp_path / 'run')
    checkpoints = Checkpoints(run / 'checkpoints')
    older = checkpoints.save(TD3(SETTINGS, NETWORK))
    assert command(older.parent) == 0 and 'not whole' not in capsys.readouterr().out
    newest = checkpoints.save(learn(updates=4)[0])
    if lost == 'all':
        shutil.rmtree(newest)
    else:
        for file in newest.glob('*.json'):
            file.unlink()
    for path, place in ((run, 'diagnosis'), (older.parent, f'diagnosis-{older.name}')):
        command(path)
        note = (f'checkpoint {older.name} was looked at: the newest one, {newest}, is not whole '
                '(its manifest.json is missing)')
        assert result(run / place)['notes'] == [note] and note in capsys.readouterr().out
    command(older)  # which was asked for by name
    assert 'not whole' not in capsys.readouterr().out


def test_a_run_without_metrics_shows_its_checkpoint(learned, undrawn, tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    os.symlink(learned.parent, run / 'checkpoints')
    assert command(run) == 0
    assert 'metrics.jsonl is missing' in (run / 'diagnosis' / 'diagnosis.md').read_text()


def main_says(monkeypatch, capsys, *arguments: object) -> tuple[object, str]:
    from av_td3_ros.cli.main import main

    monkeypatch.setattr(sys, 'argv', ['av-td3', *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


def test_what_is_nothing_of_the_sort_is_one_clear_line(monkeypatch, capsys, tmp_path):
    file = tmp_path / 'file'
    file.touch()
    empty_run = tmp_path / 'run'
    (empty_run / 'checkpoints').mkdir(parents=True)
    old = tmp_path / 'old'
    path = Checkpoints(old).save(TD3(SETTINGS, NETWORK))
    state = (path / 'state.json').read_text().replace('"format": ', '"format": 9')
    (path / 'state.json').write_text(state)
    for place, words in ((tmp_path / 'nowhere', 'not there'), (file, 'no folder'),
                         (tmp_path / 'run' / 'checkpoints', 'neither a run nor a checkpoint'),
                         (empty_run, 'no checkpoint here'), (path, 'state.json')):
        status, said = main_says(monkeypatch, capsys, 'diagnose', place)
        assert status == 1 and said.count('\n') == 1
        assert said.startswith('av-td3 diagnose: ') and str(place) in said and words in said


def test_the_exit_status_tells_sick_from_well(monkeypatch, undrawn, capsys, tmp_path):
    assert main_says(monkeypatch, capsys, 'diagnose', write_run(tmp_path / 'a'))[0] == 0
    sick = write_run(tmp_path / 'b', {'saturated_fraction': 1.0})
    assert main_says(monkeypatch, capsys, 'diagnose', sick, '--out', tmp_path / 'c')[0] == 2
    assert (tmp_path / 'c' / 'diagnosis.md').is_file()
