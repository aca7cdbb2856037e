"""The repository as colcon, pip and make see it."""
from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from harness import Peer, await_that

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'ros2_ws' / 'src' / 'av_td3_ros'
MUST_KNOW = {'mirror_node': ('external.ground.length:=60.0', 'external.ground.width:=20.0')}
"""What a node refuses to start without."""
NODES = sorted(path.stem for path in (ROOT / 'av_td3_ros' / 'nodes').glob('*_node.py'))
EXECUTABLES = [*NODES, 'vehicle_side', 'av-td3']
SYSTEM = {'cryptography': 'python3-cryptography', 'cv2': 'python3-opencv',
          'numpy': 'python3-numpy', 'pygame': 'python3-pygame',
          'rich': 'python3-rich', 'scipy': 'python3-scipy', 'yaml': 'python3-yaml'}
PIP = {'carla': 'carla', 'gymnasium': 'gymnasium', 'imageio_ffmpeg': 'imageio-ffmpeg',
       'matplotlib': 'matplotlib', 'mcap': 'mcap', 'onnx': 'onnx',
       'onnxruntime': 'onnxruntime', 'rosbags': 'rosbags', 'safetensors': 'safetensors',
       'scenariogeneration': 'scenariogeneration', 'torch': 'torch',
       'vehiclemodels': 'commonroad-vehicle-models'}


def colcon(*arguments: str | Path) -> str:
    """Run colcon as from a sourced installation; return what it prints."""
    beside_python = Path(sys.executable).parent
    path = f'{beside_python}{os.pathsep}{os.environ["PATH"]}'
    program = shutil.which('colcon', path=path)
    if program is None:
        pytest.skip('colcon is not installed')
    run = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, 'PATH': path, 'AMENT_PREFIX_PATH': sys.prefix,
             'COLCON_DEFAULTS_FILE': os.devnull})
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix that `colcon build` installs the Python package into."""
    workspace = tmp_path_factory.mktemp('workspace')
    colcon('--log-base', workspace / 'log', 'build', '--base-paths', ROOT, '--packages-select',
           'av_td3_ros', '--build-base', workspace / 'build', '--install-base',
           workspace / 'install', '--merge-install')
    return workspace / 'install'


def test_a_clone_in_a_workspace_is_its_packages(tmp_path: Path) -> None:
    source = tmp_path / 'src'
    source.mkdir()
    (source / 'cloned').symlink_to(ROOT)
    listed = colcon('--log-base', tmp_path / 'log', 'list', '--base-paths', source)
    assert [tuple(line.split('\t')[::2]) for line in listed.splitlines()] == [
        ('ackermann_msgs', '(ros.ament_cmake)'), ('av_td3_msgs', '(ros.ament_cmake)'),
        ('av_td3_ros', '(ros.ament_python)'), ('carla_msgs', '(ros.ament_cmake)'),
        ('tf2_msgs', '(ros.ament_cmake)')]


def test_each_node_is_an_executable(installed: Path) -> None:
    programs = installed / 'lib' / 'av_td3_ros'
    assert sorted(path.name for path in programs.iterdir()) == sorted(EXECUTABLES)
    for program in programs.iterdir():
        assert os.access(program, os.X_OK)


def test_a_shell_that_sourced_the_workspace_finds_av_td3(installed: Path, tmp_path: Path) -> None:
    shell = subprocess.run(
        ['bash', '-c', f'source {installed}/setup.bash && command -v av-td3 && av-td3 --version'],
        capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60)
    assert shell.stdout.splitlines() == [str(installed / 'bin' / 'av-td3'), 'av_td3_ros 0.1.0']


def in_workspace(installed: Path) -> dict[str, str]:
    """Return the environment of a shell that sourced the installed package."""
    library = sysconfig.get_path('purelib', 'posix_prefix', vars={'base': str(installed)})
    prefixes = os.pathsep.join([str(installed), os.environ.get('AMENT_PREFIX_PATH', sys.prefix)])
    return {**os.environ, 'PYTHONPATH': library, 'AMENT_PREFIX_PATH': prefixes}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_executable_ends_without_a_word_while_it_is_still_loading(
        installed: Path, number: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [installed / 'lib' / 'av_td3_ros' / 'policy_node'], cwd=tmp_path, text=True,
        stderr=subprocess.PIPE, env={**in_workspace(installed), 'PYTHONPROFILEIMPORTTIME': '1'})
    assert process.stderr is not None
    try:
        for line in process.stderr:  # one for each module that has been loaded
            if line.split('|')[-1].strip() == 'numpy':
                break
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert 'Traceback' not in said and 'policy_node' not in said


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('node', NODES)
def test_an_executable_honours_remaps_and_ends_in_good_order(
        installed: Path, node: str, number: int, peer: Peer, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [installed / 'lib' / 'av_td3_ros' / node, '--ros-args', '-r', '__ns:=/somewhere', '-r',
         '__node:=renamed',
         *(word for given in MUST_KNOW.get(node, ()) for word in ('-p', given))],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=in_workspace(installed))
    try:
        await_that(lambda: process.poll() is not None or ('renamed', '/somewhere') in
                   peer.node.get_node_names_and_namespaces(), f'{node} under its other name')
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert 'Traceback' not in said


def test_colcon_test_runs_the_tests(installed: Path, tmp_path: Path) -> None:
    colcon('--log-base', tmp_path / 'log', 'test', '--base-paths', ROOT, '--packages-select',
           'av_td3_ros', '--build-base', installed.parent / 'build', '--install-base', installed,
           '--merge-install', '--return-code-on-test-failure', '--pytest-args',
           'tests/unit/test_settings.py')
    results = colcon('test-result', '--all', '--test-result-base', installed.parent / 'build')
    ran = re.search(r'Summary: (\d+) tests, 0 errors, 0 failures', results)
    assert ran is not None and int(ran[1]) > 5


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in (ROOT / 'tests').rglob('*.py')]
    assert not {name for name in names if names.count(name) > 1}, 'pytest cannot tell them apart'


def test_each_executable_has_a_main() -> None:
    for module in [*(f'nodes/{node}' for node in EXECUTABLES[:-1]), 'cli/main']:
        tree = ast.parse((ROOT / 'av_td3_ros' / f'{module}.py').read_text(encoding='utf-8'))
        assert 'main' in [one.name for one in tree.body if isinstance(one, ast.FunctionDef)]


@pytest.mark.parametrize('folder', ['config', 'launch'])
def test_every_file_of_a_shared_folder_is_installed(installed: Path, folder: str) -> None:
    share = installed / 'share' / 'av_td3_ros'
    wanted = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / folder).rglob('*')
              if path.is_file() and '__pycache__' not in path.parts}
    assert wanted
    assert {path.relative_to(share): path.read_bytes() for path in (share / folder).rglob('*')
            if path.is_file()} == wanted


def test_the_installed_package_finds_its_configuration(installed: Path) -> None:
    library = sysconfig.get_path('purelib', 'posix_prefix', vars={'base': str(installed)})
    found = subprocess.run(
        [sys.executable, '-c', 'import av_td3_ros.paths as p; '
         'print(p.__file__, p.config_directory(), p.map_file("loop"), sep="\\n")'],
        capture_output=True, text=True, check=True, timeout=60, cwd=installed,
        env={**os.environ, 'PYTHONPATH': library, 'AMENT_PREFIX_PATH': str(installed)})
    config = installed / 'share' / 'av_td3_ros' / 'config'
    assert found.stdout.splitlines() == [
        f'{library}/av_td3_ros/paths.py', str(config), str(config / 'maps' / 'loop.xodr')]


def test_the_links_of_the_package_stay_inside_the_repository() -> None:
    links = {path.name: path.readlink() for path in PACKAGE.iterdir() if path.is_symlink()}
    assert links == {name: Path('..', '..', '..', name)
                     for name in ('av_td3_ros', 'config', 'launch', 'tests')}


def test_versions_agree() -> None:
    versions = {
        re.search(r"^version = '(.+)'", (ROOT / 'pyproject.toml').read_text(), re.M),
        re.search(r"^ +version='(.+)'", (PACKAGE / 'setup.py').read_text(), re.M),
        re.search('<version>(.+)</version>', (PACKAGE / 'package.xml').read_text())}
    assert len({found and found[1] for found in versions}) == 1


def test_everything_imported_is_a_dependency() -> None:
    declared = {element.text for element in ElementTree.parse(PACKAGE / 'package.xml').getroot()
                if element.tag.endswith('depend')}
    pinned = re.findall('^([A-Za-z-]+)==', ''.join(
        (ROOT / 'requirements' / name).read_text() for name in ('pip.txt', 'torch.txt')), re.M)
    missing = set()
    for name in _imported(ROOT / 'av_td3_ros') | _imported(ROOT / 'launch'):
        if name in PIP:
            missing |= {PIP[name]} - set(pinned)
        elif name not in ('__future__', 'av_td3_ros', *sys.stdlib_module_names):
            missing |= {SYSTEM.get(name, name)} - declared
    assert not missing, 'add them to package.xml or to requirements/pip.txt'


def test_rosdep_knows_what_the_packages_need() -> None:
    known = dict(line.split() for line in
                 (ROOT / 'requirements' / 'rosdep.txt').read_text().splitlines()
                 if not line.startswith('#'))
    ours = {path.parent.name for path in PACKAGE.parent.glob('*/package.xml')}
    for path in PACKAGE.parent.glob('*/package.xml'):
        needed = {element.text for element in ElementTree.parse(path).getroot()
                  if element.tag.endswith('depend')}
        assert needed <= {*known, *ours}, f'{path}: look it up in ros/rosdistro, add it there'


def test_every_package_has_the_licence_of_the_repository() -> None:
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()
    for path in PACKAGE.parent.glob('*/package.xml'):
        assert [one.text for one in ElementTree.parse(path).getroot().iter('license')] == [
            'Apache-2.0'], path
    for path in (PACKAGE / 'setup.py', ROOT / 'pyproject.toml'):
        assert "'Apache-2.0'" in path.read_text()


def test_kilted_has_what_jazzy_has() -> None:
    jazzy, kilted = (set(re.findall('^([a-z-]+)==', (
        ROOT / 'requirements' / f'ros-{distribution}.txt').read_text(), re.M))
        for distribution in ('jazzy', 'kilted'))
    assert jazzy - kilted == {'ros-jazzy-rclpy', 'ros-fastrtps'}  # Fast DDS 3 is ros-fastdds


def test_only_ros_installations_need_launch() -> None:
    users = {path.relative_to(ROOT) for path in (ROOT / 'av_td3_ros').rglob('*.py')
             if {'launch', 'launch_ros'} & _imported(path)}
    assert users
    assert not [path for path in users if not path.match('av_td3_ros/ros/launching/*.py')]


@pytest.mark.parametrize(('python', 'told'), [
    ('', 'Python 3.10, 3.11 or 3.12 is needed'),
    ('/nowhere/python3', 'PYTHON=/nowhere/python3 does not run'),
])
def test_a_machine_without_the_right_python_is_told_so_in_one_line(python: str, told: str) -> None:
    run = subprocess.run([ROOT / 'requirements' / 'check-machine', python], capture_output=True,
                         text=True, check=False)
    assert run.returncode == 1
    assert told in run.stderr
    assert run.stderr.count('\n') == 1


def test_a_machine_without_a_compiler_is_told_what_to_install(tmp_path: Path) -> None:
    for tool in ('bash', 'uname'):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    run = subprocess.run([ROOT / 'requirements' / 'check-machine', sys.executable],
                         capture_output=True, text=True, check=False,
                         env={**os.environ, 'PATH': str(tmp_path)})
    assert (run.returncode, run.stderr) == (
        1, 'setup: gcc not found: sudo apt install build-essential\n')


def test_a_failing_step_says_why_in_one_line(tmp_path: Path) -> None:
    run = subprocess.run(
        [ROOT / 'requirements' / 'step', tmp_path, 'installing', 'bash', '-c',
         'echo "WARNING: Retrying after NewConnectionError: refused"; exit 1'],
        capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == (
        'setup: installing failed: the package index cannot be reached: check the network or the '
        f'proxy, then run make again (whole output in {tmp_path}/setup.log)\n')
    assert 'NewConnectionError' in (tmp_path / 'setup.log').read_text()


def _imported(path: Path) -> set[str]:
    """Return the top-level modules that the file, or the files below the folder, import."""
    found = set()
    for file in [path] if path.is_file() else path.rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                found |= {one.name.split('.')[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split('.')[0])
    return found
