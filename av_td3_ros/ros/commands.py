"""The vehicle's own command messages, to and from actions."""
from __future__ import annotations

import math

from ackermann_msgs.msg import AckermannDriveStamped
from carla_msgs.msg import CarlaEgoVehicleControl
from std_msgs.msg import Header

from av_td3_ros.driving.command.ackermann import AckermannSettings, from_ackermann, to_ackermann
from av_td3_ros.driving.command.control import Action, CommandSettings, from_carla, to_carla

Command = CarlaEgoVehicleControl | AckermannDriveStamped


class CommandMapping:
    """Maps actions to the vehicle's command messages, and a human driver's back to actions."""

    def __init__(self, output: str, command: CommandSettings,
                 ackermann: AckermannSettings) -> None:
        """`output` is one of OUTPUTS."""
        self._output, self._command, self._ackermann = output, command, ackermann

    def to_message(self, header: Header, action: Action, speed: float) -> Command:
        """Return the command for an applied action at a speed in m/s."""
        c = self._command
        if self._output == 'carla':
            said = to_carla(action, c)
            message = CarlaEgoVehicleControl(
                throttle=said.throttle, steer=said.steer, brake=said.brake,
                hand_brake=said.hand_brake, reverse=said.reverse)
        else:
            wanted = to_ackermann(action, speed, c.steering_range, c.speed_limit, self._ackermann)
            message = AckermannDriveStamped()
            drive = message.drive
            drive.steering_angle = wanted.steering_angle
            drive.steering_angle_velocity = wanted.steering_angle_velocity
            drive.speed, drive.acceleration = wanted.speed, wanted.acceleration
            drive.jerk = wanted.jerk
        message.header = header
        return message

    def from_message(self, message: Command, speed: float) -> Action:
        """Return the action of a command at a speed in m/s; raise ValueError if not finite."""
        if self._output == 'carla':
            return from_carla(message.throttle, message.steer, message.brake, self._command)
        drive = message.drive
        return from_ackermann(
            drive.steering_angle, drive.speed, drive.acceleration,
            speed if math.isfinite(speed) else 0.0, self._command.steering_range,
            self._ackermann)
