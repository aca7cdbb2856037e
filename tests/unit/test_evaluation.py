"""Evaluating drivers in one process: their episodes, their records, many at a time."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.driving.episode.planner import EpisodePlanSettings
from av_td3_ros.driving.perception.mask import VECTOR
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.evaluation import StateDriver, evaluate
from av_td3_ros.simulator.traffic import TrafficSettings
from av_td3_ros.simulator.view.appearance import AppearanceSettings
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import WorldSettings

SETTINGS = DriveSettings(
    world=WorldSettings(map='loop', camera=CameraSettings(width=96, height=72),
                        traffic=TrafficSettings(count=6),
                        appearance=AppearanceSettings(world='cluttered')),
    episodes=EpisodePlanSettings(min_length=40.0, max_length=60.0, max_offset=0.0,
                                 max_yaw_offset=0.0))


class Reflexes:
    """Drive by what is seen, so that any difference of the frames shows in the path."""

    def __init__(self) -> None:
        self.states: list[np.ndarray[Any, Any]] = []

    def restart(self, vehicle: int) -> None:
        """Remember nothing."""

    def act(self, frames: np.ndarray[Any, Any], states: np.ndarray[Any, Any],
            vehicles: Sequence[int]) -> np.ndarray[Any, Any]:
        """Steer to the brighter half of the image."""
        self.states += list(states)
        left, right = (half.mean((1, 2, 3)) for half in np.split(frames / 255.0, 2, axis=3))
        return np.stack([left - right, np.full(len(frames), 0.4)], axis=1)


def test_pursuit_drives_its_episodes_and_leaves_their_paths() -> None:
    records = evaluate(SETTINGS, StateDriver(PursuitDriver), 2, seed=3)
    assert [one.index for one in records] == [0, 1]
    for one in records:
        assert one.metrics.success and one.metrics.driving_score == 1.0
        assert len(one.path) == one.metrics.steps + 1
        assert one.path[0][2] == pytest.approx(0.0, abs=0.1) and one.path[-1][2] > 5.0
    plain = records[0].to_dict()
    assert plain['episode'] == 0 and plain['result'] == 'route_completed'
    assert plain['path'][-1] == [round(value, 2) for value in records[0].path[-1]]
    assert len(plain['path']) == pytest.approx(len(records[0].path) / 2, abs=1)


@pytest.mark.parametrize('parallel', [2, 3, 9])
def test_many_at_a_time_drive_the_same_episodes(parallel: int) -> None:
    alone = evaluate(SETTINGS, Reflexes(), 4, seed=5)
    assert evaluate(SETTINGS, Reflexes(), 4, seed=5, parallel=parallel) == alone
    assert any(one.infractions for one in alone)


def test_an_episode_is_the_same_whatever_was_driven_before() -> None:
    alone = evaluate(SETTINGS, Reflexes(), [3], seed=5)
    assert evaluate(SETTINGS, Reflexes(), [1, 3], seed=5)[1:] == alone
    assert evaluate(SETTINGS, Reflexes(), [3], seed=6) != alone


def test_a_crash_is_an_infraction_at_its_place() -> None:
    class Swerve(Reflexes):
        def act(self, frames: Any, states: Any, vehicles: Any) -> Any:
            return np.tile((0.6, 1.0), (len(frames), 1))

    settings = dataclasses.replace(SETTINGS, driving=dataclasses.replace(
        SETTINGS.driving, termination=dataclasses.replace(
            SETTINGS.driving.termination, max_lateral=30.0)))
    (record,) = evaluate(settings, Swerve(), 1, seed=1)
    kinds = [one.kind for one in record.infractions]
    assert 'lane_invasion' in kinds and 'off_road' in kinds
    assert kinds.count('lane_invasion') == record.metrics.lane_invasions
    off_road = record.infractions[kinds.index('off_road')]
    assert (off_road.x, off_road.y) in [point[:2] for point in record.path]
    assert 0.0 < off_road.time <= record.metrics.duration + 1e-9
    assert record.metrics.driving_score < record.metrics.route_completion


def test_a_mask_hides_and_somebody_may_watch() -> None:
    driver, watched = Reflexes(), []

    def watch(index: int, drive: Drive) -> None:
        assert drive.snapshot is not None and drive.snapshot.image is not None
        watched.append(index)

    (record,) = evaluate(SETTINGS, driver, 1, seed=2, mask=VECTOR, watch=watch)
    assert watched == [0] * (record.metrics.steps + 1)
    assert not np.any([state[1:] for state in driver.states])
    assert np.any([state[0] for state in driver.states])


@pytest.mark.parametrize('episodes', [0, []])
def test_without_episodes_there_is_nothing_to_evaluate(episodes: Any) -> None:
    with pytest.raises(ValueError, match='1 or more'):
        evaluate(SETTINGS, Reflexes(), episodes, seed=0)
