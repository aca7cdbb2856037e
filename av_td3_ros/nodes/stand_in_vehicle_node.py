"""Stands for a real vehicle on the bench: Ackermann commands in, odometry out, nothing else."""
from __future__ import annotations

import dataclasses
import time

from ackermann_msgs.msg import AckermannDriveStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_odometry
from av_td3_ros.ros.diagnostics import Diagnostics
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.runtime import every, run
from av_td3_ros.settings import group, setting
from av_td3_ros.simulator.vehicle.stand_in_vehicle import (
    DriveCommand,
    StandInSettings,
    StandInVehicle,
)


@dataclasses.dataclass(frozen=True)
class StandInVehicleSettings:
    """What the stand-in vehicle node is told."""

    rate: float = setting(50.0, 'odometry messages per second', minimum=1.0, maximum=1000.0)
    frame: str = setting('ground', 'frame of the odometry')
    child_frame: str = setting('base_link', 'frame of the vehicle, the middle of its body')
    vehicle: StandInSettings = group(StandInSettings, 'the vehicle')


class StandInVehicleNode(Node):
    """Moves in real time and measures itself, as a driver of a drive-by-wire vehicle does."""

    def __init__(self) -> None:
        super().__init__('stand_in_vehicle_node')
        s = self.settings = declare_settings(self, StandInVehicleSettings)
        self._vehicle = StandInVehicle(s.vehicle, time.monotonic())
        self._was_heard = False
        self._odometry = self.create_publisher(Odometry, '~/output/odometry', qos.SENSOR)
        inputs = Inputs(self)
        inputs.listen(AckermannDriveStamped, '~/input/command', self._on_command, qos.SENSOR)
        Diagnostics(self).add('inputs', inputs.tell)
        every(self, 1.0 / s.rate, self._measure)

    def _on_command(self, message: AckermannDriveStamped) -> None:
        drive = message.drive
        self._vehicle.command(DriveCommand(drive.steering_angle, drive.speed, drive.acceleration),
                              time.monotonic())

    def _measure(self) -> None:
        self._vehicle.advance(time.monotonic())
        stamp_ns = self.get_clock().now().nanoseconds
        self._odometry.publish(to_odometry(
            self._vehicle.measure(stamp_ns), self.settings.frame, self.settings.child_frame))
        heard = self._vehicle.is_heard()
        if self._was_heard and not heard:
            self.get_logger().warning('no commands any more: stopping by itself')
        self._was_heard = heard

    def close(self) -> None:
        """Nothing to finish."""


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(StandInVehicleNode, args)


if __name__ == '__main__':
    main()
