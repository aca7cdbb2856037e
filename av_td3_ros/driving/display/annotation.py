"""A frame as the policy sees it, with what is known of that moment drawn over and below it."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.camera.view import ViewSettings, orientation
from av_td3_ros.driving.display.prediction import PredictionSettings, edges, predicted_path
from av_td3_ros.driving.perception.state import (
    HEADING_SCALE,
    LATERAL_SCALE,
    SPEED_SCALE,
    WAYPOINT_SCALE,
)
from av_td3_ros.driving.route.geometry import FloatArray

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

NEAR = 0.3  # m ahead of the camera; what is nearer is not drawn
FARTHEST_PIXEL = 20000.0
UNIT = 640.0  # width in pixels that the sizes below are for
DASHBOARD = 132.0  # height of what is below the frame
HEADER = 30.0
ROUTE_WIDTH = 0.18  # m on either side of the route's centre
FULL_SCALE = {'lateral': 1.75, 'heading': 0.5}  # m and rad at the ends of the gauges
REWARD_SCALE = 0.1  # a reward term that fills its bar: what a step at the target speed earns

# B, G, R; of a palette that the colour-blind can tell apart
INK, PALE, FAINT = (245, 245, 245), (178, 172, 166), (84, 78, 72)
BACKGROUND, GROOVE = (30, 25, 22), (58, 50, 45)
GREEN, RED, BLUE, AMBER, VIOLET, SKY = ((128, 190, 40), (72, 80, 235), (235, 150, 50),
                                        (40, 165, 245), (200, 120, 205), (235, 200, 95))
SOURCES: dict[str, Colour] = {
    'policy': SKY, 'human': AMBER, 'watchdog': RED, 'emergency stop': RED, 'repeated': VIOLET,
    'stopped': RED}
NOBODY: Colour = (130, 130, 130)


@dataclasses.dataclass(frozen=True)
class Applied:
    """Hold what was applied: steer (+ = left) and acceleration in [-1, 1], and whose it was."""

    steer: float
    acceleration: float
    source: str = 'policy'
    exploring: bool = False
    policy_version: int = 0


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Hold what the policy wanted: steer and acceleration, and how long it thought, s."""

    steer: float
    acceleration: float
    policy_version: int = 0
    inference_time: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """
    Hold one observation and what was done on it.

    frame: uint8 (H, W) grey; state: float32 as `state_vector` makes it; terms: reward by term.
    """

    frame: Image
    state: npt.NDArray[np.float32]
    episode: int = 0
    step: int = 0
    reward: float = 0.0
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ''
    applied: Applied | None = None
    wanted: Wanted | None = None

    @property
    def speed(self) -> float:
        """Return the speed in m/s."""
        return _at(self.state, 0) * SPEED_SCALE

    @property
    def lateral(self) -> float:
        """Return the distance in m from the route's centre, + = left of it."""
        return _at(self.state, 1) * LATERAL_SCALE

    @property
    def heading_error(self) -> float:
        """Return the angle in rad to the route's direction, + = turned left of it."""
        return _at(self.state, 2) * HEADING_SCALE

    @property
    def waypoints(self) -> FloatArray:
        """Return the route ahead, (n, 2) m in the vehicle's frame."""
        count = max(len(self.state) - 3, 0) // 2
        points = np.asarray(self.state[3:3 + 2 * count], np.float64).reshape(count, 2)
        return points[np.isfinite(points).all(axis=1)] * WAYPOINT_SCALE


class Annotator:
    """Draw moments, uint8 (height, width, 3) BGR; `view` gives the frame its shape."""

    def __init__(self, view: ViewSettings, prediction: PredictionSettings, width: int = 640
                 ) -> None:
        self._view, self._prediction = view, prediction
        self._scale = width / UNIT
        self.width = width
        self._frame_height = max(round(width * view.height / view.width), 16)
        self.height = self._frame_height + self._px(DASHBOARD)
        self._focal = 0.5 * width / math.tan(0.5 * view.fov)
        self._axes = orientation(view)

    def draw(self, moment: Moment) -> Image:
        """Return the picture of one moment."""
        picture = np.full((self.height, self.width, 3), BACKGROUND, np.uint8)
        frame = picture[:self._frame_height]
        grey = cv2.resize(moment.frame, (self.width, self._frame_height),
                          interpolation=cv2.INTER_CUBIC)
        cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR, dst=frame)
        self._draw_ways(frame, moment)
        self._draw_header(frame, moment)
        if moment.reason:
            self._draw_ending(frame, moment.reason)
        dashboard = picture[self._frame_height:]
        self._draw_speed(dashboard, moment)
        self._draw_gauges(dashboard, moment)
        self._draw_reward(dashboard, moment)
        return picture

    def project(self, points: FloatArray) -> FloatArray:
        """Return pixels (M, 2) of points on the ground (N, 2) m that are ahead of the camera."""
        view = self._view
        from_camera = np.column_stack([points, np.zeros(len(points))]) - (view.x, view.y, view.z)
        right, down, depth = (from_camera @ self._axes).T
        seen = depth > NEAR
        pixels = self._focal * np.stack([right[seen], down[seen]], axis=1) / depth[seen, None]
        pixels += (0.5 * self.width, 0.5 * self._frame_height)
        clipped: FloatArray = np.clip(pixels, -FARTHEST_PIXEL, FARTHEST_PIXEL)
        return clipped

    # -- over the frame

    def _draw_ways(self, frame: Image, moment: Moment) -> None:
        over = frame.copy()
        route = _with_headings(_dense(moment.waypoints))
        if len(route) > 1:
            left, right = edges(route, ROUTE_WIDTH)
            self._fill(over, left, right, GREEN)
        applied = moment.applied
        if applied is not None:
            way = predicted_path(applied.steer, moment.speed, self._prediction)
            left, right = edges(way, 0.5 * self._prediction.width)
            self._fill(over, left, right, SOURCES.get(applied.source, NOBODY), 0.35)
        cv2.addWeighted(over, 0.6, frame, 0.4, 0.0, dst=frame)
        for pixel in self.project(moment.waypoints):
            self._dot(frame, pixel, 2.6, GREEN)
        if applied is not None:
            for edge in (left, right):
                self._line(frame, self.project(edge), SOURCES.get(applied.source, NOBODY), 2.0)

    def _draw_header(self, frame: Image, moment: Moment) -> None:
        bar = frame[:self._px(HEADER)]
        bar[:] = (bar * 0.35).astype(np.uint8)
        self._text(frame, 12, 20, f'episode {moment.episode}   step {moment.step}', INK, 0.46)
        applied, wanted = moment.applied, moment.wanted
        source = applied.source if applied is not None else 'nobody drives'
        end = 628.0
        end = self._chip(frame, end, source, SOURCES.get(source, NOBODY))
        if applied is not None and applied.exploring:
            end = self._chip(frame, end - 8, 'exploring', VIOLET)
        version = max(applied.policy_version if applied is not None else 0,
                      wanted.policy_version if wanted is not None else 0)
        told = f'policy {version}' if version else 'untrained'
        if wanted is not None and wanted.inference_time > 0.0:
            told += f'   {_number(1e3 * wanted.inference_time, ".1f")} ms'
        self._text(frame, end - 14 - self._width(told, 0.46), 20, told, PALE, 0.46)

    def _draw_ending(self, frame: Image, reason: str) -> None:
        text = reason.replace('_', ' ')
        colour = GREEN if reason == 'route_completed' else AMBER if reason in (
            'time_limit', 'interrupted') else RED
        width = self._width(text, 0.9, 2) + 48
        left, top = self._px(0.5 * (UNIT - width)), self._px(60)
        box = frame[top:top + self._px(46), left:left + self._px(width)]
        box[:] = (0.25 * box + 0.75 * np.array(colour)).astype(np.uint8)
        self._text(frame, 0.5 * (UNIT - width) + 24, 92, text, (255, 255, 255), 0.9, 2)

    # -- below it

    def _draw_speed(self, board: Image, moment: Moment) -> None:
        number = _number(moment.speed, '.1f')
        self._text(board, 16, 62, number, INK, 1.5, 2)
        self._text(board, 18, 86, 'm/s', PALE, 0.45)
        self._text(board, 60, 86, f'{_number(3.6 * moment.speed, ".0f")} km/h', FAINT, 0.45)
        self._text(board, 16, 112, 'reward', PALE, 0.45)
        colour = GREEN if moment.reward >= 0.0 else RED
        self._text(board, 72, 112, _number(moment.reward, '+.3f'), colour, 0.5)

    def _draw_gauges(self, board: Image, moment: Moment) -> None:
        applied, wanted = moment.applied, moment.wanted
        steer = applied.steer if applied is not None else math.nan
        pedal = applied.acceleration if applied is not None else math.nan
        colour = SOURCES.get(applied.source, NOBODY) if applied is not None else NOBODY
        # Positive is to the left, as on the road.
        self._gauge(board, 22, 'steer', -steer, _number(steer, '+.2f'), colour,
                    -wanted.steer if wanted is not None else math.nan)
        self._gauge(board, 50, 'pedals', pedal, _number(pedal, '+.2f'),
                    RED if pedal < 0.0 else GREEN,
                    wanted.acceleration if wanted is not None else math.nan)
        lateral, heading = moment.lateral, moment.heading_error
        self._gauge(board, 78, 'lateral', -lateral / FULL_SCALE['lateral'],
                    f'{_number(lateral, "+.2f")} m', _judged(lateral / FULL_SCALE['lateral']))
        self._gauge(board, 106, 'heading', -heading / FULL_SCALE['heading'],
                    f'{_number(math.degrees(heading), "+.1f")} deg',
                    _judged(heading / FULL_SCALE['heading']))

    def _gauge(self, board: Image, y: float, name: str, value: float, told: str, colour: Colour,
               wish: float = math.nan) -> None:
        self._text(board, 160, y + 5, name, PALE, 0.42)
        left, right = 222.0, 352.0
        middle, half = 0.5 * (left + right), 0.5 * (right - left)
        self._bar(board, left, y - 6, right, y + 6, GROOVE)
        if math.isfinite(value):
            end = middle + half * min(max(value, -1.0), 1.0)
            self._bar(board, min(middle, end), y - 6, max(middle, end), y + 6, colour)
        self._bar(board, middle - 0.5, y - 9, middle + 0.5, y + 9, PALE)
        if math.isfinite(wish):
            place = middle + half * min(max(wish, -1.0), 1.0)
            self._bar(board, place - 1.2, y - 9, place + 1.2, y + 9, INK)
        self._text(board, 362, y + 5, told, INK, 0.42)

    def _draw_reward(self, board: Image, moment: Moment) -> None:
        for row, (name, value) in enumerate(moment.terms.items()):
            y = 18.0 + 24.0 * row
            self._text(board, 442, y + 4, name, PALE, 0.4)
            left, right = 514.0, 588.0
            middle, half = 0.5 * (left + right), 0.5 * (right - left)
            self._bar(board, left, y - 5, right, y + 5, GROOVE)
            if math.isfinite(value):
                end = middle + half * min(max(value / REWARD_SCALE, -1.0), 1.0)
                self._bar(board, min(middle, end), y - 5, max(middle, end), y + 5,
                          GREEN if value >= 0.0 else RED)
            self._bar(board, middle - 0.5, y - 7, middle + 0.5, y + 7, PALE)
            self._text(board, 594, y + 4, _number(value, '+.2f'), INK, 0.38)

    # -- strokes; places are in units of the picture 640 pixels wide

    def _px(self, units: float) -> int:
        return round(units * self._scale)

    def _text(self, image: Image, x: float, y: float, text: str, colour: Colour, size: float,
              thickness: int = 1) -> None:
        cv2.putText(image, text, (self._px(x), self._px(y)), cv2.FONT_HERSHEY_DUPLEX,
                    size * self._scale, colour, max(1, round(thickness * self._scale)),
                    cv2.LINE_AA)

    def _width(self, text: str, size: float, thickness: int = 1) -> float:
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, size, thickness)
        return float(width)

    def _chip(self, frame: Image, right: float, text: str, colour: Colour) -> float:
        """Draw a word on colour that ends at `right`; return where it begins."""
        left = right - self._width(text, 0.46) - 18
        self._bar(frame, left, 5, right, 26, colour)
        self._text(frame, left + 9, 20, text, BACKGROUND, 0.46)
        return left

    def _bar(self, image: Image, left: float, top: float, right: float, bottom: float,
             colour: Colour) -> None:
        corners = [round(one * self._scale * 16) for one in (left, top, right, bottom)]
        x0, y0, x1, y1 = corners
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.int32)
        cv2.fillConvexPoly(image, points - 8, colour, cv2.LINE_AA, 4)

    def _dot(self, image: Image, pixel: npt.NDArray[Any], radius: float, colour: Colour) -> None:
        place = (round(16 * float(pixel[0])), round(16 * float(pixel[1])))
        cv2.circle(image, place, round(16 * radius * self._scale), colour, -1, cv2.LINE_AA, 4)

    def _line(self, image: Image, pixels: FloatArray, colour: Colour, width: float) -> None:
        if len(pixels) > 1:
            # Strokes shorter than the line is wide make it uneven.
            steps = np.hypot(*np.diff(pixels, axis=0).T)
            place = np.floor(np.concatenate([[0.0], np.cumsum(steps)]) / (6.0 * self._scale))
            kept = np.concatenate([[True], np.diff(place) > 0])
            kept[-1] = True
            cv2.polylines(image, [np.rint(16 * pixels[kept]).astype(np.int32)], False, colour,
                          max(1, round(width * self._scale)), cv2.LINE_AA, 4)

    def _fill(self, image: Image, left: FloatArray, right: FloatArray, colour: Colour,
              share: float = 1.0) -> None:
        outline = np.concatenate([self.project(left), self.project(right)[::-1]])
        if len(outline) < 3:
            return
        below = image.copy() if share < 1.0 else image
        cv2.fillPoly(image, [np.rint(16 * outline).astype(np.int32)], colour, cv2.LINE_AA, 4)
        if share < 1.0:
            cv2.addWeighted(image, share, below, 1.0 - share, 0.0, dst=image)


def _at(state: npt.NDArray[np.float32], index: int) -> float:
    return float(state[index]) if len(state) > index else math.nan


def _number(value: float, form: str) -> str:
    if not (math.isfinite(value) and abs(value) < 1e5):
        return '--'
    text = format(value, form)
    return text.replace('-', '+' if '+' in form else '') if float(text) == 0.0 else text


def _judged(share: float) -> Colour:
    """Return the colour of an error by its share of what is still within the lane."""
    return GREEN if abs(share) < 0.35 else AMBER if abs(share) < 0.75 else RED


def _dense(points: FloatArray) -> FloatArray:
    """Return a polyline (n, 2) m with a point every half metre: smooth edges in perspective."""
    if len(points) < 2:
        return points
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    if not 0.0 < along[-1] < 1e4:
        return points
    at = np.linspace(0.0, along[-1], max(int(2.0 * along[-1]), 2))
    return np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1)


def _with_headings(points: FloatArray) -> FloatArray:
    """Return a polyline (n, 2) with its direction in rad at each point, (n, 3)."""
    if len(points) < 2:
        return np.zeros((0, 3))
    steps = np.gradient(points, axis=0)
    return np.column_stack([points, np.arctan2(steps[:, 1], steps[:, 0])])
