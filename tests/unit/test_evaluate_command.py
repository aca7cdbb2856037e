"""`av-td3 evaluate` and `av-td3 export` up to where nodes would start."""
from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from av_td3_ros import paths
from av_td3_ros.cli import session
from av_td3_ros.cli.config import Config
from av_td3_ros.cli.main import main
from av_td3_ros.cli.policies import find_policy, trained_with, training_command
from av_td3_ros.td3 import TD3, Checkpoints, NetworkSettings, TD3Settings, load_policy

torch.set_num_threads(1)
NETWORK = NetworkSettings(frame_size=36, channels=(4, 4, 4), features=8, hidden=(8, 8))
SMALL = ('episodes.min_length=40', 'episodes.max_length=60', 'world.camera.width=96',
         'world.camera.height=72', 'driving.termination.stuck_steps=30')
NO_ROAD = """<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="walk"
><geoReference>+proj=tmerc +lat_0=0 +lon_0=0</geoReference></header>
<road name="walk" length="100" id="1" junction="-1"><planView><geometry s="0" x="0" y="0" hdg="0"
length="100"><line/></geometry></planView><lanes><laneSection s="0"><center><lane id="0"
type="none" level="false"/></center><right><lane id="-1" type="sidewalk" level="false"><width
sOffset="0" a="3" b="0" c="0" d="0"/></lane></right></laneSection></lanes></road></OpenDRIVE>"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Write what a small training run leaves: three checkpoints, the second one the best."""
    folder = tmp_path / 'run'
    checkpoints, agent = Checkpoints(folder / 'checkpoints'), TD3(TD3Settings(), NETWORK)
    for version, score in enumerate((1.0, 9.0, 5.0)):
        agent.updates = version
        checkpoints.save(agent, counters={'policy_version': version}, score=score)
    Config.shipped().with_options((
        *SMALL, 'network.frame_size=36', 'frame.size=36', 'network.features=8',
        'network.channels=[4, 4, 4]', 'network.hidden=[8, 8]', 'driving.target_speed=6.0',
        'world.traffic.count=7', 'command.speed_limit=8.0')).write(folder / 'config.yaml', '')
    (folder / 'session.json').write_text(json.dumps({'command': ['/bin/av-td3', 'train', '-x']}))
    return folder


@pytest.fixture
def av_td3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
           ) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command here and returns its status and what it said."""
    monkeypatch.chdir(tmp_path)

    def av_td3(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, 'argv', ['av-td3', *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return av_td3


def small(*words: object) -> list[object]:
    return [*words, *(word for one in SMALL for word in ('--config', one))]


@pytest.mark.parametrize(('options', 'why'), [
    (('--policy', 'pursuit', '--episodes', 0), '--episodes 0: give 1 or more'),
    (('--policy', 'pursuit', '--mask', 'vector'), '--mask vector: pursuit is not learned'),
    (('--policy', 'random', '--mask', 'image'), '--mask image: random is not learned'),
    (('--policy', 'nowhere'), "'nowhere' is no folder of a run or a checkpoint"),
    (('--policy', '.'), 'no checkpoint here'),
    (('--policy', 'pursuit', '--map', 'atlantis'), "map 'atlantis' is no file"),
    (('--policy', 'pursuit', '--map', 'loop', '--map', 'walk.xodr'), 'has no driving lanes'),
    (('--policy', 'pursuit', '--seed', -1), 'seed = -1 is out of range'),
    (('--policy', 'pursuit', '--vehicles', 99), 'world.traffic.count = 99 is out of range'),
    (('--policy', 'pursuit', '--profile', 'carla', '--world', 'clean'), 'leave --world out'),
    (('--policy', 'pursuit', '--config', 'frame.sise=3'), "did you mean 'frame.size'"),
    (('--policy', 'pursuit', '--config', 'episodes.min_length=9000', '--config',
      'episodes.max_length=9001'), 'no route of 9000 to 9001 m'),
    (('--policy', 'pursuit', '--json', '.'), '--json . cannot be written'),
    (('--policy', 'pursuit', '--video', '/proc/x.mp4'), '--video /proc/x.mp4 cannot be written'),
    (('--policy', 'pursuit', '--out', '/proc/x'), 'run folder /proc/x cannot be made'),
])
@pytest.mark.parametrize('how', [(), ('--in-process',)])
def test_bad_input_is_one_line_before_anything_starts(
        av_td3: Callable[..., Any], tmp_path: Path, options: tuple[object, ...], why: str,
        how: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'walk.xodr').write_text(NO_ROAD)
    monkeypatch.setattr(session.Session, '_start', None)
    status, _, said = av_td3('evaluate', *options, *how)
    assert status == 1 and why in said
    assert said.startswith('av-td3 evaluate: ') and said.count('\n') == 1
    assert not (tmp_path / 'runs').exists()


def test_a_policy_of_another_architecture_is_refused(
        av_td3: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / 'checkpoints', tmp_path / 'alone', symlinks=True)
    status, _, said = av_td3('evaluate', '--policy', tmp_path / 'alone')
    assert status == 1 and 'another architecture' in said and '--config frame.size=36' in said
    status, _, said = av_td3('evaluate', '--policy', run, '--config', 'driving.waypoints=5')
    assert status == 1 and '--config driving.waypoints=25' in said
    assert not (tmp_path / 'runs').exists()


def test_the_policy_in_the_box_is_named_when_it_is_absent(
        av_td3: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, 'config_directory', lambda: tmp_path)
    status, _, said = av_td3('evaluate', '--policy', 'pretrained')
    assert status == 1 and 'no pretrained policy in' in said and 'av-td3 export' in said


def test_of_a_run_the_best_checkpoint_drives_with_what_it_was_trained_with(run: Path) -> None:
    best = find_policy(str(run))
    assert best.version == 1
    trained = trained_with(best)
    assert trained['environment_node']['driving.target_speed'] == 6.0
    assert trained['environment_node']['frame.size'] == 36
    assert trained['control_node']['command.speed_limit'] == 8.0
    assert trained['simulator_node']['world.camera.width'] == 96
    # Another camera's images are turned to the view of that one.
    assert trained['environment_node']['camera.training.width'] == 96
    assert trained['environment_node']['camera.training.fov'] == pytest.approx(math.pi / 2)
    assert trained['policy_node']['network.features'] == 8
    assert not any(key.startswith('world.traffic') for key in trained['simulator_node'])
    assert training_command(best) == 'av-td3 train -x'
    assert find_policy(str(run / 'checkpoints' / 'latest')).version == 2
    (run / 'checkpoints' / 'best').unlink()
    assert find_policy(str(run)).version == 2


def test_a_camera_unlike_that_of_the_training_is_told_by_how_much(
        av_td3: Callable[..., Any], run: Path) -> None:
    _, _, said = av_td3(*small('evaluate', '--policy', run, '--episodes', 1, '--in-process',
                               '--config', 'world.camera.z=2.0'))
    assert 'training: the height z = 2.00 m is 0.40 m above the recorded 1.60 m' in said
    assert said.count('not the camera') == 1
    _, _, said = av_td3(*small('evaluate', '--policy', run, '--episodes', 1, '--in-process'))
    assert 'not the camera' not in said


def test_an_exported_policy_drives_as_its_run(av_td3: Callable[..., Any], run: Path,
                                              tmp_path: Path) -> None:
    status, said, _ = av_td3('export', '--policy', run, '--out', 'sent')
    assert status == 0 and 'sent' in said
    sent = load_policy(tmp_path / 'sent')
    assert sent.command == 'av-td3 train -x' and sent.version == 1
    assert trained_with(sent) == trained_with(find_policy(str(run)))
    found = []
    for policy in (run, 'sent'):
        status, said, error = av_td3(
            *small('evaluate', '--policy', policy, '--episodes', 1, '--in-process', '--out',
                   f'out-{Path(policy).name}', '--mask', 'vector', '--world', 'cluttered',
                   '--vehicles', 3, '--json', 'one.json', '--video', 'one.mp4'))
        assert status == 0, error
        found.append(json.loads((tmp_path / 'one.json').read_text()))
        assert (tmp_path / 'one.mp4').stat().st_size > 1000
    assert found[0]['episodes'] == found[1]['episodes']
    assert [found[0][key] for key in ('mask', 'world', 'vehicles')] == ['vector', 'cluttered', 3]
    assert [one['name'] for one in found] == ['run', 'sent']


def test_an_exported_onnx_file_acts_as_the_policy(av_td3: Callable[..., Any], run: Path,
                                                  tmp_path: Path) -> None:
    status, _, error = av_td3('export', '--policy', run, '--out', 'sent', '--onnx')
    assert status == 0, error
    actor = load_policy(tmp_path / 'sent').actor
    n = actor.network
    frames = np.random.default_rng(0).integers(
        0, 256, (n.frames, n.frame_size, n.frame_size), np.uint8)
    state = np.linspace(-1.0, 1.0, n.state_size, dtype=np.float32)
    model = onnxruntime.InferenceSession(tmp_path / 'sent' / 'actor.onnx')
    (action,) = model.run(None, {'frames': frames[None], 'state': state[None]})
    assert action[0] == pytest.approx(actor.act(frames, state), abs=1e-5)


def test_the_evaluation_is_shown_written_and_drawn(av_td3: Callable[..., Any], tmp_path: Path
                                                   ) -> None:
    status, said, error = av_td3(*small(
        'evaluate', '--policy', 'pursuit', '--map', 'loop', '--map', 'town', '--episodes', 2,
        '--in-process', '--seed', 4, '--out', 'out', '--json', 'deep/er.json'))
    assert status == 0, error
    assert 'maps loop, town, 4 episodes, seed 4' in ' '.join(said.split())
    assert 'driving score' in said
    found = json.loads((tmp_path / 'out' / 'evaluation.json').read_text())
    assert json.loads((tmp_path / 'deep' / 'er.json').read_text()) == found
    assert found['policy'] == 'pursuit' and found['maps'] == ['loop', 'town']
    assert [(one['map'], one['episode']) for one in found['episodes']] == [
        ('loop', 0), ('loop', 1), ('town', 0), ('town', 1)]
    for name in ('success', 'route_completion', 'driving_score', 'collisions_per_km',
                 'lane_invasions_per_km', 'off_road_share', 'mean_speed', 'completion_time',
                 'jerk_rms', 'lateral_acceleration_rms', 'cross_track_rms', 'cross_track_max',
                 'steering_reversals_per_km'):
        assert set(found['metrics'][name]) == {'mean', 'low', 'high'}
    assert found['metrics']['success']['mean'] == 1.0
    for name in ('evaluation', 'completion', 'paths'):
        assert cv2.imread(str(tmp_path / 'out' / 'plots' / f'{name}.png')) is not None
    status, _, error = av_td3('evaluate', '--policy', 'pursuit', '--out', 'out')
    assert status == 1 and 'is not empty' in error


def test_what_is_not_learned_cannot_be_exported(av_td3: Callable[..., Any], tmp_path: Path
                                                ) -> None:
    status, _, said = av_td3('export', '--policy', 'pursuit', '--out', tmp_path / 'out')
    assert status == 1 and 'not learned' in said
