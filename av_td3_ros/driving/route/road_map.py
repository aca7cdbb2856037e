"""
The road network of an OpenDRIVE file, read by `carla.Map` and given in ROS frames.

carla.Map counts y to the right and yaw clockwise; both are negated here and nowhere else.
"""
from __future__ import annotations

import dataclasses
import functools
import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import carla
import numpy as np
from scipy.spatial import cKDTree

from av_td3_ros.driving.route.geometry import (
    FloatArray,
    Pose,
    arc_lengths,
    wrap_angle,
    wrap_angles,
)
from av_td3_ros.driving.route.map_trial import trial

MarkingType = Literal['none', 'broken', 'solid', 'other']

# How densely a lane's centre line is read off the map; 3 mm off the arc at a radius of 10 m.
LANE_SPACING = 0.5
# Reading exactly at a road's end may give the next road: CARLA keeps s in float32.
END_MARGIN = 1e-3
# How much further away a lane may be for each radian by which its direction fits better.
METRES_PER_RADIAN = 2.0
# What no road network has more of, nor a CARLA server could load.
HIGHEST_ID, MOST_LANES = 2**31 - 1, 1000
LONGEST_ROAD, LONGEST_MAP, FARTHEST = 1e5, 5e6, 1e7  # m

_MARKING_TYPES: dict[carla.LaneMarkingType, MarkingType] = {
    carla.LaneMarkingType.NONE: 'none',
    carla.LaneMarkingType.Broken: 'broken',
    carla.LaneMarkingType.BrokenBroken: 'broken',
    carla.LaneMarkingType.BottsDots: 'broken',
    carla.LaneMarkingType.Solid: 'solid',
    carla.LaneMarkingType.SolidSolid: 'solid',
    carla.LaneMarkingType.SolidBroken: 'solid',
    carla.LaneMarkingType.BrokenSolid: 'solid',
}


class MapError(ValueError):
    """Report a map that cannot be driven on: what is wrong with which file, and what to do."""


@dataclasses.dataclass(frozen=True)
class LaneLocation:
    """
    Hold a place projected onto the centre of the nearest driving lane.

    `x`, `y`, `yaw` are the point of the centre line and the lane's own direction; `lateral` is
    the place's distance to it in m, left positive; `s` runs along the road, not the lane.
    """

    x: float
    y: float
    yaw: float
    lane_width: float
    lateral: float
    road_id: int
    lane_id: int
    is_junction: bool
    s: float

    @property
    def pose(self) -> Pose:
        """Return the point of the centre line with the lane's direction."""
        return Pose(self.x, self.y, self.yaw)


@dataclasses.dataclass(frozen=True)
class Marking:
    """Hold what is painted along one side of a lane; widths in m."""

    kind: MarkingType
    width: float
    colour: Literal['white', 'yellow']


@dataclasses.dataclass(frozen=True, eq=False)
class Lane:
    """
    Hold one driving lane of one lane section, along its own direction.

    `points` (N, 2), `yaws` (N,) without jumps, `widths` (N,), `distances` (N,) from the lane's
    start in m, and `s` (N,) along the road. `successors` are indices into `RoadMap.lanes`.
    """

    road_id: int
    section_id: int
    lane_id: int
    is_junction: bool
    junction_id: int
    points: FloatArray
    yaws: FloatArray
    widths: FloatArray
    distances: FloatArray
    s: FloatArray
    successors: tuple[int, ...] = ()

    @property
    def length(self) -> float:
        """Return the lane's length in m."""
        return float(self.distances[-1])

    def pose_at(self, distance: float) -> Pose:
        """Return the pose on the centre line `distance` m from the lane's start."""
        x, y = (np.interp(distance, self.distances, self.points[:, axis]) for axis in (0, 1))
        return Pose(float(x), float(y),
                    wrap_angle(float(np.interp(distance, self.distances, self.yaws))))


@dataclasses.dataclass(frozen=True)
class LanePart:
    """Hold the stretch from `start` to `end` m of the lane with index `lane`."""

    lane: int
    start: float
    end: float


class RoadMap:
    """Answer where the lanes are, which one a place belongs to, and where they lead."""

    def __init__(self, opendrive: str, name: str, source: str | None = None) -> None:
        """
        Parse OpenDRIVE text; errors call it by its `source`, a file, or else by its name.

        For text of our own: `from_file` and `from_text` first see whether CARLA survives it.
        """
        self.name = name
        self.opendrive = opendrive
        self._source = source = name if source is None else source
        sections = _lane_sections(opendrive, source)
        try:
            self.carla_map = carla.Map(name, opendrive)
        except Exception as error:  # whatever C++ throws: the binding has no types of its own
            raise MapError(f'map {source!r}: CARLA cannot read this OpenDRIVE ({error}); check '
                           'that it is OpenDRIVE 1.4 to 1.6 and that its links exist') from error
        self.lanes: tuple[Lane, ...] = self._read_lanes(sections)
        if not self.lanes:
            raise MapError(f'map {source!r} has no driving lanes; a drivable map needs roads with '
                           "lanes of type 'driving'")
        self._indices = {(lane.road_id, lane.section_id, lane.lane_id): index
                         for index, lane in enumerate(self.lanes)}
        points = np.concatenate([lane.points for lane in self.lanes])
        self.bounds: tuple[float, float, float, float] = (
            float(points[:, 0].min()), float(points[:, 1].min()),
            float(points[:, 0].max()), float(points[:, 1].max()))
        self._points = points
        self._yaws = np.concatenate([lane.yaws for lane in self.lanes])
        self._lane_of_point = np.repeat(np.arange(len(self.lanes)),
                                        [len(lane.points) for lane in self.lanes])
        self._first_point = np.concatenate(
            [[0], np.cumsum([len(lane.points) for lane in self.lanes])])
        self._tree = cKDTree(points)
        self._spawn_points: dict[tuple[float, float], tuple[Pose, ...]] = {}

    @classmethod
    def from_file(cls, path: str | Path) -> RoadMap:
        """
        Read an OpenDRIVE file; the map is called as the file without its suffix.

        Raises MapError when the file is missing, broken or has nothing to drive on.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding='utf-8')
        except FileNotFoundError as error:
            near = sorted(found.name for found in file.parent.glob('*.xodr'))
            hint = f'that folder has {", ".join(near)}' if near else (
                'give the path of an OpenDRIVE (.xodr) file')
            raise MapError(f'map file {str(file)!r} does not exist; {hint}') from error
        except (OSError, UnicodeDecodeError) as error:
            raise MapError(f'map file {str(file)!r} cannot be read ({error}); '
                           'give the path of an OpenDRIVE (.xodr) file') from error
        _try(text, str(file))
        return cls(text, file.stem, str(file))

    @classmethod
    def from_text(cls, opendrive: str, name: str) -> RoadMap:
        """Read OpenDRIVE text, as /carla/world_info carries it. Raise MapError as `from_file`."""
        _try(opendrive, name)
        return cls(opendrive, name)

    @functools.cached_property
    def has_lane_markings(self) -> bool:
        """Say whether anything is painted along any lane."""
        return any(side.kind != 'none' for lane in self.lanes
                   for side in self.lane_markings(lane, len(lane.s) // 2))

    def has_lane(self, road_id: int, section_id: int, lane_id: int) -> bool:
        """Say whether there is a driving lane of these ids."""
        return (road_id, section_id, lane_id) in self._indices

    def height(self, x: float, y: float) -> float:
        """Return how high the nearest driving lane lies there, in m."""
        waypoint = self.carla_map.get_waypoint(
            carla.Location(x=x, y=-y), project_to_road=True, lane_type=carla.LaneType.Driving)
        return float(waypoint.transform.location.z)

    def project(self, x: float, y: float) -> LaneLocation:
        """Return the place on the nearest driving lane, whatever its direction."""
        # Projecting onto Driving lanes only: with LaneType.Any CARLA answers with the nearest
        # lane of any kind, and a car in lane looks as if it were off the road.
        waypoint = self.carla_map.get_waypoint(
            carla.Location(x=x, y=-y), project_to_road=True, lane_type=carla.LaneType.Driving)
        transform = waypoint.transform
        centre = transform.location
        yaw = math.radians(-transform.rotation.yaw)
        lateral = (y + centre.y) * math.cos(yaw) - (x - centre.x) * math.sin(yaw)
        return LaneLocation(centre.x, -centre.y, wrap_angle(yaw), waypoint.lane_width, lateral,
                            waypoint.road_id, waypoint.lane_id, waypoint.is_junction, waypoint.s)

    def locate(self, pose: Pose) -> tuple[int, float]:
        """
        Return the index of the lane that fits a pose best and the distance along it in m.

        Both nearness and direction count, so that a pose at a junction or across the middle line
        is put on the lane that leads its way.
        """
        count = min(64, len(self._points))
        near, found = self._tree.query((pose.x, pose.y), k=count)
        near, found = np.atleast_1d(near), np.atleast_1d(found)
        cost = near + METRES_PER_RADIAN * np.abs(wrap_angles(self._yaws[found] - pose.yaw))
        best = int(found[np.argmin(cost)])
        index = int(self._lane_of_point[best])
        lane = self.lanes[index]
        at = best - int(self._first_point[index])
        yaw = float(lane.yaws[at])
        ahead = ((pose.x - lane.points[at, 0]) * math.cos(yaw)
                 + (pose.y - lane.points[at, 1]) * math.sin(yaw))
        return index, min(max(float(lane.distances[at]) + ahead, 0.0), lane.length)

    def distance_to_lanes(self, points: FloatArray) -> FloatArray:
        """Return how far each of (N, 2) points is from the nearest lane's centre line, in m."""
        distances: FloatArray = self._tree.query(points)[0]
        return distances

    def markings_at(self, location: LaneLocation) -> tuple[MarkingType, MarkingType]:
        """Return what is painted along the left and the right side of a lane, at a place on it."""
        waypoint = self.carla_map.get_waypoint_xodr(location.road_id, location.lane_id, location.s)
        if waypoint is None:
            return 'none', 'none'
        return (_marking(waypoint.left_lane_marking).kind,
                _marking(waypoint.right_lane_marking).kind)

    def lane_markings(self, lane: Lane, at: int) -> tuple[Marking, Marking]:
        """Return what is painted left and right of a lane at its point with index `at`."""
        waypoint = self.carla_map.get_waypoint_xodr(lane.road_id, lane.lane_id, float(lane.s[at]))
        return _marking(waypoint.left_lane_marking), _marking(waypoint.right_lane_marking)

    def sample_lane_points(self, spacing: float) -> list[Pose]:
        """Return poses every `spacing` m on the centre line of every driving lane."""
        return [lane.pose_at(float(distance)) for lane in self.lanes
                for distance in np.arange(0.0, lane.length, spacing)]

    def spawn_points(self, spacing: float = 10.0, room: float = 30.0) -> tuple[Pose, ...]:
        """
        Return poses in lane, every `spacing` m outside junctions, with `room` m to drive ahead.

        The first of a lane is half a spacing from its start. Raises nothing: a map of stubs that
        are all shorter than `room` has none.
        """
        if (spacing, room) in self._spawn_points:
            return self._spawn_points[spacing, room]
        poses = []
        for index, lane in enumerate(self.lanes):
            if lane.is_junction:
                continue
            for distance in np.arange(min(spacing, lane.length) / 2.0, lane.length, spacing):
                if self._has_room(index, room - (lane.length - float(distance)), set()):
                    poses.append(lane.pose_at(float(distance)))
        self._spawn_points[spacing, room] = tuple(poses)
        return self._spawn_points[spacing, room]

    def lane_ahead(self, start: Pose | LaneLocation, distance: float, spacing: float = 1.0,
                   rng: np.random.Generator | None = None) -> FloatArray:
        """
        Return the centre line (N, 2) ahead of a place, every `spacing` m, following the lane.

        At a junction it takes the first branch, or a random one when there is an `rng`. It ends
        early where the road does.
        """
        index, at = self.locate(start if isinstance(start, Pose) else start.pose)
        parts: list[LanePart] = []
        left = distance
        while True:
            end = min(self.lanes[index].length, at + left)
            parts.append(LanePart(index, at, end))
            left -= end - at
            successors = self.lanes[index].successors
            if left <= 0.0 or not successors:
                return self.trace(parts, spacing)[:, :2]
            index = successors[0 if rng is None else int(rng.integers(len(successors)))]
            at = 0.0

    def trace(self, parts: Sequence[LanePart], spacing: float) -> FloatArray:
        """
        Return (N, 4) x, y, yaw and lane width every `spacing` m along consecutive lane parts.

        Yaw is wrapped. The last point lies less than a spacing before the end.
        """
        pieces = []
        for part in parts:
            lane = self.lanes[part.lane]
            inside = lane.distances[(lane.distances > part.start) & (lane.distances < part.end)]
            at = np.concatenate([[part.start], inside, [part.end]])
            columns = (lane.points[:, 0], lane.points[:, 1], lane.yaws, lane.widths)
            pieces.append(np.stack([np.interp(at, lane.distances, column) for column in columns],
                                   axis=1))
        line = np.concatenate(pieces)
        line[:, 2] = np.unwrap(line[:, 2])
        along = arc_lengths(line)
        wanted = np.arange(0.0, along[-1] + 1e-6, spacing)
        traced = np.stack([np.interp(wanted, along, line[:, column]) for column in range(4)],
                          axis=1)
        traced[:, 2] = wrap_angles(traced[:, 2])
        return traced

    def _has_room(self, index: int, missing: float, seen: set[tuple[int, int]]) -> bool:
        """Say whether `missing` more metres can be driven after the end of a lane."""
        if missing <= 0.0:
            return True
        # On a circuit of stubs the walk returns to the same lane with less missing: fine.
        if (index, int(missing)) in seen:
            return False
        seen.add((index, int(missing)))
        return any(self._has_room(after, missing - self.lanes[after].length, seen)
                   for after in self.lanes[index].successors)

    def _read_lanes(self, sections: Sequence[_Section]) -> tuple[Lane, ...]:
        """Read every driving lane's centre line, then which lanes follow which."""
        lanes, ends = [], []
        for section in sections:
            for lane_id in section.lane_ids:
                read = self._read_lane(section, lane_id)
                if read is not None:
                    lanes.append(read[0])
                    ends.append(read[1])
        indices = {(lane.road_id, lane.section_id, lane.lane_id): index
                   for index, lane in enumerate(lanes)}
        linked = []
        for lane, end in zip(lanes, ends, strict=True):
            # In a junction next() may name a branch twice: keep one of each, in CARLA's order.
            keys = dict.fromkeys((after.road_id, after.section_id, after.lane_id)
                                 for after in end.next(100.0 * END_MARGIN))
            linked.append(dataclasses.replace(
                lane, successors=tuple(indices[key] for key in keys if key in indices)))
        return tuple(linked)

    def _read_lane(self, section: _Section, lane_id: int
                   ) -> tuple[Lane, carla.Waypoint] | None:
        """Return a lane and the waypoint at its end; None when it is no driving lane."""
        length = section.end - section.start - 2.0 * END_MARGIN
        if length <= 0.0:
            return None
        wanted = np.linspace(section.start + END_MARGIN, section.end - END_MARGIN,
                             max(2, math.ceil(length / LANE_SPACING) + 1))
        waypoints = [self.carla_map.get_waypoint_xodr(section.road_id, lane_id, float(s))
                     for s in wanted]
        waypoints = [waypoint for waypoint in waypoints if waypoint is not None]
        if len(waypoints) < 2 or waypoints[0].lane_type != carla.LaneType.Driving:
            return None
        transforms = [waypoint.transform for waypoint in waypoints]
        points = np.array([(one.location.x, -one.location.y) for one in transforms])
        if not np.isfinite(points).all():
            raise MapError(f'map {self._source!r}: CARLA finds no place for points of road '
                           f'{section.road_id}; write arcs of curvature 0 as lines and spirals '
                           'of constant curvature as arcs')
        yaws = np.unwrap([math.radians(-one.rotation.yaw) for one in transforms])
        # s runs along the road; half of the lanes run against it.
        if np.dot(points[1] - points[0], (math.cos(yaws[0]), math.sin(yaws[0]))) < 0.0:
            waypoints, points, yaws = waypoints[::-1], points[::-1], yaws[::-1]
        middle = waypoints[len(waypoints) // 2]
        lane = Lane(section.road_id, middle.section_id, lane_id, middle.is_junction,
                    middle.junction_id if middle.is_junction else -1,
                    np.ascontiguousarray(points), np.ascontiguousarray(yaws),
                    np.array([waypoint.lane_width for waypoint in waypoints]),
                    arc_lengths(points), np.array([waypoint.s for waypoint in waypoints]))
        return lane, waypoints[-1]


@dataclasses.dataclass(frozen=True)
class _Section:
    """Hold one lane section of a road: where it runs and the ids of its lanes, centre apart."""

    road_id: int
    start: float
    end: float
    lane_ids: tuple[int, ...]


def _lane_sections(opendrive: str, source: str) -> list[_Section]:
    """Return the lane sections named in OpenDRIVE text; CARLA does not list them."""
    try:
        root = ET.fromstring(opendrive.encode())
    except (ET.ParseError, LookupError, ValueError) as error:
        raise MapError(f'map {source!r} is not XML ({error}); is the file complete?') from error
    if root.tag != 'OpenDRIVE':
        raise MapError(f'map {source!r} is not OpenDRIVE: its root is <{root.tag}>, '
                       'expected <OpenDRIVE>')
    sections = []
    for road in root.iter('road'):
        try:
            road_id, length = int(road.get('id', '')), float(road.get('length', ''))
            found = road.findall('lanes/laneSection')
            starts = [float(section.get('s', '')) for section in found]
            if not 0 <= road_id <= HIGHEST_ID or not 0.0 <= length <= LONGEST_ROAD:
                raise ValueError(f'id {road_id}, length {length:g} m')
            for part in road.iterfind('planView/geometry'):
                x, y = float(part.get('x', '')), float(part.get('y', ''))
                if not (abs(x) <= FARTHEST and abs(y) <= FARTHEST):
                    raise ValueError(f'geometry begins at x {x:g}, y {y:g} m')
            if not all(0.0 <= one <= LONGEST_ROAD for one in starts):
                raise ValueError(f'lane sections begin at {starts[:10]} m')
            for section, start, end in zip(found, starts, [*starts[1:], length], strict=True):
                ids = tuple(int(lane.get('id', '')) for side in ('left', 'right')
                            for lane in section.findall(f'{side}/lane'))
                if not all(abs(one) <= MOST_LANES for one in ids):
                    raise ValueError(f'a lane of id {max(ids, key=abs)}')
                sections.append(_Section(road_id, start, end, ids))
        except ValueError as error:
            raise MapError(f'map {source!r}, road {road.get("id")!r}: an id, length or s is '
                           f'missing or not a number that can be ({error})') from error
    if sum(one.end - one.start for one in sections if one.end > one.start) > LONGEST_MAP:
        raise MapError(f'map {source!r} has more than {LONGEST_MAP / 1e3:g} km of roads')
    return sections


def _try(opendrive: str, source: str) -> None:
    """Raise MapError where reading the text would harm this process."""
    _lane_sections(opendrive, source)
    harm = trial(opendrive)
    if harm:
        raise MapError(f'map {source!r} cannot be read: {harm}; is the file whole, and its links '
                       'and numbers right?')


def _marking(marking: carla.LaneMarking | None) -> Marking:
    """Return a lane marking of CARLA in our terms; CARLA gives None where nothing is drawn."""
    if marking is None:
        return Marking('none', 0.0, 'white')
    return Marking(_MARKING_TYPES.get(marking.type, 'other'), marking.width,
                   'yellow' if marking.color == carla.LaneMarkingColor.Yellow else 'white')
