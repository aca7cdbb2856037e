"""How the nodes of a session are wired."""
from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import pytest

from av_td3_ros.paths import config_directory
from av_td3_ros.ros import graph
from av_td3_ros.ros.graph import profile_parameters, profiles, session_nodes

NODES = {'simulator_node', 'environment_node', 'policy_node', 'control_node', 'recorder_node',
         'learner_node'}


def test_a_session_has_the_nodes_of_its_profile() -> None:
    assert {'embedded', 'carla'} <= set(profiles())
    assert {one.name for one in session_nodes('embedded', 'car', learning=True)} == NODES
    assert {one.name for one in session_nodes('carla', 'car', learning=True)} == (
        NODES - {'simulator_node'})
    assert {one.name for one in session_nodes('embedded', 'car', learning=False)} == (
        NODES - {'recorder_node', 'learner_node'})


def test_both_profiles_bind_the_vehicle_side_to_the_same_topics() -> None:
    embedded, carla = ({one.name: one for one in session_nodes(name, 'car', learning=True)}
                       for name in ('embedded', 'carla'))
    assert all(embedded[name] == spec for name, spec in carla.items())


def test_every_output_of_one_node_is_the_input_of_another() -> None:
    nodes = {one.name: one for one in session_nodes('embedded', 'car', learning=True)}

    def topic(node: str, role: str) -> str:
        name = nodes[node].remaps[f'~/{role}']
        return name if name.startswith('/') else f'{nodes[node].namespace}/{name}'

    for one, output, other, received in (
            ('environment_node', 'observation', 'policy_node', 'observation'),
            ('environment_node', 'observation', 'control_node', 'observation'),
            ('environment_node', 'observation', 'recorder_node', 'observation'),
            ('environment_node', 'hold', 'control_node', 'hold'),
            ('environment_node', 'episode_summary', 'learner_node', 'episode_summary'),
            ('environment_node', 'set_transform', 'simulator_node', 'set_transform'),
            ('environment_node', 'set_target_velocity', 'simulator_node', 'set_target_velocity'),
            ('environment_node', 'goal', 'simulator_node', 'goal'),
            ('policy_node', 'action', 'control_node', 'action'),
            ('control_node', 'applied_action', 'recorder_node', 'applied_action'),
            ('control_node', 'vehicle_command', 'simulator_node', 'vehicle_command'),
            ('recorder_node', 'transition', 'learner_node', 'transition'),
            ('learner_node', 'actor_weights', 'policy_node', 'actor_weights'),
            ('learner_node', 'world_control', 'simulator_node', 'world_control'),
            *(('simulator_node', name, 'environment_node', name) for name in (
                'image', 'odometry', 'markers', 'collision', 'lane_invasion', 'path',
                'world_info'))):
        assert topic(one, f'output/{output}') == topic(other, f'input/{received}'), output
    learner = nodes['learner_node']
    assert topic('recorder_node', 'resend_transitions') == (
        f'{learner.namespace}/{learner.name}/resend_transitions/car')  # where it asks a vehicle


def test_the_vehicle_has_its_own_names() -> None:
    specs = {one.name: one for one in session_nodes('embedded', 'car7', learning=True)}
    assert specs['policy_node'].namespace == '/car7'
    assert specs['learner_node'].namespace == '/learner'
    assert specs['simulator_node'].remaps['~/output/image'] == '/carla/car7/rgb_front/image'
    assert not [topic for spec in specs.values() for topic in spec.remaps.values()
                if '{' in topic]


def test_each_node_is_a_module_with_a_main() -> None:
    for spec in session_nodes('embedded', 'car', learning=True):
        assert callable(importlib.import_module(spec.module).main)


def test_a_node_starts_with_its_remaps_and_parameters() -> None:
    (spec,) = (one for one in session_nodes('embedded', 'car', learning=False)
               if one.name == 'policy_node')
    arguments = spec.arguments(Path('/run/config.yaml'))
    assert arguments[0] == '--ros-args'
    assert arguments[arguments.index('--params-file') + 1] == '/run/config.yaml'
    remaps = {after for before, after in itertools.pairwise(arguments) if before == '-r'}
    assert {'__ns:=/car', '~/output/action:=action',
            '~/input/actor_weights:=/learner/actor_weights'} <= remaps


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'moon' is not one of carla, embedded"):
        session_nodes('moon', 'car', learning=True)


@pytest.mark.parametrize(('text', 'words'), [
    ('lidar_node: {}', 'binds unknown nodes: lidar_node'),
    ('- 1', 'holds no mapping of nodes'), ('{', 'is not YAML')])
def test_a_broken_profile_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str,
                                   words: str) -> None:
    (tmp_path / 'profiles').mkdir()
    (tmp_path / 'profiles' / 'mine.yaml').write_text(text)
    (tmp_path / 'graph.yaml').write_text((config_directory() / 'graph.yaml').read_text())
    monkeypatch.setattr(graph, 'config_directory', lambda: tmp_path)
    with pytest.raises(ValueError, match=words):
        session_nodes('mine', 'car', learning=True)


def test_a_profile_adds_to_its_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / 'profiles'
    folder.mkdir()
    (folder / 'mine.yaml').write_text(
        'base: common\ncontrol_node:\n  parameters:\n    action_timeout: 2.0\n')
    (folder / 'common.yaml').write_text(
        'control_node:\n  remap:\n    ~/output/vehicle_command: /{vehicle}/cmd\n')
    (tmp_path / 'graph.yaml').write_text((config_directory() / 'graph.yaml').read_text())
    monkeypatch.setattr(graph, 'config_directory', lambda: tmp_path)
    (spec,) = (one for one in session_nodes('mine', 'car', learning=False)
               if one.name == 'control_node')
    assert spec.remaps['~/output/vehicle_command'] == '/car/cmd'
    assert spec.remaps['~/input/observation'] == 'observation'
    assert profile_parameters('mine') == {'control_node': {'action_timeout': 2.0}}
    assert profile_parameters('common') == {}
