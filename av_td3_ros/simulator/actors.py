"""Everybody on the road of a simulated world, as others outside it see them."""
from __future__ import annotations

from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.simulator.vehicle.dynamics import EgoVehicle
from av_td3_ros.simulator.world import Snapshot

EGO_ID = 1000  # beyond those of the traffic


def actors(snapshot: Snapshot, ego: EgoVehicle) -> tuple[Box, ...]:
    """Return the boxes of the ego vehicle, which comes first, and of the traffic."""
    here = snapshot.ego
    return (Box(EGO_ID, here.x, here.y, here.yaw, ego.length, ego.width, ego.height),
            *(Box(one.id, float(one.x), float(one.y), float(one.yaw), one.length, one.width,
                  one.height)
              for one in snapshot.vehicles))
