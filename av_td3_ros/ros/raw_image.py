"""Image messages as bytes: read where they lie, and written with a single copy of the pixels."""
from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from av_td3_ros.ros.cdr import HEAD, ORDERS, aligned
from av_td3_ros.ros.conversions import to_nanoseconds


class RawImage(NamedTuple):
    """Hold what an image message says; `data` is anything with a buffer."""

    stamp_ns: int
    height: int
    width: int
    encoding: str
    step: int
    data: Any


def read_image(message: bytes) -> RawImage:
    """
    Return what a serialized sensor_msgs/Image says, its pixels as a view of `message`.

    To make a message of it, rclpy would copy them twice. Raises ValueError for what is none.
    """
    order = ORDERS.get(message[:2])
    if order is None:  # another representation than ROS 2 has had so far
        image = deserialize_message(message, Image)
        return RawImage(to_nanoseconds(image.header.stamp), image.height, image.width,
                        image.encoding, image.step, image.data)
    try:
        return _read(memoryview(message)[HEAD:], order)
    except struct.error:
        raise ValueError(f'an image message of {len(message)} bytes is cut off') from None


def write_image(stamp_ns: int, frame: str, image: NDArray[np.uint8], encoding: str) -> bytes:
    """
    Return a serialized sensor_msgs/Image of uint8 (height, width, channels), for `publish`.

    From a message, rclpy would copy the pixels twice more.
    """
    name, kind = (one.encode() + b'\0' for one in (frame, encoding))
    height, width, channels = image.shape
    stamp = struct.pack('<iII', *divmod(stamp_ns, 1_000_000_000), len(name))
    size = struct.pack('<III', height, width, len(kind))
    rows = struct.pack('<II', width * channels, image.size)
    return b''.join((b'\0\1\0\0', stamp, _padded(name), size,
                     _padded(kind + b'\0'),  # not big-endian
                     rows, np.ascontiguousarray(image).data))


def _padded(text: bytes) -> bytes:
    return text.ljust(aligned(len(text)), b'\0')


def _read(body: memoryview, order: str) -> RawImage:
    seconds, nanoseconds, length = struct.unpack_from(f'{order}iII', body)
    at = aligned(12 + length)  # behind the frame's name
    height, width, length = struct.unpack_from(f'{order}III', body, at)
    at += 12
    encoding = bytes(body[at:at + length]).rstrip(b'\0').decode('utf-8', 'replace')
    at = aligned(at + length + 1)  # behind the byte that says whether pixels are big-endian
    step, size = struct.unpack_from(f'{order}II', body, at)
    at += 8
    if at + size > len(body):
        raise struct.error
    return RawImage(to_nanoseconds(Time(sec=seconds, nanosec=nanoseconds)), height, width,
                    encoding, step, body[at:at + size])
