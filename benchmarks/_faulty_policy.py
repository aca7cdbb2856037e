"""A policy for `_faults_control`: it answers observations, as well or as badly as it is told."""
from __future__ import annotations

import random

from av_td3_msgs.msg import Action, Observation
from rclpy.node import Node
from std_msgs.msg import String

from av_td3_ros.ros import qos
from av_td3_ros.ros.runtime import every, run

FLOOD = 50    # actions at a time
OFTEN = 0.01  # s between two times
BROKEN = {'nan': float('nan'), 'infinite': float('inf'), 'huge': 1e30}


class FaultyPolicy(Node):
    """Answers each observation as /faulty_policy/mode says; `flood` and `noise` add thousands."""

    def __init__(self) -> None:
        super().__init__('faulty_policy')
        self._mode = 'good'
        self._random = random.Random(0)
        self._seen: Observation | None = None
        self._actions = self.create_publisher(Action, '/ego_vehicle/action', qos.STEP)
        self.create_subscription(Observation, '/ego_vehicle/observation', self._answer, qos.STEP)
        self.create_subscription(String, '/faulty_policy/mode', self._change, qos.STEP)
        every(self, OFTEN, self._flood)

    def _change(self, message: String) -> None:
        self._mode = message.data

    def _answer(self, seen: Observation) -> None:
        self._seen = seen
        if self._mode == 'noise':
            return
        action = Action(header=seen.header, vehicle=seen.vehicle, episode=seen.episode,
                        step=seen.step, steer=0.1, acceleration=0.5, policy_version=1)
        if self._mode in BROKEN:
            action.steer = action.acceleration = BROKEN[self._mode]
        elif self._mode == 'wrong step':
            action.episode, action.step = seen.episode + 3, seen.step + 7
        self._actions.publish(action)

    def _flood(self) -> None:
        if self._mode not in ('flood', 'noise') or self._seen is None:
            return
        for _ in range(FLOOD):
            self._actions.publish(Action(
                header=self._seen.header, episode=self._random.randrange(2**32),
                step=self._random.randrange(2**32), steer=self._random.uniform(-9.0, 9.0),
                acceleration=1.0))

    def close(self) -> None:
        """Nothing to finish."""


if __name__ == '__main__':
    run(FaultyPolicy)
