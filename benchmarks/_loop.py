"""A recorder, a learner and what drives, each a process, on one host or on two."""
from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from av_td3_ros.cli.session import VEHICLE, take_domain
from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.ros.recording.bag import read_transitions
from av_td3_ros.ros.recording.transitions import step_record
from av_td3_ros.ros.runtime import APART, PARENT, allocator_environment, ros_environment
from av_td3_ros.td3 import NetworkSettings, load_checkpoint
from av_td3_ros.td3.agent import TD3
from av_td3_ros.td3.replay import SEGMENT, ReplayBuffer
from benchmarks._driver import SIZE, STATE
from benchmarks._places import TwoHosts, across
from benchmarks._sessions import await_that

NODES = ('learner_node', 'recorder_node')
LEARNER: dict[str, Any] = {
    'network.frame_size': SIZE, 'network.state_size': STATE, 'network.channels': [4, 4, 4],
    'network.features': 8, 'network.hidden': [8, 8], 'td3.batch_size': 4,
    'td3.precision': 'float32', 'capacity': 30000, 'status_period': 0.2,
    'limiter.start_after': 10, 'limiter.updates_per_transition': 0.05, 'checkpoint_every': 20,
    'pause_world': False}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a replay differs from a bag: steps of either that the other has not, and copies."""

    recorded: int
    stored: int
    missing: int
    invented: int
    twice: int

    @property
    def is_equal(self) -> bool:
        """Return whether the replay holds each recorded step once, and nothing else."""
        return not (self.missing or self.invented or self.twice)


def compare(run: Path, bag: Path, first: int | None = None) -> Comparison:
    """Compare the replay of the newest checkpoint with a bag, or with its `first` transitions."""
    checkpoint = load_checkpoint(run / 'checkpoints')
    network = checkpoint.network
    capacity = int(checkpoint.config['capacity'])
    replay = ReplayBuffer(capacity, network.frames, network.frame_size, network.state_size)
    checkpoint.restore(TD3(checkpoint.settings, network, 0, 'cpu'), replay)
    stored = collections.Counter(_stored(replay))
    recorded = collections.Counter(_recorded(bag, network, first))
    return Comparison(recorded.total(), stored.total(), (recorded - stored).total(),
                      sum(count for one, count in stored.items() if one not in recorded),
                      sum(count - 1 for count in stored.values()))


def _stored(replay: ReplayBuffer) -> Iterable[bytes]:
    total = replay.total
    for index in range(-(-total // SEGMENT)):
        segment = replay.segment(index, total)
        for row in range(len(segment['serial'])):
            yield _digest(*(segment[name][row] for name in (
                'frame', 'state', 'action', 'reward', 'is_last', 'is_terminal')))


def _recorded(bag: Path, network: NetworkSettings, first: int | None) -> Iterable[bytes]:
    for number, message in enumerate(read_transitions(bag)):
        if number == first:
            return
        one = step_record(message, network)
        zero = np.zeros(2, np.float32)
        yield _digest(one.frame, one.state, zero if one.is_last else one.action,
                      0.0 if one.is_last else one.reward, one.is_last, one.is_terminal)


def _digest(frame: Any, state: Any, action: Any, reward: Any, *flags: Any) -> bytes:
    made = hashlib.blake2b(digest_size=16)
    for part in (np.asarray(frame, np.uint8), np.asarray(state, np.float32),
                 np.asarray(action, np.float32), np.float32(reward), np.asarray(flags, np.bool_)):
        made.update(part.tobytes())
    return made.digest()


def actions(bag: Path) -> int:
    """Return how many transitions of a bag hold an action: those that a learner counts."""
    return sum(not one.is_last for one in read_transitions(bag))


class Loop:
    """The processes of a loop that leads from steps to a replay; a context manager."""

    def __init__(self, folder: Path, hosts: TwoHosts | None = None, bag: Path | None = None,
                 learner: Mapping[str, Any] | None = None) -> None:
        """Recorder and driver run on the first of two hosts, the learner on the second."""
        self.run, self.bag = folder / 'run', bag or folder / 'bag'
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._hosts = folder, hosts
        self._parameters = folder / 'parameters.yaml'
        self._parameters.write_text(yaml.safe_dump({
            f'/**/{node}': {'ros__parameters': values} for node, values in (
                ('learner_node', {**LEARNER, 'run': str(self.run), **(learner or {})}),
                ('recorder_node', {'bag': str(self.bag)}))}), encoding='utf-8')
        self._specs = {spec.name: spec for spec in session_nodes('embedded', VEHICLE, True)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        os.environ.pop('ROS_DOMAIN_ID', None)
        _, self._lease = take_domain(True)
        os.environ.update(ros_environment(os.environ))  # the bag is read here as well
        self._episodes = 0

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        if self._lease is not None:
            self._lease.release()

    def _popen(self, name: str, host: int, *words: str) -> None:
        environment = {**os.environ, PARENT: str(os.getpid()), 'PYTHONUNBUFFERED': '1',
                       'RCUTILS_COLORIZED_OUTPUT': '0'}
        if self._hosts is not None:
            environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'SUBNET'
            if name in ('learner_node', 'recorder_node'):  # as the launch files have it
                environment = across(environment)
        environment |= ros_environment(environment)
        if name == 'learner_node':
            environment |= allocator_environment(environment)
        prefix = self._hosts.on(host) if self._hosts is not None else []
        with (self._folder / f'{name}.log').open('ab') as log:
            self._running[name] = subprocess.Popen(
                [*prefix, sys.executable, '-m', *words], env=environment, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **APART)

    def start(self, name: str) -> None:
        """Start a node, as whoever watches over it would after its death."""
        spec = self._specs[name]
        self._popen(name, int(name == 'learner_node'), spec.module,
                    *spec.arguments(self._parameters))

    def drive(self, steps: int, rate: float) -> None:
        """Start what drives; it goes on until `await_end('driver')` or `kill`."""
        self._popen('driver', 0, 'benchmarks._driver', '--steps', str(steps), '--rate', str(rate),
                    '--first-episode', str(self._episodes))
        self._episodes += steps

    def kill(self, name: str) -> None:
        """Kill a process with SIGKILL and wait for its end."""
        self._running[name].kill()
        self._running[name].wait()

    def end(self, name: str) -> None:
        """End a node as Ctrl-C does, and wait for its end."""
        self._running[name].send_signal(signal.SIGINT)
        self.await_end(name)

    def await_end(self, name: str, timeout: float = 300.0) -> None:
        """Wait for the end of a process."""
        self._running[name].wait(timeout)

    def is_running(self, name: str) -> bool:
        """Return whether a process runs."""
        return self._running[name].poll() is None

    def log(self, name: str) -> str:
        """Return all that a node has said."""
        path = self._folder / f'{name}.log'
        return path.read_text(errors='replace') if path.exists() else ''

    def status(self) -> dict[str, Any]:
        """Return the newest status of the learner, {} before the first."""
        path = self.run / 'metrics.jsonl'
        for line in reversed(path.read_text(encoding='utf-8').splitlines() if path.exists()
                             else []):
            with contextlib.suppress(json.JSONDecodeError):  # a killed process's last line
                found: dict[str, Any] = json.loads(line)
                if found['kind'] == 'learner':
                    return found
        return {}

    def recorded(self) -> int:
        """Return how many transitions are in the bag so far, roughly and fast."""
        return sum(path.stat().st_size for path in self.bag.glob('*.mcap')) // (SIZE * SIZE)

    def await_learned(self, transitions: int, timeout: float = 300.0) -> None:
        """Wait until the learner has counted so many; raises TimeoutError with its last words."""
        try:
            await_that(lambda: self.status().get('transitions', 0) >= transitions,
                       f'{transitions} transitions', timeout)
        except TimeoutError as error:
            raise TimeoutError(f'{error}: {self.status()}\n{self.log("learner_node")[-2000:]}\n'
                               f'{self.log("recorder_node")[-2000:]}') from error

    def finish(self, timeout: float = 300.0) -> Comparison:
        """Let the learner learn of all that is recorded, end both, and compare."""
        self.await_learned(actions(self.bag), timeout)
        self.end('learner_node')
        self.end('recorder_node')
        return compare(self.run, self.bag)
