"""The configuration of a session: shipped, changed by options, written and read back."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from av_td3_ros.cli.config import SETTINGS, Config, described_file, read_node_file
from av_td3_ros.paths import config_directory
from av_td3_ros.settings import described_fields, flatten
from av_td3_ros.td3 import PRESETS


@pytest.mark.parametrize('node', SETTINGS)
def test_the_shipped_file_tells_every_key_with_its_default(node: str) -> None:
    path = config_directory() / f'{node}.yaml'
    assert path.read_text() == described_file(node), (
        'write it anew: python -m av_td3_ros.cli.config')
    values = read_node_file(path)
    assert list(values) == [key for key, _, _ in described_fields(SETTINGS[node])]
    assert all(len(line) <= 99 for line in path.read_text().splitlines())


def test_the_shipped_configuration_is_that_of_the_settings() -> None:
    shipped = Config.shipped()
    for node, kind in SETTINGS.items():
        assert flatten(shipped.settings[node]) == flatten(kind())


def test_it_is_written_as_ros_reads_it_and_read_back(tmp_path: Path) -> None:
    config = Config.shipped().with_options(['td3.actor_clip_norm=null', 'mode=real_time'])
    path = tmp_path / 'config.yaml'
    config.write(path, 'made by\nav-td3 train')
    assert path.read_text().startswith('# made by\n# av-td3 train\n')
    content = yaml.safe_load(path.read_text())
    assert list(content) == [f'/**/{node}' for node in SETTINGS]
    assert content['/**/simulator_node']['ros__parameters']['mode'] == 'real_time'
    # ROS parameters have no null.
    assert content['/**/learner_node']['ros__parameters']['td3']['actor_clip_norm'] == 'none'
    again = Config.read(path)
    assert again.values() == config.values()
    assert again.settings['learner_node'].td3.actor_clip_norm is None


def test_an_option_reaches_every_node_that_has_the_key() -> None:
    config = Config.shipped().with_options([
        'network.features=32', 'learner_node.threads=2', 'network.channels=[8, 8, 8]',
        'world.map=town', 'pause_world=false', 'seed=5'])
    for node in ('policy_node', 'learner_node'):
        network = config.settings[node].network
        assert (network.features, network.channels) == (32, (8, 8, 8))
    assert config.settings['learner_node'].threads == 2
    assert config.settings['policy_node'].threads == 1
    assert config.settings['simulator_node'].world.map == 'town'
    assert config.settings['learner_node'].pause_world is False
    assert {config.settings[node].seed for node in (
        'simulator_node', 'policy_node', 'learner_node')} == {5}


def test_the_last_option_wins_and_the_first_configuration_stays() -> None:
    shipped = Config.shipped()
    changed = shipped.with_options(['td3.gamma=0.9', 'td3.gamma=0.8'])
    assert changed.settings['learner_node'].td3.gamma == 0.8
    assert shipped.values() == Config.shipped().values()


@pytest.mark.parametrize(('option', 'words'), [
    ('td3.gama=0.9', "td3.gama: unknown key; did you mean 'td3.gamma'"),
    ('learner_node.td3.gama=0.9', "did you mean 'td3.gamma'"),
    ('lerner_node.threads=2', "did you mean 'learner_node.threads'"),
    ('td3.gamma=2', 'td3.gamma = 2.0 is out of range'),
    ('td3.gamma=high', "td3.gamma = 'high': give a number"),
    ('td3.gamma', '--config td3.gamma'), ('=1', 'unknown key'),
    ('td3.gamma=[', 'is no YAML value'),
    ('mode=warp', "mode = 'warp' is not one of"),
    ('network.channels=[8]', 'network: channels')])
def test_an_impossible_option_is_named(option: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        Config.shipped().with_options([option])
    assert words in str(error.value)


@pytest.mark.parametrize(('options', 'words'), [
    (['frame.count=3'], 'network.frames = 4, but environment_node sends 3'),
    (['frame.size=96'], 'set network.frame_size=96'),
    (['driving.waypoints=10'], 'network.state_size = 53, but environment_node sends 23'),
    (['policy_node.network.features=32'], 'different network.* settings')])
def test_what_one_node_sends_another_must_take(options: list[str], words: str) -> None:
    with pytest.raises(ValueError) as error:
        Config.shipped().with_options(options)
    assert words in str(error.value)


def test_sizes_that_fit_each_other_are_taken() -> None:
    config = Config.shipped().with_options([
        'frame.count=3', 'network.frames=3', 'driving.waypoints=10', 'network.state_size=23'])
    assert config.settings['environment_node'].driving.state_size == 23


def test_a_training_session_is_configured_alike_for_all_nodes(tmp_path: Path) -> None:
    config = Config.shipped().for_training('embedded', 'car7', map_name='town', seed=3, steps=50)
    settings = config.writing_to(tmp_path).settings
    assert settings['simulator_node'].vehicle == settings['environment_node'].vehicle == 'car7'
    assert settings['simulator_node'].world.map == 'town'
    assert settings['environment_node'].episodes.seed == settings['learner_node'].seed == 3
    assert settings['policy_node'].training
    # Nobody drives before the learner is there.
    assert settings['environment_node'].wait_for == 3
    assert settings['recorder_node'].wait_for == 1
    assert settings['learner_node'].total_transitions == 50
    assert settings['learner_node'].run == str(tmp_path)
    assert settings['recorder_node'].bag == str(tmp_path / 'bag')
    with pytest.raises(FileNotFoundError, match='atlantis'):
        Config.shipped().for_training('embedded', 'car7', map_name='atlantis')


@pytest.mark.parametrize(('text', 'words'), [
    ('', 'found nothing'), ('- 1', 'found a list'), ('learner_node: 3', 'holds a single value'),
    ('a: {ros__parameters: [1]}', "'a' holds a mapping"), ('{', 'is not YAML'),
    ('a: {ros__parameters: {1: 2}}', '1 is no name')])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    for read in (Config.read, read_node_file):
        with pytest.raises(ValueError, match=r'config\.yaml') as told:
            read(path)
        assert words in str(told.value)
        assert 'Error' not in str(told.value) and 'NoneType' not in str(told.value)


def test_a_parameter_file_that_cannot_be_read_is_told_in_words(tmp_path: Path) -> None:
    for path, words in ((tmp_path / 'none.yaml', 'No such file'), (tmp_path, 'Is a directory')):
        with pytest.raises(ValueError, match=words) as told:
            Config.read(path)
        assert str(path) in str(told.value) and 'Errno' not in str(told.value)


def test_an_unknown_node_is_named() -> None:
    with pytest.raises(ValueError, match="unknown node 'lidar_node', known: simulator_node"):
        Config({'lidar_node': {}})
    with pytest.raises(ValueError, match="did you mean 'control_node'"):
        Config({'controll_node': {}})


def test_a_preset_sets_the_recipe_on_both_sides_and_options_come_on_top() -> None:
    config = Config.shipped().with_options(['network.frames=2', 'frame.count=2'])
    paper = config.with_preset('paper').with_options(['td3.tau=0.1']).settings
    algorithm, network = PRESETS['paper']
    assert paper['learner_node'].td3 == dataclasses.replace(algorithm, tau=0.1)
    for node in ('policy_node', 'learner_node'):
        assert paper[node].network == dataclasses.replace(network, frames=2)
    assert config.with_preset('default').values() == config.values()


def test_an_empty_list_of_bags_survives_a_parameter_file(tmp_path: Path) -> None:
    file = tmp_path / 'config.yaml'
    Config.shipped().write(file, 'a test')
    assert yaml.safe_load(file.read_text())['/**/learner_node']['ros__parameters']['bags'] == ['']
    assert Config.read(file).settings['learner_node'].bags == ()
