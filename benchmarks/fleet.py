"""
Let N vehicles drive into one learner: nothing lost, nothing twice, and what each of them costs.

The vehicles play recorded driving again at 20 Hz, each with the recorder's way of sending and of
sending again. The learner is the real node and learns all the time.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import safetensors
import yaml
from rclpy.serialization import serialize_message

from av_td3_ros.cli.session import Session, take_domain
from av_td3_ros.ros.graph import learner_node
from av_td3_ros.ros.recording.bag import TransitionBag
from av_td3_ros.ros.runtime import PARENT, ros_environment
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.td3 import load_checkpoint
from av_td3_ros.td3.shards import pack_steps
from benchmarks import above_zero, at_least_one, conclude
from benchmarks._faults import claim
from benchmarks._fleet_report import write_report
from benchmarks._fleet_vehicles import KEPT, MOST, message
from benchmarks._sessions import await_that
from benchmarks._training import demonstration

RATE = 20.0  # steps a second of each vehicle
TOGETHER = 16  # vehicles in one process
STEPS = 2000  # of driving that are played again
STEPS_FILE = 'steps.safetensors'
WARM = 5.0  # s of driving that are not counted
PERIOD = 10.0  # s between two published policies
FEATURES = 512  # of the paper's network, the largest there is: 7.6 MB of weights
GOAL_RATE, GOAL_DELAY, GOAL_GROWTH = 80.0, 1.0, 1.1
COSTS = {'learner_cpu': 'processor of the learner', 'learner_memory': 'memory of the learner',
         'learner_bytes': 'bytes/s to the learner', 'vehicle_cpu': "the vehicles' processor",
         'vehicle_memory': "the vehicles' memory"}


def learner_parameters(bag: Path, run: Path, capacity: int) -> dict[str, Any]:
    """Return those of a learner that always has an update to make."""
    return {'bags': [str(bag)], 'run': str(run), 'capacity': capacity,
            'network.features': FEATURES, 'limiter.updates_per_transition': 100.0,
            'limiter.start_after': 1, 'publish_every': 1, 'publish_period': PERIOD,
            'checkpoint_every': 10**9, 'pause_world': False, 'status_period': 0.5,
            'priority': 'normal'}  # as of a learner that has its computer for itself


def prepare(folder: Path) -> None:
    """Drive what is played again, and write it as a bag for the learner to begin with as well."""
    steps = list(itertools.islice(demonstration(Drive(DriveSettings()), 0), STEPS))
    (folder / STEPS_FILE).write_bytes(pack_steps([('replay', one) for one in steps]))
    bag = TransitionBag(folder / 'bag', '/learner/transition')
    for number, record in enumerate(steps, 1):
        one = message(record)
        one.vehicle, one.session, one.sequence = 'before', 'before', number
        one.episode = record.episode
        bag.write(number, serialize_message(one))
    bag.close()


def status(run: Path) -> dict[str, Any]:
    """Return what the learner has written of itself last, {} before anything."""
    path = run / 'metrics.jsonl'
    for line in reversed(path.read_text(encoding='utf-8').splitlines() if path.exists() else []):
        with contextlib.suppress(json.JSONDecodeError):  # is being written
            found: dict[str, Any] = json.loads(line)
            if found['kind'] == 'learner':
                return found
    return {}


def rate(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Return updates a second between two statuses."""
    return float((after['updates'] - before['updates'])
                 / (after['wall_time'] - before['wall_time']))


class Vehicles:
    """The processes of the vehicles."""

    def __init__(self, steps: Path, count: int, before: Sequence[str] = (),
                 environment: Mapping[str, str] | None = None) -> None:
        """`before` goes before the command, to run it on another host; with that environment."""
        environment = {**(environment or os.environ), PARENT: str(os.getpid())}
        self._processes = [subprocess.Popen(
            [*before, sys.executable, '-m', 'benchmarks._fleet_vehicles', '--steps', str(steps),
             '--first', str(first), '--count', str(min(TOGETHER, count - first)),
             '--rate', str(RATE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment) for first in range(0, count, TOGETHER)]
        self.ready = [self._hear(one) for one in self._processes]

    def tell(self, what: str) -> list[dict[str, Any]]:
        """Tell all of them; return what they report."""
        for one in self._processes:
            assert one.stdin is not None
            one.stdin.write(f'{what}\n')
            one.stdin.flush()
        return [self._hear(one) for one in self._processes]

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{'):  # ROS logs there as well
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError('a process of vehicles has ended')

    def __enter__(self) -> Vehicles:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._processes:
            one.kill()
            one.wait()


class Usage:
    """What the learner's process has taken until now."""

    def __init__(self, process: psutil.Process) -> None:
        self.at = time.monotonic()
        self.memory = process.memory_info().rss
        # Of each thread the s that it ran, and that it waited for a processor: proc(5), schedstat.
        self._threads = {int(one.name): [1e-9 * int(number) for number in
                                         (one / 'schedstat').read_text().split()[:2]]
                         for one in Path(f'/proc/{process.pid}/task').iterdir()}

    def busiest(self, before: Usage) -> int:
        """Return the thread that took most since then: the one that learns."""
        return max(self._threads, key=lambda one: self._took(one, before))

    def share(self, before: Usage, learning: int) -> float:
        """Return the share of a core that all threads but the `learning` one took since then."""
        return sum(self._took(one, before) for one in self._threads if one != learning
                   ) / (self.at - before.at)

    def of_time(self, before: Usage, learning: int) -> tuple[float, float]:
        """Return the shares of the time since then that one ran, and waited for a processor."""
        return (self._took(learning, before) / (self.at - before.at),
                self._took(learning, before, 1) / (self.at - before.at))

    def _took(self, thread: int, before: Usage, what: int = 0) -> float:
        return self._threads[thread][what] - before._threads.get(thread, [0.0, 0.0])[what]


def compare(run: Path, sent: Mapping[int, int], before: int) -> dict[str, int]:
    """
    Return how many of the steps that were sent the replay has, lacks, and has twice.

    The first `before` ones in it are from a bag.
    """
    folder = load_checkpoint(run / 'checkpoints').path
    found: collections.Counter[tuple[int, int]] = collections.Counter()
    for file in sorted((folder / 'replay').glob('*.safetensors')):
        with safetensors.safe_open(file, 'np') as content:
            marks = content.get_tensor('state')[content.get_tensor('serial') >= before, -3:]
        found.update((int(car), int(high) * MOST + int(low))
                     for car, high, low in (marks * MOST).round())
    offered = {(car, number) for car, count in sent.items() for number in range(1, count + 1)}
    return {'offered': len(offered), 'received': len(offered & found.keys()),
            'missing': len(offered - found.keys()),
            'twice': found.total() - len(offered & found.keys())}


@contextlib.contextmanager
def learner(folder: Path, capacity: int) -> Iterator[psutil.Process]:
    """Run the learner; lend its process."""
    (folder / 'parameters.yaml').write_text(yaml.safe_dump({'/**/learner_node': {
        'ros__parameters': learner_parameters(folder.parent / 'bag', folder / 'run', capacity)}}))
    spec = learner_node('embedded')
    with Session([spec], folder / 'parameters.yaml', folder / 'logs') as session:
        process = psutil.Process(session.process_ids()[spec.name])
        try:
            yield process
        except BaseException:
            print((folder / 'logs' / f'{spec.name}.log').read_text()[-3000:], file=sys.stderr)
            raise
        process.terminate()
        process.wait(300)  # it writes all of its replay


def measure(count: int, seconds: float, alone: float, folder: Path) -> dict[str, Any]:
    """Let `count` vehicles drive for `seconds`; the learner is `alone` before and after."""
    (place := folder / str(count)).mkdir()
    capacity = STEPS + int(count * RATE * (seconds + WARM + 60.0))
    run = place / 'run'
    with learner(place, capacity) as process:
        await_that(lambda: status(run).get('updates', 0) > 20, 'updates')
        at = [status(run)]
        begun = Usage(process)
        time.sleep(alone)
        at.append(status(run))
        rested = Usage(process)
        learning = rested.busiest(begun)
        with Vehicles(folder / STEPS_FILE, count) as vehicles:
            found = time.monotonic() - rested.at
            print(f'{count} vehicles are there after {found:.0f} s', flush=True)
            vehicles.tell('drive')
            time.sleep(WARM)
            at.append(status(run))
            at_first, first = vehicles.tell('report'), Usage(process)
            time.sleep(seconds)
            at.append(status(run))
            at_last, last = vehicles.tell('report'), Usage(process)
            wanted = at[0]['transitions'] + _sum(vehicles.tell('stop'), 'actions')
            stopped = time.monotonic()
            await_that(lambda: status(run)['transitions'] >= wanted, f'{wanted} transitions')
            late = time.monotonic() - stopped
            ended = vehicles.tell('end')
        after = Usage(process)
        at.append(status(run))
        time.sleep(alone)
        at.append(status(run))
    cars = {name: one for part in ended for name, one in part['vehicles'].items()}
    sent = {int(name.rpartition('_')[2]): one['sent'] for name, one in cars.items()}
    took, beside = last.at - first.at, rate(at[2], at[3])
    rates = [rate(at[0], at[1]), rate(at[4], at[5])]
    ran, waited = last.of_time(first, learning)
    kept = [version for part in ended for version in part['slow']]
    return {
        'vehicles': count, 'seconds': round(took), **compare(run, sent, STEPS),
        'lost': at[5]['transitions_lost'], 'came_again': at[5]['transitions_duplicate'],
        'skipped_by_vehicles': sum(part['skipped'] for part in ended),
        'sent_per_second': round((_sum(at_last, 'sent') - _sum(at_first, 'sent')) / took, 1),
        'found_after_s': round(found, 1), 'last_after_s': round(late, 1),
        'updates_alone': round(float(np.mean(rates)), 2), 'updates_beside': round(beside, 2),
        'rate_percent': round(100 * beside / float(np.mean(rates)), 1),
        'update_alone_ran': round(rested.of_time(begun, learning)[0], 3),
        'update_ran': round(ran, 3), 'update_waited_for_core': round(waited, 3),
        'update_waited_otherwise': round(1.0 - ran - waited, 3),
        'weights_bytes': round(1e3 * at[5]['metrics']['weights_kilobytes']),
        **_delays([one['heard'] for one in cars.values()]),
        'slow_one_kept': kept, 'newest': max(one['heard'][-1][0] for one in cars.values()),
        'learner_cpu': round(last.share(first, learning) - rested.share(begun, learning), 4),
        # The replay has all of its memory from the start.
        'learner_memory': round((after.memory - rested.memory) / 1e6, 1),
        'learner_bytes': round((_sum(at_last, 'bytes') - _sum(at_first, 'bytes')) / took),
        'vehicle_cpu': round(sum((one['cpu'] - other['cpu']) / (one['at'] - other['at'])
                                 for one, other in zip(at_last, at_first, strict=True)), 4),
        'vehicle_memory': round(sum(one['memory'] for one in at_last) / 1e6, 1)}


def _sum(reports: Sequence[Mapping[str, Any]], what: str) -> int:
    return sum(one[what] for part in reports for one in part['vehicles'].values())


def _delays(heard: Sequence[Sequence[tuple[int, float]]]) -> dict[str, Any]:
    """Return how long the policies took to all vehicles; the one that is latched is no news."""
    fresh = [dict(one[1:]) for one in heard]
    common = set.intersection(*(set(one) for one in fresh))
    each = [[one[version] for one in fresh] for version in sorted(common)]
    return {'policies': len(each), 'delay_median_s': round(float(np.median(each)), 3),
            'delay_to_all_s': round(float(np.median([max(one) for one in each])), 3),
            'delay_worst_s': round(float(np.max(each)), 3)}


def claims_of(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the goals say of the rows, the largest fleet's last."""
    rows = sorted(table, key=lambda one: int(one['vehicles']))
    claims = []
    for one in rows:
        name = f'{one["vehicles"]} vehicles, {one["seconds"]} s'
        claims += [
            claim(f'{name}: transitions offered and not learned from', one['missing'], '', 0),
            claim(f'{name}: transitions there twice', one['twice'], '', 0),
            claim(f'{name}: updates beside them, of those alone', one['rate_percent'], '%',
                  GOAL_RATE, at_least=True),
            claim(f'{name}: {one["weights_bytes"] / 1e6:.1f} MB of weights to a vehicle, median '
                  f'of {one["policies"]} policies (worst {one["delay_worst_s"]} s)',
                  one['delay_median_s'], 's', GOAL_DELAY),
            {'name': f'{name}: policies that a slow subscriber still held, and the newest one '
                     'among them', 'value': len(one['slow_one_kept']), 'unit': '', 'goal': 1,
             'holds': one['slow_one_kept'] == [one['newest']]}]
    large = rows[-1]
    # Who drives for less than it keeps of its steps has less memory for that reason.
    small = next((one for one in reversed(rows[:-1]) if _full(one) == _full(large)), None)
    if small is not None:
        more = large['vehicles'] / small['vehicles']
        claims += [claim(
            f'{what}: of each of {large["vehicles"]} vehicles against each of '
            f'{small["vehicles"]}', round(large[cost] / max(small[cost], 1e-9) / more, 2),
            'times', GOAL_GROWTH) for cost, what in COSTS.items()]
    return claims


def _full(one: Mapping[str, Any]) -> float:
    return min(float(one['seconds']) + WARM, KEPT / RATE)


def main() -> int:
    """Print the table and the claims; write them as JSON and as a page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--vehicles', type=at_least_one, nargs='+', default=[1, 4, 16, 64])
    parser.add_argument('--seconds', type=above_zero, default=300.0,
                        help='of driving with each number of vehicles (default %(default)g)')
    parser.add_argument('--alone', type=above_zero, default=20.0,
                        help='s that the learner learns alone before and after')
    parser.add_argument('--beside', type=Path, help='results of an earlier run, whose rows of '
                        'other numbers of vehicles are taken in')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    parser.add_argument('--out', type=Path, help='folder to write fleet.md and fleet.png into')
    options = parser.parse_args()
    os.environ.update(ros_environment(os.environ))
    _, lease = take_domain(simulated=True)
    table = [] if options.beside is None else [
        one for one in json.loads(options.beside.read_text(encoding='utf-8'))['table']
        if one['vehicles'] not in options.vehicles]
    with tempfile.TemporaryDirectory(prefix='av_td3_ros-fleet-') as name:
        folder = Path(name)
        prepare(folder)
        for count in options.vehicles:
            row = measure(count, options.seconds, options.alone, folder)
            print(', '.join(f'{key} {value}' for key, value in row.items()), flush=True)
            table.append(row)
            shutil.rmtree(folder / str(count))
    if lease is not None:
        lease.release()
    table.sort(key=lambda one: int(one['vehicles']))
    if options.out is not None:
        write_report(table, options.out)
    return conclude('fleet', claims_of(table), table, options.json)


if __name__ == '__main__':
    sys.exit(main())
