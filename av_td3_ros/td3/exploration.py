"""Actions that find out something: smooth random driving first, the policy with noise later."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from av_td3_ros.settings import setting
from av_td3_ros.td3.networks import ACTION_SIZE


@dataclasses.dataclass(frozen=True)
class ExplorationSettings:
    """How the training vehicle leaves the beaten track."""

    warmup_steps: int = setting(1000, 'steps driven by smooth random actions before the policy '
                                'takes over', minimum=0)
    warmup_correlation: float = setting(0.9, 'how much of a random action (its distance from the '
                                        'mean) is left a step later; higher is smoother',
                                        minimum=0.0, maximum=0.999)
    warmup_steer: float = setting(0.3, 'standard deviation of random steering', minimum=0.0,
                                  maximum=2.0)
    warmup_acceleration: float = setting(0.5, 'standard deviation of random acceleration',
                                         minimum=0.0, maximum=2.0)
    warmup_forward: float = setting(0.3, 'mean of random acceleration: forward, or the vehicle '
                                    'would see nothing', minimum=-1.0, maximum=1.0)
    noise: float = setting(0.2, "standard deviation of the noise on the policy's action",
                           minimum=0.0, maximum=2.0, live=True)
    noise_correlation: float = setting(0.0, 'how much of the noise is left a step later; 0: '
                                       'independent noise as in the paper', minimum=0.0,
                                       maximum=0.999)
    vector_dropout: float = setting(0.5, 'share of the training episodes that are driven with the '
                                    'state vector hidden but for the speed', minimum=0.0,
                                    maximum=1.0, live=True)


class Exploration:
    """
    Choose training actions; all randomness comes from `seed`.

    Both kinds of noise are first-order autoregressive (Ornstein-Uhlenbeck in discrete time) with
    the given standard deviation at every step. `hides_vector` holds for the episodes that are
    driven by the camera.
    """

    def __init__(self, settings: ExplorationSettings, seed: int) -> None:
        self.settings = settings
        self._random = np.random.default_rng(seed)
        self.restart()

    def restart(self) -> None:
        """Forget the noise of the step before and draw what is hidden, at an episode's start."""
        self.hides_vector = bool(self._random.random() < self.settings.vector_dropout)
        self._warmup = self._random.standard_normal(ACTION_SIZE)
        self._noise = self._random.standard_normal(ACTION_SIZE)

    def act(self, step_index: int, greedy_action: NDArray[np.float32] | None
            ) -> tuple[NDArray[np.float32], bool]:
        """
        Return the action float32[2] in [-1, 1] for a step, and whether it explores.

        `step_index` counts the steps of the whole training; None for `greedy_action` (there is
        no policy yet) goes on with random actions.
        """
        s = self.settings
        if greedy_action is None or step_index < s.warmup_steps:
            self._warmup = self._next(self._warmup, s.warmup_correlation)
            action = self._warmup * (s.warmup_steer, s.warmup_acceleration)
            action[1] += s.warmup_forward
            return np.clip(action, -1.0, 1.0).astype(np.float32), True
        if s.noise == 0.0:
            return np.clip(greedy_action, -1.0, 1.0).astype(np.float32), False
        self._noise = self._next(self._noise, s.noise_correlation)
        action = greedy_action + s.noise * self._noise
        return np.clip(action, -1.0, 1.0).astype(np.float32), True

    def _next(self, noise: NDArray[np.float64], correlation: float) -> NDArray[np.float64]:
        fresh = self._random.standard_normal(ACTION_SIZE)
        return correlation * noise + math.sqrt(1.0 - correlation ** 2) * fresh
