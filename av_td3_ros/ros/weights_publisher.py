"""The learner's end of the weights' way: packed, signed, and not sent too often."""
from __future__ import annotations

import time
from typing import Any

from av_td3_msgs.msg import ActorWeights as ActorWeightsMessage

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_actor_weights
from av_td3_ros.td3.networks import Actor
from av_td3_ros.td3.weights import pack
from av_td3_ros.trust.signing import begin_session


class WeightsPublisher:
    """
    Publish an actor's weights, latched, so that who comes late has the newest at once.

    `size` is that of the latest in bytes, `took` the wall time in s for packing and signing them.
    """

    def __init__(self, node: Any, key: str, precision: str, period: float) -> None:
        """`period` is the least wall time in s between two publications."""
        self._node, self._precision, self._period = node, precision, period
        self._signer, words = begin_session(key)
        if words:
            node.get_logger().warning(words)
        self._publisher = node.create_publisher(
            ActorWeightsMessage, '~/output/actor_weights', qos.LATCHED)
        self._sent_at = -float('inf')
        self.size, self.took = 0, 0.0

    @property
    def is_time(self) -> bool:
        """Return whether the period since the latest ones is over."""
        return time.monotonic() - self._sent_at >= self._period

    def publish(self, actor: Actor, version: int) -> None:
        """Send an actor as this version, whatever the period."""
        started = time.perf_counter()
        message = to_actor_weights(self._signer.seal(
            pack(actor, version, self._precision), self._node.get_clock().now().nanoseconds))
        first, self.took = not self.size, time.perf_counter() - started
        self.size, self._sent_at = len(message.weights), time.monotonic()
        self._publisher.publish(message)
        logger = self._node.get_logger()
        (logger.info if first else logger.debug)(
            f'weights {version} sent: {self.size / 1e3:.0f} kB in {self._precision}, packed and '
            f'signed in {1e3 * self.took:.1f} ms')
