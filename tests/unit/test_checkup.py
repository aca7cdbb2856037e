"""What is said of a vehicle's sensors, from what they sent."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from av_td3_ros.driving import checkup
from av_td3_ros.driving.camera.calibration import Calibration
from av_td3_ros.driving.camera.view import (
    CameraViewSettings,
    MountingSettings,
    ViewSettings,
)
from av_td3_ros.driving.checkup import Arrival
from av_td3_ros.driving.perception.pairing import PairingSettings
from av_td3_ros.driving.perception.vehicle_state import VehicleState

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def arrivals(rate: float = 20.0, count: int = 60, age: float = 0.02, transport: float = 0.005,
             start_ns: int = NOW) -> list[Arrival]:
    """Return messages `age` s old on arrival that took `transport` s."""
    stamps = [start_ns + round(index * SECOND / rate) for index in range(count)]
    return [Arrival(one, one + round((age - transport) * SECOND), one + round(age * SECOND))
            for one in stamps]


def drive(speed: float = 5.0, yaw: float = 0.7, turning: float = 0.2, rate: float = 50.0
          ) -> list[VehicleState]:
    """Return odometry of three seconds of driving along a curve."""
    states, x, y, dt = [], 0.0, 0.0, 1.0 / rate
    for index in range(int(3 * rate)):
        states.append(VehicleState(NOW + round(index * dt * SECOND), x, y, yaw, speed,
                                   yaw_rate=turning))
        x, y = x + speed * dt * math.cos(yaw), y + speed * dt * math.sin(yaw)
        yaw += turning * dt
    return states


def told(states: Sequence[VehicleState], twist: list[tuple[float, float]]) -> list[VehicleState]:
    """Return the same poses with another twist."""
    return [VehicleState(one.stamp_ns, one.x, one.y, one.yaw, *pair)
            for one, pair in zip(states, twist, strict=True)]


@pytest.mark.parametrize(('given', 'level', 'words'), [
    (arrivals(), 'ok', '20 ms old'),
    (arrivals(age=-0.2), 'error', 'in the future'),
    (arrivals(age=0.3), 'warning', '0.300 s old'),
    (arrivals(age=3.0), 'error', '3.000 s old'),
    (arrivals(start_ns=0), 'error', 'zero'),
    (arrivals()[::-1], 'error', 'backwards'),
    ([*arrivals(count=3), *arrivals(count=1)], 'error', 'backwards'),
    (arrivals(count=1) * 2, 'error', 'the stamp of the one before')])
def test_stamps(given: list[Arrival], level: str, words: str) -> None:
    found = checkup.judge_stamps('image', given)
    assert (found.check, found.level) == ('image stamps', level) and words in found.found
    assert (found.remedy == '') == (level == 'ok')


def test_a_steady_age_points_to_a_clock_and_a_changing_one_to_the_way() -> None:
    steady = checkup.judge_stamps('image', arrivals(age=7.0))
    growing = checkup.judge_stamps('image', [
        Arrival(one.stamp_ns, one.sent_ns, one.came_ns + index * SECOND // 20)
        for index, one in enumerate(arrivals(age=0.6))])
    assert 'clock is off' in steady.remedy and 'the way is slow' in growing.remedy


def test_simulated_stamps_are_held_against_the_clock_of_the_simulation() -> None:
    given = [Arrival(one, NOW, NOW, one) for one in range(SECOND, 2 * SECOND, SECOND // 20)]
    found = checkup.judge_stamps('image', given)
    assert found.level == 'ok' and 'simulated time' in found.found
    wall = checkup.judge_stamps('odometry', [
        Arrival(one.stamp_ns, one.sent_ns, one.came_ns, SECOND) for one in arrivals()])
    assert wall.level == 'ok' and 'wall clock' in wall.found


def test_clocks_of_two_computers() -> None:
    for transport, level in ((0.003, 'ok'), (-0.4, 'error'), (0.2, 'warning'), (30.0, 'error')):
        found = checkup.judge_clocks('image', arrivals(transport=transport))
        assert found is not None and found.level == level
    assert checkup.judge_clocks('image', [Arrival(NOW, 0, NOW)]) is None


@pytest.mark.parametrize(('rate', 'level'), [
    (20.0, 'ok'), (19.0, 'ok'), (17.0, 'warning'), (24.0, 'warning'), (10.0, 'error'),
    (30.0, 'error')])
def test_camera_rate(rate: float, level: str) -> None:
    found = checkup.judge_camera_rate(arrivals(rate), 20.0, 0.5)
    assert found.level == level and f'{rate:.1f} Hz' in found.found and '20 Hz' in found.found


def test_lost_images_and_gaps() -> None:
    some = [one for index, one in enumerate(arrivals()) if index % 10]
    assert checkup.judge_camera_rate(some, 20.0, 0.5).level == 'warning'
    gap = [*arrivals(count=20), *arrivals(count=20, start_ns=NOW + 3 * SECOND)]
    found = checkup.judge_camera_rate(gap, 20.0, 0.5)
    assert found.level == 'error' and 'gap' in found.found and 'frame.max_gap' in found.remedy
    assert checkup.judge_camera_rate(arrivals(count=1), 20.0, 0.5).level == 'warning'


def test_a_rate_of_uneven_steps_is_their_mean() -> None:
    stamps = np.cumsum([40_000_000, 60_000_000] * 30) + NOW
    found = checkup.judge_camera_rate(
        [Arrival(int(one), int(one), int(one)) for one in stamps], 20.0, 0.5)
    assert found.level == 'ok' and found.found.startswith('19.9 Hz, 0 % lost')


def test_odometry_must_keep_up_with_the_camera() -> None:
    assert checkup.judge_odometry_rate(arrivals(50.0), 20.0).level == 'ok'
    assert checkup.judge_odometry_rate(arrivals(10.0), 20.0).level == 'error'
    assert checkup.judge_odometry_rate(arrivals(count=1), 20.0).level == 'warning'


def test_pairing_names_the_tolerance_that_would_do() -> None:
    images = [NOW + 3_000_000 + index * 50_000_000 for index in range(40)]
    odometry = [NOW + index * 20_000_000 for index in range(110)]
    strict = checkup.judge_pairing(images, odometry, PairingSettings())
    assert strict.level == 'error' and '0 of 40 images' in strict.found
    needed = float(strict.remedy.rpartition(' ')[2])
    well = checkup.judge_pairing(images, odometry, PairingSettings(tolerance=needed))
    assert well.level == 'ok' and '40 of 40 images' in well.found
    apart = checkup.judge_pairing([one - NOW for one in images], odometry, PairingSettings())
    assert apart.level == 'error' and 'one clock' in apart.remedy


def test_motion_is_what_the_poses_say() -> None:
    states = drive()
    assert checkup.judge_motion(states).level == 'ok'
    ground = [(one.speed * math.cos(one.yaw), one.speed * math.sin(one.yaw)) for one in states]
    for twist, words in ((ground, 'frame of the poses'),
                         ([(one.speed * 3.6, 0.0) for one in states], 'km/h'),
                         ([(-one.speed, 0.0) for one in states], 'opposite'),
                         ([(0.0, one.speed) for one in states], 'another direction'),
                         ([(0.0, 0.0) for one in states], 'the poses 5.0 m/s')):
        found = checkup.judge_motion(told(states, twist))
        assert found.level == 'error' and words in found.found
    frozen = [VehicleState(one.stamp_ns, 0.0, 0.0, 0.0, 5.0) for one in states]
    assert checkup.judge_motion(frozen).level == 'error'


def test_of_a_standing_vehicle_motion_says_nothing() -> None:
    found = checkup.judge_motion(drive(speed=0.0, turning=0.0))
    assert found.level == 'skipped' and 'stands still' in found.found and 'again' in found.remedy


def test_a_teleport_is_no_motion() -> None:
    states = drive()
    away = [VehicleState(one.stamp_ns + 3 * SECOND, one.x + 500.0, one.y, one.yaw, one.speed)
            for one in states]
    assert checkup.judge_motion([*states, *away]).level == 'ok'


def test_orientations_and_frames() -> None:
    assert checkup.judge_quaternions([1.0, 1.001]).level == 'ok'
    assert checkup.judge_quaternions([0.0]).level == 'error'
    assert checkup.judge_frames('odom', 'base_link', 'odom').level == 'ok'
    assert checkup.judge_frames('odom', 'base_link', 'map').level == 'error'
    assert checkup.judge_frames('', 'base_link', None).level == 'warning'


def test_route_and_the_vehicle_on_it() -> None:
    points = [(float(x), 0.0) for x in range(0, 101, 2)]
    for x, y, yaw, level, words in (
            (1.0, 0.3, 0.1, 'ok', '100 m'), (1.0, 30.0, 0.0, 'error', '30.0 m beside'),
            (1.0, 0.0, math.pi, 'error', '180 degrees'), (99.0, 0.0, 0.0, 'error', '1 m before')):
        found = checkup.judge_route(points, VehicleState(NOW, x, y, yaw, 0.0), 2.5)
        assert found.level == level and words in found.found
    assert checkup.judge_route(points, None, 2.5).level == 'ok'
    assert checkup.judge_route(points[:1], None, 2.5).level == 'error'
    assert checkup.judge_route([(0.0, math.nan), (1.0, 0.0)], None, 2.5).level == 'error'


def test_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    assert checkup.judge_picture(noise, 'bgr8', (320, 240)).level == 'ok'
    assert checkup.judge_picture(noise[:120], 'bgr8', (320, 240)).level == 'warning'
    covered = checkup.judge_picture(np.zeros((240, 320, 3), np.uint8), 'bgr8', None)
    assert covered.level == 'warning' and 'lens' in covered.remedy


def calibration(fx: float = 160.0, fy: float = 160.0, x: float = 160.0, **more: Any
                ) -> Calibration:
    """Return a pinhole of 320x240 pixels, 90 degrees wide."""
    return Calibration(320, 240, (fx, 0.0, x, 0.0, fy, 120.0, 0.0, 0.0, 1.0), **more)


def test_calibration() -> None:
    found = checkup.judge_camera_info(calibration(), (320, 240), ('camera', 'camera'))
    assert found.level == 'ok' and '90.0 degrees' in found.found
    rectified = calibration(rectified=True, p=(
        160.0, 0.0, 160.0, 0.0, 0.0, 160.0, 120.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    assert checkup.judge_camera_info(rectified, (320, 240), None).level == 'ok'
    for given, size, frames, level in (
            (calibration(), (640, 480), None, 'error'),
            (calibration(fy=400.0), (320, 240), None, 'warning'),
            (calibration(x=5.0), (320, 240), None, 'warning'),
            (calibration(), (320, 240), ('camera', 'other'), 'warning')):
        assert checkup.judge_camera_info(given, size, frames).level == level


def test_the_camera_of_the_training() -> None:
    recorded, here = ViewSettings(), MountingSettings(pitch=ViewSettings().pitch)
    like = CameraViewSettings(mounting=here)
    assert checkup.judge_camera_view(calibration(), like, 84, None)[0].level == 'skipped'
    assert checkup.judge_camera_view(calibration(), like, 84, recorded)[0].level == 'ok'
    (narrow,) = checkup.judge_camera_view(calibration(fx=300.0), like, 84, recorded)
    assert narrow.level == 'warning' and '(33.9 deg) narrower' in narrow.found
    assert 'wider lens' in narrow.remedy
    high = dataclasses.replace(like, mounting=dataclasses.replace(here, z=2.2, pitch=0.3))
    found = checkup.judge_camera_view(calibration(), high, 84, recorded)
    assert {one.level for one in found} == {'warning'} and len(found) == 2
    turned = dataclasses.replace(high, calibrate=True)
    found = checkup.judge_camera_view(calibration(fx=120.0), turned, 84, recorded)
    assert any('1.60 m' in one.found for one in found)
    other = dataclasses.replace(recorded, fov=1.0)
    assert any('camera.training' in one.found
               for one in checkup.judge_camera_view(calibration(), turned, 84, other))
    away = dataclasses.replace(turned, mounting=dataclasses.replace(here, yaw=3.1))
    (blind,) = checkup.judge_camera_view(calibration(), away, 84, recorded)
    assert blind.level == 'error' and 'sees nothing' in blind.found


def test_the_worst_of_findings() -> None:
    ok, skipped, warning, error = (checkup.Finding('a', level, '') for level in checkup.LEVELS)
    assert checkup.worst([]) == checkup.worst([ok]) == 'ok'
    assert checkup.worst([skipped, ok]) == 'skipped'
    assert checkup.worst([ok, error, warning]) == 'error'
