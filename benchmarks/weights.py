"""Weights on the wire: their size, the time to pack and to verify them, and what half costs."""
from __future__ import annotations

import argparse
import collections
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from av_td3_ros.paths import pretrained_policy
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.td3 import PRESETS, Actor, NetworkSettings, load_policy
from av_td3_ros.td3.weights import PRECISIONS, pack, unpack
from benchmarks import at_least_one, conclude
from benchmarks._training import demonstration

REPEATS = 30
GOAL_ACTIONS = 1e-3
GOAL_SIZE = 0.51  # of float32's
NETWORKS = {'default': PRESETS['default'][1], 'paper': PRESETS['paper'][1]}


def median_ms(call: Any) -> float:
    """Return the median wall time of a call in ms."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return round(1e3 * float(np.median(times)), 2)


def row(name: str, network: NetworkSettings, precision: str) -> dict[str, Any]:
    """Measure one network in one precision."""
    torch.manual_seed(0)
    actor = Actor(network)
    weights = pack(actor, 1, precision)
    return {'network': name, 'precision': precision, 'bytes': len(weights.data),
            'pack_ms': median_ms(lambda: pack(actor, 1, precision)),
            'unpack_ms': median_ms(lambda: unpack(weights, network))}


def action_difference(steps: int) -> float:
    """Return the largest difference of an action of the policy in the box, driven roads seen."""
    policy = load_policy(pretrained_policy())
    received = Actor(policy.network).eval()
    received.load_state_dict(unpack(pack(policy.actor, 1, 'float16'), policy.network))
    stack: collections.deque[np.ndarray] = collections.deque(maxlen=policy.network.frames)
    worst = 0.0
    for step in itertools.islice(demonstration(Drive(DriveSettings()), 0), steps):
        stack.extend([step.frame] * (policy.network.frames if step.is_first else 1))
        seen = np.stack(stack), step.state
        worst = max(worst, float(np.abs(policy.actor.act(*seen) - received.act(*seen)).max()))
    return worst


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=at_least_one, default=3000,
                        help='observations of driving on which '
                        'actions are compared (default %(default)s)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = [row(name, network, precision) for name, network in NETWORKS.items()
             for precision in PRECISIONS]
    for one in table:
        print('  '.join(f'{key} {value}' for key, value in one.items()))
    apart = action_difference(options.steps)
    size = max(half['bytes'] / whole['bytes'] for whole, half in
               zip(table[::2], table[1::2], strict=True))
    return conclude('weights', [
        {'name': f'largest difference of an action over {options.steps} observations of driving, '
                 'float16 against float32', 'value': float(f'{apart:.1e}'), 'unit': '',
         'goal': GOAL_ACTIONS, 'holds': apart <= GOAL_ACTIONS},
        {'name': 'bytes of float16 in those of float32', 'value': round(size, 3), 'unit': '',
         'goal': GOAL_SIZE, 'holds': size <= GOAL_SIZE}], table, options.json)


if __name__ == '__main__':
    sys.exit(main())
