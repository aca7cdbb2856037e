"""Turns camera and odometry into observations with rewards, and runs the episodes."""
from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
from av_td3_msgs.msg import EpisodeSummary, Observation
from carla_msgs.msg import (
    CarlaCollisionEvent,
    CarlaLaneInvasionEvent,
    CarlaStatus,
    CarlaWorldInfo,
)
from nav_msgs.msg import Path
from rclpy.node import Node
from std_msgs.msg import Header

from av_td3_ros.driving.camera.frame_stack import FrameSettings, FrameStack
from av_td3_ros.driving.camera.image import Frame
from av_td3_ros.driving.camera.view import CameraViewSettings
from av_td3_ros.driving.episode.episode import DrivingSettings, Episode, Step
from av_td3_ros.driving.episode.planner import (
    EpisodePlanner,
    EpisodePlanSettings,
    check_room_to_stop,
)
from av_td3_ros.driving.perception.obstacles import Box, ObstacleMeter, ObstacleSettings
from av_td3_ros.driving.perception.pairing import PairingSettings
from av_td3_ros.driving.perception.vehicle_state import Events, VehicleState
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.driving.route.tracker import RouteTracker
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import (
    to_bytes,
    to_episode_summary,
    to_floats,
    to_reward_terms,
    to_stamp,
)
from av_td3_ros.ros.diagnostics import OK, WARN, Diagnostics, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.resets import Resetter
from av_td3_ros.ros.runtime import Throttle, actors_on, every, run
from av_td3_ros.ros.sensing import Seen, Sensing
from av_td3_ros.ros.tracing import Trace
from av_td3_ros.settings import group, setting

SILENCE = 0.5  # s of wall time without a frame after which the first reset waits for none
ROUTE_WAIT = 0.5  # s of wall time that a first frame waits for its route, which may come after it


@dataclasses.dataclass(frozen=True)
class EnvironmentSettings:
    """What the environment node is told."""

    vehicle: str = setting('ego_vehicle', 'name that observations carry')
    image_transport: str = setting('raw', 'type of the camera topic',
                                   choices=('raw', 'compressed'))
    resets: bool = setting(True, 'teleport the vehicle to a start of its own for each episode; '
                           'false on a real vehicle, whose route comes from outside')
    reset_timeout: float = setting(3.0, 'wall time in s after which a reset is asked for again',
                                   minimum=0.1, maximum=600.0)
    wait_for: int = setting(2, 'subscribers of observations (policy, control, recorder) that must '
                            'be there before the first episode', minimum=0, maximum=100)
    first_episode: int = setting(0, 'index of the first episode', minimum=0, maximum=2**31 - 1)
    episodes: EpisodePlanSettings = group(EpisodePlanSettings, 'starts and goals')
    frame: FrameSettings = group(FrameSettings, 'the stack of camera frames')
    camera: CameraViewSettings = group(CameraViewSettings, 'a camera unlike that of the training')
    pairing: PairingSettings = group(PairingSettings, 'image and odometry of the same time')
    driving: DrivingSettings = group(DrivingSettings, 'state, reward and termination')
    obstacles: ObstacleSettings = group(ObstacleSettings, 'other vehicles ahead')
    trace: str = setting('', 'CSV file to write at the end: when each frame reached each stage; '
                         'empty: none')

    def __post_init__(self) -> None:
        """Refuse routes too short to stop on; those from outside are not ours to refuse."""
        if self.resets:
            check_room_to_stop(self.episodes, self.driving.target_speed)


class EnvironmentNode(Node):
    """Pairs, stacks, judges; asks the simulator for the next episode's start and goal."""

    def __init__(self) -> None:
        super().__init__('environment_node')
        s = self.settings = declare_settings(self, EnvironmentSettings)
        self._stack = FrameStack.from_settings(s.frame)
        self._trace = Trace(s.trace)
        self._inputs = Inputs(self)
        self._resetter = Resetter(self, s.reset_timeout) if s.resets else None
        self._path: np.ndarray | None = None
        self._episode: Episode | None = None
        self._obstacles: ObstacleMeter | None = None
        self._index = s.first_episode - 1
        self._seen_at = 0.0
        self._vehicle: VehicleState | None = None
        self._routeless_start: Seen | None = None
        self._impulse: float | None = None
        self._hit_vehicle = False
        self._invasions = 0
        self._stamp_ns = 0
        self._gaps = 0
        self._awaited = False
        self.failure = ''
        self._routeless = Throttle(30.0)
        self._frames_of: dict[str, str] = {}  # odometry and route: the frame that each is in

        self._observations = self.create_publisher(
            Observation, '~/output/observation', qos.FOLLOWED)
        self._holds = self.create_publisher(Header, '~/output/hold', qos.STEP)
        self._summaries = self.create_publisher(
            EpisodeSummary, '~/output/episode_summary', qos.EVENT)

        self._sensing = Sensing(
            self, self._inputs, self._trace, transport=s.image_transport, size=s.frame.size,
            camera=s.camera, pairing=s.pairing, with_others=s.obstacles.measured,
            take=self._take, miss=self._hold,
            heard_in=lambda frame: self._agree('odometry', frame))
        self._inputs.listen(CarlaCollisionEvent, '~/input/collision', self._on_collision,
                            qos.EVENT)
        self._inputs.listen(CarlaLaneInvasionEvent, '~/input/lane_invasion',
                            self._on_lane_invasion, qos.EVENT)
        self._inputs.listen(Path, '~/input/path', self._on_path, qos.LATCHED)
        if s.resets:
            self._inputs.listen(CarlaWorldInfo, '~/input/world_info', self._on_world_info,
                                qos.LATCHED)
            self._inputs.listen(CarlaStatus, '~/input/world_status', self._on_world_status,
                                qos.SENSOR)
            every(self, 0.25, self._ask_again)

        diagnostics = Diagnostics(self, s.vehicle)
        diagnostics.add('inputs', self._inputs.tell)
        self._sensing.add_to(diagnostics)
        diagnostics.add('episode', self._tell_episode)

    # -- what comes in

    def _on_world_info(self, message: CarlaWorldInfo) -> None:
        """Learn the roads; episodes begin once they are known."""
        assert self._resetter is not None
        try:
            road_map = RoadMap.from_text(message.opendrive, message.map_name)
            self._resetter.planner = EpisodePlanner(road_map, self.settings.episodes)
        except ValueError as error:
            self.get_logger().error(f'no episodes on map {message.map_name!r}: {error}')
            return
        self._end_episode('interrupted')
        self._resetter.plan = None  # the timer begins the next one, once everybody is there

    def _on_world_status(self, message: CarlaStatus) -> None:
        self._sensing.world_stands = (
            message.synchronous_mode and not message.synchronous_mode_running)

    def _on_collision(self, message: CarlaCollisionEvent) -> None:
        impulse = message.normal_impulse
        size = math.hypot(impulse.x, impulse.y, impulse.z)
        # A contact whose strength nobody knows is a contact all the same.
        size = size if math.isfinite(size) else math.inf
        self._impulse = max(self._impulse or 0.0, size)
        self._hit_vehicle |= message.other_actor_id != 0  # which is what CARLA calls the map

    def _on_lane_invasion(self, message: CarlaLaneInvasionEvent) -> None:
        self._invasions += len(message.crossed_lane_markings)

    def _on_path(self, message: Path) -> None:
        if not message.poses:
            self._path = None
            raise ValueError('it is empty: there is no way to the goal')
        points = np.array([(one.pose.position.x, one.pose.position.y) for one in message.poses])
        RouteTracker(points.reshape(-1, 2))  # refuses what is no route
        self._path = points
        if not self.settings.resets:
            self._end_episode('interrupted')
        self._agree('route', message.header.frame_id)
        start, self._routeless_start = self._routeless_start, None
        if start is not None:
            self._take(*start)

    def _agree(self, what: str, frame: str) -> None:
        """Note the frame of odometry or route; drop a route that is not in the odometry's."""
        if self._frames_of.get(what) == frame:
            return
        self._frames_of[what] = frame
        route, odometry = (self._frames_of.get(one, '').lstrip('/') for one in (
            'route', 'odometry'))
        if self._path is not None and route and odometry and route != odometry:
            self._path = None
            raise ValueError(f'the route is in frame {route!r}, the odometry in {odometry!r}: '
                             "publish the route in the odometry's frame")

    # -- one frame with its odometry

    def _take(self, frame: Frame, vehicle: VehicleState, others: tuple[Box, ...] | None) -> None:
        try:
            self._advance(frame, vehicle, others)
        except ValueError as error:  # time went backwards: the episode cannot go on
            self.get_logger().warning(f'episode {self._index} interrupted: {error}')
            self._end_episode('interrupted')
            self._next_episode()
            self._hold(vehicle)

    def _advance(self, frame: Frame, vehicle: VehicleState,
                 others: tuple[Box, ...] | None) -> None:
        self._stamp_ns, self._seen_at, self._vehicle = vehicle.stamp_ns, time.monotonic(), vehicle
        self._routeless_start = None
        if self._episode is None or self._obstacles is None:
            if self._resetter is not None and self._resetter.plan is None and self._is_awaited():
                # A lockstep world waits meanwhile: it ticks once from the start to the first step.
                self._begin_reset()
            if not self._ready(vehicle):
                if self._resetter is None and self._path is None and self._routeless.ready():
                    self.get_logger().warning(
                        'camera and odometry are there, but no route: publish one')
                if self._stands_at_start(vehicle):
                    # A lockstep world must not go on meanwhile, or no episode begins like another.
                    self._routeless_start = frame, vehicle, others
                else:
                    self._hold(vehicle)
                return
            self._episode = Episode(self.settings.driving, self._path)
            self._obstacles = ObstacleMeter(self.settings.obstacles, self._path)
            self._obstacles.measure(vehicle, others)
            self._index += 0 if self.settings.resets else 1
            self._stack.restart(frame, vehicle.stamp_ns)
            self._gaps = 0
            self._forget_events()
            step = self._episode.first(vehicle)
        else:
            if self._stack.push(frame, vehicle.stamp_ns):
                self._gaps += 1  # a step number is left out: nobody learns across the gap
            ahead = self._obstacles.measure(vehicle, others)
            step = self._episode.step(vehicle, Events(
                self._impulse, self._invasions, *ahead, hit_vehicle=self._hit_vehicle))
            self._forget_events()
        observation = self._message(step, vehicle)
        self._trace.mark('observed', vehicle.stamp_ns)
        if step.is_last:
            self._end_episode(step.reason)
            # Before the observation, so that the command it causes ticks the new start.
            self._next_episode()
        self._observations.publish(observation)

    def _forget_events(self) -> None:
        self._impulse, self._hit_vehicle, self._invasions = None, False, 0

    def _message(self, step: Step, vehicle: VehicleState) -> Observation:
        s = self.settings
        assert self._episode is not None
        message = Observation(
            vehicle=s.vehicle, episode=self._index,
            step=self._episode.steps + self._gaps,
            height=s.frame.size, width=s.frame.size, count=s.frame.count,
            frames=to_bytes(self._stack.frames), state=to_floats(step.state),
            reward=step.reward, terms=to_reward_terms(step.terms), is_first=step.is_first,
            is_last=step.is_last, is_terminal=step.is_terminal, reason=step.reason)
        message.header.stamp = to_stamp(vehicle.stamp_ns)
        message.header.frame_id = s.vehicle
        return message

    def _hold(self, vehicle: VehicleState) -> None:
        """Ask for the brake on a frame that belongs to no episode: the world still waits."""
        self._holds.publish(Header(stamp=to_stamp(vehicle.stamp_ns),
                                   frame_id=self.settings.vehicle))

    # -- episodes

    def _ready(self, vehicle: VehicleState) -> bool:
        """Return whether the vehicle stands at the start of a route that is known."""
        if self._path is None or not self._is_awaited():
            return False
        return self._resetter is None or not self._resetter.missing(vehicle, self._path)

    def _stands_at_start(self, vehicle: VehicleState) -> bool:
        """Return whether nothing but its route is missing to an episode that was asked for."""
        resetter = self._resetter
        return (resetter is not None and resetter.plan is not None and self._is_awaited()
                and not resetter.missing_start(vehicle))

    def _is_awaited(self) -> bool:
        """Return whether all who act on observations are there; asked until they are."""
        self._awaited = (self._awaited
                         or actors_on(self, self._observations) >= self.settings.wait_for)
        return self._awaited

    def _next_episode(self) -> None:
        if self._resetter is not None:
            self._begin_reset()
        else:
            self._path = None  # the next episode is the next route

    def _begin_reset(self) -> None:
        resetter = self._resetter
        if resetter is None or resetter.planner is None:
            return
        self._index += 1
        self._path = self._routeless_start = None
        self._sensing.forget(self._stamp_ns + 1)
        try:
            resetter.begin(self._index)
        except ValueError as error:
            self.failure = f'episode {self._index} cannot be planned: {error}'
            self.get_logger().fatal(self.failure)
            self.context.try_shutdown()

    def _ask_again(self) -> None:
        resetter = self._resetter
        assert resetter is not None
        if (self._routeless_start is not None
                and time.monotonic() - self._seen_at > ROUTE_WAIT):
            (_, vehicle, _), self._routeless_start = self._routeless_start, None
            self._hold(vehicle)
        if resetter.plan is None:
            if self._is_awaited() and time.monotonic() - self._seen_at > SILENCE:
                self._begin_reset()
        elif self._episode is None and resetter.is_overdue():
            self.get_logger().warning(
                f'episode {self._index}: asking for the reset again: '
                f'{resetter.missing(self._vehicle, self._path)}{self._rivals()}')
            resetter.ask()

    def _rivals(self) -> str:
        """Say who else claims to be this vehicle: two sessions in one domain undo each other."""
        others = self.get_publishers_info_by_topic(self._sensing.odometry_topic)
        return '' if len(others) < 2 else (
            f'; {len(others)} nodes publish {self._sensing.odometry_topic} ('
            + ', '.join(sorted(f'{one.node_namespace.rstrip("/")}/{one.node_name}'
                               for one in others))
            + '): end one, or give the sessions ROS_DOMAIN_IDs of their own')

    def _end_episode(self, reason: str) -> None:
        if self._episode is None:
            return
        summary = to_episode_summary(
            self._episode.summary(), reason, self.settings.vehicle, self._index, self._stamp_ns,
            self._sensing.counts)
        self._episode = None
        self._summaries.publish(summary)
        self.get_logger().info(f'episode {self._index} ended: {reason}')

    def _tell_episode(self) -> Reading:
        values = {'episode': self._index, 'resets': self.settings.resets}
        if self._episode is not None:
            return Reading(OK, f'driving episode {self._index}, step {self._episode.steps}',
                           values)
        if not self._is_awaited():
            return Reading(WARN, f'waiting for {self.settings.wait_for} nodes that take '
                           'observations (policy, control, recorder)', values)
        if self._resetter is None:
            return Reading(WARN, 'waiting for a route', values)
        missing = self._resetter.missing(self._vehicle, self._path)
        return Reading(WARN, f'waiting for the start: {missing}{self._rivals()}', values)

    def close(self) -> None:
        """Tell of the episode that the end of this process interrupts."""
        self._end_episode('interrupted')
        self._trace.close()


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(EnvironmentNode, args)


if __name__ == '__main__':
    main()
