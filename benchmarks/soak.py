"""Let a session run for hours: memory, file descriptors, threads and rates must stay."""
from __future__ import annotations

import argparse
import collections
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import above_zero, conclude
from benchmarks._faults import claim
from benchmarks._sessions import SMALL, Processes

PERIOD = 5.0  # s between two samples
TOLD = 600.0  # s between two lines that say how far it is
GOAL_SLOPE = 1.0  # MB an hour
GOAL_DRIFT = 5.0  # % that a rate may change from the first to the last third
# What memory is for is full after 4 minutes at 20 Hz: the rest should stay.
OPTIONS = (*(one for one in SMALL if 'capacity' not in one), 'learner_node.capacity=4000',
           'checkpoint_every=500')
MODES = ('real_time', 'lockstep')


class Samples:
    """What the processes were found to hold, at which times in s."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.values: dict[str, dict[str, list[float]]] = collections.defaultdict(
            lambda: collections.defaultdict(list))

    def take(self, now: float, processes: dict[str, psutil.Process]) -> None:
        """Look at every process; raises psutil.NoSuchProcess for one that is gone."""
        self.times.append(now)
        for name, process in processes.items():
            found = self.values[name]
            found['rss'].append(process.memory_info().rss / 1e6)
            found['descriptors'].append(process.num_fds())
            found['threads'].append(process.num_threads())

    def after(self, warm_up: float) -> tuple[np.ndarray[Any, Any], slice]:
        """Return the times after the warm-up, in hours, and which samples they are of."""
        first = int(np.searchsorted(self.times, self.times[0] + warm_up))
        return np.array(self.times[first:]) / 3600, slice(first, None)


def slope(hours: np.ndarray[Any, Any], values: Sequence[float]) -> float:
    """Return the growth of values in an hour, by least squares."""
    return float(np.polyfit(hours, np.asarray(values), 1)[0])


def rates(statuses: Sequence[dict[str, Any]], warm_up: float, name: str) -> tuple[float, float]:
    """Return how often a second a count of the learner grew in the first and last third."""
    late = [one for one in statuses if one['wall_time'] >= warm_up]
    third = max(len(late) // 3, 1)

    def rate(part: Sequence[dict[str, Any]]) -> float:
        seconds = part[-1]['wall_time'] - part[0]['wall_time']
        return float((part[-1][name] - part[0][name]) / max(seconds, 1e-9))

    return rate(late[:third + 1]), rate(late[-third - 1:])


def run(folder: Path, minutes: float, mode: str) -> tuple[Samples, list[dict[str, Any]], int]:
    """
    Run a session, until Ctrl-C at most; return samples, statuses and how often a node began anew.

    Raises RuntimeError when one of its nodes ends.
    """
    samples = Samples()
    with Processes(folder, (*OPTIONS, f'simulator_node.mode={mode}')) as session:
        processes = {name: psutil.Process(number)
                     for name, number in session.process_ids().items()}
        started = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            while (now := time.monotonic() - started) < 60 * minutes:
                dead = [name for name, state in session.states().items() if state != 'running']
                if dead:
                    raise RuntimeError(
                        f'{dead[0]} ended after {now:.0f} s:\n{session.log(dead[0])}')
                samples.take(now, processes)
                if len(samples.times) % round(TOLD / PERIOD) == 0:
                    *_, newest = session.statuses()
                    print(f'{now / 60:.0f} minutes: {newest["transitions"]} transitions',
                          flush=True)
                time.sleep(max(0.0, PERIOD - (time.monotonic() - started - now)))
        anew = sum(session.log(name).count('begins anew') for name in processes)
        return samples, list(session.statuses()), anew


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=above_zero, default=120.0)
    parser.add_argument('--warm-up', type=float, help='minutes left out (default a quarter, '
                        'at most 20)')
    parser.add_argument('--mode', choices=MODES, default=MODES[0],
                        help='lockstep: as fast as the machine can (default %(default)s)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    warm_up = 60 * (options.warm_up if options.warm_up is not None
                    else min(20.0, options.minutes / 4))
    folder = Path(tempfile.mkdtemp(prefix='av_td3_ros-soak-'))
    samples, statuses, anew = run(folder, options.minutes, options.mode)
    hours, late = samples.after(warm_up)
    table: list[dict[str, Any]] = []
    print(f'{"process":18}{"RSS MB":>10}{"MB/h":>8}{"fds":>6}{"per h":>8}{"threads":>9}')
    for name, values in samples.values.items():
        row = {'process': name, 'rss_mb': round(values['rss'][-1], 1),
               'rss_mb_per_hour': round(slope(hours, values['rss'][late]), 2),
               'descriptors': int(values['descriptors'][-1]),
               'descriptors_grown': int(values['descriptors'][-1]
                                        - max(values['descriptors'][late][:12])),
               'threads': int(values['threads'][-1]),
               'threads_grown': int(values['threads'][-1] - max(values['threads'][late][:12]))}
        table.append(row)
        print(f'{name:18}{row["rss_mb"]:10}{row["rss_mb_per_hour"]:8}{row["descriptors"]:6}'
              f'{row["descriptors_grown"]:8}{row["threads"]:9}', flush=True)
    drift = 0.0
    for name in ('transitions', 'updates'):
        first, last = rates(statuses, warm_up, name)
        changed = 100 * (last / first - 1) if first else 100.0
        drift = max(drift, abs(changed))
        table.append({'rate': name, 'first_third': round(first, 3), 'last_third': round(last, 3),
                      'change_percent': round(changed, 2)})
        print(f'{name}: {first:.2f} a second, then {last:.2f} ({changed:+.1f} %)')
    newest = statuses[-1]
    ran = round(samples.times[-1] / 60)
    minutes = f'in {ran - warm_up / 60:g} minutes after {warm_up / 60:g} of warm-up'
    grown = [row for row in table if 'process' in row]
    return conclude('soak', [
        claim(f'growth of memory of the worst process, {minutes}',
              max(row['rss_mb_per_hour'] for row in grown), 'MB/h', GOAL_SLOPE),
        claim('file descriptors gained by the worst process',
              max(row['descriptors_grown'] for row in grown), '', 0),
        claim('threads gained by the worst process',
              max(row['threads_grown'] for row in grown), '', 0),
        claim('change of the rates', round(drift, 2), '%', GOAL_DRIFT),
        claim('nodes that were cut off from others and began anew', anew, '', 0),
        claim('transitions lost', newest['transitions_lost'], '', 0)], table, options.json)


if __name__ == '__main__':
    sys.exit(main())
