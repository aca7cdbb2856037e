"""What the command line hears of a running session."""
from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from av_td3_msgs.msg import AppliedAction, EpisodeSummary, LearnerStatus, Observation
from carla_msgs.msg import CarlaCollisionEvent, CarlaLaneInvasionEvent
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image

from av_td3_ros.driving.camera.image import decode_image
from av_td3_ros.driving.perception.state import LATERAL_SCALE
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_nanoseconds
from av_td3_ros.ros.recording.records import episode_record, status_record
from av_td3_ros.ros.runtime import leave, make_executor, spin
from av_td3_ros.ros.security_plugins import require_plugins


class Monitor:
    """Subscribe to a session's topics from a thread of its own; a context manager."""

    def __init__(self, name: str, domain: int) -> None:
        """Raise RuntimeError where SROS2 is asked for and is not to be had."""
        require_plugins(os.environ)
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = make_executor(self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(
            target=spin, args=(self._executor, self._context), name='monitor', daemon=True)

    def on_status(self, topic: str, callback: Callable[[dict[str, Any]], None]) -> None:
        """Hear of the learner, as the record that metrics.jsonl holds."""
        self.node.create_subscription(
            LearnerStatus, topic, lambda message: callback(status_record(message)), qos.STATUS)

    def on_episode(self, topic: str, callback: Callable[[dict[str, Any]], None]) -> None:
        """Hear of each episode's end, as the record that metrics.jsonl holds."""
        self.node.create_subscription(
            EpisodeSummary, topic, lambda message: callback(episode_record(message)), qos.EVENT)

    def on_diagnostics(self, topic: str, name: str, callback: Callable[[int, str], None]) -> None:
        """Hear level and words of one check, by its full name, whenever its node tells it."""
        def hear(message: DiagnosticArray) -> None:
            for status in message.status:
                if status.name == name:
                    callback(status.level[0], status.message)

        self.node.create_subscription(DiagnosticArray, topic, hear, qos.EVENT)

    def on_odometry(self, topic: str,
                    callback: Callable[[int, float, float, float], None]) -> None:
        """Hear stamp (ns), x, y (m) and speed (m/s) of the vehicle."""
        def hear(message: Odometry) -> None:
            position = message.pose.pose.position
            callback(to_nanoseconds(message.header.stamp), position.x, position.y,
                     message.twist.twist.linear.x)

        self.node.create_subscription(Odometry, topic, hear, qos.EVENT)

    def on_observation(self, topic: str, callback: Callable[[int, float], None],
                       after: Callable[[], bool]) -> None:
        """
        Hear stamp (ns) and lateral error (m) of each observation.

        It is subscribed to once `after` is true: who waits for subscribers before an episode then
        waits until whatever that asks for is heard as well.
        """
        def hear(message: Observation) -> None:
            callback(to_nanoseconds(message.header.stamp),
                     float(message.state[1]) * LATERAL_SCALE)

        def subscribe() -> None:
            if after():
                timer.cancel()
                self.node.create_subscription(Observation, topic, hear, qos.EVENT)

        timer = self.node.create_timer(0.05, subscribe)

    def on_collision(self, topic: str, callback: Callable[[int, float], None]) -> None:
        """Hear stamp (ns) and impulse (N s) of each collision."""
        def hear(message: CarlaCollisionEvent) -> None:
            impulse = message.normal_impulse
            callback(to_nanoseconds(message.header.stamp),
                     math.sqrt(impulse.x**2 + impulse.y**2 + impulse.z**2))

        self.node.create_subscription(CarlaCollisionEvent, topic, hear, qos.EVENT)

    def on_lane_invasion(self, topic: str, callback: Callable[[int, int], None]) -> None:
        """Hear stamp (ns) and number of the lines that were crossed at a time."""
        self.node.create_subscription(
            CarlaLaneInvasionEvent, topic, lambda message: callback(
                to_nanoseconds(message.header.stamp), len(message.crossed_lane_markings)),
            qos.EVENT)

    def on_applied(self, topic: str, callback: Callable[[float, float], None]) -> None:
        """Hear steer and acceleration of each applied action, both in [-1, 1]."""
        self.node.create_subscription(
            AppliedAction, topic, lambda message: callback(message.steer, message.acceleration),
            qos.EVENT)

    def on_image(self, topic: str, callback: Callable[[np.ndarray], None]) -> None:
        """See the camera's raw images, uint8 (H, W, channels)."""
        def see(message: Image) -> None:
            callback(decode_image(message.data, message.height, message.width,
                                  message.encoding, message.step))

        self.node.create_subscription(Image, topic, see, qos.EVENT)

    def __enter__(self) -> Monitor:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Leave the graph."""
        self._context.try_shutdown()
        self._thread.join(timeout=2.0)
        leave(self._executor, self.node)
