"""Driving without messages: the same parts in the same order as the nodes."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.driving.episode.planner import EpisodePlanSettings
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import WorldSettings

SETTINGS = DriveSettings(
    world=WorldSettings(map='loop', camera=CameraSettings(width=96, height=72)),
    episodes=EpisodePlanSettings(seed=3, min_length=40.0, max_length=60.0))


def test_pursuit_completes_its_routes() -> None:
    drive, driver = Drive(SETTINGS, seed=3), PursuitDriver()
    for index in range(2):
        step = drive.begin(index)
        driver.reset()
        assert step.is_first and drive.frames.shape == (4, 84, 84)
        while not step.is_last:
            step = drive.act(driver.act(step.state))
        metrics = drive.summary()
        assert metrics.success and metrics.route_completion == 1.0, step.reason
        assert metrics.total_reward > 0.0


def test_the_same_seed_drives_the_same_to_the_last_bit() -> None:
    ends = []
    for _ in range(2):
        drive, random = Drive(SETTINGS, seed=5), np.random.default_rng(0)
        drive.begin(1)
        for _ in range(40):
            step = drive.act(random.uniform(-1, 1, 2))
            if step.is_last:
                drive.begin(2)
        assert drive.step is not None
        ends.append((drive.frames.tobytes(), drive.step.state.tobytes(), drive.applied.tobytes()))
    assert ends[0] == ends[1]


def test_the_limits_hold_here_too() -> None:
    drive = Drive(SETTINGS)
    drive.begin(0)
    drive.act((1.0, 1.0))
    assert drive.applied[0] == pytest.approx(5.0 * 0.05)  # steering_rate


def test_out_of_an_episode_it_says_what_to_do() -> None:
    drive = Drive(dataclasses.replace(SETTINGS))
    with pytest.raises(RuntimeError, match='begin one'):
        drive.act((0.0, 0.0))
    with pytest.raises(RuntimeError, match='begin one'):
        drive.summary()
