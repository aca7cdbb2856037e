"""The nodes of a vehicle's side in one process drive as they do in three, and end together."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from av_td3_msgs.msg import AppliedAction
from carla_msgs.msg import CarlaEgoVehicleControl
from harness import VEHICLE, Peer, await_that

from av_td3_ros.cli.launched import Told
from av_td3_ros.cli.session import Session, SessionError
from av_td3_ros.ros import qos
from av_td3_ros.ros.graph import COMPOSED, SIMULATOR, VEHICLE_SIDE, composed, session_nodes
from av_td3_ros.ros.runtime import ros_environment
from av_td3_ros.ros.security_plugins import ENABLE

SMALL = 'world.camera.width=96 world.camera.height=72'


@pytest.fixture
def side(tmp_path: Path, domain: int) -> Iterator[Callable[..., Session]]:
    """Return a function that starts the simulator and the vehicle's side, with settings."""
    started: list[Session] = []

    def side(settings: str = '') -> Session:
        parameters = tmp_path / 'config.yaml'
        Told('embedded', VEHICLE, config=f'{SMALL} {settings}').driving(
            'pretrained', False).write(parameters, 'test')
        started.append(Session(
            composed(session_nodes('embedded', VEHICLE, learning=False)), parameters,
            tmp_path / 'logs'))
        return started[-1].__enter__()

    yield side
    for one in started:
        one.stop()


def test_three_nodes_drive_in_one_process_and_leave_the_vehicle_braking(
        side: Callable[..., Session], peer: Peer) -> None:
    actions = peer.hear(AppliedAction, f'/{VEHICLE}/applied_action', qos.STEP)
    commands = peer.hear(CarlaEgoVehicleControl, f'/carla/{VEHICLE}/vehicle_control_cmd',
                         qos.SENSOR)
    session = side()
    driven = actions.next(lambda one: one.step > 20)
    assert driven.source == AppliedAction.SOURCE_POLICY
    assert commands.next(lambda one: one.throttle > 0.0).brake == 0.0
    assert session.states() == {SIMULATOR: 'running', COMPOSED: 'running'}
    names = peer.node.get_node_names_and_namespaces()
    assert {(name, f'/{VEHICLE}') for name in VEHICLE_SIDE} <= set(names)
    assert session.stop() == []
    assert session.states()[COMPOSED] == 'ended'
    await_that(lambda: commands.messages[-1].brake == 1.0, 'a last command that brakes')


def test_when_one_of_them_cannot_go_on_all_end(side: Callable[..., Session]) -> None:
    session = side('episodes.min_length=90000.0 episodes.max_length=95000.0')
    await_that(lambda: session.states()[COMPOSED] == 'died', 'the end of all')
    with pytest.raises(SessionError, match='cannot be planned'):
        session.check()


def test_nodes_that_need_an_enclave_each_are_not_put_together(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ros_environment({}), ENABLE: 'true'}.items():
        monkeypatch.setenv(name, value)
    nodes = composed(session_nodes('carla', VEHICLE, learning=False))
    with pytest.raises(ValueError, match='leave out composed'):
        Session(nodes, tmp_path / 'none.yaml', tmp_path).__enter__()
