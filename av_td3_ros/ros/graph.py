"""Which nodes make a session and how they are wired: the one place that knows."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from av_td3_ros.paths import config_directory

VEHICLE_SIDE = ('environment_node', 'policy_node', 'control_node')
LEARNING_SIDE = ('recorder_node', 'learner_node')


@dataclasses.dataclass(frozen=True)
class NodeSpec:
    """Hold what starts one node: its name (also that of its module), namespace and remaps."""

    name: str
    namespace: str
    remaps: Mapping[str, str]

    @property
    def module(self) -> str:
        """Return the module that runs the node."""
        return f'av_td3_ros.nodes.{self.name}'

    @property
    def logger(self) -> str:
        """Return the name of the node's logger."""
        return f'{self.namespace}/{self.name}'.replace('/', '.').strip('.')

    def topic(self, role: str) -> str:
        """Return the full name of the topic that a role such as `~/input/image` is bound to."""
        bound = self.remaps[role]
        return bound if bound.startswith('/') else f'{self.namespace.rstrip("/")}/{bound}'

    def arguments(self, parameter_file: Path) -> list[str]:
        """Return the node's `--ros-args`."""
        arguments = ['--ros-args', '-r', f'__ns:={self.namespace}',
                     '--params-file', str(parameter_file)]
        for role, topic in self.remaps.items():
            arguments += ['-r', f'{role}:={topic}']
        return arguments


def profiles() -> list[str]:
    """Return the names of the shipped profiles."""
    return sorted(path.stem for path in (config_directory() / 'profiles').glob('*.yaml'))


def session_nodes(profile: str, vehicle: str, learning: bool) -> list[NodeSpec]:
    """
    Return the nodes of a session in the order of their start.

    `profile` names a file of config/profiles; without `learning` the recorder and the learner are
    left out. Raises ValueError for an unknown profile or node.
    """
    if profile not in profiles():
        raise ValueError(f'profile {profile!r} is not one of {", ".join(profiles())}')
    graph = _read(config_directory() / 'graph.yaml')
    bound, extra = _profile(profile)
    names = [*(LEARNING_SIDE[::-1] if learning else ()), *VEHICLE_SIDE, *extra]
    unknown = set(bound) - set(graph) - set(extra)
    if unknown:
        raise ValueError(f'profile {profile!r} binds unknown nodes: {", ".join(sorted(unknown))}')
    return [_spec(name, vehicle, [graph.get(name, {}), bound.get(name, {})]) for name in names]


def profile_parameters(profile: str) -> dict[str, dict[str, Any]]:
    """Return {node: {dotted key: value}} of what a profile sets beside the topics."""
    bound, _ = _profile(profile)
    return {node: part['parameters'] for node, part in bound.items() if 'parameters' in part}


def _profile(name: str) -> tuple[dict[str, Any], list[str]]:
    """Return how a profile binds each node and which nodes it adds, those of its base included."""
    bound = _read(config_directory() / 'profiles' / f'{name}.yaml')
    extra = bound.pop('nodes', [])
    base, inherited = _profile(bound.pop('base')) if 'base' in bound else ({}, [])
    for node, part in bound.items():
        base[node] = {**base.get(node, {}), **part}
    return base, [*inherited, *extra]


def _spec(name: str, vehicle: str, parts: Iterable[Mapping[str, Any]]) -> NodeSpec:
    namespace = '/'
    remaps: dict[str, str] = {}
    for part in parts:
        namespace = part.get('namespace', namespace)
        remaps.update(part.get('remap', {}))
    return NodeSpec(name, namespace.format(vehicle=vehicle),
                    {role: topic.format(vehicle=vehicle) for role, topic in remaps.items()})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is not YAML: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds no mapping of nodes')
    return content
