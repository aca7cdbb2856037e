"""
Read an OpenDRIVE map in a process of its own first: `carla.Map` dies of what it does not expect.

A signal that it runs into, all memory that it takes, or an endless loop then ends that process
instead of the vehicle's.
"""
from __future__ import annotations

import functools
import hashlib
import signal
import subprocess
import sys

from av_td3_ros.paths import config_directory

READER = 'av_td3_ros.driving.route.map_on_trial'
MEMORY = 4 << 30   # bytes that reading may take
PATIENCE = 300.0   # s of wall time: a town of many km takes some of them on a busy computer
PROCESSOR = 20    # s of the processor, and as much for each MB of text


@functools.lru_cache(maxsize=16)
def trial(opendrive: str) -> str:
    """Return why this OpenDRIVE text cannot be read without harm, '' when it can."""
    if _digest(opendrive) in _shipped():
        return ''
    try:
        done = subprocess.run(
            [sys.executable, '-m', READER, str(MEMORY), str(_seconds(opendrive))],
            input=opendrive.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            check=False, timeout=PATIENCE)
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
