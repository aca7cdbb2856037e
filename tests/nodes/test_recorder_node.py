"""The recorder node: every step on the topic and on disk, and again on request."""
from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av_td3_msgs.msg import AppliedAction, Observation, RewardTerms, Transition
from av_td3_msgs.srv import ResendTransitions
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import SPECS, Log, Peer, Running, await_that, parameter_file
from rosbags.highlevel import AnyReader
from std_msgs.msg import Header

from av_td3_ros.cli.session import Session
from av_td3_ros.nodes.recorder_node import CUT_OFF
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

    def __init__(self, peer: Peer, heard: bool = True) -> None:
        self.transitions = peer.hear(Transition, '/learner/transition', qos.TRANSITION)
        self.observe = peer.speak(Observation, '/ego_vehicle/observation', qos.TRANSITION, heard)
        self.apply = peer.speak(AppliedAction, '/ego_vehicle/applied_action', qos.TRANSITION,
                                heard)
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


def test_it_says_when_nothing_is_recorded_since_no_action_comes(
        peer: Peer, connect: Callable[..., tuple[Drive, Running]], log: Log) -> None:
    health = peer.hear(DiagnosticArray, '/diagnostics', qos.EVENT)

    def told(level: bytes, words: str) -> bool:
        return bool(health.next(lambda message: any(
            one.level == level and words in one.message and 'transitions' in one.name
            for one in message.status)))

    drive, _ = connect()
    drive.episode(0, steps=3)
    drive.transitions.next(lambda one: one.is_last)  # its actions are there
    for step in range(150):
        drive.observation(1, step)
    assert 'in a row without an applied action' in log.next('is control_node alive?')
    assert told(DiagnosticStatus.ERROR, 'start recorder_node again')
    drive.episode(2, steps=3)
    drive.transitions.next(lambda one: one.episode == 2)
    assert told(DiagnosticStatus.OK, 'a second')


def ports_of(process: int) -> list[Path]:
    """Return the ports in shared memory that a process reads: it holds their locks."""
    held = set()
    for handle in Path(f'/proc/{process}/fd').iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            held.add(os.readlink(handle))
    return [Path(one.removesuffix('_el')) for one in held
            if re.fullmatch(r'/dev/shm/fast(rtps|dds)_port\d+_el', one)]


def test_a_recorder_that_shared_memory_cuts_off_from_actions_begins_anew_in_its_bag(
        peer: Peer, tmp_path: Path) -> None:
    bag = tmp_path / 'bag'
    file = parameter_file(tmp_path, {'recorder_node': {'bag': str(bag)}})
    with Session([SPECS['recorder_node']], file, tmp_path / 'logs') as session:
        drive = Drive(peer)
        process = session.process_ids()['recorder_node']
        ports = ports_of(process)
        if not ports:
            pytest.skip('no shared memory between processes here')
        # Fast DDS does this to itself where a process gets no processor for seconds: who knows a
        # port goes on with it, and who comes now makes another one of the same name.
        for port in ports:
            port.unlink()
        with contextlib.closing(Peer(peer.domain, 'late_control_node')) as late:
            apply = late.speak(AppliedAction, '/ego_vehicle/applied_action', qos.TRANSITION)
            steps = itertools.count()

            def drive_on() -> bool:
                step = next(steps)
                drive.observation(1, step)
                apply(AppliedAction(vehicle='ego_vehicle', episode=1, step=step))
                return len(drive.transitions.messages) >= 3

            await_that(drive_on, 'transitions in spite of it')
        assert session.process_ids()['recorder_node'] == process
        assert session.states()['recorder_node'] == 'running'
    log = (tmp_path / 'logs' / 'recorder_node.log').read_text()
    assert 'without an applied action' in log and 'begins anew' in log
    recorded = [one.step for one in read_transitions(bag)]
    assert {one.step for one in drive.transitions.messages} <= set(recorded)
    assert min(recorded) >= CUT_OFF


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


def request(peer: Peer, session: str, first: int = 0, last: int = 0) -> ResendTransitions.Response:
    """Ask the recorder to send again."""
    return peer.ask(ResendTransitions, RESEND, ResendTransitions.Request(
        session=session, from_sequence=first, to_sequence=last))


def test_what_was_recorded_is_sent_again(peer: Peer,
                                         connect: Callable[..., tuple[Drive, Running]]) -> None:
    drive, _ = connect({'kept': 8})
    drive.episode(1, steps=9)
    ten = [drive.transitions.next() for _ in range(10)]
    session = ten[0].session
    answer = request(peer, session, 4, 6)
    assert (answer.accepted, answer.count) == (True, 3)
    assert (answer.first_sequence, answer.last_sequence) == (4, 6)
    assert [drive.transitions.next() for _ in range(3)] == ten[3:6]
    answer = request(peer, session, 9)
    assert (answer.accepted, answer.count) == (True, 2)
    assert [drive.transitions.next() for _ in range(2)] == ten[8:]
    answer = request(peer, session, 1, 4)  # the first two are gone
    assert (answer.accepted, answer.first_sequence, answer.last_sequence) == (True, 3, 4)
    assert [drive.transitions.next() for _ in range(2)] == ten[2:4]
    for session_, first, last in ((session, 1, 2), (session, 11, 12), ('another', 4, 6)):
        answer = request(peer, session_, first, last)
        assert not answer.accepted and 'are kept' in answer.message
    drive.episode(2, steps=1)
    assert [drive.transitions.next().sequence for _ in range(2)] == [11, 12]


def test_what_memory_does_not_hold_any_more_comes_from_the_bag(
        peer: Peer, connect: Callable[..., tuple[Drive, Running]], tmp_path: Path) -> None:
    drive, _ = connect({'kept': 1, 'bag': str(tmp_path / 'bag')})
    drive.episode(1, steps=149)
    sent = [drive.transitions.next() for _ in range(150)]
    answer = request(peer, sent[0].session, 2)  # more than a page
    assert (answer.first_sequence, answer.last_sequence, answer.count) == (2, 101, 100)
    again = [drive.transitions.next() for _ in range(100)]
    assert all(map(same, again, sent[1:101]))
    answer = request(peer, '')
    assert (answer.accepted, list(answer.sessions), list(answer.first_sequences),
            list(answer.last_sequences)) == (True, [sent[0].session], [1], [150])


def drive_until(drive: Drive, numbers: Iterator[int], wanted: int) -> bool:
    """Publish an episode; return whether so many transitions have come."""
    drive.episode(next(numbers), steps=3)
    return len(drive.transitions.messages) >= wanted


def patiently(peer: Peer) -> ResendTransitions.Response:
    """Ask for the sessions until there is an answer: a killed recorder is believed in for long."""
    client = peer.node.create_client(ResendTransitions, RESEND)
    futures: list[Any] = []

    def answered() -> Any:
        asked = time.monotonic()
        futures.append(client.call_async(ResendTransitions.Request()))
        while not futures[-1].done() and time.monotonic() - asked < 1.0:
            time.sleep(0.002)
        return futures[-1].done()

    await_that(answered, 'an answer')
    return futures[-1].result()


def test_a_recorder_that_is_killed_goes_on_in_its_bag_and_has_all_sessions(
        peer: Peer, tmp_path: Path) -> None:
    bag = tmp_path / 'bag'
    file = parameter_file(tmp_path, {'recorder_node': {'bag': str(bag)}})
    drive = Drive(peer, heard=False)
    numbers = itertools.count()
    for life in (1, 2):
        with Session([SPECS['recorder_node']], file, tmp_path / f'logs_{life}') as session:
            wanted = 5 * life + len(drive.transitions.messages)
            await_that(partial(drive_until, drive, numbers, wanted), 'transitions')
            os.kill(session.process_ids()['recorder_node'], signal.SIGKILL)
            await_that(lambda: session.states()['recorder_node'] != 'running', 'its end')
    with Session([SPECS['recorder_node']], file, tmp_path / 'logs_3') as session:
        ranges = dict.fromkeys(one.session for one in drive.transitions.messages)
        answer = patiently(peer)
        assert list(answer.sessions) == list(ranges) and len(ranges) == 2
    recorded = {(one.session, one.sequence): one for one in read_transitions(bag)}
    for heard in drive.transitions.messages:  # written before it was published
        assert same(recorded[heard.session, heard.sequence], heard)
    assert 'transitions recovered' in (tmp_path / 'logs_3' / 'recorder_node.log').read_text()
    with AnyReader([bag]) as reader:
        assert sum(1 for _ in reader.messages()) == len(recorded)


@contextlib.contextmanager
def disk_of(folder: Path, size: int) -> Iterator[Path]:
    """Lend a small disk, or skip the test where none can be made."""
    from benchmarks._places import CannotError, small_disk

    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(folder, size))
        except CannotError as error:
            pytest.skip(f'no small disk here: {error}')
        yield disk


def test_a_full_disk_is_told_and_recording_goes_on_when_there_is_room(
        peer: Peer, connect: Callable[..., tuple[Drive, Running]], log: Log, tmp_path: Path
        ) -> None:
    health = peer.hear(DiagnosticArray, '/diagnostics', qos.EVENT)

    def until(level: bytes) -> str:
        return next(one.message for one in health.next(lambda message: any(
            one.level == level and 'recorder_node: transitions' in one.name
            for one in message.status)).status)

    with disk_of(tmp_path / 'disk', 300_000) as disk:
        (ballast := disk / 'ballast').write_bytes(bytes(230_000))
        drive, node = connect({'bag': str(disk / 'bag')})
        assert 'left below' in until(DiagnosticStatus.WARN)  # before it is full
        drive.episode(0, steps=60)
        assert 'recording stands still' in log.next('No space left')
        drive.transitions.next(lambda one: one.sequence == 61)  # driving goes on
        assert 'wait for the disk' in until(DiagnosticStatus.ERROR)
        ballast.unlink()
        assert '0 lost' in log.next('recording goes on')
        until(DiagnosticStatus.WARN)
        drive.episode(1, steps=5)
        drive.transitions.next(lambda one: one.sequence == 67)
        node.stop()
        assert [one.sequence for one in read_transitions(disk / 'bag')] == list(range(1, 68))


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


def test_what_is_no_bag_is_not_touched(make: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag' / 'notes').write_text('mine')
    with pytest.raises(FileExistsError, match='exists already: choose another directory'):
        make('recorder_node', {'bag': str(tmp_path / 'bag')})
    assert [one.name for one in (tmp_path / 'bag').iterdir()] == ['notes']


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
