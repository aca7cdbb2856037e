import math
from pathlib import Path

import numpy as np
import pytest
from small_maps import straight_road

from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.settings import check
from av_td3_ros.simulator.traffic import Traffic, TrafficSettings, TrafficVehicle

MAPS = Path(__file__).parents[2] / 'config' / 'maps'
DT = 0.05


@pytest.fixture(scope='module')
def town() -> RoadMap:
    return RoadMap.from_file(MAPS / 'town.xodr')


@pytest.fixture(scope='module')
def loop() -> RoadMap:
    return RoadMap.from_file(MAPS / 'loop.xodr')


def make(road_map: RoadMap, seed: int = 0, **settings) -> Traffic:
    return Traffic(road_map, TrafficSettings(**settings), np.random.default_rng(seed))


def overlap(one: TrafficVehicle, other: TrafficVehicle) -> bool:
    """Say whether two footprints overlap (separating axes)."""
    boxes = []
    for body in (one, other):
        ahead = np.array([math.cos(body.yaw), math.sin(body.yaw)])
        left = np.array([-ahead[1], ahead[0]])
        boxes.append((np.array([body.x, body.y]), ahead * body.length / 2, left * body.width / 2))
    away = boxes[1][0] - boxes[0][0]
    for axis in (boxes[0][1], boxes[0][2], boxes[1][1], boxes[1][2]):
        axis = axis / np.linalg.norm(axis)
        reach = sum(abs(axis @ half) for _, ahead, left in boxes for half in (ahead, left))
        if abs(axis @ away) > reach:
            return False
    return True


def overlapping_pairs(vehicles: list[TrafficVehicle]) -> list[tuple[int, int]]:
    places = np.array([(one.x, one.y) for one in vehicles])
    near = np.hypot(*(places[:, None] - places[None]).T) < 8.0
    return [(vehicles[i].id, vehicles[j].id) for i, j in np.argwhere(np.triu(near, 1))
            if overlap(vehicles[i], vehicles[j])]


@pytest.mark.parametrize('name, count', [('town', 25), ('loop', 40)])
def test_vehicles_never_drive_through_each_other_and_all_get_on(name, count):
    traffic = make(RoadMap.from_file(MAPS / f'{name}.xodr'), seed=4, count=count)
    assert traffic.spawn() == count
    start = {one.id: (one.x, one.y) for one in traffic.vehicles}
    furthest = dict.fromkeys(start, 0.0)
    for step in range(1800):
        traffic.step(DT, None)
        if step % 5 == 0:
            assert overlapping_pairs(traffic.vehicles) == []
            for one in traffic.vehicles:
                away = math.hypot(one.x - start[one.id][0], one.y - start[one.id][1])
                furthest[one.id] = max(furthest[one.id], away)
    assert min(furthest.values()) > 60.0


def test_vehicles_keep_their_lane_and_move_as_fast_as_they_say(town):
    traffic = make(town, seed=1, count=15)
    traffic.spawn()
    before = traffic.vehicles
    for _ in range(400):
        traffic.step(DT, None)
        for was, now in zip(before, traffic.vehicles, strict=True):
            moved = math.hypot(now.x - was.x, now.y - was.y)
            assert moved == pytest.approx((was.speed + now.speed) / 2 * DT, abs=0.02)
            assert abs(wrap_angle(now.yaw - was.yaw)) < 0.15
            assert town.distance_to_lanes(np.array([[now.x, now.y]]))[0] < 0.3
        before = traffic.vehicles


def test_a_lone_vehicle_reaches_its_speed_and_slows_for_curves():
    winding = RoadMap.from_file(MAPS / 'winding.xodr')
    traffic = make(winding, count=1, desired_speed=12.0, speed_spread=0.0)
    traffic.spawn()
    speeds, aside, yaw = [], [], traffic.vehicles[0].yaw
    for _ in range(2000):
        traffic.step(DT, None)
        (one,) = traffic.vehicles
        speeds.append(one.speed)
        aside.append(abs(wrap_angle(one.yaw - yaw)) / DT * one.speed)
        yaw = one.yaw
    assert 11.0 < max(speeds) <= 12.0
    assert min(speeds[200:]) < 7.0
    # The setting is 2 m/s^2.
    assert max(aside) < 2.8
    assert max(abs(np.diff(speeds))) / DT < 3.0


def test_a_vehicle_stops_behind_a_standing_ego_and_drives_on_after_it_left(loop):
    traffic = make(loop, seed=3, count=1)
    traffic.spawn()
    (one,) = traffic.vehicles
    ahead = loop.lane_ahead(Pose(one.x, one.y, one.yaw), 60.0)[-1]
    place = loop.project(*ahead)
    ego = (place.x, place.y, place.yaw, 0.0, 4.5)
    for _ in range(600):
        traffic.step(DT, ego)
    (one,) = traffic.vehicles
    assert one.speed < 0.05
    gap = math.hypot(one.x - place.x, one.y - place.y) - (one.length + 4.5) / 2
    assert 1.0 < gap < 4.0
    for _ in range(200):
        traffic.step(DT, None)
    assert traffic.vehicles[0].speed > 5.0


def test_an_oncoming_ego_in_its_own_lane_stops_no_one(loop):
    traffic = make(loop, seed=3, count=1, speed_spread=0.0)
    traffic.spawn()
    (one,) = traffic.vehicles
    ahead = loop.project(*loop.lane_ahead(Pose(one.x, one.y, one.yaw), 60.0)[-1])
    left = ahead.pose.yaw + math.pi / 2
    ego = (ahead.x + 3.5 * math.cos(left), ahead.y + 3.5 * math.sin(left),
           ahead.yaw + math.pi, 5.0, 4.5)
    for _ in range(200):
        traffic.step(DT, ego)
    past = traffic.vehicles[0]
    assert math.hypot(past.x - one.x, past.y - one.y) > 40.0


def test_no_one_enters_a_junction_that_the_ego_vehicle_blocks(town):
    lane = next(one for one in town.lanes if one.is_junction)
    middle = lane.pose_at(lane.length / 2)
    traffic = make(town, seed=2, count=20)
    traffic.spawn(avoid=middle, min_gap=45.0)
    blocked = [one for one in town.lanes if one.junction_id == lane.junction_id]
    inside = np.concatenate([one.points for one in blocked])
    for _ in range(1200):
        traffic.step(DT, (middle.x, middle.y, middle.yaw, 0.0, 4.5))
        for one in traffic.vehicles:
            front = Pose(one.x, one.y, one.yaw).ahead(one.length / 2)
            assert np.hypot(*(inside - (front.x, front.y)).T).min() > 0.3
    waiting = [one for one in traffic.vehicles if one.speed < 0.1]
    assert waiting


def test_spawning_keeps_away_from_the_ego_vehicle_and_from_others(loop):
    ego = loop.spawn_points()[10]
    traffic = make(loop, count=50)
    assert traffic.spawn(avoid=ego, min_gap=30.0) == 50
    assert min(ego.distance(one.x, one.y) for one in traffic.vehicles) >= 30.0
    assert overlapping_pairs(traffic.vehicles) == []


def test_all_can_be_kept_near_the_ego_vehicle(loop):
    ego = loop.spawn_points()[10]
    traffic = make(loop, count=6, within=90.0)
    assert traffic.spawn(avoid=ego, min_gap=15.0) == 6
    assert max(ego.distance(one.x, one.y) for one in traffic.vehicles) <= 90.0


def test_the_seed_decides_everything(town):
    runs = []
    for seed in (5, 5, 6):
        traffic = make(town, seed=seed, count=10)
        traffic.spawn()
        for _ in range(300):
            traffic.step(DT, None)
        runs.append(traffic.vehicles)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    traffic = make(town, seed=9, count=10)
    for _ in range(2):
        traffic.spawn(rng=np.random.default_rng(5))
        for _ in range(300):
            traffic.step(DT, None)
        assert traffic.vehicles == runs[0]


def test_a_vehicle_at_a_dead_end_stops_and_comes_back_elsewhere():
    traffic = make(RoadMap.from_text(straight_road(400.0), 'straight'), seed=1, count=2)
    assert traffic.spawn() == 2
    jumps = 0
    for _ in range(2400):
        before = traffic.vehicles
        traffic.step(DT, None)
        for was, now in zip(before, traffic.vehicles, strict=True):
            assert now.length / 2 <= now.x <= 400.0 - now.length / 2
            jumps += math.hypot(now.x - was.x, now.y - was.y) > 5.0
    assert jumps >= 2


def test_no_vehicles_is_a_quiet_road_and_too_many_take_what_room_there_is():
    short = RoadMap.from_text(straight_road(100.0), 'straight')
    nobody = make(short)
    assert nobody.spawn() == 0
    nobody.step(DT, (0.0, 0.0, 0.0, 0.0, 4.5))
    assert nobody.vehicles == []
    crowd = make(short, count=50)
    assert 4 <= crowd.spawn() < 20
    assert len(crowd.vehicles) == crowd.spawn()


def test_settings_out_of_range_are_refused():
    check(TrafficSettings(count=50))
    with pytest.raises(ValueError, match=r'count = 51 is out of range'):
        check(TrafficSettings(count=51))
