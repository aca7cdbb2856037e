"""Messages to plain values and back."""
from __future__ import annotations

import array
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from av_td3_msgs.msg import ActorWeights as ActorWeightsMessage
from av_td3_msgs.msg import EpisodeSummary, Metric, RewardTerms
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import Quaternion
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from av_td3_ros.driving.camera.calibration import Calibration, Region
from av_td3_ros.driving.episode.metrics import EpisodeMetrics
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.td3.weights import ActorWeights

FARTHEST = 1e6  # m from the map's origin
NOT_ONE = 0.05  # by which the length of an orientation may differ from 1


def to_nanoseconds(stamp: Time) -> int:
    """Return a stamp as integer nanoseconds; raise ValueError when it is none."""
    if stamp.nanosec >= 1_000_000_000:
        raise ValueError(f'stamp {stamp.sec} s and {stamp.nanosec} ns is none: a second has fewer '
                         'ns')
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def to_stamp(nanoseconds: int) -> Time:
    """Return integer nanoseconds as a stamp."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def to_quaternion(yaw: float) -> Quaternion:
    """Return the rotation about z by `yaw` rad."""
    return Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2))


def to_yaw(rotation: Quaternion) -> float:
    """
    Return the heading of a rotation in rad, counter-clockwise from x.

    Raises ValueError when it is no rotation: its length must be 1.
    """
    x, y, z, w = rotation.x, rotation.y, rotation.z, rotation.w
    size = math.hypot(x, y, z, w)
    if not abs(size - 1.0) <= NOT_ONE:
        raise ValueError(f'orientation has the length {size:.3f} instead of 1: is it set at all?')
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def to_pose_message(pose: Pose, height: float = 0.0) -> PoseMessage:
    """Return a planar pose, at a height in m, as a message."""
    message = PoseMessage(orientation=to_quaternion(pose.yaw))
    message.position.x, message.position.y = float(pose.x), float(pose.y)
    message.position.z = float(height)
    return message


def from_pose_message(message: PoseMessage) -> Pose:
    """Return the planar part of a pose message; raise ValueError when it is no place on a map."""
    pose = Pose(message.position.x, message.position.y, to_yaw(message.orientation))
    if not (abs(pose.x) <= FARTHEST and abs(pose.y) <= FARTHEST and math.isfinite(pose.yaw)):
        raise ValueError(f'pose {pose.x}, {pose.y}, {pose.yaw} is not finite or farther than '
                         f'{FARTHEST:g} m from the origin')
    return pose


def from_camera_info(message: CameraInfo, rectified: bool = False) -> Calibration:
    """Return a camera's calibration; `rectified` as there. Raises ValueError for none."""
    roi = message.roi
    return Calibration(
        message.width, message.height, tuple(message.k.tolist()), tuple(message.d),
        message.distortion_model, tuple(message.r.tolist()), tuple(message.p.tolist()),
        # 0 is what the message begins with and means 1.
        (max(message.binning_x, 1), max(message.binning_y, 1)),
        Region(roi.x_offset, roi.y_offset, roi.width, roi.height), rectified)


def to_odometry(vehicle: VehicleState, frame: str, child_frame: str) -> Odometry:
    """Return where a vehicle is and how it moves as a message with its stamp."""
    message = Odometry(child_frame_id=child_frame)
    message.header.frame_id, message.header.stamp = frame, to_stamp(vehicle.stamp_ns)
    message.pose.pose = to_pose_message(Pose(vehicle.x, vehicle.y, vehicle.yaw))
    message.twist.twist.linear.x = vehicle.speed
    message.twist.twist.linear.y = vehicle.lateral_speed
    message.twist.twist.angular.z = vehicle.yaw_rate
    return message


def from_odometry(message: Odometry) -> VehicleState:
    """
    Return an odometry message (twist in the body frame) as the vehicle's state.

    Raises ValueError when a number is not finite or the orientation is none.
    """
    position, twist = message.pose.pose.position, message.twist.twist
    return VehicleState(to_nanoseconds(message.header.stamp), position.x, position.y,
                        to_yaw(message.pose.pose.orientation),
                        twist.linear.x, twist.linear.y, twist.angular.z)


def to_bytes(values: NDArray[np.uint8] | bytes | bytearray) -> array.array[int]:
    """
    Return bytes as rclpy takes them into a uint8[] field without looking at each one.

    Any other sequence is checked element by element in Python: milliseconds for an image.
    """
    filled = array.array('B')
    filled.frombytes(memoryview(values).cast('B') if isinstance(values, np.ndarray)
                     and values.flags.c_contiguous else bytes(values))
    return filled


def to_floats(values: NDArray[np.float32]) -> array.array[float]:
    """Return float32 numbers as rclpy takes them into a float32[] field at once."""
    filled = array.array('f')
    filled.frombytes(np.ascontiguousarray(values, np.float32).tobytes())
    return filled


def to_actor_weights(weights: ActorWeights) -> ActorWeightsMessage:
    """Return an actor's weights as a message."""
    return ActorWeightsMessage(
        stamp=to_stamp(weights.stamp), version=weights.version, session=weights.session,
        session_started=to_stamp(weights.session_started), architecture=weights.architecture,
        weights=to_bytes(weights.data), sha256=to_bytes(bytes.fromhex(weights.sha256)),
        key=weights.key, signature=to_bytes(weights.signature))


def from_actor_weights(message: ActorWeightsMessage) -> ActorWeights:
    """Return what a message says to be an actor's weights; nothing of it is verified."""
    return ActorWeights(
        message.version, message.architecture, bytes(message.weights),
        bytes(message.sha256).hex(), message.session, to_nanoseconds(message.session_started),
        to_nanoseconds(message.stamp), message.key, bytes(message.signature))


def to_metrics(values: Mapping[str, Any]) -> list[Metric]:
    """Return named numbers as a message field; what is no number is left out."""
    return [Metric(name=name, value=float(value)) for name, value in values.items()
            if isinstance(value, (int, float))]


def from_metrics(metrics: Iterable[Metric]) -> dict[str, float]:
    """Return a message's metrics as {name: value}."""
    return {one.name: one.value for one in metrics}


def to_reward_terms(terms: Any) -> RewardTerms:
    """Return reward terms as a message."""
    return RewardTerms(**{name: float(getattr(terms, name)) for name in
                          ('progress', 'efficiency', 'lane', 'comfort', 'safety', 'total')})


def to_episode_summary(metrics: EpisodeMetrics, result: str, vehicle: str, index: int,
                       stamp_ns: int, counts: Mapping[str, int]) -> EpisodeSummary:
    """Return an episode's metrics, and the counts that belong to them, as a message."""
    message = EpisodeSummary(
        vehicle=vehicle, episode=index, result=result, success=metrics.success,
        episode_return=metrics.total_reward, steps=metrics.steps, duration=metrics.duration,
        route_length=metrics.route_length, route_completion=metrics.route_completion,
        distance=metrics.distance, metrics=to_metrics({**metrics.to_dict(), **counts}))
    message.header.stamp = to_stamp(stamp_ns)
    return message
