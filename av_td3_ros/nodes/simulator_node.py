"""The embedded simulator behind the topics of the CARLA ROS bridge."""
from __future__ import annotations

import dataclasses
import math
import time

import cv2
import numpy as np
from carla_msgs.msg import CarlaControl, CarlaEgoVehicleControl
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Twist
from rclpy.node import Node
from std_msgs.msg import Bool

from av_td3_ros.driving.geometry import FloatArray, Pose, arc_lengths
from av_td3_ros.driving.ground import collision_reason
from av_td3_ros.driving.obstacles import ObstacleMeter, ObstacleSettings
from av_td3_ros.driving.odometry_gate import Pace
from av_td3_ros.driving.route_planner import RouteError, RoutePlanner
from av_td3_ros.driving.vehicle_state import VehicleState
from av_td3_ros.ros import qos
from av_td3_ros.ros.bridge_topics import BridgeTopics
from av_td3_ros.ros.conversions import from_pose_message, to_nanoseconds
from av_td3_ros.ros.diagnostics import OK, WARN, Diagnostics, Meter, Reading
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.real_vehicle import RealVehicle, RealVehicleSettings
from av_td3_ros.ros.runtime import Throttle, every, run
from av_td3_ros.settings import group, setting
from av_td3_ros.simulator.actors import actors
from av_td3_ros.simulator.dynamics import VehicleCommand
from av_td3_ros.simulator.world import Snapshot, World, WorldSettings

MAX_SPEED = 100.0  # m/s that the ego vehicle may be set to
STARTING = 2.0     # s of wall time at most between two ticks until the first command comes
STANDING = 0.3     # m/s under which a real vehicle gets a new world round it with a new goal


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
    """What the simulator node is told."""

    ego: str = setting('dynamics', 'dynamics: the commands move the simulated vehicle; external: '
                       'a real vehicle does, by its odometry', choices=('dynamics', 'external'))
    vehicle: str = setting('ego_vehicle', 'role name of the vehicle, part of its frames')
    mode: str = setting('lockstep', 'lockstep: wait for one command after each image; real_time: '
                        'the clock sets the pace', choices=('lockstep', 'real_time'))
    command_timeout: float = setting(1.0, 'wall time in s that lockstep waits for a command '
                                     'before it goes on with the last one',
                                     minimum=0.01, maximum=60.0)
    seed: int = setting(0, 'seed of light, colours, traffic and noise', minimum=0,
                        maximum=2**31 - 1)
    route_length: float = setting(0.0, 'm of the lane ahead of a real vehicle that are its first '
                                  'route; 0: routes lead to the goals that are asked for',
                                  minimum=0.0, maximum=1e5)
    world: WorldSettings = group(WorldSettings, 'map, vehicle, camera, traffic')
    external: RealVehicleSettings = group(RealVehicleSettings, 'the real vehicle')

    def __post_init__(self) -> None:
        """Refuse a real vehicle that would have to wait."""
        if self.ego == 'external' and self.mode != 'real_time':
            raise ValueError(f'ego: external with mode: {self.mode}: a real vehicle waits for '
                             'nobody; set mode: real_time')


class SimulatorNode(Node):
    """Ticks the world and speaks for it: status, clock, sensors, as the bridge does."""

    def __init__(self) -> None:
        super().__init__('simulator_node')
        s = self.settings = declare_settings(self, SimulatorSettings)
        cv2.setNumThreads(1)
        self._world = World(s.world, s.seed)
        self._router = RoutePlanner(self._world.road_map)
        self._lockstep = s.mode == 'lockstep'
        self._paused = False
        self._steps_allowed = 0
        self._waiting = self._is_driven = False
        self._ticked_at = -math.inf
        self._override = False
        self._command = CarlaEgoVehicleControl(brake=1.0)
        self._goal: Pose | None = None
        self._route_due = False
        self._real: RealVehicle | None = None
        self._pace = Pace(s.world.fixed_delta_seconds)
        self._meter: ObstacleMeter | None = None
        self._refused, self._timeouts = Throttle(), Throttle()
        self._topics = BridgeTopics(self, self._world, s.vehicle)
        self._ticks = Meter()
        Diagnostics(self, s.vehicle).add('world', self._tell)
        self.create_subscription(PoseStamped, '~/input/goal', self._on_goal, qos.SENSOR)
        if s.ego == 'external':
            self._begin_real_vehicle()
        else:
            self._begin_dynamics()
        self._topics.tell_constants()

    def _begin_dynamics(self) -> None:
        def subscribe(kind: type, name: str, callback, profile=qos.SENSOR):
            self.create_subscription(kind, f'~/input/{name}', callback, profile)

        subscribe(CarlaEgoVehicleControl, 'vehicle_command',
                  lambda message: self._on_command(message, manual=False))
        subscribe(CarlaEgoVehicleControl, 'vehicle_command_manual',
                  lambda message: self._on_command(message, manual=True))
        subscribe(Bool, 'manual_override', self._on_override, qos.LATCHED)
        subscribe(PoseMessage, 'set_transform', self._on_transform)
        subscribe(PoseWithCovarianceStamped, 'initial_pose',
                  lambda message: self._on_transform(message.pose.pose))
        subscribe(Twist, 'set_target_velocity', self._on_velocity)
        subscribe(CarlaControl, 'world_control', self._on_world_control)
        period = 0.02 if self._lockstep else self.settings.world.fixed_delta_seconds
        every(self, period, self._on_timer)

    def _begin_real_vehicle(self) -> None:
        def refuse(kind: type, name: str):
            self.create_subscription(
                kind, f'~/input/{name}', lambda _: self.get_logger().warning(
                    f'{name} refused: a real vehicle is where it is (ego: external)'), qos.SENSOR)

        self._real = RealVehicle(self, self.settings.external, self._on_vehicle)
        refuse(PoseMessage, 'set_transform')
        refuse(PoseWithCovarianceStamped, 'initial_pose')
        refuse(Twist, 'set_target_velocity')
        refuse(CarlaControl, 'world_control')

    # -- pace

    def _on_timer(self) -> None:
        if not self._lockstep:
            if not self._paused or self._steps_allowed:
                self._tick()
            return
        patience = self.settings.command_timeout
        overdue = time.monotonic() - self._ticked_at > (
            patience if self._is_driven else min(STARTING, patience))
        if overdue and self._may_tick():
            if self._waiting and self._timeouts.ready():
                self.get_logger().warning(
                    f'no command for the image at {self._world.stamp_ns * 1e-9:.2f} s within '
                    f'{self.settings.command_timeout:g} s: going on with the last one '
                    f'({self._timeouts.count} times so far)')
            self._tick()

    def _may_tick(self) -> bool:
        return not self._paused or self._steps_allowed > 0

    def _on_command(self, message: CarlaEgoVehicleControl, manual: bool) -> None:
        """Take a command; in lockstep it is also what the world waits for."""
        if manual != self._override:
            return
        values = (message.throttle, message.steer, message.brake)
        if not all(map(math.isfinite, values)):
            if self._refused.ready():
                self.get_logger().warning(f'command {values} refused: not finite')
            return
        answers_ns = to_nanoseconds(message.header.stamp)
        if self._lockstep and answers_ns not in (0, self._world.stamp_ns):
            return  # for an image that the world has left behind
        self._command, self._is_driven = message, True
        if self._lockstep and self._waiting:
            self._waiting = False
            if self._may_tick():
                self._tick()

    def _on_override(self, message: Bool) -> None:
        self._override = message.data

    def _on_world_control(self, message: CarlaControl) -> None:
        was_paused = self._paused
        self._paused = message.command != CarlaControl.PLAY
        if self._paused != was_paused:
            self._topics.tell_tick(self._world.frame, self._lockstep, self._paused)
        self._steps_allowed = int(message.command == CarlaControl.STEP_ONCE)
        answered = self._lockstep and not self._waiting
        if answered and self._may_tick():
            self._tick()

    def _tick(self) -> None:
        self._steps_allowed = max(0, self._steps_allowed - 1)
        if self._route_due:
            self._route(self._world.ego_pose)
        command = self._command
        snapshot = self._world.tick(VehicleCommand(
            throttle=command.throttle, steer=-command.steer, brake=command.brake,
            hand_brake=command.hand_brake, reverse=command.reverse))
        self._waiting = True  # before the image is out: its answer may be quick
        self._ticked_at = time.monotonic()
        self._ticks.note()
        self._topics.tell_tick(snapshot.frame, self._lockstep, self._paused)
        self._topics.tell_time(snapshot)
        self._topics.tell(snapshot, self._command)

    def _on_vehicle(self, vehicle: VehicleState) -> None:
        """Show the world from where a real vehicle is, at the camera's pace."""
        if not self._pace.is_due(vehicle.stamp_ns):
            return
        pose = Pose(vehicle.x, vehicle.y, vehicle.yaw)
        if self._world.frame == 0:
            self._world.teleport(pose)
            if self.settings.route_length:
                self._show_route(self._lane_ahead(pose))
        if self._route_due:
            if abs(vehicle.speed) < STANDING:
                self._world.teleport(pose)  # others that it has hit would be in its way for ever
            self._route(pose)
        snapshot = self._world.follow(vehicle)
        self._ticks.note()
        # No clock: the time is the vehicle's, which everybody has.
        self._topics.tell_tick(snapshot.frame, is_lockstep=False, is_paused=False)
        self._topics.tell(snapshot, self._command)
        self._watch(snapshot)

    def _watch(self, snapshot: Snapshot) -> None:
        """Ask for a stop where the vehicle has hit something or can hardly avoid to."""
        assert self._real is not None
        hit = snapshot.collision
        self._real.ask_to_stop('hit', '' if hit is None else f'collision with actor '
                               f'{hit.other_id}: {hit.magnitude:.0f} N s')
        if self._meter is not None:
            ahead = self._meter.measure(snapshot.ego, actors(snapshot, self._world.ego))
            self._real.ask_to_stop('ahead', collision_reason(
                snapshot.ego, ahead, self.settings.external.ground))

    # -- wishes

    def _on_transform(self, message: PoseMessage) -> None:
        try:
            pose = from_pose_message(message)
        except ValueError as error:
            self.get_logger().warning(f'teleport refused: {error}')
            return
        self._world.teleport(pose)
        self._route_due = self._goal is not None

    def _on_velocity(self, message: Twist) -> None:
        if abs(message.linear.x) <= MAX_SPEED:  # false for what is no number
            self._world.set_velocity(message.linear.x)
        else:
            self.get_logger().warning(f'velocity {message.linear.x} m/s refused: give at most '
                                      f'{MAX_SPEED:g}')

    def _on_goal(self, message: PoseStamped) -> None:
        try:
            self._goal = from_pose_message(message.pose)
        except ValueError as error:
            self.get_logger().warning(f'goal refused: {error}')
            return
        self._route_due = True

    def _route(self, start: Pose) -> None:
        """Publish the shortest way from a pose to the goal."""
        self._route_due = False
        assert self._goal is not None
        try:
            points = self._router.plan(start, self._goal).points
        except RouteError as error:
            self.get_logger().warning(str(error))
            points = np.empty((0, 3))
        self._show_route(points)

    def _lane_ahead(self, start: Pose) -> FloatArray:
        points = self._world.road_map.lane_ahead(start, self.settings.route_length)
        steps = np.diff(points, axis=0, append=2.0 * points[-1:] - points[-2:-1])
        return np.column_stack([points, np.arctan2(steps[:, 1], steps[:, 0])])

    def _show_route(self, points: FloatArray) -> None:
        self._topics.tell_path(points)
        if self._real is None or len(points) < 2:
            return
        self._meter = ObstacleMeter(ObstacleSettings(measured=True), points[:, :2])
        length, safe = arc_lengths(points)[-1], self._real.on_ground(points)
        told = f'a route of {length:.0f} m, of which {safe:.0f} m lie on the ground'
        if safe < length:
            self.get_logger().warning(f'{told}: the vehicle will be stopped before it is driven')
        else:
            self.get_logger().info(told)

    def _tell(self) -> Reading:
        rate = self._ticks.rate
        values = {'ticks a second': rate, 'vehicles': self.settings.world.traffic.count,
                  'times real time': rate * self.settings.world.fixed_delta_seconds,
                  'commands that did not come': self._timeouts.count}
        if self._paused:
            return Reading(OK, 'paused', values)
        if self._ticks.age is None:
            return Reading(WARN, 'the world stands still: no command and no odometry comes',
                           values)
        return Reading(OK, f'{rate:.1f} ticks a second', values)

    def close(self) -> None:
        """Nothing to finish."""


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(SimulatorNode, args)


if __name__ == '__main__':
    main()
