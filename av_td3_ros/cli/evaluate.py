"""Let drivers drive the same episodes through the real nodes, and compare them."""
from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.session import Session
from av_td3_ros.cli.video import VideoWriter, annotate
from av_td3_ros.driving.metrics import EpisodeMetrics, summarise
from av_td3_ros.ros.graph import session_nodes

PATIENCE = 60.0  # s of wall time without a finished episode before an evaluation gives up
VIDEO_SCALE = 2


class Evaluation:
    """Hold what an evaluation needs to be the same for every driver."""

    def __init__(self, config: Config, run: Path, *, map_name: str, episodes: int, seed: int,
                 profile: str, vehicle: str, domain: int, log_level: str,
                 check_interrupt: Callable[[], None]) -> None:
        if episodes < 1:
            raise ValueError(f'{episodes} evaluation episodes: give 1 or more')
        self._config = config
        self._run = run
        self._map, self._episodes, self._seed = map_name, episodes, seed
        self._profile, self._vehicle, self._domain = profile, vehicle, domain
        self._log_level = log_level
        self._check_interrupt = check_interrupt

    def drive(self, name: str, driver: str, weights: Path | None = None,
              video: Path | None = None) -> dict[str, Any]:
        """
        Let one driver drive every episode; return its part of evaluation.json.

        Raises SessionError when a node ends, TimeoutError when no episode ends for too long.
        """
        parameters = self._run / 'logs' / name / 'config.yaml'
        parameters.parent.mkdir(parents=True, exist_ok=True)
        self.configured(driver, weights).write(parameters, f'evaluation of {name}')
        nodes = session_nodes(self._profile, self._vehicle, learning=False)
        heard = _Heard(self._episodes)
        environment, control = (next(one for one in nodes if one.name == name)
                                for name in ('environment_node', 'control_node'))
        with contextlib.ExitStack() as stack:
            monitor = Monitor('evaluator', self._domain)
            monitor.on_episode(environment.topic('~/output/episode_summary'), heard.episode)
            monitor.on_odometry(environment.topic('~/input/odometry'), heard.odometry)
            if video is not None:
                film = _Film(stack, video, f'{name} on {self._map}', heard)
                monitor.on_applied(control.topic('~/output/applied_action'), heard.applied)
                monitor.on_image(environment.topic('~/input/image'), film.frame)
            stack.enter_context(monitor)
            session = stack.enter_context(
                Session(nodes, parameters, parameters.parent, self._log_level))
            while not heard.complete.wait(0.1):
                self._check_interrupt()
                session.check()
                if time.monotonic() - heard.heard_at > PATIENCE:
                    raise TimeoutError(
                        f'no episode of {name} ended within {PATIENCE:g} s; {len(heard.records)} '
                        f'of {self._episodes} done; see {parameters.parent}')
        return self._result(driver, weights, heard)

    def configured(self, driver: str, weights: Path | None) -> Config:
        """Return what the nodes are told for one driver."""
        return self._config.with_values({
            'simulator_node': {'seed': self._seed,
                               **({'world.map': self._map} if self._map else {})},
            'environment_node': {
                'episodes.seed': self._seed, 'first_episode': 0, 'wait_for': 2,
                'episodes.max_offset': 0.0, 'episodes.max_yaw_offset': 0.0,
                'episodes.max_speed': 0.0},
            'policy_node': {'driver': driver, 'training': False,
                            'weights': str(weights) if weights else ''}})

    def _result(self, driver: str, weights: Path | None, heard: _Heard) -> dict[str, Any]:
        episodes = [EpisodeMetrics.from_dict(record) for record in heard.records]
        metrics = summarise(episodes, self._seed)
        return {
            'policy': str(weights) if weights else driver, 'maps': [self._map],
            'episodes': [{**metrics_.to_dict(), 'path': path}
                         for metrics_, path in zip(episodes, heard.paths, strict=True)],
            'metrics': metrics,
            **{name: metrics[name]['mean'] for name in
               ('success', 'route_completion', 'mean_return')}}


class _Heard:
    """What the monitor's thread collects of one evaluation."""

    def __init__(self, episodes: int) -> None:
        self._wanted = episodes
        self.records: list[dict[str, Any]] = []
        self.paths: list[list[tuple[float, float, float]]] = []
        self.complete = threading.Event()
        self.heard_at = time.monotonic()
        self.speed = self.steer = self.acceleration = 0.0
        self._track: list[tuple[int, float, float, float]] = []

    def odometry(self, stamp_ns: int, x: float, y: float, speed: float) -> None:
        self.speed = speed
        self._track.append((stamp_ns, x, y, speed))

    def applied(self, steer: float, acceleration: float) -> None:
        self.steer, self.acceleration = steer, acceleration

    def episode(self, record: dict[str, Any]) -> None:
        if record['result'] == 'interrupted' or self.complete.is_set():
            return
        self.heard_at = time.monotonic()
        end = record['stamp_ns']
        start = end - round(record['duration'] * 1e9) - 1_000_000
        # Every other point of 20 Hz is enough to draw.
        self.paths.append([(round(x, 2), round(y, 2), round(speed, 2))
                           for stamp, x, y, speed in self._track if start <= stamp <= end][::2])
        self._track = [one for one in self._track if one[0] > end]
        self.records.append(record)
        if len(self.records) == self._wanted:
            self.complete.set()


class _Film:
    """The camera's images as a video with what is known of them."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, title: str,
                 heard: _Heard) -> None:
        self._stack, self._path, self._title, self._heard = stack, path, title, heard
        self._writer: VideoWriter | None = None

    def frame(self, image: np.ndarray) -> None:
        if self._heard.complete.is_set():
            return
        bgr = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) if image.shape[2] == 4 else image
        lines = [self._title, f'episode {len(self._heard.records) + 1}   '
                 f'{self._heard.speed:4.1f} m/s']
        picture = annotate(bgr, lines, self._heard.steer, self._heard.acceleration,
                           scale=VIDEO_SCALE)
        if self._writer is None:
            height, width = picture.shape[:2]
            self._writer = self._stack.enter_context(VideoWriter(self._path, width, height))
        self._writer.write(picture)


def write_evaluation(path: Path, evaluation: dict[str, Any]) -> None:
    """Write evaluation.json whole or not at all."""
    beside = path.with_suffix('.writing')
    beside.write_text(json.dumps(evaluation, indent=1), encoding='utf-8')
    beside.replace(path)
