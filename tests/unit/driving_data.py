"""Transitions of real driving for tests: the embedded simulator, driven by pursuit with noise."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from av_td3_ros.driving.camera.frame_stack import FrameSettings
from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import WorldSettings
from av_td3_ros.td3 import StepRecord

NOISE = 0.4


def driven_steps(steps: int, frame_size: int, seed: int = 0) -> Iterator[StepRecord]:
    """Yield the first steps of episodes on the map 'winding'."""
    camera = CameraSettings(width=2 * frame_size, height=int(1.5 * frame_size))
    drive = Drive(DriveSettings(world=WorldSettings(map='winding', camera=camera),
                                frame=FrameSettings(size=frame_size)), seed)
    random, index, step = np.random.default_rng(seed), -1, None
    driver, noise = PursuitDriver(), np.zeros(2)
    for left in range(steps - 1, -1, -1):
        if step is None or step.is_last:
            index, number = index + 1, 0
            step = drive.begin(index)
            driver.reset()
        seen = StepRecord('ego', index, number, drive.frames[-1], step.state, None, None,
                          step.is_first, step.is_last or left == 0, step.is_terminal)
        if seen.is_last:
            yield seen
            continue
        noise = 0.9 * noise + NOISE * np.sqrt(1 - 0.9 ** 2) * random.standard_normal(2)
        step = drive.act(np.clip(driver.act(step.state) + noise, -1, 1))
        number += 1
        yield dataclasses.replace(seen, action=drive.applied, reward=step.reward)
