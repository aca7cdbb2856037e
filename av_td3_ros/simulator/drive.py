"""Drive in one process: the same parts as the nodes, in the order of their lockstep."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.camera.frame_stack import Frame, FrameSettings, FrameStack
from av_td3_ros.driving.camera.image import to_observation_frame
from av_td3_ros.driving.command.control import CommandSettings, limit_action, to_carla
from av_td3_ros.driving.episode.episode import DrivingSettings, Episode, Step
from av_td3_ros.driving.episode.metrics import EpisodeMetrics
from av_td3_ros.driving.episode.planner import (
    EpisodePlanner,
    EpisodePlanSettings,
    check_room_to_stop,
)
from av_td3_ros.driving.perception.obstacles import (
    NOTHING_AHEAD,
    Box,
    ObstacleMeter,
    ObstacleSettings,
)
from av_td3_ros.driving.perception.state import SPEED_SCALE
from av_td3_ros.driving.perception.vehicle_state import Events, VehicleState
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.driving.route.planner import RoutePlanner
from av_td3_ros.settings import group
from av_td3_ros.simulator.actors import actors
from av_td3_ros.simulator.vehicle.dynamics import VehicleCommand
from av_td3_ros.simulator.world import STATIC_ID, Snapshot, World, WorldSettings

STANDING = VehicleCommand(brake=1.0)


@dataclasses.dataclass(frozen=True)
class DriveSettings:
    """What the simulator, environment and control nodes would be told."""

    world: WorldSettings = group(WorldSettings, 'map, vehicle, camera, traffic')
    episodes: EpisodePlanSettings = group(EpisodePlanSettings, 'starts and goals')
    frame: FrameSettings = group(FrameSettings, 'the stack of camera frames')
    driving: DrivingSettings = group(DrivingSettings, 'state, reward and termination')
    command: CommandSettings = group(CommandSettings, 'limits on what reaches the vehicle')
    obstacles: ObstacleSettings = dataclasses.field(
        default_factory=lambda: ObstacleSettings(measured=True),
        metadata={'group': 'other vehicles ahead'})

    def __post_init__(self) -> None:
        """Refuse routes too short to stop on."""
        check_room_to_stop(self.episodes, self.driving.target_speed)


class Drive:
    """
    Drive episode after episode without messages, as the nodes do in lockstep.

    `step` holds the latest step of the episode, `snapshot` the world at that time, `applied` the
    latest action that reached the vehicle, float32[2], `ahead` what is in its way. What a message
    would round is rounded alike. Raises ValueError for a map that cannot be driven.
    """

    def __init__(self, settings: DriveSettings | None = None, seed: int = 0) -> None:
        s = self.settings = settings or DriveSettings()
        self.world = World(s.world, seed)
        self._router = RoutePlanner(self.world.road_map)
        self._planner = EpisodePlanner(self.world.road_map, s.episodes)
        self._stack = FrameStack.from_settings(s.frame)
        self._episode: Episode | None = None
        self._obstacles: ObstacleMeter | None = None
        self.step: Step | None = None
        self.snapshot: Snapshot | None = None
        self.applied: npt.NDArray[np.float32] = np.zeros(2, np.float32)
        self.ahead = NOTHING_AHEAD

    @property
    def frames(self) -> Frame:
        """Return the stack of camera frames, uint8 (count, size, size), newest last."""
        return self._stack.frames

    def begin(self, index: int) -> Step:
        """Go to the start of episode `index`; raises ValueError when none can be planned."""
        plan = self._planner.plan(index)
        self.world.teleport(_sent(plan.start))
        self.world.set_velocity(plan.speed)
        route = self._router.plan(self.world.ego_pose, _sent(plan.goal))
        # One tick with the brake, as the last observation of an episode causes it.
        snapshot = self.snapshot = self.world.tick(STANDING)
        self._episode = Episode(self.settings.driving, route.points[:, :2])
        self._obstacles = ObstacleMeter(self.settings.obstacles, route.points[:, :2])
        self.ahead = self._obstacles.measure(_measured(snapshot.ego), self._boxes(snapshot))
        self._stack.restart(self._frame(snapshot), snapshot.stamp_ns)
        self.applied = np.zeros(2, np.float32)
        self.step = self._episode.first(_measured(snapshot.ego))
        return self.step

    def act(self, action: npt.ArrayLike) -> Step:
        """
        Let the vehicle do what the limits leave of an action (2,) in [-1, 1].

        Raises RuntimeError before `begin` and after the last step of an episode.
        """
        if self._episode is None or self._obstacles is None or self.step is None \
                or self.step.is_last:
            raise RuntimeError('no episode to act in: begin one')
        s, dt = self.settings, self.settings.world.fixed_delta_seconds
        speed = float(self.step.state[0]) * SPEED_SCALE
        self.applied = limit_action(np.asarray(action, np.float32), self.applied, speed,
                                    0.05 if self.step.is_first else dt, s.command)
        command = to_carla(self.applied, s.command)
        throttle, steer, brake = (float(np.float32(value)) for value in (
            command.throttle, command.steer, command.brake))
        snapshot = self.snapshot = self.world.tick(
            VehicleCommand(throttle=throttle, steer=-steer, brake=brake))
        self._stack.push(self._frame(snapshot), snapshot.stamp_ns)
        hit = snapshot.collision
        ego = _measured(snapshot.ego)
        self.ahead = self._obstacles.measure(ego, self._boxes(snapshot))
        self.step = self._episode.step(ego, Events(
            hit.magnitude if hit is not None else None, len(snapshot.lane_invasion), *self.ahead,
            hit_vehicle=hit is not None and hit.other_id != STATIC_ID))
        return self.step

    def summary(self) -> EpisodeMetrics:
        """Return the metrics of the episode so far; raises RuntimeError before the first."""
        if self._episode is None:
            raise RuntimeError('no episode yet: begin one')
        return self._episode.summary()

    def _frame(self, snapshot: Snapshot) -> Frame:
        assert snapshot.image is not None
        return to_observation_frame(snapshot.image, 'bgra8', self.settings.frame.size)

    def _boxes(self, snapshot: Snapshot) -> list[Box] | None:
        if not self.settings.obstacles.measured:
            return None
        return [dataclasses.replace(one, yaw=_through_quaternion(one.yaw))
                for one in actors(snapshot, self.world.ego)]


def _through_quaternion(yaw: float) -> float:
    """Return a heading as it arrives after a message."""
    z, w = math.sin(yaw / 2), math.cos(yaw / 2)
    return math.atan2(2 * w * z, 1 - 2 * z * z)


def _sent(pose: Pose) -> Pose:
    return Pose(float(pose.x), float(pose.y), _through_quaternion(pose.yaw))


def _measured(vehicle: VehicleState) -> VehicleState:
    return dataclasses.replace(vehicle, yaw=_through_quaternion(vehicle.yaw))
