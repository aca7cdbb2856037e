"""Odometry that is refused with its reason, and the rate at which images are made of it."""
from __future__ import annotations

import numpy as np
import pytest

from av_td3_ros.driving.perception.odometry_gate import OdometryGate, Pace
from av_td3_ros.driving.perception.vehicle_state import MeasurementError, VehicleState

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def stamped(seconds: float) -> VehicleState:
    return VehicleState(NOW + round(seconds * SECOND), 0.0, 0.0, 0.0, 0.0)


def test_new_odometry_of_now_is_let_through() -> None:
    gate = OdometryGate(0.2)
    for late in range(5):
        gate.check(stamped(0.02 * late), NOW + round((0.02 * late + 0.01) * SECOND))
    assert not any(gate.refused.values())


@pytest.mark.parametrize(('stamp', 'why', 'words'), [
    (-0.3, 'stale', r'0\.300 s old, at most 0\.2 s'),
    (0.3, 'stale', r'0\.300 s in the future'),
    (-0.05, 'backward', r'0\.050 s behind the newest one'),
    (0.0, 'backward', r'0\.000 s behind')])
def test_the_rest_is_refused_counted_and_forgotten(stamp: float, why: str, words: str) -> None:
    gate = OdometryGate(0.2)
    gate.check(stamped(0.0), NOW)
    with pytest.raises(MeasurementError, match=words):
        gate.check(stamped(stamp), NOW)
    assert gate.refused == {'broken': 0, 'stale': 0, 'backward': 0, why: 1}
    gate.check(stamped(0.02), NOW)


def test_a_stamp_that_nobody_has_set_is_refused_whatever_the_clock() -> None:
    with pytest.raises(MeasurementError, match='behind the newest one'):
        OdometryGate(0.2).check(VehicleState(0, 0.0, 0.0, 0.0, 0.0), 0)


@pytest.mark.parametrize(('rate', 'jitter', 'wanted'), [
    (50.0, 0.0, 20.0), (50.0, 0.004, 20.0), (20.0, 0.01, 20.0), (100.0, 0.002, 20.0),
    (10.0, 0.01, 10.0), (20.0, 0.0, 20.0)])
def test_images_keep_their_rate_whatever_that_of_the_poses(rate: float, jitter: float,
                                                           wanted: float) -> None:
    stamps = np.arange(0.0, 10.0, 1.0 / rate)
    stamps += jitter * np.random.default_rng(0).uniform(-1.0, 1.0, len(stamps))
    pace = Pace(0.05)
    taken = [stamp for stamp in stamps if pace.is_due(NOW + round(stamp * SECOND))]
    assert len(taken) == pytest.approx(10.0 * wanted, abs=2)
    assert np.diff(taken).max() < 1.0 / wanted + 1.0 / rate + 2.0 * jitter


def test_nothing_is_made_up_for_after_a_gap() -> None:
    pace = Pace(0.05)
    assert pace.is_due(0) and pace.is_due(SECOND)
    assert not pace.is_due(SECOND + 20_000_000)
    assert pace.is_due(SECOND + 40_000_000)
