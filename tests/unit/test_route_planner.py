import math
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from small_maps import straight_road

from av_td3_ros.driving.route.geometry import Pose, to_vehicle_frame, wrap_angle, wrap_angles
from av_td3_ros.driving.route.planner import Route, RouteError, RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap

MAPS = Path(__file__).parents[2] / 'config' / 'maps'


@pytest.fixture(scope='module', params=['loop', 'winding', 'town'])
def planner(request) -> RoutePlanner:
    return RoutePlanner(RoadMap.from_file(MAPS / f'{request.param}.xodr'))


@pytest.fixture(scope='module')
def straight() -> RoutePlanner:
    return RoutePlanner(RoadMap.from_text(straight_road(), 'straight'))


def lateral_error_of_a_drive(route: Route, speed: float = 5.0) -> float:
    """Return the largest distance from the route of a car (2.7 m wheelbase) that aims ahead."""
    pose, at, worst = route.start, 0, 0.0
    while at < len(route.points) - 6:
        near = np.hypot(*(route.points[at:at + 8, :2] - (pose.x, pose.y)).T)
        at += int(np.argmin(near))
        aside = to_vehicle_frame(route.points[at, :2], Pose(pose.x, pose.y, route.points[at, 2]))
        worst = max(worst, abs(float(aside[0, 1])))
        x, y = to_vehicle_frame(route.points[min(at + 4, len(route.points) - 1), :2], pose)[0]
        steer = float(np.clip(math.atan(2.7 * 2.0 * y / (x * x + y * y)), -0.6, 0.6))
        yaw = pose.yaw + speed / 2.7 * math.tan(steer) * 0.05
        pose = Pose(*(pose.ahead(speed * 0.05).x, pose.ahead(speed * 0.05).y), yaw)
    return worst


def test_a_route_runs_along_the_lane_every_metre(straight):
    route = straight.plan(Pose(10.0, -1.0, 0.0), Pose(60.4, -2.0, 0.0))
    assert route.length == 50.0
    assert route.points.dtype == np.float64
    assert route.points[:, 0] == pytest.approx(np.arange(10.0, 60.5), abs=0.01)
    assert route.points[:, 1] == pytest.approx(-1.75)
    assert route.points[:, 2] == pytest.approx(0.0, abs=1e-4)
    assert route.lane_widths == pytest.approx(np.full(51, 3.5))


def test_the_heading_chooses_the_lane(straight):
    route = straight.plan(Pose(60.0, -0.2, math.pi), Pose(10.0, 0.0, -3.0))
    assert route.goal.x == pytest.approx(10.0, abs=0.01)
    assert route.points[:, 1] == pytest.approx(1.75)


def test_an_impossible_route_names_both_poses(straight):
    with pytest.raises(RouteError, match=r'no lane leads.*x 60\.0 m.*x 10\.0 m.*straight'):
        straight.plan(Pose(60.0, -1.0, 0.0), Pose(10.0, -1.0, 0.0))
    with pytest.raises(RouteError, match='is where the start'):
        straight.plan(Pose(60.0, -1.0, 0.0), Pose(60.5, -1.0, 0.0))


def test_a_goal_behind_leads_once_round_the_loop():
    loop = RoutePlanner(RoadMap.from_file(MAPS / 'loop.xodr'))
    lap = sum(lane.length for lane in loop.road_map.lanes if lane.lane_id == -1)
    lane = next(lane for lane in loop.road_map.lanes if lane.lane_id == -1)
    route = loop.plan(lane.pose_at(30.0), lane.pose_at(20.0))
    assert route.length == pytest.approx(lap - 10.0, abs=1.1)


def test_routes_through_the_town_are_the_shortest():
    town = RoutePlanner(RoadMap.from_file(MAPS / 'town.xodr'))
    lanes = town.road_map.lanes
    # Reference: SciPy's Dijkstra over the metres from the start of one lane to the next's.
    links = [(i, j, lane.length) for i, lane in enumerate(lanes) for j in lane.successors]
    source, target, metres = zip(*links, strict=True)
    reference = dijkstra(csr_array((metres, (source, target)), shape=(len(lanes),) * 2))
    rng = np.random.default_rng(1)
    streets = [i for i, lane in enumerate(lanes) if not lane.is_junction]
    for first, last in rng.choice(streets, size=(60, 2)):
        if first != last:
            route = town.plan(lanes[first].pose_at(10.0), lanes[last].pose_at(20.0))
            assert route.length == pytest.approx(reference[first, last] + 10.0, abs=1.1)


def test_random_drives_are_as_long_as_asked_continuous_and_drivable(planner):
    rng = np.random.default_rng(7)
    starts = planner.road_map.spawn_points()
    for number, start in enumerate(rng.choice(len(starts), size=60)):
        route = planner.sample_goal(starts[start], 250.0, 400.0, rng)
        assert 249.0 <= route.length <= 400.0
        assert route.start.distance(starts[start].x, starts[start].y) < 0.05
        steps = np.diff(route.points, axis=0)
        assert np.hypot(steps[:, 0], steps[:, 1]) == pytest.approx(1.0, abs=0.005)
        assert np.abs(wrap_angles(steps[:, 2])).max() < 0.15
        towards = np.arctan2(steps[:, 1], steps[:, 0])
        assert np.abs(wrap_angles(towards - route.points[:-1, 2])).max() < 0.1
        if number < 8:
            assert lateral_error_of_a_drive(route) < 0.4


def test_random_drives_start_in_both_directions_and_are_repeatable(planner):
    starts = planner.road_map.spawn_points()
    place = starts[0]
    assert any(math.hypot(one.x - place.x, one.y - place.y) < 15.0
               and abs(wrap_angle(one.yaw - place.yaw)) > 2.5 for one in starts)
    one, other = (planner.sample_goal(place, 100.0, 300.0, np.random.default_rng(5))
                  for _ in range(2))
    assert np.array_equal(one.points, other.points)


def test_random_drives_take_every_branch():
    town = RoutePlanner(RoadMap.from_file(MAPS / 'town.xodr'))
    start, rng = town.road_map.spawn_points()[0], np.random.default_rng(2)
    goals = [town.sample_goal(start, 300.0, 300.0, rng).goal for _ in range(60)]
    assert len({(round(goal.x), round(goal.y)) for goal in goals}) >= 4


def test_a_drive_longer_than_the_road_is_refused(straight):
    start = Pose(60.0, -1.0, 0.0)
    with pytest.raises(RouteError, match=r'ends within 40 m, 50 m were asked'):
        straight.sample_goal(start, 50.0, 80.0, np.random.default_rng(0))
    # A range that the road reaches into gives what there is.
    route = straight.sample_goal(start, 30.0, 500.0, np.random.default_rng(0))
    assert 30.0 <= route.length <= 40.0
    with pytest.raises(ValueError, match='no range'):
        straight.sample_goal(start, 50.0, 20.0, np.random.default_rng(0))
