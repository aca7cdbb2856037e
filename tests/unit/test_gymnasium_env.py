"""The Gymnasium environment: its contract, its spaces, and that it is the same drive."""
from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.driving.episode.planner import EpisodePlanSettings
from av_td3_ros.driving.episode.termination import TerminationSettings
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.gymnasium_env import AvTd3Env
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import WorldSettings

SETTINGS = DriveSettings(
    world=WorldSettings(map='loop', camera=CameraSettings(width=96, height=72)),
    episodes=EpisodePlanSettings(min_length=40.0, max_length=60.0))


@pytest.mark.filterwarnings('ignore:.*Box observation space:UserWarning')
def test_it_keeps_the_contract_of_gymnasium(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gymnasium.make('av_td3_ros.simulator.gymnasium_env:AvTd3-v0', settings=SETTINGS,
                          render_mode='rgb_array')
    monkeypatch.setenv('SDL_VIDEODRIVER', 'dummy')  # it makes one in each render mode
    check_env(made.unwrapped)
    made.reset(seed=1)
    assert made.render().shape == (72, 96, 3)


@pytest.mark.filterwarnings('ignore:.*Box observation space:UserWarning')
def test_a_window_shows_each_step_at_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip('pygame')
    monkeypatch.setenv('SDL_VIDEODRIVER', 'dummy')
    made = gymnasium.make('av_td3_ros.simulator.gymnasium_env:AvTd3-v0', settings=SETTINGS,
                          render_mode='human')
    still = gymnasium.make('AvTd3-v0', settings=SETTINGS, render_mode='rgb_array')
    assert made.metadata['render_fps'] == 20
    shown = []
    for env in (made, still):
        env.reset(seed=1)
        for _ in range(4):
            env.step(np.zeros(2, np.float32))
    began = time.monotonic()
    for _ in range(4):
        made.step(np.zeros(2, np.float32))
        still.step(np.zeros(2, np.float32))
        shown.append(pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1))
        assert made.render() is None
        assert (shown[-1][::2, ::2] == still.render()).all()
    assert time.monotonic() - began > 3 * 0.045
    assert shown[0].shape == (144, 192, 3)
    assert (shown[0] != shown[-1]).any()
    made.close()
    made.close()
    assert not pygame.display.get_init()


def test_looking_on_changes_nothing() -> None:
    env, unseen = AvTd3Env(SETTINGS, render_mode='rgb_array'), AvTd3Env(SETTINGS)
    assert env.render() is None  # nothing to see before the first reset
    for one in (env, unseen):
        one.reset(seed=1)
    for _ in range(3):
        first, again = env.render(), env.render()
        assert (first == again).all()
        seen, alone = (one.step(np.zeros(2, np.float32))[0] for one in (env, unseen))
        assert (seen['image'] == alone['image']).all()


def test_without_screen_or_pygame_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('pygame')
    monkeypatch.setenv('SDL_VIDEODRIVER', 'no such driver')
    with pytest.raises(RuntimeError, match='render to rgb_array'):
        AvTd3Env(SETTINGS, render_mode='human').reset(seed=1)
    # Left alone, SDL would draw where nobody sees it.
    for name in ('SDL_VIDEODRIVER', 'DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match='no screen'):
        AvTd3Env(SETTINGS, render_mode='human').reset(seed=1)
    monkeypatch.setitem(sys.modules, 'pygame', None)
    with pytest.raises(gymnasium.error.DependencyNotInstalled, match='pip install pygame=='):
        AvTd3Env(SETTINGS, render_mode='human')


def test_it_is_light() -> None:
    heavy = ('torch', 'rclpy', 'pygame', 'matplotlib')
    code = ('import sys, av_td3_ros.simulator.gymnasium_env; '
            f'print([one for one in {heavy} if one in sys.modules])')
    told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == '[]'


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
