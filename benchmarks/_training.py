"""Train in one process on one processor core, ours and the peers, with the same clock."""
from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from av_td3_ros.driving.command.pursuit import PursuitDriver, PursuitSettings
from av_td3_ros.driving.perception.mask import NO_MASK, VECTOR, hide
from av_td3_ros.driving.perception.obstacles import Ahead
from av_td3_ros.driving.perception.state import SPEED_SCALE
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.evaluation import Actions, Driver, Frames, States
from av_td3_ros.simulator.learned_drivers import ActorDriver
from av_td3_ros.td3 import StepRecord
from av_td3_ros.td3.checkpoint import load
from av_td3_ros.td3.exploration import Exploration, ExplorationSettings
from av_td3_ros.td3.learner import Learner, LearnerSettings

VEHICLE = 'ego_vehicle'
DEMONSTRATIONS = 1_000_000  # episodes that no training drives


class Algorithm(Protocol):
    """What the benchmark trains: it goes on for a while and shows what it has learned."""

    @property
    def transitions(self) -> int:
        """Return how many transitions were collected."""

    @property
    def updates(self) -> int:
        """Return how many updates were made."""

    def advance(self, seconds: float) -> None:
        """Learn on for `seconds` of processor time."""

    def driver(self, updates: int | None = None) -> Driver:
        """Return the policy of now or of an earlier save, to drive without exploring."""

    def save(self) -> None:
        """Keep the policy, and where that is possible what is needed to go on later."""


class Ours:
    """The learner and the drive of the nodes, in turns in one thread instead of side by side."""

    def __init__(self, drive: DriveSettings, learner: LearnerSettings,
                 exploration: ExplorationSettings, demonstrated: int = 0) -> None:
        """Go on from `learner.resume` where it is given; let pursuit demonstrate some steps."""
        seed = learner.seed
        self.learner = Learner(learner)
        self._checkpoints = Path(learner.run, 'checkpoints')
        self._drive = Drive(dataclasses.replace(drive, episodes=dataclasses.replace(
            drive.episodes, seed=seed)), seed)
        self._exploration = Exploration(exploration, seed + self.learner.episodes)
        self._session = str(self.transitions)  # the episode that was cut off begins anew
        self._driving = self._steps()
        for record in itertools.islice(demonstration(self._drive, seed), demonstrated):
            self.learner.take_demonstration(record)

    @property
    def transitions(self) -> int:
        """Return how many transitions were collected."""
        return self.learner.limiter.transitions

    @property
    def updates(self) -> int:
        """Return how many updates were made."""
        return self.learner.agent.updates

    def driver(self, updates: int | None = None) -> Driver:
        """Return the policy of now or of an earlier save, to drive without exploring."""
        if updates is None:
            return ActorDriver(self.learner.agent.actor)
        return ActorDriver(load(self._checkpoints / f'{updates:08d}').actor())

    def save(self) -> None:
        """Write a checkpoint; what is driven then is the next episode."""
        self.learner.save()

    def advance(self, seconds: float) -> None:
        """Drive and learn, as the limiter has it, for `seconds` of processor time."""
        until = time.process_time() + seconds
        while time.process_time() < until:
            self.learner.take(next(self._driving))
            while self.learner.limiter.may_update():
                self.learner.update()
                self.learner.recover()

    def _steps(self) -> Iterator[StepRecord]:
        """Drive episode after episode with noise, and yield each step once it is complete."""
        drive, exploration = self._drive, self._exploration
        while True:
            episode = self.learner.episodes
            step = drive.begin(episode)
            exploration.restart()
            for number in range(drive.settings.driving.termination.max_steps + 1):
                record = StepRecord(VEHICLE, episode, number, drive.frames[-1], step.state, None,
                                    None, step.is_first, step.is_last, step.is_terminal,
                                    session=self._session)
                if step.is_last:
                    self.learner.finish_episode(drive.summary().total_reward)
                    yield record
                    break
                step = drive.act(self._decide(step.state))
                yield dataclasses.replace(record, action=drive.applied, reward=step.reward)

    def _decide(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        exploration = self._exploration
        done = self.transitions
        if done < exploration.settings.warmup_steps:
            return exploration.act(done, None)[0]
        mask = VECTOR if exploration.hides_vector else NO_MASK
        greedy = self.learner.agent.actor.act(*hide(mask, self._drive.frames, state))
        return exploration.act(done, greedy)[0]


def demonstration(drive: Drive, seed: int) -> Iterator[StepRecord]:
    """Yield the steps of episodes of pure pursuit that keeps its distance, with smooth noise."""
    random = np.random.default_rng(seed)
    pursuit = PursuitDriver(PursuitSettings(target_speed=drive.settings.driving.target_speed))
    noise: NDArray[np.float64] = np.zeros(2)
    for episode in itertools.count():
        step = drive.begin(DEMONSTRATIONS + episode)
        pursuit.reset()
        for number in itertools.count():
            record = StepRecord('pursuit', episode, number, drive.frames[-1], step.state, None,
                                None, step.is_first, step.is_last, step.is_terminal)
            if step.is_last:
                yield record
                break
            noise = 0.9 * noise + 0.3 * math.sqrt(1 - 0.9 ** 2) * random.standard_normal(2)
            steer, acceleration = np.clip(pursuit.act(step.state) + noise, -1.0, 1.0)
            speed = float(step.state[0]) * SPEED_SCALE
            step = drive.act((steer, min(acceleration, keep_distance(drive.ahead, speed))))
            yield dataclasses.replace(record, action=drive.applied, reward=step.reward)


def keep_distance(ahead: Ahead, speed: float) -> float:
    """Return the acceleration, -1 to 1, that keeps a time gap of 1 s and 3 m behind a vehicle."""
    if ahead.gap is None:
        return 1.0
    wanted = 0.15 * (ahead.gap - 3.0 - speed) - 0.25 * max(ahead.closing_speed or 0.0, 0.0)
    return min(max(wanted, -1.0), 1.0)


class StableBaselines3:
    """Stable-Baselines3's TD3 on the Gymnasium environment, with settings of its own."""

    def __init__(self, drive: DriveSettings, seed: int, settings: dict[str, Any]) -> None:
        from stable_baselines3 import TD3
        from stable_baselines3.common.noise import NormalActionNoise

        from av_td3_ros.simulator.gymnasium_env import AvTd3Env

        given = dict(settings)
        noise = NormalActionNoise(np.zeros(2), np.full(2, given.pop('noise')))
        drive = dataclasses.replace(drive, episodes=dataclasses.replace(drive.episodes, seed=seed))
        self._model: Any = TD3('MultiInputPolicy', AvTd3Env(drive), action_noise=noise,
                               seed=seed, device='cpu', **given)
        self._kept: dict[int, Driver] = {}

    @property
    def transitions(self) -> int:
        """Return how many transitions were collected."""
        return int(self._model.num_timesteps)

    @property
    def updates(self) -> int:
        """Return how many updates were made."""
        return int(self._model._n_updates)

    def driver(self, updates: int | None = None) -> Driver:
        """Return the policy of now or of an earlier save, to drive without exploring."""
        return _Sb3Driver(self._model.actor) if updates is None else self._kept[updates]

    def save(self) -> None:
        """Keep the policy in memory; to go on later its replay would have to be pickled."""
        self._kept[self.updates] = copy.deepcopy(self.driver())

    def advance(self, seconds: float) -> None:
        """Learn on for `seconds` of processor time; a rollout that is begun is finished."""
        until = time.process_time() + seconds
        self._model.learn(10**9, callback=lambda *_: time.process_time() < until,
                          reset_num_timesteps=not self.transitions)


def stable_baselines3(settings: dict[str, Any]
                      ) -> Callable[[DriveSettings, int, Path], StableBaselines3]:
    """Return what makes its TD3 with these settings, and `noise` for the exploration's."""
    return lambda drive, seed, folder: StableBaselines3(drive, seed, settings)


class _Sb3Driver:
    """Drive by one of its actors, many vehicles at a time."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def restart(self, vehicle: int) -> None:
        """Forget nothing: there is nothing to remember."""

    @torch.inference_mode()
    def act(self, frames: Frames, states: States, vehicles: Sequence[int]) -> Actions:
        """Return the actions (B, 2) for frames (B, F, H, W) and states (B, S)."""
        seen = {'image': torch.from_numpy(frames), 'state': torch.from_numpy(states)}
        return self._actor(seen).numpy()  # type: ignore[no-any-return]


def checkpoint_of(run: Path) -> str:
    """Return the checkpoint folder to go on from, '' when there is none."""
    found = run / 'checkpoints'
    return str(found) if (found / 'latest').exists() else ''
