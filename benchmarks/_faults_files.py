"""Every file that is read, truncated and with flipped bytes: refused with its name, or read."""
from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from av_td3_ros.ros.runtime import ros_environment
from benchmarks._faults import Fault, Outcome, claim

CASES = 1000
PATIENCE = 60         # s that one case may take, on a computer that does other things as well
ROOM = 3_000_000_000  # bytes of address space that reading may take beside what is there
GROWN = 1000.0        # MB that it may really take
STEPS = 60            # in bag and checkpoint
JUNK = (b'', b'\x00', b'\x00' * 5000, b'\xff\xfe\x00', b'[]', b'{}', b'null', b'[[]]', b'3',
        b'"x"',
        b'[' * 100_000, b'{"a":' * 50_000, b'- ' * 20_000, b'{' * 20_000, b'\xef\xbb\xbf', b'\n',
        b'%PDF-1.4', b'\x89MCAP0\r\n' * 20, b'x,y,yaw\n', b'nan', b'1e999', b'9' * 10_000,
        b'["' + b'9' * 10_000 + b'"]', b'[' + b'9' * 10_000 + b']',
        b'a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n'
        b'c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n'
        b'e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n'
        b'g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n',
        b'/**/policy_node: &a\n  ros__parameters: *a\n', b'a: &a\n  b: *a\n',
        b'!!python/object/apply:os.system ["touch /tmp/owned"]\n', b'? [a]\n: 1\n', b'1: {2: 3}\n',
        b'<OpenDRIVE/>', b'<?xml version="1.0" encoding="inf"?><OpenDRIVE/>',
        b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + b''.join(
            b'<!ENTITY %c "%s">' % (98 + i, b'&%c;' % (97 + i) * 10) for i in range(9))
        + b']><OpenDRIVE>&j;</OpenDRIVE>',
        (2**63 - 1).to_bytes(8, 'little') + b'{}', (10**9).to_bytes(8, 'little') + b'{}',
        (2).to_bytes(8, 'little') + b'[]', (2).to_bytes(8, 'little') + b'{}',
        b'\x80\x04\x95.', b'PK\x03\x04')
VALUES = ('', 'nan', 'inf', '-inf', '-1', '0', '1e309', '1e18', '1e-300', '999999999999',
          '-999999999999', 'abc', '1', '1000000', '\u2603', 'driving', 'none', '2147483648')


@dataclasses.dataclass(frozen=True)
class Kind:
    """Name a file: how a whole one comes about, what reads it, and how else it may be spoiled."""

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    spoil: Callable[[bytes, random.Random], bytes] | None = None
    fit: Callable[[Path, str], None] | None = None


@dataclasses.dataclass
class Tally:
    """Count what came of the cases of one kind of file."""

    kind: str
    cases: int = 0
    refused: int = 0
    read: int = 0
    bad: list[str] = dataclasses.field(default_factory=list)


def damaged(data: bytes, case: int, chance: random.Random,
            spoil: Callable[[bytes, random.Random], bytes] | None) -> bytes | None:
    """Return a file's bytes as this case has them; None for a folder in its place."""
    if case < len(JUNK):
        return JUNK[case]
    if case == len(JUNK):
        return None
    if case % 2 or not data:
        return data[:chance.randrange(max(len(data), 1))]
    if spoil is not None and case % 4:
        return spoil(data, chance)
    flipped = bytearray(data)
    # Much of what can be flipped stands at the begin, and at the end.
    near = chance.choice((len(data), len(data), 200, 2000))
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(min(near, len(data)))
        flipped[-1 - at if chance.random() < 0.3 else at] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def other_values(data: bytes, chance: random.Random) -> bytes:
    """Put other values, numbers most of all, between quotes and behind colons and equal signs."""
    text = data.decode()
    for _ in range(chance.choice((1, 1, 2, 3, 10))):
        spots = [one.span(1) for one in re.finditer(r'="([^"]*)"|: "?([^",\n\]}]*)', text)
                 if one[1] is not None] or [
            one.span(1) for one in re.finditer(r'[:,\[ ]\s*([-+.\w]+)', text)]
        if not spots:
            break
        start, end = chance.choice(spots)
        text = text[:start] + chance.choice(VALUES) + text[end:]
        tags = [one.span() for one in re.finditer(r'<\w+[^<>]*/>|\{[^{}]*\}', text)]
        if tags and chance.random() < 0.3:  # left out, or there twice
            start, end = chance.choice(tags)
            text = text[:start] + text[start:end] * chance.choice((0, 2)) + text[end:]
    return text.encode()


# -- whole files, and what reads them

@functools.cache
def _parts() -> Any:
    from av_td3_ros.td3 import NetworkSettings, TD3Settings

    network = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                              hidden=(8, 8))
    return network, TD3Settings(batch_size=4, precision='float32')


def _learner() -> Any:
    from av_td3_ros.td3 import TD3, LimiterSettings, ReplayBuffer, UpdateLimiter

    network, settings = _parts()
    buffers = [ReplayBuffer(200, network.frames, network.frame_size, network.state_size, seed)
               for seed in (0, 1)]
    return TD3(settings, network, 0), buffers, UpdateLimiter(LimiterSettings())


def _steps() -> Iterator[Any]:
    from av_td3_ros.td3 import StepRecord

    chance = np.random.default_rng(0)
    for step in range(STEPS):
        yield StepRecord('car', 0, step, chance.integers(0, 256, (36, 36), np.uint8),
                         chance.normal(size=3).astype(np.float32),
                         chance.uniform(-1, 1, 2).astype(np.float32), 1.0, step == 0, False, False)


def _make_checkpoint(folder: Path) -> None:
    from av_td3_ros.td3 import Checkpoints

    agent, (replay, demonstrations), limiter = _learner()
    for step in _steps():
        replay.add(step)
        demonstrations.add(step)
    for _ in range(2):
        agent.train(replay)
    made = Checkpoints(folder / 'made').save(agent, replay, limiter, {'policy_version': 1},
                                             demonstrations=demonstrations)
    os.rename(made, folder / 'checkpoint')
    shutil.rmtree(folder / 'made')


def _read_checkpoint(folder: Path) -> None:
    from av_td3_ros.td3 import load_checkpoint

    agent, (replay, demonstrations), limiter = _learner()
    checkpoint = load_checkpoint(folder / 'checkpoint')
    checkpoint.actor()
    checkpoint.restore(agent, replay, limiter, demonstrations)
    replay.sample(4, 0.9)


def _fit_manifest(folder: Path, file: str) -> None:
    """Make the manifest agree with an altered file: what is read is then that itself."""
    manifest = folder / 'checkpoint' / 'manifest.json'
    known, path = json.loads(manifest.read_text()), folder / file
    if path.is_file():
        data = path.read_bytes()
        known[path.relative_to(folder / 'checkpoint').as_posix()] = {
            'size': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
        manifest.write_text(json.dumps(known))


def _make_policy(folder: Path) -> None:
    from av_td3_ros.td3.networks import Actor
    from av_td3_ros.td3.policy import Policy, export_policy

    export_policy(Policy(folder, Actor(_parts()[0]).eval(), 3), folder / 'policy',
                  {'environment_node': {'frame.count': 4}}, 'av-td3 train')


def _read_policy(folder: Path) -> None:
    from av_td3_ros.td3.policy import load_policy

    load_policy(folder / 'policy')


def _fit_about(folder: Path, file: str) -> None:
    about = folder / 'policy' / 'policy.json'
    data = (folder / file).read_bytes() if (folder / file).is_file() else b''
    about.write_text(json.dumps({**json.loads(about.read_text()),
                                 'sha256': hashlib.sha256(data).hexdigest()}))


def _make_bag(folder: Path) -> None:
    _open_bag(folder / 'bag').close()


def _make_open_bag(folder: Path) -> None:
    writing = _open_bag(folder / 'writing')
    (folder / 'bag').mkdir()
    shutil.copy(next(writing.directory.glob('*.mcap')), folder / 'bag' / 'bag_0.mcap')
    writing.close()
    shutil.rmtree(writing.directory)


def _open_bag(directory: Path) -> Any:
    from av_td3_msgs.msg import Transition
    from rclpy.serialization import serialize_message

    from av_td3_ros.ros.conversions import to_bytes, to_floats
    from av_td3_ros.ros.recording.bag import TransitionBag

    bag = TransitionBag(directory, '/learner/transition')
    for number, step in enumerate(_steps()):
        bag.write(number + 1, serialize_message(Transition(
            vehicle='car', session='s', sequence=number + 1, step=number, height=36, width=36,
            frame=to_bytes(step.frame), state=to_floats(step.state), reward=1.0,
            is_first=step.is_first)))
    return bag


def _read_bag(folder: Path) -> None:
    from av_td3_ros.ros.recording.transitions import load_bag

    replay = _learner()[1][0]
    load_bag(str(folder / 'bag'), _parts()[0], lambda record, _: replay.add(record))


def _go_on_with_bag(folder: Path) -> None:
    """Do as the next recorder does after a kill, then keep what is whole."""
    from av_td3_ros.ros.recording.bag import TransitionBag, recover

    TransitionBag(folder / 'bag', '/learner/transition').close()
    failed = [one for one in recover(folder / 'bag', drop_damaged=True) if one.failure]
    if failed:
        raise ValueError(str(failed[0]))


def _make_map(folder: Path) -> None:
    from av_td3_ros.paths import map_file

    # Not as it was shipped: such a one is known to be whole.
    (folder / 'map.xodr').write_text(map_file('loop').read_text() + '\n')


def _read_map(folder: Path) -> None:
    from av_td3_ros.driving.route.road_map import RoadMap

    roads = RoadMap.from_file(folder / 'map.xodr')
    roads.spawn_points()
    roads.has_lane_markings  # noqa: B018
    roads.height(0.0, 0.0)


def _make_config(folder: Path) -> None:
    from av_td3_ros.cli.config import Config
    from av_td3_ros.paths import config_directory

    Config.shipped().write(folder / 'config.yaml', 'of a run')
    shutil.copytree(config_directory(), folder / 'config', ignore=shutil.ignore_patterns(
        'maps', 'pretrained', 'rviz'))


def _read_config(folder: Path) -> None:
    from av_td3_ros.cli.config import Config

    Config.read(folder / 'config.yaml')


def _read_node_file(folder: Path) -> None:
    from av_td3_ros.cli.config import SETTINGS, read_node_file
    from av_td3_ros.settings import from_mapping

    path = folder / 'config' / 'environment_node.yaml'
    from_mapping(SETTINGS['environment_node'], read_node_file(path), str(path))


def _read_graph(folder: Path) -> None:
    from av_td3_ros.ros import graph

    graph.config_directory = lambda: folder / 'config'
    graph.session_nodes('vehicle_in_the_loop', 'car', learning=True)
    graph.profile_parameters('vehicle_in_the_loop')
    graph.sensor_topics('vehicle_in_the_loop', 'car')
    graph.roles('vehicle_in_the_loop')


def _read_objects(folder: Path) -> None:
    from av_td3_ros.simulator.carla.objects import CarlaCameraSettings, objects

    objects(folder / 'config' / 'carla' / 'objects.json', 'car', '', CarlaCameraSettings())


def _make_route(folder: Path) -> None:
    rows = [[round(0.5 * i, 4), 1.0, 0.0] for i in range(40)]
    (folder / 'route.csv').write_text('x,y,yaw\n' + '\n'.join(
        ','.join(map(str, row)) for row in rows) + '\n')
    (folder / 'route.json').write_text(json.dumps(rows))


def _read_route(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from av_td3_ros.cli.poses import read_poses

        return read_poses(folder / name)

    return read


def _make_calibration(folder: Path) -> None:
    from rclpy.serialization import serialize_message

    from benchmarks._faults_input import GOOD, CameraInfo

    (folder / 'camera_info.cdr').write_bytes(serialize_message(GOOD[CameraInfo](1)))


def _read_calibration(folder: Path) -> None:
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import CameraInfo

    from av_td3_ros.driving.camera.view import CameraView, CameraViewSettings
    from av_td3_ros.ros.conversions import from_camera_info

    path = folder / 'camera_info.cdr'
    try:
        message = deserialize_message(path.read_bytes(), CameraInfo)
    except Exception as error:  # the middleware's own, before any of ours sees a message
        raise ValueError(f'{path}: {error}') from error
    try:
        CameraView(from_camera_info(message), CameraViewSettings(calibrate=True), (84, 84))
    except ValueError as error:  # told with its topic where it is heard
        raise ValueError(f'{path}: {error}') from error


def _make_results(folder: Path) -> None:
    lines = [json.dumps({'kind': 'learner', 'updates': i, 'transitions': i, 'metrics': {'q': 1.0},
                         'wall_time': float(i)}) for i in range(20)]
    lines += [json.dumps({'kind': 'episode', 'return': 1.0, 'route_completion': 0.5,
                          'transitions': i, 'result': 'stuck'}) for i in range(20)]
    (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
    (folder / 'validation.jsonl').write_text('\n'.join(json.dumps(
        {'checkpoint': f'{i:08d}', 'updates': i, 'return': 1.0}) for i in range(9)) + '\n')
    (folder / 'evaluation.json').write_text(json.dumps({'drivers': {'policy': {}}}))


def _read_results(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from av_td3_ros.cli.pictures import plots

        return getattr(plots, name)(folder)

    return read


_CHECKPOINT = 'checkpoint/agent.safetensors', 'checkpoint/replay/00000000.safetensors'
KINDS: dict[str, Kind] = {
    'bag: MCAP': Kind('bag/bag_0.mcap', _make_bag, _read_bag),
    'bag: MCAP, gone on with': Kind('bag/bag_0.mcap', _make_open_bag, _go_on_with_bag),
    'bag: metadata.yaml': Kind('bag/metadata.yaml', _make_bag, _read_bag, other_values),
    **{f'checkpoint: {file.partition("/")[2]}': Kind(file, _make_checkpoint, _read_checkpoint)
       for file in (*_CHECKPOINT, 'checkpoint/demonstrations/00000000.safetensors')},
    **{f'checkpoint: {file.partition("/")[2]}, hash made to fit': Kind(
        file, _make_checkpoint, _read_checkpoint, fit=_fit_manifest) for file in _CHECKPOINT},
    'checkpoint: manifest.json': Kind('checkpoint/manifest.json', _make_checkpoint,
                                      _read_checkpoint, other_values),
    'checkpoint: state.json': Kind('checkpoint/state.json', _make_checkpoint, _read_checkpoint),
    'checkpoint: state.json, hash made to fit': Kind(
        'checkpoint/state.json', _make_checkpoint, _read_checkpoint, other_values, _fit_manifest),
    'weights: actor.safetensors': Kind('policy/actor.safetensors', _make_policy, _read_policy),
    'weights: actor.safetensors, hash made to fit': Kind(
        'policy/actor.safetensors', _make_policy, _read_policy, fit=_fit_about),
    'weights: policy.json': Kind('policy/policy.json', _make_policy, _read_policy, other_values),
    'map: .xodr': Kind('map.xodr', _make_map, _read_map),
    'map: .xodr, other values': Kind('map.xodr', _make_map, _read_map, other_values),
    'config: config.yaml of a run': Kind('config.yaml', _make_config, _read_config, other_values),
    'config: NODE.yaml': Kind('config/environment_node.yaml', _make_config, _read_node_file,
                              other_values),
    'config: graph.yaml': Kind('config/graph.yaml', _make_config, _read_graph, other_values),
    'config: profiles/PROFILE.yaml': Kind('config/profiles/vehicle_in_the_loop.yaml',
                                          _make_config, _read_graph, other_values),
    'config: carla/objects.json': Kind('config/carla/objects.json', _make_config, _read_objects,
                                       other_values),
    'route: .csv': Kind('route.csv', _make_route, _read_route('route.csv')),
    'route: .json': Kind('route.json', _make_route, _read_route('route.json'), other_values),
    'calibration: camera_info': Kind('camera_info.cdr', _make_calibration, _read_calibration),
    'results: metrics.jsonl': Kind('metrics.jsonl', _make_results, _read_results('read_metrics'),
                                   other_values),
    'results: validation.jsonl': Kind('validation.jsonl', _make_results,
                                      _read_results('read_validations'), other_values),
    'results: evaluation.json': Kind('evaluation.json', _make_results,
                                     _read_results('read_evaluation'), other_values),
}


# -- the child that reads

def work(told: Sequence[tuple[str, int]], folder: Path) -> None:
    """Read the cases one after another; say of each that it begins, and what came of it."""
    made: dict[Callable[[Path], None], Path] = {}
    for name, cases in itertools.groupby(told, lambda one: one[0]):
        kind = KINDS[name]
        whole = made.setdefault(kind.make, folder / f'whole-{len(made)}')
        if not whole.exists():
            whole.mkdir()
            kind.make(whole)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        kind.read(whole)  # what is whole is read; and all is imported
        used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
        for _, case in cases:
            print(f'case {case} {name}', flush=True)
            signal.alarm(PATIENCE)
            said = _try(kind, name, case, whole, folder / 'case')
            signal.alarm(0)
            print(f'done {said}', flush=True)


def _try(kind: Kind, name: str, case: int, whole: Path, place: Path) -> str:
    """Return what comes of reading one case of a file."""
    shutil.copytree(whole, place)
    file = place / kind.file
    content = damaged(file.read_bytes(), case, random.Random(f'{name} {case}'), kind.spoil)
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    if kind.fit is not None:
        kind.fit(place, kind.file)
    said = _outcome(kind, place, file)
    shutil.rmtree(place)
    return said


def _outcome(kind: Kind, place: Path, file: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = _read(kind, place, file)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    return said if grown < GROWN else f'bad huge: {grown:.0f} MB more'


def _read(kind: Kind, place: Path, file: Path) -> str:
    try:
        kind.read(place)
    except MemoryError as error:
        return f'bad huge: {error!r:.200}'
    except (ValueError, OSError) as error:
        from av_td3_ros.cli.main import _said

        said = _said(error)
        # A bag, checkpoint or policy is named by its folder, or by the file in it.
        named = any(str(one) in said for one in (file, file.parent, file.parent.parent)
                    if one != place)
        one_line = len(said) < 2000
        return 'refused' if named and one_line else f'bad nameless: {said[:300]!r}'
    except Exception as error:
        import traceback

        frame = traceback.extract_tb(error.__traceback__)[-1]
        return (f'bad {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: '
                f'{str(error)[:200]!r}')
    return 'read'


# -- the parent that counts

def count(told: Sequence[tuple[str, int]]) -> dict[str, Tally]:
    """
    Let children read so many cases of files; what kills one of them counts for its case.

    `told` are kind and number of each case, those of a kind together.
    """
    tallies = {name: Tally(name) for name, _ in told}
    left = list(told)
    while left:
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.run(
                [sys.executable, '-m', __spec__.name, folder], input=json.dumps(left),
                capture_output=True, text=True, errors='replace', check=False,
                env={**os.environ, **ros_environment(os.environ)}, cwd=Path(__file__).parents[1])
        begun: tuple[str, int] | None = None
        for line in child.stdout.splitlines():
            if line.startswith('case '):
                _, number, name = line.split(' ', 2)
                begun = name, int(number)
                left.remove(begun)
            elif line.startswith('done ') and begun is not None:
                _note(tallies[begun[0]], begun[1], line[5:])
                begun = None
        if begun is not None:
            how = signal.Signals(-child.returncode).name if child.returncode < 0 else (
                f'status {child.returncode}')
            _note(tallies[begun[0]], begun[1],
                  f'bad {"hung" if how == "SIGALRM" else "crashed"}: {how}')
        elif child.returncode:
            raise RuntimeError(f'a child could not begin: {child.stderr[-2000:]}')
    return tallies


def _note(tally: Tally, case: int, said: str) -> None:
    tally.cases += 1
    if said in ('refused', 'read'):
        setattr(tally, said, getattr(tally, said) + 1)
    else:
        tally.bad.append(f'case {case}: {said[4:]}')


def row(tally: Tally) -> dict[str, Any]:
    """Return a row of the table."""
    return {'file': tally.kind, 'cases': tally.cases, 'refused with reason': tally.refused,
            'read all the same': tally.read, 'crashed, hung, huge or nameless': len(tally.bad)}


def inject(times: int, kinds: Sequence[str] = tuple(KINDS)) -> Outcome:
    """Damage every kind of file so often; return what came of it."""
    tallies = []
    for name in kinds:
        tallies.append(count([(name, case) for case in range(times)])[name])
        print(row(tallies[-1]), flush=True)
        for said in tallies[-1].bad[:5]:
            print(f'    {said}', flush=True)
    cases, bad = sum(one.cases for one in tallies), sum(len(one.bad) for one in tallies)
    refused = sum(one.refused for one in tallies)
    return Outcome(
        cases,
        f'{refused} refused with file and reason, {cases - refused - bad} read all the same',
        f'{bad} crashed, hung, huge or nameless',
        [claim('damaged files: crashed, hung, huge or nameless', bad, 'cases', 0),
         claim('damaged files: cases', cases, 'cases', times * len(kinds), at_least=True)],
        [row(one) for one in tallies])


FAULTS = {'damaged files': Fault(CASES, inject)}


if __name__ == '__main__':
    cases_told = [(str(name), int(case)) for name, case in json.load(sys.stdin)]
    work(cases_told, Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)
