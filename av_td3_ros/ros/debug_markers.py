"""What rviz draws of a drive: markers in the map's frame, each kind in a namespace of its own."""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker

from av_td3_ros.driving.display.prediction import Driven
from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.driving.route.geometry import FloatArray, Pose
from av_td3_ros.ros.conversions import to_pose_message

# m above the ground, so that no line hides another
ROUTE_HEIGHT, TRAIL_HEIGHT, STEERING_HEIGHT, TEXT_HEIGHT = 0.05, 0.12, 0.2, 3.2
NAMESPACES = ('route', 'driven', 'ego', 'steering', 'others', 'episode')


def route_marker(header: Header, points: FloatArray) -> Marker:
    """Return the route, (N, 2) m on the map, as a line."""
    return _line(header, 'route', 0, points, ROUTE_HEIGHT, 0.35, _colour(0.16, 0.75, 0.5, 0.8))


def trail_marker(header: Header, driven: Sequence[Driven], top_speed: float) -> Marker:
    """Return the path driven as a line whose colour tells the speed, up to `top_speed` m/s."""
    marker = _line(header, 'driven', 0, [(one.x, one.y) for one in driven], TRAIL_HEIGHT, 0.25,
                   _colour(1.0, 1.0, 1.0))
    shares = np.clip([one.speed / top_speed for one in driven], 0.0, 1.0)
    table = cv2.applyColorMap(np.uint8(255 * shares).reshape(-1, 1), cv2.COLORMAP_TURBO)
    marker.colors = [_colour(red, green, blue)
                     for blue, green, red in (table.reshape(-1, 3) / 255.0).tolist()]
    return marker


def steering_markers(header: Header, edges: Sequence[FloatArray], colour: tuple[int, int, int]
                     ) -> list[Marker]:
    """Return the edges of the predicted way, each (N, 2) m on the map; colour is B, G, R."""
    blue, green, red = (one / 255.0 for one in colour)
    return [_line(header, 'steering', index, edge, STEERING_HEIGHT, 0.12,
                  _colour(red, green, blue)) for index, edge in enumerate(edges)]


def box_marker(header: Header, namespace: str, box: Box, colour: tuple[float, float, float]
               ) -> Marker:
    """Return a vehicle's outline as a cube; colour is R, G, B in [0, 1]."""
    marker = Marker(header=header, ns=namespace, id=box.id, type=Marker.CUBE, action=Marker.ADD,
                    pose=to_pose_message(Pose(box.x, box.y, box.yaw)), color=_colour(*colour, 0.7))
    marker.pose.position.z = 0.5 * box.height
    marker.scale.x, marker.scale.y, marker.scale.z = box.length, box.width, box.height
    return marker


def text_marker(header: Header, pose: Pose, text: str) -> Marker:
    """Return a text over a place."""
    marker = Marker(header=header, ns='episode', type=Marker.TEXT_VIEW_FACING, action=Marker.ADD,
                    pose=to_pose_message(pose), color=_colour(1.0, 1.0, 1.0), text=text)
    marker.pose.position.z = TEXT_HEIGHT
    marker.scale.z = 0.9
    return marker


def removal(header: Header, namespace: str, identity: int) -> Marker:
    """Return what takes a marker away."""
    return Marker(header=header, ns=namespace, id=identity, action=Marker.DELETE)


def _line(header: Header, namespace: str, identity: int,
          points: NDArray[np.float64] | Iterable[Sequence[float]], height: float, width: float,
          colour: ColorRGBA) -> Marker:
    marker = Marker(header=header, ns=namespace, id=identity, type=Marker.LINE_STRIP,
                    action=Marker.ADD, color=colour)
    marker.pose.orientation.w = 1.0
    marker.scale.x = width
    marker.points = [Point(x=float(x), y=float(y), z=height) for x, y in points
                     if math.isfinite(x) and math.isfinite(y)]
    return marker


def _colour(red: float, green: float, blue: float, alpha: float = 1.0) -> ColorRGBA:
    return ColorRGBA(r=float(red), g=float(green), b=float(blue), a=float(alpha))
