"""Where an episode begins: asked of the simulator by teleport, until the vehicle stands there."""
from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Pose, PoseStamped, Twist
from rclpy.node import Node

from av_td3_ros.driving.episode.planner import EpisodePlan, EpisodePlanner
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_pose_message

ARRIVED = 2.0    # m from the start pose at which a teleport has taken place
SLOW = 1.0       # m/s that the speed may differ from the wanted one by then
ABOVE = 0.2      # m over the road that a vehicle is put down from: none of it is in the ground
PATH_FITS = 6.0  # m between the ends of a published path and those asked for

Points = npt.NDArray[np.float64]


class Resetter:
    """Asks for the start and goal of an episode, and tells when both are so."""

    def __init__(self, node: Node, timeout: float) -> None:
        """Ask through `node`; `timeout` is the wall time in s after which to ask again."""
        self._timeout = timeout
        self._asked_at = 0.0
        self.planner: EpisodePlanner | None = None
        self.plan: EpisodePlan | None = None
        self._transforms = node.create_publisher(Pose, '~/output/set_transform', qos.SENSOR)
        self._velocities = node.create_publisher(
            Twist, '~/output/set_target_velocity', qos.SENSOR)
        self._goals = node.create_publisher(PoseStamped, '~/output/goal', qos.SENSOR)

    def begin(self, index: int) -> None:
        """Plan episode `index` and ask for it; raise ValueError when it cannot be planned."""
        assert self.planner is not None
        self.plan = self.planner.plan(index)
        self.ask()

    def ask(self) -> None:
        """Teleport, set the speed, name the goal: in this order, as the bridge needs it."""
        assert self.plan is not None and self.planner is not None
        start, end = self.plan.start, self.plan.goal
        self._asked_at = time.monotonic()
        self._transforms.publish(to_pose_message(
            start, self.planner.height(start.x, start.y) + ABOVE))
        velocity = Twist()  # in the vehicle's own frame
        velocity.linear.x = self.plan.speed
        self._velocities.publish(velocity)
        goal = PoseStamped(pose=to_pose_message(end, self.planner.height(end.x, end.y)))
        goal.header.frame_id = 'map'
        self._goals.publish(goal)

    def is_overdue(self) -> bool:
        """Return whether what was asked for has not come within the timeout."""
        return time.monotonic() - self._asked_at > self._timeout

    def missing(self, vehicle: VehicleState | None, path: Points | None) -> str:
        """Return what of that which was asked for is not so yet, '' when all is."""
        return self.missing_start(vehicle) or self._missing_route(path)

    def missing_start(self, vehicle: VehicleState | None) -> str:
        """Return in what the vehicle is not yet as it was asked to be, '' when it is."""
        plan = self.plan
        if plan is None:
            return ('nothing was asked for' if self.planner is not None else
                    'no map to drive on has come: is the simulator, or its bridge, running?')
        if vehicle is None:
            return 'no frame of camera and odometry has come'
        away = plan.start.distance(vehicle.x, vehicle.y)
        if away > ARRIVED:
            return (f'the vehicle is {away:.0f} m from the start at ({plan.start.x:.0f}, '
                    f'{plan.start.y:.0f})')
        if abs(vehicle.speed - plan.speed) > SLOW:
            return f'the vehicle drives {vehicle.speed:.1f} m/s, not {plan.speed:.1f}'
        return ''

    def _missing_route(self, path: Points | None) -> str:
        plan = self.plan
        assert plan is not None
        if path is None:
            return 'no route has come'
        if not (plan.start.distance(*path[0]) < PATH_FITS
                and plan.goal.distance(*path[-1]) < PATH_FITS):
            return 'the route does not lead from the start to the goal asked for'
        return ''
