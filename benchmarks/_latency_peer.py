"""Drive as a user would write it: one plain rclpy node, default QoS, a copy here and there."""
from __future__ import annotations

import argparse
import collections

import cv2
import numpy as np
import rclpy
import torch
from carla_msgs.msg import CarlaEgoVehicleControl
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from av_td3_ros.cli.policies import find_policy


class PlainDriver(Node):
    """Keeps the newest odometry, and answers each image with a command."""

    def __init__(self, vehicle: str, compressed: bool) -> None:
        super().__init__('plain_driver', namespace=vehicle)
        policy = find_policy('pretrained')
        self._actor = policy.actor
        self._frames: collections.deque[np.ndarray] = collections.deque(maxlen=4)
        self._speed = 0.0
        self._size = policy.network.state_size
        self._commands = self.create_publisher(
            CarlaEgoVehicleControl, f'/carla/{vehicle}/vehicle_control_cmd', 10)
        self.create_subscription(Odometry, f'/carla/{vehicle}/odometry', self._on_odometry, 10)
        self.create_subscription(CompressedImage if compressed else Image,
                                 f'/carla/{vehicle}/rgb_front/image', self._on_image, 10)

    def _on_odometry(self, message: Odometry) -> None:
        self._speed = message.twist.twist.linear.x

    def _on_image(self, message: Image | CompressedImage) -> None:
        if isinstance(message, CompressedImage):
            colour = cv2.imdecode(np.array(message.data, np.uint8), cv2.IMREAD_COLOR)
        else:  # what cv_bridge's imgmsg_to_cv2(message, 'bgr8') does
            colour = cv2.cvtColor(np.array(message.data, np.uint8).reshape(
                message.height, message.width, 4), cv2.COLOR_BGRA2BGR)
        small = cv2.resize(colour, (84, 84), interpolation=cv2.INTER_AREA)
        self._frames.append(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
        stack = np.stack([*[self._frames[0]] * (4 - len(self._frames)), *self._frames])
        state = np.zeros(self._size, np.float32)
        state[0] = self._speed / 10.0
        with torch.no_grad():
            action = self._actor(torch.from_numpy(stack)[None], torch.from_numpy(state)[None])
        steer, acceleration = (float(one) for one in action.numpy().reshape(-1))
        command = CarlaEgoVehicleControl(
            throttle=max(acceleration, 0.0), steer=-steer, brake=max(-acceleration, 0.0))
        command.header = message.header
        self._commands.publish(command)


def main() -> None:
    """Run the node until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--vehicle', required=True)
    parser.add_argument('--compressed', action='store_true')
    options = parser.parse_args()
    rclpy.init()
    rclpy.spin(PlainDriver(options.vehicle, options.compressed))


if __name__ == '__main__':
    main()
