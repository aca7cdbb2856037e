"""From camera bytes to the policy's frame: encodings, padding, compression, and bad images."""
from __future__ import annotations

import array
import time

import cv2
import numpy as np
import pytest

from av_td3_ros.driving.camera.image import (
    ImageError,
    decode_compressed,
    decode_image,
    to_observation_frame,
)

RGB = np.random.default_rng(1).integers(0, 256, size=(40, 60, 3), dtype=np.uint8)
GREY = np.rint(RGB @ (0.299, 0.587, 0.114)).astype(np.uint8)
ALPHA = np.full((40, 60, 1), 255, np.uint8)
IMAGES = {
    'rgb8': RGB, 'bgr8': RGB[..., ::-1], 'rgba8': np.concatenate([RGB, ALPHA], axis=2),
    'bgra8': np.concatenate([RGB[..., ::-1], ALPHA], axis=2), 'mono8': GREY[..., None]}


@pytest.mark.parametrize('encoding', IMAGES)
def test_raw_bytes_become_pixels(encoding: str) -> None:
    pixels = IMAGES[encoding]
    image = decode_image(pixels.tobytes(), 40, 60, encoding, 60 * pixels.shape[2])
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize('encoding', IMAGES)
@pytest.mark.parametrize('last_row_padded', [True, False])
def test_padding_of_rows_is_skipped(encoding: str, last_row_padded: bool) -> None:
    pixels = IMAGES[encoding]
    row = 60 * pixels.shape[2]
    padded = np.full((40, row + 13), 77, np.uint8)
    padded[:, :row] = pixels.reshape(40, row)
    data = padded.tobytes() if last_row_padded else padded.tobytes()[:-13]
    image = decode_image(data, 40, 60, encoding, row + 13)
    np.testing.assert_array_equal(image, pixels)
    np.testing.assert_array_equal(to_observation_frame(image, encoding),
                                  to_observation_frame(np.ascontiguousarray(pixels), encoding))


@pytest.mark.parametrize('kind', [
    bytearray, memoryview, lambda data: array.array('B', data),
    lambda data: np.frombuffer(data, np.uint8), lambda data: np.frombuffer(data, np.int8)])
def test_any_buffer_is_viewed_without_a_copy(kind: type) -> None:
    data = kind(bytearray(IMAGES['bgr8'].tobytes()))
    image = decode_image(data, 40, 60, 'bgr8')
    np.testing.assert_array_equal(image, IMAGES['bgr8'])
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize('encoding', IMAGES)
def test_every_encoding_gives_the_same_grey(encoding: str) -> None:
    frame = to_observation_frame(np.ascontiguousarray(IMAGES[encoding]), encoding)
    expected = cv2.resize(GREY, (84, 84), interpolation=cv2.INTER_AREA)
    assert frame.shape == (84, 84)
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - expected).max() <= 1


def test_frame_is_the_mean_over_the_area_of_each_pixel() -> None:
    blocks = np.zeros((168, 252), np.uint8)
    blocks[:2, :3] = [[10, 20, 30], [40, 50, 60]]
    blocks[2:4, 3:6] = 90
    frame = to_observation_frame(blocks[..., None], 'mono8')
    assert frame[0, 0] == 35
    assert frame[1, 1] == 90
    assert frame.sum() == 125


def test_mono_images_may_come_without_a_channel_axis() -> None:
    np.testing.assert_array_equal(to_observation_frame(GREY, 'mono8'),
                                  to_observation_frame(GREY[..., None], 'mono8'))


def test_size_of_the_frame_can_be_chosen() -> None:
    assert to_observation_frame(IMAGES['bgra8'], 'bgra8', size=48).shape == (48, 48)


def test_png_gives_its_pixels_back() -> None:
    data = cv2.imencode('.png', RGB[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(data), RGB[..., ::-1])


def test_jpeg_of_a_grey_camera_becomes_three_channels() -> None:
    smooth = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    data = cv2.imencode('.jpg', smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    image = decode_compressed(data)
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - smooth[..., None]).max() < 8


@pytest.mark.parametrize(('arguments', 'text'), [
    ((b'', 40, 60, 'yuv422', 120), "'yuv422' is not supported"),
    ((bytes(7199), 40, 60, 'rgb8', 180), '60x40 .* needs 7200 bytes, got 7199'),
    ((bytes(9600), 40, 60, 'bgra8', 239), 'rows of 239 bytes are shorter'),
    ((b'', 0, 60, 'mono8', 60), 'no pixels'), ((b'', 40, 0, 'mono8', 0), 'no pixels')])
def test_image_that_is_not_what_it_says_is_refused(
        arguments: tuple[bytes, int, int, str, int], text: str) -> None:
    with pytest.raises(ImageError, match=text):
        decode_image(*arguments)


@pytest.mark.parametrize('data', [b'', b'nonsense', cv2.imencode('.png', GREY)[1].tobytes()[:20]])
def test_file_that_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=f'compressed image of {len(data)} bytes'):
        decode_compressed(data)


@pytest.mark.parametrize(('image', 'encoding', 'text'), [
    (IMAGES['bgr8'], 'bgra8', '40x60x3 is not bgra8'), (GREY, 'rgb8', '40x60 is not rgb8'),
    (IMAGES['bgr8'], 'bayer_rggb8', 'not supported')])
def test_frame_of_another_encoding_is_refused(image: np.ndarray, encoding: str, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        to_observation_frame(image, encoding)


@pytest.mark.parametrize(('height', 'width', 'size'), [
    (240, 320, 84), (600, 800, 84), (84, 84, 84), (85, 97, 84), (100, 100, 50), (720, 1280, 96)])
def test_a_frame_is_the_mean_of_what_lies_behind_each_pixel(height: int, width: int, size: int
                                                            ) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (height, width, 1), np.uint8)
    # Each source pixel cut into size x size equal parts, of which a frame's pixel has whole ones.
    sums = np.repeat(np.repeat(grey[..., 0].astype(np.int64), size, 0).reshape(
        size, height, width).sum(1), size, 1).reshape(size, size, width).sum(2)
    expected = np.rint(sums / (height * width)).astype(np.uint8)
    found = to_observation_frame(grey, 'mono8', size)
    np.testing.assert_array_equal(found, expected)
    others = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - others).max() <= 1


@pytest.mark.parametrize(('height', 'width'), [(60, 80), (481, 641), (40, 200)])
def test_a_size_without_a_short_way_is_made_small_by_opencv(height: int, width: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (height, width, 1), np.uint8)
    np.testing.assert_array_equal(
        to_observation_frame(grey, 'mono8', 84),
        cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(('height', 'width'), [(240, 320), (600, 800), (720, 1280)])
def test_no_other_thread_has_a_part_in_a_frame(height: int, width: int) -> None:
    grey = np.zeros((height, width, 1), np.uint8)
    to_observation_frame(grey, 'mono8')
    everybody, here = time.process_time(), time.thread_time()
    for _ in range(100):
        to_observation_frame(grey, 'mono8')
    here = time.thread_time() - here
    assert time.process_time() - everybody < 1.2 * here
