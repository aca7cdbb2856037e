"""Stand in for environment and control: publish steps as fast as told, each unlike the others."""
from __future__ import annotations

import argparse
import os
import time

import numpy as np
import rclpy
from av_td3_msgs.msg import AppliedAction, Observation
from rclpy.duration import Duration
from std_msgs.msg import Header

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_stamp
from av_td3_ros.ros.runtime import die_with_parent

SIZE, STATE, EPISODE = 36, 5, 50


def main() -> None:
    """Drive `--steps` steps at `--rate` a second, once the recorder is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, required=True)
    parser.add_argument('--rate', type=float, required=True)
    parser.add_argument('--first-episode', type=int, default=0)
    options = parser.parse_args()
    die_with_parent()
    rclpy.init()
    node = rclpy.create_node('driver')
    observe = node.create_publisher(Observation, '/ego_vehicle/observation', qos.TRANSITION)
    apply = node.create_publisher(AppliedAction, '/ego_vehicle/applied_action', qos.TRANSITION)
    while not (observe.get_subscription_count() and apply.get_subscription_count()):
        time.sleep(0.01)
    random = np.random.default_rng(options.first_episode)
    started = time.monotonic()
    for number in range(options.steps):
        episode, step = divmod(number, EPISODE + 1)
        episode += options.first_episode
        last = step == EPISODE or number == options.steps - 1
        frames = random.integers(0, 256, (4, SIZE, SIZE), np.uint8)
        observe.publish(Observation(
            header=Header(stamp=to_stamp((1000 * episode + step) * 50_000_000)),
            vehicle='ego_vehicle', episode=episode, step=step, height=SIZE, width=SIZE, count=4,
            frames=to_bytes(frames), state=to_floats(random.normal(size=STATE).astype(np.float32)),
            reward=float(random.normal()), is_first=step == 0, is_last=last, is_terminal=last))
        if not last:
            apply.publish(AppliedAction(
                vehicle='ego_vehicle', episode=episode, step=step,
                steer=float(random.uniform(-1, 1)), acceleration=float(random.uniform(-1, 1))))
        time.sleep(max(0.0, started + (number + 1) / options.rate - time.monotonic()))
    observe.wait_for_all_acked(Duration(seconds=10))
    os._exit(0)


if __name__ == '__main__':
    main()
