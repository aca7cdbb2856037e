"""One step of everything: contacts, lines, episodes, seeds, and errors at the start."""
from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from av_td3_ros import settings as settings_module
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.driving.route.road_map import MapError
from av_td3_ros.simulator.roads.geometry import MarkingStrip
from av_td3_ros.simulator.roads.lane_lines import BROKEN, SOLID, LaneLines
from av_td3_ros.simulator.traffic import TrafficSettings
from av_td3_ros.simulator.vehicle.contact import contacts
from av_td3_ros.simulator.vehicle.dynamics import VehicleCommand
from av_td3_ros.simulator.view.appearance import AppearanceSettings
from av_td3_ros.simulator.world import STATIC_ID, Snapshot, World, WorldSettings

COAST = VehicleCommand()
GAS = VehicleCommand(throttle=1.0)


def world(name: str = 'loop', count: int = 0, seed: int = 0, look: str = 'clean',
          **others: float) -> World:
    return World(WorldSettings(map=name, traffic=TrafficSettings(count=count),
                               appearance=AppearanceSettings(world=look), **others), seed)


def body(here: World, pose: Pose, speed: float = 0.0) -> Snapshot:
    """Go on by 0.05 s with the ego vehicle moved from outside."""
    return here.follow(VehicleState(here.stamp_ns + 50_000_000, pose.x, pose.y, pose.yaw, speed),
                       False)


@pytest.mark.parametrize('name', ['loop', 'winding', 'town'])
def test_every_map_of_the_project_can_be_driven_and_seen(name: str) -> None:
    here = world(name, count=10, look='moderate')
    for _ in range(20):
        seen = here.tick(VehicleCommand(throttle=0.5))
    assert seen.image is not None
    assert seen.image.shape == (240, 320, 4)
    assert seen.ego.speed > 1.0
    assert len(seen.vehicles) == 10
    assert abs(here.road_map.project(seen.ego.x, seen.ego.y).lateral) < 0.5


def test_time_and_frames_go_in_equal_steps() -> None:
    here = world()
    stamps = [(seen.frame, seen.stamp_ns, seen.ego.stamp_ns)
              for seen in (here.tick(COAST, False) for _ in range(3))]
    assert stamps == [(1, 50_000_000, 50_000_000), (2, 100_000_000, 100_000_000),
                      (3, 150_000_000, 150_000_000)]
    assert here.tick(COAST, render=False).image is None


def test_the_same_seed_gives_the_same_world_and_another_a_different_one() -> None:
    films = []
    for seed in (4, 4, 5):
        here = world('town', count=8, seed=seed, look='cluttered')
        films.append([here.tick(GAS) for _ in range(10)])
    assert all(np.array_equal(one.image, other.image) and one.vehicles == other.vehicles
               and one.ego == other.ego for one, other in zip(films[0], films[1], strict=True))
    assert not np.array_equal(films[0][9].image, films[2][9].image)
    assert films[0][9].vehicles != films[2][9].vehicles


def test_a_teleport_begins_a_new_episode_at_rest() -> None:
    here = world(count=5, look='cluttered')
    here.set_velocity(8.0)
    before = here.tick(GAS)
    look = here.appearance
    goal = here.spawn_points[20]
    here.teleport(goal)
    after = here.tick(COAST)
    assert (after.ego.x, after.ego.y, after.ego.speed) == (goal.x, goal.y, 0.0)
    assert here.appearance is not look
    assert here.appearance.asphalt != look.asphalt
    assert [one.colour for one in after.vehicles] != [one.colour for one in before.vehicles]
    assert after.frame == before.frame + 1  # time goes on
    assert all(math.hypot(one.x - goal.x, one.y - goal.y) > 14.0 for one in after.vehicles)


def test_an_episode_is_told_by_its_start_and_the_seed_alone() -> None:
    here, other = world(look='cluttered', seed=7), world(look='cluttered', seed=8)
    looks = []
    for spawn in (1, 2, 1, 2):
        here.teleport(here.spawn_points[spawn])
        looks.append(here.appearance.asphalt)
    other.teleport(other.spawn_points[1])
    assert looks[0] == looks[2] != looks[1] == looks[3]
    assert looks[0] != other.appearance.asphalt


def test_slippery_looks_make_slippery_roads() -> None:
    here = world(look='cluttered')
    grips = []
    for spawn in here.spawn_points[:10]:
        here.teleport(spawn)
        grips.append(here.ego.grip)
    assert min(grips) < 0.8 < 1.0 >= max(grips)
    assert world(look='clean').ego.grip == 1.0


def test_driving_into_a_building_stops_the_car_with_its_whole_momentum() -> None:
    here = world()
    house = max(here.geometry.boxes, key=lambda one: one.width * one.length)
    gap = 0.5 * (house.length + here.ego.length) + 1.0
    heading = house.yaw + math.pi
    start = Pose(house.x - gap * math.cos(heading), house.y - gap * math.sin(heading), heading)
    here.teleport(start)
    here.set_velocity(10.0)
    ticks = [here.tick(COAST, False) for _ in range(6)]
    hits = [seen for seen in ticks if seen.collision is not None]
    assert len(hits) == 1  # once at rest it leans on nothing
    hit = hits[0]
    assert hit.collision is not None
    assert hit.collision.other_id == STATIC_ID
    assert hit.collision.magnitude == pytest.approx(here.ego.mass * 9.95, rel=0.01)
    # The impulse throws the car back.
    assert math.atan2(*hit.collision.normal_impulse[::-1]) == pytest.approx(
        math.atan2(math.sin(heading + math.pi), math.cos(heading + math.pi)), abs=1e-6)
    assert hit.ego.speed == 0.0
    assert hit.acceleration[0] < -150.0
    for _ in range(40):
        seen = here.tick(GAS, False)
    assert math.dist((seen.ego.x, seen.ego.y), (house.x, house.y)) > gap - 1.0
    for _ in range(40):
        here.tick(VehicleCommand(throttle=1.0, reverse=True), False)
    assert here.ego.speed < -2.0  # it is not stuck in the wall


def test_hitting_another_vehicle_counts_both_masses_and_speeds() -> None:
    here = world('winding', count=10)
    other = here.tick(COAST, False).vehicles[0]
    back = other.speed * 0.05 - 0.5 * (other.length + here.ego.length) + 0.3
    pose = Pose(other.x + back * math.cos(other.yaw), other.y + back * math.sin(other.yaw),
                other.yaw)
    seen = body(here, pose, speed=other.speed + 5.0)
    assert seen.collision is not None
    assert seen.collision.other_id == other.id
    hit = next(one for one in seen.vehicles if one.id == other.id)
    mass = 110.0 * other.length * other.width * other.height
    shared = here.ego.mass * mass / (here.ego.mass + mass)
    assert seen.collision.magnitude == pytest.approx(
        shared * (other.speed + 5.0 - hit.speed), rel=0.02)
    # Touching without closing in is no collision.
    assert body(here, pose, speed=-2.0).collision is None


def test_rectangles_touch_when_no_side_separates_them() -> None:
    ego = np.array([0.0, 0.0, 0.0, 4.0, 2.0])
    apart = [[4.1, 0.0, 0.0, 4.0, 2.0], [0.0, -2.05, 0.0, 4.0, 2.0],
             # Near the corner, turned by 45 degrees: the circles meet, the boxes do not.
             [2.0 + 1.5, 1.0 + 1.5, math.pi / 4.0, 4.0, 2.0],
             [3.1, 2.1, -math.pi / 4.0, 3.0, 0.5]]
    assert contacts(ego, np.array(apart)) == []
    ahead, left, turned = contacts(ego, np.array([
        [3.9, 0.3, 0.0, 4.0, 2.0], [-0.5, 1.8, 0.0, 4.0, 2.0],
        [-2.9, 0.0, math.pi / 2.0, 4.0, 2.0]]))
    assert (ahead.index, ahead.normal, ahead.depth) == (0, (1.0, 0.0), pytest.approx(0.1))
    assert (left.index, left.normal, left.depth) == (1, (0.0, 1.0), pytest.approx(0.2))
    assert turned.normal == pytest.approx((-1.0, 0.0))
    assert turned.depth == pytest.approx(0.1)
    assert contacts(ego, np.zeros((0, 5))) == []


def test_changing_lane_and_back_crosses_the_broken_line_twice() -> None:
    here = world('winding')
    spawn = next(pose for pose in here.spawn_points
                 if here.road_map.project(pose.x, pose.y).lane_id < 0)
    here.teleport(spawn)
    events = []
    # 30 m ahead over to the other lane and back again, in 120 steps of a moved body.
    for step in range(120):
        place = here.road_map.lane_ahead(spawn, 0.25 * step + 1.0)[-1]
        lane = here.road_map.project(*place)
        aside = 3.5 * math.sin(math.pi * step / 119.0)
        pose = Pose(lane.x - aside * math.sin(lane.yaw), lane.y + aside * math.cos(lane.yaw),
                    lane.yaw)
        events += [(step, kind) for kind in body(here, pose).lane_invasion]
    assert [kind for _, kind in events] == [BROKEN, BROKEN]
    assert events[0][0] < 40 and events[1][0] > 60


def test_leaving_the_road_crosses_its_solid_edge() -> None:
    here = world('winding')
    spawn = here.spawn_points[3]
    here.teleport(spawn)
    crossed = []
    for aside in np.arange(0.0, 4.0, 0.1):
        crossed += body(here, Pose(spawn.x + aside * math.sin(spawn.yaw),
                                   spawn.y - aside * math.cos(spawn.yaw),
                                   spawn.yaw)).lane_invasion
    assert crossed == [SOLID]


def test_a_teleport_onto_a_line_is_no_crossing() -> None:
    here = world('winding')
    spawn = here.spawn_points[3]
    on_line = Pose(spawn.x + 1.75 * math.sin(spawn.yaw), spawn.y - 1.75 * math.cos(spawn.yaw),
                   spawn.yaw)
    here.teleport(on_line)
    assert here.tick(COAST, False).lane_invasion == ()


def test_driving_along_on_a_line_of_many_pieces_is_one_crossing() -> None:
    pieces = [MarkingStrip(np.array([[start, 0.0], [start + 10.0, 0.0]]), 'solid', 0.15, 'white')
              for start in range(0, 100, 10)]
    other = MarkingStrip(np.array([[0.0, 1.5], [100.0, 1.5]]), 'broken', 0.15, 'white')
    lines = LaneLines([*pieces, other])
    lines.place(Pose(5.0, -1.5, 0.0), 4.0, 2.0)
    assert lines.move(Pose(6.0, -1.2, 0.0), 4.0, 2.0) == ()
    assert lines.move(Pose(7.0, -0.9, 0.0), 4.0, 2.0) == (SOLID,)
    assert [lines.move(Pose(x, -0.5, 0.0), 4.0, 2.0) for x in range(8, 90, 2)] == [()] * 41
    # A jump over both lines at once, then on the left of both.
    assert lines.move(Pose(90.0, 0.7, 0.0), 4.0, 2.0) == (BROKEN,)
    assert lines.move(Pose(91.0, 5.0, 0.0), 4.0, 2.0) == ()
    assert lines.move(Pose(92.0, 0.75, 0.0), 4.0, 2.0) == (BROKEN, SOLID)


def test_a_moved_body_is_followed_by_camera_and_state() -> None:
    here = world(roadside_distance=0.0)
    target = here.spawn_points[10]
    state = VehicleState(40_000_000, target.x, target.y, target.yaw, 6.0, 0.3, 0.1)
    seen = here.follow(state)
    assert (seen.stamp_ns, seen.ego.stamp_ns, seen.frame) == (40_000_000, 40_000_000, 1)
    assert (seen.ego.x, seen.ego.y, seen.ego.yaw_rate) == (target.x, target.y, 0.1)
    assert (seen.ego.speed, seen.ego.lateral_speed) == pytest.approx((6.0, 0.3))
    there = world(roadside_distance=0.0)
    there.teleport(target)
    assert np.array_equal(seen.image, there.render())


def test_traffic_moves_for_the_time_that_a_real_vehicle_took() -> None:
    here, there = world('winding', count=20, roadside_distance=0.0), world(
        'winding', count=20, roadside_distance=0.0)
    parked = here.ego_pose
    for _ in range(4):
        body(here, parked)
    standing = VehicleState(200_000_000, parked.x, parked.y, parked.yaw, 0.0)
    at_once = there.follow(standing, False).vehicles
    assert np.allclose([one[1:4] for one in at_once], [one[1:4] for one in here.traffic.vehicles])
    before = [(one.x, one.y) for one in there.traffic.vehicles]
    late = dataclasses.replace(standing, stamp_ns=60_000_000_000)
    assert max(math.dist((one.x, one.y), place) for one, place in zip(
        there.follow(late, False).vehicles, before, strict=True)) < 10.0
    with pytest.raises(ValueError, match='before the step before'):
        there.follow(late)


def test_the_acceleration_of_a_followed_vehicle_is_that_of_its_velocities() -> None:
    here = world(roadside_distance=0.0)
    pose = here.ego_pose
    body(here, pose, 4.0)
    braking = body(here, pose, 3.8)
    assert braking.acceleration == pytest.approx((-4.0, 0.0), abs=1e-6)


def test_imu_measures_gravity_and_turning() -> None:
    here = world()
    here.set_velocity(10.0)
    for _ in range(20):
        here.tick(VehicleCommand(steer=0.1), False)
    measured = here.imu()
    assert measured.linear_acceleration[2] == pytest.approx(9.81)
    assert measured.linear_acceleration[1] == pytest.approx(
        here.ego.speed * here.ego.yaw_rate, rel=0.1)
    assert measured.angular_velocity == (0.0, 0.0, here.ego.yaw_rate)
    assert here.vehicle_info().mass == here.ego.mass


def test_vehicles_show_in_the_image() -> None:
    here = world('winding', count=50)
    alone = world('winding')
    start = next(pose for pose in here.spawn_points if any(
        4.0 < math.hypot(one.x - pose.x, one.y - pose.y) < 20.0
        and (one.x - pose.x) * math.cos(pose.yaw) + (one.y - pose.y) * math.sin(pose.yaw) > 4.0
        for one in here.traffic.vehicles))
    for one in (here, alone):
        one.ego.reset(start)
    changed = np.abs(here.render().astype(int) - alone.render().astype(int)).sum(axis=2) > 30
    assert changed.sum() > 50


def test_wrong_maps_and_spawn_points_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"'atlantis' is no file.* loop, .*, town, .*, winding"):
        world('atlantis')
    with pytest.raises(MapError, match=r'missing\.xodr'):
        world(str(tmp_path / 'missing.xodr'))
    broken = tmp_path / 'broken.xodr'
    broken.write_text('<OpenDRIVE><road', encoding='utf-8')
    with pytest.raises(MapError, match=r'broken\.xodr'):
        world(str(broken))
    with pytest.raises(ValueError, match='spawn points; spawn_point = 100000'):
        world(spawn_point=100000)


def test_settings_are_described_and_survive_the_way_to_parameters() -> None:
    chosen = WorldSettings(map='town', traffic=TrafficSettings(count=3))
    flat = settings_module.flatten(chosen)
    assert flat['camera.width'] == 320
    assert settings_module.from_mapping(WorldSettings, flat) == chosen
    with pytest.raises(ValueError, match='out of range'):
        settings_module.from_mapping(WorldSettings, {'camera.fov': 300.0})
