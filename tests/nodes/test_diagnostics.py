"""What nodes tell of their health on /diagnostics, in words that a driver understands."""
from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from av_td3_msgs.msg import Action, Observation
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import Inbox, Peer, Running
from nav_msgs.msg import Odometry
from std_msgs.msg import Bool, Header

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_stamp

LEVELS = {'ok': DiagnosticStatus.OK, 'warning': DiagnosticStatus.WARN,
          'error': DiagnosticStatus.ERROR}
Told = Callable[[str, str, str], DiagnosticStatus]


@pytest.fixture
def told(peer: Peer) -> Told:
    """Return a function that waits for a status with a name, a level and words."""
    inbox: Inbox[DiagnosticArray] = peer.hear(DiagnosticArray, '/diagnostics', qos.EVENT)

    def found(message: DiagnosticArray, name: str, level: str, words: str
              ) -> list[DiagnosticStatus]:
        return [one for one in message.status if one.name == f'ego_vehicle/{name}'
                and one.level == LEVELS[level] and words in one.message]

    def wait(name: str, level: str, words: str) -> DiagnosticStatus:
        message = inbox.next(lambda one: bool(found(one, name, level, words)))
        return found(message, name, level, words)[0]

    return wait


def test_a_sensor_that_falls_silent_is_an_error(peer: Peer, make: Callable[..., Running],
                                                told: Told) -> None:
    node = make('environment_node', {'wait_for': 1})
    publish = peer.speak(Odometry, '/carla/ego_vehicle/odometry', heard=False)
    node.connected(peer)
    node.spin()
    told('environment_node: odometry', 'error', 'none so far; is the localisation alive?')
    told('environment_node: episode', 'warning', 'waiting for 1 nodes')
    steps = itertools.count(1)

    def drive_on() -> None:
        message = Odometry(header=Header(stamp=to_stamp(next(steps) * 50_000_000)))
        message.pose.pose.orientation.w = 1.0
        publish(message)

    driving = peer.node.create_timer(0.05, drive_on)
    status = told('environment_node: odometry', 'ok', 'a second')
    assert float({one.key: one.value for one in status.values}['count']) > 1
    peer.node.destroy_timer(driving)
    told('environment_node: odometry', 'error', 'none for 1 s or more')
    told('environment_node: camera', 'error', "is the camera's driver alive?")


def test_the_control_node_says_who_drives_and_what_to_do(peer: Peer, make: Callable[..., Running],
                                                         told: Told) -> None:
    node = make('control_node', {'engaged_at_start': False})
    press = peer.speak(Bool, '/ego_vehicle/emergency_stop', heard=False)
    node.connected(peer)
    node.spin()
    told('control_node: who drives', 'warning', 'not engaged yet; call ~/engage')
    press(Bool(data=True))
    told('control_node: who drives', 'error', 'emergency stop; call ~/clear_emergency_stop')


def test_the_policy_node_tells_its_weights_and_its_pace(peer: Peer, make: Callable[..., Running],
                                                        told: Told) -> None:
    node = make('policy_node', {'driver': 'pursuit', 'network.frames': 0})
    actions = peer.hear(Action, '/ego_vehicle/action')
    node.connected(peer)
    node.spin()
    told('policy_node: inference', 'warning', 'no observation to answer')
    observe = peer.speak(Observation, '/ego_vehicle/observation')
    for step in range(5):
        observe(Observation(episode=1, step=step, state=[0.0] * 53))
        actions.next()
    status = told('policy_node: inference', 'ok', 'actions a second')
    assert {one.key: one.value for one in status.values}['driver'] == 'pursuit'
    assert status.hardware_id == 'ego_vehicle'
