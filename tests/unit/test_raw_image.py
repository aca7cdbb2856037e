"""An image read out of its bytes is the one that the message says."""
from __future__ import annotations

import struct

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from av_td3_ros.ros.conversions import to_bytes, to_nanoseconds
from av_td3_ros.ros.raw_image import RawImage, read_image, write_image

PIXELS = np.arange(6 * 20, dtype=np.uint8)


def message(frame: str = 'camera', encoding: str = 'bgra8') -> Image:
    """Return a small image."""
    return Image(header=Header(stamp=Time(sec=-7, nanosec=5), frame_id=frame), height=6, width=5,
                 encoding=encoding, is_bigendian=1, step=20, data=to_bytes(PIXELS))


def said(image: Image) -> tuple[int, int, int, str, int, bytes]:
    """Return what a message says, as `read_image` tells it."""
    return (to_nanoseconds(image.header.stamp), image.height, image.width, image.encoding,
            image.step, bytes(image.data))


def compared(image: RawImage) -> tuple[int, int, int, str, int, bytes]:
    """Return an image that was read as `said` tells it."""
    return (*image[:-1], bytes(image.data))


@pytest.mark.parametrize('encoding', ['', 'rgb8', 'bgra8', 'mono16', 'péché'])
def test_it_says_what_the_message_says(encoding: str) -> None:
    for length in range(10):
        image = message('x' * length, encoding)
        assert compared(read_image(serialize_message(image))) == said(image)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgra8', 'mono16', 'péché'])
def test_what_is_written_is_the_message(encoding: str) -> None:
    for length in range(10):
        image = message('x' * length, encoding)
        image.is_bigendian = 0
        written = write_image(to_nanoseconds(image.header.stamp), image.header.frame_id,
                              PIXELS.reshape(6, 5, 4), encoding)
        assert deserialize_message(written, Image) == image
        assert len(written) == len(serialize_message(image))


def test_pixels_are_not_copied() -> None:
    data = serialize_message(message())
    pixels = np.frombuffer(read_image(data).data, np.uint8)
    assert np.shares_memory(pixels, np.frombuffer(data, np.uint8))


def test_an_image_without_pixels_is_read() -> None:
    assert compared(read_image(serialize_message(Image()))) == (0, 0, 0, '', 0, b'')


def test_the_other_order_of_bytes_is_read() -> None:
    body = (struct.pack('>iII', 3, 4, 7) + b'camera\0\0' + struct.pack('>III', 6, 5, 6)
            + b'bgra8\0\1\0' + struct.pack('>II', 20, PIXELS.size) + PIXELS.tobytes())
    expected = (3_000_000_004, 6, 5, 'bgra8', 20, PIXELS.tobytes())
    assert compared(read_image(b'\0\0\0\0' + body)) == expected


def test_what_is_cut_off_is_refused() -> None:
    whole = serialize_message(message())
    padding = 3  # that may stand at the end
    for length in range(4, len(whole) - padding):
        with pytest.raises(ValueError, match='cut off'):
            read_image(whole[:length])


def test_a_stamp_that_is_none_is_refused() -> None:
    image = message()
    image.header.stamp.nanosec = 1_000_000_000
    with pytest.raises(ValueError, match='stamp'):
        read_image(serialize_message(image))
