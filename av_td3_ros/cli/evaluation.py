"""What an evaluation tells its drivers, how one drives in this process, and what it finds."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.pictures.film import Viewer
from av_td3_ros.driving.command.pursuit import PursuitDriver
from av_td3_ros.driving.episode.metrics import summarise
from av_td3_ros.driving.episode.record import EpisodeRecord
from av_td3_ros.driving.perception.mask import NO_MASK
from av_td3_ros.nodes.policy_node import PolicySettings
from av_td3_ros.paths import write_whole
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.evaluation import Driver, StateDriver, evaluate
from av_td3_ros.simulator.learned_drivers import ActorDriver, RandomDriver
from av_td3_ros.td3 import Actor, load_policy

PATIENCE = 10.0  # s of wall time that an answer may take in a world that waits for it


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Name who is evaluated: policy, pursuit or random; `weights` is the policy's folder."""

    name: str
    driver: str = 'policy'
    weights: Path | None = None
    mask: str = NO_MASK


def configured(config: Config, candidate: Candidate, map_name: str, seed: int) -> Config:
    """Return what the nodes are told to evaluate one driver on one map."""
    if map_name:  # a world of our own, which waits: a slow machine must not change the numbers
        config = config.with_values({
            'simulator_node': {'world.map': map_name, 'command_timeout': 2.0 * PATIENCE},
            'environment_node': {'reset_timeout': PATIENCE},
            'control_node': {'action_timeout': PATIENCE},
            'policy_node': {'engine': 'torch'}})  # which --in-process computes with as well
    return config.with_values({
        'simulator_node': {'seed': seed},
        'environment_node': {
            'episodes.seed': seed, 'first_episode': 0, 'wait_for': 3,
            'episodes.max_offset': 0.0, 'episodes.max_yaw_offset': 0.0,
            'episodes.max_speed': 0.0},
        'policy_node': {'driver': candidate.driver, 'training': False, 'mask': candidate.mask,
                        'weights': str(candidate.weights or '')}})


def drive_settings(config: Config) -> DriveSettings:
    """Return the settings that a drive in this process shares with the nodes."""
    simulator, environment, control = (
        config.settings[node] for node in ('simulator_node', 'environment_node', 'control_node'))
    return DriveSettings(simulator.world, environment.episodes, environment.frame,
                         environment.driving, control.command, environment.obstacles)


def drive_in_process(config: Config, candidate: Candidate, map_name: str, episodes: int,
                     seed: int, film: Viewer | None = None, parallel: int = 1
                     ) -> list[EpisodeRecord]:
    """Let one driver drive every episode of a map in this process; raises as `evaluate` does."""
    config = configured(config, candidate, map_name, seed)
    told = config.settings['policy_node']
    torch.set_num_threads(told.threads)
    shown = title(candidate.name, map_name)

    def watch(index: int, drive: Drive) -> None:
        assert film is not None and drive.snapshot is not None and drive.snapshot.image is not None
        film.add(drive.snapshot.image, shown, index, drive.snapshot.ego.speed,
                 *drive.applied.tolist())

    return evaluate(drive_settings(config), _driver(told), episodes, seed, mask=told.mask,
                    parallel=parallel, watch=None if film is None else watch)


def result(policy: str, records: Mapping[str, Sequence[EpisodeRecord]], seed: int
           ) -> dict[str, Any]:
    """Return a driver's part of evaluation.json, for its records by map."""
    metrics = summarise([one.metrics for some in records.values() for one in some], seed)
    return {
        'policy': policy, 'maps': list(records),
        'episodes': [{**one.to_dict(), 'map': name} for name, some in records.items()
                     for one in some],
        'metrics': metrics,
        **{name: metrics[name]['mean'] for name in
           ('success', 'route_completion', 'mean_return')}}


def write_evaluation(path: Path, evaluation: Mapping[str, Any]) -> None:
    """Write evaluation.json whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(evaluation, indent=1) + '\n')


def _driver(told: PolicySettings) -> Driver:
    """Return who drives as the policy node would."""
    if told.driver == 'pursuit':
        return StateDriver(lambda: PursuitDriver(told.pursuit))
    if told.driver == 'random':
        return RandomDriver(told.exploration, told.seed)
    if told.weights:
        return ActorDriver(load_policy(told.weights).actor)
    torch.manual_seed(told.seed)
    return ActorDriver(Actor(told.network))


def title(name: str, map_name: str) -> str:
    """Return what a film of a drive is called."""
    return f'{name} on {map_name}' if map_name else name
