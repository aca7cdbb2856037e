"""Messages to plain values and back."""
from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
from av_td3_msgs.msg import EpisodeSummary, LearnerStatus, Metric, Observation
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import Quaternion
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message

from av_td3_ros.driving.episode.reward import RewardTerms
from av_td3_ros.driving.perception.vehicle_state import MeasurementError, VehicleState
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.ros import conversions
from av_td3_ros.ros.recording.records import episode_record, status_record


@pytest.mark.parametrize('nanoseconds', [0, 1, 999_999_999, 1_000_000_000, 86_400_050_000_000])
def test_stamps_keep_every_nanosecond(nanoseconds: int) -> None:
    assert conversions.to_nanoseconds(conversions.to_stamp(nanoseconds)) == nanoseconds


def test_a_stamp_is_seconds_and_nanoseconds() -> None:
    assert conversions.to_stamp(3_000_000_007) == Time(sec=3, nanosec=7)


@pytest.mark.parametrize('yaw', [0.0, 1.0, -1.0, math.pi / 2, 3.1, -3.1])
def test_yaw_is_counter_clockwise(yaw: float) -> None:
    assert conversions.to_yaw(conversions.to_quaternion(yaw)) == pytest.approx(yaw)


def test_a_quarter_turn_to_the_left() -> None:
    rotation = conversions.to_quaternion(math.pi / 2)
    assert (rotation.x, rotation.y) == (0.0, 0.0)
    assert (rotation.z, rotation.w) == (pytest.approx(math.sqrt(0.5)),) * 2
    # Nose up by 0.3 rad changes nothing of the heading.
    pitched = Quaternion(y=math.sin(-0.15), w=math.cos(-0.15))
    assert conversions.to_yaw(pitched) == pytest.approx(0.0)


def test_poses_go_there_and_back() -> None:
    pose = Pose(12.5, -7.25, 2.0)
    there = conversions.to_pose_message(pose)
    assert (there.position.x, there.position.y, there.position.z) == (12.5, -7.25, 0.0)
    back = conversions.from_pose_message(there)
    assert (back.x, back.y, back.yaw) == (12.5, -7.25, pytest.approx(2.0))


@pytest.mark.parametrize(('name', 'value'), [('x', math.nan), ('y', math.inf), ('x', 1e9)])
def test_a_pose_that_is_no_place_is_refused(name: str, value: float) -> None:
    message = PoseMessage()
    setattr(message.position, name, value)
    with pytest.raises(ValueError, match=f'{value}'.replace('+', r'\+')):
        conversions.from_pose_message(message)


def odometry() -> Odometry:
    """Return a vehicle that drives and turns."""
    message = Odometry()
    message.header.stamp = Time(sec=1, nanosec=50_000_000)
    message.pose.pose = conversions.to_pose_message(Pose(1.0, 2.0, 0.5))
    message.twist.twist.linear.x, message.twist.twist.linear.y = 6.0, -0.25
    message.twist.twist.angular.z = 0.125
    return message


def test_odometry_is_the_state_in_the_vehicles_frame() -> None:
    state = conversions.from_odometry(odometry())
    assert dataclasses.replace(state, yaw=0.0) == VehicleState(
        1_050_000_000, 1.0, 2.0, 0.0, 6.0, -0.25, 0.125)
    assert state.yaw == pytest.approx(0.5)


def test_odometry_that_is_not_a_number_is_refused() -> None:
    message = odometry()
    message.twist.twist.angular.z = math.nan
    with pytest.raises(MeasurementError, match='yaw_rate = nan'):
        conversions.from_odometry(message)


def test_arrays_reach_the_wire_unchanged() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 84, 84), np.uint8)
    state = np.random.default_rng(0).normal(size=53).astype(np.float32)
    message = Observation(frames=conversions.to_bytes(frames), state=conversions.to_floats(state))
    heard = deserialize_message(serialize_message(message), Observation)
    np.testing.assert_array_equal(np.frombuffer(heard.frames, np.uint8), frames.ravel())
    np.testing.assert_array_equal(np.asarray(heard.state, np.float32), state)


def test_bytes_of_any_kind_are_taken() -> None:
    wanted = [3, 1, 2]
    strided = np.array([3, 9, 1, 9, 2], np.uint8)[::2]
    for values in (bytes(wanted), bytearray(wanted), np.array(wanted, np.uint8), strided):
        assert list(conversions.to_bytes(values)) == wanted


def test_metrics_are_the_numbers_with_their_names() -> None:
    metrics = conversions.to_metrics({'speed': 7, 'share': 0.5, 'ttc': None, 'result': 'ok'})
    assert metrics == [Metric(name='speed', value=7.0), Metric(name='share', value=0.5)]
    assert conversions.from_metrics(metrics) == {'speed': 7.0, 'share': 0.5}


def test_reward_terms_keep_their_names() -> None:
    terms = RewardTerms(*(random.Random(0).random() for _ in range(6)))
    message = conversions.to_reward_terms(terms)
    for name in ('progress', 'efficiency', 'lane', 'comfort', 'safety', 'total'):
        assert getattr(message, name) == getattr(terms, name)


def test_a_status_becomes_a_line_of_metrics() -> None:
    record = status_record(LearnerStatus(
        updates=7, transitions=20, checkpoint='/run/x',
        metrics=[Metric(name='critic_loss', value=0.5)]))
    assert (record['kind'], record['updates'], record['transitions']) == ('learner', 7, 20)
    assert record['metrics'] == {'critic_loss': 0.5}
    assert record['checkpoint'] == '/run/x' and record['finished'] is False


def test_a_summary_becomes_a_line_of_metrics() -> None:
    message = EpisodeSummary(
        vehicle='car', episode=4, result='off_road', success=False,
        metrics=[Metric(name='return', value=-2.5), Metric(name='steps', value=60.0)])
    message.header.stamp = Time(sec=2)
    record = episode_record(message)
    assert (record['kind'], record['vehicle'], record['episode']) == ('episode', 'car', 4)
    assert (record['result'], record['success'], record['return']) == ('off_road', False, -2.5)
    assert record['steps'] == 60 and isinstance(record['steps'], int)
    assert record['stamp_ns'] == 2_000_000_000
    assert record['min_ttc'] is None  # nothing was ahead
