"""Files that are read are data: no loader runs code, and what would be code stays unread."""
from __future__ import annotations

import ast
import hashlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from av_td3_ros.cli.config import Config, given_values, read_node_file
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.ros.recording.bag import read_transitions
from av_td3_ros.td3 import TD3, Checkpoints, NetworkSettings, TD3Settings, load_policy
from av_td3_ros.td3.policy import export_policy
from av_td3_ros.td3.weights import ActorWeights, WeightsError, pack, unpack
from av_td3_ros.trust.keys import load_key, new_key, public_file
from av_td3_ros.trust.trusted import read_trust

ROOT = Path(__file__).resolve().parents[2]
NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
MODULES = {'pickle', 'cPickle', '_pickle', 'cloudpickle', 'dill', 'joblib', 'marshal', 'shelve',
           'jsonpickle', 'pandas'}
CALLS = re.compile(r'^(torch|th)\.(load|hub\..*|jit\.load)$|^(np|numpy)\.(load|loadtxt|fromregex)$'
                   r'|^yaml\.(load|load_all|full_load|unsafe_load|.*_load_all)$|^(eval|exec|compile'
                   r'|__import__)$|^os\.(system|popen)$|^runpy\..*')


def sources() -> list[Path]:
    """Return every Python file that is not a test."""
    return [path for folder in ('av_td3_ros', 'benchmarks', 'launch', 'requirements', 'docker')
            for path in (ROOT / folder).rglob('*.py')]


def loaders(text: str) -> Iterator[str]:
    """Yield what a source has that could run code out of a file."""
    for one in ast.walk(ast.parse(text)):
        if isinstance(one, ast.Import):
            yield from (alias.name for alias in one.names
                        if alias.name.partition('.')[0] in MODULES)
        elif isinstance(one, ast.ImportFrom) and (one.module or '').partition('.')[0] in MODULES:
            yield str(one.module)
        elif isinstance(one, ast.Call):
            name = ast.unparse(one.func)
            shell = any(word.arg == 'shell' and ast.unparse(word.value) != 'False'
                        for word in one.keywords)
            # numpy reads pickles only where it is told to.
            plain = name.endswith('.load') and any(
                word.arg == 'allow_pickle' and ast.unparse(word.value) == 'False'
                for word in one.keywords)
            if (CALLS.match(name) and not plain) or shell:
                yield ast.unparse(one)


def test_no_source_runs_what_it_reads() -> None:
    assert len(sources()) > 150
    found = {str(path.relative_to(ROOT)): list(loaders(path.read_text(encoding='utf-8')))
             for path in sources()}
    assert not {path: calls for path, calls in found.items() if calls}


@pytest.mark.parametrize('text', [
    'import pickle', 'from joblib import load', 'torch.load(file)', 'np.load(file)',
    'np.load(file, allow_pickle=True)', 'yaml.load(text, yaml.Loader)', 'eval(text)',
    'exec(text)', 'subprocess.run(text, shell=True)', 'import marshal as m', 'os.system(text)'])
def test_what_would_is_found(text: str) -> None:
    assert list(loaders(text))


@pytest.mark.parametrize('text', ['np.load(file, allow_pickle=False)', 'actor.eval()',
                                  'yaml.safe_load(text)', 'safetensors.torch.load(data)'])
def test_what_does_not_is_let_through(text: str) -> None:
    assert not list(loaders(text))


class Trap:
    """Leave a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Return a function that puts code into the place of a file; it must never run."""
    trace = tmp_path / 'it ran'

    def trap(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.suffix
        if kind in ('.yaml', '.yml'):
            path.write_text(f'!!python/object/apply:os.mkdir ["{trace}"]\n')
        elif kind == '.zip':
            torch.save(Trap(trace), path)
        else:
            path.write_bytes(pickle.dumps(Trap(trace)))

    yield trap
    assert not trace.exists(), 'code in a file that is data was run'


def test_the_trap_snaps(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / 'ran')))
    assert (tmp_path / 'ran').exists()


def test_weights_that_are_code_are_refused(trap: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ('weights', 'weights.zip'):
        trap(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        packed = pack(TD3(TD3Settings(batch_size=8), NETWORK).actor, 1)
        with pytest.raises(WeightsError, match='not safetensors'):
            unpack(ActorWeights(1, packed.architecture, data, hashlib.sha256(data).hexdigest()),
                   NETWORK)


def test_no_part_of_a_checkpoint_or_policy_is_run(trap: Callable[[Path], None], tmp_path: Path
                                                  ) -> None:
    agent = TD3(TD3Settings(batch_size=8), NETWORK)
    for number, name in enumerate(('agent.safetensors', 'state.json', 'manifest.json')):
        folder = Checkpoints(tmp_path / f'run{number}').save(agent)
        trap(folder / name)
        with pytest.raises(ValueError):
            load_policy(folder)
    learned = load_policy(Checkpoints(tmp_path / 'whole').save(agent))
    for name in ('actor.safetensors', 'policy.json'):
        folder = export_policy(learned, tmp_path / f'without {name}', {})
        trap(folder / name)
        with pytest.raises(ValueError):
            load_policy(folder)


def test_no_configuration_is_run(trap: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / 'config.yaml'
    trap(file)
    for read in (given_values, Config.read, read_node_file):
        with pytest.raises(ValueError):
            read(file)


def test_no_bag_map_or_key_is_run(trap: Callable[[Path], None], tmp_path: Path, ros: None
                                  ) -> None:
    bag = tmp_path / 'bag'
    trap(bag / 'metadata.yaml')
    trap(bag / 'bag_0.mcap')
    with pytest.raises(ValueError):
        list(read_transitions(bag))
    trap(tmp_path / 'map.xodr')
    with pytest.raises((ValueError, RuntimeError)):
        RoadMap.from_file(tmp_path / 'map.xodr')
    key = tmp_path / 'learner.key'
    new_key().write(key)
    for file in (key, public_file(key)):
        trap(file)
    with pytest.raises(ValueError):
        load_key(key)
    with pytest.raises(ValueError):
        read_trust(public_file(key))


def test_a_parameter_file_of_a_node_is_not_run(trap: Callable[[Path], None], tmp_path: Path,
                                               ros: None) -> None:
    file = tmp_path / 'parameters.yaml'
    trap(file)
    ran = subprocess.run([sys.executable, '-m', 'av_td3_ros.nodes.policy_node', '--ros-args',
                          '--params-file', str(file)], capture_output=True, text=True,
                         check=False, timeout=60)
    assert ran.returncode != 0
