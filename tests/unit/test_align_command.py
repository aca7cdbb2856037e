"""av-td3 align: from driven poses to the parameters of the start transform."""
from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from av_td3_ros.cli.config import SETTINGS, dotted
from av_td3_ros.cli.main import main
from av_td3_ros.cli.poses import read_poses, thinned
from av_td3_ros.driving.proving_ground.alignment import to_ground
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.settings import from_mapping

ORIGIN = Pose(-40.0, 25.0, 1.1)  # of the ground, on the map
ROADS = RoadMap.from_file(map_file('winding'))
START = 4


def drive(length: float = 60.0) -> list[list[float]]:
    """Return x, y, yaw on the ground of a drive along the lane at the start."""
    lane = ROADS.lane_ahead(ROADS.spawn_points()[START], length, 1.0)
    yaws = np.arctan2(*np.diff(lane, axis=0).T[::-1])
    poses = [to_ground(ORIGIN, Pose(x, y, yaw))
             for (x, y), yaw in zip(lane[:-1].tolist(), yaws.tolist(), strict=True)]
    return [[one.x, one.y, one.yaw] for one in poses]


def align(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    """Run the command in this process; return its status."""
    monkeypatch.setattr(sys, 'argv', ['av-td3', 'align', '--map', 'winding', *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize('suffix', ['csv', 'json'])
def test_a_drive_becomes_the_parameters_of_the_nodes(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
        suffix: str) -> None:
    yaml = pytest.importorskip('yaml')
    file, out = tmp_path / f'drive.{suffix}', tmp_path / 'made' / 'ground.yaml'
    file.write_text(json.dumps(drive()) if suffix == 'json' else '\n'.join(
        ['x, y, yaw', *(', '.join(map(str, pose)) for pose in drive())]))
    assert align(monkeypatch, '--poses', file, '--spawn-point', START, '--out', out, '--ground',
                 '200', '-300', '90', '300', '200') == 0
    said = capsys.readouterr().out
    assert 'residuals      rms 0.0' in said and 'of the lane' in said
    written = yaml.safe_load(out.read_text())
    for node in ('simulator_node', 'mirror_node'):
        values = dotted(written[f'/**/{node}']['ros__parameters'])
        external = from_mapping(SETTINGS[node], values).external
        assert external.start.origin.distance(ORIGIN.x, ORIGIN.y) < 0.05
        assert external.start.yaw == pytest.approx(ORIGIN.yaw, abs=2e-3)
        assert (external.ground.x, external.ground.length) == (200.0, 300.0)
        assert external.ground.yaw == pytest.approx(math.pi / 2)
    assert written['/**/simulator_node']['ros__parameters']['world'] == {'map': 'winding'}
    assert align(monkeypatch, '--poses', file, '--out', out) == 1
    assert 'exists already' in capsys.readouterr().err


def test_a_drive_on_another_lane_is_told_by_its_residuals(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
        ) -> None:
    file = tmp_path / 'straight.json'
    file.write_text(json.dumps([[2.0 * step, 0.0, 0.0] for step in range(60)]))
    assert align(monkeypatch, '--poses', file, '--start', *(str(value) for value in (
        ROADS.spawn_points()[START].x, ROADS.spawn_points()[START].y,
        math.degrees(ROADS.spawn_points()[START].yaw)))) == 0
    assert 'does the drive follow this lane' in capsys.readouterr().out


@pytest.mark.parametrize(('text', 'words'), [
    ('a, b\n1, 2', 'holds no poses'), ('', '0 poses'), ('x,y,yaw\n1,2,nan', 'not finite'),
    ('x,y,yaw\n1,2,north', 'holds no poses')])
def test_a_file_without_poses_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str], text: str, words: str
                                       ) -> None:
    file = tmp_path / 'drive.csv'
    file.write_text(text)
    assert align(monkeypatch, '--poses', file) == 1
    said = capsys.readouterr().err
    assert words in said and 'drive.csv' in said and 'Traceback' not in said


def test_impossible_options_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / 'drive.json'
    file.write_text('[[0, 0, 0]]')
    assert align(monkeypatch, '--poses', file, '--spawn-point', 9999) == 1
    assert '--spawn-point 9999' in capsys.readouterr().err
    assert align(monkeypatch, '--poses', file, '--ground', 0, 0, 0, 10, 0) == 1
    assert 'no rectangle' in capsys.readouterr().err
    out = tmp_path / 'ground.yaml'
    way = [[0.5 * step, 0.0, 0.0] for step in range(80)]
    file.write_text(json.dumps(way))
    assert align(monkeypatch, '--poses', file, '--ground', 1000, 0, 0, 26, 12, '--out', out) == 1
    assert 'the lane begins outside of it, at x 0.0, y 0.0 m' in capsys.readouterr().err
    assert not out.exists()


def test_poses_without_names_are_x_y_yaw_and_standing_still_counts_once(tmp_path: Path) -> None:
    file = tmp_path / 'drive.csv'
    file.write_text('0,0,0\n0.01,0,0\n0.02,0,0\n1.0,0,0\n1.1,0,0\n')
    assert thinned(read_poses(file))[:, 0].tolist() == [0.0, 1.0]
