"""Several vehicles and one learner: who joins, leaves, comes back, or takes another's name."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from av_td3_msgs.msg import AppliedAction, LearnerStatus, Observation
from diagnostic_msgs.msg import DiagnosticArray
from harness import Inbox, Log, Peer, Running, await_that, parameter_file
from std_msgs.msg import Header
from test_learner_node import SMALL

from av_td3_ros.cli.session import Session
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_stamp
from av_td3_ros.ros.graph import vehicle_nodes
from av_td3_ros.ros.recording.bag import read_transitions

EPISODE = 6  # actions in an episode of these tests


class Car:
    """What drives a vehicle, and its recorders, each a process."""

    def __init__(self, peer: Peer, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._observe = peer.node.create_publisher(
            Observation, f'/{name}/observation', qos.TRANSITION)
        self._apply = peer.node.create_publisher(
            AppliedAction, f'/{name}/applied_action', qos.TRANSITION)
        self._peer, self._episode = peer, 0
        self.recorders: list[Session] = []
        (self._spec,) = (one for one in vehicle_nodes('embedded', name, recording=True)
                         if one.name == 'recorder_node')

    def record(self, bag: str = 'bag') -> int:
        """Start a recorder; return its process id once it hears and is heard."""
        hearing = self._observe.get_subscription_count()
        speaking = self._peer.node.count_publishers('/learner/transition')
        place = self.folder / f'{self.name}_{len(self.recorders)}'
        place.mkdir(parents=True)
        file = parameter_file(place, {'recorder_node': {'bag': str(self.bag(bag)), 'wait_for': 1}})
        self.recorders.append(Session([self._spec], file, place))
        self.recorders[-1].__enter__()
        for count, before in ((self._observe.get_subscription_count, hearing),
                              (self._apply.get_subscription_count, hearing),
                              (lambda: self._peer.node.count_publishers('/learner/transition'),
                               speaking)):
            await_that(lambda one=count, known=before: one() > known, f'{self.name}')
        return self.recorders[-1].process_ids()['recorder_node']

    def bag(self, name: str = 'bag') -> Path:
        """Return the folder of a bag."""
        return self.folder / f'{self.name}_{name}'

    def drive(self, episodes: int = 1) -> None:
        """Drive whole episodes."""
        random = np.random.default_rng(self._episode)
        for _ in range(episodes):
            for step in range(EPISODE + 1):
                last = step == EPISODE
                frames = random.integers(0, 256, (4, 36, 36), np.uint8)
                self._observe.publish(Observation(
                    header=Header(stamp=to_stamp((100 * self._episode + step) * 50_000_000)),
                    vehicle=self.name, episode=self._episode, step=step, height=36, width=36,
                    count=4, frames=to_bytes(frames),
                    state=to_floats(random.normal(size=5).astype(np.float32)), reward=1.0,
                    is_first=step == 0, is_last=last, is_terminal=last))
                if not last:
                    self._apply.publish(AppliedAction(
                        vehicle=self.name, episode=self._episode, step=step, steer=0.5))
            self._episode += 1

    def end(self) -> None:
        """End its recorders."""
        for one in self.recorders:
            one.stop()


@pytest.fixture
def car(peer: Peer, tmp_path: Path) -> Iterator[Callable[[str], Car]]:
    """Return a function that makes a vehicle."""
    made: list[Car] = []

    def make(name: str) -> Car:
        made.append(Car(peer, name, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def status(peer: Peer, make: Callable[..., Running]) -> Inbox[LearnerStatus]:
    """Start the learner; return where its status comes in."""
    node = make('learner_node', SMALL)
    heard = peer.hear(LearnerStatus, '/learner/status', qos.STATUS)
    node.connected(peer)
    node.spin()
    return heard


def test_of_two_vehicles_of_one_name_the_first_is_heard_and_both_are_named(
        peer: Peer, car: Callable[[str], Car], status: Inbox[LearnerStatus], log: Log) -> None:
    diagnosed = peer.hear(DiagnosticArray, '/diagnostics')
    one = car('car_1')
    first = one.record()
    one.drive(3)
    status.next(lambda said: said.transitions == 3 * EPISODE)
    second = one.record('other')  # of the same name: it hears and records the same
    driven = 3
    while driven < 60 and not status.next().transitions_refused:  # until the first speaks again
        one.drive()
        driven += 1
    told = log.next("two vehicles are named 'car_1'")
    assert f'process {first} ' in told[:told.index('refused')]
    assert f'process {second} ' in told[told.index('learned'):]
    said = status.next(
        lambda one: one.transitions == driven * EPISODE and one.transitions_refused > 0)
    assert (said.transitions_lost, said.transitions_duplicate) == (0, 0)
    words = "two vehicles are named 'car_1'"
    found = diagnosed.next(lambda message: any(words in part.message for part in message.status))
    (part,) = (part for part in found.status if words in part.message)
    assert part.name.endswith('vehicles') and f'process {second} ' in part.message
    # The first one leaves, and the other one's name is its own from here on.
    os.kill(first, signal.SIGINT)
    await_that(lambda: one.recorders[0].states()['recorder_node'] != 'running', 'its end')
    for _ in range(60):
        one.drive()
        if status.next().transitions > driven * EPISODE:
            break
    assert status.next(lambda said: said.transitions > driven * EPISODE).transitions_lost == 0


def test_vehicles_join_leave_are_killed_and_come_back(
        car: Callable[[str], Car], status: Inbox[LearnerStatus]) -> None:
    cars = [car(f'car_{number}') for number in range(3)]
    killed = cars[0].record()
    cars[1].record()
    for one in cars[:2]:
        one.drive(2)
    cars[2].record()  # joins
    cars[2].drive(2)
    cars[1].recorders[0].stop()  # leaves
    status.next(lambda said: said.transitions == 6 * EPISODE)
    cars[0].drive()
    os.kill(killed, signal.SIGKILL)
    await_that(lambda: cars[0].recorders[0].states()['recorder_node'] != 'running', 'its end')
    cars[0].record()  # with the same bag: a new session, and what was recorded before
    for one in (cars[0], cars[2]):
        one.drive(2)
    recorded = {}

    def all_there() -> bool:
        for one in cars:
            recorded[one.name] = sum(not message.is_last
                                     for message in read_transitions(one.bag()))
        return status.messages[-1].transitions >= sum(recorded.values())

    await_that(all_there, 'all that was recorded')
    assert recorded['car_1'] == 2 * EPISODE and recorded['car_2'] == 4 * EPISODE
    assert 4 * EPISODE <= recorded['car_0'] <= 5 * EPISODE  # less what was not yet on disk
    said = status.messages[-1]
    assert said.transitions == sum(recorded.values())
    assert (said.transitions_lost, said.transitions_refused, said.vehicle_restarts) == (0, 0, 1)
