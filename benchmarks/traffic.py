"""What pays among other vehicles: other goals, other practice, and being shown to brake."""
from __future__ import annotations

import dataclasses
import sys
from typing import Any

from av_td3_ros.driving.episode.reward import RewardSettings
from av_td3_ros.simulator.drive import DriveSettings
from av_td3_ros.simulator.traffic import TrafficSettings
from benchmarks._jobs import Recipe, compare
from benchmarks.recipe import WORLD, variant

VEHICLES = 10
LOOKS = {WORLD: (10, 20)}


def at(target_speed: float = 10.0, **reward: float) -> DriveSettings:
    """Return the default drive with another speed to aim at and other weights of the reward."""
    base = DriveSettings()
    return dataclasses.replace(
        base, driving=dataclasses.replace(base.driving, target_speed=target_speed,
                                          reward=RewardSettings(**reward)),
        command=dataclasses.replace(base.command, speed_limit=target_speed + 1.0))


def changed(drive: DriveSettings, learner: dict[str, Any] | None = None, **changes: Any
            ) -> Recipe:
    """Return the default recipe among other vehicles with changes, as `variant` takes them."""
    return variant(learner, looks=LOOKS, vehicles=VEHICLES, drive=drive, masks=(), **changes)


CAUTIOUS = {'safe_time': 4.0, 'safety': 3.0}  # s of distance, and the weight of safety
DENSE = TrafficSettings(count=14, within=200.0, desired_speed=6.0, speed_spread=0.5)
RECIPES = {
    'default': changed(at()),
    'target speed 8': changed(at(8.0)),
    'target speed 8, speed counts five times as much': changed(at(8.0, efficiency=0.5)),
    'target speed 8, gamma 0.98': changed(at(8.0), {'td3': {'gamma': 0.98}}),
    'target speed 8, cautious': changed(at(8.0, **CAUTIOUS)),
    'target speed 7, cautious, lane counts double': changed(at(7.0, **CAUTIOUS, lane=1.0)),
    'target speed 8, dense and slow practice': changed(at(8.0), practice=DENSE),
    'target speed 8, cautious, dense and slow practice': changed(
        at(8.0, **CAUTIOUS), practice=DENSE),
    'target speed 8, cautious, dense and slow practice, shown by pursuit that brakes': changed(
        at(8.0, **CAUTIOUS), {'human': {'share': 0.25}}, demonstrated=8000, practice=DENSE),
}

if __name__ == '__main__':
    sys.exit(compare('traffic', __doc__ or '', WORLD, RECIPES))
