"""What a launch file tells the nodes: its arguments, files and profile as one configuration."""
from __future__ import annotations

import dataclasses
import itertools
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from av_td3_ros.cli.config import Config, changes_of, given_values, merged
from av_td3_ros.cli.policies import (
    BASELINES,
    camera_warnings,
    check_fit,
    find_policy,
    trained_with,
)
from av_td3_ros.ros.graph import has_simulator, profile_parameters
from av_td3_ros.td3 import Policy, load_checkpoint, load_policy

TRAINING_MAP, DRIVING_MAP = 'train/roads', 'test/roads_a'
SEED_STEP = 100  # between the vehicles of a fleet; validation and evaluation are 5000 away
Values = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Told:
    """
    Hold the arguments of a launch file, '' for those that are not given.

    What counts more comes later: the shipped configuration, what a policy was trained with,
    `params_file`, the profile, the other arguments, `config`.
    """

    profile: str
    vehicle: str
    map_name: str = ''
    seed: str = ''
    params_file: str = ''
    config: str = ''

    def training(self, steps: str = '', resume: str = '', ranks: str = '', apart: bool = False
                 ) -> Config:
        """
        Return the configuration of a training session; raise ValueError for what cannot be.

        `apart` is a learner that no policy shares a computer with.
        """
        start: Path | None = None
        if resume:
            start = Path(resume).expanduser()
            start = start / 'checkpoints' if (start / 'checkpoints').is_dir() else start
            load_checkpoint(str(start))  # says why when it cannot be
        config = self._base(load_policy(start) if start else None).for_training(
            self.profile, self.vehicle, map_name=self._map(TRAINING_MAP),
            seed=number('seed', self.seed), steps=number('steps', steps),
            ranks=number('ranks', ranks))
        if start:  # what comes is no beginner's driving
            config = config.with_values({'learner_node': {'resume': str(start.resolve())},
                                         'policy_node': {'exploration.warmup_steps': 0}})
        if apart:  # nobody waits for it, and giving way to its own process costs it updates
            config = config.with_values({'learner_node': {'priority': 'normal'}})
        config = self._changed(config)
        return config if start or not has_simulator(self.profile) else (
            config.with_simulated_camera())

    def driving(self, policy: str, recording: bool) -> Config:
        """Return the configuration with which a policy drives; raise ValueError or OSError."""
        learned = None if policy in BASELINES else find_policy(policy)
        driver = {'driver': policy} if learned is None else {
            'driver': 'policy', 'weights': str(learned.path)}
        config = self._base(learned).for_driving(
            self.profile, self.vehicle, map_name=self._map(DRIVING_MAP),
            seed=number('seed', self.seed), recording=recording)
        config = self._changed(config.with_values({'policy_node': driver}))
        if learned is not None:
            check_fit(learned, config.settings['environment_node'])
        elif has_simulator(self.profile):
            config = config.with_simulated_camera()
        return config

    def camera_words(self, policy: str, config: Config) -> list[str]:
        """Say in which ways the session's camera is not that of the policy's training."""
        if policy in BASELINES:
            return []
        return [f"not the camera of {policy}'s training: {sentence}" for sentence in
                camera_warnings(find_policy(policy), config, has_simulator(self.profile))]

    def simulating(self, mode: str) -> Config:
        """Return the configuration of the simulator alone; raise ValueError or OSError."""
        return self._changed(self._base(None).for_simulator(
            self.vehicle, map_name=self._map(DRIVING_MAP), seed=number('seed', self.seed)
            ).with_values({'simulator_node': {'mode': mode}}))

    def viewing(self) -> Config:
        """
        Return the configuration of what looks at a session; raise ValueError or OSError.

        Of a simulated vehicle, its camera and its steering are those of the session.
        """
        config = self._base(None).with_values(profile_parameters(self.profile))
        if has_simulator(self.profile):
            world = config.settings['simulator_node'].world
            angle = (world.vehicle.max_steering_angle
                     * config.settings['control_node'].command.steering_range)
            camera = {name: getattr(world.camera, name) for name in ('width', 'height', *'xyz')}
            camera |= {name: round(math.radians(getattr(world.camera, name)), 5)
                       for name in ('fov', 'pitch', 'yaw')}
            config = config.with_values({'inspection_node': {
                **{f'view.{name}': value for name, value in camera.items()},
                'prediction.steering_angle': angle}})
        return self._changed(config)

    def overruled(self) -> list[str]:
        """Say what of `params_file` does not count, because the profile needs another value."""
        given = given_values(Path(self.params_file)) if self.params_file else {}
        changed = changes_of(self._options())
        return [
            f'{node}: {key} = {value} by profile {self.profile}, not {given[node][key]} as in '
            f'{self.params_file}; config:={node}.{key}=... overrules both'
            for node, values in profile_parameters(self.profile).items()
            for key, value in values.items()
            if given.get(node, {}).get(key, value) != value and key not in changed.get(node, {})]

    def _base(self, learned: Policy | None) -> Config:
        values = merged(Config.shipped().values(),
                        trained_with(learned) if learned is not None else {})
        return Config.read(Path(self.params_file), values) if self.params_file else Config(values)

    def _map(self, default: str) -> str | None:
        if not has_simulator(self.profile):
            if self.map_name:
                raise ValueError(f'map: profile {self.profile!r} has no simulator of its own: '
                                 f'load {self.map_name!r} there, and leave map out')
            return None
        given = given_values(Path(self.params_file)) if self.params_file else {}
        if not self.map_name and 'world.map' in given.get('simulator_node', {}):
            return None
        return self.map_name or default

    def _changed(self, config: Config) -> Config:
        try:
            return config.with_options(self._options())
        except ValueError as error:  # which names the option of av-td3
            raise ValueError(str(error).replace('--config ', 'config:=')) from error

    def _options(self) -> list[str]:
        return shlex.split(self.config)


def fleet_names(vehicle: str, count: str) -> list[str]:
    """Return the names of a fleet's vehicles; raise ValueError when there would be none."""
    vehicles = number('vehicles', count)
    if vehicles is None or vehicles < 1:
        raise ValueError(f'vehicles: {count!r}: give 1 or more')
    return [f'{vehicle}_{index + 1}' for index in range(vehicles)]


def fleet_configs(config: Config, vehicles: Sequence[str], folder: Path) -> dict[str, Config]:
    """Return each vehicle's configuration: its name, seeds and bag are its own."""
    values = config.values()
    looks, routes, exploration = (values[node][key] for node, key in (
        ('simulator_node', 'seed'), ('environment_node', 'episodes.seed'),
        ('policy_node', 'seed')))
    return {vehicle: config.with_values({
        'simulator_node': {'vehicle': vehicle, 'seed': looks + step},
        'environment_node': {'vehicle': vehicle, 'episodes.seed': routes + step},
        'policy_node': {'seed': exploration + step},
        'recorder_node': {'bag': str(folder / 'bags' / vehicle)}})
        for vehicle, step in zip(vehicles, itertools.count(0, SEED_STEP), strict=False)}


def number(key: str, text: str) -> int | None:
    """Return an argument as a number, None when it is empty. Raises ValueError."""
    try:
        return int(text) if text else None
    except ValueError:
        raise ValueError(f'{key}: {text!r} is no whole number') from None
