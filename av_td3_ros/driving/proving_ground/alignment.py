"""Where a proving ground lies on a map of virtual roads: a rigid motion in the plane."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import (
    FloatArray,
    Pose,
    from_vehicle_frame,
    to_vehicle_frame,
    wrap_angle,
)
from av_td3_ros.settings import setting

ENOUGH = 1e-9      # m and rad: a step of the fit that moves less is its last
MOST_STEPS = 100
SHORTEST = 5.0     # m that a drive must reach to tell a direction better than its first pose does


@dataclasses.dataclass(frozen=True)
class StartSettings:
    """Say where the ground's frame lies on the map; `av-td3 align` finds it."""

    x: float = setting(0.0, "x of the ground frame's origin on the map, m", minimum=-1e7,
                       maximum=1e7)
    y: float = setting(0.0, "y of the ground frame's origin on the map, m", minimum=-1e7,
                       maximum=1e7)
    yaw: float = setting(0.0, "direction of the ground frame's x axis on the map, rad",
                         minimum=-6.3, maximum=6.3)

    @property
    def origin(self) -> Pose:
        """Return the ground frame as a pose on the map."""
        return Pose(self.x, self.y, self.yaw)


@dataclasses.dataclass(frozen=True)
class Fit:
    """
    Hold the ground frame as a pose on the map, and how well a drive fits a lane with it.

    `residuals` (N,) are the distances in m from the driven places to the lane's centre, left
    positive; `start_yaw` is the error of the first heading in rad.
    """

    origin: Pose
    residuals: FloatArray
    start_yaw: float

    @property
    def rms(self) -> float:
        """Return the root of the mean squared residual in m."""
        return float(np.sqrt(np.mean(self.residuals ** 2)))


def to_map(origin: Pose, vehicle: VehicleState) -> VehicleState:
    """Return a vehicle of the ground frame as it is on the map; its own speeds stay."""
    ((x, y),) = from_vehicle_frame((vehicle.x, vehicle.y), origin)
    return dataclasses.replace(vehicle, x=float(x), y=float(y),
                               yaw=wrap_angle(vehicle.yaw + origin.yaw))


def to_ground(origin: Pose, pose: Pose) -> Pose:
    """Return a pose of the map in the ground frame; undoes `to_map`."""
    ((x, y),) = to_vehicle_frame((pose.x, pose.y), origin)
    return Pose(float(x), float(y), wrap_angle(pose.yaw - origin.yaw))


def at_centre(vehicle: VehicleState, ahead: float) -> VehicleState:
    """Return the motion of the point `ahead` m in front of the one that was measured."""
    middle = Pose(vehicle.x, vehicle.y, vehicle.yaw).ahead(ahead)
    return dataclasses.replace(
        vehicle, x=middle.x, y=middle.y,
        lateral_speed=vehicle.lateral_speed + vehicle.yaw_rate * ahead)


def place_at(driven: Pose, start: Pose) -> Pose:
    """Return the ground frame's pose on the map that puts one driven pose onto `start`."""
    yaw = wrap_angle(start.yaw - driven.yaw)
    ((x, y),) = from_vehicle_frame((driven.x, driven.y), Pose(0.0, 0.0, yaw))
    return Pose(start.x - float(x), start.y - float(y), yaw)


def fit_to_lane(driven: npt.ArrayLike, lane: npt.ArrayLike) -> Fit:
    """
    Return the rigid motion that puts a drive onto a lane from the lane's start on.

    `driven` is (N, 3) x, y, yaw on the ground; `lane` is (M, 2) x, y of the lane's centre on the
    map, from where the drive began. Least squares over the distances across the lane (Gauss-Newton
    from the first pose); along it, where a straight lane would let everything slide, the first
    place stands at the lane's start. A drive of under 5 m is placed by its first pose alone.

    Raises ValueError for what is not finite, of another shape, or longer than the lane.
    """
    poses, centre = np.asarray(driven, np.float64), np.asarray(lane, np.float64)
    if poses.ndim != 2 or poses.shape[1] != 3 or not len(poses) or not np.isfinite(poses).all():
        raise ValueError(f'driven poses {poses.shape} are not (N, 3) finite x, y, yaw')
    if centre.ndim != 2 or len(centre) < 2 or not np.isfinite(centre).all():
        raise ValueError(f'the lane {centre.shape} is not (M, 2) finite points; choose a start '
                         'with road ahead')
    towards = centre[1] - centre[0]
    start = Pose(float(centre[0, 0]), float(centre[0, 1]), math.atan2(towards[1], towards[0]))
    first = Pose(*map(float, poses[0]))
    origin = place_at(first, start)
    points = poses[:, :2]
    if np.hypot(*(points - points[0]).T).max() >= SHORTEST:
        for _ in range(MOST_STEPS):
            origin, moved = _improved(origin, points, centre, start)
            if moved < ENOUGH:
                break
    placed = from_vehicle_frame(points, origin)
    residuals, _, beyond = _across(placed, centre)
    if beyond > SHORTEST:
        raise ValueError(f'the drive goes {beyond:.1f} m past the end of the lane; drive less, or '
                         'choose a start with more road ahead')
    return Fit(origin, residuals, wrap_angle(first.yaw + origin.yaw - start.yaw))


def _improved(origin: Pose, points: FloatArray, centre: FloatArray, start: Pose
              ) -> tuple[Pose, float]:
    """Return a better pose of the ground by one Gauss-Newton step, and how far that went."""
    placed = from_vehicle_frame(points, origin)
    across, normals, _ = _across(placed, centre)
    tangent = np.array([math.cos(start.yaw), math.sin(start.yaw)])
    # Turning about the first place: about a distant origin a small turn would move everything.
    arms = placed - placed[0]
    turned = -arms[:, 1] * normals[:, 0] + arms[:, 0] * normals[:, 1]
    rows = np.concatenate([np.column_stack([normals, turned]), [[*tangent, 0.0]]])
    along = float(tangent @ (placed[0] - (start.x, start.y)))
    step, *_ = np.linalg.lstsq(rows, -np.append(across, along), rcond=None)
    yaw = wrap_angle(origin.yaw + float(step[2]))
    ((x, y),) = from_vehicle_frame(points[:1], Pose(0.0, 0.0, yaw))
    pinned = placed[0] + step[:2]
    return (Pose(float(pinned[0] - x), float(pinned[1] - y), yaw),
            float(np.abs(step).max()))


def _across(places: FloatArray, centre: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Return the signed distances (N,), the lane's normals (N, 2), and m past its end."""
    steps = np.diff(centre[:, :2], axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    tangents = steps / lengths[:, None]
    offsets = places[:, None, :] - centre[None, :-1, :2]
    along = np.einsum('nmk,mk->nm', offsets, tangents)
    nearest = offsets - np.clip(along, 0.0, lengths)[..., None] * tangents
    segment = np.argmin(np.hypot(nearest[..., 0], nearest[..., 1]), axis=1)
    row = np.arange(len(places))
    normals = np.column_stack([-tangents[segment, 1], tangents[segment, 0]])
    distances: FloatArray = np.einsum('nk,nk->n', offsets[row, segment], normals)
    is_last = segment == len(lengths) - 1
    beyond = np.where(is_last, along[row, segment] - lengths[segment], 0.0).max()
    return distances, normals, max(0.0, float(beyond))
