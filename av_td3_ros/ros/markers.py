"""Road users as the markers that the CARLA bridge's `sensor.pseudo.markers` publishes."""
from __future__ import annotations

import math
from collections.abc import Iterable

from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.ros.conversions import (
    from_pose_message,
    to_nanoseconds,
    to_pose_message,
)


def to_markers(header: Header, boxes: Iterable[Box], own_id: int) -> MarkerArray:
    """Return one cube a box, green for the vehicle itself and red for the others."""
    return MarkerArray(markers=[_to_marker(header, one, one.id == own_id) for one in boxes])


def from_markers(message: MarkerArray) -> tuple[int, tuple[Box, ...]]:
    """
    Return the stamp in ns and the boxes of the cubes in an array.

    The array itself has no stamp: that of its first marker is taken. Raises ValueError for an
    array without markers or with a number that is not finite.
    """
    if not message.markers:
        raise ValueError('an array without markers has no stamp; publish that of the vehicle too')
    boxes = tuple(_to_box(one) for one in message.markers
                  if one.type == Marker.CUBE and one.action == Marker.ADD)
    return to_nanoseconds(message.markers[0].header.stamp), boxes


def _to_marker(header: Header, box: Box, is_own: bool) -> Marker:
    marker = Marker(header=header, id=box.id, type=Marker.CUBE, action=Marker.ADD,
                    pose=to_pose_message(Pose(box.x, box.y, box.yaw)),
                    color=ColorRGBA(r=float(not is_own), g=float(is_own), a=0.3))
    marker.pose.position.z = 0.5 * box.height
    marker.scale.x, marker.scale.y, marker.scale.z = box.length, box.width, box.height
    return marker


def _to_box(marker: Marker) -> Box:
    pose, size = from_pose_message(marker.pose), marker.scale
    if not math.isfinite(size.x + size.y + size.z):
        raise ValueError(f'marker {marker.id} is {size.x} x {size.y} x {size.z} m')
    return Box(marker.id, pose.x, pose.y, pose.yaw, size.x, size.y, size.z)
