"""Maps of many roads: what is drawn from a seed can be driven, whatever the seed."""
from __future__ import annotations

import dataclasses
import functools
import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.driving.route.planner import RoutePlanner
from av_td3_ros.driving.route.road_map import Lane, RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.roads.drawing import RoadStyle, new_drawing, opendrive_text
from av_td3_ros.simulator.roads.generator import (
    GAP,
    IDS,
    JUNCTION_RADIUS,
    ROAD_STYLES,
    RoadSettings,
    generate,
    plots,
)
from av_td3_ros.simulator.roads.map_maker import GENERATED
from av_td3_ros.simulator.roads.reference_line import MapMakerError
from av_td3_ros.simulator.roads.street_network import Street, draw_streets
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import WorldSettings

SETTINGS = RoadSettings(roads=12, junctions=2)
SEEDS = (0, 1, 77)


@functools.cache
def drawn(seed: int) -> RoadMap:
    return RoadMap.from_text(opendrive_text(generate('drawn', SETTINGS, seed)), f'seed {seed}')


@pytest.fixture(params=SEEDS)
def road_map(request: pytest.FixtureRequest) -> RoadMap:
    return drawn(request.param)


def plot_of(lane: Lane) -> int:
    """Return the number of the plot that a lane lies in."""
    return (lane.junction_id if lane.is_junction else lane.road_id) // IDS


def tightest(lane: Lane) -> float:
    """Return the smallest radius in m of a lane's centre."""
    return float(1.0 / np.max(np.abs(np.gradient(lane.yaws, lane.distances))))


def test_the_same_seed_draws_the_same_bytes_and_another_one_other_roads() -> None:
    texts = [opendrive_text(generate('one', RoadSettings(roads=2, junctions=1), seed))
             for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_each_plot_has_its_road_or_junction(road_map: RoadMap) -> None:
    of_plot = {plot: [lane for lane in road_map.lanes if plot_of(lane) == plot]
               for plot in range(SETTINGS.roads + SETTINGS.junctions)}
    assert sum(map(len, of_plot.values())) == len(road_map.lanes)
    for plot in range(SETTINGS.roads):
        assert {lane.road_id for lane in of_plot[plot]} == {IDS * plot}
        assert 0.9 * SETTINGS.min_length < min(lane.length for lane in of_plot[plot])
        assert max(lane.length for lane in of_plot[plot]) < 1.1 * SETTINGS.max_length
    for plot, arms in zip(range(SETTINGS.roads, len(of_plot)), (3, 4), strict=True):
        assert sum(not lane.is_junction for lane in of_plot[plot]) == 2 * arms
        assert sum(lane.is_junction for lane in of_plot[plot]) == arms * (arms - 1)


def test_no_lane_is_too_narrow_too_wide_or_too_crooked(road_map: RoadMap) -> None:
    widths = set()
    for lane in road_map.lanes:
        assert lane.widths.min() > 2.8 - 1e-6 and lane.widths.max() < 4.0 + 1e-6
        assert tightest(lane) > 0.99 * (JUNCTION_RADIUS if lane.is_junction
                                        else SETTINGS.min_radius)
        steps = np.diff(lane.yaws) / np.diff(lane.distances)
        assert np.abs(np.diff(steps)).max() < 0.02, 'the curvature jumps'
        widths.add(round(float(lane.widths[0]), 2))
    assert max(widths) - min(widths) > 0.5
    bends = np.concatenate([np.gradient(lane.yaws, lane.distances) for lane in road_map.lanes
                            if lane.lane_id == -1 and not lane.is_junction])
    assert bends.min() < -1 / 40 and bends.max() > 1 / 40, 'they bend both ways'


def test_no_road_meets_or_sees_another(road_map: RoadMap) -> None:
    for lane in road_map.lanes:
        assert {plot_of(road_map.lanes[after]) for after in lane.successors} <= {plot_of(lane)}
    boxes = {plot: (np.min([lane.points.min(axis=0) for lane in lanes], axis=0),
                    np.max([lane.points.max(axis=0) for lane in lanes], axis=0))
             for plot, lanes in ((plot, list(found)) for plot, found in itertools.groupby(
                 sorted(road_map.lanes, key=plot_of), plot_of))}
    for (low, high), (other_low, other_high) in itertools.combinations(boxes.values(), 2):
        assert np.maximum(other_low - high, low - other_high).max() > GAP - 0.2


def test_no_road_comes_near_itself(road_map: RoadMap) -> None:
    for lane in road_map.lanes:
        if lane.lane_id != -1 or lane.is_junction:
            continue
        points, at = lane.points[::4], lane.distances[::4]
        gaps = np.hypot(*np.moveaxis(points[:, None] - points[None], -1, 0))
        apart = np.abs(at[:, None] - at[None])
        assert gaps[apart > 100.0].min() > 18.0


def test_each_style_occurs_and_is_painted(road_map: RoadMap) -> None:
    seen = set()
    for lane in road_map.lanes:
        if lane.is_junction or lane.lane_id != -1 or plot_of(lane) >= SETTINGS.roads:
            continue
        ids = sorted(other.lane_id for other in road_map.lanes if other.road_id == lane.road_id)
        middle = len(lane.s) // 2
        left, right = (side.kind for side in road_map.lane_markings(lane, middle))
        outer = next(other for other in road_map.lanes
                     if (other.road_id, other.lane_id) == (lane.road_id, ids[0]))
        edge = road_map.lane_markings(outer, middle)[1].kind
        forward, backward = sum(i < 0 for i in ids), sum(i > 0 for i in ids)
        if backward == 0:
            assert left == edge
            left = 'broken'  # what RoadStyle says of a line that a one-way road has not
        if forward == 2:
            assert right == 'broken'
        seen.add(RoadStyle(forward=forward, backward=backward, centre=left, edge=edge))
    assert seen == set(ROAD_STYLES)


def test_a_route_begins_on_each_lane_that_leads_far_enough(road_map: RoadMap) -> None:
    planner, rng = RoutePlanner(road_map), np.random.default_rng(0)
    starts = {}
    for pose in road_map.spawn_points():
        starts.setdefault(road_map.locate(pose)[0], pose)
    assert set(starts) == {index for index, lane in enumerate(road_map.lanes)
                           if not lane.is_junction}
    for index, pose in starts.items():
        lane = road_map.lanes[index]
        if plot_of(lane) < SETTINGS.roads or lane.successors:  # not a way out of a junction
            assert planner.sample_goal(pose, 150.0, 300.0, rng).length >= 150.0


def test_pursuit_keeps_to_the_lane(tmp_path: Path) -> None:
    file = tmp_path / 'drawn.xodr'
    file.write_text(drawn(SEEDS[0]).opendrive)
    drive = Drive(DriveSettings(world=WorldSettings(
        map=str(file), camera=CameraSettings(width=32, height=24))))
    driver = PursuitDriver()
    for index in range(4):
        step = drive.begin(index)
        driver.reset()
        while not step.is_last:
            step = drive.act(driver.act(step.state))
        metrics = drive.summary()
        assert metrics.success and metrics.cross_track_rms < 0.3, (index, metrics)


def shapes(name: str) -> set[tuple[str, ...]]:
    """Return each road of a shipped map as the lengths and curvatures it is made of."""
    root = ET.parse(map_file(name)).getroot()
    return {tuple(f'{piece.get("length")} {sorted(piece[0].attrib.items())}'
                  for piece in road.iter('geometry'))
            for road in root.iter('road') if road.get('junction') == '-1'}


def test_maps_to_train_and_to_test_on_share_no_road() -> None:
    assert len({seed for seed, _ in GENERATED.values()}) == len(GENERATED)
    roads = {name: shapes(name) for name in GENERATED}
    assert len(roads['train/roads']) == 48
    for one, other in itertools.combinations(roads, 2):
        assert not roads[one] & roads[other], (one, other)


def test_only_streets_have_junctions() -> None:
    for name in GENERATED:
        text = map_file(name).read_text()
        assert ('<junction ' in text) == name.endswith('streets')


@pytest.mark.parametrize(('settings', 'words'), [
    ({'min_length': 300.0, 'max_length': 200.0}, 'max_length = 200 is below min_length = 300'),
    ({'min_lane_width': 4.0, 'max_lane_width': 3.0}, 'max_lane_width = 3 is below'),
    ({'min_radius': 200.0}, 'max_radius = 100 is below min_radius = 200'),
    ({'min_radius': 1.0}, r'min_radius = 1\.0 is out of range'),
    ({'max_length': float('nan')}, 'max_length = nan is not finite'),
    ({'roads': 0}, 'leave the map empty')])
def test_impossible_settings_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plots(RoadSettings(**settings), 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match='seed = -1'):
        plots(SETTINGS, -1)


def test_streets_that_cannot_meet_are_refused() -> None:
    nodes = {'a': (0.0, 0.0), 'b': (100.0, 0.0), 'c': (200.0, 50.0), 'd': (100.0, 100.0)}
    streets = [Street('a', 'b'), Street('b', 'c')]
    with pytest.raises(MapMakerError, match='node b has 2 streets'):
        draw_streets(new_drawing('bend'), nodes, streets, RoadStyle(), 20.0)
    with pytest.raises(MapMakerError, match='junction b: streets of 2 lanes along and 1 against'):
        draw_streets(new_drawing('wide'), nodes, [*streets, Street('b', 'd')],
                     dataclasses.replace(RoadStyle(), forward=2), 20.0)
