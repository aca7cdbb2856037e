"""The policy node: who drives, with which weights, and how much it explores."""
from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from av_td3_msgs.msg import Action, Observation
from av_td3_msgs.msg import ActorWeights as ActorWeightsMessage
from diagnostic_msgs.msg import DiagnosticArray
from harness import Log, Peer, Running, await_that
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_msgs.msg import Header

from av_td3_ros.driving.command.pursuit import PursuitDriver, PursuitSettings
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import (
    to_actor_weights,
    to_bytes,
    to_floats,
    to_nanoseconds,
    to_stamp,
)
from av_td3_ros.ros.tracing import read_trace
from av_td3_ros.settings import flatten
from av_td3_ros.td3 import TD3, Checkpoints, NetworkSettings, TD3Settings
from av_td3_ros.td3.networks import Actor
from av_td3_ros.td3.weights import pack
from av_td3_ros.trust.keys import new_key
from av_td3_ros.trust.signing import Signer, statement
from av_td3_ros.trust.trusted import Trust, read_trust

NETWORK = NetworkSettings(frame_size=36, state_size=9, channels=(4, 4, 4), features=8,
                          hidden=(16, 16))
KEY = new_key('learner')
SIGNER = Signer(KEY, started=1_000)
SMALL = {f'network.{key}': value for key, value in flatten(NETWORK).items()}
STATE = np.array((0.2, 0.1, -0.05, 0.04, 0.0, 0.08, 0.01, 0.12, 0.02), np.float32)
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 36, 36), np.uint8)


class Road:
    """What comes before and after the policy node."""

    def __init__(self, peer: Peer, node: Running) -> None:
        self.actions = peer.hear(Action, '/ego_vehicle/action')
        self.send = peer.speak(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED)
        node.connected(peer)
        node.spin()
        # The node takes observations once its actions are heard.
        self.observe = peer.speak(Observation, '/ego_vehicle/observation')
        self._steps = itertools.count()

    def show(self, state: np.ndarray = STATE, frames: np.ndarray = FRAMES, **flags: bool) -> int:
        """Publish an observation; return its step."""
        step = next(self._steps)
        self.observe(Observation(
            header=Header(stamp=to_stamp(step * 50_000_000), frame_id='ego_vehicle'),
            vehicle='ego_vehicle', episode=3, step=step, count=frames.shape[0],
            height=frames.shape[1], width=frames.shape[2], frames=to_bytes(frames),
            state=to_floats(state), **flags))
        return step

    def drive(self, state: np.ndarray = STATE, frames: np.ndarray = FRAMES) -> Action:
        """Publish an observation; return the action on it."""
        step = self.show(state, frames, is_first=False)
        return self.actions.next(lambda one: one.step == step)

    def drive_until(self, version: int) -> Action:
        """Drive until a version of the policy does; return its first action."""
        found: list[Action] = []

        def arrived() -> bool:
            found.append(self.drive())
            return found[-1].policy_version == version

        await_that(arrived, f'policy {version}')
        return found[-1]


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """Return the file of the keys that the node trusts."""
    file = tmp_path / 'trusted_keys'
    Trust().with_key(KEY.public).write(file)
    return file


@pytest.fixture
def connect(peer: Peer, make: Callable[..., Running], trusted: Path) -> Callable[..., Road]:
    """Return a function that starts the node with parameters of its own."""
    def connect(parameters: dict[str, object] | None = None) -> Road:
        return Road(peer, make('policy_node', {
            **SMALL, 'trust.keys': str(trusted), **(parameters or {})}))

    return connect


def actor_of(seed: int, network: NetworkSettings = NETWORK) -> Actor:
    """Return an actor that acts decidedly, the same for the same seed."""
    torch.manual_seed(seed)
    return Actor(dataclasses.replace(network, last_layer_scale=1.0)).eval()


def message_of(actor: Actor, version: int, signer: Signer = SIGNER) -> ActorWeightsMessage:
    """Return an actor as the learner sends it."""
    return to_actor_weights(signer.seal(pack(actor, version), stamp=version))


def values(action: Action) -> list[float]:
    """Return steer and acceleration."""
    return [action.steer, action.acceleration]


def test_an_action_answers_its_observation(connect: Callable[..., Road]) -> None:
    road = connect()
    action = road.drive()
    assert (action.vehicle, action.episode, action.step) == ('ego_vehicle', 3, 0)
    assert action.header.stamp == to_stamp(0) and action.header.frame_id == 'ego_vehicle'
    assert -1.0 <= action.steer <= 1.0 and -1.0 <= action.acceleration <= 1.0
    assert (action.policy_version, action.exploring) == (0, False)
    assert action.inference_time > 0.0
    # Nothing follows an episode's last observation, so it gets no action.
    road.show(is_last=True)
    assert road.drive().step == 2
    assert [one.step for one in road.actions.messages] == [0, 2]


def test_the_untrained_network_is_that_of_the_seed(peer: Peer, make: Callable[..., Running]
                                                   ) -> None:
    seen = []
    for seed in (1, 1, 2):
        node = make('policy_node', {**SMALL, 'seed': seed})
        seen.append(values(Road(peer, node).drive()))
        node.stop()
    assert seen[0] == seen[1] != seen[2]


def test_sent_weights_drive_and_are_named(connect: Callable[..., Road]) -> None:
    road = connect()
    untrained = values(road.drive())
    for version in (1, 2, 5):
        actor = actor_of(version)
        road.send(message_of(actor, version))
        driven = values(road.drive_until(version))
        assert driven == pytest.approx(actor.act(FRAMES, STATE).tolist(), abs=1e-6)
        assert driven != pytest.approx(untrained, abs=1e-3)
    # Evaluating, the same sight gives the same action.
    assert values(road.drive()) == values(road.drive()) == driven


def test_weights_published_before_the_node_was_there_are_used(
        peer: Peer, make: Callable[..., Running], trusted: Path) -> None:
    early = peer.speak(ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED, heard=False)
    early(message_of(actor_of(1), 1))
    early(message_of(actor_of(2), 2))
    Road(peer, make('policy_node', {**SMALL, 'trust.keys': str(trusted)})).drive_until(2)


def altered(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Change one bit."""
    message.weights[-1] ^= 1
    return message


def of_another_shape(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Return a network with fewer features."""
    return message_of(actor_of(8, dataclasses.replace(NETWORK, features=4)), message.version)


def not_finite(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Return an actor with one NaN."""
    actor = actor_of(8)
    with torch.no_grad():
        next(actor.parameters()).view(-1)[0] = float('nan')
    return message_of(actor, message.version)


def not_weights(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Return bytes that verify but are no safetensors."""
    data = b'\x80\x04 pickled code'
    return to_actor_weights(SIGNER.seal(dataclasses.replace(
        pack(actor_of(2), message.version), data=data,
        sha256=hashlib.sha256(data).hexdigest()), 0))


def unsigned(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Take the signature off."""
    message.signature = to_bytes(b'')
    return message


def renumbered(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Say that it is a later version."""
    message.version += 1
    return message


def of_a_stranger(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Return what somebody else has signed."""
    return message_of(actor_of(2), message.version, Signer(new_key(), started=2_000))


def of_a_stranger_in_disguise(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Return what somebody else has signed under the name of the trusted key."""
    stranger = new_key()
    sealed = dataclasses.replace(
        SIGNER.seal(pack(actor_of(2), message.version), 0), session_started=2_000)
    return to_actor_weights(dataclasses.replace(
        sealed, signature=stranger.sign(statement(sealed))))


def replayed(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Return an earlier version, rightly signed."""
    return message_of(actor_of(8), 0)


def of_an_earlier_session(message: ActorWeightsMessage) -> ActorWeightsMessage:
    """Return a later version, rightly signed, of a session before."""
    return message_of(actor_of(8), message.version, Signer(KEY, started=999))


@pytest.mark.parametrize(('spoil', 'reason'), [
    (altered, 'SHA-256'), (of_another_shape, 'architecture'), (not_finite, 'not finite'),
    (not_weights, 'not safetensors'), (unsigned, 'unsigned'), (renumbered, 'altered'),
    (of_a_stranger, 'not trusted'), (of_a_stranger_in_disguise, 'altered'),
    (replayed, 'replayed'), (of_an_earlier_session, 'replayed')])
def test_weights_that_do_not_verify_are_refused_and_it_drives_on(
        connect: Callable[..., Road], log: Log,
        spoil: Callable[[ActorWeightsMessage], ActorWeightsMessage], reason: str) -> None:
    road = connect()
    road.send(message_of(actor_of(1), 1))
    before = values(road.drive_until(1))
    road.send(spoil(message_of(actor_of(2), 2)))
    assert reason in log.next('keeping policy 1')
    after = road.drive()
    assert (values(after), after.policy_version) == (before, 1)
    road.send(message_of(actor_of(3), 3))
    road.drive_until(3)


def test_a_learner_that_goes_on_from_a_checkpoint_may_count_back(connect: Callable[..., Road]
                                                                 ) -> None:
    road = connect()
    road.send(message_of(actor_of(1), 40))
    road.drive_until(40)
    road.send(message_of(actor_of(2), 31, Signer(KEY, started=1_001)))
    road.drive_until(31)


def test_refusals_are_told_once_and_counted_by_reason(
        peer: Peer, connect: Callable[..., Road], log: Log) -> None:
    health = peer.hear(DiagnosticArray, '/diagnostics')
    road = connect()
    road.send(message_of(actor_of(1), 1))
    road.drive_until(1)
    for _ in range(2):
        road.send(unsigned(message_of(actor_of(2), 2)))
        road.drive()

    def weights_of(message: DiagnosticArray) -> dict[str, str]:
        for status in message.status:
            if status.name.endswith('policy_node: weights') and status.level == b'\x02':
                assert 'unsigned' in status.message and 'version 1 drives on' in status.message
                return {one.key: one.value for one in status.values}
        return {}

    found = weights_of(health.next(weights_of))
    assert found['refused: unsigned'] in ('1', '2') and found['signed by'] == (
        KEY.public.fingerprint)
    assert 'unsigned' in log.next('keeping policy 1')
    road.send(replayed(message_of(actor_of(2), 2)))
    # The next line is that of another reason: the second unsigned one was not told again.
    assert 'replayed' in log.next('keeping policy 1')


def test_keys_change_while_it_drives(connect: Callable[..., Road], log: Log, trusted: Path
                                     ) -> None:
    road, new = connect(), new_key('new')
    road.send(message_of(actor_of(1), 1))
    road.drive_until(1)
    read_trust(trusted).with_key(new.public).write(trusted)
    road.send(message_of(actor_of(2), 2))  # the old one still counts
    road.drive_until(2)
    later = Signer(new, started=2_000)
    road.send(message_of(actor_of(3), 3, later))
    road.drive_until(3)
    read_trust(trusted).without(KEY.public.fingerprint).write(trusted)
    road.send(message_of(actor_of(4), 4, Signer(KEY, started=3_000)))
    assert 'revoked' in log.next('keeping policy 3')
    road.send(message_of(actor_of(5), 5, later))
    road.drive_until(5)


def test_unsigned_weights_need_an_explicit_word_that_warns(connect: Callable[..., Road], log: Log
                                                           ) -> None:
    road = connect({'trust.allow_unsigned': True, 'trust.keys': '/nowhere'})
    assert 'whoever reaches the topic drives' in log.next('trust.allow_unsigned = true')
    road.send(unsigned(message_of(actor_of(1), 1)))
    road.drive_until(1)


def test_without_trusted_keys_it_says_so_at_the_start(connect: Callable[..., Road], log: Log
                                                      ) -> None:
    road = connect({'trust.keys': '/nowhere'})
    assert 'av-td3 key trust' in log.next('/nowhere holds no trusted key')
    road.send(message_of(actor_of(1), 1))
    assert 'not trusted' in log.next('keeping policy 0')


def test_what_was_newest_is_known_after_a_restart(
        peer: Peer, make: Callable[..., Running], trusted: Path, tmp_path: Path, log: Log) -> None:
    given = {**SMALL, 'trust.keys': str(trusted), 'trust.memory': str(tmp_path / 'newest')}
    node = make('policy_node', given)
    road = Road(peer, node)
    road.send(message_of(actor_of(7), 7))
    road.drive_until(7)
    node.stop()
    # Latched: the same one comes again, and counts.
    road = Road(peer, make('policy_node', given))
    road.drive_until(7)
    # The newest that came last is looked at: what the first sender latched may come just then.
    again = peer.node.create_timer(0.3, lambda: road.send(message_of(actor_of(6), 6)))
    assert 'replayed' in log.next('keeping policy 7')
    peer.node.destroy_timer(again)


def test_training_warms_up_at_random_then_adds_noise(connect: Callable[..., Road]) -> None:
    road = connect({'training': True, 'exploration.warmup_steps': 30, 'exploration.noise': 0.1})
    actor = actor_of(1)
    road.send(message_of(actor, 1))
    road.drive_until(1)
    actions = [*road.actions.messages, *(road.drive() for _ in range(200))]
    assert all(one.exploring for one in actions)
    warmup, later = (np.array([values(one) for one in part])
                     for part in (actions[:30], actions[30:130]))
    greedy = actor.act(FRAMES, STATE)
    assert np.abs(warmup - greedy).max() > 0.3
    # Smooth: far less from one step to the next than over all.
    assert np.abs(np.diff(warmup[:, 1])).mean() < 0.5 * np.ptp(warmup[:, 1])
    assert (later - greedy).mean(axis=0) == pytest.approx([0.0, 0.0], abs=0.05)
    assert (later - greedy).std(axis=0) == pytest.approx([0.1, 0.1], abs=0.04)
    assert np.abs([values(one) for one in actions]).max() <= 1.0


def test_exploration_is_that_of_the_seed(peer: Peer, make: Callable[..., Running]) -> None:
    seen = []
    for seed in (1, 1, 2):
        node = make('policy_node', {**SMALL, 'training': True, 'seed': seed})
        road = Road(peer, node)
        seen.append([values(road.drive()) for _ in range(3)])
        node.stop()
    assert seen[0] == seen[1] != seen[2]


def test_noise_can_be_turned_down_while_it_drives(peer: Peer, connect: Callable[..., Road]
                                                  ) -> None:
    road = connect({'training': True, 'exploration.warmup_steps': 0})
    assert road.drive().exploring
    node = '/ego_vehicle/policy_node'
    assert peer.set_parameter(node, 'exploration.noise', 0.0).successful
    calm = road.drive()
    assert not calm.exploring and values(calm) == values(road.drive())
    assert 'range' in peer.set_parameter(node, 'exploration.noise', -1.0).reason
    assert not peer.set_parameter(node, 'driver', 'pursuit').successful


@pytest.mark.parametrize('mask', ['nothing', 'image', 'vector'])
def test_what_is_masked_does_not_reach_the_actor(connect: Callable[..., Road], mask: str) -> None:
    road = connect({'mask': mask})
    by_speed = np.array([STATE[0], *np.zeros(8)], np.float32)
    seen = values(road.drive())
    without_image, by_the_camera = (values(road.drive(*one)) for one in (
        (STATE, np.zeros_like(FRAMES)), (by_speed, FRAMES)))
    assert (seen == without_image) == (mask == 'image')
    assert (seen == by_the_camera) == (mask == 'vector')


def test_training_hides_the_vector_in_whole_episodes(connect: Callable[..., Road]) -> None:
    road = connect({'training': True, 'exploration.warmup_steps': 0, 'exploration.noise': 0.0,
                    'exploration.vector_dropout': 0.5})
    by_speed = np.array([STATE[0], *np.zeros(8)], np.float32)

    def blind(first: bool) -> bool:
        step = road.show(STATE, is_first=first)
        seen = road.actions.next(lambda one: one.step == step)
        return values(seen) == values(road.drive(by_speed))

    episodes = [[blind(first) for first in (True, False, False)] for _ in range(30)]
    assert all(len(set(steps)) == 1 for steps in episodes)
    assert {steps[0] for steps in episodes} == {True, False}


def test_the_pursuit_driver_drives_without_a_network(connect: Callable[..., Road]) -> None:
    road = connect({'driver': 'pursuit', 'pursuit.target_speed': 7.0})
    driver = PursuitDriver(PursuitSettings(target_speed=7.0))
    road.send(message_of(actor_of(1), 1))
    for _ in range(5):
        action = road.drive()
        assert values(action) == pytest.approx(driver.act(STATE).tolist(), abs=1e-6)
        assert (action.policy_version, action.exploring) == (0, False)
    # The route bends to the left, so does the driver.
    assert action.steer > 0.0
    road.show(is_first=True)  # a new episode: the sum of the speed error is forgotten
    driver.reset()
    assert values(road.actions.next()) == pytest.approx(driver.act(STATE).tolist(), abs=1e-6)


def test_the_random_driver_is_random(connect: Callable[..., Road]) -> None:
    road = connect({'driver': 'random'})
    actions = [road.drive() for _ in range(20)]
    assert len({one.steer for one in actions}) == 20
    assert {one.policy_version for one in actions} == {0}


def test_a_trace_tells_when_an_observation_was_there_and_answered(
        peer: Peer, make: Callable[..., Running], tmp_path: Path) -> None:
    node = make('policy_node', {**SMALL, 'trace': str(tmp_path / 'trace.csv')})
    stamp_ns = to_nanoseconds(Road(peer, node).drive().header.stamp)
    node.stop()
    found = read_trace(tmp_path / 'trace.csv')
    assert found['observation arrived'][stamp_ns] < found['decided'][stamp_ns]


@pytest.mark.parametrize(('state', 'frames', 'words'), [
    (np.full(9, np.nan, np.float32), FRAMES, 'not finite'),
    (STATE[:7], FRAMES, 'driving.waypoints'),
    (STATE, FRAMES[:3], 'frame.count'),
    (STATE, np.zeros((4, 84, 84), np.uint8), 'frame.size')])
def test_an_observation_that_does_not_fit_is_refused(
        connect: Callable[..., Road], log: Log, state: np.ndarray, frames: np.ndarray, words: str
        ) -> None:
    road = connect()
    refused = road.show(state, frames)
    assert words in log.next('observation refused')
    assert road.drive().step == refused + 1


@pytest.mark.parametrize('left_out', ['frames', 'state_size'])
def test_camera_or_state_may_be_left_out(connect: Callable[..., Road], left_out: str) -> None:
    network = dataclasses.replace(NETWORK, **{left_out: 0})
    road = connect({f'network.{left_out}': 0})
    actor = actor_of(4, network)
    road.send(message_of(actor, 4))
    seen = (FRAMES[:0], STATE) if left_out == 'frames' else (FRAMES, STATE[:0])
    assert values(road.drive_until(4)) == pytest.approx(actor.act(*seen).tolist(), abs=1e-6)


def test_it_starts_from_a_checkpoint(connect: Callable[..., Road], tmp_path: Path) -> None:
    agent = TD3(TD3Settings(batch_size=8, precision='float32'), NETWORK, 5)
    folder = Checkpoints(tmp_path / 'checkpoints').save(agent, counters={'policy_version': 12})
    action = connect({'weights': str(folder)}).drive()
    assert action.policy_version == 12
    assert values(action) == pytest.approx(agent.actor.act(FRAMES, STATE).tolist(), abs=1e-6)


def test_a_checkpoint_of_another_shape_is_refused_at_start(make: Callable[..., Running],
                                                           tmp_path: Path) -> None:
    agent = TD3(TD3Settings(batch_size=8), dataclasses.replace(NETWORK, features=4), 0)
    folder = Checkpoints(tmp_path / 'checkpoints').save(agent)
    with pytest.raises(ValueError, match=r'set network\.\* alike'):
        make('policy_node', {**SMALL, 'weights': str(folder)})
    with pytest.raises(ValueError, match='no checkpoint here'):
        make('policy_node', {**SMALL, 'weights': str(tmp_path / 'nowhere')})


def test_only_the_active_node_answers(peer: Peer, connect: Callable[..., Road]) -> None:
    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(peer.ask(ChangeState, '/ego_vehicle/policy_node/change_state',
                             request).success)

    road = connect()
    road.drive()
    assert change(Transition.TRANSITION_DEACTIVATE)
    unanswered = road.show()
    assert change(Transition.TRANSITION_ACTIVATE)
    assert road.drive().step == unanswered + 1
    assert unanswered not in [one.step for one in road.actions.messages]


def test_configuring_refuses_weights_that_do_not_fit(
        peer: Peer, make: Callable[..., Running], tmp_path: Path, log: Log) -> None:
    other = dataclasses.replace(NETWORK, features=16)
    path = Checkpoints(tmp_path / 'run').save(TD3(TD3Settings(), other))
    node = make('policy_node', {**SMALL, 'weights': str(path), 'autostart': False})
    node.connected(peer)
    node.spin()
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert not peer.ask(ChangeState, '/ego_vehicle/policy_node/change_state', request).success
    assert 'set network.* alike' in log.next('made for')
