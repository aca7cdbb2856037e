"""`av-td3 map export` and `av-td3 carla`: what a CARLA server is given, and none there."""
from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import carla
import pytest
from small_maps import straight_road

from av_td3_ros.cli.main import _run
from av_td3_ros.driving.route.road_map import MapError
from av_td3_ros.paths import config_directory, map_file
from av_td3_ros.simulator.carla.maps import opendrive_file, server_map
from av_td3_ros.simulator.carla.weather import weather_presets

MAPS = sorted(path.relative_to(config_directory() / 'maps').with_suffix('').as_posix()
              for path in (config_directory() / 'maps').rglob('*.xodr'))


@pytest.mark.parametrize('name', MAPS)
def test_every_shipped_map_is_exported_as_it_is(name: str, tmp_path: Path) -> None:
    out = tmp_path / 'sent' / 'map.xodr'
    assert _run(['map', 'export', name, '--out', str(out)]) == 0
    assert out.read_bytes() == map_file(name).read_bytes()
    assert carla.Map('sent', out.read_text()).generate_waypoints(5.0)


def test_a_map_of_nowhere_is_placed_on_the_earth(tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / 'mine.xodr', tmp_path / 'out.xodr'
    for header in ('<header revMajor="1" revMinor="4" name="s"/>',
                   '<header revMajor="1" revMinor="4"><geoReference/></header>',
                   '<header revMajor="1" revMinor="4"><geoReference>no</geoReference></header>'):
        file.write_text(straight_road().replace(
            '<header revMajor="1" revMinor="4" name="s"/>', header))
        assert _run(['map', 'export', str(file), '--out', str(out)]) == 0
        assert 'geoReference added' in capsys.readouterr().out
        place = carla.Map('out', out.read_text()).transform_to_geolocation(carla.Location())
        assert (place.latitude, place.longitude) == pytest.approx((49.0, 8.0), abs=1e-6)
        out.unlink()


@pytest.mark.parametrize(('text', 'words'), [
    (straight_road(100.0, 'sidewalk'), 'no driving lanes'),
    (straight_road().replace('</OpenDRIVE>', '<junction id="7" type="virtual"/></OpenDRIVE>'),
     "junction 7 is of type 'virtual'"),
    (straight_road().replace('<header revMajor="1" revMinor="4" name="s"/>', ''), 'no <header>'),
])
def test_what_a_server_cannot_drive_on_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file, out = tmp_path / 'mine.xodr', tmp_path / 'out.xodr'
    file.write_text(text)
    with pytest.raises(MapError, match=words):
        server_map(file)
    assert _run(['map', 'export', str(file), '--out', str(out)]) == 1
    assert not out.exists()


def test_what_a_server_leaves_out_is_said(tmp_path: Path) -> None:
    file = tmp_path / 'mine.xodr'
    file.write_text(straight_road().replace('<lateralProfile/>', (
        '<lateralProfile><superelevation s="0" a="0.05" b="0" c="0" d="0"/></lateralProfile>')))
    assert any('lateral slope' in note for note in server_map(file).notes)


def test_towns_and_maps_are_told_apart() -> None:
    assert opendrive_file('Town03') is None
    assert opendrive_file('train/roads') == map_file('train/roads')
    for missing in ('mine.xodr', 'train/nothing'):
        with pytest.raises(FileNotFoundError, match=missing):
            opendrive_file(missing)


def test_weathers_are_those_of_carla() -> None:
    presets = weather_presets()
    assert {'ClearNoon', 'HardRainSunset', 'CloudyNight'} <= set(presets)
    assert presets['HardRainNoon'].precipitation > presets['ClearNoon'].precipitation


def test_a_server_that_is_not_there_is_named_with_the_remedy() -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    asked = subprocess.run(
        [sys.executable, '-m', 'av_td3_ros.cli.main', 'carla', '--host', '127.0.0.1',
         '--port', str(port), '--timeout', '0.5', '--weather', 'ClearNoon', '--traffic', '5'],
        capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 1 and not asked.stdout
    assert f'no CARLA server answers at 127.0.0.1:{port} within 0.5 s' in asked.stderr
    assert './CarlaUE4.sh' in asked.stderr and '--host' in asked.stderr
    assert time.monotonic() - started < 30.0


@pytest.mark.parametrize(('options', 'words'), [
    (['--port', '0'], 'port = 0 is out of range'),
    (['--timeout', '0'], 'timeout = 0.0 is out of range'),
    (['--traffic', '-1'], '--traffic -1'),
    (['--map', 'train/nothing'], "map 'train/nothing' is no file"),
    (['--wall-height', '99'], 'wall_height = 99.0 is out of range')])
def test_what_cannot_be_is_said_before_a_server_is_waited_for(
        options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(['carla', *options]) == 1
    assert words in capsys.readouterr().err
