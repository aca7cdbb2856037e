"""What pays among other vehicles: the default recipe with other goals and a longer sight."""
from __future__ import annotations

import dataclasses
import sys
from typing import Any

from av_td3_ros.driving.episode.reward import RewardSettings
from av_td3_ros.simulator.drive import DriveSettings
from benchmarks._jobs import Recipe, compare
from benchmarks.recipe import WORLD, variant

VEHICLES = 10
LOOKS = {WORLD: (10,)}


def at(target_speed: float = 10.0, **reward: float) -> DriveSettings:
    """Return the default drive with another speed to aim at and other weights of the reward."""
    base = DriveSettings()
    return dataclasses.replace(
        base, driving=dataclasses.replace(base.driving, target_speed=target_speed,
                                          reward=RewardSettings(**reward)),
        command=dataclasses.replace(base.command, speed_limit=target_speed + 1.0))


def changed(drive: DriveSettings, learner: dict[str, Any] | None = None) -> Recipe:
    """Return the default recipe among other vehicles with changes."""
    return variant(learner, looks=LOOKS, vehicles=VEHICLES, drive=drive, masks=())


LONG = {'td3': {'gamma': 0.98}}
RECIPES = {
    'default': changed(at()),
    'target speed 8': changed(at(8.0)),
    'target speed 7': changed(at(7.0)),
    'target speed 8, speed counts five times as much': changed(at(8.0, efficiency=0.5)),
    'target speed 8, a failure costs 20': changed(at(8.0, failure_penalty=20.0)),
    'target speed 8, gamma 0.98': changed(at(8.0), LONG),
    'target speed 8, 4 s of distance, safety counts double': changed(
        at(8.0, safe_time=4.0, safety=2.0)),
}

if __name__ == '__main__':
    sys.exit(compare('traffic', __doc__ or '', WORLD, RECIPES))
