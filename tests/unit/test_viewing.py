"""The files of rviz, rqt and Foxglove: what they name exists in our graph and messages."""
from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from av_td3_msgs.msg import AppliedAction, LearnerStatus, Observation, Transition
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from sensor_msgs.msg import CameraInfo, Image
from test_graph import CODE, modules, roles_of
from test_td3_agent import SMALL, filled_replay
from visualization_msgs.msg import MarkerArray

from av_td3_ros.paths import config_directory
from av_td3_ros.ros.graph import profiles, roles
from av_td3_ros.ros.launching.viewing import SHIPPED, for_vehicle, topics_by_role
from av_td3_ros.td3 import TD3, TD3Settings

FILES = ('rviz/drive.rviz', 'rqt/drive.perspective', 'foxglove/drive.json',
         'foxglove/transitions.json')
# The types of what the files name, by role.
TYPES: dict[tuple[str, str], type] = {
    ('environment_node', '~/output/observation'): Observation,
    ('control_node', '~/output/applied_action'): AppliedAction,
    ('learner_node', '~/output/status'): LearnerStatus,
    ('recorder_node', '~/output/transition'): Transition,
    ('simulator_node', '~/output/path'): PathMessage,
    ('simulator_node', '~/output/odometry'): Odometry,
    ('simulator_node', '~/output/markers'): MarkerArray,
    ('simulator_node', '~/output/image'): Image,
    ('simulator_node', '~/output/camera_info'): CameraInfo,
    ('simulator_node', '~/input/goal'): PoseStamped,
    ('simulator_node', '~/input/initial_pose'): PoseWithCovarianceStamped}
OPEN_TOPICS: dict[str, type] = {
    '/ego_vehicle/inspection_node/debug/image': Image,
    '/ego_vehicle/inspection_node/debug/markers': MarkerArray,
    '/diagnostics': DiagnosticArray}
# rviz_default_plugins of ROS 2 Jazzy: what each display shows.
DISPLAYS = {'Grid': None, 'TF': None, 'Path': PathMessage, 'Odometry': Odometry,
            'MarkerArray': MarkerArray, 'Image': Image}
TOOLS = {'Interact': None, 'MoveCamera': None, 'FocusCamera': None, 'Measure': None,
         'SetInitialPose': PoseWithCovarianceStamped, 'SetGoal': PoseStamped}
VIEWS = {'ThirdPersonFollower', 'TopDownOrtho'}
PLUGINS = {'rqt_graph/RosGraph', 'rqt_plot/Plot', 'rqt_console/Console', 'rqt_reconfigure/Param',
           'rqt_image_view/ImageView', 'rqt_robot_monitor/RobotMonitor'}
PANELS = {'3D', 'Image', 'Plot', 'StateTransitions', 'DiagnosticSummary', 'RawMessages'}


def types() -> dict[str, type]:
    """Return the type of each topic that a viewer's file may name."""
    topics = topics_by_role(*SHIPPED)
    return {**OPEN_TOPICS, **{topics[role]: kind for role, kind in TYPES.items()}}


def text(file: str) -> str:
    """Return one of the shipped files."""
    return (config_directory() / file).read_text(encoding='utf-8')


def field_type(kind: type, path: str) -> str:
    """Return the type of a field such as `terms/lane`, `state[0]` or `metrics[0]/value`."""
    name, _, rest = path.partition('/')
    name, bracket, _ = name.partition('[')
    found: str = kind.get_fields_and_field_types()[name]
    if bracket:
        found = re.sub(r'^sequence<(.*?)(, \d+)?>$|^(.*)\[\d+\]$', r'\1\3', found)
    if not rest:
        return found
    package, _, message = found.partition('/')
    return field_type(getattr(importlib.import_module(f'{package}.msg'), message), rest)


def number_at(topic_path: str) -> None:
    """Check that a topic and a field behind it exist and that it is a number."""
    topic = max((one for one in types() if topic_path.startswith(one)), key=len)
    found = field_type(types()[topic], topic_path[len(topic) + 1:])
    assert re.fullmatch(r'u?int\d+|float|double|boolean', found), f'{topic_path} is {found}'


@pytest.mark.parametrize('role', TYPES, ids=lambda role: role[1])
def test_the_types_here_are_those_of_the_nodes(role: tuple[str, str]) -> None:
    code = '\n'.join(path.read_text(encoding='utf-8') for path in modules())
    name, kind = role[1].rpartition('/')[2], TYPES[role].__name__
    assert re.search(rf"\b{kind}(Message)?,\s+'(~/(input|output)/)?{name}'", code), (role, kind)


# -- rviz


def rviz() -> Any:
    """Return the configuration of rviz."""
    return yaml.safe_load(text('rviz/drive.rviz'))['Visualization Manager']


def test_rviz_shows_what_there_is_in_displays_that_it_has() -> None:
    shown = rviz()
    for group, known in ((shown['Displays'], DISPLAYS), (shown['Tools'], TOOLS)):
        for one in group:
            library, _, name = one['Class'].partition('/')
            assert library == 'rviz_default_plugins' and name in known, one
            assert ('Topic' in one) == (known[name] is not None), one
            if 'Topic' in one:
                assert types()[one['Topic']['Value']] is known[name], one
    views = [shown['Views']['Current'], *shown['Views']['Saved']]
    assert {one['Class'].partition('/')[2] for one in views} <= VIEWS
    names = [one['Name'] for one in shown['Displays']]
    assert len(set(names)) == len(names)
    assert {'Route', 'Pose', 'Camera', 'Annotated observation', 'Debug markers',
            'TF'} <= set(names)


def test_rviz_hears_the_route_that_was_published_before_it_came() -> None:
    (route,) = [one for one in rviz()['Displays'] if one['Name'] == 'Route']
    assert route['Topic']['Durability Policy'] == 'Transient Local'
    for one in rviz()['Displays']:
        if 'Topic' in one:
            assert one['Topic']['Reliability Policy'] in ('Reliable', 'Best Effort')
            assert one['Topic']['History Policy'] == 'Keep Last'


def test_rviz_names_every_kind_of_marker() -> None:
    from av_td3_ros.ros.debug_markers import NAMESPACES

    (debug,) = [one for one in rviz()['Displays'] if one['Name'] == 'Debug markers']
    assert set(debug['Namespaces']) == set(NAMESPACES)


# -- rqt


def settings(group: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a perspective's group as rqt reads them."""
    assert set(group) == {'keys', 'groups'}
    values = {}
    for key, one in group['keys'].items():
        if one['type'] == 'repr':
            values[key] = ast.literal_eval(one['repr'])
        else:
            assert one['type'] == 'repr(QByteArray.hex)'
            hexadecimal = re.fullmatch(r"QtCore\.QByteArray\(b'([0-9a-f]*)'\)", one[one['type']])
            assert hexadecimal, key
            values[key] = bytes.fromhex(hexadecimal[1])
    return values


def plotted() -> Iterator[str]:
    """Yield the topic paths of the plots of rqt."""
    plugins = json.loads(text('rqt/drive.perspective'))['groups']['pluginmanager']['groups']
    for name, plugin in plugins.items():
        if name.startswith('plugin__rqt_plot__Plot__'):
            yield from settings(plugin['groups']['plugin'])['topics']


def test_the_perspective_runs_plugins_that_rqt_has_each_with_its_settings() -> None:
    perspective = json.loads(text('rqt/drive.perspective'))
    manager = perspective['groups']['pluginmanager']
    running = settings(manager)['running-plugins']
    assert set(running) == PLUGINS
    instances = {f'plugin__{plugin.replace("/", "__")}__{serial}'
                 for plugin, serials in running.items() for serial in serials}
    assert instances == set(manager['groups'])
    window = settings(perspective['groups']['mainwindow'])
    for instance in instances:  # each has its place
        name = instance.removeprefix('plugin__')
        assert name.encode('utf-16-be') in window['state'], name
    for plugin in manager['groups'].values():
        settings(plugin['groups']['plugin'])


def test_rqt_plots_numbers_that_there_are() -> None:
    paths = list(plotted())
    assert len(paths) > 10
    for path in paths:
        number_at(path)


def test_the_metrics_that_rqt_plots_by_their_place_are_those_that_are_meant() -> None:
    agent = TD3(TD3Settings(batch_size=4, policy_freq=1, precision='float32'), SMALL)
    names = list(agent.train(filled_replay()))
    places = {int(found[1]) for one in plotted() if (found := re.search(r'metrics\[(\d+)\]', one))}
    assert [names[place] for place in sorted(places)] == [
        'critic_loss', 'td_error_mean', 'actor_loss', 'q_policy_mean']


# -- Foxglove


@pytest.mark.parametrize('file', ['foxglove/drive.json', 'foxglove/transitions.json'])
def test_foxglove_shows_what_there_is(file: str) -> None:
    layout = json.loads(text(file))

    def leaves(tree: Any) -> Iterator[str]:
        if isinstance(tree, str):
            yield tree
            return
        assert tree['direction'] in ('row', 'column') and 0 < tree['splitPercentage'] < 100
        yield from leaves(tree['first'])
        yield from leaves(tree['second'])

    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])
    for name, panel in layout['configById'].items():
        kind = name.partition('!')[0]
        assert kind in PANELS
        if kind == 'Image':
            assert types()[panel['imageMode']['imageTopic']] is Image
            calibration = panel['imageMode'].get('calibrationTopic')
            assert calibration is None or types()[calibration] is CameraInfo
        for topic in panel.get('topics', {}):
            assert topic in types()
        for key in ('topicToRender', 'topicPath'):
            assert panel.get(key, '/diagnostics') in types()
        for path in panel.get('paths', ()):
            value = path['value']
            topic = max((one for one in types() if value.startswith(one)), key=len)
            field = re.sub(r'\[:\]\{[^}]*\}', '[0]', value[len(topic) + 1:]).replace('.', '/')
            found = field_type(types()[topic], field)
            assert kind == 'StateTransitions' or found in ('float', 'double'), value


# -- for another profile and vehicle


@pytest.mark.parametrize('file', FILES)
def test_a_file_as_shipped_is_that_of_the_shipped_profile(file: str) -> None:
    assert for_vehicle(text(file), *SHIPPED) == text(file)


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('profile', profiles())
def test_the_files_follow_profile_and_vehicle(file: str, profile: str) -> None:
    changed = for_vehicle(text(file), profile, 'hero')
    assert 'ego_vehicle' not in changed
    if file.endswith('rviz'):
        yaml.safe_load(changed)
    else:
        json.loads(changed)


def test_a_vehicle_is_shown_by_its_own_topics() -> None:
    shown = yaml.safe_load(for_vehicle(text('rviz/drive.rviz'), 'vehicle', 'hero'))
    manager = shown['Visualization Manager']
    topics = {one['Name']: one['Topic']['Value'] for one in manager['Displays'] if 'Topic' in one}
    assert topics['Route'] == '/vehicle/route'
    assert topics['Camera'] == '/vehicle/camera/image/compressed'
    assert topics['Debug markers'] == '/hero/inspection_node/debug/markers'
    assert manager['Views']['Current']['Target Frame'] == 'hero'


def test_one_of_a_fleet_is_shown_in_its_own_world() -> None:
    changed = for_vehicle(text('foxglove/drive.json'), 'embedded', 'car_1', '/car_1')
    assert '/car_1/carla/markers' in changed and '"/carla/markers"' not in changed


# -- the inspection node is bound as all others


@pytest.mark.parametrize('profile', profiles())
def test_the_inspection_node_is_bound(profile: str) -> None:
    bound = roles(profile)['inspection_node']
    code = roles_of(Path(CODE / 'nodes' / 'inspection_node.py'))
    outputs = {one for one in code if one.startswith('~/output/')}
    from av_td3_ros.nodes.inspection_node import NEEDS

    inputs = {f'~/input/{role}' for needed in NEEDS.values() for role in needed}
    assert set(bound) == inputs | outputs
