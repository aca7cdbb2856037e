"""What pays when learning to drive: the default recipe with one thing changed at a time."""
from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from av_td3_ros.driving.perception.mask import VECTOR
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.td3.exploration import ExplorationSettings
from av_td3_ros.td3.learner import LearnerSettings
from benchmarks._jobs import Recipe, compare
from benchmarks._training import Algorithm, Ours, checkpoint_of

WORLD = 'cluttered'
MINUTES = 4.0


def variant(learner: dict[str, Any] | None = None, exploration: dict[str, Any] | None = None,
            demonstrated: int = 0, then: Callable[[Ours], None] = lambda ours: None,
            **recipe: Any) -> Recipe:
    """Return the default recipe with changes; `learner` holds {group: {key: value}}."""
    def make(drive: DriveSettings, seed: int, folder: Path) -> Algorithm:
        settings = LearnerSettings(seed=seed, run=str(folder), resume=checkpoint_of(folder))
        for group, changes in (learner or {}).items():
            changed = dataclasses.replace(getattr(settings, group), **changes)
            settings = dataclasses.replace(settings, **{group: changed})
        made = Ours(drive, settings, ExplorationSettings(**(exploration or {})), demonstrated)
        then(made)
        return made
    return Recipe(**{'make': make, 'looks': {WORLD: (MINUTES,)}, 'masks': (VECTOR,)} | recipe)


def _critics_see_what_the_actor_sees(ours: Ours) -> None:
    agent = ours.learner.agent
    prepare = agent._prepare

    def blinded(batch: Any) -> Any:
        prepared = prepare(batch)
        return prepared._replace(state=prepared.shown_state, next_state=prepared.next_shown_state)

    agent._prepare = blinded  # type: ignore[method-assign]


RECIPES = {
    'default': variant(),
    'vector never hidden': variant({'td3': {'vector_dropout': 0.0}}, {'vector_dropout': 0.0}),
    'vector hidden in batches only': variant(exploration={'vector_dropout': 0.0}),
    'vector hidden from the critics as well': variant(then=_critics_see_what_the_actor_sees),
    'smooth exploration noise (0.8)': variant(exploration={'noise_correlation': 0.8}),
    'less exploration noise (0.1)': variant(exploration={'noise': 0.1}),
    'smoothness penalty 0.3': variant({'td3': {'smoothness_penalty': 0.3}}),
    'smoothness penalty 1': variant({'td3': {'smoothness_penalty': 1.0}}),
    'smoothness penalty 3': variant({'td3': {'smoothness_penalty': 3.0}}),
    'without random shift': variant({'td3': {'random_shift': 0}}),
    'one-step returns': variant({'td3': {'n_step': 1}}),
    'five-step returns': variant({'td3': {'n_step': 5}}),
    'without LayerNorm': variant({'network': {'layer_norm': False}}),
    'one update a transition': variant({'limiter': {'updates_per_transition': 1.0}}),
    'one update for four transitions': variant({'limiter': {'updates_per_transition': 0.25}}),
    '2000 steps of pure pursuit as demonstration': variant(
        {'human': {'share': 0.25}}, demonstrated=2000),
    'an action every 0.1 s (frame skip)': variant(step=0.1),
    'float32': variant({'td3': {'precision': 'float32'}}),
}


if __name__ == '__main__':
    sys.exit(compare('recipe', __doc__ or '', WORLD, RECIPES))
