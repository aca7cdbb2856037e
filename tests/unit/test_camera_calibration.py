"""Where a calibrated lens shows a direction, against OpenCV, and what is no calibration."""
from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lens import calibration

from av_td3_ros.driving.camera.calibration import FISHEYE, PLUMB_BOB, RATIONAL, Calibration, Region

K = (500.0, 0.0, 403.0, 0.0, 480.0, 296.0, 0.0, 0.0, 1.0)
LENSES: dict[str, tuple[float, ...]] = {
    PLUMB_BOB: (-0.3, 0.1, 0.002, -0.001, -0.02),
    RATIONAL: (0.8, 0.1, 0.0005, -0.0003, 0.01, 1.1, 0.3, 0.02),
    FISHEYE: (-0.02, 0.004, -0.001, 0.0002)}
NARROW = 0.7  # of x / z: what every one of these lenses shows


def opencv(model: str, d: tuple[float, ...], rays: np.ndarray) -> np.ndarray:
    """Return where OpenCV puts directions."""
    project = cv2.fisheye.projectPoints if model == FISHEYE else cv2.projectPoints
    nowhere = np.zeros((3, 1))
    return project(rays.reshape(-1, 1, 3), nowhere, nowhere, np.reshape(K, (3, 3)),
                   np.array(d))[0].reshape(-1, 2)


@pytest.mark.parametrize('model', LENSES)
@given(x=st.floats(-NARROW, NARROW), y=st.floats(-NARROW, NARROW), z=st.floats(0.1, 100.0))
def test_directions_are_seen_where_opencv_sees_them(model: str, x: float, y: float, z: float
                                                    ) -> None:
    lens = Calibration(800, 600, K, LENSES[model], model)
    ray = np.array([[x * z, y * z, z]])
    assert lens.project(ray) == pytest.approx(opencv(model, LENSES[model], ray), abs=1e-6)


def test_four_coefficients_are_five_with_the_last_one_zero() -> None:
    rays = np.array([[0.3, -0.2, 1.0]])
    d = (-0.3, 0.1, 0.002, -0.001)
    assert Calibration(800, 600, K, d).project(rays) == pytest.approx(
        Calibration(800, 600, K, (*d, 0.0)).project(rays))


def test_an_equidistant_lens_without_coefficients_is_no_pinhole() -> None:
    ray = np.array([[math.tan(1.0), 0.0, 1.0]])
    lens = Calibration(2000, 600, K, (0.0,) * 4, FISHEYE)
    assert lens.project(ray) == pytest.approx(np.array([[403.0 + 500.0 * 1.0, 296.0]]))
    beside = lens.project([[1.0, 0.0, 0.0], [1.0, 0.0, -0.2]])  # 90 degrees and more
    assert beside[0] == pytest.approx((403.0 + 500.0 * math.pi / 2, 296.0))
    assert beside[1, 0] > beside[0, 0]
    assert lens.project([[0.0, 0.0, 1.0]]) == pytest.approx(np.array([[403.0, 296.0]]))


def test_nothing_is_seen_behind_the_camera_or_where_the_lens_model_turns_back() -> None:
    pinhole = Calibration(800, 600, K)
    assert np.isnan(pinhole.project([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.1, 0.2, -3.0]])).all()
    barrel = Calibration(800, 600, K, (-0.3, 0.0, 0.0, 0.0, 0.0))
    # r (1 - 0.3 r^2) rises up to r = 1.05: a ray at r = 1.7 would come out within the image.
    assert abs(1.7 * (1.0 - 0.3 * 1.7**2)) * 500.0 < 400.0
    assert np.isnan(barrel.project([[1.7, 0.0, 1.0]])).all()
    assert np.isfinite(barrel.project([[1.0, 0.0, 1.0]])).all()


def test_binning_and_region_are_of_the_published_image() -> None:
    ray = np.array([[0.2, 0.1, 1.0]])
    (u, v), = Calibration(800, 600, K).project(ray)
    part = Calibration(800, 600, K, binning=(2, 4), region=Region(100, 40, 400, 200))
    assert part.image_size == (200, 50)
    # The middle of four binned pixels 0 to 3 is at 1.5.
    assert part.project(ray)[0] == pytest.approx(((u - 100.0 - 0.5) / 2, (v - 40.0 - 1.5) / 4))
    assert Calibration(800, 600, K, binning=(2, 2)).image_size == (400, 300)


def test_a_rectified_image_obeys_r_and_p() -> None:
    turn, _ = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))
    p = (450.0, 0.0, 390.0, -50.0, 0.0, 450.0, 310.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    lens = Calibration(800, 600, K, LENSES[PLUMB_BOB], r=tuple(turn.ravel()), p=p, rectified=True)
    ray = np.array([0.2, 0.1, 1.0])
    x, y, z = turn @ ray
    assert lens.project(ray)[0] == pytest.approx((450.0 * x / z + 390.0, 450.0 * y / z + 310.0))


@pytest.mark.parametrize(('changed', 'words'), [
    ({'k': (0.0,) * 9}, r'K\[0\] = 0 .*not calibrated.*docs/camera.md'),
    ({'k': (500.0, 0.0, 1.0)}, 'k has 3 numbers, not 9'),
    ({'k': (math.nan, *K[1:])}, 'k = .* is not finite'),
    ({'d': (math.inf, 0.0, 0.0, 0.0)}, 'd = .* is not finite'),
    ({'d': (0.1, 0.0, 0.0)}, 'plumb_bob takes 5 coefficients, D has 3'),
    ({'model': 'thin_prism', 'd': (0.1,) * 12}, "'thin_prism' is not known.*plumb_bob, "),
    ({'model': 'thin_prism', 'd': ()}, "'thin_prism' is not known"),
    ({'model': '', 'd': (0.1,) * 5}, "'' is not known"),
    ({'model': FISHEYE, 'd': ()}, 'equidistant takes 4 coefficients, D has 0'),
    ({'width': 0}, '0x600 has no pixels'),
    ({'region': Region(700, 0, 200, 100)}, r'roi 200x100 at \(700, 0\) is not within'),
    ({'binning': (1000, 1)}, 'binning 1000x1 leaves no pixels'),
    ({'rectified': True, 'p': (0.0,) * 12}, r'P\[0\] = 0 .*camera.rectified'),
    ({'rectified': True, 'r': (0.0,) * 9}, 'R = .* is no rotation')])
def test_what_is_no_calibration_is_refused_with_the_remedy(changed: dict[str, Any], words: str
                                                           ) -> None:
    with pytest.raises(ValueError, match=words):
        calibration(**changed)


def test_zero_distortion_needs_no_model() -> None:
    rays = [[0.3, -0.2, 1.0]]
    expected = calibration().project(rays)
    for model, d in (('', ()), ('', (0.0,) * 5), (PLUMB_BOB, ()), (RATIONAL, (0.0,) * 8)):
        assert calibration(model=model, d=d).project(rays) == pytest.approx(expected)
