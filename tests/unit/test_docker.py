"""The containers, which cannot be built everywhere: all that they name exists."""
from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from commands import NODES, ROOT, composed, trouble

from av_td3_ros.ros.graph import session_nodes

DOCKER = ROOT / 'docker'
DOCKERFILE = (DOCKER / 'Dockerfile').read_text(encoding='utf-8')
FILES = sorted(path.name for path in DOCKER.glob('compose*.yaml'))
SERVICES = composed('compose.yaml')['services']
OURS = {name: one for name, one in SERVICES.items() if one['image'].startswith('av_td3_ros:')}
OF_UBUNTU = {'python3-venv'}
"""Packages of Ubuntu 24.04 (universe and main) that no package.xml of ours brings."""
OF_ROS = {'cv-bridge', 'derived-object-msgs', 'diagnostic-aggregator', 'rqt-common-plugins',
          'rqt-robot-monitor', 'rviz2', 'tf2-ros-py'}
"""Packages that ros/rosdistro (8468e88) has for each of Humble, Jazzy, Kilted and Lyrical."""
OF_BRIDGE = {'carla_common', 'carla_msgs', 'carla_ros_bridge', 'carla_spawn_objects',
             'carla_waypoint_publisher', 'carla_waypoint_types', 'ros_compatibility'}
"""Packages of carla-simulator/ros-bridge at the commit that the Dockerfile names."""
BRIDGE_NODES = {'/carla_ros_bridge'}
VARIABLES = {'BRIDGE', 'CARLA_VERSION', 'HOME', 'OVERLAY', 'PATH', 'PYTHONDONTWRITEBYTECODE',
             'PYTHONPATH', 'ROS_DISTRO', 'TORCH_INDEX', 'USER'}


def instructions(name: str) -> list[str]:
    """Return what follows each instruction of that name in the Dockerfile, in one line."""
    joined = re.sub(r'\\\n\s*', ' ', re.sub(r'^#.*\n', '', DOCKERFILE, flags=re.M))
    return [line.split(' ', 1)[1] for line in joined.splitlines() if line.startswith(f'{name} ')]


def test_what_apt_installs_is_known() -> None:
    named = {word.strip('"') for run in instructions('RUN')
             for part in re.findall(r'apt-get install ([^&]+)', run) for word in part.split()
             if not word.startswith('-')}
    assert named == OF_UBUNTU | {f'ros-$ROS_DISTRO-{name}' for name in OF_ROS}


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    let_in = [line[1:] for line in (DOCKER / 'Dockerfile.dockerignore').read_text().splitlines()
              if line.startswith('!')]
    assert all((ROOT / path).exists() for path in let_in)
    sources = [word for copy in instructions('COPY') for word in copy.split()[:-1]
               if not word.startswith('--') and word != '.']
    sources += [source for run in instructions('RUN')
                for source in re.findall('source=([^, ]+)', run)]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).is_relative_to(path) for path in let_in), source


def test_what_a_workspace_needs_reaches_the_builder() -> None:
    let_in = (DOCKER / 'Dockerfile.dockerignore').read_text().splitlines()
    for path in (ROOT / 'ros2_ws' / 'src' / 'av_td3_ros').iterdir():
        if path.is_symlink() and path.name != 'tests':
            assert f'!{path.resolve().relative_to(ROOT)}' in let_in


def test_pip_installs_from_the_pins() -> None:
    runs = ' '.join(instructions('RUN'))
    named = set(re.findall(r'-[rc] /requirements/(\S+)', runs))
    assert named == {'pip.txt', 'indirect.txt', 'bridge.txt'}
    for name in named:
        lines = (ROOT / 'requirements' / name).read_text().splitlines()
        assert all('==' in line for line in lines if not line.startswith(('#', ' '))), name
    assert not re.search(r'pip install (?!.*-r )', runs)


def test_the_bridge_is_pinned_and_of_the_version_of_the_wheel() -> None:
    arguments = dict(one.split('=', 1) for one in instructions('ARG'))
    assert re.fullmatch('[0-9a-f]{40}', arguments['BRIDGE'])
    wheel = re.search(r'^carla==(\S+)', (ROOT / 'requirements' / 'pip.txt').read_text(), re.M)
    assert wheel is not None and arguments['CARLA_VERSION'] == wheel[1]
    assert SERVICES['carla']['image'] == f'carlasim/carla:{wheel[1]}'
    (selected,) = re.findall('--packages-select ([^&]+)', DOCKERFILE.replace('\\\n', ' '))
    assert set(selected.split()) == OF_BRIDGE


def test_every_variable_of_the_dockerfile_is_set_or_known() -> None:
    assert set(re.findall(r'\$\{?([A-Z_]+)', DOCKERFILE)) <= VARIABLES
    for script in ('entrypoint', 'healthy'):
        assert set(re.findall(r'\$\{?([A-Z_]+)', (DOCKER / script).read_text())) <= VARIABLES


def test_no_container_runs_as_root_or_gains_rights() -> None:
    stages = re.split('^FROM ', DOCKERFILE, flags=re.M)[1:]
    for stage in stages:
        assert re.findall('^USER (.+)', stage, re.M)[-1] == '1000:1000'
    for name, service in SERVICES.items():
        assert service['cap_drop'] == ['ALL'], name
        assert service['security_opt'] == ['no-new-privileges:true'], name
        assert not service.get('privileged'), name
    for name, service in OURS.items():
        assert service['read_only'] is True, name


@pytest.mark.parametrize('file', FILES)
def test_services_and_targets_of_a_compose_file_exist(file: str) -> None:
    targets = set(re.findall('^FROM .+ AS (.+)', DOCKERFILE, re.M))
    arguments = {one.split('=', 1)[0] for one in instructions('ARG')}
    for name, service in composed(file)['services'].items():
        assert name in SERVICES
        build = service.get('build', {})
        assert build.get('target', 'session') in targets
        assert build.get('dockerfile', 'docker/Dockerfile') == 'docker/Dockerfile'
        assert (DOCKER / build.get('context', '..')).resolve() == ROOT
        assert set(build.get('args', {})) <= arguments
        assert set(service.get('depends_on', {})) <= set(SERVICES)
        for volume in service.get('volumes', ()):
            assert volume.startswith(('/', '${RUNS:-runs}:', '${KEYS:-keys}:',
                                      '${TRUST:-trust}:')), volume


@pytest.mark.parametrize('name', OURS)
def test_what_a_container_starts_exists(name: str) -> None:
    words = [re.sub(r'\$\{[A-Z_]+:?-([^}]*)\}', r'\1', word) for word in SERVICES[name]['command']]
    assert trouble(words) == ''


def test_the_private_key_reaches_the_learner_alone() -> None:
    mounted = {name: service.get('volumes', []) for name, service in SERVICES.items()}
    assert {name for name, volumes in mounted.items()
            if '${KEYS:-keys}:/data/keys' in volumes} == {'keys', 'learner'}
    assert '${TRUST:-trust}:/data/trust:ro' in mounted['vehicle']
    assert SERVICES['keys']['network_mode'] == 'none'


def test_a_health_check_asks_for_the_nodes_of_the_service() -> None:
    nodes = {f'{spec.namespace}/{spec.name}' for spec in
             session_nodes('embedded', 'ego_vehicle', learning=True)}
    asked = {name: service['healthcheck']['test'][2:] for name, service in OURS.items()
             if not service['healthcheck'].get('disable')}
    for name, service in OURS.items():
        if name in asked:
            assert service['healthcheck']['test'][:2] == ['CMD', 'healthy']
    assert set(asked['vehicle']) | set(asked['learner']) | {'/simulator_node'} == {
        node.replace('//', '/') for node in nodes}
    assert set(asked['bridge']) == BRIDGE_NODES


@pytest.mark.parametrize('name', ['entrypoint', 'healthy'])
def test_a_script_can_be_executed(name: str) -> None:
    assert (DOCKER / name).stat().st_mode & stat.S_IXUSR
    assert f'docker/{name}' in ' '.join(instructions('COPY'))
    subprocess.run(['bash', '-n', DOCKER / name], check=True)


@pytest.mark.parametrize(('there', 'status'), [
    (['/learner/learner_node', '/other'], 0), (['/other/learner/learner_node'], 1), ([], 1)])
def test_healthy_tells_whether_a_node_is_there(
        there: list[str], status: int, tmp_path: Path) -> None:
    (tmp_path / 'setup.bash').touch()
    program = tmp_path / 'ros2'
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" {shlex.join(there)}\n')
    program.chmod(0o755)
    run = subprocess.run(
        [DOCKER / 'healthy', '/learner/learner_node'], capture_output=True, text=True, check=False,
        env={**os.environ, 'OVERLAY': str(tmp_path), 'PATH': f'{tmp_path}:{os.environ["PATH"]}'})
    assert run.returncode == status
    assert ('not in the graph' in run.stderr) == bool(status)


def test_the_entrypoint_sources_and_becomes_the_command(tmp_path: Path) -> None:
    (tmp_path / 'setup.bash').write_text('export SOURCED=yes\n')
    run = subprocess.run(
        [DOCKER / 'entrypoint', 'sh', '-c', 'echo $SOURCED; exit 3'], capture_output=True,
        text=True, check=False, env={**os.environ, 'OVERLAY': str(tmp_path)})
    assert (run.stdout, run.returncode) == ('yes\n', 3)


def test_nodes_are_those_of_the_package() -> None:
    named = set(re.findall('[a-z_]+_node', ' '.join(
        word for service in OURS.values() for word in service['healthcheck'].get('test', ()))))
    assert named <= set(NODES)
