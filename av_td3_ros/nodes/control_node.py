"""Has the last word on what reaches the vehicle: one command for each observation."""
from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
from av_td3_msgs.msg import Action, AppliedAction, Observation
from carla_msgs.msg import CarlaEgoVehicleControl
from rclpy.node import Node
from std_msgs.msg import Header

from av_td3_ros.driving.control import CommandSettings, brake_action, limit_action, to_carla
from av_td3_ros.driving.state import SPEED_SCALE
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_nanoseconds
from av_td3_ros.ros.parameters import accept_changes, declare_settings
from av_td3_ros.ros.runtime import Throttle, every, run
from av_td3_ros.settings import group, setting


@dataclasses.dataclass(frozen=True)
class ControlSettings:
    """What the control node is told."""

    action_timeout: float = setting(
        0.5, 'wall time in s after an observation at which the brake takes over from an action '
        'that has not come', minimum=0.01, maximum=60.0, live=True)
    sensor_timeout: float = setting(
        0.5, 'wall time in s without an observation after which the vehicle is stopped; 0: never, '
        'for a lockstep world, which may stand still', minimum=0.0, maximum=60.0, live=True)
    command: CommandSettings = group(CommandSettings, 'limits on what reaches the vehicle')


class ControlNode(Node):
    """Waits for the action to an observation, limits it, and sends it; brakes without one."""

    def __init__(self) -> None:
        super().__init__('control_node')
        self.settings = declare_settings(self, ControlSettings)
        accept_changes(self, self.settings, self._apply)
        self._open: Observation | None = None
        self._early: Action | None = None
        self._unanswered_since = self._heard_at = 0.0
        self._repeated: tuple[int, int] | None = None
        self._last: Header | None = None
        self._is_stopped = True
        self._applied = np.zeros(2, np.float32)
        self._stamp_ns: int | None = None
        self._braking_since_ns: int | None = None
        self._stale = Throttle()
        self._actions = self.create_publisher(AppliedAction, '~/output/applied_action', qos.STEP)
        self._commands = self.create_publisher(
            CarlaEgoVehicleControl, '~/output/vehicle_command', qos.SENSOR)
        self.create_subscription(Observation, '~/input/observation', self._on_observation,
                                 qos.STEP)
        self.create_subscription(Action, '~/input/action', self._on_action, qos.STEP)
        self.create_subscription(Header, '~/input/hold', self._on_hold, qos.STEP)
        every(self, 0.02, self._watch)

    def _apply(self, settings: ControlSettings) -> None:
        self.settings = settings

    def _on_observation(self, message: Observation) -> None:
        self._heard_at = time.monotonic()
        if self._open is not None:
            # In real time a frame may come before the action to the one before it.
            self._repeat(self._open)
        else:
            self._unanswered_since = self._heard_at
        if message.is_first:
            self._applied = np.zeros(2, np.float32)
            self._stamp_ns = None
        if message.is_last:
            self._stop(message.header)
            return
        self._open = message
        if self._early is not None:
            early, self._early = self._early, None
            self._on_action(early)

    def _on_action(self, message: Action) -> None:
        answered, key = self._open, (message.episode, message.step)
        if answered is None or key not in ((answered.episode, answered.step), self._repeated):
            # Ahead of its observation it waits for it; behind it, it is too late.
            self._early = message
            return
        now_ns = to_nanoseconds(answered.header.stamp)
        speed = answered.state[0] * SPEED_SCALE if len(answered.state) else math.nan
        dt = self._elapsed(now_ns)
        self._braking_since_ns = None
        self._send(answered, limit_action((message.steer, message.acceleration), self._applied,
                                          speed, dt, self.settings.command),
                   AppliedAction.SOURCE_POLICY, message)

    def _on_hold(self, header: Header) -> None:
        self._heard_at = time.monotonic()
        self._open = None
        self._stop(header)

    def _watch(self) -> None:
        """Brake when an action, or every observation, has not come for too long."""
        now = time.monotonic()
        limit = self.settings.sensor_timeout
        if limit and self._last is not None and not self._is_stopped \
                and now - self._heard_at > limit:
            self.get_logger().error(f'no observation for {limit:g} s: stopping; are camera, '
                                    'odometry and environment node alive?')
            self._open = None
            self._stop(self._last)
            return
        if self._open is None or now - self._unanswered_since <= self.settings.action_timeout:
            return
        if self._stale.ready():
            self.get_logger().warning(
                f'no action for step {self._open.step} of episode {self._open.episode} within '
                f'{self.settings.action_timeout:g} s: braking ({self._stale.count} times so far); '
                'is the policy node alive?')
        self._brake(self._open, AppliedAction.SOURCE_WATCHDOG)

    def _repeat(self, observation: Observation) -> None:
        self._repeated = observation.episode, observation.step
        self._send(observation, self._applied, AppliedAction.SOURCE_REPEATED, None)

    def _brake(self, observation: Observation, source: int) -> None:
        now_ns = to_nanoseconds(observation.header.stamp)
        if self._braking_since_ns is None:
            self._braking_since_ns = now_ns
        action = brake_action(self._applied, (now_ns - self._braking_since_ns) * 1e-9,
                              self._elapsed(now_ns), self.settings.command)
        self._send(observation, action, source, None)

    def _send(self, observation: Observation, action: np.ndarray, source: int,
              chosen: Action | None) -> None:
        self._open = None
        self._applied = action
        self._stamp_ns = to_nanoseconds(observation.header.stamp)
        self._command(observation.header, action)
        self._actions.publish(AppliedAction(
            header=observation.header, vehicle=observation.vehicle, episode=observation.episode,
            step=observation.step, steer=float(action[0]), acceleration=float(action[1]),
            source=source, exploring=chosen is not None and chosen.exploring,
            policy_version=chosen.policy_version if chosen is not None else 0))

    def _stop(self, header: Header) -> None:
        """Stand: outside an episode nobody drives."""
        self._command(header, np.array((0.0, -1.0), np.float32))
        self._is_stopped = True

    def _command(self, header: Header, action: np.ndarray) -> None:
        command = to_carla(action, self.settings.command)
        message = CarlaEgoVehicleControl(
            throttle=command.throttle, steer=command.steer, brake=command.brake,
            hand_brake=command.hand_brake, reverse=command.reverse)
        message.header = header
        self._commands.publish(message)
        self._last, self._is_stopped = header, False

    def _elapsed(self, now_ns: int) -> float:
        """Return the time in s since the last applied action; a camera period at the first."""
        return 0.05 if self._stamp_ns is None else (now_ns - self._stamp_ns) * 1e-9

    def close(self) -> None:
        """Leave the vehicle braking."""
        header = self._open.header if self._open is not None else self._last
        if header is not None and self.context.ok():
            self._stop(header)


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(ControlNode, args)


if __name__ == '__main__':
    main()
