"""The numbers that the policy sees beside the camera frames."""
from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.route.tracker import RoutePosition

SPEED_SCALE = 30.0     # m/s
LATERAL_SCALE = 3.5    # m
HEADING_SCALE = math.pi  # rad
WAYPOINT_SCALE = 50.0  # m
WAYPOINT_SPACING = 2.0  # m


def state_size(waypoints: int) -> int:
    """Return how many numbers a state vector with that many waypoints has."""
    return 3 + 2 * waypoints


def state_vector(speed: float, position: RoutePosition, waypoints: npt.NDArray[np.float32]
                 ) -> npt.NDArray[np.float32]:
    """
    Return float32[3 + 2n]: speed/30, lateral error/3.5, heading error/pi, then (x, y)/50 of each.

    `speed` is in m/s; `waypoints` are (n, 2) metres in the vehicle's frame.
    """
    vector = np.empty(3 + waypoints.size, dtype=np.float32)
    vector[0] = speed / SPEED_SCALE
    vector[1] = position.lateral / LATERAL_SCALE
    vector[2] = position.heading_error / HEADING_SCALE
    np.multiply(waypoints.reshape(-1), np.float32(1.0 / WAYPOINT_SCALE), out=vector[3:])
    return vector
