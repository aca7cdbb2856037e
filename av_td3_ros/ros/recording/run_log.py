"""The log of a run: metrics.jsonl and TensorBoard."""
from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av_td3_msgs.msg import EpisodeSummary, LearnerStatus

from av_td3_ros.ros.recording.records import episode_record, status_record


class RunLog:
    """Append to RUN/metrics.jsonl and RUN/tensorboard; safe to use from two threads."""

    def __init__(self, run: Path) -> None:
        """Open both; raises OSError when the folder cannot be written."""
        from torch.utils.tensorboard import SummaryWriter

        run.mkdir(parents=True, exist_ok=True)
        self._lines = (run / 'metrics.jsonl').open('a', encoding='utf-8')
        self._board = SummaryWriter(str(run / 'tensorboard'))
        self._lock = threading.Lock()

    def update(self, updates: int, metrics: Mapping[str, float]) -> None:
        """Note the metrics of an update."""
        for name, value in metrics.items():
            self._board.add_scalar(f'learner/{name}', value, updates)

    def status(self, wall_time: float, status: LearnerStatus) -> None:
        """Note a status, `wall_time` s after the start."""
        self._write({**status_record(status), 'wall_time': wall_time})

    def episode(self, wall_time: float, transitions: int, message: EpisodeSummary) -> None:
        """Note an episode, `wall_time` s and so many transitions after the start."""
        values = episode_record(message)
        self._write({**values, 'wall_time': wall_time, 'transitions': transitions})
        for name in ('return', 'route_completion', 'mean_speed', 'steps'):
            if name in values:
                self._board.add_scalar(f'episode/{name}', values[name], transitions)

    def _write(self, values: Mapping[str, Any]) -> None:
        with self._lock:
            self._lines.write(json.dumps(values) + '\n')
            self._lines.flush()

    def close(self) -> None:
        """Close both."""
        self._lines.close()
        self._board.close()
