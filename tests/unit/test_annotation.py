"""The annotated picture of a moment."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from av_td3_ros.driving.camera.view import ViewSettings
from av_td3_ros.driving.display.annotation import (
    SOURCES,
    Annotator,
    Applied,
    Moment,
    Wanted,
)
from av_td3_ros.driving.display.prediction import PredictionSettings
from av_td3_ros.driving.perception.state import state_vector
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.driving.route.tracker import RoutePosition
from av_td3_ros.simulator.view.camera import Camera, CameraSettings
from av_td3_ros.simulator.world import World, WorldSettings

GREY = 90


def moment(**changes: object) -> Moment:
    """Return a moment on a straight road."""
    ahead = np.array([(2.0 * one, 0.0) for one in range(1, 11)], np.float32)
    state = state_vector(8.0, RoutePosition(0.0, 0.4, 0.1, 100.0, 0.0), ahead)
    made = Moment(np.full((84, 84), GREY, np.uint8), state, 3, 7, 0.05,
                  {'progress': 0.08, 'efficiency': -0.01, 'lane': -0.03, 'comfort': 0.0,
                   'safety': 0.0}, '', Applied(0.3, 0.5, 'policy', True, 1200),
                  Wanted(0.5, 0.5, 1200, 0.003))
    return dataclasses.replace(made, **changes)


def annotator(**view: float) -> Annotator:
    """Return one for a camera that differs in some settings."""
    return Annotator(ViewSettings(**view), PredictionSettings())


def test_the_state_vector_is_read_back() -> None:
    one = moment()
    assert (one.speed, one.lateral, one.heading_error) == pytest.approx((8.0, 0.4, 0.1))
    assert one.waypoints[:, 0] == pytest.approx(np.arange(2.0, 21.0, 2.0))


def test_the_camera_is_the_embedded_simulators() -> None:
    view, camera = ViewSettings(), CameraSettings()
    for name in ('width', 'height', 'x', 'y', 'z'):
        assert getattr(view, name) == getattr(camera, name), name
    for name in ('fov', 'pitch', 'yaw'):
        assert math.degrees(getattr(view, name)) == pytest.approx(
            getattr(camera, name), abs=1e-3), name


@pytest.mark.parametrize('place', [{}, {'y': 0.7, 'yaw': 12.0, 'pitch': 20.0, 'fov': 60.0}])
def test_points_lie_where_the_camera_sees_them(place: dict[str, float]) -> None:
    settings = CameraSettings(width=640, height=480, **place)
    camera = Camera(settings, World(WorldSettings(map='loop'), 0).scenery)
    points = np.array([(5.0, 0.5), (12.0, -2.0), (30.0, 4.0)])
    seen = camera.project(np.column_stack([points, np.zeros(3)]), Pose(0.0, 0.0, 0.0))
    for angle in {'fov', 'pitch', 'yaw'} & place.keys():
        place = {**place, angle: math.radians(place[angle])}
    assert annotator(**place).project(points) == pytest.approx(seen, abs=0.01)


def test_what_is_behind_is_not_drawn() -> None:
    assert len(annotator().project(np.array([(-5.0, 0.0), (0.7, 0.0), (9.0, 0.0)]))) == 1


def test_every_driver_has_a_colour_of_its_own() -> None:
    draw = annotator().draw
    pictures = {name: draw(moment(applied=Applied(0.3, 0.5, name))) for name in SOURCES}
    for name, picture in pictures.items():
        others = [one for key, one in pictures.items() if SOURCES[key] != SOURCES[name]]
        shown = (picture == SOURCES[name]).all(axis=2).sum()
        assert all(shown > 500 + (one == SOURCES[name]).all(axis=2).sum() for one in others), name


@pytest.mark.parametrize('change', [
    {'reward': -0.3}, {'terms': {'progress': -0.1}}, {'reason': 'collision'}, {'step': 8},
    {'applied': None}, {'applied': Applied(-0.3, 0.5)}, {'applied': Applied(0.3, -0.5)},
    {'wanted': Wanted(-0.5, 0.5)}, {'applied': Applied(0.3, 0.5, 'policy', False, 1200)},
    {'applied': Applied(0.3, 0.5, 'policy', True, 1300)}])
def test_whatever_changes_is_seen(change: dict[str, object]) -> None:
    one = annotator()
    assert (one.draw(moment()) != one.draw(moment(**change))).any()


def test_the_frame_fills_the_upper_part_in_the_cameras_shape() -> None:
    one = Annotator(ViewSettings(width=200, height=100), PredictionSettings(), width=400)
    picture = one.draw(moment(applied=None, state=np.zeros(0, np.float32)))
    assert picture.shape == (one.height, 400, 3) and picture.dtype == np.uint8
    assert picture[195, 30].tolist() == [GREY] * 3
    assert picture[205, 2].tolist() != [GREY] * 3


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 3e38])
def test_what_is_no_number_does_no_harm(value: float) -> None:
    one = annotator()
    state = np.full(23, value, np.float32)
    picture = one.draw(moment(
        state=state, reward=value, terms={'progress': value}, reason='x' * 300,
        applied=Applied(value, value), wanted=Wanted(value, value, 2**63, value)))
    assert picture.shape == (one.height, one.width, 3)
