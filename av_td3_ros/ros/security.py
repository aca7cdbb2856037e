"""SROS2 policies of a session: what each node may say and hear, from the wiring and the code."""
from __future__ import annotations

import ast
import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import av_td3_ros
from av_td3_ros.ros.graph import (
    ComposedSpec,
    NodeSpec,
    ProcessSpec,
    session_nodes,
    viewing_nodes,
)
from av_td3_ros.ros.security_plugins import ENABLE

OVERRIDE = 'ROS_SECURITY_ENCLAVE_OVERRIDE'
OPERATOR, WORLD = '/operator', '/world'
ANY = '*'  # the rest of a name that is known at run time only
PARAMETERS = tuple(f'~/{one}' for one in (
    'describe_parameters', 'get_parameters', 'get_parameter_types', 'list_parameters',
    'set_parameters', 'set_parameters_atomically', 'get_type_description'))
LIFECYCLE = tuple(f'~/{one}' for one in (
    'change_state', 'get_state', 'get_available_states', 'get_available_transitions',
    'get_transition_graph'))
HEADER = """\
 What each node of profile {profile} may publish, hear, answer and ask, vehicle {vehicle}.
     Written by `av-td3 security policies`; docs/security.md says how to use it. """
_CODE = Path(av_td3_ros.__file__).resolve().parent


@dataclasses.dataclass
class Permissions:
    """Hold what one enclave may do: names of topics and services."""

    publish: set[str] = dataclasses.field(default_factory=set)
    subscribe: set[str] = dataclasses.field(default_factory=set)
    reply: set[str] = dataclasses.field(default_factory=set)
    request: set[str] = dataclasses.field(default_factory=set)


def enclave_of(spec: NodeSpec) -> str:
    """Return the name of a node's enclave: its full name."""
    return f'{spec.namespace.rstrip("/")}/{spec.name}'


def enclave_environment(spec: ProcessSpec, environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variable that names a node's enclave, where SROS2 is switched on.

    Raises ValueError for nodes in one process, which cannot have one each.
    """
    if environment.get(ENABLE) != 'true':
        return {}
    if isinstance(spec, ComposedSpec):
        raise ValueError(f'{spec.name}: its nodes have an enclave each, and a process has one: '
                         f'leave out composed where {ENABLE} is true')
    return {OVERRIDE: enclave_of(spec)}


def permissions(profile: str, vehicles: Iterable[str]) -> dict[str, Permissions]:
    """
    Return {enclave: what it may do} of all nodes of a session with these vehicles.

    `/world` is whatever speaks for the vehicle or simulator and is no node of ours: it may publish
    what they hear from nobody else, and hear what they tell nobody else. `/operator` may hear
    everything, call every service and trigger the emergency stop; it drives nothing. Raises
    ValueError as `session_nodes`.
    """
    specs: dict[str, NodeSpec] = {}
    for vehicle in vehicles:
        for spec in (*session_nodes(profile, vehicle, learning=True),
                     *viewing_nodes(profile, vehicle)):
            specs[enclave_of(spec)] = spec
    found = {enclave: _of_node(spec) for enclave, spec in specs.items()}
    said = set().union(*(one.publish for one in found.values()))
    heard = set().union(*(one.subscribe for one in found.values()))
    stops = {spec.topic('~/input/emergency_stop') for spec in specs.values()
             if '~/input/emergency_stop' in spec.remaps}
    world = Permissions(publish=heard - said - stops, subscribe=said - heard)
    every_node = _of_every_node(WORLD)
    found[WORLD] = Permissions(world.publish | every_node.publish,
                               world.subscribe | every_node.subscribe, every_node.reply)
    found[OPERATOR] = Permissions(
        publish={*stops, '/rosout', '/parameter_events'}, subscribe={'/*'},
        # Commands and tools have nodes of many names, with parameters that nobody asks for.
        reply={f'/*{name[1:]}' for name in PARAMETERS}, request={'/*'})
    return found


def policy(profile: str, vehicles: Iterable[str]) -> str:
    """Return the text of an SROS2 policy file, version 0.2.0; raises as `permissions`."""
    names = list(vehicles)
    root = ElementTree.Element('policy', version='0.2.0')
    root.append(ElementTree.Comment(HEADER.format(profile=profile, vehicle=', '.join(names))))
    enclaves = ElementTree.SubElement(root, 'enclaves')
    for path, allowed in permissions(profile, names).items():
        enclave = ElementTree.SubElement(enclaves, 'enclave', path=path)
        namespace, _, node = path.rpartition('/')
        described = ElementTree.SubElement(
            ElementTree.SubElement(enclave, 'profiles'), 'profile', ns=namespace or '/', node=node)
        for kind, item, verb, given in (
                ('services', 'service', 'reply', allowed.reply),
                ('services', 'service', 'request', allowed.request),
                ('topics', 'topic', 'publish', allowed.publish),
                ('topics', 'topic', 'subscribe', allowed.subscribe)):
            if given:
                part = ElementTree.SubElement(described, kind, {verb: 'ALLOW'})
                for name in sorted(given):
                    ElementTree.SubElement(part, item).text = name
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding='unicode')
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _of_node(spec: NodeSpec) -> Permissions:
    node = enclave_of(spec)
    allowed = _of_every_node(node)
    for role in spec.remaps:
        if role.startswith('~/output/'):
            allowed.publish.add(spec.topic(role))
        elif role.startswith('~/input/') or role == '/clock':
            allowed.subscribe.add(spec.topic(role))
    allowed.publish.add(f'{node}/debug/{ANY}')
    sources = _sources(_CODE / 'nodes' / f'{spec.name}.py')
    for maker, name in _services(sources):
        bound = spec.topic(name) if name in spec.remaps else node + name[1:]
        (allowed.reply if maker != 'create_client' else allowed.request).add(bound)
    if any('LifecycleNode' in path.read_text(encoding='utf-8') for path in sources):
        allowed.publish.add(f'{node}/transition_event')
        allowed.reply |= {node + name[1:] for name in LIFECYCLE}
    return allowed


def _of_every_node(node: str) -> Permissions:
    return Permissions(
        publish={'/rosout', '/parameter_events'}, subscribe={'/parameter_events', '/clock'},
        reply={node + name[1:] for name in PARAMETERS})


_MAKERS = ('serve', 'create_service', 'create_client')


def _services(sources: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield (maker, name) of the services and clients that have a literal name in modules."""
    for path in sources:
        for call in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            maker = getattr(getattr(call, 'func', None), 'attr', '')
            if (isinstance(call, ast.Call) and maker in _MAKERS
                    and len(call.args) > 1):
                name = _text(call.args[1])
                if name.startswith('~/'):
                    yield maker, name


def _text(expression: ast.expr) -> str:
    if isinstance(expression, ast.Constant):
        return str(expression.value)
    if isinstance(expression, ast.JoinedStr):
        return ''.join(str(one.value) if isinstance(one, ast.Constant) else ANY
                       for one in expression.values)
    return ''


def _sources(path: Path) -> set[Path]:
    """Return a module's file and those of the modules of ros/ that it is made of."""
    found, new = set(), {path}
    while new:
        found |= new
        new = set().union(*map(_imported, new)) - found
    return found


def _imported(path: Path) -> set[Path]:
    found: set[Path] = set()
    for one in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(one, ast.ImportFrom) and (one.module or '').startswith('av_td3_ros.ros'):
            place = _CODE.joinpath(*str(one.module).split('.')[1:])
            found |= ({place / f'{alias.name}.py' for alias in one.names} if place.is_dir()
                      else {place.with_suffix('.py')})
    return found


def security_of(environment: Mapping[str, str]) -> str:
    """Return in words what SROS2 is set to do in an environment."""
    if environment.get(ENABLE) != 'true':
        return 'off'
    strategy = environment.get('ROS_SECURITY_STRATEGY', 'Permissive')
    store = environment.get('ROS_SECURITY_KEYSTORE', '')
    return f'{strategy}, keystore {store or "not set"}'
