"""
Other vehicles: each keeps to its lane, its distance and its speed, and waits at junctions.

Speed follows the intelligent driver model (Treiber, Hennecke, Helbing 2000). Vehicles run along
the lanes' centre lines; a junction lets in one vehicle, or several whose ways do not meet.
"""
from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.driving.route.road_map import Lane, RoadMap
from av_td3_ros.settings import setting

# Metres between the places of a lane whose pose and speed limit are kept.
GRID = 1.0
# How far ahead in m a vehicle plans its way and looks for others.
SIGHT = 80.0
# Deceleration in m/s^2 that no vehicle exceeds, and the one at which it slows for a curve.
HARDEST_BRAKING = 8.0
CURVE_BRAKING = 1.5
# In how many s a vehicle takes up the speed limit that holds where it then is.
CURVE_REACTION = 0.3
# Two ways through a junction meet when their centre lines come closer than this, in m.
MEETING_DISTANCE = 3.0
# The ego vehicle is ahead of another one when it is this close to the middle of its way, in m.
EGO_IN_WAY = 2.1
# The ego vehicle counts as inside a junction this many seconds before it gets there.
EGO_LEAD_TIME = 2.0
# Free metres between two vehicles when they are placed.
SPAWN_GAP = 8.0

# Length, width and height in m, and how often it is seen.
_BODIES = (((3.8, 1.65, 1.50), 0.25), ((4.5, 1.80, 1.45), 0.45), ((4.7, 1.90, 1.70), 0.20),
           ((5.6, 2.05, 2.40), 0.10))


@dataclasses.dataclass(frozen=True)
class TrafficSettings:
    """Set how many other vehicles there are and how they drive."""

    count: int = setting(0, 'number of other vehicles', minimum=0, maximum=50)
    within: float = setting(250.0, 'they appear at most so far from the ego vehicle, m; 0: '
                            'anywhere on the map', minimum=0.0, maximum=100000.0)
    desired_speed: float = setting(8.0, 'speed on a free straight, m/s', minimum=1.0, maximum=40.0)
    speed_spread: float = setting(
        0.15, 'desired speeds differ by up to this share', minimum=0.0, maximum=0.9)
    time_headway: float = setting(1.5, 'time gap to the vehicle ahead, s', minimum=0.5,
                                  maximum=5.0)
    minimum_gap: float = setting(2.0, 'gap at standstill, m', minimum=0.5, maximum=10.0)
    acceleration: float = setting(1.5, 'acceleration, m/s^2', minimum=0.1, maximum=5.0)
    braking: float = setting(2.0, 'comfortable braking, m/s^2', minimum=0.1, maximum=5.0)
    lateral_acceleration: float = setting(
        2.0, 'lateral acceleration that limits the speed in curves, m/s^2', minimum=0.2,
        maximum=8.0)


class TrafficVehicle(NamedTuple):
    """Hold one vehicle: its middle, heading, speed and size in SI units, its colour as RGB."""

    id: int
    x: float
    y: float
    yaw: float
    speed: float
    length: float
    width: float
    height: float
    colour: tuple[int, int, int]


class EgoState(NamedTuple):
    """Hold what other vehicles see of the ego vehicle: m, rad, m/s, m."""

    x: float
    y: float
    yaw: float
    speed: float
    length: float


class Traffic:
    """Move the other vehicles of a map, one step at a time."""

    def __init__(self, road_map: RoadMap, settings: TrafficSettings,
                 rng: np.random.Generator) -> None:
        """Prepare the map's lanes; `spawn` brings the vehicles."""
        self.settings = settings
        self._rng = rng
        # A large map takes a while, and most worlds have no other vehicles.
        lanes = road_map.lanes if settings.count else ()
        self._tracks = [_Track(lane, settings.lateral_acceleration) for lane in lanes]
        _slow_for_what_follows(self._tracks)
        self._junctions = _junctions(lanes)
        self._spawn_places = [road_map.locate(pose) for pose in
                              (road_map.spawn_points() if settings.count else ())]
        self._drivers: list[_Driver] = []
        self._seen: list[TrafficVehicle] | None = None

    @property
    def vehicles(self) -> list[TrafficVehicle]:
        """Return the vehicles as they stand now."""
        if self._seen is None:
            self._seen = [TrafficVehicle(one.id, one.x, one.y, one.yaw, one.speed, *one.body,
                                         one.colour) for one in self._drivers]
        return self._seen

    def spawn(self, avoid: Pose | None = None, min_gap: float = 25.0,
              rng: np.random.Generator | None = None) -> int:
        """
        Replace all vehicles by new ones at random places, `min_gap` m or more off `avoid`.

        Returns how many found room, at most `settings.count`; with `settings.within` none is
        farther off `avoid` than that. `rng` replaces the generator.
        """
        if rng is not None:
            self._rng = rng
        self._drivers = []
        for junction in self._junctions.values():
            junction.clear()
        for place in self._rng.permutation(len(self._spawn_places)):
            if len(self._drivers) == self.settings.count:
                break
            driver = self._new_driver(len(self._drivers) + 1)
            lane, at = self._spawn_places[int(place)]
            if self._is_free(lane, at, driver, avoid, min_gap):
                self._place(driver, lane, at)
                self._drivers.append(driver)
        self._seen = None
        return len(self._drivers)

    def step(self, dt: float, ego: EgoState | tuple[float, float, float, float, float] | None
             ) -> None:
        """Move every vehicle by `dt` s; `ego` is (x, y, yaw, speed, length), None without one."""
        ego = None if ego is None else EgoState(*ego)
        queues = self._queues()
        ahead = [self._leader(driver, queues) for driver in self._drivers]
        self._admit(ahead, ego)
        for driver, leader in zip(self._drivers, ahead, strict=True):
            self._drive(driver, leader, ego, dt)
        for driver in self._drivers:
            self._advance(driver, ego)
        self._seen = None

    def _queues(self) -> dict[int, list[_Driver]]:
        """Return the vehicles on each lane, the rearmost first."""
        queues: dict[int, list[_Driver]] = {}
        for driver in self._drivers:
            queues.setdefault(driver.way[0], []).append(driver)
        for queue in queues.values():
            if len(queue) > 1:
                queue.sort(key=lambda one: one.at)
            for place, driver in enumerate(queue):
                driver.place = place
        return queues

    def _leader(self, driver: _Driver, queues: dict[int, list[_Driver]]
                ) -> tuple[_Driver | None, float]:
        """Return the next vehicle on a vehicle's way and the gap to it in m."""
        queue = queues[driver.way[0]]
        if driver.place + 1 < len(queue):
            other = queue[driver.place + 1]
            return other, other.at - driver.at - driver.half_length - other.half_length
        offset = self._tracks[driver.way[0]].length - driver.at
        for lane in driver.way[1:]:
            if offset > SIGHT:
                break
            if lane in queues:
                other = queues[lane][0]
                if other is driver:
                    break
                return other, offset + other.at - driver.half_length - other.half_length
            offset += self._tracks[lane].length
        return None, math.inf

    def _admit(self, ahead: list[tuple[_Driver | None, float]], ego: EgoState | None) -> None:
        """Let vehicles into junctions: first come, first served, unless their ways meet."""
        for junction in self._junctions.values():
            junction.waiting = [one for one in junction.waiting if not one.admitted
                                and len(one.way) > 1
                                and one.way[1] in junction.meeting]
        for driver, leader in zip(self._drivers, ahead, strict=True):
            entry = self._entry(driver)
            if entry is None or driver.admitted:
                continue
            junction = self._junctions[self._tracks[entry[0]].junction_id]
            braking_distance = driver.speed ** 2 / (2.0 * CURVE_BRAKING)
            if entry[1] > braking_distance + 10.0:
                continue
            if driver not in junction.waiting:
                junction.waiting.append(driver)
            driver.leader, driver.leader_gap = leader
        for junction in self._junctions.values():
            refused: list[int] = []
            for driver in junction.waiting:
                lane = driver.way[1]
                if self._has_room_beyond(driver) and not junction.is_closed(lane, refused) and (
                        ego is None or not junction.ego_comes(ego, driver)):
                    junction.inside[driver.id] = lane
                    driver.admitted = True
                    driver.junction_id = junction.id
                elif self._has_room_beyond(driver):
                    refused.append(lane)

    def _entry(self, driver: _Driver) -> tuple[int, float] | None:
        """Return the junction lane that comes next and the m from the front bumper to it."""
        if len(driver.way) < 2 or self._tracks[driver.way[0]].is_junction:
            return None
        if not self._tracks[driver.way[1]].is_junction:
            return None
        return driver.way[1], (self._tracks[driver.way[0]].length - driver.at
                               - driver.half_length)

    def _has_room_beyond(self, driver: _Driver) -> bool:
        """Say whether a vehicle can leave the junction ahead of it: no one stands beyond it."""
        if driver.leader is None or driver.leader.speed > 2.0:
            return True
        to_exit = self._tracks[driver.way[0]].length - driver.at
        for lane in driver.way[1:]:
            if not self._tracks[lane].is_junction:
                break
            to_exit += self._tracks[lane].length
        # In front of the exit there must be room for the whole vehicle and its gap.
        return (driver.leader_gap + driver.half_length
                > to_exit + 2.0 * driver.half_length + self.settings.minimum_gap)

    def _drive(self, driver: _Driver, leader: tuple[_Driver | None, float],
               ego: EgoState | None, dt: float) -> None:
        """Change a vehicle's speed and move it along its way."""
        settings = self.settings
        speed = driver.speed
        track = self._tracks[driver.way[0]]
        limit = track.speed_limit(driver.at + speed * CURVE_REACTION)
        change = min(settings.acceleration * (1.0 - (speed / driver.desired_speed) ** 4),
                     (limit - speed) / CURVE_REACTION)
        other, room = leader
        if other is not None:
            change = min(change, self._keep_distance(speed, room, other.speed))
        entry = self._entry(driver)
        if entry is not None and not driver.admitted:
            change = min(change, self._keep_distance(speed, entry[1], 0.0))
            room = min(room, entry[1])
        elif driver.ends:
            to_end = sum(self._tracks[lane].length for lane in driver.way) - driver.at
            change = min(change, self._keep_distance(speed, to_end - driver.half_length, 0.0))
            room = min(room, to_end - driver.half_length)
        if ego is not None and abs(ego.x - driver.x) < SIGHT and abs(ego.y - driver.y) < SIGHT:
            found = self._ego_ahead(driver, ego)
            if found is not None:
                change = min(change, self._keep_distance(speed, *found))
                room = min(room, found[0])
        driver.speed = max(0.0, speed + max(change, -HARDEST_BRAKING) * dt)
        moved = (speed + driver.speed) / 2.0 * dt
        if moved > room:
            # Only reached when another vehicle cuts in closer than any braking helps.
            moved, driver.speed = max(0.0, room), 0.0
        driver.at += moved

    def _keep_distance(self, speed: float, gap: float, other_speed: float) -> float:
        """Return the acceleration of the intelligent driver model behind another vehicle."""
        settings = self.settings
        wanted = settings.minimum_gap + max(0.0, speed * settings.time_headway + speed * (
            speed - other_speed) / (2.0 * math.sqrt(settings.acceleration * settings.braking)))
        return settings.acceleration * (1.0 - (wanted / max(gap, 0.1)) ** 2)

    def _ego_ahead(self, driver: _Driver, ego: EgoState) -> tuple[float, float] | None:
        """Return the gap to the ego vehicle and its speed along a vehicle's way, if in it."""
        offset = -driver.at
        for lane in driver.way:
            track = self._tracks[lane]
            if offset > SIGHT:
                break
            if math.hypot(track.middle_x - ego.x, track.middle_y - ego.y) > (
                    track.reach + EGO_IN_WAY):
                offset += track.length
                continue
            away = np.hypot(track.points[:, 0] - ego.x, track.points[:, 1] - ego.y)
            first = 0 if offset >= 0.0 else min(int(-offset / track.grid) + 1, len(away) - 1)
            nearest = first + int(np.argmin(away[first:]))
            if away[nearest] < EGO_IN_WAY and offset + nearest * track.grid > 0.0:
                gap = (offset + nearest * track.grid - driver.half_length - ego.length / 2.0)
                along = ego.speed * math.cos(ego.yaw - track.yaws[nearest])
                return gap, along
            offset += track.length
        return None

    def _advance(self, driver: _Driver, ego: EgoState | None) -> None:
        """Carry a vehicle over into its next lanes and give back the junction it has left."""
        while driver.at > self._tracks[driver.way[0]].length and len(driver.way) > 1:
            driver.at -= self._tracks[driver.way.pop(0)].length
            self._plan(driver)
        track = self._tracks[driver.way[0]]
        if driver.admitted and not track.is_junction and driver.has_entered:
            if driver.at > driver.half_length + 0.5:
                self._junctions[driver.junction_id].inside.pop(driver.id, None)
                driver.admitted = driver.has_entered = False
        elif driver.admitted and track.is_junction:
            driver.has_entered = True
        at_end = driver.ends and len(driver.way) == 1 and driver.speed < 0.5
        if at_end and track.length - driver.at < driver.half_length + 10.0:
            self._move_elsewhere(driver, ego)
        driver.x, driver.y, driver.yaw = self._tracks[driver.way[0]].pose(driver.at)

    def _move_elsewhere(self, driver: _Driver, ego: EgoState | None) -> None:
        """Take a vehicle from the road's end to a free place out of the ego vehicle's sight."""
        avoid = None if ego is None else Pose(ego.x, ego.y, ego.yaw)
        for place in self._rng.permutation(len(self._spawn_places))[:20]:
            lane, at = self._spawn_places[int(place)]
            if self._is_free(lane, at, driver, avoid, SIGHT):
                self._place(driver, lane, at)
                return

    def _new_driver(self, number: int) -> _Driver:
        body = _BODIES[int(self._rng.choice(len(_BODIES), p=[share for _, share in _BODIES]))][0]
        spread = self.settings.speed_spread
        colour = self._rng.integers(20, 236, size=3)
        return _Driver(number, body,
                       (int(colour[0]), int(colour[1]), int(colour[2])),
                       self.settings.desired_speed * float(self._rng.uniform(1 - spread,
                                                                             1 + spread)))

    def _is_free(self, lane: int, at: float, driver: _Driver, avoid: Pose | None,
                 min_gap: float) -> bool:
        """Say whether a vehicle fits at a place of a lane."""
        track = self._tracks[lane]
        if not driver.half_length + 1.0 < at < track.length - driver.half_length - 3.0:
            return False
        x, y, yaw = track.pose(at)
        if avoid is not None:
            away = avoid.distance(x, y)
            if away < min_gap or 0.0 < self.settings.within < away:
                return False
        return all(math.hypot(x - other.x, y - other.y)
                   > SPAWN_GAP + driver.half_length + other.half_length
                   or abs(wrap_angle(yaw - other.yaw)) > math.pi / 2.0
                   for other in self._drivers if other is not driver)

    def _place(self, driver: _Driver, lane: int, at: float) -> None:
        """Put a vehicle on a lane, at a speed from which it can still stop at the lane's end."""
        track = self._tracks[lane]
        if driver.admitted:
            self._junctions[driver.junction_id].inside.pop(driver.id, None)
            driver.admitted = driver.has_entered = False
        driver.way, driver.at, driver.ends = [lane], at, False
        driver.x, driver.y, driver.yaw = track.pose(at)
        to_end = track.length - at - driver.half_length - self.settings.minimum_gap
        driver.speed = min(0.8 * driver.desired_speed, track.speed_limit(at),
                           math.sqrt(2.0 * self.settings.braking * max(0.0, to_end)))
        self._plan(driver)

    def _plan(self, driver: _Driver) -> None:
        """Choose the lanes that a vehicle takes, as far as it sees and a lane more."""
        planned = sum(self._tracks[lane].length for lane in driver.way[1:])
        while planned < SIGHT:
            successors = self._tracks[driver.way[-1]].successors
            if not successors:
                driver.ends = True
                return
            lane = successors[0 if len(successors) == 1
                              else int(self._rng.integers(len(successors)))]
            driver.way.append(lane)
            planned += self._tracks[lane].length


class _Driver:
    """Hold one vehicle's body, way and state; `way[0]` is its lane, `at` m from its start."""

    def __init__(self, number: int, body: tuple[float, float, float],
                 colour: tuple[int, int, int], desired_speed: float) -> None:
        self.id = number
        self.body = body
        self.half_length = body[0] / 2.0
        self.colour = colour
        self.desired_speed = desired_speed
        self.x = self.y = self.yaw = self.speed = self.at = 0.0
        self.way: list[int] = []
        self.ends = False
        self.place = 0
        self.admitted = self.has_entered = False
        self.junction_id = -1
        self.leader: _Driver | None = None
        self.leader_gap = math.inf


class _Track:
    """Hold a lane at even distances, for look-ups without NumPy's cost per call."""

    def __init__(self, lane: Lane, lateral_acceleration: float) -> None:
        self.length = lane.length
        self.successors = lane.successors
        self.is_junction = lane.is_junction
        self.junction_id = lane.junction_id
        count = max(2, math.ceil(lane.length / GRID) + 1)
        self.grid = lane.length / (count - 1)
        at = np.linspace(0.0, lane.length, count)
        x, y, yaw = (np.interp(at, lane.distances, column) for column in
                     (lane.points[:, 0], lane.points[:, 1], lane.yaws))
        self.points = np.stack([x, y], axis=1)
        self.middle_x, self.middle_y = (float(one.min() + one.max()) / 2.0 for one in (x, y))
        self.reach = float(np.hypot(x - self.middle_x, y - self.middle_y).max())
        self.x: list[float] = x.tolist()
        self.y: list[float] = y.tolist()
        self.yaws: list[float] = yaw.tolist()
        curvature = np.abs(np.gradient(yaw, self.grid))
        self.limits: list[float] = np.sqrt(
            lateral_acceleration / np.maximum(curvature, 1e-4)).tolist()

    def pose(self, at: float) -> tuple[float, float, float]:
        """Return x, y and yaw at a distance along the lane."""
        place = min(max(at, 0.0), self.length) / self.grid
        i = min(int(place), len(self.x) - 2)
        share = place - i
        return (self.x[i] + share * (self.x[i + 1] - self.x[i]),
                self.y[i] + share * (self.y[i + 1] - self.y[i]),
                wrap_angle(self.yaws[i] + share * (self.yaws[i + 1] - self.yaws[i])))

    def speed_limit(self, at: float) -> float:
        """Return the speed in m/s at which the curves here and ahead can be driven."""
        return self.limits[min(int(at / self.grid), len(self.limits) - 1)]


class _Junction:
    """Hold which vehicles are let into a junction and which wait, in the order they came."""

    def __init__(self, junction_id: int, lanes: dict[int, Lane]) -> None:
        self.id = junction_id
        points = np.concatenate([lane.points for lane in lanes.values()])
        self.x, self.y = map(float, (points.min(axis=0) + points.max(axis=0)) / 2.0)
        self.radius = float(np.hypot(points[:, 0] - self.x, points[:, 1] - self.y).max())
        self.meeting = {one: frozenset(
            other for other, path in lanes.items()
            if other != one and cdist(lane.points[::2], path.points[::2]).min() < MEETING_DISTANCE)
            for one, lane in lanes.items()}
        self.inside: dict[int, int] = {}
        self.waiting: list[_Driver] = []

    def clear(self) -> None:
        """Forget all vehicles."""
        self.inside, self.waiting = {}, []

    def is_closed(self, lane: int, refused: list[int]) -> bool:
        """Say whether a way meets one that is taken, or that someone waits for since before."""
        meeting = self.meeting[lane]
        return any(taken in meeting for taken in self.inside.values()) or any(
            earlier in meeting for earlier in refused)

    def ego_comes(self, ego: EgoState, driver: _Driver) -> bool:
        """Say whether the ego vehicle is in the junction, or soon, and not behind `driver`."""
        dx, dy = self.x - ego.x, self.y - ego.y
        distance = math.hypot(dx, dy)
        if distance > self.radius:
            closing = ego.speed * (dx * math.cos(ego.yaw) + dy * math.sin(ego.yaw)) / distance
            if distance - self.radius > EGO_LEAD_TIME * closing:
                return False
        back_x, back_y = ego.x - driver.x, ego.y - driver.y
        cosine, sine = math.cos(driver.yaw), math.sin(driver.yaw)
        is_behind = back_x * cosine + back_y * sine < 0.0
        is_in_lane = abs(back_y * cosine - back_x * sine) < EGO_IN_WAY
        return not (is_behind and is_in_lane)


def _junctions(lanes: tuple[Lane, ...]) -> dict[int, _Junction]:
    grouped: dict[int, dict[int, Lane]] = {}
    for index, lane in enumerate(lanes):
        if lane.is_junction:
            grouped.setdefault(lane.junction_id, {})[index] = lane
    return {junction: _Junction(junction, inside) for junction, inside in grouped.items()}


def _slow_for_what_follows(tracks: list[_Track]) -> None:
    """Lower the speed limits so that each can be braked down to from the one before it."""
    # The second pass carries limits over a lane's start into the lanes before it; a third would
    # only matter for lanes shorter than a braking distance.
    for _ in range(3):
        for track in tracks:
            following = [tracks[lane].limits[0] for lane in track.successors]
            limit = min([track.limits[-1], *following])
            for i in range(len(track.limits) - 1, -1, -1):
                limit = min(track.limits[i], math.sqrt(limit ** 2 + 2.0 * CURVE_BRAKING
                                                       * track.grid))
                track.limits[i] = limit
