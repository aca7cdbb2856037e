"""
Read an OpenDRIVE map in a process of its own first: `carla.Map` dies of what it does not expect.

A signal that it runs into, all memory that it takes, or an endless loop then ends that process
instead of the vehicle's.
"""
from __future__ import annotations

import functools
import hashlib
import resource
import signal
import subprocess
import sys

from av_td3_ros.paths import config_directory

MEMORY = 4 << 30   # bytes that reading may take
PATIENCE = 300.0   # s of wall time: a town of many km takes some of them on a busy computer
PROCESSOR = 20    # s of the processor, and as much for each MB of text


@functools.lru_cache(maxsize=16)
def trial(opendrive: str) -> str:
    """Return why this OpenDRIVE text cannot be read without harm, '' when it can."""
    if _digest(opendrive) in _shipped():
        return ''
    try:
        done = subprocess.run([sys.executable, '-m', __name__], input=opendrive.encode(),
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
                              timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f'reading it does not end within {PATIENCE:g} s'
    if done.returncode == -signal.SIGXCPU:
        return f'reading it takes more than {_seconds(opendrive)} s of the processor'
    if done.returncode < 0:
        return f'CARLA dies of it ({signal.Signals(-done.returncode).name})'
    if done.returncode:
        lines = done.stderr.decode(errors='replace').strip().splitlines()
        return lines[-1] if lines else f'reading it ends with status {done.returncode}'
    return ''


@functools.cache
def _shipped() -> frozenset[str]:
    """Return the hashes of the maps that come with the project: all of them are read by tests."""
    return frozenset(_digest(one.read_text(encoding='utf-8'))
                     for one in (config_directory() / 'maps').rglob('*.xodr'))


def _seconds(opendrive: str) -> int:
    return PROCESSOR * (1 + len(opendrive) // 1_000_000)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> int:
    """Read the text on the standard input as a vehicle's map would be; return the exit status."""
    from av_td3_ros.driving.route.road_map import MapError, RoadMap

    opendrive = sys.stdin.buffer.read().decode()
    seconds = _seconds(opendrive)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        road_map = RoadMap(opendrive, 'on trial')
        poses = road_map.spawn_points()
        for pose in poses[:100]:
            road_map.height(pose.x, pose.y)
            road_map.markings_at(road_map.project(pose.x, pose.y))
        bool(road_map.has_lane_markings)
    except MapError:
        return 0  # refused with its reason by whoever reads it next, without harm
    except MemoryError:
        print(f'reading it takes more than {MEMORY >> 30} GiB', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
