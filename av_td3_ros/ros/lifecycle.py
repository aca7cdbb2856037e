"""What managed nodes share: transitions that say why they fail, and a start of their own."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rclpy.lifecycle import TransitionCallbackReturn


class Managed(Protocol):
    """A lifecycle node that keeps why its last transition was refused."""

    refusal: Exception | None

    def get_logger(self): ...
    def trigger_configure(self) -> TransitionCallbackReturn: ...
    def trigger_activate(self) -> TransitionCallbackReturn: ...


def attempt(node: Managed, work: Callable[[], None]) -> TransitionCallbackReturn:
    """Do the work of a transition; what a user can mend is told, and the transition refused."""
    node.refusal = None
    try:
        work()
    except (ValueError, OSError, RuntimeError) as error:
        node.refusal = error
        node.get_logger().error(str(error))
        return TransitionCallbackReturn.FAILURE
    return TransitionCallbackReturn.SUCCESS


def start(node: Managed) -> None:
    """Configure and activate a node that manages itself; raise what either was refused for."""
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() != TransitionCallbackReturn.SUCCESS:
            raise node.refusal or RuntimeError('the node could not be started: see its log')
