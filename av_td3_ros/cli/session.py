"""The processes of a session: started together, watched, and none left behind."""
from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from av_td3_ros.ros import shared_memory
from av_td3_ros.ros.graph import ProcessSpec
from av_td3_ros.ros.runtime import (
    APART,
    PARENT,
    DomainLease,
    allocator_environment,
    ros_environment,
)
from av_td3_ros.ros.security import enclave_environment
from av_td3_ros.trust.session_key import SessionKey

VEHICLE = 'ego_vehicle'
STOP_TIMEOUT = 4.0  # s of wall time between the request to end and the end by force
LAST_LINES = 12


class SessionError(RuntimeError):
    """A node that ended although the session goes on."""


@dataclasses.dataclass
class _Running:
    spec: ProcessSpec
    process: subprocess.Popen[bytes]
    log: Path


class Session:
    """
    Run nodes as processes of their own, each with a log file; a context manager.

    The processes get no signal from the terminal: the session alone ends them, at the latest with
    its own death (the kernel sees to that).
    """

    def __init__(self, nodes: Sequence[ProcessSpec], parameter_file: Path, logs: Path,
                 log_level: str = 'info',
                 environment: Mapping[str, str] | None = None,
                 key: SessionKey | None = None) -> None:
        """Make it; with `key` its learner signs and its policy nodes trust nobody else."""
        self._nodes = nodes
        self._key = key
        self._parameters = parameter_file
        self._logs = logs
        self._log_level = log_level
        self._environment = dict(os.environ if environment is None else environment)
        self._running: list[_Running] = []

    def __enter__(self) -> Session:
        """Start every node; end those that started when one cannot."""
        shared_memory.sweep()  # a full /dev/shm would keep all of them from talking
        try:
            for spec in self._nodes:
                self._start(spec)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End every node."""
        for name in self.stop():
            print(f'{name} did not end within {STOP_TIMEOUT:g} s and was killed: what it was '
                  'writing may be incomplete', file=sys.stderr)

    def _start(self, spec: ProcessSpec) -> None:
        environment = {**self._environment, **ros_environment(self._environment),
                       **enclave_environment(spec, self._environment),
                       PARENT: str(os.getpid()), 'PYTHONUNBUFFERED': '1',
                       'RCUTILS_COLORIZED_OUTPUT': '0'}
        if spec.name == 'learner_node':
            environment.update(allocator_environment(self._environment))
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f'{spec.name}.log'
        with log.open('wb') as output:
            process = subprocess.Popen(
                [sys.executable, '-m', spec.module,
                 *spec.arguments(self._parameters, self._key and self._key.parameters(spec.name)),
                 *spec.log_arguments(self._log_level)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=environment, **APART)
        self._running.append(_Running(spec, process, log))

    def states(self) -> dict[str, str]:
        """Return what each node does, by name: running, ended or died."""
        return {one.spec.name: _state(one.process.poll()) for one in self._running}

    def check(self) -> None:
        """Raise SessionError with the name and the last lines of a node that has ended."""
        for one in self._running:
            status = one.process.poll()
            if status is not None:
                raise SessionError(
                    f'{one.spec.name} {_how(status)}; the end of {one.log}:\n'
                    f'{_last_lines(one.log)}')

    def process_ids(self) -> dict[str, int]:
        """Return the process id of each node by name."""
        return {one.spec.name: one.process.pid for one in self._running}

    def stop(self) -> list[str]:
        """Ask every node to end, end by force what does not; return the names of the latter."""
        for one in self._running:
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGINT)
        until = time.monotonic() + STOP_TIMEOUT
        forced = []
        for one in self._running:
            try:
                one.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                forced.append(one.spec.name)
                one.process.kill()
                one.process.wait()
        return forced


class Interrupt:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt at the next look; a context manager."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def check(self) -> None:
        """Raise KeyboardInterrupt when a signal has come."""
        if self._asked:
            raise KeyboardInterrupt


def take_domain(simulated: bool) -> tuple[int, DomainLease | None]:
    """
    Return the ROS domain of this session, for the nodes as well.

    One of its own where everything it talks with is its own; that of the user or the default one
    where a simulator or vehicle is there already.
    """
    given = os.environ.get('ROS_DOMAIN_ID', '')
    if given and not given.isdigit():
        raise ValueError(f'ROS_DOMAIN_ID={given!r} is no domain: set a number from 0 to 101')
    lease = DomainLease() if simulated and not given else None
    domain = lease.domain if lease else int(given or 0)
    os.environ['ROS_DOMAIN_ID'] = str(domain)
    return domain, lease


def _state(status: int | None) -> str:
    return 'running' if status is None else 'ended' if status == 0 else 'died'


def _how(status: int) -> str:
    if status < 0:
        return f'was killed by {signal.Signals(-status).name}'
    return f'ended with status {status}'


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors='replace').splitlines()[-LAST_LINES:]
    return '\n'.join(f'    {line}' for line in lines) or '    (it said nothing)'
