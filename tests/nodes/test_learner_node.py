"""The learner node: receives, learns meanwhile, publishes, and loses nothing."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av_td3_msgs.msg import ActorWeights as ActorWeightsMessage
from av_td3_msgs.msg import AppliedAction, EpisodeSummary, LearnerStatus, Metric, Transition
from av_td3_msgs.srv import ResendTransitions
from carla_msgs.msg import CarlaControl
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import SPECS, TIMEOUT, Log, Peer, Running, await_that, parameter_file
from rclpy.serialization import serialize_message

from av_td3_ros.cli.session import Session
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import (
    from_actor_weights,
    to_bytes,
    to_floats,
    to_nanoseconds,
)
from av_td3_ros.ros.recording.bag import TransitionBag
from av_td3_ros.settings import flatten
from av_td3_ros.td3 import NetworkSettings, load_checkpoint
from av_td3_ros.td3.priority import LOW
from av_td3_ros.td3.weights import ActorWeights, WeightsError, pack, unpack
from av_td3_ros.trust.gate import Gate, TrustSettings
from av_td3_ros.trust.keys import create_key
from av_td3_ros.trust.trusted import Trust

NETWORK = NetworkSettings(frame_size=36, state_size=5, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
SMALL = {**{f'network.{key}': value for key, value in flatten(NETWORK).items()},
         'td3.batch_size': 4, 'td3.precision': 'float32', 'capacity': 1000,
         'status_period': 0.05, 'publish_every': 5, 'limiter.start_after': 10,
         'limiter.updates_per_transition': 0.5}
RESEND = '/learner/learner_node/resend_transitions/ego_vehicle'
EPISODE = 8  # actions in an episode of these tests


class School:
    """What comes before and after the learner."""

    def __init__(self, peer: Peer) -> None:
        self.status = peer.hear(LearnerStatus, '/learner/status', qos.STATUS)
        self.control = peer.hear(CarlaControl, '/carla/control')
        self.send = peer.speak(Transition, '/learner/transition', qos.TRANSITION)
        self.summarise = peer.speak(EpisodeSummary, '/learner/episode_summary', qos.EVENT)

    def teach(self, first: int, last: int) -> None:
        """Publish the transitions with these sequence numbers."""
        for sequence in range(first, last + 1):
            self.send(transition(sequence))

    def until(self, wanted: Callable[[LearnerStatus], bool]) -> LearnerStatus:
        """Wait for a status."""
        return self.status.next(wanted)


def transition(sequence: int, session: str = 'a', vehicle: str = 'ego_vehicle') -> Transition:
    """Return the transition with a sequence number, the same for the same number."""
    episode, step = divmod(sequence - 1, EPISODE + 1)
    random = np.random.default_rng(sequence)
    return Transition(
        vehicle=vehicle, session=session, sequence=sequence, episode=episode, step=step,
        height=36, width=36, frame=to_bytes(random.integers(0, 256, (36, 36), np.uint8)),
        state=to_floats(random.normal(size=5).astype(np.float32)),
        steer=float(random.uniform(-1, 1)), acceleration=float(random.uniform(-1, 1)),
        reward=float(random.normal()), is_first=step == 0, is_last=step == EPISODE,
        is_terminal=step == EPISODE)


def actions_in(sequences: int) -> int:
    """Return how many of the first transitions hold an action."""
    return sequences - sequences // (EPISODE + 1)


@pytest.fixture
def connect(peer: Peer, make: Callable[..., Running]) -> Callable[..., School]:
    """Return a function that starts the node with parameters of its own."""
    def connect(parameters: dict[str, object] | None = None) -> School:
        node = make('learner_node', {**SMALL, **(parameters or {})})
        school = School(peer)
        node.connected(peer)
        node.spin()
        return school

    return connect


def test_it_learns_as_much_as_the_limiter_allows(peer: Peer, connect: Callable[..., School]
                                                 ) -> None:
    school = connect()
    weights = peer.hear(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED)
    first = weights.next()
    school.teach(1, 60)
    # 54 transitions, the first 10 of them before learning begins: 22 updates.
    assert actions_in(60) == 54
    status = school.until(lambda one: one.updates == 22)
    assert status.transitions == 54
    assert (status.transitions_lost, status.transitions_refused, status.updates_skipped) == (
        0, 0, 0)
    # What follows the newest one is not known yet.
    assert status.replay_size == 53
    assert status.updates_per_transition == pytest.approx(22 / 54)
    metrics = {one.name: one.value for one in status.metrics}
    assert {'critic_loss', 'actor_loss'} <= metrics.keys()
    assert all(map(np.isfinite, metrics.values()))
    later = weights.next(lambda one: one.version == 5)
    packed = ActorWeights(later.version, later.architecture, bytes(later.weights),
                          bytes(later.sha256).hex())
    assert all(np.isfinite(tensor.numpy()).all() for tensor in unpack(packed, NETWORK).values())
    assert bytes(later.weights) != bytes(first.weights)
    assert school.until(lambda one: one.policy_version == 5).updates == 22


def test_the_ratio_can_be_changed_while_it_learns(peer: Peer, connect: Callable[..., School]
                                                  ) -> None:
    school = connect()
    school.teach(1, 60)
    school.until(lambda one: one.updates == 22)
    changed = peer.set_parameter('/learner/learner_node', 'limiter.updates_per_transition', 0.0)
    assert changed.successful, changed.reason
    school.teach(61, 70)
    assert school.until(lambda one: one.transitions == 63).updates == 22
    refused = peer.set_parameter('/learner/learner_node', 'limiter.updates_per_transition', -1.0)
    assert not refused.successful and refused.reason


def test_its_update_gives_way_and_what_it_hears_does_not(connect: Callable[..., School]) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    connect({'priority': 'low'})
    running = {one.name: one.native_id for one in threading.enumerate()}

    def nice(name: str) -> int:
        return os.getpriority(os.PRIO_PROCESS, running[name])

    await_that(lambda: nice('learner') == max(before, LOW), 'the update to give way')
    assert nice('learner_node') == before


def test_transitions_that_come_fast_are_all_taken_and_each_bad_one_refused(
        connect: Callable[..., School], log: Log) -> None:
    school = connect({'limiter.updates_per_transition': 0.0})
    data = {number: serialize_message(transition(number)) for number in range(1, 1201)}
    data[400] = data[400][:200]
    for one in data.values():
        school.send(one)
    assert 'cut off' in log.next('transition refused')
    school.until(lambda one: one.transitions_refused == 1)
    school.send(transition(400))  # again, and whole
    status = school.until(lambda one: one.transitions == actions_in(1200))
    assert (status.transitions_refused, status.transitions_lost, status.transitions_duplicate) == (
        1, 0, 0)


@pytest.mark.parametrize('left_out', ['frames', 'state_size'])
def test_it_learns_without_camera_or_state(connect: Callable[..., School], left_out: str) -> None:
    school = connect({f'network.{left_out}': 0})
    school.teach(1, 30)
    status = school.until(lambda one: one.updates == (actions_in(30) - 10) // 2)
    assert (status.transitions_refused, status.updates_skipped) == (0, 0)


def test_weights_are_latched_for_who_comes_late(peer: Peer, connect: Callable[..., School]
                                                ) -> None:
    school = connect()
    school.teach(1, 40)
    version = school.until(lambda one: one.updates == (actions_in(40) - 10) // 2).policy_version
    late = peer.hear(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED)
    assert late.next().version == version
    assert len(late.messages) == 1


def test_weights_are_sent_in_half_precision_and_no_more_often_than_a_period(
        peer: Peer, make: Callable[..., Running], log: Log) -> None:
    node = make('learner_node', {**SMALL, 'weights_precision': 'float16', 'publish_period': 1.5,
                                 'publish_every': 2})
    school = School(peer)
    weights = peer.hear(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED)
    node.connected(peer)
    node.spin()
    size = len(weights.next().weights)
    actor = node.node._learner.agent.actor
    assert size < 0.7 * len(pack(actor, 1).data)  # the tensors' names take as much as before
    assert f'{size / 1e3:.0f} kB in float16' in log.next('weights 1 sent')
    school.teach(1, 60)
    status = school.until(lambda one: one.updates == 22)  # eleven policies were due

    def newest_is_out() -> bool:
        last = weights.messages[-1]
        return pack(actor, last.version, 'float16').data == bytes(last.weights)

    await_that(newest_is_out, 'the newest weights')
    stamps = [to_nanoseconds(one.stamp) for one in weights.messages]
    assert min(np.diff(stamps)) >= 1.4e9 and len(stamps) < 11
    status = school.until(lambda one: one.policy_version == weights.messages[-1].version)
    figures = {one.name: one.value for one in status.metrics}
    assert figures['weights_kilobytes'] == pytest.approx(size / 1e3, rel=0.01)
    assert figures['weights_pack_ms'] > 0.0


def test_the_last_weights_get_out_whatever_the_period(peer: Peer, connect: Callable[..., School]
                                                     ) -> None:
    school = connect({'publish_period': 3600.0, 'total_transitions': 30})
    weights = peer.hear(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED)
    first = weights.next()
    school.teach(1, 60)
    status = school.until(lambda one: one.finished)
    last = weights.next(lambda one: one.version == status.policy_version)
    assert bytes(last.weights) != bytes(first.weights)
    assert [one.version for one in weights.messages] == [1, 2]


def test_missing_transitions_are_asked_for_and_filled_in(peer: Peer,
                                                         connect: Callable[..., School]) -> None:
    asked: list[ResendTransitions.Request] = []

    def resend(request: ResendTransitions.Request, response: ResendTransitions.Response
               ) -> ResendTransitions.Response:
        if not request.session:
            response.accepted = True
            return response
        asked.append(request)
        school.teach(request.from_sequence, request.to_sequence)
        response.accepted = True
        response.first_sequence, response.last_sequence = (request.from_sequence,
                                                           request.to_sequence)
        return response

    peer.node.create_service(ResendTransitions, RESEND, resend)
    school = connect()
    school.teach(1, 3)
    school.teach(7, 9)  # and nothing more: the learner asks until it has them
    status = school.until(lambda one: one.transitions == actions_in(9))
    assert (status.transitions_lost, status.transitions_refused) == (0, 0)
    assert {(one.session, one.from_sequence, one.to_sequence) for one in asked} == {('a', 4, 6)}


def test_a_recorder_that_is_there_and_never_answers_is_told(
        peer: Peer, connect: Callable[..., School], log: Log,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('av_td3_ros.ros.recording.recorders.DEAF', 0.3)
    health = peer.hear(DiagnosticArray, '/diagnostics', qos.EVENT)
    release = threading.Event()

    def wait(request: ResendTransitions.Request, response: ResendTransitions.Response
             ) -> ResendTransitions.Response:
        release.wait()
        return response

    with contextlib.closing(Peer(peer.domain, 'silent_recorder_node')) as silent:
        silent.node.create_service(ResendTransitions, RESEND, wait)
        school = connect()
        try:
            assert 'start learner_node again' in log.next('the recorder of ego_vehicle is there')
            health.next(lambda message: any(
                one.level == DiagnosticStatus.ERROR and 'has answered nothing' in one.message
                for one in message.status))
        finally:
            release.set()
        health.next(lambda message: any(
            one.level == DiagnosticStatus.OK and 'vehicles drive' in one.message
            for one in message.status))
        school.teach(1, 3)
        school.until(lambda one: one.transitions == 3)


def test_what_was_recorded_before_the_learner_came_is_asked_for(
        peer: Peer, connect: Callable[..., School]) -> None:
    def resend(request: ResendTransitions.Request, response: ResendTransitions.Response
               ) -> ResendTransitions.Response:
        if request.session:
            school.teach(request.from_sequence, request.to_sequence)
        response.accepted = True
        response.first_sequence, response.last_sequence = (request.from_sequence,
                                                           request.to_sequence)
        return response

    peer.node.create_service(ResendTransitions, RESEND, resend)
    school = connect()
    school.teach(5, 9)
    assert school.until(lambda one: one.transitions == actions_in(9)).transitions_lost == 0


def test_each_vehicle_is_asked_for_what_is_missing_of_it(
        peer: Peer, connect: Callable[..., School]) -> None:
    asked: list[tuple[str, int, int]] = []

    def recorder(vehicle: str) -> Callable[..., ResendTransitions.Response]:
        def resend(request: ResendTransitions.Request, response: ResendTransitions.Response
                   ) -> ResendTransitions.Response:
            if not request.session:
                response.accepted = True
                return response
            asked.append((vehicle, request.from_sequence, request.to_sequence))
            for sequence in range(request.from_sequence, request.to_sequence + 1):
                school.send(transition(sequence, vehicle=vehicle))
            response.accepted = True
            response.first_sequence = request.from_sequence
            response.last_sequence = request.to_sequence
            return response

        return resend

    for vehicle in ('car_1', 'car_2'):
        peer.node.create_service(
            ResendTransitions, f'/learner/learner_node/resend_transitions/{vehicle}',
            recorder(vehicle))
    school = connect()
    for sequence in (*range(1, 4), *range(6, 10)):
        school.send(transition(sequence, vehicle='car_1'))
    for sequence in (*range(1, 3), *range(4, 10)):
        school.send(transition(sequence, vehicle='car_2'))
    status = school.until(lambda one: one.transitions == 2 * actions_in(9))
    assert status.transitions_lost == 0
    assert set(asked) == {('car_1', 4, 5), ('car_2', 3, 3)}


def test_a_vehicle_that_has_no_name_is_refused(
        peer: Peer, connect: Callable[..., School], log: Log) -> None:
    school = connect()
    school.send(transition(1, vehicle='my car'))
    assert 'refused' in log.next('my car')
    assert school.until(lambda one: one.transitions_refused == 1).transitions == 0


def test_what_nobody_has_any_more_is_lost_and_counted(
        peer: Peer, connect: Callable[..., School], log: Log) -> None:
    def refuse(request: ResendTransitions.Request, response: ResendTransitions.Response
               ) -> ResendTransitions.Response:
        response.message = '7 to 9 are kept'
        return response

    peer.node.create_service(ResendTransitions, RESEND, refuse)
    school = connect()
    school.teach(1, 3)
    school.teach(7, 9)
    status = school.until(lambda one: one.transitions_lost == 3)
    assert '7 to 9 are kept' in log.next('transitions 4 to 6')
    assert school.until(lambda one: one.transitions == actions_in(9) - 3)
    assert status.transitions_refused == 0


def test_what_comes_twice_is_learned_from_once(connect: Callable[..., School]) -> None:
    school = connect()
    school.teach(1, 9)
    school.teach(3, 8)
    school.teach(10, 12)
    status = school.until(lambda one: one.transitions == actions_in(12))
    assert (status.transitions_duplicate, status.transitions_refused) == (6, 0)
    assert status.replay_size == actions_in(12) - 1


def test_an_episode_without_an_end_and_a_restart_are_counted(connect: Callable[..., School]
                                                            ) -> None:
    school = connect()
    school.teach(1, 6)
    for sequence in range(7, 13):  # the vehicle was interrupted and begins the next episode
        message = transition(sequence)
        message.episode, message.step = 1, sequence - 7
        message.is_first, message.is_last = sequence == 7, False
        message.is_terminal = False
        school.send(message)
    school.until(lambda one: one.episodes_unfinished == 1 and one.transitions == 12)
    school.send(transition(1, session='b'))
    status = school.until(lambda one: one.vehicle_restarts == 1)
    assert (status.transitions, status.transitions_refused) == (13, 0)


def test_what_a_human_drove_is_kept_apart_as_well(connect: Callable[..., School]) -> None:
    school = connect({'human.share': 1.0})
    for sequence in range(1, 31):
        message = transition(sequence)
        if 4 <= sequence <= 6:
            message.source = AppliedAction.SOURCE_HUMAN
        school.send(message)
    status = school.until(lambda one: one.updates == (actions_in(30) - 10) // 2)
    assert (status.demonstrations, status.transitions) == (3, actions_in(30))


def bag_of(folder: Path, sequences: range, **changes: Any) -> str:
    """Write a bag of transitions; return its path."""
    bag = TransitionBag(folder, '/learner/transition')
    for sequence in sequences:
        message = transition(sequence, session='recorded')
        for name, value in changes.items():
            setattr(message, name, value)
        bag.write(sequence, serialize_message(message))
    bag.close()
    return str(folder)


def test_it_learns_from_bags_alone_and_finishes(connect: Callable[..., School], tmp_path: Path
                                                ) -> None:
    bags = [bag_of(tmp_path / 'one', range(1, 28)), bag_of(tmp_path / 'two', range(28, 55))]
    school = connect({'bags': bags, 'offline': True, 'run': str(tmp_path / 'run')})
    status = school.until(lambda one: one.finished)
    assert status.transitions == actions_in(54)
    assert status.updates == (actions_in(54) - 1) // 2  # nothing to wait for
    assert load_checkpoint(status.checkpoint).updates == status.updates


def test_after_the_bags_it_learns_from_what_is_driven(connect: Callable[..., School],
                                                      tmp_path: Path) -> None:
    school = connect({'bags': [bag_of(tmp_path / 'bag', range(1, 28))], 'total_transitions': 8})
    school.until(lambda one: one.updates == (actions_in(27) - 10) // 2 and not one.finished)
    school.teach(1, 30)
    status = school.until(lambda one: one.finished)
    assert status.transitions == actions_in(27) + 8


def test_demonstrations_are_kept_apart_from_what_is_driven(connect: Callable[..., School],
                                                           tmp_path: Path) -> None:
    school = connect({'demonstration_bags': [bag_of(tmp_path / 'bag', range(1, 28))]})
    status = school.until(lambda one: one.updates == (actions_in(27) - 10) // 2)
    assert (status.demonstrations, status.replay_size) == (actions_in(27), 0)
    school.teach(1, 9)
    status = school.until(lambda one: one.replay_size == actions_in(9))
    assert status.demonstrations == actions_in(27)


def test_a_bag_that_is_not_there_or_does_not_fit_is_refused_by_name(
        make: Callable[..., Running], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='nowhere cannot be read'):
        make('learner_node', {**SMALL, 'bags': [str(tmp_path / 'nowhere')]})
    bag = bag_of(tmp_path / 'bag', range(1, 4), state=[0.0])
    with pytest.raises(ValueError, match=r'none of its 3 transitions fits.*state has shape'):
        make('learner_node', {**SMALL, 'bags': [bag]})
    with pytest.raises(ValueError, match='nothing to learn from'):
        make('learner_node', {**SMALL, 'offline': True})
    few = bag_of(tmp_path / 'few', range(1, 3))
    with pytest.raises(ValueError, match='the 2 transitions of the bags allow no update'):
        make('learner_node', {**SMALL, 'bags': [few], 'offline': True})


def test_the_checkpoint_of_the_best_episodes_is_kept(connect: Callable[..., School],
                                                     tmp_path: Path) -> None:
    run = tmp_path / 'run'
    school = connect({'run': str(run), 'score_episodes': 2, 'checkpoint_every': 5,
                      'checkpoints_kept': 1})
    for first, value in ((1, 8.0), (31, 3.0), (61, 5.0)):
        for _ in range(2):
            school.summarise(EpisodeSummary(vehicle='ego_vehicle', episode_return=value))
        school.summarise(EpisodeSummary(vehicle='ego_vehicle', episode_return=99.0,
                                        result='interrupted'))
        school.until(lambda one, n=3 * (first // 30 + 1): one.episodes == n)
        school.teach(first, first + 29)
        learned = (actions_in(first + 29) - 10) // 2
        school.until(lambda one, n=learned: one.updates == n)
    best = load_checkpoint(run / 'checkpoints' / 'best')
    assert best.score == 8.0
    assert load_checkpoint(run / 'checkpoints').updates > best.updates


def test_a_second_recorder_is_another_session(connect: Callable[..., School]) -> None:
    school = connect()
    school.teach(1, 9)
    for sequence in range(1, 10):
        school.send(transition(sequence, session='b'))
    status = school.until(lambda one: one.transitions == 16)
    assert (status.transitions_lost, status.transitions_refused) == (0, 0)


def cut_off(one: Transition) -> None:
    one.frame = one.frame[:-1]


def of_another_size(one: Transition) -> None:
    one.height = one.width = 20
    one.frame = to_bytes(bytes(400))


def without_state(one: Transition) -> None:
    one.state = one.state[:2]


def not_finite(one: Transition) -> None:
    one.state[1] = float('nan')


def reward_not_finite(one: Transition) -> None:
    one.reward = float('inf')


def beyond_range(one: Transition) -> None:
    one.steer = 1.5


def terminal_but_not_last(one: Transition) -> None:
    one.is_terminal = True


@pytest.mark.parametrize(('spoil', 'words'), [
    (cut_off, 'no 36x36 frame'), (of_another_size, 'expected uint8[36, 36]'),
    (without_state, 'state has shape [2]'), (not_finite, 'not finite'),
    (reward_not_finite, 'reward inf'), (beyond_range, 'outside [-1, 1]'),
    (terminal_but_not_last, 'is_terminal without is_last')])
def test_a_malformed_transition_is_refused_and_counted(
        connect: Callable[..., School], log: Log, spoil: Callable[[Transition], None], words: str
        ) -> None:
    school = connect()
    school.teach(1, 3)
    broken = transition(4)
    spoil(broken)
    school.send(broken)
    assert words in log.next('transition refused')
    school.teach(5, 9)
    status = school.until(lambda one: one.transitions == actions_in(9) - 1)
    assert (status.transitions_refused, status.transitions_lost) == (1, 0)


def test_the_world_stands_while_learning_is_behind(connect: Callable[..., School]) -> None:
    school = connect({'limiter.slack': 4, 'limiter.updates_per_transition': 2.0})
    school.teach(1, 40)  # 50 updates are due: far more than 4
    assert school.control.next().command == CarlaControl.PAUSE
    assert school.control.next().command == CarlaControl.PLAY
    status = school.until(lambda one: one.updates == 2 * (actions_in(40) - 10))
    assert not status.world_waiting


def test_the_world_goes_on_where_it_may_not_be_paused(connect: Callable[..., School]) -> None:
    school = connect({'limiter.slack': 4, 'limiter.updates_per_transition': 2.0,
                      'pause_world': False})
    school.teach(1, 40)
    school.until(lambda one: one.updates == 2 * (actions_in(40) - 10))
    assert not school.control.messages


def test_the_world_goes_on_though_every_update_is_skipped(connect: Callable[..., School]) -> None:
    school = connect({'limiter.slack': 4, 'limiter.updates_per_transition': 2.0})
    for sequence in range(1, 41):
        message = transition(sequence)
        message.reward = 1e30  # finite, but its square is not
        school.send(message)
    assert school.control.next().command == CarlaControl.PAUSE
    assert school.control.next().command == CarlaControl.PLAY
    status = school.until(lambda one: one.updates_skipped == 2 * (actions_in(40) - 10))
    assert (status.updates, status.world_waiting) == (0, False)


def test_a_learner_that_fails_says_why_and_lets_the_world_go_on(
        peer: Peer, make: Callable[..., Running], log: Log) -> None:
    node = make('learner_node', {**SMALL, 'limiter.slack': 4,
                                 'limiter.updates_per_transition': 2.0})
    release = threading.Event()

    def fail() -> None:
        release.wait(TIMEOUT)
        raise RuntimeError('the device is gone')

    node.node._learner.update = fail
    school = School(peer)
    node.connected(peer)
    node.spin()
    school.teach(1, 40)
    assert school.control.next().command == CarlaControl.PAUSE
    release.set()
    assert school.control.next().command == CarlaControl.PLAY
    assert 'the device is gone' in log.next('learning stopped')
    await_that(lambda: not node.node.context.ok(), 'the end of the node')
    assert node.node.failure


def test_training_ends_with_a_checkpoint_of_everything(connect: Callable[..., School],
                                                       tmp_path: Path) -> None:
    run = tmp_path / 'run'
    school = connect({'run': str(run), 'total_transitions': 30})
    assert load_checkpoint(run / 'checkpoints' / 'untrained').updates == 0
    school.summarise(EpisodeSummary(
        vehicle='ego_vehicle', episode=0, result='off_road', steps=8,
        metrics=[Metric(name='return', value=-1.5), Metric(name='steps', value=8.0)]))
    school.teach(1, 60)
    status = school.until(lambda one: one.finished)
    assert (status.transitions, status.updates, status.episodes) == (30, 10, 1)
    assert status.world_waiting  # nothing more is wanted
    assert school.control.next().command == CarlaControl.PAUSE
    checkpoint = load_checkpoint(status.checkpoint)
    assert Path(status.checkpoint).parent == run / 'checkpoints'
    assert (checkpoint.updates, checkpoint.counters['transitions']) == (10, 30)
    assert checkpoint.counters['policy_version'] == status.policy_version

    def lines(kind: str) -> list[dict[str, object]]:
        text = (run / 'metrics.jsonl').read_text()
        every = map(json.loads, text[:text.rindex('\n')].splitlines())
        return [line for line in every if line['kind'] == kind]

    await_that(lambda: lines('learner')[-1]['finished'], 'the last line of metrics.jsonl')
    assert lines('learner')[-1]['transitions'] == 30
    (episode,) = lines('episode')
    assert (episode['return'], episode['result'], episode['steps']) == (-1.5, 'off_road', 8)
    assert list((run / 'tensorboard').iterdir())


def test_learning_goes_on_from_a_checkpoint(peer: Peer, make: Callable[..., Running],
                                            tmp_path: Path) -> None:
    run = tmp_path / 'run'
    node = make('learner_node', {**SMALL, 'run': str(run), 'total_transitions': 30})
    school = School(peer)
    node.connected(peer)
    node.spin()
    school.teach(1, 60)
    ended = school.until(lambda one: one.finished)
    node.stop()

    again = make('learner_node', {**SMALL, 'run': str(run), 'total_transitions': 20,
                                  'resume': ended.checkpoint})
    weights = peer.hear(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED)
    again.connected(peer)
    again.spin()
    status = school.until(lambda one: not one.finished and one.transitions == 30)
    assert (status.updates, status.replay_size) == (ended.updates, ended.replay_size)
    assert weights.next().version > ended.policy_version
    for sequence in range(1, 31):
        school.send(transition(sequence, session='b'))
    status = school.until(lambda one: one.finished)
    assert (status.transitions, status.updates) == (50, 20)


def test_a_learner_that_goes_on_from_an_earlier_checkpoint_is_no_replay(
        peer: Peer, make: Callable[..., Running], tmp_path: Path) -> None:
    key = create_key(tmp_path / 'learner.key').public
    Trust().with_key(key).write(tmp_path / 'trusted_keys')
    gate = Gate(TrustSettings(keys=str(tmp_path / 'trusted_keys')), NETWORK)
    weights = peer.hear(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED)
    signing = {**SMALL, 'signing.key': str(tmp_path / 'learner.key'),
               'run': str(tmp_path / 'run')}
    node = make('learner_node', signing)
    school = School(peer)
    node.connected(peer)
    node.spin()
    school.teach(1, 60)
    sent = from_actor_weights(weights.next(lambda one: one.version == 5))
    assert sent.key == key.fingerprint and gate.admit(sent) is not None
    node.stop()
    again = make('learner_node', {**signing, 'resume': str(
        tmp_path / 'run' / 'checkpoints' / 'untrained')})
    again.connected(peer)
    again.spin()
    later = from_actor_weights(weights.next(lambda one: one.session != sent.session))
    assert later.version < sent.version and later.session_started > sent.session_started
    assert gate.admit(later) is not None
    with pytest.raises(WeightsError, match='replayed'):
        gate.admit(sent)


def test_a_learner_that_ends_lets_the_world_go_on(peer: Peer, make: Callable[..., Running]
                                                  ) -> None:
    node = make('learner_node', {**SMALL, 'total_transitions': 20})
    school = School(peer)
    node.connected(peer)
    node.spin()
    school.teach(1, 30)
    school.until(lambda one: one.finished)
    assert school.control.next().command == CarlaControl.PAUSE
    node.stop()
    assert school.control.next().command == CarlaControl.PLAY


def test_a_checkpoint_of_another_network_is_refused(make: Callable[..., Running], tmp_path: Path
                                                    ) -> None:
    make('learner_node', {**SMALL, 'run': str(tmp_path / 'run')}).stop()
    with pytest.raises(ValueError, match='another architecture'):
        make('learner_node', {**SMALL, 'network.features': 4,
                              'resume': str(tmp_path / 'run' / 'checkpoints')})


def test_two_ranks_learn_from_what_one_receives(peer: Peer, make: Callable[..., Running],
                                                tmp_path: Path) -> None:
    run = tmp_path / 'run'
    node = make('learner_node', {**SMALL, 'ranks': 2, 'run': str(run), 'total_transitions': 48})
    school = School(peer)
    node.connected(peer)
    node.spin()
    school.teach(1, 54)
    status = school.until(lambda one: one.finished)
    assert (status.transitions, status.updates, status.updates_skipped) == (48, 19, 0)
    checkpoint = load_checkpoint(status.checkpoint)
    assert (checkpoint.ranks, checkpoint.stored_steps) == (2, 53)  # without the last end
    shares = [int(state['total']) for state in checkpoint.shard_states]
    assert sorted(shares) == [26, 27]  # whole episodes, of nine steps
    (other,) = node.node._learner.ranks.processes.values()
    node.stop()
    assert other.poll() == 0


def test_a_learner_whose_other_rank_dies_says_so_and_ends(
        peer: Peer, make: Callable[..., Running], log: Log) -> None:
    node = make('learner_node', {**SMALL, 'ranks': 2})
    school = School(peer)
    node.connected(peer)
    node.spin()
    school.teach(1, 30)
    school.until(lambda one: one.updates == (actions_in(30) - 10) // 2)  # and waits for more
    (other,) = node.node._learner.ranks.processes.values()
    other.kill()
    assert 'rank 1 of 2 was killed by SIGKILL' in log.next('learning stopped')
    await_that(lambda: not node.node.context.ok(), 'the end of the node')
    assert node.node.failure


def test_ctrl_c_leaves_a_whole_checkpoint(peer: Peer, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    file = parameter_file(tmp_path, {'learner_node': {**SMALL, 'run': str(run)}})
    with Session([SPECS['learner_node']], file, tmp_path / 'logs') as session:
        school = School(peer)
        school.status.next()
        school.teach(1, 60)
        heard = school.until(lambda one: one.updates > 0)
        os.kill(session.process_ids()['learner_node'], signal.SIGINT)
        await_that(lambda: session.states()['learner_node'] != 'running', 'its end')
        assert session.states() == {'learner_node': 'ended'}
    checkpoint = load_checkpoint(run / 'checkpoints')
    assert checkpoint.updates >= heard.updates
    assert checkpoint.counters['transitions'] >= heard.transitions


class Recorder:
    """A recorder's service over what it recorded: ranges of numbers by session."""

    def __init__(self, peer: Peer, school: School) -> None:
        self.sessions: dict[str, int] = {}
        self.asked: list[tuple[str, int]] = []
        self._school = school
        peer.node.create_service(ResendTransitions, RESEND, self._answer)

    def _answer(self, request: ResendTransitions.Request, response: ResendTransitions.Response
                ) -> ResendTransitions.Response:
        response.accepted = True
        response.sessions = list(self.sessions)
        response.first_sequences = [1] * len(self.sessions)
        response.last_sequences = list(self.sessions.values())
        if request.session:
            self.asked.append((request.session, request.from_sequence))
            response.first_sequence = request.from_sequence
            response.last_sequence = min(request.to_sequence, request.from_sequence + 9)
            for number in range(response.first_sequence, response.last_sequence + 1):
                self._school.send(transition(number, session=request.session))
        return response


def test_a_killed_learner_goes_on_from_its_newest_checkpoint_and_fetches_the_rest(
        peer: Peer, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    file = parameter_file(tmp_path, {'learner_node': {**SMALL, 'run': str(run),
                                                      'checkpoint_every': 5}})
    with Session([SPECS['learner_node']], file, tmp_path / 'logs') as session:
        school = School(peer)
        recorder = Recorder(peer, school)
        school.status.next()
        school.teach(1, 60)
        recorder.sessions = {'a': 60}
        school.until(lambda one: one.updates >= 7 and Path(one.checkpoint).name > '00000000')
        os.kill(session.process_ids()['learner_node'], signal.SIGKILL)
        await_that(lambda: session.states()['learner_node'] != 'running', 'its end')
    recorder.asked.clear()
    recorder.sessions = {'a': 90, 'b': 27}  # nothing of this was ever sent to anybody
    with Session([SPECS['learner_node']], file, tmp_path / 'again') as session:
        status = school.until(
            lambda one: one.transitions == actions_in(90) + actions_in(27))
        assert (status.transitions_lost, status.transitions_refused) == (0, 0)
        said = (tmp_path / 'again' / 'learner_node.log').read_text()
        assert f'going on from {run}/checkpoints/' in said
        first = min(number for name, number in recorder.asked if name == 'a')
        assert first > 1  # what the checkpoint holds is not asked for
        os.kill(session.process_ids()['learner_node'], signal.SIGINT)
        await_that(lambda: session.states()['learner_node'] != 'running', 'its end')
    assert load_checkpoint(run / 'checkpoints').stored_steps == 90 + 27


def test_a_bag_that_was_not_closed_is_learned_from(connect: Callable[..., School], tmp_path: Path,
                                                   log: Log) -> None:
    bag = TransitionBag(tmp_path / 'bag', '/learner/transition')
    for sequence in range(1, 28):
        bag.write(sequence, serialize_message(transition(sequence)))
    school = connect({'bags': [str(tmp_path / 'bag')]})
    assert school.until(lambda one: one.transitions == actions_in(27))
    assert 'was not closed' in log.next(str(tmp_path / 'bag'))
