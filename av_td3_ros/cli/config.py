"""The configuration of a session: every node's settings, by node, checked before anything runs."""
from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from av_td3_ros.driving.camera.check import compare_cameras, recorded_camera
from av_td3_ros.driving.command.control_settings import ControlSettings
from av_td3_ros.nodes.environment_node import EnvironmentSettings
from av_td3_ros.nodes.inspection_node import InspectionSettings
from av_td3_ros.nodes.mirror_node import MirrorSettings
from av_td3_ros.nodes.policy_node import PolicySettings
from av_td3_ros.nodes.recorder_node import RecorderSettings
from av_td3_ros.nodes.simulator_node import SimulatorSettings
from av_td3_ros.nodes.stand_in_vehicle_node import StandInVehicleSettings
from av_td3_ros.paths import config_directory, map_file
from av_td3_ros.reading import read_yaml
from av_td3_ros.ros.graph import profile_parameters
from av_td3_ros.ros.parameters import NONE, from_ros, to_ros
from av_td3_ros.settings import described_fields, from_mapping
from av_td3_ros.td3 import PRESETS, architecture_hash
from av_td3_ros.td3.learner import LearnerSettings

SETTINGS: dict[str, type[Any]] = {
    'simulator_node': SimulatorSettings,
    'environment_node': EnvironmentSettings,
    'policy_node': PolicySettings,
    'control_node': ControlSettings,
    'recorder_node': RecorderSettings,
    'learner_node': LearnerSettings,
    'mirror_node': MirrorSettings,
    'stand_in_vehicle_node': StandInVehicleSettings,
    'inspection_node': InspectionSettings,
}
Values = dict[str, Any]


class Config:
    """Hold the settings of all nodes as {node: {dotted key: value}}, complete and checked."""

    def __init__(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Check `values` and fill in the defaults; raise ValueError naming node and key."""
        unknown = sorted(set(values) - set(SETTINGS))
        if unknown:
            near = difflib.get_close_matches(unknown[0], SETTINGS, n=1, cutoff=0.8)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise ValueError(f'config: unknown node {unknown[0]!r}, known: '
                             f'{", ".join(SETTINGS)}{hint}')
        self.settings = {
            node: from_mapping(kind, from_ros(dict(values.get(node, {}))), node)
            for node, kind in SETTINGS.items()}
        self._check_together()

    @classmethod
    def shipped(cls) -> Config:
        """Return the configuration of the files in config/."""
        return cls({node: read_node_file(config_directory() / f'{node}.yaml')
                    for node in SETTINGS})

    @classmethod
    def read(cls, path: Path, base: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
        """
        Return the configuration of a parameter file, such as a run leaves.

        What it leaves out is as in `base`, or else the default. Raises ValueError naming the file.
        """
        values = merged(base or {}, given_values(path))
        try:
            return cls(values)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error

    def values(self) -> dict[str, Values]:
        """Return {node: {dotted key: value}} as parameter files hold them."""
        return {node: to_ros(settings) for node, settings in self.settings.items()}

    def with_values(self, changes: Mapping[str, Mapping[str, Any]]) -> Config:
        """Return a configuration with some settings changed; raise ValueError as the first did."""
        return Config(merged(self.values(), changes))

    def for_simulator(self, vehicle: str, *, map_name: str | None, seed: int | None) -> Config:
        """Return the configuration for a vehicle; what is None stays. Raises as the first did."""
        if map_name is not None:
            map_file(map_name)
        return self.with_values({'simulator_node': _given({
            'vehicle': vehicle, 'world.map': map_name, 'seed': seed})})

    def for_training(self, profile: str, vehicle: str, *, map_name: str | None = None,
                     seed: int | None = None, steps: int | None = None,
                     ranks: int | None = None) -> Config:
        """Return the configuration of a training session; what is None stays as it is."""
        simulated = self.for_simulator(vehicle, map_name=map_name, seed=seed)
        return simulated.with_values(profile_parameters(profile)).with_values({
            'environment_node': _given({'vehicle': vehicle, 'wait_for': 3,
                                        'episodes.seed': seed}),
            'policy_node': _given({'training': True, 'seed': seed}),
            'recorder_node': {'wait_for': 1},
            'learner_node': _given({'seed': seed, 'total_transitions': steps, 'ranks': ranks})})

    def for_driving(self, profile: str, vehicle: str, *, map_name: str | None = None,
                    seed: int | None = None, recording: bool = False) -> Config:
        """Return the configuration of a session that learns nothing; what is None stays."""
        return self.for_training(
            profile, vehicle, map_name=map_name, seed=seed).with_values({
                'environment_node': {'wait_for': 3 if recording else 2},
                'policy_node': {'training': False},
                'recorder_node': {'wait_for': 0}})

    def with_preset(self, name: str) -> Config:
        """Return the configuration with a named recipe for learning; frames and state stay."""
        algorithm, network = PRESETS[name]
        shape = {f'network.{key}': value for key, value in to_ros(network).items()
                 if key not in ('frames', 'frame_size', 'state_size')}
        return self.with_values({
            'policy_node': {**shape, 'exploration.vector_dropout': algorithm.vector_dropout},
            'learner_node': {**shape, **{f'td3.{key}': value
                                         for key, value in to_ros(algorithm).items()}}})

    def with_simulated_camera(self) -> Config:
        """Return the configuration for a driver that no other camera than the session's taught."""
        camera, view = recorded_camera(self.values()), self.settings['environment_node'].camera
        if camera is None or view.calibrate or not compare_cameras(camera, view.training):
            return self
        return self.with_values({'environment_node': {
            f'camera.training.{key}': value for key, value in to_ros(camera).items()}})

    def writing_to(self, run: Path) -> Config:
        """Return the configuration with bag, checkpoints and metrics in a run folder."""
        return self.with_values({'learner_node': {'run': str(run)},
                                 'recorder_node': {'bag': str(run / 'bag')}})

    def _check_together(self) -> None:
        """Raise ValueError where what one node sends is not what another one takes."""
        environment = self.settings['environment_node']
        sent = {'frames': environment.frame.count, 'frame_size': environment.frame.size,
                'state_size': environment.driving.state_size}
        for node in ('policy_node', 'learner_node'):
            network = self.settings[node].network
            for key, value in sent.items():
                taken = getattr(network, key)
                if taken not in (0, value):
                    raise ValueError(
                        f'{node}: network.{key} = {taken}, but environment_node sends {value}: '
                        f'set network.{key}={value}, or change frame.* or driving.waypoints')
        shapes = [architecture_hash(self.settings[node].network)
                  for node in ('policy_node', 'learner_node')]
        if shapes[0] != shapes[1]:
            raise ValueError('policy_node and learner_node have different network.* settings: '
                             'give them without a node, as in network.features=128')

    def with_options(self, options: Iterable[str]) -> Config:
        """Return a configuration with options applied; raises as `changes_of` and the first."""
        return self.with_values(changes_of(options))

    def write(self, path: Path, header: str) -> None:
        """Write one ROS parameter file for all nodes."""
        document = {f'/**/{node}': {'ros__parameters': _nested(values)}
                    for node, values in self.values().items()}
        comment = ''.join(f'# {line}\n' for line in header.splitlines())
        path.write_text(comment + yaml.safe_dump(document, sort_keys=False), encoding='utf-8')


def merged(*parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Values]:
    """Return the values of all parts by node; what comes later counts more."""
    values: dict[str, Values] = {}
    for part in parts:
        for node, changed in part.items():
            values.setdefault(node, {}).update(changed)
    return values


_SHAPE = 'it needs NODE: {ros__parameters: {KEY: VALUE}}'


def _kind(value: Any) -> str:
    """Return what a value of YAML is, in YAML's words."""
    kinds = {dict: 'a mapping', list: 'a list', str: 'a text', type(None): 'nothing'}
    return kinds.get(type(value), 'a single value')


def given_values(path: Path) -> dict[str, Values]:
    """Return what a parameter file sets, by node; raise ValueError when it is no such file."""
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ValueError(f'the parameter file {path} cannot be read: {error.strerror}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} is no parameter file: {_SHAPE}, found {_kind(content)}')
    found: dict[str, Values] = {}
    for key, section in content.items():
        parameters = section.get('ros__parameters') if isinstance(section, dict) else None
        if not isinstance(key, str) or not isinstance(parameters, dict):
            raise ValueError(f'{path} is no parameter file: {_SHAPE}, but {key!r} holds '
                             f'{_kind(section)} without them')
        try:
            found[key.rpartition('/')[2]] = dotted(parameters)
        except TypeError as error:
            raise ValueError(f'{path}, {key}: {error}') from error
    return found


def changes_of(options: Iterable[str]) -> dict[str, Values]:
    """
    Return what `NODE.KEY=VALUE` options change, as {node: {dotted key: value}}.

    NODE may be left out where the key tells: `network.features=256` then holds for every node
    that has that key. Values are YAML. Raises ValueError naming the option.
    """
    changes: dict[str, Values] = {}
    for option in options:
        key, equals, text = option.partition('=')
        if not equals:
            raise ValueError(f'--config {option}: write KEY=VALUE')
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f'--config {option}: {text!r} is no YAML value') from error
        for node, name in _nodes_with(key):
            changes.setdefault(node, {})[name] = NONE if value is None else value
    return changes


def read_node_file(path: Path) -> Values:
    """Return the parameters of one node's YAML file as {dotted key: value}."""
    found = given_values(path)
    if len(found) != 1:
        raise ValueError(f'{path} is no parameter file of one node: it names {len(found)}')
    return next(iter(found.values()))


def described_file(node: str) -> str:
    """Return the text of config/NODE.yaml: every key with its default, meaning and range."""
    lines = ['# Every parameter of this node, at its default; live: `ros2 param set` changes it.',
             '/**:', '  ros__parameters:']
    defaults = to_ros(SETTINGS[node]())
    opened: list[str] = []
    for key, _, about in described_fields(SETTINGS[node]):
        *groups, name = key.split('.')
        while opened != groups[:len(opened)]:
            opened.pop()
        for part in groups[len(opened):]:
            lines.append(f'{"  " * (len(opened) + 2)}{part}:')
            opened.append(part)
        indent = '  ' * (len(groups) + 2)
        meaning = about.description + _allowed(about.minimum, about.maximum, about.choices)
        meaning += '; live' if about.live else ''
        lines += [f'{indent}# {line}' for line in textwrap.wrap(meaning, 96 - len(indent))]
        value = yaml.safe_dump(defaults[key], default_flow_style=True).split('\n...')[0].strip()
        lines.append(f'{indent}{name}: {value}')
    return '\n'.join(lines) + '\n'


def _allowed(minimum: float | None, maximum: float | None, choices: tuple[Any, ...] | None) -> str:
    if choices is not None:
        return f' ({" | ".join(map(str, choices))})'
    if minimum is None and maximum is None:
        return ''
    if maximum is None:
        return f' (at least {minimum:g})'
    return f' (at most {maximum:g})' if minimum is None else f' ({minimum:g} to {maximum:g})'


def _nodes_with(key: str) -> list[tuple[str, str]]:
    node, _, name = key.partition('.')
    known = {one: [name for name, _, _ in described_fields(kind)]
             for one, kind in SETTINGS.items()}
    if node in known:
        return [(node, name)]  # from_mapping says what is wrong with the name
    found = [(one, key) for one, names in known.items() if key in names]
    if not found:
        every = [name for one, names in known.items() for name in (*names, *(
            f'{one}.{name}' for name in names))]
        near = difflib.get_close_matches(key, every, n=1, cutoff=0.5)
        raise ValueError(f'--config {key}: unknown key'
                         + (f'; did you mean {near[0]!r}?' if near else ''))
    return found


def _given(values: Mapping[str, Any]) -> Values:
    return {key: value for key, value in values.items() if value is not None}


def dotted(nested: Mapping[str, Any], prefix: str = '') -> Values:
    """Return nested settings, as a parameter file holds them, as {dotted key: value}."""
    flat: Values = {}
    for key, value in nested.items():
        if not isinstance(key, str):
            raise TypeError(f'{prefix}{key!r} is no name')
        if isinstance(value, dict):
            flat.update(dotted(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def _nested(flat: Mapping[str, Any]) -> Values:
    nested: Values = {}
    for key, value in flat.items():
        *groups, name = key.split('.')
        place = nested
        for part in groups:
            place = place.setdefault(part, {})
        place[name] = value
    return nested


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('node', nargs='?', choices=list(SETTINGS), metavar='NODE',
                        help='only those of this node')


def run(options: argparse.Namespace) -> int:
    """Print every setting with its meaning; return the exit status."""
    for node in [options.node] if options.node else SETTINGS:
        print(f'# {node}\n{described_file(node)}')
    return 0


def write_shipped() -> list[Path]:
    """Write config/NODE.yaml of every node anew from the settings; return the files."""
    written = []
    for node in SETTINGS:
        path = config_directory() / f'{node}.yaml'
        path.write_text(described_file(node), encoding='utf-8')
        written.append(path)
    return written


if __name__ == '__main__':
    for file in write_shipped():
        print(file)
