"""The Gymnasium environment: its contract, its spaces, and that it is the same drive."""
from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from av_td3_ros.driving.episode import DrivingSettings
from av_td3_ros.driving.episode_planner import EpisodePlanSettings
from av_td3_ros.driving.pursuit import PursuitDriver
from av_td3_ros.driving.termination import TerminationSettings
from av_td3_ros.simulator.camera import CameraSettings
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.gymnasium_env import AvTd3Env
from av_td3_ros.simulator.world import WorldSettings

SETTINGS = DriveSettings(
    world=WorldSettings(map='loop', camera=CameraSettings(width=96, height=72)),
    episodes=EpisodePlanSettings(min_length=40.0, max_length=60.0))


@pytest.mark.filterwarnings('ignore:.*Box observation space:UserWarning')
def test_it_keeps_the_contract_of_gymnasium() -> None:
    made = gymnasium.make('av_td3_ros.simulator.gymnasium_env:AvTd3-v0', settings=SETTINGS,
                          render_mode='rgb_array')
    check_env(made.unwrapped)
    made.reset(seed=1)
    assert made.render().shape == (72, 96, 3)


def test_it_is_the_same_drive_to_the_last_digit() -> None:
    env, driver = AvTd3Env(SETTINGS), PursuitDriver()
    observation, info = env.reset(seed=4)
    assert info == {'episode': 0}
    total, ended, truncated = 0.0, False, False
    while not (ended or truncated):
        observation, reward, ended, truncated, info = env.step(driver.act(observation['state']))
        total += reward
    drive = Drive(DriveSettings(SETTINGS.world, EpisodePlanSettings(
        seed=4, min_length=40.0, max_length=60.0)), seed=4)
    step = drive.begin(0)
    driver.reset()
    while not step.is_last:
        step = drive.act(driver.act(step.state))
    assert info['metrics'] == drive.summary().to_dict()
    assert total == pytest.approx(info['metrics']['return'])
    assert ended and not truncated and info['reason'] == 'route_completed'
    assert (observation['image'] == drive.frames).all()


def test_the_time_limit_truncates_and_leaving_the_road_terminates() -> None:
    short = dataclasses.replace(SETTINGS, driving=DrivingSettings(
        termination=TerminationSettings(max_steps=5)))
    for settings, reason in ((short, 'time_limit'), (SETTINGS, 'off_road')):
        env = AvTd3Env(settings)
        env.reset(seed=0)
        ended = truncated = False
        info: dict[str, Any] = {}
        while not (ended or truncated):
            _, _, ended, truncated, info = env.step(np.array((1.0, 1.0), np.float32))
        assert info['reason'] == reason
        assert (ended, truncated) == (reason == 'off_road', reason == 'time_limit')


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="render_mode = 'ascii'"):
        AvTd3Env(SETTINGS, render_mode='ascii')
    env = AvTd3Env(SETTINGS)
    with pytest.raises(RuntimeError, match='call reset'):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="'episod' is unknown"):
        env.reset(options={'episod': 3})
    assert env.reset(seed=1, options={'episode': 3})[1] == {'episode': 3}
    assert env.reset()[1] == {'episode': 4}
