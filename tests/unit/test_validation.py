"""Checkpoints are driven on other routes beside the training, and the best one is chosen."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import await_that

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.pictures.plots import VALIDATION_FILE, draw_learning_curve, read_validations
from av_td3_ros.cli.validation import Validation, choose, validate
from av_td3_ros.td3 import TD3, Checkpoints, NetworkSettings, TD3Settings
from av_td3_ros.td3.checkpoint import BEST, LATEST, CheckpointError, load

SMALL = ('network.features=8', 'network.channels=[4, 4, 4]', 'network.hidden=[16, 16]',
         'world.camera.width=96', 'world.camera.height=72', 'episodes.min_length=30',
         'episodes.max_length=40', 'driving.termination.max_steps=80')
NETWORK = NetworkSettings(features=8, channels=(4, 4, 4), hidden=(16, 16))


def run_with(folder: Path, *updates: int) -> Path:
    """Return a run of a small network with a checkpoint after each of some updates."""
    folder.mkdir()
    config = Config.shipped().for_training('embedded', 'ego_vehicle', map_name='loop', seed=3)
    config.with_options(SMALL).write(folder / 'config.yaml', 'a test')
    agent = TD3(TD3Settings(), NETWORK)
    checkpoints = Checkpoints(folder / 'checkpoints', keep=5)
    for count in updates:
        agent.updates = count
        checkpoints.save(agent, pin='untrained' if count == 0 else None)
    return folder


def note(run: Path, *merits: tuple[int, float, float]) -> None:
    """Write validations as the process does: updates, success and reward a second."""
    lines = [{'checkpoint': f'{updates:08d}', 'updates': updates, 'episodes': 1,
              'success': success, 'route_completion': 0.5, 'mean_return': 30.0,
              'reward_per_second': rate} for updates, success, rate in merits]
    (run / VALIDATION_FILE).write_text(''.join(json.dumps(one) + '\n' for one in lines))


def test_the_best_of_the_last_three_is_chosen(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 100, 200, 300, 400)
    note(run, (100, 1.0, 50.0), (200, 0.5, 40.0), (300, 0.9, 15.0), (400, 0.9, 14.0))
    chosen = choose(run)  # most routes first, then the one that does not dawdle
    assert chosen is not None and chosen['updates'] == 300
    assert (run / 'checkpoints' / BEST).resolve().name == '00000300'


def test_what_is_gone_or_was_never_validated_is_not_chosen(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 100)
    assert choose(run) is None and not (run / 'checkpoints' / BEST).exists()
    note(run, (100, 0.0, -1.0), (200, 0.0, 10.0))
    chosen = choose(run)
    assert chosen is not None and chosen['updates'] == 100


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 100)
    note(run, (100, 0.0, 1.0), (200, 0.0, 2.0))
    file = run / VALIDATION_FILE
    file.write_text(file.read_text()[:-5])
    assert [one['updates'] for one in read_validations(run)] == [100]


def test_a_checkpoint_drives_other_routes_than_the_training(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 100)
    found = validate(run, run / 'checkpoints' / '00000100', episodes=2)
    assert (found['checkpoint'], found['updates'], found['episodes']) == ('00000100', 100, 2)
    assert 0.0 <= found['success'] <= 1.0 and 0.0 <= found['route_completion'] <= 1.0
    # The same checkpoint reaches the same.
    assert validate(run, run / 'checkpoints' / '00000100', episodes=2) == found
    with pytest.raises(CheckpointError):
        validate(run, run / 'checkpoints' / '00000200', episodes=2)


def test_the_process_validates_what_is_trained_and_ends_with_the_last(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 0, 100)
    waited = []
    with Validation(run, episodes=1) as validation:
        validation.finish(lambda: waited.append(1))
    said = (run / 'logs' / 'validation.log').read_text()
    assert waited and [one['updates'] for one in validation.news()] == [100], said
    assert validation.news() == []
    chosen = choose(run)
    assert chosen is not None and chosen['updates'] == 100
    assert draw_learning_curve(run).is_file()


def test_a_policy_that_is_written_twice_is_driven_once(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 100)
    with Validation(run, episodes=1) as validation:
        news: list[dict[str, object]] = []
        await_that(lambda: news.extend(validation.news()) or news, 'the first one')
        agent = TD3(TD3Settings(), NETWORK)
        load(run / 'checkpoints' / '00000100').restore(agent)
        Checkpoints(run / 'checkpoints', keep=5).save(agent)
        assert (run / 'checkpoints' / LATEST).resolve().name == '00000100.1'
        validation.finish(lambda: None)
    assert [one['checkpoint'] for one in news + validation.news()] == ['00000100']


def test_an_error_in_the_session_ends_the_process_at_once(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 0)
    with pytest.raises(KeyboardInterrupt), Validation(run, episodes=1) as validation:
        process = validation._process
        raise KeyboardInterrupt
    assert process is not None and process.returncode is not None


def test_without_episodes_there_is_no_process(tmp_path: Path) -> None:
    run = run_with(tmp_path / 'run', 100)
    with Validation(run, episodes=0) as validation:
        validation.finish(lambda: None)
    assert not (run / 'logs' / 'validation.log').exists() and validation.news() == []
