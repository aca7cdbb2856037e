"""Policies to drive with: exported alone, loaded again, refused when they are not whole."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from av_td3_ros.simulator.learned_drivers import ActorDriver, RandomDriver
from av_td3_ros.td3 import (
    TD3,
    CheckpointError,
    Checkpoints,
    ExplorationSettings,
    NetworkSettings,
    TD3Settings,
    export_policy,
    load_policy,
)

torch.set_num_threads(1)
NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
SEEN = np.arange(4 * 36 * 36, dtype=np.uint8).reshape(4, 36, 36), np.ones(3, np.float32)
TRAINED_WITH = {'environment_node': {'frame.size': 36}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Write a checkpoint of an untrained learner."""
    agent = TD3(TD3Settings(precision='float32'), NETWORK, seed=1)
    return Checkpoints(tmp_path / 'checkpoints').save(agent, counters={'policy_version': 7})


def test_an_exported_policy_drives_as_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    learned = load_policy(checkpoint)
    folder = export_policy(learned, tmp_path / 'policy', TRAINED_WITH, 'av-td3 train')
    assert sorted(path.name for path in folder.iterdir()) == ['actor.safetensors', 'policy.json']
    alone = load_policy(folder)
    assert (alone.version, alone.command) == (7, 'av-td3 train')
    assert alone.settings == TRAINED_WITH
    assert alone.network == learned.network == NETWORK
    assert np.array_equal(alone.actor.act(*SEEN), learned.actor.act(*SEEN))
    assert load_policy(checkpoint.parent).path == checkpoint.resolve()


def test_a_folder_in_use_is_left_alone(checkpoint: Path) -> None:
    with pytest.raises(FileExistsError, match='choose another'):
        export_policy(load_policy(checkpoint), checkpoint, {})


@pytest.mark.parametrize(('change', 'why'), [
    ({'network': {'frames': 2}}, 'do not belong together'), ({'format': 9}, 'format 9'),
    ({'network': {'frame': 4}}, "unknown key 'frame'"), ({'sha256': ''}, 'altered'),
    ({'version': 8}, 'say version'), ({'settings': 3}, 'not a whole policy')])
def test_an_altered_policy_is_refused_with_the_reason(
        checkpoint: Path, tmp_path: Path, change: dict[str, object], why: str) -> None:
    about = export_policy(load_policy(checkpoint), tmp_path / 'policy', {}) / 'policy.json'
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    with pytest.raises(CheckpointError, match=why):
        load_policy(about.parent)


def test_a_folder_without_a_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='no checkpoint here'):
        load_policy(tmp_path)


def test_an_actor_drives_one_vehicle_as_the_node_does(checkpoint: Path) -> None:
    actor = load_policy(checkpoint).actor
    driver = ActorDriver(actor)
    driver.restart(0)
    (alone,) = driver.act(SEEN[0][None], SEEN[1][None], [0])
    assert np.array_equal(alone, actor.act(*SEEN))
    three = driver.act(np.stack([SEEN[0]] * 3), np.stack([SEEN[1]] * 3), [0, 1, 2])
    assert np.allclose(three, alone, atol=1e-6)


@pytest.mark.parametrize('left_out', [{'frames': 0}, {'state_size': 0}])
def test_what_the_network_leaves_out_is_not_given_to_it(left_out: dict[str, int]) -> None:
    agent = TD3(TD3Settings(precision='float32'), NetworkSettings(
        **{'frame_size': 36, 'state_size': 3, **left_out}), seed=1)
    assert ActorDriver(agent.actor).act(SEEN[0][None], SEEN[1][None], [0]).shape == (1, 2)


def test_random_driving_repeats_from_its_seed() -> None:
    drives = []
    for seed in (3, 3, 4):
        driver = RandomDriver(ExplorationSettings(), seed)
        driver.restart(0)
        driver.restart(1)
        drives.append(np.stack([driver.act(SEEN[0][None], SEEN[1][None], [0, 1])
                                for _ in range(5)]))
    assert np.array_equal(drives[0], drives[1])
    assert not np.array_equal(drives[0], drives[2])
    assert not np.array_equal(drives[0][:, 0], drives[0][:, 1])
