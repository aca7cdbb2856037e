"""How well a vehicle drove: one episode's metrics, and those of many with their uncertainty."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.episode.termination import ROUTE_COMPLETED

REVERSAL_CURVATURE = 0.01  # 1/m: about 1.5 degrees of steering of a passenger car
REVERSAL_SPEED = 1.0       # m/s: below, curvature is not measurable from the yaw rate
VEHICLE_PENALTY, STATIC_PENALTY = 0.60, 0.65  # of CARLA's leaderboard, for each collision
CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class EpisodeMetrics:
    """
    Hold one episode's result and driving metrics, in SI units and simulated time.

    result: the reason of its ending; success: whether the route was completed; total_reward: the
    episode's return; route_completion: 0 to 1; driving_score: 0 to 1, as `driving_score` has it;
    distance: m driven; vehicle_collisions: those of the collisions that were with vehicles;
    off_road_share: share of the time with the vehicle's centre outside its lane; cross_track:
    lateral error in m; jerk in m/s^3; min_ttc: smallest time to collision by closing speed in s,
    None when nothing got closer; steering_reversals: how often the curve driven changed direction.
    """

    result: str
    success: bool
    total_reward: float
    steps: int
    duration: float
    route_length: float
    route_completion: float
    driving_score: float
    distance: float
    mean_speed: float
    max_speed: float
    collisions: int
    vehicle_collisions: int
    lane_invasions: int
    off_road_share: float
    cross_track_rms: float
    cross_track_max: float
    jerk_rms: float
    lateral_acceleration_rms: float
    min_ttc: float | None
    steering_reversals: int

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain values for JSON; `total_reward` is named return there."""
        return {_outside(field.name): getattr(self, field.name)
                for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpisodeMetrics:
        """
        Build the metrics from what `to_dict` returned; other keys are left alone.

        Raises ValueError naming the keys that are missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [_outside(name) for name in names if _outside(name) not in values]
        if missing:
            raise ValueError(f'episode metrics lack {", ".join(missing)}')
        return cls(**{name: values[_outside(name)] for name in names})


def _outside(name: str) -> str:
    """Return a field's name as others see it (return is a word of the language)."""
    return 'return' if name == 'total_reward' else name


def driving_score(completion: float, off_road: float, vehicle_collisions: int,
                  static_collisions: int) -> float:
    """
    Return the driving score of CARLA's leaderboard, 0 to 1, for one episode.

    Route completion, without the share `off_road` of the distance that was driven outside the
    lane, times 0.60 for each collision with a vehicle and 0.65 for each with anything else
    (CARLA Autonomous Driving Leaderboard, "Evaluation and metrics"). Of its other infractions,
    leaving the route, standing still and running out of time end the episode, so that completion
    is what was reached; pedestrians, traffic lights and stop signs do not exist here.
    """
    return (completion * (1.0 - off_road) * VEHICLE_PENALTY ** vehicle_collisions
            * STATIC_PENALTY ** static_collisions)


class EpisodeMeter:
    """Gather an episode's metrics step by step, in constant memory."""

    def __init__(self, half_lane_width: float) -> None:
        """Count time beyond `half_lane_width` m of lateral error as off the road."""
        self._half_lane_width = half_lane_width
        self._steps = 0
        self._return = 0.0
        self._duration = 0.0
        self._distance = 0.0
        self._off_road_distance = 0.0
        self._max_speed = 0.0
        self._collisions = 0
        self._vehicle_collisions = 0
        self._lane_invasions = 0
        self._off_road_time = 0.0
        self._lateral_squared = 0.0
        self._lateral_max = 0.0
        self._jerk_squared = 0.0
        self._jerk_time = 0.0
        self._lateral_acceleration_squared = 0.0
        self._min_ttc: float | None = None
        self._reversals = _ReversalCounter()

    def add(self, *, dt: float, reward: float, speed: float, yaw_rate: float, lateral: float,
            jerk: float | None, time_to_collision: float | None, collided: bool,
            lane_invasions: int, hit_vehicle: bool = False) -> None:
        """
        Add one step that took `dt` s: m/s, rad/s, m, m/s^3 and s; jerk None where not known yet.

        Means and shares are weighted with dt, so that uneven steps count for what they are. The
        jerk of a crash is left out: it counts as a collision and would outweigh all driving.
        """
        self._steps += 1
        self._return += reward
        self._duration += dt
        self._distance += abs(speed) * dt
        off_road = abs(lateral) > self._half_lane_width
        self._off_road_distance += abs(speed) * dt * off_road
        self._max_speed = max(self._max_speed, abs(speed))
        self._collisions += collided
        self._vehicle_collisions += collided and hit_vehicle
        self._lane_invasions += lane_invasions
        self._off_road_time += dt * off_road
        self._lateral_squared += dt * lateral * lateral
        self._lateral_max = max(self._lateral_max, abs(lateral))
        if jerk is not None and not collided:
            self._jerk_squared += dt * jerk * jerk
            self._jerk_time += dt
        self._lateral_acceleration_squared += dt * (speed * yaw_rate) ** 2
        if time_to_collision is not None:
            self._min_ttc = (time_to_collision if self._min_ttc is None
                             else min(self._min_ttc, time_to_collision))
        if abs(speed) >= REVERSAL_SPEED:
            self._reversals.add(yaw_rate / speed)

    def result(self, reason: str, route_length: float, route_completion: float) -> EpisodeMetrics:
        """Return the metrics of the steps so far, of an episode that ended for `reason`."""
        time = max(self._duration, 1e-9)
        success = reason == ROUTE_COMPLETED
        completion = 1.0 if success else route_completion
        return EpisodeMetrics(
            result=reason,
            success=success,
            total_reward=self._return,
            steps=self._steps,
            duration=self._duration,
            route_length=route_length,
            route_completion=completion,
            driving_score=driving_score(
                completion, self._off_road_distance / max(self._distance, 1e-9),
                self._vehicle_collisions, self._collisions - self._vehicle_collisions),
            distance=self._distance,
            mean_speed=self._distance / time,
            max_speed=self._max_speed,
            collisions=self._collisions,
            vehicle_collisions=self._vehicle_collisions,
            lane_invasions=self._lane_invasions,
            off_road_share=self._off_road_time / time,
            cross_track_rms=math.sqrt(self._lateral_squared / time),
            cross_track_max=self._lateral_max,
            jerk_rms=math.sqrt(self._jerk_squared / max(self._jerk_time, 1e-9)),
            lateral_acceleration_rms=math.sqrt(self._lateral_acceleration_squared / time),
            min_ttc=self._min_ttc,
            steering_reversals=self._reversals.count)


class _ReversalCounter:
    """Count how often a curvature turns round by more than REVERSAL_CURVATURE."""

    def __init__(self) -> None:
        self.count = 0
        self._direction = 0
        self._low = math.inf
        self._high = -math.inf

    def add(self, curvature: float) -> None:
        """Take the next curvature in 1/m."""
        self._low = min(self._low, curvature)
        self._high = max(self._high, curvature)
        if self._direction >= 0 and curvature < self._high - REVERSAL_CURVATURE:
            self.count += self._direction > 0
            self._direction, self._low = -1, curvature
        elif self._direction <= 0 and curvature > self._low + REVERSAL_CURVATURE:
            self.count += self._direction < 0
            self._direction, self._high = 1, curvature


# Means over the episodes that have the value: name of the summary, value of an episode.
MEANS: dict[str, Callable[[EpisodeMetrics], float | None]] = {
    'success': lambda one: float(one.success),
    'route_completion': lambda one: one.route_completion,
    'driving_score': lambda one: one.driving_score,
    'mean_return': lambda one: one.total_reward,
    'steps': lambda one: float(one.steps),
    'duration': lambda one: one.duration,
    'completion_time': lambda one: one.duration if one.success else None,
    'max_speed': lambda one: one.max_speed,
    'off_road_share': lambda one: one.off_road_share,
    'cross_track_rms': lambda one: one.cross_track_rms,
    'cross_track_max': lambda one: one.cross_track_max,
    'jerk_rms': lambda one: one.jerk_rms,
    'lateral_acceleration_rms': lambda one: one.lateral_acceleration_rms,
    'min_ttc': lambda one: one.min_ttc,
}
# Sums over sums: long episodes count for more.
RATIOS: dict[str, Callable[[EpisodeMetrics], tuple[float, float]]] = {
    'mean_speed': lambda one: (one.distance, one.duration),
    'collisions_per_km': lambda one: (float(one.collisions), one.distance / 1000.0),
    'lane_invasions_per_km': lambda one: (float(one.lane_invasions), one.distance / 1000.0),
    'steering_reversals_per_km': lambda one: (float(one.steering_reversals),
                                              one.distance / 1000.0),
    'reward_per_second': lambda one: (one.total_reward, one.duration),
}
MERIT = ('success', 'reward_per_second')
"""What the better of two policies has more of, the first first: a return over whole routes would
call the slower of two precise ones better, which gets as much of every metre."""


def summarise(episodes: Sequence[EpisodeMetrics], seed: int = 0) -> dict[str, dict[str, float]]:
    """
    Return {name: {'mean', 'low', 'high'}}, with the bootstrap's 95 % percentile interval.

    A metric that no episode has (the time to collision on an empty road, a rate over no
    distance) is left out. The same episodes and seed give the same numbers.
    Raises ValueError without episodes.
    """
    if not episodes:
        raise ValueError('no episodes to summarise; run at least one')
    draws = np.random.default_rng(seed).integers(len(episodes), size=(RESAMPLES, len(episodes)))
    summary: dict[str, dict[str, float]] = {}
    for name, value_of in MEANS.items():
        values = [value_of(one) for one in episodes]
        top = np.array([0.0 if value is None else value for value in values])
        bottom = np.array([float(value is not None) for value in values])
        _put_ratio(summary, name, top, bottom, draws)
    for name, parts_of in RATIOS.items():
        parts = np.array([parts_of(one) for one in episodes])
        _put_ratio(summary, name, parts[:, 0], parts[:, 1], draws)
    return summary


def _put_ratio(summary: dict[str, dict[str, float]], name: str, top: npt.NDArray[np.float64],
               bottom: npt.NDArray[np.float64], draws: npt.NDArray[np.int64]) -> None:
    """Put sum(top) / sum(bottom) into the summary with its interval over the drawn episodes."""
    if bottom.sum() <= 0.0:
        return
    tops, bottoms = top[draws].sum(axis=1), bottom[draws].sum(axis=1)
    drawn = tops[bottoms > 0.0] / bottoms[bottoms > 0.0]
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(drawn, (tail, 100.0 - tail))
    summary[name] = {'mean': float(top.sum() / bottom.sum()), 'low': float(low),
                     'high': float(high)}
