"""The embedded simulator behind the topics of the CARLA ROS bridge."""
from __future__ import annotations

import dataclasses
import math
import time

import cv2
from carla_msgs.msg import (
    CarlaCollisionEvent,
    CarlaControl,
    CarlaEgoVehicleControl,
    CarlaEgoVehicleInfo,
    CarlaEgoVehicleInfoWheel,
    CarlaEgoVehicleStatus,
    CarlaLaneInvasionEvent,
    CarlaStatus,
    CarlaWorldInfo,
)
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Twist, Vector3
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, Imu
from std_msgs.msg import Bool, Float32, Header
from visualization_msgs.msg import MarkerArray

from av_td3_ros.driving.geometry import Pose
from av_td3_ros.driving.route_planner import RouteError, RoutePlanner
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import (
    from_pose_message,
    to_bytes,
    to_nanoseconds,
    to_pose_message,
    to_quaternion,
    to_stamp,
)
from av_td3_ros.ros.markers import to_markers
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.runtime import Throttle, run
from av_td3_ros.settings import group, setting
from av_td3_ros.simulator.actors import EGO_ID, actors
from av_td3_ros.simulator.dynamics import VehicleCommand
from av_td3_ros.simulator.world import Snapshot, World, WorldSettings

MAX_SPEED = 100.0  # m/s that the ego vehicle may be set to
STARTING = 2.0     # s of wall time at most between two ticks until the first command comes


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
    """What the simulator node is told."""

    vehicle: str = setting('ego_vehicle', 'role name of the vehicle, part of its frames')
    mode: str = setting('lockstep', 'lockstep: wait for one command after each image; real_time: '
                        'the clock sets the pace', choices=('lockstep', 'real_time'))
    command_timeout: float = setting(1.0, 'wall time in s that lockstep waits for a command '
                                     'before it goes on with the last one',
                                     minimum=0.01, maximum=60.0)
    seed: int = setting(0, 'seed of light, colours, traffic and noise', minimum=0,
                        maximum=2**31 - 1)
    world: WorldSettings = group(WorldSettings, 'map, vehicle, camera, traffic')


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
        self._refused, self._timeouts = Throttle(), Throttle()
        self._make_publishers()
        self._make_subscriptions()
        self._publish_constants()
        period = 0.02 if self._lockstep else s.world.fixed_delta_seconds
        self.create_timer(period, self._on_timer)

    def _make_publishers(self) -> None:
        def publisher(kind: type, name: str, profile=qos.SENSOR):
            return self.create_publisher(kind, f'~/output/{name}', profile)

        self._to_clock = publisher(Clock, 'clock')
        self._to_status = publisher(CarlaStatus, 'status')
        self._to_world_info = publisher(CarlaWorldInfo, 'world_info', qos.LATCHED)
        self._to_vehicle_info = publisher(CarlaEgoVehicleInfo, 'vehicle_info', qos.LATCHED)
        self._to_path = publisher(Path, 'path', qos.LATCHED)
        self._to_odometry = publisher(Odometry, 'odometry')
        self._to_speed = publisher(Float32, 'speedometer')
        self._to_vehicle_status = publisher(CarlaEgoVehicleStatus, 'vehicle_status')
        self._to_imu = publisher(Imu, 'imu')
        self._to_collision = publisher(CarlaCollisionEvent, 'collision')
        self._to_lane_invasion = publisher(CarlaLaneInvasionEvent, 'lane_invasion')
        self._to_markers = publisher(MarkerArray, 'markers')
        self._to_camera_info = publisher(CameraInfo, 'camera_info')
        self._to_image = publisher(Image, 'image')

    def _make_subscriptions(self) -> None:
        def subscribe(kind: type, name: str, callback, profile=qos.SENSOR):
            self.create_subscription(kind, f'~/input/{name}', callback, profile)

        subscribe(CarlaEgoVehicleControl, 'vehicle_command',
                  lambda message: self._on_command(message, manual=False))
        subscribe(CarlaEgoVehicleControl, 'vehicle_command_manual',
                  lambda message: self._on_command(message, manual=True))
        subscribe(Bool, 'manual_override', self._on_override, qos.LATCHED)
        subscribe(PoseStamped, 'goal', self._on_goal)
        subscribe(PoseMessage, 'set_transform', self._on_transform)
        subscribe(PoseWithCovarianceStamped, 'initial_pose',
                  lambda message: self._on_transform(message.pose.pose))
        subscribe(Twist, 'set_target_velocity', self._on_velocity)
        subscribe(CarlaControl, 'world_control', self._on_world_control)

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
        self._paused = message.command != CarlaControl.PLAY
        self._steps_allowed = int(message.command == CarlaControl.STEP_ONCE)
        answered = self._lockstep and not self._waiting
        if answered and self._may_tick():
            self._tick()

    def _tick(self) -> None:
        self._steps_allowed = max(0, self._steps_allowed - 1)
        if self._route_due:
            self._route()
        command = self._command
        snapshot = self._world.tick(VehicleCommand(
            throttle=command.throttle, steer=-command.steer, brake=command.brake,
            hand_brake=command.hand_brake, reverse=command.reverse))
        self._waiting = True  # before the image is out: its answer may be quick
        self._ticked_at = time.monotonic()
        self._publish(snapshot)

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

    def _route(self) -> None:
        """Publish the shortest way from where the vehicle is to the goal."""
        self._route_due = False
        assert self._goal is not None
        ego = self._world.ego_pose
        path = Path()
        path.header = self._header('map')
        try:
            route = self._router.plan(ego, self._goal)
        except RouteError as error:
            self.get_logger().warning(str(error))
        else:
            path.poses = [PoseStamped(header=path.header, pose=to_pose_message(Pose(x, y, yaw)))
                          for x, y, yaw in route.points.tolist()]
        self._to_path.publish(path)

    # -- what goes out

    def _header(self, frame: str) -> Header:
        return Header(stamp=to_stamp(self._world.stamp_ns), frame_id=frame)

    def _publish_constants(self) -> None:
        road_map, about = self._world.road_map, self._world.vehicle_info()
        self._to_world_info.publish(CarlaWorldInfo(
            map_name=road_map.name, opendrive=road_map.opendrive))
        info = CarlaEgoVehicleInfo(
            id=EGO_ID, type=about.type, rolename=self.settings.vehicle, mass=about.mass,
            drag_coefficient=about.drag_coefficient, use_gear_autobox=True)
        info.wheels = [CarlaEgoVehicleInfoWheel(
            tire_friction=wheel.tire_friction, max_steer_angle=wheel.max_steer_angle,
            radius=wheel.radius, position=Vector3(x=wheel.x, y=wheel.y, z=wheel.radius))
            for wheel in about.wheels]
        self._to_vehicle_info.publish(info)

    def _publish(self, snapshot: Snapshot) -> None:
        """Tell of one tick in the bridge's order: status, clock, vehicle, events, camera."""
        role = self.settings.vehicle
        self._to_status.publish(CarlaStatus(
            frame=snapshot.frame, fixed_delta_seconds=self.settings.world.fixed_delta_seconds,
            synchronous_mode=self._lockstep,
            synchronous_mode_running=self._lockstep and not self._paused))
        self._to_clock.publish(Clock(clock=to_stamp(snapshot.stamp_ns)))
        here, ego = self._header('map'), snapshot.ego
        odometry = Odometry(header=here, child_frame_id=role)
        odometry.pose.pose = to_pose_message(Pose(ego.x, ego.y, ego.yaw))
        odometry.twist.twist.linear.x = ego.speed
        odometry.twist.twist.linear.y = ego.lateral_speed
        odometry.twist.twist.angular.z = ego.yaw_rate
        self._to_odometry.publish(odometry)
        # Before the image: whoever has that one can have these.
        self._to_markers.publish(to_markers(here, actors(snapshot, self._world.ego), EGO_ID))
        self._to_speed.publish(Float32(data=ego.speed))
        status = CarlaEgoVehicleStatus(
            header=here, velocity=math.hypot(ego.speed, ego.lateral_speed),
            orientation=to_quaternion(ego.yaw), control=self._command)
        longitudinal, lateral = snapshot.acceleration
        status.acceleration.linear.x, status.acceleration.linear.y = longitudinal, lateral
        self._to_vehicle_status.publish(status)
        imu = Imu(header=self._header(f'{role}/imu'), orientation=to_quaternion(ego.yaw))
        measured = self._world.imu()
        imu.angular_velocity = Vector3(**dict(zip('xyz', measured.angular_velocity, strict=True)))
        imu.linear_acceleration = Vector3(
            **dict(zip('xyz', measured.linear_acceleration, strict=True)))
        self._to_imu.publish(imu)
        if snapshot.collision is not None:
            x, y = snapshot.collision.normal_impulse
            self._to_collision.publish(CarlaCollisionEvent(
                header=here, other_actor_id=snapshot.collision.other_id,
                normal_impulse=Vector3(x=x, y=y)))
        if snapshot.lane_invasion:
            self._to_lane_invasion.publish(CarlaLaneInvasionEvent(
                header=here, crossed_lane_markings=list(snapshot.lane_invasion)))
        if snapshot.image is not None:
            self._publish_image(snapshot)

    def _publish_image(self, snapshot: Snapshot) -> None:
        header = self._header(f'{self.settings.vehicle}/rgb_front')
        height, width = snapshot.image.shape[:2]
        fx, fy, cx, cy = self._world.camera.intrinsics()
        self._to_camera_info.publish(CameraInfo(
            header=header, height=height, width=width, distortion_model='plumb_bob',
            d=[0.0] * 5, k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
            r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]))
        self._to_image.publish(Image(
            header=header, height=height, width=width, encoding='bgra8', is_bigendian=0,
            step=4 * width, data=to_bytes(snapshot.image)))

    def close(self) -> None:
        """Nothing to finish."""


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(SimulatorNode, args)


if __name__ == '__main__':
    main()
