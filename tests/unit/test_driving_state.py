"""The state vector: its scales, its order and its sizes."""
from __future__ import annotations

import math

import numpy as np
import pytest

from av_td3_ros.driving.perception.state import state_size, state_vector
from av_td3_ros.driving.route.tracker import RoutePosition

POSITION = RoutePosition(distance=10.0, lateral=-0.7, heading_error=math.pi / 4, remaining=90.0,
                         completion=0.1)


def test_state_holds_scaled_numbers_in_the_documented_order() -> None:
    waypoints = np.array([(2.0, 0.5), (4.0, -1.0)], dtype=np.float32)
    vector = state_vector(12.0, POSITION, waypoints)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, [0.4, -0.2, 0.25, 0.04, 0.01, 0.08, -0.02], rtol=1e-6)


@pytest.mark.parametrize(('count', 'size'), [(1, 5), (10, 23), (25, 53)])
def test_state_has_five_twenty_three_or_fifty_three_numbers(count: int, size: int) -> None:
    waypoints = np.zeros((count, 2), dtype=np.float32)
    assert state_vector(0.0, POSITION, waypoints).shape == (size,) == (state_size(count),)
