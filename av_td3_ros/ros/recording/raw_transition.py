"""A transition read where it lies: a message made of it takes ten times as long."""
from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from av_td3_msgs.msg import Transition
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message

from av_td3_ros.ros.cdr import HEAD, ORDERS, aligned


class RawTransition(NamedTuple):
    """Hold what the learner wants of a transition, by the message's names; arrays are views."""

    vehicle: str
    session: str
    sequence: int
    episode: int
    step: int
    height: int
    width: int
    frame: NDArray[np.uint8]
    state: NDArray[np.float32]
    steer: float
    acceleration: float
    source: int
    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool
    policy_version: int


def read_transition(message: bytes) -> RawTransition:
    """
    Return what a serialized av_td3_msgs/Transition says; its arrays are views of `message`.

    Raises ValueError for what is none.
    """
    order = ORDERS.get(message[:2])
    if order is None:  # another representation than ROS 2 has had so far
        made: Any = deserialize_message(message, Transition)
        return RawTransition(*(
            {'frame': np.frombuffer(made.frame, np.uint8),
             'state': np.asarray(made.state, np.float32)}.get(name, getattr(made, name))
            for name in RawTransition._fields))
    try:
        return _read(memoryview(message)[HEAD:], order)
    except struct.error:
        raise ValueError(f'a transition of {len(message)} bytes is cut off') from None


def _read(body: memoryview, order: str) -> RawTransition:
    length, = struct.unpack_from(f'{order}8xI', body)  # the header's frame, behind its stamp
    at = aligned(12 + length, 4) + 8  # and when it was recorded
    vehicle, at = _text(body, at, order)
    session, at = _text(body, aligned(at, 4), order)
    at = aligned(at, 8)
    sequence, episode, step, height, width, size = struct.unpack_from(f'{order}QIIHHI', body, at)
    at += 24
    frame = _array(body, at, size, np.dtype(np.uint8))
    at = aligned(at + size, 4)
    size, = struct.unpack_from(f'{order}I', body, at)
    at += 4
    state = _array(body, at, size, np.dtype(f'{order}f4'))
    at += 4 * size
    steer, acceleration, source, reward = struct.unpack_from(f'{order}ffBx2xf', body, at)
    at += 16 + 24  # and the terms of the reward
    is_first, is_last, is_terminal, length = struct.unpack_from(f'{order}???xI', body, at)
    at = aligned(at + 8 + length, 8)  # and the reason
    policy_version, = struct.unpack_from(f'{order}Q', body, at)
    return RawTransition(vehicle, session, sequence, episode, step, height, width, frame, state,
                         steer, acceleration, source, reward, is_first, is_last, is_terminal,
                         policy_version)


def _text(body: memoryview, at: int, order: str) -> tuple[str, int]:
    """Return a string, and where it ends."""
    length, = struct.unpack_from(f'{order}I', body, at)
    end = at + 4 + length
    if end > len(body):
        raise struct.error
    return str(body[at + 4:end - 1], 'utf-8'), end


def _array(body: memoryview, at: int, size: int, kind: np.dtype[Any]) -> NDArray[Any]:
    if at + size * kind.itemsize > len(body):
        raise struct.error
    return np.frombuffer(body, kind, size, at)
