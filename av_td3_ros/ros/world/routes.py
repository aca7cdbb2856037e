"""Routes to the goals that somebody asks a world for."""
from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node

from av_td3_ros.driving.route.geometry import FloatArray, Pose
from av_td3_ros.driving.route.planner import RouteError, RoutePlanner
from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import from_pose_message
from av_td3_ros.ros.inputs import Inputs

MAP = 'map'  # the frame that the bridge calls so


class Routes:
    """Plan the shortest way to the goal that was asked for last."""

    def __init__(self, node: Node, inputs: Inputs, road_map: RoadMap) -> None:
        """Subscribe to goals; `is_due` then tells that a route is wanted."""
        self._node, self._map, self._router = node, road_map, RoutePlanner(road_map)
        self._goal: Pose | None = None
        self.is_due = False
        inputs.listen(PoseStamped, '~/input/goal', self._on_goal, qos.SENSOR)

    def again(self) -> None:
        """Ask for a route from another start to the same goal, if there is one."""
        self.is_due = self._goal is not None

    def plan(self, start: Pose) -> FloatArray:
        """Return the way (N, 3) x, y, yaw from `start` to the goal; without points, none leads."""
        self.is_due = False
        assert self._goal is not None
        try:
            return self._router.plan(start, self._goal).points
        except RouteError as error:
            self._node.get_logger().warning(str(error))
            return np.empty((0, 3))

    def ahead(self, start: Pose, length: float) -> FloatArray:
        """Return the lane (N, 3) x, y, yaw ahead of `start` for `length` m."""
        points = self._map.lane_ahead(start, length)
        steps = np.diff(points, axis=0, append=2.0 * points[-1:] - points[-2:-1])
        return np.column_stack([points, np.arctan2(steps[:, 1], steps[:, 0])])

    def _on_goal(self, message: PoseStamped) -> None:
        frame = message.header.frame_id.lstrip('/')
        if frame not in ('', MAP):
            raise ValueError(f'it is in frame {frame!r}, give it in that of the roads, {MAP!r}')
        self._goal = from_pose_message(message.pose)
        self.is_due = True
