"""`av-td3 map make`, and what is refused before a session starts."""
from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from small_maps import straight_road

from av_td3_ros.cli import map as map_command
from av_td3_ros.cli import train
from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.driving.episode.planner import EpisodePlanSettings
from av_td3_ros.driving.route.road_map import MapError, RoadMap
from av_td3_ros.nodes.environment_node import EnvironmentSettings
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.simulator.world import World, WorldSettings


def make(*options: object) -> int:
    parser = argparse.ArgumentParser()
    map_command.add_arguments(parser)
    return map_command.run(parser.parse_args(['make', *map(str, options)]))


def train_options(*options: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args(list(map(str, options)))


def test_a_map_is_made_as_ordered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'mine' / 'roads.xodr'
    assert make('--out', out, '--roads', 3, '--junctions', 1, '--seed', 4, '--length', 100, 120,
                '--min-radius', 30, '--lane-width', 3, '3.2') == 0
    assert '3 roads, 1 junctions' in capsys.readouterr().out
    road_map = RoadMap.from_file(out)
    assert all(2.99 < lane.widths[0] < 3.21 for lane in road_map.lanes)
    first = out.read_bytes()
    out.unlink()
    make('--out', out, '--roads', 3, '--junctions', 1, '--seed', 4, '--length', 100, 120,
         '--min-radius', 30, '--lane-width', 3, '3.2')
    assert out.read_bytes() == first


def test_what_cannot_be_made_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    for options, words in ((('--roads', 0), '--roads = 0'),
                           (('--lane-width', 4, 3), '--lane-width HIGH = 3 is below'),
                           (('--seed', -1), '--seed = -1')):
        with pytest.raises(ValueError, match=words):
            make('--out', tmp_path / 'no.xodr', *options)
    with pytest.raises(ValueError, match=r'name an OpenDRIVE file, such as roads\.xodr'):
        make('--out', tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / 'mine.xodr').write_text('precious')
    with pytest.raises(ValueError, match=r'mine\.xodr exists already'):
        make('--out', tmp_path / 'mine.xodr')
    assert (tmp_path / 'mine.xodr').read_text() == 'precious'


@pytest.mark.parametrize(('text', 'words'), [
    (straight_road(100.0, 'sidewalk'), 'has no driving lanes'),
    (straight_road(10.0), 'no lane with room to start from'),
    (straight_road(120.0), "no route of 150 to 300 m found on map 'mine'")])
@pytest.mark.parametrize('option', ['--map', '--eval-map'])
def test_a_map_without_routes_is_refused_before_a_session_starts(
        tmp_path: Path, option: str, text: str, words: str) -> None:
    file = tmp_path / 'mine.xodr'
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
        train.configured(train_options(option, file), simulated=True)


def test_a_map_without_a_start_says_so(tmp_path: Path) -> None:
    file = tmp_path / 'tiny.xodr'
    file.write_text(straight_road(10.0))
    with pytest.raises(MapError, match="'tiny' has no lane with 30 m"):
        World(WorldSettings(map=str(file)))


@pytest.mark.parametrize('settings', [DriveSettings, EnvironmentSettings])
def test_routes_too_short_to_stop_on_are_refused(settings: type) -> None:
    short, fast = EpisodePlanSettings(min_length=40.0), DrivingSettings(target_speed=15.0)
    with pytest.raises(ValueError, match=r'episodes\.min_length = 40 m is less than the 45\.0 m.*'
                                         r'driving\.target_speed = 15 m/s.*to 45 or more'):
        settings(episodes=short, driving=fast)
    settings(episodes=EpisodePlanSettings(min_length=45.0), driving=fast)


def test_routes_from_outside_may_be_of_any_length() -> None:
    EnvironmentSettings(resets=False, episodes=EpisodePlanSettings(min_length=20.0),
                        driving=DrivingSettings(target_speed=30.0))
