"""What comes into a node: heard without ever dying of it, counted, refused with a reason."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from av_td3_ros.ros.diagnostics import OK, WARN, Reading
from av_td3_ros.ros.runtime import Throttle, reason, tell_refusal


@dataclasses.dataclass
class _Input:
    """How often something came, and how often it was refused."""

    name: str
    received: int = 0
    refused: Throttle = dataclasses.field(default_factory=Throttle)


class Inputs:
    """
    Let a node listen and answer so that no message ends it, and count what came.

    A callback refuses by raising: ValueError says what is wrong with the message; anything else,
    which nobody foresaw, is told with its type and place. The node goes on with the next message.
    What rclpy itself listens to and serves is guarded too: it raises for a parameter of a type
    that it does not know.
    """

    def __init__(self, node: Node) -> None:
        """Belong to `node`; to be made before it listens to anything."""
        self._node = node
        self._inputs: dict[str, _Input] = {}
        self._before = 0
        self._last = ''
        for one in node.services:
            one.callback = self._answering(one.srv_name, one.callback)
        for one in node.subscriptions:
            one.callback = self.guarded(one.topic_name, one.callback)

    def listen(self, kind: type, role: str, callback: Callable[[Any], None],
               profile: QoSProfile, **options: Any) -> Any:
        """
        Subscribe to a role such as ~/input/image; return the subscription.

        `options` are those of rclpy's create_subscription.
        """
        # By the role: the topic that it is bound to is only known once it is there.
        subscription = self._node.create_subscription(
            kind, role, self.guarded(role, callback), profile, **options)
        self._of(role).name = subscription.topic_name
        return subscription

    def serve(self, kind: Any, role: str, callback: Callable[[Any, Any], Any]) -> Any:
        """Offer a service; return it. A request that is refused gets an empty response."""
        return self._node.create_service(kind, role, self._answering(role, callback))

    def refuse(self, role: str, error: Exception) -> None:
        """Count what is refused, and tell it with the reason at most once a second."""
        what = _short(role)
        self._last = f'{what}: {reason(error)}'
        tell_refusal(self._node, self._of(role).refused, what.replace('_', ' '), error)

    def refused(self, role: str = '') -> int:
        """Return how many messages of a role, or of all of them, were refused."""
        return (self._of(role).refused.count if role else
                sum(one.refused.count for one in self._inputs.values()))

    def tell(self) -> Reading:
        """Say what came and what was refused since the last look, for /diagnostics."""
        new, self._before = self.refused() - self._before, self.refused()
        values = {one.name: f'{one.received} received, {one.refused.count} refused'
                  for one in self._inputs.values() if one.received or one.refused.count}
        if new:
            return Reading(WARN, f'{new} messages refused since the last look; {self._last}',
                           values)
        return Reading(OK, 'nothing refused since the last look', values)

    def _of(self, role: str) -> _Input:
        return self._inputs.setdefault(_short(role), _Input(role))

    def guarded(self, role: str, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback that counts and refuses as those of `listen` do."""
        counts = self._of(role)

        def hear(message: Any) -> None:
            counts.received += 1
            try:
                callback(message)
            except Exception as error:
                self.refuse(role, error)

        return hear

    def _answering(self, role: str, callback: Callable[[Any, Any], Any]
                   ) -> Callable[[Any, Any], Any]:
        counts = self._of(role)

        def answer(request: Any, response: Any) -> Any:
            counts.received += 1
            try:
                return callback(request, response)
            except Exception as error:
                self.refuse(role, error)
                return type(response)()

        return answer


def _short(role: str) -> str:
    return role.rpartition('/')[2]
