"""What an episode leaves behind: its metrics, the path driven, and where what went wrong."""
from __future__ import annotations

import dataclasses
from typing import Any

from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.driving.episode.metrics import EpisodeMetrics
from av_td3_ros.driving.episode.termination import (
    COLLISION,
    OFF_ROAD,
    STUCK,
    TIME_LIMIT,
    is_collision,
)

LANE_INVASION = 'lane_invasion'
INFRACTIONS = (COLLISION, OFF_ROAD, LANE_INVASION, STUCK, TIME_LIMIT)
PATH_SPACING = 2  # steps between the points of a path in JSON; more would only make it larger


@dataclasses.dataclass(frozen=True, slots=True)
class Infraction:
    """Say what went wrong where: map coordinates in m, and s since the episode's start."""

    kind: str
    x: float
    y: float
    time: float


@dataclasses.dataclass(frozen=True)
class EpisodeRecord:
    """Hold one episode: its index, metrics, path of (x, y, speed) in m and m/s, infractions."""

    index: int
    metrics: EpisodeMetrics
    path: tuple[tuple[float, float, float], ...]
    infractions: tuple[Infraction, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: the metrics by name, `episode`, `path`, `infractions`."""
        points = self.path[::PATH_SPACING]
        if self.path and (len(self.path) - 1) % PATH_SPACING:
            points += self.path[-1:]
        return {
            **self.metrics.to_dict(), 'episode': self.index,
            'path': [[round(value, 2) for value in point] for point in points],
            'infractions': [dataclasses.asdict(one) for one in self.infractions]}


class EpisodeLog:
    """Note the path and the infractions of one episode, step by step."""

    def __init__(self, settings: DrivingSettings) -> None:
        self._settings = settings
        self._start_ns: int | None = None
        self._is_off_road = False
        self.path: list[tuple[float, float, float]] = []
        self.infractions: list[Infraction] = []

    def add(self, *, stamp_ns: int, x: float, y: float, speed: float, lateral: float,
            impulse: float | None = None, lane_invasions: int = 0, reason: str = '') -> None:
        """
        Take the next step: m, m/s, simulated ns; impulse of a collision in N s, None without.

        `reason`: why the episode ended here, '' while it goes on. Leaving the road counts where it
        begins, each line crossed counts once.
        """
        if self._start_ns is None:
            self._start_ns = stamp_ns
        self.path.append((x, y, speed))
        is_off_road = abs(lateral) > self._settings.reward.half_lane_width
        found = [COLLISION] * is_collision(self._settings.termination, impulse)
        found += [LANE_INVASION] * lane_invasions
        if is_off_road and not self._is_off_road:
            found.append(OFF_ROAD)
        if reason in (STUCK, TIME_LIMIT):
            found.append(reason)
        self._is_off_road = is_off_road
        time = (stamp_ns - self._start_ns) * 1e-9
        self.infractions += [Infraction(kind, x, y, time) for kind in found]

    def record(self, index: int, metrics: EpisodeMetrics) -> EpisodeRecord:
        """Return what was noted, with the metrics of the same episode."""
        return EpisodeRecord(index, metrics, tuple(self.path), tuple(self.infractions))
