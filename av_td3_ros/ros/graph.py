"""Which nodes make a session and how they are wired: the one place that knows."""
from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from av_td3_ros.paths import config_directory
from av_td3_ros.reading import read_yaml

VEHICLE_SIDE = ('environment_node', 'policy_node', 'control_node')
COMPOSED = 'vehicle_side'  # the executable that runs these in one process
RECORDER, LEARNER, SIMULATOR = 'recorder_node', 'learner_node', 'simulator_node'
INSPECTION = 'inspection_node'
_LISTS = ('nodes', 'record')  # keys of a profile that are no node: nodes it adds, topics for a bag


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

    def log_arguments(self, level: str) -> list[str]:
        """Return the `--ros-args` that let the node's logger say what is of `level`."""
        logger = f'{self.namespace}/{self.name}'.replace('/', '.').strip('.')
        return ['--log-level', f'{logger}:={level}']

    def topic(self, role: str) -> str:
        """Return the full name of the topic that a role such as `~/input/image` is bound to."""
        bound = self.remaps[role]
        return bound if bound.startswith('/') else f'{self.namespace.rstrip("/")}/{bound}'

    def with_topic(self, role: str, topic: str) -> NodeSpec:
        """Return the node with this role, if it has it, bound to another topic."""
        return self if role not in self.remaps else dataclasses.replace(
            self, remaps={**self.remaps, role: topic})

    def without(self, role: str) -> NodeSpec:
        """Return the node with this role left unbound."""
        return dataclasses.replace(
            self, remaps={one: topic for one, topic in self.remaps.items() if one != role})

    def arguments(self, parameter_file: Path, parameters: Mapping[str, str] | None = None
                  ) -> list[str]:
        """Return the node's `--ros-args`; `parameters` count more than the file."""
        return ['--ros-args', '--params-file', str(parameter_file), *self._own(parameters)]

    def _own(self, parameters: Mapping[str, str] | None, to: str = '') -> list[str]:
        """Return what of its `--ros-args` is its own; `to` says so where there are others."""
        arguments = ['-r', f'{to}__ns:={self.namespace}']
        for key, value in (parameters or {}).items():
            arguments += ['-p', f'{to}{key}:={value}']
        for role, topic in self.remaps.items():
            arguments += ['-r', f'{to}{role}:={topic}']
        return arguments


@dataclasses.dataclass(frozen=True)
class ComposedSpec:
    """Hold what starts the nodes of one vehicle's side in one process."""

    nodes: tuple[NodeSpec, ...]
    name: str = COMPOSED

    @property
    def module(self) -> str:
        """Return the module that runs the nodes."""
        return f'av_td3_ros.nodes.{self.name}'

    @property
    def namespace(self) -> str:
        """Return the namespace of the nodes."""
        return self.nodes[0].namespace

    def log_arguments(self, level: str) -> list[str]:
        """Return the `--ros-args` that let their loggers say what is of `level`."""
        return [word for node in self.nodes for word in node.log_arguments(level)]

    def arguments(self, parameter_file: Path, parameters: Mapping[str, str] | None = None
                  ) -> list[str]:
        """Return their `--ros-args`; `parameters`, all for the policy node, count more."""
        return ['--ros-args', '--params-file', str(parameter_file), *(
            word for node in self.nodes for word in node._own(
                parameters if node.name == 'policy_node' else None, f'{node.name}:'))]


ProcessSpec = NodeSpec | ComposedSpec


def composed(nodes: Iterable[NodeSpec]) -> list[ProcessSpec]:
    """Return the same with the nodes of the vehicle's side in one process, the last one."""
    nodes = list(nodes)
    side = tuple(one for one in nodes if one.name in VEHICLE_SIDE)
    return [*(one for one in nodes if one not in side), ComposedSpec(side)]


def profiles() -> list[str]:
    """Return the names of the shipped profiles."""
    return sorted(path.stem for path in (config_directory() / 'profiles').glob('*.yaml'))


def session_nodes(profile: str, vehicle: str, learning: bool) -> list[NodeSpec]:
    """
    Return the nodes of a session with one vehicle in the order of their start.

    `profile` names a file of config/profiles; without `learning` the recorder and the learner are
    left out. Raises ValueError for an unknown profile or node.
    """
    return [*([learner_node(profile)] if learning else ()),
            *vehicle_nodes(profile, vehicle, recording=learning)]


def learner_node(profile: str) -> NodeSpec:
    """Return the learner, which is one for any number of vehicles; raises as `session_nodes`."""
    (spec,) = _specs(profile, [LEARNER], '', '')
    return spec


def vehicle_nodes(profile: str, vehicle: str, recording: bool, world: str = '') -> list[NodeSpec]:
    """
    Return the nodes that each vehicle has; raises as `session_nodes`.

    `world` is the namespace, such as /car_1, of what a world tells on one topic for all that is in
    it, such as its clock; '' is CARLA's own, for the only world there is.
    """
    _check_names(vehicle, world)
    bound = _profile(profile)
    names = [*([RECORDER] if recording else ()), *VEHICLE_SIDE, *bound.get('nodes', ())]
    return _specs(profile, names, vehicle, world)


def has_simulator(profile: str) -> bool:
    """Return whether a session of this profile brings its own simulator."""
    return SIMULATOR in _profile(profile).get('nodes', ())


def is_closed(profile: str) -> bool:
    """Return whether all that a session of this profile talks with is started with it."""
    return (has_simulator(profile)
            and profile_parameters(profile).get(SIMULATOR, {}).get('ego') != 'external')


def viewing_nodes(profile: str, vehicle: str, world: str = '') -> list[NodeSpec]:
    """Return the nodes that only look at a vehicle; `world` and errors as of `vehicle_nodes`."""
    _check_names(vehicle, world)
    return _specs(profile, [INSPECTION], vehicle, world)


def _check_names(vehicle: str, world: str) -> None:
    """Raise ValueError for a vehicle's name, or its world's namespace, that ROS does not take."""
    if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', vehicle):
        raise ValueError(f'vehicle {vehicle!r} is no ROS name: give letters, digits and _')
    if world and not re.fullmatch('(/[A-Za-z_][A-Za-z0-9_]*)+', world):
        raise ValueError(f'world {world!r} is no namespace: give / and a name, such as /car_1')


def profile_parameters(profile: str) -> dict[str, dict[str, Any]]:
    """Return {node: {dotted key: value}} of what a profile sets beside the topics."""
    return {node: part['parameters'] for node, part in _profile(profile).items()
            if node not in _LISTS and 'parameters' in part}


def sensor_topics(profile: str, vehicle: str, world: str = '') -> list[str]:
    """Return the topics of the vehicle, all that a rosbag needs for driving to be seen again."""
    bound = _profile(profile)
    topics = [topic for node in VEHICLE_SIDE
              for topic in bound.get(node, {}).get('remap', {}).values()]
    return sorted({topic.format(vehicle=vehicle, world=world)
                   for topic in (*topics, *bound.get('record', ())) if topic is not None})


def roles(profile: str) -> dict[str, dict[str, str | None]]:
    """Return {node: {role: topic}} of all nodes; None for roles that are left unbound."""
    return {node: dict(part['remap']) for node, part in _bound(profile).items()}


def _profile(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """
    Return how a profile binds each node, and its lists, those of its base included.

    Its own word counts where its base says something else; a role that is null is not bound.
    """
    if name not in profiles():
        raise ValueError(f'profile {name!r} is not one of {", ".join(profiles())}')
    path = config_directory() / 'profiles' / f'{name}.yaml'
    own, merged = _read(path), {}
    if 'base' in own:
        base = own.pop('base')
        _check(path, 'base', base, base in profiles() and base not in (*above, name),
               f'one of {", ".join(profiles())}, of which none is its own base')
        merged = _profile(base, (*above, name))
    for key, part in own.items():
        if key in _LISTS:
            merged[key] = [*merged.get(key, ()), *part]
            continue
        node = merged.setdefault(key, {})
        for kind, content in part.items():
            before = node.get(kind)
            node[kind] = {**before, **content} if isinstance(before, dict) else content
    return merged


def _bound(profile: str) -> dict[str, dict[str, Any]]:
    """Return the namespace and the remaps of each node, by graph.yaml and the profile."""
    graph, bound = _read(config_directory() / 'graph.yaml'), _profile(profile)
    lists = {key: bound.pop(key, []) for key in _LISTS}
    unknown = set(bound) - set(graph) - set(lists['nodes'])
    if unknown:
        raise ValueError(f'profile {profile!r} binds unknown nodes: {", ".join(sorted(unknown))}; '
                         f'{config_directory() / "graph.yaml"} has {", ".join(graph) or "none"}')
    found = {}
    for node in {*graph, *lists['nodes']}:
        own, common = bound.get(node, {}), graph.get(node, {})
        found[node] = {
            'namespace': own.get('namespace', common.get('namespace', '')),
            'remap': {**common.get('remap', {}), **own.get('remap', {})}}
    return found


def _specs(profile: str, names: Iterable[str], vehicle: str, world: str) -> list[NodeSpec]:
    nodes, names = _bound(profile), list(names)
    for name in names:
        if name not in nodes:
            raise ValueError(f'{config_directory() / "graph.yaml"} and profile {profile!r} do not '
                             f'say how {name} is wired')
    return [_spec(name, vehicle, world, nodes[name]) for name in names]


def _spec(name: str, vehicle: str, world: str, part: Mapping[str, Any]) -> NodeSpec:
    def named(template: str) -> str:
        return template.format(vehicle=vehicle, world=world)

    # Whoever is told use_sim_time listens to the clock of its own world.
    remaps = {'/clock': '{world}/clock'} if world else {}
    return NodeSpec(name, named(part['namespace']) or '/', {
        role: named(topic) for role, topic in {**part['remap'], **remaps}.items()
        if topic is not None})


def _read(path: Path) -> dict[str, Any]:
    """Return a file of wiring; raise ValueError with what of it is not of the shape it must be."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds no mapping of nodes')
    for key, part in content.items():
        if key in _LISTS:
            _check(path, key, part, isinstance(part, list) and all(
                isinstance(one, str) for one in part), 'a list of names')
        elif key == 'base':
            _check(path, key, part, isinstance(part, str), 'the name of a profile')
        else:
            _check_node(path, key, part)
    return content


def _check_node(path: Path, key: Any, part: Any) -> None:
    _check(path, key, part, isinstance(key, str) and isinstance(part, dict)
           and part.keys() <= {'namespace', 'remap', 'parameters'},
           'a node with namespace, remap and parameters')
    _check(path, f'{key}.namespace', part.get('namespace', ''),
           isinstance(part.get('namespace', ''), str), 'a name')
    for kind in ('remap', 'parameters'):
        values = part.get(kind, {})
        _check(path, f'{key}.{kind}', values, isinstance(values, dict)
               and all(isinstance(one, str) for one in values), 'a mapping of names')
    for role, topic in part.get('remap', {}).items():
        _check(path, f'{key}.remap.{role}', topic, topic is None or isinstance(topic, str),
               'a topic')
    for template in (part.get('namespace', ''), *part.get('remap', {}).values()):
        _check_template(path, key, template)


def _check_template(path: Path, key: str, template: str | None) -> None:
    """Raise ValueError where a name holds more in braces than can be filled in."""
    left = (template or '').replace('{vehicle}', '').replace('{world}', '')
    _check(path, key, template, '{' not in left and '}' not in left,
           'a name in which {vehicle} and {world} are filled in')


def _check(path: Path, key: Any, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f'{path}: {key} = {str(value)[:100]!r} is not {expected}')
