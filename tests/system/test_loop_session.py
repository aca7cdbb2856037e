"""A stand-in vehicle on an empty ground, driven by the learned policy through a virtual world."""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from av_td3_msgs.msg import Action, EpisodeSummary, Observation
from harness import TIMEOUT, Peer, await_that
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool

from av_td3_ros.cli.launched import Told
from av_td3_ros.cli.session import Session
from av_td3_ros.driving.proving_ground.alignment import place_at
from av_td3_ros.driving.route.geometry import Pose, to_vehicle_frame
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_nanoseconds, to_yaw
from av_td3_ros.ros.graph import session_nodes

PROFILE, VEHICLE, MAP = 'vehicle_in_the_loop_bench', 'ego_vehicle', 'test/roads_a'
FIRST = Pose(120.0, -45.0, 2.0)  # where the vehicle stands on the ground
ROADS = RoadMap.from_file(map_file(MAP))
START = ROADS.spawn_points()[2]
ROUTE = 80.0  # m
STARTING = 3 * TIMEOUT  # s; processes that import torch on a machine with two cores
HALF_BODY = 2.25  # m, of the stand-in's length and of external.length


class Bench:
    """A session with a stand-in vehicle, and what is heard of it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.delays: list[float] = []
        self.odometry = peer.hear(Odometry, '/vehicle/odometry')
        self.observations = peer.hear(Observation, f'/{VEHICLE}/observation')
        self.actions = peer.hear(Action, f'/{VEHICLE}/action')
        self.summaries = peer.hear(EpisodeSummary, '/learner/episode_summary')
        self.stops = peer.hear(String, f'/{VEHICLE}/stop_request')
        self.states = peer.hear(String, f'/{VEHICLE}/control_state', qos.LATCHED)
        peer.node.create_subscription(Image, f'/carla/{VEHICLE}/rgb_front/image', self._see,
                                      qos.SENSOR)

    def _see(self, message: Image) -> None:
        self.delays.append(1e-9 * (time.time_ns() - to_nanoseconds(message.header.stamp)))

    def engage(self) -> None:
        """Let the policy drive once it sees a route and answers."""
        self.observations.next(timeout=STARTING)
        self.actions.next(timeout=STARTING)  # or it would be given up before it has begun
        answer = self._peer.ask(SetBool, f'/{VEHICLE}/control_node/engage',
                                SetBool.Request(data=True))
        assert answer.success, answer.message

    def places(self) -> np.ndarray:
        """Return (N, 4) where the stand-in has been: x, y, yaw on the ground, speed."""
        return np.array([(one.pose.pose.position.x, one.pose.pose.position.y,
                          to_yaw(one.pose.pose.orientation), one.twist.twist.linear.x)
                         for one in self.odometry.messages])

    def has_stopped(self) -> bool:
        """Say whether it has stood for the last half second."""
        return bool(np.abs(self.places()[-25:, 3]).max() < 0.2)


@pytest.fixture
def begin(peer: Peer, tmp_path: Path) -> Iterator[Callable[[dict[str, float]], Bench]]:
    """Return a function that starts a session on a given rectangle of ground."""
    sessions: list[Session] = []
    origin = place_at(FIRST, START)

    def begin(ground: dict[str, float]) -> Bench:
        options = {
            **{f'simulator_node.external.start.{key}': value for key, value in zip(
                ('x', 'y', 'yaw'), (origin.x, origin.y, origin.yaw), strict=True)},
            **{f'simulator_node.external.ground.{key}': value for key, value in ground.items()},
            **{f'stand_in_vehicle_node.vehicle.{key}': getattr(FIRST, key)
               for key in ('x', 'y', 'yaw')},
            'simulator_node.route_length': ROUTE,
            # The machine may be busy with other tests: what is late is late for all of them.
            'simulator_node.external.max_age': 2.0, 'control_node.sensor_timeout': 5.0,
            'control_node.action_timeout': 5.0, 'control_node.sensor_max_age': 5.0,
            'control_node.odometry.timeout': 5.0, 'control_node.odometry.max_age': 2.0,
            'stand_in_vehicle_node.vehicle.delay': 0.05,
            'stand_in_vehicle_node.vehicle.command_timeout': 2.0}
        config = Told(PROFILE, VEHICLE, map_name=MAP, config=' '.join(
            f'{key}={value}' for key, value in options.items())).driving('pretrained', False)
        file = tmp_path / 'config.yaml'
        config.write(file, 'vehicle in the loop')
        bench = Bench(peer)
        sessions.append(Session(session_nodes(PROFILE, VEHICLE, learning=False), file,
                                tmp_path / 'logs'))
        sessions[-1].__enter__()
        return bench

    yield begin
    for one in sessions:
        one.__exit__(None, None, None)


def ground_of(lane: np.ndarray, room: float) -> dict[str, float]:
    """Return the rectangle on the ground that holds a lane of the map with room around it."""
    places = to_vehicle_frame(lane, place_at(FIRST, START))
    low, high = places.min(axis=0) - room, places.max(axis=0) + room
    (x, y), (length, width) = (low + high) / 2.0, high - low
    return {'x': float(x), 'y': float(y), 'yaw': 0.0, 'length': float(length),
            'width': float(width)}


def test_the_learned_policy_drives_a_stand_in_along_a_virtual_road(
        begin: Callable[[dict[str, float]], Bench]) -> None:
    bench = begin(ground_of(ROADS.lane_ahead(START, ROUTE), 40.0))
    bench.engage()
    summary = bench.summaries.next(timeout=STARTING)
    assert summary.result == 'route_completed', [one.data for one in bench.states.messages]
    assert summary.distance > 0.9 * ROUTE
    assert bench.stops.messages == []
    # Where it has really been: along the lane that lies on the empty ground.
    places = bench.places()
    lane = to_vehicle_frame(ROADS.lane_ahead(START, ROUTE, 0.5), place_at(FIRST, START))
    off = np.array([np.hypot(*(lane - place[:2]).T).min() for place in places[::10]])
    assert off.max() < 2.0
    assert math.dist(places[0, :2], places[-1, :2]) > 0.5 * ROUTE
    await_that(bench.has_stopped, 'the stop at the end of the route')
    delays = np.array(bench.delays)
    print(f'off the lane at most {off.max():.2f} m; pose to image: median '
          f'{1e3 * np.median(delays):.1f} ms, p99 {1e3 * np.percentile(delays, 99):.1f} ms of '
          f'{len(delays)} images')
    assert len(delays) > 100
    assert np.median(delays) < 0.25


def test_the_end_of_the_ground_is_a_controlled_stop_inside_it(
        begin: Callable[[dict[str, float]], Bench]) -> None:
    front = 40.0  # m ahead of where it stands
    middle = FIRST.ahead(0.5 * front - 5.0)
    bench = begin({'x': middle.x, 'y': middle.y, 'yaw': FIRST.yaw, 'length': front + 10.0,
                   'width': 60.0})
    bench.engage()
    reason = bench.stops.next(timeout=STARTING).data
    assert 'the ground ends ahead' in reason
    state = bench.states.next(lambda one: one.data.startswith('stopped: the ground ends'))
    assert 'might go' in state.data
    await_that(bench.has_stopped, 'the stop')
    places = bench.places()
    assert places[:, 3].max() > 2.0  # it did drive
    ahead = to_vehicle_frame(places[:, :2], FIRST)
    assert ahead[-1, 0] > 5.0
    assert ahead[:, 0].max() + HALF_BODY < front
