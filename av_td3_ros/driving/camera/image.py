"""From a camera's bytes to the small grey frame that the policy sees."""
from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]

CHANNELS = {'bgra8': 4, 'rgba8': 4, 'bgr8': 3, 'rgb8': 3, 'mono8': 1}
TO_GREY = {'bgra8': cv2.COLOR_BGRA2GRAY, 'rgba8': cv2.COLOR_RGBA2GRAY,
           'bgr8': cv2.COLOR_BGR2GRAY, 'rgb8': cv2.COLOR_RGB2GRAY}

LONGEST_SIDE = 32766   # pixels, which OpenCV can still interpolate between
MOST_PIXELS = 1 << 26  # of a compressed image: a few hundred bytes may say that they are billions
# Of multiplications in a product: OpenBLAS shares larger ones among threads, and on a computer
# that is busy waits for those longer than it would take alone.
ONE_THREAD = 1 << 17
RUN = 7  # pixels of a frame's row that are worked out in one product
HEAD = 1 << 18  # bytes in which a compressed image says how large it is, its comments included
_ALONE = frozenset((0x01, *range(0xd0, 0xd9)))
_FRAMES = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}


class ImageError(ValueError):
    """An image that cannot be read as what it says it is."""


def decode_image(data: Any, height: int, width: int, encoding: str, step: int = 0) -> Frame:
    """
    View a raw image's bytes as uint8 (height, width, channels), without copying them.

    `data` is anything with a buffer (bytes, memoryview, array.array, numpy array); `step` is the
    length of a row in bytes with its padding, 0 for rows without any. mono8 has one channel.
    Raises ImageError for an unknown encoding and for sizes that do not fit the data.
    """
    channels = CHANNELS.get(encoding)
    if channels is None:
        raise ImageError(f'image encoding {encoding!r} is not supported; '
                         f'publish one of {", ".join(CHANNELS)}')
    if height < 1 or width < 1:
        raise ImageError(f'{encoding} image of {width}x{height} has no pixels')
    row = width * channels
    step = step or row
    if step < row:
        raise ImageError(f'{encoding} image of {width}x{height}: rows of {step} bytes are shorter '
                         f'than {width} pixels of {channels} bytes')
    if max(height, width) > LONGEST_SIDE:
        raise ImageError(f'{encoding} image of {width}x{height}: a side has at most '
                         f'{LONGEST_SIDE} pixels')
    flat = _as_bytes(data)
    # Some drivers leave out the padding of the last row.
    needed = step * (height - 1) + row
    if flat.size < needed:
        raise ImageError(f'{encoding} image of {width}x{height} with rows of {step} bytes needs '
                         f'{needed} bytes, got {flat.size}')
    return np.ndarray((height, width, channels), np.uint8, flat, 0, (step, channels, 1))


def decode_compressed(data: Any) -> Frame:
    """
    Decode a JPEG or PNG file's bytes to uint8 (H, W, 3) bgr8.

    Raises ImageError when they are not such a file.
    """
    flat = _as_bytes(data)
    width, height = _claimed_size(flat)
    if width * height > MOST_PIXELS:
        raise ImageError(f'compressed image of {flat.size} bytes says that it is {width}x{height}'
                         f': at most {MOST_PIXELS} pixels are decoded')
    try:
        image = cv2.imdecode(flat, cv2.IMREAD_COLOR) if width and height else None
    except cv2.error as error:
        raise ImageError(f'compressed image cannot be decoded: {error}') from error
    if image is None:
        raise ImageError(f'compressed image of {flat.size} bytes beginning with '
                         f'{flat[:4].tobytes()!r} is neither JPEG nor PNG, or is cut off')
    return image.view(np.uint8)


def to_observation_frame(image: Frame, encoding: str, size: int = 84) -> Frame:
    """
    Return the image as a grey frame, uint8 (size, size), by area interpolation.

    Takes and raises what `to_grey` does.
    """
    # Grey before small: one channel to interpolate instead of four.
    grey = to_grey(image, encoding)
    shrink = _shrinking(*grey.shape, size)
    if shrink is None:
        return cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA).view(np.uint8)
    return shrink(grey)


class _Shrinking:
    """
    Mean of the area behind each pixel, as OpenCV's INTER_AREA, in a sixth of its time.

    A pixel's weight is a product of whole numbers, so that the sums are exact in float32 and the
    same on every processor. Rows and columns repeat their weights after a few pixels: 7 rows of 84
    lie on 20 of 240.
    """

    def __init__(self, height: int, width: int, size: int) -> None:
        rows, columns = _weights(height, size), _weights(width, size)
        self._size, self._width = size, width
        self._row_groups, self._column_groups = height // rows.shape[1], width // columns.shape[1]
        self._rows, self._columns = rows, len(columns)
        self._whole = np.float32(rows.shape[1] * columns.shape[1])
        self.is_exact = 255 * rows.shape[1] * columns.shape[1] < 1 << 24
        self._across = max(1, ONE_THREAD // rows.size)  # columns of the image in one product
        # A few pixels at once: the other columns of the image have no weight for them.
        self._runs = []
        for first in range(0, len(columns), RUN):
            behind = np.flatnonzero(columns[first:first + RUN].any(axis=0))
            sources = slice(int(behind[0]), int(behind[-1]) + 1)
            self._runs.append((slice(first, first + RUN), sources,
                               np.ascontiguousarray(columns[first:first + RUN, sources].T)))
        self._down = max(1, ONE_THREAD // (self._column_groups * max(
            weights.size for _, _, weights in self._runs)))

    def __call__(self, grey: Frame) -> Frame:
        """Return a grey image, uint8 (height, width), as uint8 (size, size)."""
        groups = grey.astype(np.float32).reshape(self._row_groups, -1, self._width)
        lower = np.empty((self._row_groups, len(self._rows), self._width), np.float32)
        for first in range(0, self._width, self._across):
            part = slice(first, first + self._across)
            np.matmul(self._rows, groups[..., part], out=lower[..., part])
        lines = lower.reshape(self._size, self._column_groups, -1)
        sums = np.empty((self._size, self._column_groups, self._columns), np.float32)
        for first in range(0, self._size, self._down):
            part = slice(first, first + self._down)
            count = len(lines[part]) * self._column_groups
            source, out = lines[part].reshape(count, -1), sums[part].reshape(count, -1)
            for pixels, sources, weights in self._runs:
                np.matmul(source[:, sources], weights, out=out[:, pixels])
        small: Frame = np.rint(sums.reshape(self._size, self._size) / self._whole).astype(np.uint8)
        return small


@functools.lru_cache(maxsize=16)
def _shrinking(height: int, width: int, size: int) -> _Shrinking | None:
    """Return what makes such images small; None where OpenCV must, which can any size."""
    if min(height, width) < size:
        return None
    made = _Shrinking(height, width, size)
    return made if made.is_exact else None


def _weights(length: int, size: int) -> npt.NDArray[np.float32]:
    """
    Return how much of `length` source pixels lies behind each of `size`, until that repeats.

    The result (b, a) stands for b pixels of a, size / length in lowest terms; a row sums up to a.
    """
    common = math.gcd(length, size)
    sources, pixels = length // common, size // common
    begin = np.arange(pixels)[:, None] * sources  # in units of 1 / pixels of a source pixel
    first = np.arange(sources)[None] * pixels
    shared = np.minimum(begin + sources, first + pixels) - np.maximum(begin, first)
    weights: npt.NDArray[np.float32] = np.maximum(shared, 0).astype(np.float32)
    return weights


def to_grey(image: Frame, encoding: str) -> Frame:
    """
    Return the image in grey, uint8 (H, W).

    `image` is (H, W, channels) as `decode_image` returns it; (H, W) will do for mono8. Raises
    ImageError when its shape does not fit the encoding.
    """
    channels = CHANNELS.get(encoding)
    if channels is None:
        raise ImageError(f'image encoding {encoding!r} is not supported; '
                         f'use one of {", ".join(CHANNELS)}')
    if (image.shape[2] if image.ndim == 3 else 1) != channels or image.ndim not in (2, 3):
        raise ImageError(f'an image of shape {_shape_text(image.shape)} is not {encoding}, which '
                         f'has {channels} channels')
    grey = image if channels == 1 else cv2.cvtColor(image, TO_GREY[encoding])
    return grey.reshape(grey.shape[:2]).view(np.uint8)


def _claimed_size(flat: Frame) -> tuple[int, int]:
    """Return width and height in the head of a JPEG or PNG, (0, 0) where there are none."""
    data = flat[:HEAD].tobytes()
    if data[:8] == b'\x89PNG\r\n\x1a\n' and data[12:16] == b'IHDR':
        return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
    at = 2 if data[:2] == b'\xff\xd8' else len(data)
    while at + 9 <= len(data) and data[at] == 0xff:
        marker = data[at + 1]
        if marker == 0xff or marker in _ALONE:  # a byte of filling, a segment of its marker alone
            at += 1 if marker == 0xff else 2
            continue
        if marker in _FRAMES:
            return (int.from_bytes(data[at + 7:at + 9], 'big'),
                    int.from_bytes(data[at + 5:at + 7], 'big'))
        at += 2 + int.from_bytes(data[at + 2:at + 4], 'big')
    return 0, 0


def _as_bytes(data: Any) -> Frame:
    """Return any contiguous buffer as a flat uint8 array that shares its memory."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _shape_text(shape: Sequence[int]) -> str:
    return 'x'.join(str(side) for side in shape)
