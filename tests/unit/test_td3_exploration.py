"""Exploration: smooth forward driving first, noise around the policy later."""
from __future__ import annotations

import numpy as np
import pytest

from av_td3_ros.td3 import Exploration, ExplorationSettings

GREEDY = np.array((0.25, -0.5), np.float32)


def actions(settings: ExplorationSettings, steps: int, first: int = 0, seed: int = 0
            ) -> np.ndarray:
    """Return (steps, 2) actions of a training from step `first` on."""
    exploration = Exploration(settings, seed)
    return np.array([exploration.act(first + i, GREEDY)[0] for i in range(steps)])


def test_random_actions_are_smooth_mostly_forward_and_in_range() -> None:
    settings = ExplorationSettings(warmup_steps=20_000)
    driven = actions(settings, 20_000)
    assert driven.dtype == np.float32 and np.abs(driven).max() <= 1.0
    steer, acceleration = driven.T
    assert abs(steer.mean()) < 0.05
    assert steer.std() == pytest.approx(settings.warmup_steer, rel=0.1)
    assert acceleration.mean() > 0.2
    # The correlation of one step with the next.
    assert np.corrcoef(steer[1:], steer[:-1])[0, 1] == pytest.approx(0.9, abs=0.02)


def test_the_policy_takes_over_with_noise_of_the_given_size() -> None:
    settings = ExplorationSettings(warmup_steps=10, noise=0.1)
    driven = actions(settings, 5000, first=10)
    assert driven.mean(0) == pytest.approx(GREEDY, abs=0.01)
    assert driven.std(0) == pytest.approx((0.1, 0.1), abs=0.01)
    assert abs(np.corrcoef(driven[1:, 0], driven[:-1, 0])[0, 1]) < 0.05


def test_noise_can_be_smooth() -> None:
    settings = ExplorationSettings(warmup_steps=0, noise=0.1, noise_correlation=0.8)
    driven = actions(settings, 5000)
    assert driven.std(0) == pytest.approx((0.1, 0.1), abs=0.02)
    assert np.corrcoef(driven[1:, 0], driven[:-1, 0])[0, 1] == pytest.approx(0.8, abs=0.04)


def test_without_noise_the_policy_is_untouched_and_does_not_explore() -> None:
    exploration = Exploration(ExplorationSettings(warmup_steps=0, noise=0.0), 0)
    action, exploring = exploration.act(0, GREEDY)
    assert (action == GREEDY).all() and not exploring


def test_without_a_policy_random_driving_goes_on() -> None:
    exploration = Exploration(ExplorationSettings(warmup_steps=0), 0)
    action, exploring = exploration.act(100, None)
    assert exploring and action.shape == (2,) and action.dtype == np.float32


def test_the_seed_decides() -> None:
    settings = ExplorationSettings()
    assert (actions(settings, 50, seed=1) == actions(settings, 50, seed=1)).all()
    assert (actions(settings, 50, seed=1) != actions(settings, 50, seed=2)).any()


def test_noisy_actions_stay_in_range() -> None:
    driven = actions(ExplorationSettings(warmup_steps=0, noise=2.0), 500)
    assert np.abs(driven).max() == 1.0
