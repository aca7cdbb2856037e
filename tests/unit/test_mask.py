"""What a mask leaves of an observation, while driving and in a batch."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from av_td3_ros.driving.perception.mask import IMAGE, NO_MASK, SPEED_NUMBERS, VECTOR, hide
from av_td3_ros.td3.augmentation import drop_vector
from av_td3_ros.td3.exploration import Exploration, ExplorationSettings

FRAMES = np.full((4, 84, 84), 7, np.uint8)
STATE = np.linspace(0.1, 1.0, 53, dtype=np.float32)


@pytest.mark.parametrize(('mask', 'sees_image', 'sees_vector'), [
    (NO_MASK, True, True), (IMAGE, False, True), (VECTOR, True, False)])
def test_a_mask_hides_one_thing_and_never_the_speed(mask: str, sees_image: bool,
                                                    sees_vector: bool) -> None:
    given = FRAMES.copy(), STATE.copy()
    frames, state = hide(mask, *given)
    assert (frames == 7).all() if sees_image else not frames.any()
    assert state[0] == STATE[0]
    assert (state == STATE).all() if sees_vector else not state[1:].any()
    assert (given[0] == FRAMES).all() and (given[1] == STATE).all()


def test_a_share_of_a_batch_loses_the_vector_and_keeps_the_speed() -> None:
    states = torch.arange(1.0, 1 + 4000 * 5).reshape(4000, 5)
    shown, then = drop_vector(states, -states, 0.3, SPEED_NUMBERS,
                              torch.Generator().manual_seed(0))
    assert torch.equal(shown[:, 0], states[:, 0])
    hidden = (shown[:, 1:] == 0).all(1)
    assert torch.equal(shown[~hidden], states[~hidden])
    # A state and the one after it are shown or hidden together.
    assert torch.equal(then, -shown)
    assert 0.25 < float(hidden.float().mean()) < 0.35


@pytest.mark.parametrize(('share', 'few', 'many'), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_a_share_of_the_episodes_is_driven_by_the_camera(share: float, few: int, many: int
                                                         ) -> None:
    exploration = Exploration(ExplorationSettings(vector_dropout=share), seed=1)
    hidden = 0
    for _ in range(200):
        exploration.restart()
        hidden += exploration.hides_vector
    assert few <= hidden <= many
