"""The configuration that a launch file makes, as far as no launch is needed for it."""
from __future__ import annotations

import math

import pytest

from av_td3_ros.cli.launched import Told

CALIBRATED = 'camera.calibrate=true'


def words(profile: str, config: str, policy: str = 'pretrained') -> list[str]:
    told = Told(profile, 'ego_vehicle', config=config)
    return told.camera_words(policy, told.driving(policy, recording=False))


def test_a_vehicles_images_are_turned_to_the_camera_of_the_policys_training() -> None:
    told = Told('vehicle', 'ego_vehicle', config=CALIBRATED)
    config = told.driving('pretrained', recording=False)
    view = config.settings['environment_node'].camera.training
    assert (view.width, view.height, view.z) == (320, 240, 1.6)
    assert (view.fov, view.pitch) == pytest.approx((math.pi / 2, math.radians(8.0)))


def test_a_camera_unlike_that_of_the_training_is_told_by_how_much() -> None:
    assert not words('vehicle', CALIBRATED)
    (said,) = words('vehicle', f'{CALIBRATED} camera.training.z=1.2')
    assert said.startswith("not the camera of pretrained's training: the height z = 1.20 m ")
    assert not words('embedded', '')
    (said,) = words('embedded', 'world.camera.fov=70.0')
    assert 'is 0.349 rad (20.0 deg) narrower than the recorded' in said
    # What a camera that is no simulated one sees is known to av-td3 doctor, which hears it.
    assert not words('vehicle', '')
    assert not words('embedded', 'world.camera.fov=70.0', policy='pursuit')
