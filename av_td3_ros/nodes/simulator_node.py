"""The embedded simulator behind the topics of the CARLA ROS bridge."""
from __future__ import annotations

import dataclasses
import math
import time

import cv2
from carla_msgs.msg import CarlaControl, CarlaEgoVehicleControl
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist
from rclpy.node import Node
from std_msgs.msg import Bool

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import from_pose_message, to_nanoseconds
from av_td3_ros.ros.diagnostics import OK, WARN, Diagnostics, Meter, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.runtime import Throttle, every, run
from av_td3_ros.ros.world.bridge_topics import BridgeTopics
from av_td3_ros.ros.world.real_vehicle import RealVehicleSettings
from av_td3_ros.ros.world.routes import Routes
from av_td3_ros.ros.world.vehicle_in_world import VehicleInWorld
from av_td3_ros.settings import group, setting
from av_td3_ros.simulator.vehicle.dynamics import VehicleCommand
from av_td3_ros.simulator.world import World, WorldSettings

MAX_SPEED = 100.0  # m/s that the ego vehicle may be set to
STARTING = 2.0     # s of wall time at most between two ticks until somebody drives


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
    """What the simulator node is told."""

    ego: str = setting('dynamics', 'dynamics: the commands move the simulated vehicle; external: '
                       'a real vehicle does, by its odometry', choices=('dynamics', 'external'))
    vehicle: str = setting('ego_vehicle', 'role name of the vehicle, part of its frames')
    mode: str = setting('lockstep', 'lockstep: wait for one command after each image; real_time: '
                        'the clock sets the pace', choices=('lockstep', 'real_time'))
    command_timeout: float = setting(1.0, 'wall time in s that lockstep waits for a command '
                                     'before it goes on with the last one',
                                     minimum=0.01, maximum=60.0)
    seed: int = setting(0, 'seed of light, colours, traffic and noise', minimum=0,
                        maximum=2**31 - 1)
    route_length: float = setting(0.0, 'm of the lane ahead of a real vehicle that are its first '
                                  'route; 0: routes lead to the goals that are asked for',
                                  minimum=0.0, maximum=1e5)
    world: WorldSettings = group(WorldSettings, 'map, vehicle, camera, traffic')
    external: RealVehicleSettings = group(RealVehicleSettings, 'the real vehicle')

    def __post_init__(self) -> None:
        """Refuse a real vehicle that would have to wait."""
        if self.ego == 'external' and self.mode != 'real_time':
            raise ValueError(f'ego: external with mode: {self.mode}: a real vehicle waits for '
                             'nobody; set mode: real_time')


class SimulatorNode(Node):
    """Ticks the world and speaks for it: status, clock, sensors, as the bridge does."""

    def __init__(self) -> None:
        super().__init__('simulator_node')
        s = self.settings = declare_settings(self, SimulatorSettings)
        cv2.setNumThreads(1)
        self._world = World(s.world, s.seed)
        self._lockstep = s.mode == 'lockstep'
        self._paused = False
        self._steps_allowed = 0
        self._waiting = self._is_driven = False
        self._ticked_at = -math.inf
        self._override = False
        self._command = CarlaEgoVehicleControl(brake=1.0)
        self._timeouts = Throttle()
        self._inputs = Inputs(self)
        self._topics = BridgeTopics(self, self._world, s.vehicle)
        self._ticks = Meter()
        self._routes = Routes(self, self._inputs, self._world.road_map)
        diagnostics = Diagnostics(self, s.vehicle)
        diagnostics.add('world', self._tell)
        diagnostics.add('inputs', self._inputs.tell)
        if s.ego == 'external':
            self._refuse_wishes()
            self._real = VehicleInWorld(
                self, self._inputs, self._world, self._topics, self._routes, s.external,
                s.route_length, self._ticks.note)
            diagnostics.add('real vehicle', self._real.real.tell)
        else:
            self._begin_dynamics()
        self._topics.tell_constants()

    def _begin_dynamics(self) -> None:
        def subscribe(kind: type, name: str, callback, profile=qos.SENSOR):
            self._inputs.listen(kind, f'~/input/{name}', callback, profile)

        subscribe(CarlaEgoVehicleControl, 'vehicle_command',
                  lambda message: self._on_command(message, manual=False))
        subscribe(CarlaEgoVehicleControl, 'vehicle_command_manual',
                  lambda message: self._on_command(message, manual=True))
        subscribe(Bool, 'manual_override', self._on_override, qos.LATCHED)
        subscribe(PoseMessage, 'set_transform', self._on_transform)
        subscribe(PoseWithCovarianceStamped, 'initial_pose',
                  lambda message: self._on_transform(message.pose.pose))
        subscribe(Twist, 'set_target_velocity', self._on_velocity)
        subscribe(CarlaControl, 'world_control', self._on_world_control)
        period = 0.02 if self._lockstep else self.settings.world.fixed_delta_seconds
        every(self, period, self._on_timer)

    def _refuse_wishes(self) -> None:
        def refuse(kind: type, name: str):
            def hear(_: object) -> None:
                raise ValueError('a real vehicle is where it is (ego: external)')

            self._inputs.listen(kind, f'~/input/{name}', hear, qos.SENSOR)

        refuse(PoseMessage, 'set_transform')
        refuse(PoseWithCovarianceStamped, 'initial_pose')
        refuse(Twist, 'set_target_velocity')
        refuse(CarlaControl, 'world_control')

    # -- pace

    def _on_timer(self) -> None:
        if not self._lockstep:
            if not self._paused or self._steps_allowed:
                self._tick()
            return
        patience = self.settings.command_timeout
        if not self._is_driven:
            patience = min(STARTING, patience)
        overdue = time.monotonic() - self._ticked_at > patience
        if overdue and self._may_tick():
            if self._waiting and self._timeouts.ready():
                self.get_logger().warning(
                    f'no command for the image at {self._world.stamp_ns * 1e-9:.2f} s within '
                    f'{patience:g} s: going on with the last one '
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
            raise ValueError(f'throttle, steer and brake {values} are not finite')
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
        was_paused = self._paused
        self._paused = message.command != CarlaControl.PLAY
        if self._paused != was_paused:
            self._topics.tell_tick(self._world.frame, self._lockstep, self._paused)
        self._steps_allowed = int(message.command == CarlaControl.STEP_ONCE)
        answered = self._lockstep and not self._waiting
        if answered and self._may_tick():
            self._tick()

    def _tick(self) -> None:
        self._steps_allowed = max(0, self._steps_allowed - 1)
        if self._routes.is_due:
            self._topics.tell_path(self._routes.plan(self._world.ego_pose))
        command = self._command
        snapshot = self._world.tick(VehicleCommand(
            throttle=command.throttle, steer=-command.steer, brake=command.brake,
            hand_brake=command.hand_brake, reverse=command.reverse), render=False)
        self._waiting = True  # before the image is out: its answer may be quick
        self._ticked_at = time.monotonic()
        self._ticks.note()
        self._topics.tell_tick(snapshot.frame, self._lockstep, self._paused)
        self._topics.tell_time(snapshot)
        self._topics.tell(snapshot, self._command)
        # The image takes longest: the others look at the rest meanwhile.
        self._topics.tell_image(self._world.render(snapshot.vehicles))

    # -- wishes

    def _on_transform(self, message: PoseMessage) -> None:
        pose = from_pose_message(message)
        self._world.teleport(pose)
        self._is_driven = True  # who begins an episode answers, however late at first
        self._routes.again()

    def _on_velocity(self, message: Twist) -> None:
        if not abs(message.linear.x) <= MAX_SPEED:  # false for what is no number
            raise ValueError(f'velocity {message.linear.x} m/s: give at most {MAX_SPEED:g}')
        self._world.set_velocity(message.linear.x)

    def _tell(self) -> Reading:
        rate = self._ticks.rate
        values = {'ticks a second': rate, 'vehicles': self.settings.world.traffic.count,
                  'times real time': rate * self.settings.world.fixed_delta_seconds,
                  'commands that did not come': self._timeouts.count}
        if self._paused:
            return Reading(OK, 'paused', values)
        if self._ticks.age is None:
            return Reading(WARN, 'the world stands still: no command and no odometry comes',
                           values)
        return Reading(OK, f'{rate:.1f} ticks a second', values)

    def close(self) -> None:
        """Nothing to finish."""


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(SimulatorNode, args)


if __name__ == '__main__':
    main()
