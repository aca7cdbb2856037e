"""The recorder node: every step on the topic and on disk, and again on request."""
from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from av_td3_msgs.msg import AppliedAction, Observation, RewardTerms, Transition
from av_td3_msgs.srv import ResendTransitions
from harness import SPECS, Log, Peer, Running, await_that, parameter_file
from rosbags.highlevel import AnyReader
from std_msgs.msg import Header

from av_td3_ros.cli.session import Session
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_stamp
from av_td3_ros.ros.recording.bag import read_transitions

RESEND = '/learner/learner_node/resend_transitions/ego_vehicle'
LEAVES = ('vehicle', 'session', 'sequence', 'episode', 'step', 'height', 'width', 'steer',
          'acceleration', 'source', 'exploring', 'reward', 'is_first', 'is_last', 'is_terminal',
          'reason', 'policy_version')
TERMS = ('progress', 'efficiency', 'lane', 'comfort', 'safety', 'total')


class Drive:
    """What comes before and after the recorder."""

    def __init__(self, peer: Peer) -> None:
        self.transitions = peer.hear(Transition, '/learner/transition', qos.TRANSITION)
        self.observe = peer.speak(Observation, '/ego_vehicle/observation', qos.TRANSITION)
        self.apply = peer.speak(AppliedAction, '/ego_vehicle/applied_action', qos.TRANSITION)
        self.random = np.random.default_rng(0)

    def observation(self, episode: int, step: int, last: bool = False, later: int = 0) -> None:
        """Publish an observation whose numbers tell which one it is, `later` s later."""
        frames = self.random.integers(0, 256, (4, 36, 36), np.uint8)
        self.observe(Observation(
            header=Header(stamp=to_stamp((1000 * episode + step + 20 * later) * 50_000_000),
                          frame_id='ego_vehicle'),
            vehicle='ego_vehicle', episode=episode, step=step, height=36, width=36, count=4,
            frames=to_bytes(frames), state=to_floats(np.array((episode, step), np.float32)),
            reward=float(step), terms=RewardTerms(progress=step + 1.0, total=float(step)),
            is_first=step == 0, is_last=last, is_terminal=last,
            reason='off_road' if last else ''))

    def action(self, episode: int, step: int,
               source: int = AppliedAction.SOURCE_POLICY) -> None:
        """Publish the action applied on an observation."""
        self.apply(AppliedAction(
            vehicle='ego_vehicle', episode=episode, step=step, steer=step / 100,
            acceleration=-step / 50, source=source, exploring=step % 2 == 0,
            policy_version=10 + episode))

    def episode(self, number: int, steps: int) -> None:
        """Publish a whole episode."""
        for step in range(steps):
            self.observation(number, step)
            self.action(number, step)
        self.observation(number, steps, last=True)


@pytest.fixture
def connect(peer: Peer, make: Callable[..., Running]) -> Callable[..., tuple[Drive, Running]]:
    """Return a function that starts the node with parameters of its own."""
    def connect(parameters: dict[str, object] | None = None) -> tuple[Drive, Running]:
        node = make('recorder_node', parameters)
        drive = Drive(peer)
        node.connected(peer)
        node.spin()
        return drive, node

    return connect


def same(one: object, other: object) -> bool:
    """Return whether two transitions hold the same, whatever library read them."""
    return (all(getattr(one, name) == getattr(other, name) for name in LEAVES)
            and all(getattr(one.terms, name) == getattr(other.terms, name) for name in TERMS)
            and (one.header.stamp.sec, one.header.stamp.nanosec)
            == (other.header.stamp.sec, other.header.stamp.nanosec)
            and bytes(one.frame) == bytes(other.frame)
            and list(one.state) == list(other.state))


def test_a_step_holds_what_was_seen_done_and_gained(connect: Callable[..., tuple[Drive, Running]]
                                                    ) -> None:
    drive, _ = connect()
    drive.random = np.random.default_rng(7)
    drive.episode(4, steps=2)
    first, second, last = (drive.transitions.next() for _ in range(3))
    frames = np.random.default_rng(7).integers(0, 256, (4, 36, 36), np.uint8)
    assert bytes(first.frame) == frames[-1].tobytes()  # the newest of the stack, stored once
    assert [one.sequence for one in (first, second, last)] == [1, 2, 3]
    assert [one.step for one in (first, second, last)] == [0, 1, 2]
    assert {(one.vehicle, one.episode, one.session) for one in (first, second, last)} == {
        ('ego_vehicle', 4, first.session)}
    assert list(second.state) == [4.0, 1.0]
    assert (second.steer, second.acceleration) == (pytest.approx(0.01), pytest.approx(-0.02))
    assert (second.policy_version, second.exploring, second.source) == (14, False, 0)
    # The reward that followed stands in the next observation.
    assert (second.reward, second.terms.progress) == (2.0, 3.0)
    assert [one.is_first for one in (first, second, last)] == [True, False, False]
    assert [one.is_last for one in (first, second, last)] == [False, False, True]
    assert (last.is_terminal, last.reason) == (True, 'off_road')
    assert (last.reward, last.steer, last.acceleration, last.policy_version) == (0, 0, 0, 0)


def test_observations_are_taken_once_the_learner_is_there(peer: Peer,
                                                          make: Callable[..., Running]) -> None:
    node = make('recorder_node', {'wait_for': 1})
    node.spin()
    observe = peer.speak(Observation, '/ego_vehicle/observation', qos.TRANSITION, heard=False)
    peer.speak(AppliedAction, '/ego_vehicle/applied_action', qos.TRANSITION)
    assert peer.node.count_subscribers('/ego_vehicle/observation') == 0
    peer.hear(Transition, '/learner/transition', qos.TRANSITION)
    await_that(lambda: peer.node.count_subscribers('/ego_vehicle/observation'), 'the recorder')
    observe(Observation(is_last=True))


def test_a_step_without_an_action_is_left_out(connect: Callable[..., tuple[Drive, Running]]
                                              ) -> None:
    drive, _ = connect()
    for step in range(5):
        drive.observation(1, step)
        if step != 2:
            drive.action(1, step)
    drive.observation(1, 5, last=True)
    drive.transitions.next(lambda one: one.is_last)
    assert [one.step for one in drive.transitions.messages] == [0, 1, 3, 4, 5]
    assert [one.sequence for one in drive.transitions.messages] == [1, 2, 3, 4, 5]


def test_the_bag_holds_what_was_published(connect: Callable[..., tuple[Drive, Running]],
                                          tmp_path: Path) -> None:
    bag = tmp_path / 'runs' / 'bag'
    drive, node = connect({'bag': str(bag)})
    for number in range(3):
        drive.episode(number, steps=10)
    drive.transitions.next(lambda one: one.sequence == 33)
    node.stop()
    published = drive.transitions.messages
    ours = list(read_transitions(bag))
    assert len(ours) == len(published) == 33
    assert all(map(same, ours, published))
    # Any rosbag2 reader will do: the bag holds the definitions of its types.
    with AnyReader([bag]) as reader:
        (connection,) = reader.connections
        assert (connection.topic, connection.msgtype) == (
            '/learner/transition', 'av_td3_msgs/msg/Transition')
        theirs = [reader.deserialize(data, connection.msgtype)
                  for _, _, data in reader.messages()]
    assert all(map(same, theirs, published))
    assert {file.suffix for file in bag.iterdir()} == {'.mcap', '.yaml'}


def test_what_was_recorded_is_sent_again(peer: Peer,
                                         connect: Callable[..., tuple[Drive, Running]]) -> None:
    drive, _ = connect({'kept': 8})
    drive.episode(1, steps=9)
    ten = [drive.transitions.next() for _ in range(10)]
    session = ten[0].session
    answer = peer.ask(ResendTransitions, RESEND, ResendTransitions.Request(
        session=session, from_sequence=4, to_sequence=6))
    assert (answer.accepted, answer.count) == (True, 3)
    assert [drive.transitions.next() for _ in range(3)] == ten[3:6]
    answer = peer.ask(ResendTransitions, RESEND, ResendTransitions.Request(
        session=session, from_sequence=9))
    assert (answer.accepted, answer.count) == (True, 2)
    assert [drive.transitions.next() for _ in range(2)] == ten[8:]
    for session_, first, last, words in (
            (session, 2, 4, '3 to 10 are kept'), (session, 9, 11, '3 to 10 are kept'),
            (session, 6, 5, 'asked for'),
            ('another', 4, 6, f'this recorder is session {session}')):
        answer = peer.ask(ResendTransitions, RESEND, ResendTransitions.Request(
            session=session_, from_sequence=first, to_sequence=last))
        assert not answer.accepted and words in answer.message
    drive.episode(2, steps=1)
    assert [drive.transitions.next().sequence for _ in range(2)] == [11, 12]


def test_the_bag_is_whole_after_ctrl_c(peer: Peer, tmp_path: Path) -> None:
    bag = tmp_path / 'bag'
    file = parameter_file(tmp_path, {'recorder_node': {'bag': str(bag)}})
    with Session([SPECS['recorder_node']], file, tmp_path / 'logs') as session:
        drive = Drive(peer)
        numbers = itertools.count()
        await_that(lambda: drive.episode(next(numbers), steps=3) or drive.transitions.messages,
                   'the first transition of the process')
        os.kill(session.process_ids()['recorder_node'], signal.SIGINT)
        await_that(lambda: session.states()['recorder_node'] != 'running', 'its end')
        assert session.states() == {'recorder_node': 'ended'}
    recorded = list(read_transitions(bag))
    assert [one.sequence for one in recorded] == list(range(1, len(recorded) + 1))
    for heard in drive.transitions.messages:
        assert same(recorded[heard.sequence - 1], heard)


def test_a_bag_that_is_there_already_is_not_touched(make: Callable[..., Running], tmp_path: Path
                                                    ) -> None:
    (tmp_path / 'bag').mkdir()
    with pytest.raises(FileExistsError, match='exists already: choose another directory'):
        make('recorder_node', {'bag': str(tmp_path / 'bag')})
    assert not list((tmp_path / 'bag').iterdir())


def test_an_environment_that_begins_anew_begins_a_session(
        connect: Callable[..., tuple[Drive, Running]], log: Log) -> None:
    drive, _ = connect()
    for step in range(3):  # it dies within an episode
        drive.observation(0, step)
        drive.action(0, step)
    before = [drive.transitions.next() for _ in range(2)]
    for step in range(2):
        drive.observation(0, step, later=60)
        drive.action(0, step)
    drive.observation(0, 2, last=True, later=60)
    after = [drive.transitions.next() for _ in range(3)]
    assert 'begun anew' in log.next('a new session')
    assert [one.sequence for one in (*before, *after)] == [1, 2, 1, 2, 3]
    assert len({one.session for one in before}) == len({one.session for one in after}) == 1
    assert before[0].session != after[0].session
    assert [one.step for one in after] == [0, 1, 2]


def test_a_copy_of_an_episodes_first_step_begins_no_session(
        connect: Callable[..., tuple[Drive, Running]]) -> None:
    drive, _ = connect()
    drive.observation(0, 0)
    drive.observation(0, 0)
    drive.action(0, 0)
    drive.observation(0, 1, last=True)
    first, last = drive.transitions.next(), drive.transitions.next()
    assert (first.session, first.sequence, last.sequence) == (last.session, 1, 2)


def test_a_human_who_takes_over_is_an_intervention_and_what_nobody_drove_is_left_out(
        connect: Callable[..., tuple[Drive, Running]], log: Log) -> None:
    drive, _ = connect()
    policy, human, stopped = (AppliedAction.SOURCE_POLICY, AppliedAction.SOURCE_HUMAN,
                              AppliedAction.SOURCE_STOPPED)
    for step, source in enumerate((human, policy, policy, human, human, stopped, policy)):
        drive.observation(1, step)
        drive.action(1, step, source)
    drive.observation(1, 7, last=True)
    recorded = [drive.transitions.next() for _ in range(7)]
    assert [(one.step, one.source) for one in recorded[:-1]] == [
        (0, human), (1, policy), (2, policy), (3, human), (4, human), (6, policy)]
    assert recorded[-1].is_last
    assert 'intervention 1: a human took over at step 3 of episode 1' in log.next('intervention')
