"""
Put vehicles and learner on two hosts: what goes over the wire, and what a bad wire costs.

The hosts are network namespaces, the wire is this process (see `_places`): root is needed. They
find each other by static peers, by a discovery server, or by multicast.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from av_td3_ros.ros.graph import learner_node
from av_td3_ros.ros.runtime import (
    LINK_PROFILE,
    PARENT,
    allocator_environment,
    ros_environment,
)
from benchmarks import above_zero, at_least_one, conclude
from benchmarks._faults import claim
from benchmarks._places import TwoHosts, across
from benchmarks._sessions import await_that
from benchmarks.fleet import (
    STEPS,
    STEPS_FILE,
    Vehicles,
    compare,
    learner_parameters,
    prepare,
    status,
)

ADDRESSES = '10.82.0.1', '10.82.0.2'  # the vehicles' host and the learner's
PORT = 11811  # of a discovery server, as Fast DDS has it
IDLE = 10.0  # s in which nothing drives
PERIOD = 5.0  # s between two published policies
SERVER = 'fast-discovery-server'
WAYS: dict[str, list[dict[str, str]]] = {  # what is set on either host
    'static peers': [{'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', 'ROS_STATIC_PEERS': other}
                     for other in reversed(ADDRESSES)],
    'discovery server': 2 * [{'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET',
                              'ROS_DISCOVERY_SERVER': f'{ADDRESSES[1]}:{PORT}'}],
    'multicast': 2 * [{'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}]}


@contextlib.contextmanager
def running(words: Sequence[str], environment: Mapping[str, str], log: Path
            ) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process."""
    with log.open('wb') as file, subprocess.Popen(
            words, env={**environment, PARENT: str(os.getpid())}, stdout=file,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def measure(way: str, vehicles: int, seconds: float, folder: Path, precision: str = 'float32',
            loss: float = 0.0, cut: float = 0.0, profile: str = LINK_PROFILE) -> dict[str, Any]:
    """
    Return a row of the table; the wire loses a share of all frames, and is cut for `cut` s.

    `profile` of config/ is what Fast DDS reads.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / 'parameters.yaml').write_text(yaml.safe_dump({'/**/learner_node': {
        'ros__parameters': {
            **learner_parameters(folder / 'bag', place / 'run', 100_000), 'network.features': 64,
            'weights_precision': precision, 'publish_period': PERIOD, 'status_period': 0.2,
            'limiter.updates_per_transition': 0.5}}}))
    common = {name: value for name, value in os.environ.items()
              if not name.startswith('ROS_') or name == 'ROS_DOMAIN_ID'}
    sides = [{**common, **one} for one in WAYS[way]]
    sides = [across(one | ros_environment(one), profile) for one in sides]
    spec = learner_node('embedded')
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(TwoHosts())
        hosts.loss = loss
        if way == 'discovery server':
            stack.enter_context(running(
                [*hosts.on(1), shutil.which(SERVER) or SERVER, '-i', '0', '-l', ADDRESSES[1],
                 '-p', str(PORT)], sides[1], place / 'server.log'))
        learner = stack.enter_context(running(
            [*hosts.on(1), sys.executable, '-m', spec.module,
             *spec.arguments(place / 'parameters.yaml')],
            {**sides[1], **allocator_environment(sides[1])}, place / 'learner.log'))
        await_that(lambda: status(place / 'run'), 'the learner')
        before, began = status(place / 'run')['transitions'], time.monotonic()
        cars = stack.enter_context(Vehicles(folder / STEPS_FILE, vehicles, hosts.on(0), sides[0]))
        found_after = time.monotonic() - began
        wires = [list(hosts.sent)]
        time.sleep(IDLE)
        wires.append(list(hosts.sent))
        cars.tell('drive')
        time.sleep(seconds / 2)
        if cut:
            hosts.is_cut = True
            time.sleep(cut)
            hosts.is_cut = False
        time.sleep(seconds / 2)
        wires.append(list(hosts.sent))
        last = cars.tell('stop')
        wanted = before + sum(one['actions'] for part in last for one in part['vehicles'].values())
        stopped = time.monotonic()
        await_that(lambda: status(place / 'run')['transitions'] >= wanted,
                   f'{wanted} transitions, {status(place / "run")["transitions"]} are there')
        late = time.monotonic() - stopped
        told, ended = status(place / 'run'), cars.tell('end')
        learner.send_signal(signal.SIGINT)
        learner.wait(120)
    each = {name: one for part in ended for name, one in part['vehicles'].items()}
    heard = [delay for one in each.values() for _, delay in one['heard'][1:]]
    took = seconds + cut
    idle = [(after - first) / IDLE for first, after in zip(*wires[:2], strict=True)]
    driven = [(after - first) / took for first, after in zip(*wires[1:], strict=True)]
    return {
        'found by': way, 'vehicles': vehicles, 'profile': profile, 'loss': loss, 'cut_s': cut,
        'weights': precision,
        **compare(place / 'run', {int(name.rpartition('_')[2]): one['sent']
                                  for name, one in each.items()}, STEPS),
        'lost': told['transitions_lost'], 'found_after_s': round(found_after, 1),
        'all_there_after_s': round(late, 1),
        'idle_kB_per_s': [round(1e-3 * one, 1) for one in idle],
        'driving_kB_per_s': [round(1e-3 * one, 1) for one in driven],
        'payload_kB_per_s': round(1e-3 * sum(one['bytes'] for one in each.values()) / took, 1),
        'weights_kB': round(told['metrics'].get('weights_kilobytes', 0.0)),
        'policies': len(heard) / len(each), 'weights_delay_s': [
            round(sorted(heard)[int(part * (len(heard) - 1))], 2) for part in (0.5, 1.0)]
        if heard else []}


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--vehicles', type=at_least_one, default=2)
    parser.add_argument('--seconds', type=above_zero, default=20.0)
    parser.add_argument('--only', help='measure what is found by this way only',
                        choices=list(WAYS))
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', '0')
    os.environ.update(ros_environment(os.environ))
    table = []
    with tempfile.TemporaryDirectory(prefix='av_td3_ros-hosts-') as name:
        folder = Path(name)
        prepare(folder)
        cases: list[tuple[str, dict[str, Any]]] = [
            *((way, {}) for way in WAYS), *(('discovery server', one) for one in (
                {'precision': 'float16'}, {'cut': 15.0}, {'loss': 0.01}, {'loss': 0.05},
                {'loss': 0.01, 'profile': 'fastdds.xml'}))]
        for way, changes in cases:
            if options.only in (None, way):
                if way == 'discovery server' and not shutil.which(SERVER):
                    print(f'{way}: no {SERVER} here, which comes with ROS', flush=True)
                    continue
                table.append(measure(way, options.vehicles, options.seconds, folder, **changes))
                print(', '.join(f'{key} {value}' for key, value in table[-1].items()), flush=True)
    return conclude('hosts', [
        claim(f'{row["found by"]}, {row["profile"]}, {100 * row["loss"]:g} % of the frames lost, '
              f'cut for {row["cut_s"]:g} s: transitions missing or twice',
              row['missing'] + row['twice'], '', 0) for row in table], table, options.json)


if __name__ == '__main__':
    sys.exit(main())
