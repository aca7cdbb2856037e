"""A replay larger than the memory: a million steps in a mapped file, sampled at random."""
from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from av_td3_ros.td3 import ReplayBuffer, StepRecord
from benchmarks import at_least_one, conclude

EPISODE = 500
BATCH = 256
GOAL_BYTES = 8192
GOAL_ANONYMOUS_GB = 1.0


def anonymous_gb() -> float:
    """Return this process's memory that is not a mapped file, GB."""
    for line in Path('/proc/self/status').read_text(encoding='utf-8').splitlines():
        if line.startswith('RssAnon:'):
            return float(line.split()[1]) / 1e6
    raise RuntimeError('/proc/self/status has no RssAnon')


def fill(replay: ReplayBuffer, steps: int) -> float:
    """Add so many steps of noise; return the steps in a second."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (1000, 84, 84), np.uint8)
    states = random.normal(size=(1000, 53)).astype(np.float32)
    started = time.perf_counter()
    for number in range(steps):
        episode, step = divmod(number, EPISODE)
        replay.add(StepRecord('ego', episode, step, frames[number % 1000], states[number % 1000],
                              np.zeros(2, np.float32), 0.0, step == 0, step == EPISODE - 1, False))
    return steps / (time.perf_counter() - started)


def sampling_ms(replay: ReplayBuffer, batches: int = 30) -> float:
    """Return the median time of a batch in ms."""
    times = []
    for _ in range(batches):
        started = time.perf_counter()
        replay.sample(BATCH, 0.99, 1)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=at_least_one, default=1_000_000)
    parser.add_argument('--folder', type=Path, help='folder of the file (default temporary)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        before = anonymous_gb()
        replay = ReplayBuffer(options.steps, path=folder)
        rate = fill(replay, options.steps)
        row: dict[str, Any] = {
            'steps': options.steps, 'file_gb': round(options.steps * 84 * 84 / 1e9, 2),
            'anonymous_gb': round(anonymous_gb() - before, 3), 'added_per_second': round(rate),
            'sampling_ms': round(sampling_ms(replay), 2), 'bytes_a_step': replay.bytes_per_step}
    print('  '.join(f'{name} {value}' for name, value in row.items()))
    claims = [
        {'name': 'memory a stored transition', 'value': row['bytes_a_step'], 'unit': 'bytes',
         'goal': GOAL_BYTES, 'holds': row['bytes_a_step'] <= GOAL_BYTES},
        {'name': f'memory of {options.steps:,} steps beside the file',
         'value': row['anonymous_gb'], 'unit': 'GB', 'goal': GOAL_ANONYMOUS_GB,
         'holds': row['anonymous_gb'] <= GOAL_ANONYMOUS_GB}]
    return conclude('replay', claims, [row], options.json)


if __name__ == '__main__':
    sys.exit(main())
