"""A transition read out of its bytes is the one that the message says."""
from __future__ import annotations

import struct

import numpy as np
import pytest
from av_td3_msgs.msg import RewardTerms, Transition
from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from av_td3_ros.ros.conversions import to_bytes, to_floats
from av_td3_ros.ros.recording.raw_transition import RawTransition, read_transition


def message(name: str = 'car', pixels: int = 12, numbers: int = 5) -> Transition:
    """Return a small transition, of whose fields no two say the same."""
    return Transition(
        header=Header(stamp=Time(sec=-7, nanosec=5), frame_id=name), recorded=Time(sec=3),
        vehicle=name, session=f'{name}.1.péché', sequence=2**40 + 1, episode=7, step=9, height=3,
        width=4, frame=to_bytes(np.arange(pixels, dtype=np.uint8)),
        state=to_floats(np.arange(numbers) / 3), steer=-0.25, acceleration=0.75, source=3,
        exploring=True, reward=-1.5, terms=RewardTerms(progress=11.0, total=12.0), is_first=True,
        is_last=False, is_terminal=True, reason=f'{name} off the road', policy_version=2**33 + 5)


def said(one: Transition | RawTransition) -> list[object]:
    """Return all that `read_transition` tells, as plain values."""
    return [list(value) if name in ('frame', 'state') else value
            for name in RawTransition._fields for value in (getattr(one, name),)]


@pytest.mark.parametrize(('pixels', 'numbers'), [(12, 5), (0, 0), (7, 1), (9, 2)])
def test_it_says_what_the_message_says(pixels: int, numbers: int) -> None:
    for length in range(10):
        one = message('x' * length, pixels, numbers)
        assert said(read_transition(serialize_message(one))) == said(one)


def test_its_frame_is_not_copied() -> None:
    data = serialize_message(message())
    assert np.shares_memory(read_transition(data).frame, np.frombuffer(data, np.uint8))


def test_an_empty_message_is_read() -> None:
    assert said(read_transition(serialize_message(Transition()))) == said(Transition())


def test_the_other_order_of_bytes_is_read() -> None:
    body = (struct.pack('>iII', 3, 4, 1) + b'\0\0\0\0' + struct.pack('>iII', 5, 6, 4)
            + b'car\0' + struct.pack('>I', 2) + b's\0\0\0'
            + struct.pack('>QIIHHI', 2**40, 7, 9, 1, 2, 2) + b'\1\2\0\0'
            + struct.pack('>Iff', 1, 0.5, -0.25) + struct.pack('>fBBxxf6f', 0.75, 3, 1, -1.5, *[
                0.0] * 6) + struct.pack('>???xI', True, False, True, 1) + b'\0')
    body += bytes(-len(body) % 8) + struct.pack('>Q', 5)
    assert said(read_transition(b'\0\0\0\0' + body)) == [
        'car', 's', 2**40, 7, 9, 1, 2, [1, 2], [0.5], -0.25, 0.75, 3, -1.5, True, False, True, 5]


def test_what_is_cut_off_is_refused() -> None:
    whole = serialize_message(message())
    padding = 3  # that may stand at the end
    for length in range(4, len(whole) - padding):
        with pytest.raises(ValueError, match='cut off'):
            read_transition(whole[:length])


def test_a_name_that_is_no_text_is_refused() -> None:
    data = serialize_message(message('car'))
    with pytest.raises(ValueError, match='utf-8'):
        read_transition(data.replace(b'car.1', b'\xff\xffr.1'))
