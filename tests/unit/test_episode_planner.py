"""Episodes: where they start, where they lead, and that the seed alone decides."""
from __future__ import annotations

import math

import pytest
from small_maps import straight_road

from av_td3_ros.driving.episode.planner import (
    EpisodePlan,
    EpisodePlanner,
    EpisodePlanSettings,
)
from av_td3_ros.driving.route.geometry import wrap_angle
from av_td3_ros.driving.route.planner import RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file

CENTRED = {'max_offset': 0.0, 'max_yaw_offset': 0.0, 'max_speed': 0.0}
MAPS = {name: RoadMap.from_file(map_file(name)) for name in ('loop', 'town', 'winding')}


def plans(name: str, settings: EpisodePlanSettings, count: int = 20) -> list[EpisodePlan]:
    """Return the first episodes on a map."""
    planner = EpisodePlanner(MAPS[name], settings)
    return [planner.plan(index) for index in range(count)]


@pytest.mark.parametrize('name', MAPS)
def test_each_episode_leads_along_lanes_as_far_as_asked(name: str) -> None:
    settings = EpisodePlanSettings(min_length=80.0, max_length=160.0, **CENTRED)
    for plan in plans(name, settings):
        lane = MAPS[name].project(plan.start.x, plan.start.y)
        assert abs(lane.lateral) < 0.01
        assert abs(wrap_angle(plan.start.yaw - lane.yaw)) < 0.01
        route = RoutePlanner(MAPS[name]).plan(plan.start, plan.goal)
        assert plan.route_length == pytest.approx(route.length, abs=2.0)
        assert 80.0 <= route.length <= 161.0
        assert plan.speed == 0.0


def test_an_episode_is_that_of_its_seed_and_index() -> None:
    first, again, other = (plans('town', EpisodePlanSettings(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))
    assert len({(one.start, one.goal) for one in first}) == 20
    planner = EpisodePlanner(MAPS['town'], EpisodePlanSettings(seed=1))
    assert planner.plan(7) == first[7]  # whatever was planned before


def test_starts_are_off_the_centre_turned_and_rolling_as_far_as_asked() -> None:
    settings = EpisodePlanSettings(max_offset=0.8, max_yaw_offset=0.2, max_speed=9.0,
                                   standing_share=0.5)
    found = plans('loop', settings, count=60)
    lanes = [MAPS['loop'].project(plan.start.x, plan.start.y) for plan in found]
    offsets = [lane.lateral for lane in lanes]
    turns = [wrap_angle(plan.start.yaw - lane.yaw) for plan, lane in zip(found, lanes,
                                                                         strict=True)]
    for values, limit in ((offsets, 0.8), (turns, 0.2)):
        assert max(map(abs, values)) <= limit + 0.02
        assert min(values) < -limit / 2 and max(values) > limit / 2
    speeds = [plan.speed for plan in found]
    assert 15 <= speeds.count(0.0) <= 45
    assert 4.5 < max(speeds) <= 9.0


def test_lengths_that_are_no_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r'max_length = 100\.0 is below min_length = 200\.0'):
        EpisodePlanSettings(min_length=200.0, max_length=100.0)


def test_a_map_that_is_too_small_says_so() -> None:
    road = RoadMap.from_text(straight_road(120.0), 'short')
    planner = EpisodePlanner(road, EpisodePlanSettings(min_length=300.0, max_length=400.0))
    with pytest.raises(ValueError, match=r"300 to 400 m.*'short'.*shorter routes.*larger map"):
        planner.plan(0)
    with pytest.raises(ValueError, match="'tiny' has no lane with room"):
        EpisodePlanner(RoadMap.from_text(straight_road(10.0), 'tiny'), EpisodePlanSettings())


def test_a_short_road_is_enough_for_short_routes() -> None:
    road = RoadMap.from_text(straight_road(120.0), 'short')
    settings = EpisodePlanSettings(min_length=30.0, max_length=60.0, **CENTRED)
    plan = EpisodePlanner(road, settings).plan(0)
    assert abs(plan.goal.x - plan.start.x) == pytest.approx(plan.route_length, abs=1.0)
    assert plan.start.y == pytest.approx(-1.75 if math.cos(plan.start.yaw) > 0 else 1.75)
