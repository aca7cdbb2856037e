"""What every node tells of its health once a second, as diagnostic_msgs on /diagnostics."""
from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from av_td3_ros.ros import qos
from av_td3_ros.ros.runtime import every

OK, WARN, ERROR, STALE = 0, 1, 2, 3
PERIOD = 1.0  # s of wall time between two messages


class Reading(NamedTuple):
    """What one check says: a level, words that a driver understands, and the figures."""

    level: int
    message: str
    values: Mapping[str, object] = {}


class Diagnostics:
    """Ask a node's checks once a second and publish what they say."""

    def __init__(self, node: Node, vehicle: str = '') -> None:
        """Publish for `node`; `vehicle`, or else its namespace, is the hardware id."""
        self._node, self._vehicle = node, vehicle or node.get_namespace().strip('/')
        self._checks: dict[str, Callable[[], Reading]] = {}
        self._publisher = node.create_publisher(
            DiagnosticArray, '~/output/diagnostics', qos.EVENT)
        every(node, PERIOD, self.publish)

    def add(self, name: str, check: Callable[[], Reading]) -> None:
        """Add a check under a name of its own."""
        self._checks[name] = check

    def publish(self) -> None:
        """Ask every check now and publish."""
        place = self._node.get_fully_qualified_name().strip('/')
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for name, check in self._checks.items():
            try:
                reading = check()
            except Exception as error:  # what is asked must never end what it asks about
                reading = Reading(ERROR, f'cannot be told: {error!r}')
            message.status.append(DiagnosticStatus(
                level=bytes([reading.level]), name=f'{place}: {name}', message=reading.message,
                hardware_id=self._vehicle,
                values=[KeyValue(key=key, value=_text(value))
                        for key, value in reading.values.items()]))
        self._publisher.publish(message)


class Meter:
    """Count what happens: how often a second, how long ago, and a figure of each."""

    def __init__(self, window: float = 5.0) -> None:
        """Look back `window` s of wall time."""
        self._window = window
        self._times: collections.deque[tuple[float, float]] = collections.deque()
        self.count = 0

    def note(self, figure: float = 0.0) -> None:
        """Count one, with a figure of its own such as an age or a duration."""
        now = time.monotonic()
        self.count += 1
        self._times.append((now, figure))
        self._forget(now)

    @property
    def rate(self) -> float:
        """Return how often a second it happened within the window."""
        now = time.monotonic()
        self._forget(now)
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(now - self._times[0][0], 1e-9)

    @property
    def age(self) -> float | None:
        """Return how many s ago it happened last, None when it never did within the window."""
        self._forget(time.monotonic())
        return time.monotonic() - self._times[-1][0] if self._times else None

    @property
    def largest(self) -> float:
        """Return the largest figure within the window, 0 without one."""
        self._forget(time.monotonic())
        return max((figure for _, figure in self._times), default=0.0)

    def _forget(self, now: float) -> None:
        while self._times and now - self._times[0][0] > self._window:
            self._times.popleft()


def stream(what: str, meter: Meter, silence: float, remedy: str) -> Reading:
    """Return how a stream of messages fares that must not be silent for `silence` s."""
    age = meter.age
    values = {'rate [1/s]': meter.rate, 'count': meter.count}
    if age is None or age > silence:
        since = 'none so far' if not meter.count else f'none for {silence:g} s or more'
        return Reading(ERROR, f'{what}: {since}; {remedy}', values)
    return Reading(OK, f'{what}: {meter.rate:.1f} a second', values)


def _text(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
