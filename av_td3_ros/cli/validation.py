"""Drive every checkpoint of a run on routes that are not trained on, and choose the best."""
from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.evaluation import Candidate, drive_in_process
from av_td3_ros.cli.pictures.plots import VALIDATION_FILE, read_validations
from av_td3_ros.driving.episode.metrics import MERIT, summarise
from av_td3_ros.ros.runtime import APART
from av_td3_ros.td3.checkpoint import LATEST, CheckpointError, load, mark_best

SEEDS = 5_000  # added to the training's seed: routes that are neither trained nor evaluated on
NEWEST = 3  # checkpoints that the best one is chosen from
TOLD = ('success', 'route_completion', 'mean_return', 'reward_per_second')
LOOK = 0.5  # s between two looks for a new checkpoint
LEAST_PRIORITY = 19
FINISH = b'finish\n'


class Validation:
    """
    Validate a run's checkpoints in a process beside its training; a context manager.

    The process has the lowest priority and a simulator of its own. It takes the newest checkpoint
    whenever it is free. With 0 episodes there is none.
    """

    def __init__(self, run: Path, episodes: int) -> None:
        self._run, self._episodes = run, episodes
        self._process: subprocess.Popen[bytes] | None = None
        self._told = 0

    def __enter__(self) -> Validation:
        """Start the process."""
        if self._episodes:
            logs = self._run / 'logs'
            logs.mkdir(exist_ok=True)
            with (logs / 'validation.log').open('wb') as log:
                self._process = subprocess.Popen(
                    [sys.executable, '-m', 'av_td3_ros.cli.validation', str(self._run),
                     str(self._episodes)], stdin=subprocess.PIPE, stdout=log, stderr=log,
                    **APART)
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def news(self) -> list[dict[str, Any]]:
        """Return what was validated since the last call."""
        known = read_validations(self._run)
        fresh, self._told = known[self._told:], len(known)
        return fresh

    def finish(self, meanwhile: Callable[[], None]) -> None:
        """Let it finish with the last checkpoint, calling `meanwhile` again and again."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: its log tells why
            self._process.stdin.write(FINISH)
            self._process.stdin.flush()
        while self._process.poll() is None:
            meanwhile()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)


def choose(run: Path) -> dict[str, Any] | None:
    """
    Make `best` lead to the best of the last validated checkpoints; return its record.

    None when no checkpoint that is still there was validated: `best` stays as it is.
    """
    known = [one for one in read_validations(run)
             if (run / 'checkpoints' / one['checkpoint']).is_dir()]
    if not known:
        return None
    best = max(known[-NEWEST:], key=lambda one: [one.get(name, -math.inf) for name in MERIT])
    mark_best(run / 'checkpoints' / best['checkpoint'])
    return best


def validate(run: Path, folder: Path, episodes: int) -> dict[str, Any]:
    """
    Drive a checkpoint without exploring, as the run's nodes would; return what it reached.

    Raises CheckpointError when it is gone already.
    """
    config = Config.read(run / 'config.yaml')
    simulator, learner = config.settings['simulator_node'], config.settings['learner_node']
    records = drive_in_process(config, Candidate(folder.name, weights=folder),
                               simulator.world.map, episodes, learner.seed + SEEDS,
                               parallel=episodes)
    found = summarise([one.metrics for one in records])
    return {'checkpoint': folder.name, 'updates': _updates(folder), 'episodes': episodes,
            **{name: found[name]['mean'] for name in TOLD}}


def _updates(checkpoint: Path) -> int:
    """Return the updates that a checkpoint's folder is named by."""
    return int(checkpoint.name.partition('.')[0])


def main() -> int:
    """Validate the newest checkpoint again and again, until the session ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', type=Path)
    parser.add_argument('episodes', type=int)
    options = parser.parse_args()
    os.nice(LEAST_PRIORITY)
    ended = threading.Event()

    def listen() -> None:
        if sys.stdin.buffer.readline() != FINISH:
            os._exit(1)  # the session is gone, and nobody waits for this
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    latest = options.run / 'checkpoints' / LATEST
    done, driven = latest.parent / 'none', ''
    while True:
        last = ended.wait(LOOK)  # before the look: what was there at the end is seen
        newest = latest.resolve()
        if newest != done and newest.is_dir() and _updates(newest) > 0:
            done = newest
            try:
                digest = load(newest).agent_digest
                if digest == driven:
                    continue  # the last one holds more to learn from, but the same policy
                driven = digest
                found = validate(options.run, newest, options.episodes)
            except CheckpointError as error:
                print(error, flush=True)  # newer ones took its place meanwhile
                continue
            with (options.run / VALIDATION_FILE).open('a', encoding='utf-8') as file:
                file.write(json.dumps(found) + '\n')
        elif last:
            return 0


if __name__ == '__main__':
    sys.exit(main())
