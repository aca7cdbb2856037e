"""Mirrors a real vehicle into a CARLA server: its ego vehicle is where the real one is."""
from __future__ import annotations

import dataclasses

from carla_msgs.msg import CarlaStatus
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import Twist
from rclpy.node import Node

from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_pose_message
from av_td3_ros.ros.diagnostics import Diagnostics
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.runtime import run
from av_td3_ros.ros.world.real_vehicle import RealVehicle, RealVehicleSettings
from av_td3_ros.settings import group, setting


@dataclasses.dataclass(frozen=True)
class MirrorSettings:
    """What the mirror node is told."""

    height: float = setting(0.0, "z of CARLA's ego vehicle on the map, m: the odometry's is that "
                            'of the ground', minimum=-1000.0, maximum=10000.0)
    external: RealVehicleSettings = group(RealVehicleSettings, 'the real vehicle')


class MirrorNode(Node):
    """Puts CARLA's ego vehicle to the newest pose of the real one, once in each of its ticks."""

    def __init__(self) -> None:
        super().__init__('mirror_node')
        self.settings = declare_settings(self, MirrorSettings)
        self._newest: VehicleState | None = None
        self._transforms = self.create_publisher(PoseMessage, '~/output/set_transform', qos.SENSOR)
        self._velocities = self.create_publisher(Twist, '~/output/set_target_velocity', qos.SENSOR)
        inputs = Inputs(self)
        self._real = RealVehicle(self, inputs, self.settings.external, self._on_vehicle)
        diagnostics = Diagnostics(self)
        diagnostics.add('real vehicle', self._real.tell)
        diagnostics.add('inputs', inputs.tell)
        inputs.listen(CarlaStatus, '~/input/status', self._on_tick, qos.SENSOR)

    def _on_vehicle(self, vehicle: VehicleState) -> None:
        self._newest = vehicle

    def _on_tick(self, _: CarlaStatus) -> None:
        vehicle, self._newest = self._newest, None
        if vehicle is None:
            return
        pose = to_pose_message(Pose(vehicle.x, vehicle.y, vehicle.yaw))
        pose.position.z = self.settings.height
        self._transforms.publish(pose)
        velocity = Twist()  # in the vehicle's own frame, so that CARLA's odometry tells it too
        velocity.linear.x, velocity.linear.y = vehicle.speed, vehicle.lateral_speed
        velocity.angular.z = vehicle.yaw_rate
        self._velocities.publish(velocity)

    def close(self) -> None:
        """Nothing to finish."""


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(MirrorNode, args)


if __name__ == '__main__':
    main()
