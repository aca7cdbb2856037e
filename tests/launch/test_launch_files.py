"""The launch files under the real `launch`, which only a ROS installation has."""
from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS installation only')

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from av_td3_ros.cli.config import Config
from av_td3_ros.ros.graph import session_nodes

LAUNCH = Path(__file__).resolve().parents[2] / 'launch'


def module(name: str) -> Any:
    """Return a launch file as a module, loaded as `ros2 launch` does."""
    spec = importlib.util.spec_from_file_location(name.replace('.', '_'), LAUNCH / name)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def described(name: str) -> LaunchDescription:
    """Return the description of a launch file."""
    return module(name).generate_launch_description()


def started(name: str, **arguments: object) -> list[Node]:
    """Return the node actions of a launch file for these arguments, without running them."""
    context = LaunchContext()
    context.launch_configurations.update({key: str(value) for key, value in arguments.items()})
    entities = described(name).entities
    for entity in entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.visit(context)
    (start,) = [one for one in entities if isinstance(one, OpaqueFunction)]
    try:
        return [one for one in start.execute(context) if isinstance(one, Node)]
    finally:
        if hasattr(context.locals, 'ros_adapter'):
            context.locals.ros_adapter.shutdown()


@pytest.mark.parametrize('path', sorted(LAUNCH.glob('*.launch.py')), ids=lambda path: path.name)
def test_every_argument_is_described_and_has_a_default(path: Path) -> None:
    arguments = described(path.name).get_launch_arguments()
    assert arguments
    for argument in arguments:
        assert argument.default_value is not None, argument.name
        assert argument.description not in (None, '', 'no description given'), argument.name


def test_training_starts_the_nodes_of_a_session(domain: int, tmp_path: Path) -> None:
    nodes = started('train.launch.py', run=tmp_path / 'run', vehicle='hero')
    wanted = session_nodes('embedded', 'hero', learning=True)
    assert [one.node_executable for one in nodes] == [spec.name for spec in wanted]
    assert {one.node_package for one in nodes} == {'av_td3_ros'}


def test_arguments_win_over_the_parameter_file(domain: int, tmp_path: Path) -> None:
    file = tmp_path / 'mine.yaml'
    Config.shipped().with_values({'learner_node': {'seed': 5, 'total_transitions': 70},
                                  'simulator_node': {'seed': 5, 'world.map': 'town'}}
                                 ).write(file, 'mine')
    started('train.launch.py', run=tmp_path / 'run', params_file=file, seed=9)
    used = Config.read(tmp_path / 'run' / 'config.yaml').values()
    assert used['learner_node']['seed'] == used['simulator_node']['seed'] == 9
    assert used['learner_node']['total_transitions'] == 70
    assert used['simulator_node']['world.map'] == 'town'
    assert used['recorder_node']['bag'] == str(tmp_path / 'run' / 'bag')


@pytest.mark.parametrize(('argument', 'told'), [
    ({'seed': 'x'}, "'x' is no whole number"),
    ({'map': 'nowhere'}, "map 'nowhere'"),
    ({'steps': '-5'}, 'total_transitions = -5'),
    ({'params_file': '/nowhere.yaml'}, '/nowhere.yaml'),
])
def test_what_cannot_be_is_said_before_anything_starts(
        argument: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match=told):
        started('train.launch.py', run=tmp_path / 'run', **argument)
    assert not (tmp_path / 'run').exists()


def test_a_run_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / 'report.html').touch()
    with pytest.raises(FileExistsError, match='is not empty'):
        started('train.launch.py', run=tmp_path)


def test_the_simulator_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path))
    (node,) = started('simulator.launch.py', map='loop')
    assert node.node_executable == 'simulator_node'
