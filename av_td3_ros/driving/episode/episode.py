"""One drive along one route: from measurements to the policy's state, reward and ending."""
from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.episode.metrics import EpisodeMeter, EpisodeMetrics
from av_td3_ros.driving.episode.reward import (
    NO_REWARD,
    RewardSettings,
    RewardTerms,
    Situation,
    reward,
)
from av_td3_ros.driving.episode.termination import (
    TerminationSettings,
    is_collision,
    is_standing,
    judge,
)
from av_td3_ros.driving.perception.state import WAYPOINT_SPACING, state_size, state_vector
from av_td3_ros.driving.perception.vehicle_state import (
    NO_EVENTS,
    Events,
    MeasurementError,
    VehicleState,
)
from av_td3_ros.driving.route.tracker import RoutePosition, RouteTracker
from av_td3_ros.settings import group, setting


@dataclasses.dataclass(frozen=True)
class DrivingSettings:
    """Say what the policy sees, what it is rewarded for and when its episodes end."""

    waypoints: int = setting(25, 'route points ahead in the state vector, at 2 m spacing',
                             minimum=1, maximum=500)
    target_speed: float = setting(10.0, 'speed in m/s at which driving is worth most',
                                  minimum=0.5, maximum=60.0)
    reward: RewardSettings = group(RewardSettings, 'weights and scales of the reward')
    termination: TerminationSettings = group(TerminationSettings, 'when an episode ends')

    @property
    def state_size(self) -> int:
        """Return how many numbers the state vector has."""
        return state_size(self.waypoints)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """
    Hold one step of an episode as RLDS has it.

    state: float32[3 + 2n]; reward and its terms followed the action before this step; is_last
    without is_terminal is a truncation; reason: why the episode ends here, '' while it goes on.
    """

    state: npt.NDArray[np.float32]
    reward: float
    terms: RewardTerms
    is_first: bool
    is_last: bool
    is_terminal: bool
    reason: str
    position: RoutePosition


class Episode:
    """
    Judge a drive along a route, step by step.

    `route_points` are (N, 2) x, y or (N, 3) x, y, yaw of the map's frame. The time of each step is
    that between its stamps. Raises ValueError for a route without two distinct points.
    """

    def __init__(self, settings: DrivingSettings, route_points: npt.ArrayLike) -> None:
        self.settings = settings
        self._tracker = RouteTracker(route_points)
        self._begin()

    def _begin(self) -> None:
        self._tracker.reset()
        self._meter = EpisodeMeter(self.settings.reward.half_lane_width)
        self._vehicle: VehicleState | None = None
        self._distance = 0.0
        self._furthest = 0.0
        self._acceleration: float | None = None
        self._standing_steps = 0
        self.steps = 0
        self.reason = ''

    @property
    def route_length(self) -> float:
        """Return the length of the route in m."""
        return self._tracker.length

    @property
    def is_over(self) -> bool:
        """Return whether the last step was given."""
        return self.reason != ''

    def first(self, vehicle: VehicleState) -> Step:
        """Begin (again) with the vehicle where it stands; the first step has no reward."""
        self._begin()
        position = self._tracker.update(vehicle.x, vehicle.y, vehicle.yaw)
        self._vehicle = vehicle
        self._distance = position.distance
        self._furthest = position.completion
        return Step(self._state(vehicle, position), 0.0, NO_REWARD, is_first=True, is_last=False,
                    is_terminal=False, reason='', position=position)

    def step(self, vehicle: VehicleState, events: Events = NO_EVENTS) -> Step:
        """
        Take the next measurement and what happened on the way to it.

        Raises MeasurementError when it is not newer than the one before (the episode then stands
        as before), RuntimeError before `first` and after the last step.
        """
        before = self._vehicle
        if before is None or self.is_over:
            raise RuntimeError(f'the episode is over ({self.reason}); begin one with first()'
                               if self.is_over else 'begin the episode with first()')
        dt = (vehicle.stamp_ns - before.stamp_ns) * 1e-9
        if dt <= 0.0:
            raise MeasurementError(f'odometry at {vehicle.stamp_ns} ns is not newer than the one '
                                   f'before it at {before.stamp_ns} ns; begin a new episode '
                                   'after a time jump')
        position = self._tracker.update(vehicle.x, vehicle.y, vehicle.yaw)
        self.steps += 1
        standing = is_standing(self.settings.termination, vehicle.speed, events.gap)
        self._standing_steps = self._standing_steps + 1 if standing else 0
        collided = is_collision(self.settings.termination, events.collision_impulse)
        ending = judge(self.settings.termination, lateral=position.lateral,
                       remaining=position.remaining, steps=self.steps,
                       standing_steps=self._standing_steps, collided=collided)
        self.reason = '' if ending is None else ending.reason
        acceleration = (vehicle.speed - before.speed) / dt
        jerk = None if self._acceleration is None else (acceleration - self._acceleration) / dt
        terms = reward(self.settings.reward, Situation(
            dt=dt,
            progress=position.distance - self._distance,
            speed=vehicle.speed,
            target_speed=self.settings.target_speed,
            lateral=position.lateral,
            heading_error=position.heading_error,
            jerk=jerk or 0.0,
            lateral_acceleration=vehicle.speed * vehicle.yaw_rate,
            gap=events.gap,
            time_to_collision=events.time_to_collision,
            # The contact itself slows the vehicle down: what counts is the speed before it.
            impact_speed=max(abs(before.speed), abs(vehicle.speed)),
            reason=self.reason))
        self._meter.add(dt=dt, reward=terms.total, speed=vehicle.speed, yaw_rate=vehicle.yaw_rate,
                        lateral=position.lateral, jerk=jerk,
                        time_to_collision=events.time_to_collision, collided=collided,
                        hit_vehicle=events.hit_vehicle, lane_invasions=events.lane_invasions)
        self._vehicle = vehicle
        self._distance = position.distance
        self._furthest = max(self._furthest, position.completion)
        self._acceleration = acceleration
        return Step(self._state(vehicle, position), terms.total, terms, is_first=False,
                    is_last=ending is not None,
                    is_terminal=ending is not None and ending.terminal,
                    reason=self.reason, position=position)

    def summary(self) -> EpisodeMetrics:
        """Return the metrics of the steps so far."""
        return self._meter.result(self.reason, self._tracker.length, self._furthest)

    def _state(self, vehicle: VehicleState, position: RoutePosition) -> npt.NDArray[np.float32]:
        ahead = self._tracker.waypoints_ahead(vehicle, self.settings.waypoints, WAYPOINT_SPACING)
        return state_vector(vehicle.speed, position, ahead)
