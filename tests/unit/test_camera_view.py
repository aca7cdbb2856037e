"""The training camera's view out of another camera's images: lines come to lie where they did."""
from __future__ import annotations

import dataclasses
import math
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lens import TRAINED, RealCamera, calibration, training_camera, turned_to
from test_camera import FLAT, along_x

from av_td3_ros.driving.camera.calibration import FISHEYE, RATIONAL, Calibration, Region
from av_td3_ros.driving.camera.image import ImageError, to_observation_frame
from av_td3_ros.driving.camera.view import (
    CameraView,
    CameraViewSettings,
    CropSettings,
    MountingSettings,
    ViewSettings,
)
from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.simulator.view.camera import Camera, Vehicles
from av_td3_ros.simulator.view.scenery import Scenery

SIZE = (84, 84)
LINES = (3.5, 0.0, -3.5)   # m to the left
BARS = (6.0, 8.0, 11.0)    # m ahead, across the road
POSE = Pose(0.0, -1.2, 0.05)
BARREL = (-0.28, 0.09, 0.001, -0.0008, -0.01)
CASES = {
    'wider': (calibration(fov=100.0), MountingSettings(pitch=math.radians(8.0))),
    'barrel, lower': (calibration(fov=95.0, d=BARREL),
                      MountingSettings(x=1.6, y=0.1, z=1.25, pitch=0.05, yaw=0.04, roll=-0.03)),
    'barrel, 720p, higher': (calibration(1280, 720, 100.0, d=BARREL),
                             MountingSettings(x=0.5, y=-0.2, z=2.0, pitch=0.2, yaw=-0.04,
                                              roll=0.03)),
    'rational': (calibration(fov=92.0, model=RATIONAL,
                             d=(0.8, 0.1, 0.0005, -0.0003, 0.01, 1.1, 0.3, 0.02)),
                 MountingSettings(x=1.0, z=1.5, pitch=0.16, roll=0.02)),
    'fisheye': (calibration(k=(460.0, 0.0, 401.3, 0.0, 458.0, 297.0, 0.0, 0.0, 1.0),
                            d=(-0.02, 0.004, -0.001, 0.0002), model=FISHEYE),
                MountingSettings(x=1.6, z=1.35, pitch=0.09, yaw=0.02, roll=0.02))}


@pytest.fixture(scope='module')
def road() -> Scenery:
    """Return a road along x with three lines along it and bars across it."""
    across = np.linspace(-3.4, 3.4, 50)
    bars = [(np.stack([np.full_like(across, x), across], axis=1), 'solid', 0.3, 'white')
            for x in BARS]
    return Scenery([(along_x(-50.0, 150.0, 3.5), along_x(-50.0, 150.0, -3.5))],
                   [(along_x(-50.0, 150.0, y), 'solid', 0.15, 'white') for y in LINES] + bars)


def grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY)


def places(camera: Camera) -> list[tuple[float, float, bool]]:
    """Return where in an 84x84 frame of the camera lines are to be looked for, and which way."""
    points = [(x, y, False) for y in LINES for x in (4.5, 7.0, 9.5, 14.0, 18.0)]
    points += [(x, y, True) for x in BARS for y in (1.2, -1.2, -2.4)]
    found = []
    for x, y, is_bar in points:
        (u, v), = camera.project(np.array([[x, y, 0.0]]), POSE)
        column, row = u / camera.settings.width * 84 - 0.5, v / camera.settings.height * 84 - 0.5
        if 4.0 < column < 79.0 and row < 79.0:
            found.append((column, row, is_bar))
    return found


def centre(frame: np.ndarray, column: float, row: float, is_bar: bool) -> float:
    """Return where along a row (of a bar: along a column) the brightness of a line lies."""
    at, other = (row, column) if is_bar else (column, row)
    strip = (frame[:, round(other)] if is_bar else frame[round(other)]).astype(float)
    low = max(round(at) - 3, 0)
    window = strip[low:round(at) + 4]
    weights = np.maximum(window - np.median(strip[low:round(at) + 4]) - 5.0, 0.0)
    assert weights.sum() > 0.0, (column, row)
    return float(np.average(np.arange(low, low + len(window)), weights=weights))


def around(frame: np.ndarray, column: int, row: int) -> np.ndarray:
    return frame[row - 3:row + 4, column - 3:column + 4]


def deviations(actual: np.ndarray, wanted: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return by how many pixels lines lie elsewhere than they should."""
    looked_at = [place for place in places(Camera(TRAINED, Scenery()))
                 if around(seen, round(place[0]), round(place[1])).all()]
    assert len(looked_at) >= 10
    return np.array([centre(actual, *place) - centre(wanted, *place) for place in looked_at])


@pytest.mark.parametrize('case', CASES)
def test_the_lines_of_a_road_lie_as_the_training_camera_sees_them(case: str, road: Scenery
                                                                  ) -> None:
    lens, mounting = CASES[case]
    wanted = to_observation_frame(Camera(TRAINED, road).render(POSE, appearance=FLAT), 'bgra8')
    image = RealCamera(lens, mounting, road).render(POSE, FLAT)
    view = CameraView(lens, turned_to(TRAINED, mounting), SIZE)
    frame = view(grey(image))
    assert (frame.shape, frame.dtype) == ((84, 84), np.uint8)
    away = np.abs(deviations(frame, wanted, view.seen))
    print(f'{case}: {away.mean():.2f} px in the mean, {away.max():.2f} at most, '
          f'{100 * view.coverage:.0f} % seen')
    assert away.max() < 1.0
    assert away.mean() < 0.35


def test_vehicles_ahead_keep_their_feet_and_change_their_height(road: Scenery) -> None:
    lens, mounting = calibration(fov=100.0), MountingSettings(z=1.2, pitch=0.1)
    others = Vehicles(np.array([[14.0, 0.0, 0.0, 4.5, 1.8, 1.0]]), np.zeros((1, 3)))
    here, rows = Pose(0.0, 0.0, 0.0), {}
    for name, image in (('wanted', Camera(TRAINED, road).render(here, others, FLAT)),
                        ('seen', RealCamera(lens, mounting, road).render(here, FLAT, others))):
        frame = (to_observation_frame(image, 'bgra8') if name == 'wanted' else
                 CameraView(lens, turned_to(TRAINED, mounting), SIZE)(grey(image)))
        dark = np.flatnonzero(frame[:, 43] < 40)  # beside the line
        rows[name] = dark[0], dark[-1] + 1
    assert rows['seen'][1] == pytest.approx(rows['wanted'][1], abs=1)
    heights = {name: bottom - top for name, (top, bottom) in rows.items()}
    assert heights['seen'] / heights['wanted'] == pytest.approx(1.6 / 1.2, abs=0.25)


@settings(deadline=None)
@given(x=st.floats(-1.0, 3.0), y=st.floats(-1.0, 1.0), z=st.floats(0.5, 3.0),
       pitch=st.floats(-0.2, 0.4), yaw=st.floats(-0.3, 0.3), roll=st.floats(-0.2, 0.2),
       ahead=st.floats(4.0, 80.0), left=st.floats(-6.0, 6.0))
def test_any_mounting_shows_the_road_where_the_training_camera_does(
        x: float, y: float, z: float, pitch: float, yaw: float, roll: float, ahead: float,
        left: float) -> None:
    mounting = MountingSettings(x, y, z, pitch, yaw, roll)
    lens = calibration(80, 60, 95.0, d=BARREL)
    (u, v), = Camera(TRAINED, Scenery()).project(np.array([[ahead, left, 0.0]]),
                                                 Pose(0.0, 0.0, 0.0))
    column, row = u / TRAINED.width * 84 - 0.5, v / TRAINED.height * 84 - 0.5
    # The same point as OpenCV sees it, from rotations about the axes one after the other.
    point = np.array([ahead - x, left - y, -z])
    for axis, angle in (((0, 0, 1), yaw), ((0, 1, 0), pitch), ((1, 0, 0), roll)):
        point = cv2.Rodrigues(np.array(axis) * angle)[0].T @ point
    optical = np.array([-point[1], -point[2], point[0]])
    (source,) = CameraView(lens, turned_to(TRAINED, mounting), SIZE).source_of([[column, row]])
    if abs(optical[0]) < 0.9 * optical[2] and abs(optical[1]) < 0.9 * optical[2]:
        expected = cv2.projectPoints(optical, np.zeros(3), np.zeros(3), np.reshape(lens.k, (3, 3)),
                                     np.array(lens.d))[0].ravel()
        assert source == pytest.approx(expected, abs=1e-4)


def test_above_the_horizon_directions_are_kept() -> None:
    pixels = [[10.0, 5.0], [70.0, 20.0]]
    low, high = (CameraView(calibration(fov=110.0), turned_to(TRAINED, MountingSettings(
        x=place, z=height, pitch=0.1)), SIZE) for place, height in ((0.8, 1.6), (2.5, 0.9)))
    assert low.source_of(pixels) == pytest.approx(high.source_of(pixels))


def test_the_training_camera_itself_sees_what_it_saw(road: Scenery) -> None:
    own = MountingSettings(pitch=math.radians(TRAINED.pitch))
    lens = calibration(TRAINED.width, TRAINED.height, TRAINED.fov)
    image = Camera(TRAINED, road).render(POSE)
    whole = CameraView(lens, turned_to(TRAINED, own), (TRAINED.width, TRAINED.height))
    assert whole.coverage == 1.0
    assert np.abs(whole(grey(image)).astype(int) - grey(image)).max() <= 1
    frame = CameraView(lens, turned_to(TRAINED, own), SIZE)(grey(image)).astype(int)
    assert np.abs(frame - to_observation_frame(image, 'bgra8')).mean() < 1.0
    assert not whole.warnings()


def test_the_default_training_camera_is_that_of_the_embedded_simulator() -> None:
    assert dataclasses.astuple(ViewSettings()) == pytest.approx(
        dataclasses.astuple(training_camera()), abs=1e-5)


def test_colours_and_any_size_will_do() -> None:
    view = CameraView(calibration(fov=110.0), turned_to(TRAINED, MountingSettings()), (160, 100))
    image = np.zeros((600, 800, 3), np.uint8)
    image[:] = (10, 120, 230)
    seen = view(image)
    assert seen.shape == (100, 160, 3)
    assert (seen == (10, 120, 230)).all()


def test_every_pixel_of_the_image_counts() -> None:
    stripes = np.zeros((720, 1280), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 254
    view = CameraView(calibration(1280, 720, 110.0), turned_to(TRAINED, MountingSettings()), SIZE)
    # Single samples would show a moire of black and white.
    assert np.abs(view(stripes)[:, 5:-5].astype(int) - 127).max() < 40


def test_what_is_not_seen_repeats_the_nearest_that_is() -> None:
    lens = calibration(fov=50.0)
    view = CameraView(lens, turned_to(TRAINED, MountingSettings(pitch=math.radians(8.0))), SIZE)
    image = np.full((600, 800), 90, np.uint8)
    image[:, -40:] = 200
    frame = view(image)
    assert 0.1 < view.coverage < 0.4
    assert view.seen[42, 42] and not view.seen[42, 2] and not view.seen[2, 42]
    assert frame[42, 83] == 200 and frame[42, 2] == 90
    assert set(np.unique(frame[view.seen])) >= {90, 200} and frame.min() == 90


def test_a_lens_that_bends_back_shows_nothing_twice() -> None:
    lens = calibration(fov=90.0, d=(-0.35, 0.0, 0.0, 0.0))
    wide = dataclasses.replace(training_camera(), fov=2.4)
    view = CameraView(lens, CameraViewSettings(mounting=MountingSettings(pitch=wide.pitch),
                                               training=wide), SIZE)
    columns = np.flatnonzero(view.seen[42])
    assert (np.diff(columns) == 1).all()  # one piece
    sources = view.source_of([[column, 42.0] for column in columns])[:, 0]
    assert (np.diff(sources) > 0.0).all()


def test_what_is_cropped_is_not_looked_at() -> None:
    told = turned_to(TRAINED, MountingSettings(pitch=math.radians(8.0)))
    image = np.full((600, 800), 90, np.uint8)
    image[500:] = 255  # a bonnet
    image[:, :30] = 0
    lens = calibration(fov=90.0)
    assert CameraView(lens, told, SIZE)(image).max() == 255
    cropped = CameraView(lens, dataclasses.replace(told, crop=CropSettings(left=30, bottom=100)),
                         SIZE)
    assert (cropped(image) == 90).all()
    assert cropped.coverage < 0.9
    with pytest.raises(ValueError, match=r'camera\.crop leaves nothing of images of 800x600'):
        CameraView(lens, dataclasses.replace(told, crop=CropSettings(left=400, right=400)), SIZE)


def test_binned_images_and_regions_give_the_same_view(road: Scenery) -> None:
    mounting = MountingSettings(z=1.4, pitch=0.12)
    lens = calibration(800, 600, 90.0, d=BARREL)
    image = grey(RealCamera(lens, mounting, road).render(POSE))
    told = turned_to(TRAINED, mounting)
    whole = CameraView(lens, told, SIZE)
    binned = CameraView(dataclasses.replace(lens, binning=(2, 2)), told, SIZE)
    part = CameraView(dataclasses.replace(lens, region=Region(100, 150, 600, 400)), told, SIZE)
    frame = whole(image).astype(int)
    smaller = cv2.resize(image, (400, 300), interpolation=cv2.INTER_AREA)
    assert np.abs(binned(smaller) - frame)[whole.seen].mean() < 1.0
    cut = part(np.ascontiguousarray(image[150:550, 100:700]))
    assert part.coverage < whole.coverage
    assert np.abs(cut - frame)[part.seen].mean() < 0.1


def test_an_image_of_another_size_is_refused() -> None:
    view = CameraView(calibration(), turned_to(TRAINED, MountingSettings()), SIZE)
    with pytest.raises(ImageError, match='image of 640x480, camera_info is of 800x600: calibrate'):
        view(np.zeros((480, 640), np.uint8))


def test_a_camera_that_looks_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r'sees nothing .*pitch, yaw and roll .*\(rad\)'):
        CameraView(calibration(fov=60.0), turned_to(TRAINED, MountingSettings(yaw=3.1)), SIZE)


@pytest.mark.parametrize(('lens', 'mounting', 'words'), [
    (calibration(fov=50.0), MountingSettings(pitch=0.14),
     r"sees 23 % of the training camera's view.*% of the left quarter.*wider lens"),
    (calibration(1600, 1200, fov=120.0), MountingSettings(z=1.2, pitch=0.14),
     r'mounted at 1.20 m, the training camera at 1.60 m.*1.33 times as high'),
    (calibration(120, 90, fov=110.0), MountingSettings(pitch=0.14),
     r'a pixel of the 84x84 view is 0.\d\d pixels of the 120x90 image')])
def test_what_a_camera_cannot_give_is_said(lens: Calibration, mounting: MountingSettings,
                                           words: str) -> None:
    said = CameraView(lens, turned_to(TRAINED, mounting), SIZE).warnings()
    assert any(re.search(words, one) for one in said), said
    assert len(said) == 1
