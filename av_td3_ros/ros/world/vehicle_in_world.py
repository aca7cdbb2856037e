"""A real vehicle in the embedded world: shown what is there, and stopped before it gets to it."""
from __future__ import annotations

from collections.abc import Callable

from carla_msgs.msg import CarlaEgoVehicleControl
from rclpy.node import Node

from av_td3_ros.driving.perception.obstacles import ObstacleMeter, ObstacleSettings
from av_td3_ros.driving.perception.odometry_gate import Pace
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.proving_ground.ground import collision_reason
from av_td3_ros.driving.route.geometry import FloatArray, Pose, arc_lengths
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.world.bridge_topics import BridgeTopics
from av_td3_ros.ros.world.real_vehicle import RealVehicle, RealVehicleSettings
from av_td3_ros.ros.world.routes import Routes
from av_td3_ros.simulator.actors import actors
from av_td3_ros.simulator.world import Snapshot, World

STANDING = 0.3  # m/s under which a real vehicle gets a new world round it with a new goal
ROUNDING = 0.5  # m that two lengths of the same route may differ
UNKNOWN = CarlaEgoVehicleControl()  # nobody here knows how the vehicle is driven


class VehicleInWorld:
    """Let the world follow a real vehicle at the camera's pace, with the vehicle's stamps."""

    def __init__(self, node: Node, inputs: Inputs, world: World, topics: BridgeTopics,
                 routes: Routes, settings: RealVehicleSettings, route_length: float,
                 on_tick: Callable[[], None]) -> None:
        """Subscribe; the first `route_length` m of lane ahead become a route, 0: none."""
        self._node, self._world, self._topics, self._routes = node, world, topics, routes
        self._settings, self._route_length, self._on_tick = settings, route_length, on_tick
        self._pace = Pace(world.settings.fixed_delta_seconds)
        self._meter: ObstacleMeter | None = None
        self.real = RealVehicle(node, inputs, settings, self._on_vehicle)

    def _on_vehicle(self, vehicle: VehicleState) -> None:
        if not self._pace.is_due(vehicle.stamp_ns):
            return
        self._prepare(vehicle)
        snapshot = self._world.follow(vehicle)
        self._on_tick()
        # No clock: the time is the vehicle's, which everybody has.
        self._topics.tell_tick(snapshot.frame, is_lockstep=False, is_paused=False)
        self._topics.tell(snapshot, UNKNOWN)
        self._watch(snapshot)

    def _prepare(self, vehicle: VehicleState) -> None:
        """Make the world round where the vehicle is first, and the routes from there."""
        pose = Pose(vehicle.x, vehicle.y, vehicle.yaw)
        if self._world.frame == 0:
            self._world.teleport(pose)
            if self._route_length:
                self._show_route(self._routes.ahead(pose, self._route_length))
        if self._routes.is_due:
            if abs(vehicle.speed) < STANDING:
                self._world.teleport(pose)  # others that it has hit would be in its way for ever
            self._show_route(self._routes.plan(pose))

    def _show_route(self, points: FloatArray) -> None:
        self._topics.tell_path(points)
        self._meter = None
        if len(points) < 2:
            return
        self._meter = ObstacleMeter(ObstacleSettings(measured=True), points[:, :2])
        length, safe = arc_lengths(points)[-1], self.real.on_ground(points)
        told = f'a route of {length:.0f} m, of which {safe:.0f} m lie on the ground'
        if safe < length - ROUNDING:
            self._node.get_logger().warning(
                f'{told}: the vehicle will be stopped before it is driven')
        else:
            self._node.get_logger().info(told)

    def _watch(self, snapshot: Snapshot) -> None:
        """Ask for a stop where the vehicle has hit something or can hardly avoid to."""
        hit = snapshot.collision
        self.real.ask_to_stop('hit', '' if hit is None else
                              f'collision with actor {hit.other_id}: {hit.magnitude:.0f} N s')
        if self._meter is not None:
            ahead = self._meter.measure(snapshot.ego, actors(snapshot, self._world.ego))
            self.real.ask_to_stop('ahead', collision_reason(
                snapshot.ego, ahead, self._settings.ground))
