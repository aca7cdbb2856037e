"""Where a vehicle is on its route: straight, curved, closed, crossing itself, and at its ends."""
from __future__ import annotations

import math

import numpy as np
import pytest

from av_td3_ros.driving.route.geometry import Pose, to_vehicle_frame
from av_td3_ros.driving.route.tracker import RouteTracker


def circle(radius: float, turns: float = 1.0, with_yaw: bool = True) -> np.ndarray:
    """Return a left-hand circle from (0, 0) heading east, a point every metre."""
    angle = np.linspace(0.0, turns * math.tau, round(turns * math.tau * radius) + 1)
    points = np.stack([radius * np.sin(angle), radius * (1.0 - np.cos(angle)), angle], axis=1)
    return points if with_yaw else points[:, :2]


def figure_eight(radius: float) -> np.ndarray:
    """Return a left-hand circle followed by a right-hand one: the route crosses its start."""
    left = circle(radius)
    right = left[1:] * (1.0, -1.0, -1.0)
    return np.concatenate([left, right])


def test_vehicle_left_of_a_straight_route_has_positive_errors() -> None:
    position = RouteTracker([(0.0, 0.0), (100.0, 0.0)]).update(25.0, 1.5, 0.2)
    assert position.distance == pytest.approx(25.0)
    assert position.lateral == pytest.approx(1.5)
    assert position.heading_error == pytest.approx(0.2)
    assert position.remaining == pytest.approx(75.0)
    assert position.completion == pytest.approx(0.25)


def test_errors_do_not_depend_on_where_the_route_points() -> None:
    for yaw in np.linspace(-math.pi, math.pi, 9):
        ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw),
                                                                          math.cos(yaw)])
        tracker = RouteTracker(np.array([5.0, -7.0]) + np.arange(51)[:, None] * ahead)
        x, y = np.array([5.0, -7.0]) + 20.3 * ahead - 0.8 * left
        position = tracker.update(x, y, yaw + math.tau - 0.1)
        assert position.distance == pytest.approx(20.3)
        assert position.lateral == pytest.approx(-0.8)
        assert position.heading_error == pytest.approx(-0.1)


@pytest.mark.parametrize('with_yaw', [True, False])
def test_circle_is_followed_with_millimetres_of_error(with_yaw: bool) -> None:
    radius = 15.0
    tracker = RouteTracker(circle(radius, with_yaw=with_yaw))
    for angle in np.linspace(0.1, math.tau - 0.1, 200):
        inside = radius - 0.5  # 0.5 m left of a left-hand curve
        position = tracker.update(inside * math.sin(angle), radius - inside * math.cos(angle),
                                  angle)
        assert position.lateral == pytest.approx(0.5, abs=0.01)
        assert position.heading_error == pytest.approx(0.0, abs=0.005)
        assert position.distance == pytest.approx(radius * angle, abs=0.05)


def test_closed_route_begins_at_its_start_and_ends_at_its_end() -> None:
    tracker = RouteTracker(circle(20.0))
    assert tracker.update(0.0, 0.0, 0.0).distance == pytest.approx(0.0, abs=0.01)
    for angle in np.linspace(0.02, math.tau, 300):
        position = tracker.update(20.0 * math.sin(angle), 20.0 * (1.0 - math.cos(angle)), angle)
    assert position.completion == pytest.approx(1.0)
    assert position.remaining == pytest.approx(0.0, abs=0.01)


def test_crossing_its_own_path_does_not_jump_ahead() -> None:
    route = figure_eight(15.0)
    tracker = RouteTracker(route)
    before = 0.0
    for x, y, yaw in route:
        distance = tracker.update(x, y, yaw).distance
        assert 0.0 <= distance - before < 1.01
        before = distance
    assert before == pytest.approx(tracker.length)


def test_start_in_the_middle_of_a_crossing_follows_the_heading() -> None:
    cross = np.array([(-50.0, 0.0), (50.0, 0.0), (50.0, 50.0), (0.0, 50.0), (0.0, -50.0)])
    assert RouteTracker(cross).update(0.0, 0.0, 0.0).distance == pytest.approx(50.0)
    assert RouteTracker(cross).update(0.0, 0.0, -math.pi / 2).distance == pytest.approx(250.0)


def test_late_measurement_finds_the_vehicle_far_ahead() -> None:
    tracker = RouteTracker([(0.0, 0.0), (500.0, 0.0)])
    tracker.update(0.0, 0.0, 0.0)
    assert tracker.update(80.0, 0.0, 0.0).distance == pytest.approx(80.0)


def test_beyond_the_ends_only_the_distance_across_the_route_is_an_error() -> None:
    tracker = RouteTracker([(0.0, 0.0), (10.0, 0.0)])
    before = tracker.update(-3.0, 0.4, 0.0)
    assert (before.distance, before.lateral) == (0.0, pytest.approx(0.4))
    after = tracker.update(14.0, -0.6, 0.0)
    assert (after.remaining, after.completion) == (0.0, 1.0)
    assert after.lateral == pytest.approx(-0.6)


def test_outside_of_a_sharp_corner_the_whole_distance_counts() -> None:
    tracker = RouteTracker([(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)])
    assert tracker.update(13.0, -4.0, 0.0).lateral == pytest.approx(-5.0)


def test_waypoints_lie_two_metres_apart_in_the_vehicles_frame() -> None:
    tracker = RouteTracker(np.c_[np.zeros(61), np.arange(61.0)])  # northwards
    pose = Pose(1.0, 10.0, math.pi / 2)  # 1 m right of the route
    tracker.update(pose.x, pose.y, pose.yaw)
    ahead = tracker.waypoints_ahead(pose, 3)
    assert ahead.dtype == np.float32
    np.testing.assert_allclose(ahead, [(2.0, 1.0), (4.0, 1.0), (6.0, 1.0)], atol=1e-5)


def test_waypoints_agree_with_the_frame_of_the_vehicle() -> None:
    route = circle(30.0)
    tracker = RouteTracker(route)
    pose = Pose(10.0, 2.0, 0.7)
    distance = tracker.update(pose.x, pose.y, pose.yaw).distance
    angles = (distance + 2.0 * np.arange(1, 26)) / 30.0
    on_circle = np.stack([30.0 * np.sin(angles), 30.0 * (1.0 - np.cos(angles))], axis=1)
    np.testing.assert_allclose(tracker.waypoints_ahead(pose, 25),
                               to_vehicle_frame(on_circle, pose), atol=0.02)


def test_last_waypoint_is_repeated_at_the_end() -> None:
    tracker = RouteTracker([(0.0, 0.0), (20.0, 0.0)])
    pose = Pose(15.0, 0.0, 0.0)
    tracker.update(pose.x, pose.y, pose.yaw)
    np.testing.assert_allclose(tracker.waypoints_ahead(pose, 5)[:, 0], [2.0, 4.0, 5.0, 5.0, 5.0])


def test_reset_searches_the_whole_route_again() -> None:
    tracker = RouteTracker([(0.0, 0.0), (1000.0, 0.0)])
    tracker.update(900.0, 0.0, 0.0)
    tracker.reset()
    assert tracker.update(3.0, 0.0, 0.0).distance == pytest.approx(3.0)


def test_repeated_points_are_dropped() -> None:
    tracker = RouteTracker([(0.0, 0.0), (0.0, 0.0), (5.0, 0.0), (5.0, 0.0), (9.0, 0.0)])
    assert tracker.length == pytest.approx(9.0)
    assert tracker.update(5.0, 1.0, 0.0).heading_error == pytest.approx(0.0)


@pytest.mark.parametrize(('points', 'text'), [
    ([], 'shape'), ([(1.0, 2.0)], 'two distinct points'),
    ([(1.0, 2.0), (1.0, 2.0)], 'two distinct points'), ([(0.0, 1.0, 2.0, 3.0)], 'shape'),
    ([(0.0, 0.0), (math.nan, 1.0)], 'route point 1 is not finite')])
def test_route_that_cannot_be_followed_is_refused(points: list[tuple[float, ...]], text: str
                                                  ) -> None:
    with pytest.raises(ValueError, match=text):
        RouteTracker(points)
