"""What pays among other vehicles: the default recipe with other goals and a longer sight."""
from __future__ import annotations

import sys
from typing import Any

from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.driving.episode.reward import RewardSettings
from benchmarks._jobs import Recipe, compare
from benchmarks.recipe import WORLD, variant

VEHICLES = 10
LOOKS = {WORLD: (10,)}


def changed(target_speed: float = 10.0, learner: dict[str, Any] | None = None,
            **reward: float) -> Recipe:
    """Return the default recipe among other vehicles with changes."""
    driving = DrivingSettings(target_speed=target_speed, reward=RewardSettings(**reward))
    return variant(learner, looks=LOOKS, vehicles=VEHICLES, driving=driving, masks=())


RECIPES = {
    'default': changed(),
    'target speed 8': changed(8.0),
    'target speed 8, a failure costs 20': changed(8.0, failure_penalty=20.0),
    'target speed 8, gamma 0.98': changed(8.0, {'td3': {'gamma': 0.98}}),
    'target speed 8, a failure costs 20, gamma 0.98': changed(
        8.0, {'td3': {'gamma': 0.98}}, failure_penalty=20.0),
    'target speed 8, 4 s of distance, safety counts double': changed(
        8.0, safe_time=4.0, safety=2.0),
}

if __name__ == '__main__':
    sys.exit(compare('traffic', __doc__ or '', WORLD, RECIPES))
