"""How the nodes of a session are wired."""
from __future__ import annotations

import ast
import importlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from av_td3_ros.paths import config_directory
from av_td3_ros.ros import graph
from av_td3_ros.ros.graph import (
    is_closed,
    learner_node,
    profile_parameters,
    profiles,
    roles,
    sensor_topics,
    session_nodes,
    vehicle_nodes,
)

NODES = {'simulator_node', 'environment_node', 'policy_node', 'control_node', 'recorder_node',
         'learner_node'}


def test_a_session_has_the_nodes_of_its_profile() -> None:
    assert {'embedded', 'carla', 'carla_native', 'vehicle'} <= set(profiles())
    assert {one.name for one in session_nodes('embedded', 'car', learning=True)} == NODES
    assert {one.name for one in session_nodes('carla', 'car', learning=True)} == (
        NODES - {'simulator_node'})
    assert {one.name for one in session_nodes('embedded', 'car', learning=False)} == (
        NODES - {'recorder_node', 'learner_node'})


@pytest.mark.parametrize(('profile', 'closed'), [
    ('embedded', True), ('carla', False), ('vehicle', False), ('vehicle_in_the_loop', False)])
def test_only_what_talks_with_nobody_else_may_take_a_domain_of_its_own(profile: str,
                                                                       closed: bool) -> None:
    assert is_closed(profile) == closed


def test_both_profiles_bind_the_vehicle_side_to_the_same_topics() -> None:
    embedded, carla = ({one.name: one for one in session_nodes(name, 'car', learning=True)}
                       for name in ('embedded', 'carla'))
    assert all(embedded[name] == spec for name, spec in carla.items())


def test_every_output_of_one_node_is_the_input_of_another() -> None:
    nodes = {one.name: one for one in session_nodes('embedded', 'car', learning=True)}

    def topic(node: str, role: str) -> str:
        name = nodes[node].remaps[f'~/{role}']
        return name if name.startswith('/') else f'{nodes[node].namespace}/{name}'

    for one, output, other, received in (
            ('environment_node', 'observation', 'policy_node', 'observation'),
            ('environment_node', 'observation', 'control_node', 'observation'),
            ('environment_node', 'observation', 'recorder_node', 'observation'),
            ('environment_node', 'hold', 'control_node', 'hold'),
            ('environment_node', 'episode_summary', 'learner_node', 'episode_summary'),
            ('environment_node', 'set_transform', 'simulator_node', 'set_transform'),
            ('environment_node', 'set_target_velocity', 'simulator_node', 'set_target_velocity'),
            ('environment_node', 'goal', 'simulator_node', 'goal'),
            ('policy_node', 'action', 'control_node', 'action'),
            ('control_node', 'applied_action', 'recorder_node', 'applied_action'),
            ('control_node', 'vehicle_command', 'simulator_node', 'vehicle_command'),
            ('recorder_node', 'transition', 'learner_node', 'transition'),
            ('learner_node', 'actor_weights', 'policy_node', 'actor_weights'),
            ('learner_node', 'world_control', 'simulator_node', 'world_control'),
            *(('simulator_node', name, 'environment_node', name) for name in (
                'image', 'odometry', 'markers', 'collision', 'lane_invasion', 'path',
                'world_info'))):
        assert topic(one, f'output/{output}') == topic(other, f'input/{received}'), output
    learner = nodes['learner_node']
    assert topic('recorder_node', 'resend_transitions') == (
        f'{learner.namespace}/{learner.name}/resend_transitions/car')  # where it asks a vehicle


def test_the_vehicle_has_its_own_names() -> None:
    specs = {one.name: one for one in session_nodes('embedded', 'car7', learning=True)}
    assert specs['policy_node'].namespace == '/car7'
    assert specs['learner_node'].namespace == '/learner'
    assert specs['simulator_node'].remaps['~/output/image'] == '/carla/car7/rgb_front/image'
    assert not [topic for spec in specs.values() for topic in spec.remaps.values()
                if '{' in topic]


def test_each_node_is_a_module_with_a_main() -> None:
    for spec in session_nodes('embedded', 'car', learning=True):
        assert callable(importlib.import_module(spec.module).main)


def test_a_node_starts_with_its_remaps_and_parameters() -> None:
    (spec,) = (one for one in session_nodes('embedded', 'car', learning=False)
               if one.name == 'policy_node')
    arguments = spec.arguments(Path('/run/config.yaml'))
    assert arguments[0] == '--ros-args'
    assert arguments[arguments.index('--params-file') + 1] == '/run/config.yaml'
    remaps = {after for before, after in itertools.pairwise(arguments) if before == '-r'}
    assert {'__ns:=/car', '~/output/action:=action',
            '~/input/actor_weights:=/learner/actor_weights'} <= remaps


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'moon' is not one of carla, .*embedded"):
        session_nodes('moon', 'car', learning=True)


@pytest.mark.parametrize(('text', 'words'), [
    ('lidar_node: {}', 'binds unknown nodes: lidar_node'),
    ('- 1', 'holds no mapping of nodes'), ('{', 'is not YAML')])
def test_a_broken_profile_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str,
                                   words: str) -> None:
    (tmp_path / 'profiles').mkdir()
    (tmp_path / 'profiles' / 'mine.yaml').write_text(text)
    (tmp_path / 'graph.yaml').write_text((config_directory() / 'graph.yaml').read_text())
    monkeypatch.setattr(graph, 'config_directory', lambda: tmp_path)
    with pytest.raises(ValueError, match=words):
        session_nodes('mine', 'car', learning=True)


def test_a_profile_adds_to_its_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / 'profiles'
    folder.mkdir()
    (folder / 'mine.yaml').write_text(
        'base: common\ncontrol_node:\n  parameters:\n    action_timeout: 2.0\n')
    (folder / 'common.yaml').write_text(
        'control_node:\n  remap:\n    ~/output/vehicle_command: /{vehicle}/cmd\n')
    (tmp_path / 'graph.yaml').write_text((config_directory() / 'graph.yaml').read_text())
    monkeypatch.setattr(graph, 'config_directory', lambda: tmp_path)
    (spec,) = (one for one in session_nodes('mine', 'car', learning=False)
               if one.name == 'control_node')
    assert spec.remaps['~/output/vehicle_command'] == '/car/cmd'
    assert spec.remaps['~/input/observation'] == 'observation'
    assert profile_parameters('mine') == {'control_node': {'action_timeout': 2.0}}
    assert profile_parameters('common') == {}


# -- the code of the nodes names roles, and every role is bound

CODE = Path(graph.__file__).resolve().parents[1]
TOPICS = {'create_publisher', 'create_lifecycle_publisher', 'create_subscription', 'listen'}
SERVICES = {'create_service', 'create_client', 'serve'}
ROLE = {**dict.fromkeys(TOPICS, re.compile('~/(input|output|debug)/[a-z_]+')),
        **dict.fromkeys(SERVICES, re.compile('~/[a-z_]+'))}
OPEN = '*'  # what is known at run time only


def helpers_of(path: Path) -> set[Path]:
    """Return the modules of ros/ that a module is made of, directly or not."""
    found: set[Path] = set()
    for one in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(one, ast.ImportFrom) and (one.module or '').startswith('av_td3_ros.ros'):
            place = CODE.joinpath(*one.module.split('.')[1:])
            found |= ({place / f'{alias.name}.py' for alias in one.names} if place.is_dir()
                      else {place.with_suffix('.py')})
    return found.union(*map(helpers_of, found))


def modules() -> list[Path]:
    """Return the files of the nodes and of what they are made of."""
    nodes = sorted((CODE / 'nodes').glob('*.py'))
    return [*nodes, *sorted(set().union(*map(helpers_of, nodes)))]


def text_of(expression: ast.expr) -> str | None:
    """Return the text that an expression stands for, OPEN for its unknown parts."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return expression.value
    if isinstance(expression, ast.JoinedStr):
        return ''.join(one.value if isinstance(one, ast.Constant) else OPEN
                       for one in expression.values)
    return None


def named(tree: ast.AST, kinds: Iterable[str] = ROLE) -> Iterator[tuple[int, str, str | None]]:
    """Yield (line, call, name) for each topic or service that the code makes."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        maker = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
        if maker in kinds:
            yield call.lineno, maker, text_of(call.args[1]) if len(call.args) > 1 else None


def roles_of(node: Path) -> set[str]:
    """Return the roles that a node names, those that its helpers name for it included."""
    found: set[str] = set()
    for path in (node, *helpers_of(node)):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        names = {name for _, _, name in named(tree) if name is not None}
        # A local function that puts a name behind its prefix: the names are where it is called.
        for function in [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]:
            prefixes = [name[:-1] for _, _, name in named(function)
                        if name is not None and name.endswith(f'/{OPEN}')]
            calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call)
                     and getattr(one.func, 'id', '') == function.name]
            for prefix in prefixes if calls else ():
                names.discard(f'{prefix}{OPEN}')
                names |= {f'{prefix}{text_of(one.args[1])}' for one in calls}
        found |= names
    return found


@pytest.mark.parametrize('path', modules(), ids=lambda path: path.stem)
def test_no_code_of_a_node_names_more_than_a_role(path: Path) -> None:
    for line, maker, name in named(ast.parse(path.read_text(encoding='utf-8'))):
        if path.stem == 'inputs':  # which makes what its callers name
            continue
        where = f'{path.name}:{line}: {maker} of {name!r}'
        assert name is not None, f'{where}: write its role there as a literal'
        assert ROLE[maker].match(name.replace(OPEN, 'open')), (
            f'{where}: name a role such as ~/input/image (services ~/name); '
            'config/graph.yaml and config/profiles bind it')


@pytest.mark.parametrize('path', modules(), ids=lambda path: path.stem)
def test_every_node_listens_through_what_no_message_ends(path: Path) -> None:
    if path.stem != 'inputs':
        made = {maker for _, maker, _ in named(ast.parse(path.read_text(encoding='utf-8')))}
        assert not made & {'create_subscription', 'create_service'}, 'use Inputs'


@pytest.mark.parametrize('path', modules(), ids=lambda path: path.stem)
def test_no_timer_of_a_node_goes_by_simulated_time(path: Path) -> None:
    if path.stem != 'runtime':  # `every` makes them, on the clock that never stands still
        assert 'create_timer' not in path.read_text(encoding='utf-8')


@pytest.mark.parametrize('profile', profiles())
def test_every_role_is_bound_and_every_bound_role_is_there(profile: str) -> None:
    bound = roles(profile)
    started = [one.name for one in session_nodes(profile, 'car', learning=True)]
    for node in started:
        there = {name for name in roles_of(CODE / 'nodes' / f'{node}.py')
                 if OPEN not in name and not name.startswith('~/debug/')}
        topics = {name for name in there if name.startswith(('~/input/', '~/output/'))}
        assert not topics - set(bound[node]), f'{node}: bind them (to null: they stay unbound)'
        assert not set(bound[node]) - there, f'{node} has no such roles'


@pytest.mark.parametrize(('code', 'name'), [
    ("self.create_publisher(Image, '/camera', 1)", '/camera'),
    ("self.create_subscription(Image, f'/{name}/camera', self.hear, 1)", '/*/camera'),
    ("node.create_client(Trigger, 'reset')", 'reset'),
    ('self.create_service(Trigger, name, self.reset)', None),
])
def test_names_are_found_in_code(code: str, name: str | None) -> None:
    ((_, maker, found),) = named(ast.parse(code))
    assert found == name
    assert name is None or not ROLE[maker].match(name)


def test_the_simulators_roles_are_found_behind_their_prefix() -> None:
    found = roles_of(CODE / 'nodes' / 'simulator_node.py')
    assert {'~/output/clock', '~/input/goal'} <= found
    assert not [one for one in found if OPEN in one]


# -- fleets and vehicles


def test_two_vehicles_with_worlds_of_their_own_share_the_learners_words_only() -> None:
    def bound(vehicle: str) -> set[str]:
        return {spec.topic(role)
                for spec in vehicle_nodes('embedded', vehicle, True, world=f'/{vehicle}')
                for role in spec.remaps}

    def names(vehicle: str) -> set[tuple[str, str]]:
        return {(spec.namespace, spec.name)
                for spec in vehicle_nodes('embedded', vehicle, True, world=f'/{vehicle}')}

    learner = learner_node('embedded')
    assert bound('car_1') & bound('car_2') == {
        learner.topic(f'~/{role}') for role in (
            'input/transition', 'input/episode_summary', 'output/actor_weights',
            'output/world_control', 'output/diagnostics')}
    assert not names('car_1') & names('car_2')
    assert '/car_1/clock' in bound('car_1')


def test_vehicles_in_one_carla_server_share_its_world() -> None:
    specs = {one.name: one for one in vehicle_nodes('carla', 'car_1', True)}
    assert specs['environment_node'].topic('~/input/world_info') == '/carla/world_info'
    assert specs['environment_node'].topic('~/input/image') == '/carla/car_1/rgb_front/image'


def test_a_role_can_be_left_unbound_and_bound_otherwise() -> None:
    (environment,) = (one for one in vehicle_nodes('vehicle', 'car', True)
                      if one.name == 'environment_node')
    assert '~/input/collision' not in environment.remaps
    moved = environment.with_topic('~/input/odometry', '/localisation')
    assert moved.topic('~/input/odometry') == '/localisation'
    assert moved.with_topic('~/input/collision', '/x') == moved


def test_the_bag_holds_what_the_vehicle_tells_and_is_told() -> None:
    assert {'/clock', '/carla/car/rgb_front/image', '/carla/car/rgb_front/camera_info',
            '/carla/car/odometry', '/carla/car/vehicle_control_cmd'} <= set(
        sensor_topics('embedded', 'car'))
    vehicle = sensor_topics('vehicle', 'car', '/car')
    assert '/car/vehicle/camera/image/compressed' in vehicle
    assert not [one for one in vehicle if not one.startswith('/car/vehicle/')]


def test_a_vehicle_without_a_name_of_ros_is_refused() -> None:
    with pytest.raises(ValueError, match="'my car' is no ROS name"):
        session_nodes('embedded', 'my car', learning=False)


@pytest.mark.parametrize(('vehicle', 'world', 'told'), [
    ('my car', '', "'my car' is no ROS name"), ('hero', 'hero', 'such as /car_1')])
def test_who_looks_at_what_has_no_name_is_told(vehicle: str, world: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        graph.viewing_nodes('embedded', vehicle, world)
