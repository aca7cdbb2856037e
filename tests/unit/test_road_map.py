import math
from pathlib import Path

import numpy as np
import pytest
from small_maps import straight_road

from av_td3_ros.driving.route.geometry import (
    Pose,
    from_vehicle_frame,
    to_vehicle_frame,
    wrap_angle,
    wrap_angles,
)
from av_td3_ros.driving.route.road_map import LanePart, MapError, RoadMap

MAPS = Path(__file__).parents[2] / 'config' / 'maps'


@pytest.fixture(scope='module')
def straight() -> RoadMap:
    return RoadMap.from_text(straight_road(), 'straight')


@pytest.fixture(scope='module')
def town() -> RoadMap:
    return RoadMap.from_file(MAPS / 'town.xodr')


def test_angles_wrap_to_half_a_turn():
    assert wrap_angle(3 * math.pi) == pytest.approx(math.pi)
    assert wrap_angle(-math.pi) == math.pi
    assert wrap_angle(-4.0) == pytest.approx(math.tau - 4.0)
    assert wrap_angles([0.5, -math.pi, 7.0]) == pytest.approx([0.5, math.pi, 7.0 - math.tau])


def test_vehicle_frame_has_x_ahead_and_y_left():
    facing_north = Pose(10.0, 5.0, math.pi / 2)
    seen = to_vehicle_frame([[10.0, 8.0], [9.0, 5.0]], facing_north)
    assert seen == pytest.approx(np.array([[3.0, 0.0], [0.0, 1.0]]))
    assert from_vehicle_frame(seen, facing_north) == pytest.approx(
        np.array([[10.0, 8.0], [9.0, 5.0]]))
    assert facing_north.ahead(2.0) == Pose(pytest.approx(10.0), pytest.approx(7.0), math.pi / 2)


def test_a_place_is_projected_onto_the_lane_it_is_in(straight):
    right = straight.project(10.0, -1.0)
    assert (right.x, right.y, right.yaw) == pytest.approx((10.0, -1.75, 0.0), abs=1e-4)
    assert right.lateral == pytest.approx(0.75, abs=1e-4)
    assert (right.lane_id, right.lane_width, right.is_junction) == (-1, 3.5, False)
    left = straight.project(10.0, 2.75)
    assert (left.x, left.y, abs(left.yaw)) == pytest.approx((10.0, 1.75, math.pi), abs=1e-4)
    # That lane leads along -x: a place further from the middle line is to its right.
    assert left.lateral == pytest.approx(-1.0, abs=1e-4)


def test_a_place_off_the_road_keeps_its_full_distance(straight):
    assert straight.project(50.0, -21.75).lateral == pytest.approx(-20.0, abs=1e-3)


def test_a_road_on_a_hill_has_its_height():
    hill = straight_road().replace('<elevationProfile/>', (
        '<elevationProfile><elevation s="0" a="2" b="0.1" c="0" d="0"/></elevationProfile>'))
    road = RoadMap.from_text(hill, 'hill')
    assert [road.height(x, -1.75) for x in (10.0, 60.0)] == pytest.approx([3.0, 8.0], abs=0.05)


def test_markings_are_given_left_and_right_of_the_lanes_own_direction(straight):
    assert straight.markings_at(straight.project(10.0, -1.0)) == ('broken', 'solid')
    assert straight.markings_at(straight.project(10.0, 1.0)) == ('broken', 'solid')
    assert straight.has_lane_markings
    assert straight.lane_markings(straight.lanes[0], 0)[0].colour == 'yellow'


def test_a_junction_has_no_marking_in_its_middle(town):
    inside = [town.project(*lane.points[len(lane.points) // 2]) for lane in town.lanes
              if lane.is_junction]
    assert all(place.is_junction for place in inside)
    assert {town.markings_at(place)[0] for place in inside} == {'none'}
    assert {town.markings_at(place)[1] for place in inside} == {'none', 'solid'}


def test_lanes_run_along_their_own_direction_with_carlas_accuracy():
    loop = RoadMap.from_file(MAPS / 'loop.xodr')
    for lane in loop.lanes:
        steps = np.diff(lane.points, axis=0)
        towards = np.arctan2(steps[:, 1], steps[:, 0])
        middle = (lane.yaws[1:] + lane.yaws[:-1]) / 2.0
        assert np.abs(wrap_angles(towards - middle)).max() < 0.02
        location = loop.project(*lane.points[len(lane.points) // 2])
        assert abs(location.lateral) < 0.005
        assert abs(wrap_angle(location.yaw - lane.yaws[len(lane.points) // 2])) < 0.02


def test_circuits_lead_back_to_where_they_start():
    for name in ('loop', 'winding'):
        road_map = RoadMap.from_file(MAPS / f'{name}.xodr')
        for start in range(2):
            lane, seen = start, []
            while lane not in seen:
                seen.append(lane)
                (lane,) = road_map.lanes[lane].successors
            assert lane == start and len(seen) == len(road_map.lanes) // 2


def test_locate_puts_a_pose_on_the_lane_that_leads_its_way(straight, town):
    # On the middle line the heading alone decides.
    assert straight.lanes[straight.locate(Pose(30.0, 0.0, 0.1))[0]].lane_id == -1
    index, at = straight.locate(Pose(30.0, 0.0, 3.1))
    assert straight.lanes[index].lane_id == 1
    assert at == pytest.approx(70.0, abs=0.01)
    for index, lane in enumerate(town.lanes):
        if lane.is_junction and abs(lane.yaws[-1] - lane.yaws[0]) > 0.5:
            found, at = town.locate(lane.pose_at(lane.length / 2))
            assert found == index
            assert at == pytest.approx(lane.length / 2, abs=0.02)


def test_spawn_points_stand_every_ten_metres_with_thirty_to_go(straight, town):
    # 5, 15, ... 65 m along each of two lanes of 100 m that end dead.
    points = straight.spawn_points()
    assert len(points) == 14
    assert [point.x for point in points if abs(point.yaw) < 1] == pytest.approx(
        list(range(5, 70, 10)), abs=0.01)
    assert not any(town.project(point.x, point.y).is_junction for point in town.spawn_points())
    assert len(town.spawn_points()) > 100
    assert RoadMap.from_text(straight_road(20.0), 'stub').spawn_points() == ()


def test_lane_points_cover_every_lane(straight):
    points = straight.sample_lane_points(20.0)
    assert [(round(p.x), p.y) for p in points if abs(p.yaw) < 1] == [
        (x, pytest.approx(-1.75)) for x in (0, 20, 40, 60, 80)]
    assert len(points) == 10
    assert straight.bounds == pytest.approx((0, -1.75, 100, 1.75), abs=0.01)


def test_lane_ahead_follows_the_lane_and_ends_with_the_road(straight, town):
    ahead = straight.lane_ahead(Pose(90.0, 1.0, math.pi), 12.0, spacing=4.0)
    assert ahead == pytest.approx(np.array([[x, 1.75] for x in (90, 86, 82, 78)]), abs=0.01)
    assert len(straight.lane_ahead(straight.project(94.5, -1.0), 50.0)) == 6
    start = town.spawn_points()[0]
    ends = {tuple(np.round(town.lane_ahead(start, 300.0, 1.0, np.random.default_rng(seed))[-1]))
            for seed in range(20)}
    assert len(ends) > 3


def test_trace_joins_lanes_without_a_jump(town):
    lane = next(i for i, one in enumerate(town.lanes) if one.is_junction)
    after = town.lanes[lane].successors[0]
    traced = town.trace([LanePart(lane, 0.0, town.lanes[lane].length),
                         LanePart(after, 0.0, 10.0)], 0.5)
    steps = np.hypot(*np.diff(traced[:, :2], axis=0).T)
    assert steps == pytest.approx(0.5, abs=0.005)
    assert traced[:, 3] == pytest.approx(3.5)


def test_a_missing_map_names_the_file_and_those_beside_it():
    with pytest.raises(MapError, match=r"nowhere\.xodr' does not exist.*loop\.xodr"):
        RoadMap.from_file(MAPS / 'nowhere.xodr')
    with pytest.raises(MapError, match=r'does not exist; give the path of an OpenDRIVE'):
        RoadMap.from_file('/no/such/folder/a.xodr')
    with pytest.raises(MapError, match='cannot be read'):
        RoadMap.from_file(MAPS)


@pytest.mark.parametrize('text, message', [
    ('', 'is not XML'),
    (straight_road()[:300], 'is not XML.*is the file complete'),
    ('<a/>', r'root is <a>, expected <OpenDRIVE>'),
    ('<OpenDRIVE><header/></OpenDRIVE>', 'has no driving lanes'),
    (straight_road(lane_type='sidewalk'), 'has no driving lanes'),
    (straight_road().replace('<line/>', '<arc curvature="0"/>'), 'no place for points of road 0'),
    (straight_road().replace('length="100.0"', 'length="long"'), "road '0'.*not a number"),
])
def test_a_map_that_cannot_be_driven_is_refused_with_the_reason(tmp_path, text, message):
    file = tmp_path / 'bad.xodr'
    file.write_text(text)
    with pytest.raises(MapError, match=message) as raised:
        RoadMap.from_file(file)
    assert str(file) in str(raised.value)


def test_a_map_is_called_as_its_file(town):
    assert town.name == 'town'
    assert town.opendrive == (MAPS / 'town.xodr').read_text()
