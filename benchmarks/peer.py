"""What settings suit Stable-Baselines3's TD3: the search that `learning` takes its best from."""
from __future__ import annotations

import sys
from typing import Any

from benchmarks._jobs import Recipe, compare
from benchmarks._training import stable_baselines3

WORLD = 'clean'
LOOKS = {WORLD: (3, 6)}

# It has no clipping of gradients, no penalty on saturated actions and no LayerNorm to set, and
# refuses returns of several steps for observations of more than one part.
START: dict[str, Any] = {
    'noise': 0.2, 'buffer_size': 50_000, 'batch_size': 64, 'learning_rate': 3e-4, 'gamma': 0.95,
    'tau': 0.01, 'train_freq': 2, 'gradient_steps': 1, 'learning_starts': 1000,
    'policy_kwargs': {'net_arch': [256, 256]}}
BEST: dict[str, Any] = {}
"""What the search changed for good."""


def changed(**settings: Any) -> Recipe:
    """Return the start of the search with changes."""
    return Recipe(stable_baselines3(START | settings), LOOKS, masks=())


RECIPES = {
    'start': changed(),
    'learning rate 1e-4': changed(learning_rate=1e-4),
    'learning rate 1e-3': changed(learning_rate=1e-3),
    'gamma 0.98': changed(gamma=0.98),
    'batch 128, an update for four steps': changed(batch_size=128, train_freq=4),
    'batch 32, an update a step': changed(batch_size=32, train_freq=1),
    'an update a step': changed(train_freq=1),
    '64 image features': changed(policy_kwargs={
        'net_arch': [256, 256], 'features_extractor_kwargs': {'cnn_output_dim': 64}}),
    'tau 0.005': changed(tau=0.005),
    'noise 0.1': changed(noise=0.1),
}

if __name__ == '__main__':
    sys.exit(compare('peer', __doc__ or '', WORLD, RECIPES))
