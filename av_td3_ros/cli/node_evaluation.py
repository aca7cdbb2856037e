"""Let drivers drive the same episodes through the real nodes, and note what they did."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.evaluation import Candidate, configured, title
from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.pictures.film import Film
from av_td3_ros.cli.session import Session
from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.driving.episode.metrics import EpisodeMetrics
from av_td3_ros.driving.episode.record import EpisodeLog, EpisodeRecord
from av_td3_ros.driving.episode.termination import is_collision
from av_td3_ros.ros.graph import session_nodes

PATIENCE = 60.0  # s of wall time without a finished episode before an evaluation gives up
SETTLING = 3  # odometry messages after the last episode, with which its events have arrived
LATE = 10.0  # s of wall time after the last episode that what DDS sends again may take


class Evaluation:
    """Hold what an evaluation needs to be the same for every driver."""

    def __init__(self, config: Config, folder: Path, *, episodes: int, seed: int, profile: str,
                 vehicle: str, domain: int, log_level: str,
                 check_interrupt: Callable[[], None]) -> None:
        """Raise ValueError without episodes; logs and parameters go to `folder`/logs."""
        if episodes < 1:
            raise ValueError(f'{episodes} evaluation episodes: give 1 or more')
        self._config, self._folder = config, folder
        self._episodes, self._seed = episodes, seed
        self._profile, self._vehicle, self._domain = profile, vehicle, domain
        self._log_level = log_level
        self._check_interrupt = check_interrupt

    def drive(self, candidate: Candidate, map_name: str, film: Film | None = None
              ) -> list[EpisodeRecord]:
        """
        Let one driver drive every episode of a map through the nodes, '' where the map is given.

        Raises SessionError when a node ends, TimeoutError when no episode ends for too long.
        """
        config = configured(self._config, candidate, map_name, self._seed)
        parameters = self._folder / 'logs' / candidate.name / Path(map_name).stem / 'config.yaml'
        parameters.parent.mkdir(parents=True, exist_ok=True)
        config.write(parameters, f'evaluation of {candidate.name}')
        nodes = session_nodes(self._profile, self._vehicle, learning=False)
        heard = Heard(self._episodes, config.settings['environment_node'].driving)
        environment, control = (next(one for one in nodes if one.name == name)
                                for name in ('environment_node', 'control_node'))
        with contextlib.ExitStack() as stack:
            monitor = Monitor('evaluator', self._domain)
            monitor.on_episode(environment.topic('~/output/episode_summary'), heard.episode)
            for role, hear in (('~/input/collision', lambda topic: monitor.on_collision(
                                   topic, heard.collision)),
                               ('~/input/lane_invasion', lambda topic: monitor.on_lane_invasion(
                                   topic, heard.lane_invasion))):
                if role in environment.remaps:  # nobody senses these on a real vehicle
                    hear(environment.topic(role))
            monitor.on_odometry(environment.topic('~/input/odometry'), heard.odometry)
            # Episodes begin once this is subscribed to. Who sends odometry has found us by the
            # first that comes, and with it what was subscribed to before: nothing is missed.
            monitor.on_observation(environment.topic('~/output/observation'),
                                   heard.observation, after=lambda: heard.hears_odometry)
            stack.enter_context(monitor)
            if film is not None:
                # A thread of its own: what is slow here must not keep the others from hearing.
                camera = Monitor('evaluator_camera', self._domain)
                camera.on_applied(control.topic('~/output/applied_action'), heard.applied)
                camera.on_image(environment.topic('~/input/image'),
                                heard.filming(film, title(candidate.name, map_name)))
                stack.enter_context(camera)
            session = stack.enter_context(
                Session(nodes, parameters, parameters.parent, self._log_level))
            while not heard.is_complete:
                time.sleep(0.1)
                self._check_interrupt()
                session.check()
                if heard.is_over and time.monotonic() - heard.heard_at > LATE:
                    break  # with what there is
                if time.monotonic() - heard.heard_at > PATIENCE:
                    raise TimeoutError(
                        f'no episode of {candidate.name} ended within {PATIENCE:g} s; '
                        f'{len(heard.summaries)} of {self._episodes} done; see '
                        f'{parameters.parent}')
        return heard.records()


class Heard:
    """What the monitors' threads collect of one evaluation."""

    def __init__(self, episodes: int, driving: DrivingSettings) -> None:
        """Collect so many episodes."""
        self._wanted, self._driving = episodes, driving
        self.summaries: list[dict[str, Any]] = []
        self._beyond = 0
        self.heard_at = time.monotonic()
        self._speed = self._steer = self._acceleration = 0.0
        self._track: list[tuple[int, float, float, float]] = []
        self._laterals: dict[int, float] = {}
        self._impulses: list[tuple[int, float]] = []
        self._invasions: list[tuple[int, int]] = []

    def odometry(self, stamp_ns: int, x: float, y: float, speed: float) -> None:
        """Take where the vehicle is."""
        self._speed = speed
        self._track.append((stamp_ns, x, y, speed))
        self._beyond += self.is_over and stamp_ns > self.summaries[-1]['stamp_ns']

    def observation(self, stamp_ns: int, lateral: float) -> None:
        """Take what an observation says."""
        self._laterals[stamp_ns] = lateral

    def collision(self, stamp_ns: int, impulse: float) -> None:
        """Take a contact."""
        self._impulses.append((stamp_ns, impulse))

    def lane_invasion(self, stamp_ns: int, lines: int) -> None:
        """Take the crossing of lines."""
        self._invasions.append((stamp_ns, lines))

    def applied(self, steer: float, acceleration: float) -> None:
        """Take the action that was applied, for the film."""
        self._steer, self._acceleration = steer, acceleration

    def episode(self, summary: dict[str, Any]) -> None:
        """Take what the environment says of an episode that has ended."""
        if summary['result'] == 'interrupted' or self.is_over:
            return
        self.heard_at = time.monotonic()
        self.summaries.append(summary)

    @property
    def hears_odometry(self) -> bool:
        """Return whether any odometry has come."""
        return bool(self._track)

    @property
    def is_over(self) -> bool:
        """Return whether all episodes have ended, whatever of them is still on its way."""
        return len(self.summaries) == self._wanted

    @property
    def is_complete(self) -> bool:
        """Return whether nothing of any episode is missing: topics do not wait for each other."""
        return (self.is_over and self._beyond >= SETTLING
                and all(map(self._is_whole, self.summaries)))

    def _is_whole(self, summary: dict[str, Any]) -> bool:
        start, end = _span(summary)
        wanted = summary['steps'] + 1
        hits = {at for at, size in tuple(self._impulses)
                if start < at <= end and is_collision(self._driving.termination, size)}
        return (sum(start <= at <= end for at in tuple(self._laterals)) >= wanted
                and sum(start <= one[0] <= end for one in tuple(self._track)) >= wanted
                and len(hits) >= summary['collisions']
                and sum(count for at, count in tuple(self._invasions)
                        if start < at <= end) >= summary['lane_invasions'])

    def filming(self, film: Film, name: str) -> Callable[[np.ndarray], None]:
        """Return what adds images to a film."""
        def see(image: np.ndarray) -> None:
            done = len(self.summaries)
            if done < self._wanted:
                film.add(image, name, done, self._speed, self._steer, self._acceleration)

        return see

    def records(self) -> list[EpisodeRecord]:
        """Return the episodes' records; to be called once complete, or late."""
        return [self._record(summary) for summary in self.summaries]

    def _record(self, summary: dict[str, Any]) -> EpisodeRecord:
        metrics = EpisodeMetrics.from_dict(summary)
        start, end = _span(summary)
        log, before, lateral = EpisodeLog(self._driving), start, 0.0
        for stamp, x, y, speed in sorted(one for one in self._track if start <= one[0] <= end):
            lateral = self._laterals.get(stamp, lateral)
            hits = [size for at, size in self._impulses if before < at <= stamp]
            log.add(stamp_ns=stamp, x=x, y=y, speed=speed, lateral=lateral,
                    impulse=max(hits, default=None),
                    lane_invasions=sum(count for at, count in self._invasions
                                       if before < at <= stamp),
                    reason=metrics.result if stamp == end else '')
            before = stamp
        return log.record(summary['episode'], metrics)


def _span(summary: dict[str, Any]) -> tuple[int, int]:
    """Return the stamps of an episode's first and last observation, ns."""
    return summary['stamp_ns'] - round(summary['duration'] * 1e9), summary['stamp_ns']
