"""Small real sessions: every node a process of its own, which may be killed and started again."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.session import VEHICLE, Session, take_domain
from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.ros.runtime import ros_environment
from av_td3_ros.trust.session_key import SessionKey

SMALL = ('limiter.start_after=100', 'limiter.updates_per_transition=0.5', 'publish_every=20',
         'limiter.slack=50', 'exploration.warmup_steps=100', 'td3.batch_size=16',
         'network.features=16', 'world.camera.width=96', 'world.camera.height=72',
         'episodes.min_length=40', 'episodes.max_length=60', 'checkpoint_every=25',
         'driving.termination.max_steps=200', 'learner_node.capacity=20000')
"""Options that leave a session of all nodes to two busy cores."""


class Processes:
    """The nodes of a training in the embedded simulator; a context manager."""

    def __init__(self, folder: Path, options: tuple[str, ...] = SMALL, steps: int = 0,
                 values: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Write the configuration into `folder`; `steps` transitions end it, 0: it goes on."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        config = Config.shipped().for_training(
            'embedded', VEHICLE, map_name='loop', seed=1, steps=steps).with_options(
            options).writing_to(folder)
        config.with_values(values or {}).write(folder / 'config.yaml', 'a benchmark')
        self._specs = {spec.name: spec for spec in session_nodes('embedded', VEHICLE, True)}
        self._sessions: dict[str, Session] = {}
        self._starts = 0
        self._key = SessionKey()  # or no policy would take new weights
        os.environ.pop('ROS_DOMAIN_ID', None)
        _, self._lease = take_domain(True)
        os.environ.update(ros_environment(os.environ))  # its bag is read here as well

    def __enter__(self) -> Processes:
        for name in self._specs:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._sessions.values():  # all at once: none waits for another
            for process in session.process_ids().values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT)
        for session in self._sessions.values():
            session.stop()
        self._key.remove()
        if self._lease is not None:
            self._lease.release()

    def start(self, name: str) -> None:
        """Start a node, as whoever watches over it would after its death."""
        self._starts += 1
        session = Session([self._specs[name]], self.folder / 'config.yaml',
                          self.folder / 'logs' / f'{self._starts:03d}', key=self._key)
        session.__enter__()
        self._sessions[name] = session

    def process_ids(self) -> dict[str, int]:
        """Return the process id of each node."""
        return {name: session.process_ids()[name] for name, session in self._sessions.items()}

    def kill(self, name: str) -> None:
        """Kill a node as the kernel does when memory is out, and wait for its end."""
        os.kill(self.process_ids()[name], signal.SIGKILL)
        self.await_end(name)

    def end(self, name: str) -> None:
        """End a node as Ctrl-C does, and wait for its end."""
        os.kill(self.process_ids()[name], signal.SIGINT)
        self.await_end(name)

    def await_end(self, name: str) -> None:
        """Wait for the end of a node's process."""
        await_that(lambda: self._sessions[name].states()[name] != 'running', f'the end of {name}')

    def states(self) -> dict[str, str]:
        """Return what each node does: running, ended or died."""
        return {name: session.states()[name] for name, session in self._sessions.items()}

    def log(self, name: str) -> str:
        """Return all that a node's processes have said."""
        return '\n'.join(path.read_text(errors='replace') for path in
                         sorted(self.folder.glob(f'logs/*/{name}.log')))

    def statuses(self) -> Iterator[dict[str, Any]]:
        """Yield every status of the learner so far."""
        path = self.folder / 'metrics.jsonl'
        if not path.exists():
            return
        for line in path.read_text(encoding='utf-8').splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the line of a killed process
                record = json.loads(line)
                if record['kind'] == 'learner':
                    yield record

    def status(self) -> dict[str, Any]:
        """Return the newest status of the learner, {} before the first."""
        return next(iter(reversed(list(self.statuses()))), {})


def await_that(condition: Callable[[], Any], what: str, timeout: float = 180.0) -> Any:
    """Return what `condition` returns once it is true; raise TimeoutError when it never is."""
    until = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f'waited {timeout:g} s in vain for {what}')
        time.sleep(0.02)
    return result
