"""A camera that is not the one a policy was trained with: by how much, and what to do."""
from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lens import calibration, training_camera

from av_td3_ros.driving.camera.calibration import FISHEYE, Region
from av_td3_ros.driving.camera.check import (
    compare_cameras,
    recorded_camera,
    uncalibrated_camera,
)
from av_td3_ros.driving.camera.view import MountingSettings, ViewSettings

TRAINED = training_camera()


def degrees(value: float) -> float:
    return math.radians(value)


@pytest.mark.parametrize(('changed', 'words'), [
    ({'fov': degrees(70.0)}, r'field of view of 1.222 rad \(70.0 deg\) is 0.349 rad \(20.0 deg\) '
                             r'narrower than the recorded 1.571 rad \(90.0 deg\): take a wider'),
    ({'fov': degrees(100.0)}, r'\(10.0 deg\) wider .*camera\.calibrate'),
    ({'width': 1280, 'height': 720}, r'aspect of 1.78 \(1280x720\) is 33 % wider than the '
                                     r'recorded 1.33 \(320x240\).*camera\.calibrate'),
    ({'pitch': degrees(5.0)}, r'pitch of .*\(5.0 deg\) is 0.052 rad \(3.0 deg\) farther up than '
                              r'.*\(8.0 deg\): turn the camera down by that'),
    ({'yaw': degrees(2.0)}, r'yaw .*\(2.0 deg\) farther left than .*turn the camera right'),
    ({'roll': degrees(-4.0)}, r'roll .*\(4.0 deg\) farther counter-clockwise .*camera clockwise'),
    ({'z': 1.3}, r'height z = 1.30 m is 0.30 m below the recorded 1.60 m: mount'),
    ({'x': 1.5}, r'place x = 1.50 m is 0.70 m ahead of the recorded 0.80 m'),
    ({'y': -0.3}, r'place y = -0.30 m is 0.30 m to the right of the recorded 0.00 m'),
    ({'width': 160, 'height': 120}, r'160x120 are coarser than the recorded 320x240')])
def test_each_mismatch_is_one_sentence_that_says_by_how_much(changed: dict[str, Any], words: str
                                                             ) -> None:
    (said,) = compare_cameras(TRAINED, dataclasses.replace(TRAINED, **changed))
    assert re.search(words, said), said


def test_a_camera_like_the_recorded_one_needs_no_words() -> None:
    assert not compare_cameras(TRAINED, TRAINED)
    finer = dataclasses.replace(
        TRAINED, width=1280, height=960, fov=TRAINED.fov + 0.01, pitch=TRAINED.pitch - 0.01,
        yaw=math.tau, z=TRAINED.z + 0.03, x=TRAINED.x - 0.05)
    assert not compare_cameras(TRAINED, finer)


def test_many_mismatches_are_many_sentences() -> None:
    other = ViewSettings(1280, 720, degrees(60.0), 1.5, 0.4, 1.2, 0.0, 0.1, 0.1)
    assert len(compare_cameras(TRAINED, other)) == 8


def test_the_camera_is_taken_from_a_policys_settings() -> None:
    settings = {'simulator_node': {
        'world.camera.width': 640, 'world.camera.height': 360, 'world.camera.fov': 100.0,
        'world.camera.pitch': 6.0, 'world.camera.z': 1.4, 'world.camera.draw_distance': 80.0,
        'world.fixed_delta_seconds': 0.05}}
    camera = recorded_camera(settings)
    assert camera is not None
    assert (camera.width, camera.height, camera.z) == (640, 360, 1.4)
    assert (camera.fov, camera.pitch) == pytest.approx((degrees(100.0), degrees(6.0)))
    assert recorded_camera({}) is None
    assert recorded_camera({'simulator_node': {'world.fixed_delta_seconds': 0.05}}) is None
    with pytest.raises(ValueError, match=r"policy's recorded camera: z = -1.0 is out of range"):
        recorded_camera({'simulator_node': {'world.camera.z': -1.0}})


@given(fov=st.floats(30.0, 110.0), pitch=st.floats(-0.5, 0.5), yaw=st.floats(-0.5, 0.5),
       roll=st.floats(-0.3, 0.3))
def test_a_pinhole_is_what_its_calibration_and_mounting_say(fov: float, pitch: float, yaw: float,
                                                            roll: float) -> None:
    mounting = MountingSettings(1.2, 0.1, 1.4, pitch, yaw, roll)
    camera = uncalibrated_camera(calibration(640, 480, fov), mounting)
    assert dataclasses.astuple(camera) == pytest.approx(
        (640, 480, degrees(fov), 1.2, 0.1, 1.4, pitch, yaw, roll), abs=1e-9)


def test_an_off_centre_image_looks_aside() -> None:
    lens = calibration(800, 600, 90.0, region=Region(0, 0, 400, 600))
    camera = uncalibrated_camera(lens, MountingSettings())
    assert camera.yaw == pytest.approx(math.atan2(200.0, 400.0))
    assert (camera.width, camera.height) == (400, 600)
    assert camera.fov == pytest.approx(degrees(45.0))


def test_lenses_and_rectified_images_have_their_own_field_of_view() -> None:
    plain = uncalibrated_camera(calibration(fov=90.0), MountingSettings()).fov
    barrel = calibration(fov=90.0, d=(-0.2, 0.05, 0.0, 0.0))
    assert uncalibrated_camera(barrel, MountingSettings()).fov > plain + 0.1
    rectified = dataclasses.replace(barrel, rectified=True)
    assert uncalibrated_camera(rectified, MountingSettings()).fov == pytest.approx(plain)
    fisheye = calibration(fov=90.0, d=(0.0,) * 4, model=FISHEYE)
    assert uncalibrated_camera(fisheye, MountingSettings()).fov == pytest.approx(2.0, abs=1e-3)
