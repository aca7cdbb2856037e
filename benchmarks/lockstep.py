"""
Measure environment steps a second: in lockstep through the ROS graph, and in one process.

The graph is simulator, environment, policy and control node, each a process, without a learner;
its peer is the same simulator with one plain node. In process it is the Gymnasium environment,
alone and one on each core, as far as its own time goes: pursuit chooses the actions aside. It
looks as it does by default (moderate), and, alone, in the clean world as well.
"""
from __future__ import annotations

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import gymnasium
import numpy as np
from rosgraph_msgs.msg import Clock

from av_td3_ros.cli.launched import Told
from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.session import Session, take_domain
from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.ros import qos
from av_td3_ros.ros.graph import SIMULATOR, session_nodes
from av_td3_ros.ros.runtime import ros_environment
from av_td3_ros.ros.tracing import read_trace
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.simulator.gymnasium_env import NAME
from av_td3_ros.simulator.view.appearance import AppearanceSettings
from av_td3_ros.simulator.world import WorldSettings
from benchmarks import above_zero, at_least_one, conclude
from benchmarks._busy import Busy
from benchmarks.latency import NODES, STARTING, VEHICLE

GOALS = {'graph': 200.0, 'in process': 1000.0}
SIZES = ((320, 240), (800, 600))
STAGES = {  # from one mark of a frame to the next: what it is
    'preprocessed': 'pairing, decode, preprocess', 'observed': 'stack, state, reward',
    'observation arrived': 'transport of the observation', 'decided': 'inference',
    'action arrived': 'transport of the action', 'commanded': 'control'}
WORLD = 'world: command there, tick, image back'


@contextlib.contextmanager
def driver(plain: bool, width: int, height: int, folder: Path) -> Iterator[None]:
    """Run the simulator with what drives in it."""
    config = Told('embedded', VEHICLE, config=' '.join((
        f'simulator_node.world.camera.width={width}',
        f'simulator_node.world.camera.height={height}',
        *(f'{node}.trace={folder / node}.csv' for node in NODES)))).driving('pretrained', False)
    parameters = folder / 'config.yaml'
    config.write(parameters, 'lockstep')
    nodes = [one for one in session_nodes('embedded', VEHICLE, learning=False)
             if not plain or one.name == SIMULATOR]
    with contextlib.ExitStack() as running:
        running.enter_context(Session(nodes, parameters, folder / 'logs'))
        if plain:
            process = running.enter_context(subprocess.Popen(
                [sys.executable, '-m', 'benchmarks._latency_peer', '--vehicle', VEHICLE]))
            running.callback(process.kill)
        yield


def graph_row(plain: bool, width: int, height: int, seconds: float, domain: int
              ) -> dict[str, Any]:
    """Return one row of the table: a session of `seconds`."""
    ticks: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        folder, monitor = Path(name), Monitor('lockstep', domain)
        monitor.node.create_subscription(
            Clock, '/clock', lambda _: ticks.append(time.monotonic_ns()), qos.SENSOR)
        with monitor, driver(plain, width, height, folder):
            until = time.monotonic() + STARTING
            while len(ticks) < 100:
                if time.monotonic() > until:
                    raise TimeoutError(f'{len(ticks)} ticks within {STARTING:g} s')
                time.sleep(0.1)
            before, started = Busy(), time.monotonic_ns()
            time.sleep(seconds)
            elsewhere, ended = before.elsewhere(), time.monotonic_ns()
        marks: dict[str, dict[int, int]] = {}
        for node in NODES if not plain else ():
            marks |= read_trace(folder / f'{node}.csv')
    counted = sum(started <= one < ended for one in ticks)
    row: dict[str, Any] = {
        'what': 'graph', 'driver': 'plain node' if plain else 'ours',
        'camera': f'{width}x{height}', 'steps a second': round(counted / seconds, 1),
        'busy elsewhere [cores]': round(elsewhere, 2)}
    if plain:
        return row
    within = {stage: {stamp: at for stamp, at in of.items() if started <= at < ended}
              for stage, of in marks.items()}
    # A tick that only begins an episode is none of the environment's steps.
    row['steps a second'] = round(len(within['commanded']) / seconds, 1)
    since = within['image arrived']
    answered = sorted(within['commanded'])
    period = np.diff([since[one] for one in answered if one in since])
    for stage, what in STAGES.items():
        both = [one for one in answered if one in since and one in within[stage]]
        row[f'{what} [ms]'] = round(1e-6 * float(np.median(
            [within[stage][one] - since[one] for one in both])), 2)
        since = within[stage]
    row[f'{WORLD} [ms]'] = round(1e-6 * float(np.median(period))
                                 - sum(row[f'{what} [ms]'] for what in STAGES.values()), 2)
    return row


def environment(look: AppearanceSettings, threads: int | None = None
                ) -> gymnasium.Env[Any, Any]:
    """Return an environment of this look; `threads` are those of OpenCV in this process."""
    if threads is not None:
        cv2.setNumThreads(threads)
    return gymnasium.make(NAME, settings=DriveSettings(world=WorldSettings(appearance=look)))


def alone(steps: int, look: AppearanceSettings) -> float:
    """Return the steps a second of one environment, its resets included."""
    env, pursuit = environment(look).unwrapped, PursuitDriver()
    seen, _ = env.reset(seed=0)
    took = 0.0
    for index in range(-50, steps):
        action = pursuit.act(seen['state'])
        started = time.perf_counter()
        seen, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            seen, _ = env.reset()
        took += time.perf_counter() - started if index >= 0 else 0.0
    env.close()
    return steps / took


def together(count: int, steps: int, look: AppearanceSettings) -> float:
    """Return the steps a second of `count` environments, each in a process of its own."""
    # One thread each: the other cores are the others'.
    one_of_several = functools.partial(environment, look, threads=1)
    envs = gymnasium.vector.AsyncVectorEnv([one_of_several] * count)
    drivers = [PursuitDriver() for _ in range(count)]
    seen, _ = envs.reset(seed=0)
    took = 0.0
    for index in range(-50, steps):
        actions = np.stack([one.act(state)
                            for one, state in zip(drivers, seen['state'], strict=True)])
        started = time.perf_counter()
        seen, *_ = envs.step(actions)
        took += time.perf_counter() - started if index >= 0 else 0.0
    envs.close()
    return count * steps / took


def process_row(count: int, steps: int, look: AppearanceSettings) -> dict[str, Any]:
    """Return the row of so many Gymnasium environments at once."""
    before = Busy()
    rate = alone(steps, look) if count == 1 else together(count, steps, look)
    return {'what': 'in process',
            'driver': f'{count} environment{"s" * (count > 1)}, {look.world}',
            'camera': '320x240', 'steps a second': round(rate, 1),
            'busy elsewhere [cores]': round(before.elsewhere(), 2)}


def claims_of(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the goals say of our rows."""
    return [{'name': f'{row["what"]}, {row["driver"]}, {row["camera"]}: environment steps',
             'value': row['steps a second'], 'unit': '1/s', 'goal': GOALS[row['what']],
             'holds': row['steps a second'] >= GOALS[row['what']]}
            for row in table if row['driver'] != 'plain node' and row['camera'] == '320x240']


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=above_zero, default=30.0, help='of each session')
    parser.add_argument('--steps', type=at_least_one, default=3000,
                        help='of each environment in process')
    parser.add_argument('--only', choices=tuple(GOALS), help='measure only these')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    os.environ.update(ros_environment(os.environ))
    table: list[dict[str, Any]] = []

    def add(one: dict[str, Any]) -> None:
        table.append(one)
        print(', '.join(f'{key} {value}' for key, value in one.items()), flush=True)

    if options.only != 'graph':
        usual = AppearanceSettings()
        add(process_row(1, options.steps, AppearanceSettings(world='clean')))
        for count in sorted({1, len(os.sched_getaffinity(0))}):
            add(process_row(count, options.steps, usual))
    if options.only != 'in process':
        domain, lease = take_domain(simulated=True)
        for width, height in SIZES:
            for plain in (False, True):
                add(graph_row(plain, width, height, options.seconds, domain))
        if lease is not None:
            lease.release()
    return conclude('lockstep', claims_of(table), table, options.json)


if __name__ == '__main__':
    sys.exit(main())
