"""What the CARLA ROS bridge publishes of a world, published of the embedded one."""
from __future__ import annotations

import math

from carla_msgs.msg import (
    CarlaCollisionEvent,
    CarlaEgoVehicleControl,
    CarlaEgoVehicleInfo,
    CarlaEgoVehicleInfoWheel,
    CarlaEgoVehicleStatus,
    CarlaLaneInvasionEvent,
    CarlaStatus,
    CarlaWorldInfo,
)
from geometry_msgs.msg import PoseStamped, Vector3
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, Imu
from std_msgs.msg import Float32, Header
from visualization_msgs.msg import MarkerArray

from av_td3_ros.driving.route.geometry import FloatArray, Pose
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import (
    to_odometry,
    to_pose_message,
    to_quaternion,
    to_stamp,
)
from av_td3_ros.ros.markers import to_markers
from av_td3_ros.ros.raw_image import write_image
from av_td3_ros.simulator.actors import EGO_ID, actors
from av_td3_ros.simulator.view.camera import Image as BgraImage
from av_td3_ros.simulator.world import Snapshot, World


class BridgeTopics:
    """Publish constants, ticks and routes with the bridge's types, frames and order."""

    def __init__(self, node: Node, world: World, vehicle: str) -> None:
        """Make the publishers; `vehicle` is the role name, part of the frames."""
        def publisher(kind: type, name: str, profile=qos.SENSOR):
            return node.create_publisher(kind, f'~/output/{name}', profile)

        self._world, self._vehicle = world, vehicle
        self._to_clock = publisher(Clock, 'clock')
        self._to_status = publisher(CarlaStatus, 'status')
        self._to_world_info = publisher(CarlaWorldInfo, 'world_info', qos.LATCHED)
        self._to_vehicle_info = publisher(CarlaEgoVehicleInfo, 'vehicle_info', qos.LATCHED)
        self._to_path = publisher(Path, 'path', qos.LATCHED)
        self._to_odometry = publisher(Odometry, 'odometry', qos.FOLLOWED)
        self._to_speed = publisher(Float32, 'speedometer')
        self._to_vehicle_status = publisher(CarlaEgoVehicleStatus, 'vehicle_status')
        self._to_imu = publisher(Imu, 'imu')
        self._to_collision = publisher(CarlaCollisionEvent, 'collision', qos.FOLLOWED)
        self._to_lane_invasion = publisher(CarlaLaneInvasionEvent, 'lane_invasion',
                                           qos.FOLLOWED)
        self._to_markers = publisher(MarkerArray, 'markers')
        self._to_camera_info = publisher(CameraInfo, 'camera_info')
        self._to_image = publisher(Image, 'image')

    def tell_constants(self) -> None:
        """Tell of the map and of the vehicle, once."""
        road_map, about = self._world.road_map, self._world.vehicle_info()
        self._to_world_info.publish(CarlaWorldInfo(
            map_name=road_map.name, opendrive=road_map.opendrive))
        info = CarlaEgoVehicleInfo(
            id=EGO_ID, type=about.type, rolename=self._vehicle, mass=about.mass,
            drag_coefficient=about.drag_coefficient, use_gear_autobox=True)
        info.wheels = [CarlaEgoVehicleInfoWheel(
            tire_friction=wheel.tire_friction, max_steer_angle=wheel.max_steer_angle,
            radius=wheel.radius, position=Vector3(x=wheel.x, y=wheel.y, z=wheel.radius))
            for wheel in about.wheels]
        self._to_vehicle_info.publish(info)

    def tell_path(self, points: FloatArray) -> None:
        """Tell of a route, (N, 3) x, y, yaw; of none when there are no points."""
        path = Path(header=self._header('map'))
        path.poses = [PoseStamped(header=path.header, pose=to_pose_message(Pose(x, y, yaw)))
                      for x, y, yaw in points.tolist()]
        self._to_path.publish(path)

    def tell_time(self, snapshot: Snapshot) -> None:
        """Tell the others what time it is in the world."""
        self._to_clock.publish(Clock(clock=to_stamp(snapshot.stamp_ns)))

    def tell_tick(self, frame: int, is_lockstep: bool, is_paused: bool) -> None:
        """Tell that the world has gone on, first word of a tick, or that it pauses."""
        self._to_status.publish(CarlaStatus(
            frame=frame,
            fixed_delta_seconds=self._world.settings.fixed_delta_seconds,
            synchronous_mode=is_lockstep,
            synchronous_mode_running=is_lockstep and not is_paused))

    def tell(self, snapshot: Snapshot, command: CarlaEgoVehicleControl) -> None:
        """
        Tell of one tick in the bridge's order: vehicle, events, camera, where it took an image.

        What nobody hears, beside odometry, markers and image, is not even made.
        """
        here, ego = self._header('map'), snapshot.ego
        self._to_odometry.publish(to_odometry(ego, 'map', self._vehicle))
        # Before the image: whoever has that one can have these.
        self._to_markers.publish(to_markers(here, actors(snapshot, self._world.ego), EGO_ID))
        if self._to_speed.get_subscription_count():
            self._to_speed.publish(Float32(data=ego.speed))
        if self._to_vehicle_status.get_subscription_count():
            self._to_vehicle_status.publish(self._vehicle_status(here, snapshot, command))
        if self._to_imu.get_subscription_count():
            self._to_imu.publish(self._measured(ego.yaw))
        if snapshot.collision is not None:
            x, y = snapshot.collision.normal_impulse
            self._to_collision.publish(CarlaCollisionEvent(
                header=self._header(f'{self._vehicle}/collision'),
                other_actor_id=snapshot.collision.other_id,
                normal_impulse=Vector3(x=x, y=y)))
        if snapshot.lane_invasion:
            self._to_lane_invasion.publish(CarlaLaneInvasionEvent(
                header=self._header(f'{self._vehicle}/lane_invasion'),
                crossed_lane_markings=list(snapshot.lane_invasion)))
        if snapshot.image is not None:
            self.tell_image(snapshot.image)

    def _vehicle_status(self, here: Header, snapshot: Snapshot, command: CarlaEgoVehicleControl
                        ) -> CarlaEgoVehicleStatus:
        ego = snapshot.ego
        status = CarlaEgoVehicleStatus(
            header=here, velocity=math.hypot(ego.speed, ego.lateral_speed),
            orientation=to_quaternion(ego.yaw), control=command)
        ahead, aside = snapshot.acceleration  # told on the map, as the bridge does
        status.acceleration.linear.x = ahead * math.cos(ego.yaw) - aside * math.sin(ego.yaw)
        status.acceleration.linear.y = ahead * math.sin(ego.yaw) + aside * math.cos(ego.yaw)
        return status

    def _measured(self, yaw: float) -> Imu:
        imu = Imu(header=self._header(f'{self._vehicle}/imu'), orientation=to_quaternion(yaw))
        measured = self._world.imu()
        imu.angular_velocity = Vector3(**dict(zip('xyz', measured.angular_velocity, strict=True)))
        imu.linear_acceleration = Vector3(
            **dict(zip('xyz', measured.linear_acceleration, strict=True)))
        return imu

    def tell_image(self, image: BgraImage) -> None:
        """Tell of the camera, last word of a tick: uint8 (height, width, 4) bgra8."""
        header = self._header(f'{self._vehicle}/rgb_front')
        height, width = image.shape[:2]
        if self._to_camera_info.get_subscription_count():
            fx, fy, cx, cy = self._world.camera.intrinsics()
            self._to_camera_info.publish(CameraInfo(
                header=header, height=height, width=width, distortion_model='plumb_bob',
                d=[0.0] * 5, k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
                r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]))
        self._to_image.publish(write_image(
            self._world.stamp_ns, header.frame_id, image, 'bgra8'))

    def _header(self, frame: str) -> Header:
        return Header(stamp=to_stamp(self._world.stamp_ns), frame_id=frame)
