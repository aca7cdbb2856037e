"""The way of an image from one process to another, alone: one change at a time."""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from av_td3_ros.paths import config_directory
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_nanoseconds, to_stamp
from av_td3_ros.ros.raw_image import read_image
from av_td3_ros.ros.runtime import KEPT, PARENT, die_with_parent, keep_memory, make_executor

PERIOD = 0.05  # s between two images
PROFILE_VARIABLES = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
SHARED = '        <transport_id>shared_memory</transport_id>\n'  # of a participant
DATA_SHARING = ''.join(f"""
  <{end} profile_name="{end}" is_default_profile="true">
    <qos><data_sharing><kind>AUTOMATIC</kind></data_sharing></qos>
    <historyMemoryPolicy>PREALLOCATED_WITH_REALLOC</historyMemoryPolicy>
  </{end}>""" for end in ('data_writer', 'data_reader')) + '\n</profiles>'


class Lever(NamedTuple):
    """What is changed: words for the reader, environment of both, and the Fast DDS profile."""

    words: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    profile: tuple[tuple[str, str], ...] = ()  # each text replaced by the one beside it


LEVERS = {
    'as shipped': Lever(),
    'rclpy makes a message of it': Lever(('message',)),
    'memory given back, as glibc does': Lever(('forgetful',)),
    'both of these': Lever(('message', 'forgetful')),
    'best effort, depth 1': Lever(('best_effort',)),
    'single-threaded executor': Lever(('single',)),
    'Fast DDS without the shipped profile': Lever(
        environment=dict.fromkeys(PROFILE_VARIABLES, '')),
    'Fast DDS with a segment of its own size': Lever(
        profile=(('      <segment_size>33554432</segment_size>\n', ''),)),
    'Fast DDS without shared memory': Lever(profile=((SHARED, ''),)),
    "without shared memory, sockets of the system's size": Lever(profile=(
        (SHARED, ''), ('      <sendBufferSize>4194304</sendBufferSize>\n', ''),
        ('      <receiveBufferSize>4194304</receiveBufferSize>\n', ''))),
    'Fast DDS shares data where it can': Lever(
        environment={'RMW_FASTRTPS_USE_QOS_FROM_XML': '1'},
        profile=(('\n</profiles>', DATA_SHARING),)),
    'Fast DDS publishes from a thread of its own': Lever(
        environment={'RMW_FASTRTPS_PUBLICATION_MODE': 'ASYNCHRONOUS'})}


def read(words: list[str]) -> None:
    """Answer each image with the time at which it was there."""
    die_with_parent()
    rclpy.init()
    node = rclpy.create_node('reader')
    answers = node.create_publisher(Header, '/image_way/answer', qos.STEP)
    as_message = 'message' in words

    def hear(image: Any) -> None:
        stamp_ns = (to_nanoseconds(image.header.stamp) if as_message
                    else read_image(image).stamp_ns)
        answers.publish(Header(stamp=to_stamp(stamp_ns), frame_id=str(time.monotonic_ns())))

    node.create_subscription(Image, '/image_way/image', hear, (
        qos.VEHICLE if 'best_effort' in words else qos.SENSOR), raw=not as_message)
    executor = SingleThreadedExecutor() if 'single' in words else make_executor()
    executor.add_node(node)
    if 'forgetful' not in words:
        keep_memory()
    while True:
        executor.spin_once(timeout_sec=0.1)


def write(width: int, height: int, frames: int, words: list[str]) -> np.ndarray:
    """Return how long each image took to arrive, in ms."""
    rclpy.init()
    node = rclpy.create_node('writer')
    publisher = node.create_publisher(Image, '/image_way/image', qos.SENSOR)
    sent: dict[int, int] = {}
    took: list[float] = []

    def hear(answer: Header) -> None:
        took.append(1e-6 * (int(answer.frame_id) - sent[to_nanoseconds(answer.stamp)]))

    node.create_subscription(Header, '/image_way/answer', hear, qos.STEP)
    executor = make_executor()
    executor.add_node(node)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
    image = Image(height=height, width=width, encoding='bgra8', step=4 * width,
                  data=to_bytes(pixels))
    environment = {name: value for name, value in os.environ.items() if name not in KEPT}
    with subprocess.Popen([sys.executable, '-m', __spec__.name, 'read', *words],
                          env={**environment, PARENT: str(os.getpid())}) as reader:
        while not (publisher.get_subscription_count()
                   and node.count_publishers('/image_way/answer')):
            executor.spin_once(timeout_sec=0.1)
        for index in range(-20, frames):
            if index == 0:
                took.clear()
            stamp_ns = time.time_ns()
            image.header.stamp = to_stamp(stamp_ns)
            sent[stamp_ns] = time.monotonic_ns()
            publisher.publish(image)
            until = time.monotonic() + PERIOD
            while (left := until - time.monotonic()) > 0.0:
                executor.spin_once(timeout_sec=left)
        reader.kill()
    return np.array(took)


def main() -> None:
    """Print the times of one lever, or be its reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('role', choices=('read', 'write'))
    parser.add_argument('words', nargs='*')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 600))
    parser.add_argument('--frames', type=int, default=200)
    options = parser.parse_args()
    if options.role == 'read':
        read(options.words)
    print(' '.join(map(str, write(*options.size, options.frames, options.words))), flush=True)
    os._exit(0)


def way(lever: str, size: tuple[int, int], frames: int) -> np.ndarray:
    """Return how long images take with one lever, in ms, measured in two new processes."""
    words, environment, changes = LEVERS[lever]
    with tempfile.TemporaryDirectory() as folder:
        if changes:
            text = (config_directory() / 'fastdds.xml').read_text(encoding='utf-8')
            for old, new in changes:
                assert old in text, old
                text = text.replace(old, new)
            (file := Path(folder) / 'profile.xml').write_text(text, encoding='utf-8')
            environment = {**environment, **dict.fromkeys(PROFILE_VARIABLES, str(file))}
        ran = subprocess.run(
            [sys.executable, '-m', 'benchmarks._image_way', 'write', *words, '--size',
             *map(str, size), '--frames', str(frames)],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    return np.array(ran.stdout.splitlines()[-1].split(), float)  # Fast DDS may say a word before


if __name__ == '__main__':
    main()
