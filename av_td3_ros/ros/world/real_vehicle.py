"""A real vehicle on an empty ground, heard through its odometry and watched over."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable

from nav_msgs.msg import Odometry
from rclpy.node import Node
from std_msgs.msg import String

from av_td3_ros.driving.perception.odometry_gate import OdometryGate, jump_reason
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.proving_ground.alignment import StartSettings, at_centre, to_map
from av_td3_ros.driving.proving_ground.ground import (
    GroundSettings,
    edge_reason,
    length_on_ground,
)
from av_td3_ros.driving.route.geometry import FloatArray, to_vehicle_frame
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import from_odometry
from av_td3_ros.ros.diagnostics import WARN, Meter, Reading, stream
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.runtime import Throttle
from av_td3_ros.settings import group, setting

SILENCE = 0.5   # s without odometry after which something is wrong
REPEATED = 0.1  # s of wall time at least between two requests to stop


@dataclasses.dataclass(frozen=True)
class RealVehicleSettings:
    """Say what is known of a real vehicle and its ground."""

    max_age: float = setting(0.25, "difference in s between an odometry's stamp and now beyond "
                             'which it is refused', minimum=0.01, maximum=10.0)
    centre_ahead: float = setting(0.0, "m from the point that the odometry tells of ahead to the "
                                  "middle of the vehicle's body; about 1.4 for a rear axle",
                                  minimum=-10.0, maximum=10.0)
    length: float = setting(4.5, "length of the vehicle's body in m", minimum=0.1, maximum=30.0)
    width: float = setting(1.9, "width of the vehicle's body in m", minimum=0.1, maximum=5.0)
    start: StartSettings = group(StartSettings, 'where the ground lies on the map')
    ground: GroundSettings = group(GroundSettings, 'the drivable rectangle, and when to stop')

    def check(self) -> None:
        """Raise ValueError where the ground is not known: nothing may move then."""
        if not self.ground.is_given:
            raise ValueError(
                'external.ground.length and external.ground.width are not given: measure the '
                'empty rectangle in the frame of the vehicle odometry, and give its middle, '
                'direction and size as external.ground.x, y, yaw, length and width')


class RealVehicle:
    """
    Hand on a real vehicle's odometry as it is on the map, and ask for a stop where it must.

    Odometry that is not finite, too old or out of order is refused: counted in `gate.refused` and
    told at most once a second.
    """

    def __init__(self, node: Node, inputs: Inputs, settings: RealVehicleSettings,
                 on_vehicle: Callable[[VehicleState], None]) -> None:
        """Subscribe; `on_vehicle` gets each pose of the middle of the body on the map."""
        settings.check()
        self._node, self._settings, self._on_vehicle = node, settings, on_vehicle
        self._before: VehicleState | None = None
        self._asked = Throttle(REPEATED)
        self._reasons: dict[str, str] = {}
        self._ages = Meter()
        self.gate = OdometryGate(settings.max_age)
        self._requests = node.create_publisher(String, '~/output/stop_request', qos.STEP)
        inputs.listen(Odometry, '~/input/vehicle_odometry', self._on_odometry, qos.VEHICLE)

    def ask_to_stop(self, danger: str, reason: str) -> None:
        """Ask for a controlled stop as long as there is a reason for it; '' is none."""
        is_new = bool(reason) and not self._reasons.get(danger)
        self._reasons[danger] = reason
        if is_new:  # told once: its numbers change from pose to pose
            self._node.get_logger().warning(f'stop requested: {reason}')
        if is_new or (reason and self._asked.ready()):
            self._requests.publish(String(data=reason))

    def on_ground(self, route: FloatArray) -> float:
        """Return how many m of a route on the map, (N, 2 or more), lie on the ground."""
        return length_on_ground(to_vehicle_frame(route[:, :2], self._settings.start.origin),
                                self._settings.ground)

    def tell(self) -> Reading:
        """Say how the odometry fares, and what the vehicle must stop for."""
        level, told, values = stream('vehicle odometry', self._ages, SILENCE,
                                     'is the vehicle on, and does its topic have this name?')
        reason = next((one for one in self._reasons.values() if one), '')
        if reason and level < WARN:
            level, told = WARN, reason
        return Reading(level, told, {
            **values, 'largest age [s]': self._ages.largest,
            **{f'refused: {why}': count for why, count in self.gate.refused.items()}})

    def _on_odometry(self, message: Odometry) -> None:
        try:
            vehicle = from_odometry(message)
        except ValueError:
            self.gate.broken()
            raise
        now_ns = self._node.get_clock().now().nanoseconds
        self.gate.check(vehicle, now_ns)
        self._ages.note((now_ns - vehicle.stamp_ns) * 1e-9)
        s = self._settings
        vehicle = at_centre(vehicle, s.centre_ahead)
        self.ask_to_stop('jump', jump_reason(self._before, vehicle, s.ground.max_jump))
        self.ask_to_stop('edge', edge_reason(vehicle, s.length, s.width, s.ground))
        self._before = vehicle
        self._on_vehicle(to_map(s.start.origin, vehicle))
