"""SROS2 with the shipped policies: only the learner sends weights, only control commands."""
from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import VEHICLE

from av_td3_ros.cli.main import _run
from av_td3_ros.cli.security import SHIPPED
from av_td3_ros.paths import config_directory
from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.ros.security import (
    OVERRIDE,
    enclave_environment,
    permissions,
    policy,
)
from av_td3_ros.ros.security_plugins import ENABLE, has_plugins

FOLDER = config_directory() / 'security'
WEIGHTS = '/learner/actor_weights'
LEARNER, CONTROL = '/learner/learner_node', f'/{VEHICLE}/control_node'
COMMANDS = {'embedded': f'/carla/{VEHICLE}/vehicle_control_cmd',
            'carla': f'/carla/{VEHICLE}/vehicle_control_cmd', 'vehicle': '/vehicle/command'}
ENDS = """
import sys, rclpy
from av_td3_msgs.msg import ActorWeights
from carla_msgs.msg import CarlaEgoVehicleControl
rclpy.init(args=['x', '--ros-args', '--enclave', sys.argv[1]])
namespace, _, name = sys.argv[1].rpartition('/')
node = rclpy.create_node(name, namespace=namespace)
print('is there', flush=True)
kind = {'weights': ActorWeights, 'command': CarlaEgoVehicleControl}[sys.argv[2]]
node.create_publisher(kind, sys.argv[3], 1)
print('may publish', flush=True)
"""


def granted(profile: str, verb: str) -> dict[str, set[str]]:
    """Return {enclave: names} that a shipped policy lets it do, as XML says."""
    root = ElementTree.parse(FOLDER / f'{profile}.policy.xml').getroot()
    assert root.tag == 'policy' and root.get('version') == '0.2.0'
    return {str(enclave.get('path')): {
        str(name.text) for part in enclave.iter() if part.get(verb) == 'ALLOW' for name in part}
        for enclave in root.iter('enclave')}


@pytest.mark.parametrize('profile', SHIPPED)
def test_only_the_learner_sends_weights_and_only_control_commands(profile: str) -> None:
    publish = granted(profile, 'publish')
    assert [one for one, names in publish.items() if WEIGHTS in names] == [LEARNER]
    assert [one for one, names in publish.items() if COMMANDS[profile] in names] == [CONTROL]
    for names in publish.values():
        assert not {'/*', '*'} & names
    assert {f'/{VEHICLE}/policy_node'} == {
        one for one, names in granted(profile, 'subscribe').items() if WEIGHTS in names}


def test_the_shipped_policies_are_those_of_the_graph() -> None:
    assert sorted(FOLDER.iterdir()) == [FOLDER / f'{profile}.policy.xml' for profile in SHIPPED]
    for profile in SHIPPED:
        shipped = (FOLDER / f'{profile}.policy.xml').read_text()
        assert shipped == policy(profile, [VEHICLE]), (
            'write them anew: python -m av_td3_ros.cli.security')


def test_what_one_node_says_another_may_hear() -> None:
    allowed = permissions('embedded', ['car_1', 'car_2'])
    assert {'/car_1/policy_node', '/car_2/policy_node', LEARNER} <= allowed.keys()
    assert '/car_2/action' not in allowed['/car_1/policy_node'].publish
    asks = allowed[LEARNER].request
    for car in ('car_1', 'car_2'):
        (answers,) = (one for one in allowed[f'/{car}/recorder_node'].reply if 'resend' in one)
        assert answers == f'{LEARNER}/resend_transitions/{car}'
    assert f'{LEARNER}/resend_transitions/*' in asks
    assert '/car_1/control_node/engage' in allowed['/car_1/control_node'].reply
    assert '/car_1/policy_node/change_state' in allowed['/car_1/policy_node'].reply
    operator = allowed['/operator']
    assert '/*' in operator.request and WEIGHTS not in operator.publish


def test_a_policy_is_printed_for_any_vehicle(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(['security', 'policies', '--profile', 'carla', '--vehicle', 'hero']) == 0
    root = ElementTree.fromstring(capsys.readouterr().out.partition('\n')[2])
    assert '/hero/control_node' in {one.get('path') for one in root.iter('enclave')}


def test_a_session_tells_each_node_its_enclave() -> None:
    (spec,) = (one for one in session_nodes('embedded', VEHICLE, learning=False)
               if one.name == 'control_node')
    assert enclave_environment(spec, {}) == {}
    assert enclave_environment(spec, {ENABLE: 'true'}) == {OVERRIDE: CONTROL}


# -- with the plug-ins of the middleware

@pytest.fixture
def secured(domain: int, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which a keystore of the shipped policy is enforced."""
    if not has_plugins():
        pytest.skip('this Fast DDS was built without its security plug-ins, as the wheels of '
                    'PyPI are: nothing can be enforced; a ROS installation has them')
    keystores: Any = pytest.importorskip(
        'sros2.keystore', reason='sros2 comes with a ROS installation only')
    store = tmp_path / 'keystore'
    keystores.create_keystore(store)
    for enclave in permissions('embedded', [VEHICLE]):
        keystores.create_enclave(store, enclave)
        keystores.create_permission(store, enclave, FOLDER / 'embedded.policy.xml')
    return {**os.environ, ENABLE: 'true', 'ROS_SECURITY_STRATEGY': 'Enforce',
            'ROS_SECURITY_KEYSTORE': str(store)}


@pytest.fixture
def may_publish(secured: dict[str, str]) -> Callable[..., tuple[bool, str]]:
    """Return a function that tells whether an enclave may, and what was said."""
    def may_publish(enclave: str, kind: str, topic: str) -> tuple[bool, str]:
        ran = subprocess.run([sys.executable, '-c', ENDS, enclave, kind, topic], text=True,
                             capture_output=True, check=False, timeout=60, env=secured)
        return 'may publish' in ran.stdout, ran.stdout + ran.stderr

    return may_publish


def test_others_cannot_publish_weights_or_commands(
        may_publish: Callable[..., tuple[bool, str]]) -> None:
    for kind, topic, who in (('weights', WEIGHTS, LEARNER),
                             ('command', COMMANDS['embedded'], CONTROL)):
        may, said = may_publish(who, kind, topic)
        assert may, said
        for other in {LEARNER, CONTROL, f'/{VEHICLE}/policy_node', '/operator'} - {who}:
            may, said = may_publish(other, kind, topic)
            assert not may and 'is there' in said, f'{other}, {topic}: {said}'
        may, said = may_publish('/nobody', kind, topic)
        assert not may and 'enclave' in said.lower()


def test_a_session_drives_under_enforce(secured: dict[str, str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, '-m', 'av_td3_ros.cli.main', 'evaluate', '--policy', 'pursuit', '--map',
         'loop', '--episodes', '1', '--out', str(tmp_path / 'out'),
         '--config', 'episodes.min_length=40', '--config', 'episodes.max_length=60'],
        text=True, capture_output=True, check=False, timeout=240,
        env={**secured, OVERRIDE: '/operator'})
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize('strategy', ['Permissive', 'Enforce'])
@pytest.mark.parametrize('command', [
    ('av_td3_ros.nodes.recorder_node',), ('av_td3_ros.cli.main', 'train', '--steps', '5')])
def test_nothing_starts_where_security_is_asked_for_and_not_to_be_had(
        strategy: str, command: tuple[str, ...], tmp_path: Path) -> None:
    if has_plugins():
        pytest.skip('this middleware has the security plug-ins')
    refused = subprocess.run(
        [sys.executable, '-m', *command], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, ENABLE: 'true', 'ROS_SECURITY_STRATEGY': strategy}, check=False)
    assert refused.returncode == 1
    assert 'ROS_SECURITY_ENABLE=true, but this middleware' in refused.stderr
    assert 'Traceback' not in refused.stderr
