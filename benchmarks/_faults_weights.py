"""Weights that must not drive: sent again and again to a policy node that drives meanwhile."""
from __future__ import annotations

import dataclasses
import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import yaml
from av_td3_msgs.msg import Action, Observation
from av_td3_msgs.msg import ActorWeights as ActorWeightsMessage
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import Header

from av_td3_ros.cli.monitor import Monitor
from av_td3_ros.cli.session import Session
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_actor_weights, to_bytes, to_floats, to_stamp
from av_td3_ros.ros.graph import session_nodes
from av_td3_ros.ros.runtime import DomainLease, every, ros_environment
from av_td3_ros.td3 import Actor, ActorWeights, NetworkSettings, pack
from av_td3_ros.trust.keys import new_key
from av_td3_ros.trust.signing import Signer
from av_td3_ros.trust.trusted import Trust
from benchmarks._faults import Fault, Outcome, claim

VEHICLE = 'ego_vehicle'
NETWORK = NetworkSettings(frame_size=36, state_size=9, channels=(4, 4, 4), features=8,
                          hidden=(16, 16))
PERIOD = 0.05  # s between two observations
PACE = 0.02  # s between two messages; one that comes before the last is judged replaces it
TOLD = 2.5  # s within which /diagnostics tells of all that was refused
STARTING = 120.0  # s
GOOD = 10  # the version that drives
TIMES = 200


class Drive:
    """A policy node in a process of its own that is shown observations and answers them."""

    def __init__(self, monitor: Monitor, session: Session) -> None:
        self.session = session
        node = monitor.node
        self.key = new_key('learner')
        self.signer = Signer(self.key, time.time_ns())
        self.send = node.create_publisher(
            ActorWeightsMessage, '/learner/actor_weights', qos.LATCHED).publish
        self._show = node.create_publisher(
            Observation, f'/{VEHICLE}/observation', qos.STEP).publish
        self._steps = itertools.count()
        self._lock = threading.Lock()
        self.shown, self.versions = 0, [0]
        self.answered: set[int] = set()
        self.refused: dict[str, int] = {}
        node.create_subscription(Action, f'/{VEHICLE}/action', self._on_action, qos.EVENT)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_health, qos.EVENT)
        every(node, PERIOD, self._observe)

    def weights(self, version: int, signer: Signer | None = None,
                network: NetworkSettings = NETWORK) -> ActorWeights:
        """Return weights as the trusted learner sends them."""
        return (signer or self.signer).seal(pack(Actor(network), version), time.time_ns())

    def take_the_good_ones(self) -> None:
        """Let the node drive by version GOOD. Raises TimeoutError."""
        self.send(to_actor_weights(self.weights(GOOD)))
        self.wait(lambda: self.versions[-1] == GOOD, 'the first weights')

    def inject(self, reason: str, times: int, make: Callable[[int], ActorWeights]) -> Outcome:
        """Send bad weights until `times` of them were counted as refused for `reason`."""
        before = self.refused.get(reason, 0)
        shown, answered, sent = self.shown, len(self.answered), 0

        def counted() -> int:
            return self.refused.get(reason, 0) - before

        until = time.monotonic() + STARTING
        while counted() < times and time.monotonic() < until:
            # What came while another one was judged was replaced unread: it is sent again.
            for _ in range(times - counted()):
                self.send(to_actor_weights(make(sent)))
                sent += 1
                time.sleep(PACE)
            self.session.check()
            told = time.monotonic() + TOLD
            while counted() < times and time.monotonic() < told:
                time.sleep(0.05)
        others = {one: count for one, count in self.refused.items() if one != reason and count}
        self.wait(lambda: len(self.answered) > answered, 'an action')
        drove = len(self.answered) - answered
        wrong = sum(version != GOOD for version in self.versions)
        name = f'{reason} weights'
        return Outcome(
            times, f'{counted()} counted as refused ({reason}) of {sent} sent; {drove} actions on '
            f'{self.shown - shown} observations meanwhile, all by version {GOOD}'
            + (f'; refused otherwise: {others}' if others else ''),
            f'{wrong} actions by other weights',
            [claim(f'{name}: refused of {times} injected', counted(), '', times, at_least=True),
             claim(f'{name}: actions by other weights', wrong, '', 0),
             claim(f'{name}: share of observations answered',
                   drove / max(1, self.shown - shown), '', 0.9, at_least=True)])

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it is so; raise TimeoutError when it never is."""
        until = time.monotonic() + STARTING
        while not condition():
            self.session.check()
            if time.monotonic() > until:
                raise TimeoutError(f'waited {STARTING:g} s in vain for {what}')
            time.sleep(0.02)

    def _observe(self) -> None:
        step = next(self._steps)
        draw = np.random.default_rng(step)
        self._show(Observation(
            header=Header(stamp=to_stamp(step * 50_000_000), frame_id=VEHICLE), vehicle=VEHICLE,
            episode=1, step=step, count=4, height=36, width=36,
            frames=to_bytes(draw.integers(0, 256, (4, 36, 36), np.uint8)),
            state=to_floats(draw.normal(size=9).astype(np.float32))))
        self.shown += 1

    def _on_action(self, message: Action) -> None:
        self.answered.add(message.step)
        if message.policy_version != self.versions[-1]:
            if message.policy_version == GOOD:
                self.versions.clear()
            self.versions.append(message.policy_version)

    def _on_health(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith('policy_node: weights'):
                self.refused = {one.key.partition(': ')[2]: int(one.value)
                                for one in status.values if one.key.startswith('refused: ')}


@contextmanager
def driving() -> Iterator[Drive]:
    """Start a policy node that trusts one learner, and let it drive by its weights."""
    os.environ.update(ros_environment(os.environ))
    lease, before = DomainLease(), os.environ.get('ROS_DOMAIN_ID')
    os.environ['ROS_DOMAIN_ID'] = str(lease.domain)
    torch.manual_seed(0)
    (spec,) = (one for one in session_nodes('embedded', VEHICLE, learning=False)
               if one.name == 'policy_node')
    try:
        with tempfile.TemporaryDirectory() as name:
            folder, monitor = Path(name), Monitor('faults', lease.domain)
            parameters = folder / 'parameters.yaml'
            network = {'frame_size': 36, 'state_size': 9, 'channels': [4, 4, 4], 'features': 8,
                       'hidden': [16, 16]}
            parameters.write_text(yaml.safe_dump({'/**': {'ros__parameters': {
                'network': network, 'trust': {'keys': str(folder / 'trusted_keys'),
                                              'memory': str(folder / 'newest')}}}}))
            session = Session([spec], parameters, folder / 'logs')
            drive = Drive(monitor, session)
            Trust().with_key(drive.key.public).write(folder / 'trusted_keys')
            with monitor, session:
                drive.take_the_good_ones()
                yield drive
    finally:
        lease.release()
        if before is None:
            del os.environ['ROS_DOMAIN_ID']
        else:
            os.environ['ROS_DOMAIN_ID'] = before


def unsigned(drive: Drive) -> Callable[[int], ActorWeights]:
    """Send newer weights whose signature was taken off."""
    return lambda index: dataclasses.replace(drive.weights(GOOD + 1 + index), signature=b'')


def altered(drive: Drive) -> Callable[[int], ActorWeights]:
    """Send newer weights of which one bit was flipped at random, in bytes, hash or signature."""
    draw = random.Random(0)

    def make(index: int) -> ActorWeights:
        whole = drive.weights(GOOD + 1 + index)
        part = draw.choice(('data', 'data', 'sha256', 'signature'))
        text = bytes.fromhex(whole.sha256) if part == 'sha256' else getattr(whole, part)
        spoilt = bytearray(text)
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        return dataclasses.replace(
            whole, **{part: spoilt.hex() if part == 'sha256' else bytes(spoilt)})

    return make


def replayed(drive: Drive) -> Callable[[int], ActorWeights]:
    """Send by turns an older version of this session and a newer one of a session before."""
    before = Signer(drive.key, drive.signer.started - 1)
    return lambda index: (drive.weights(index % GOOD) if index % 2
                          else drive.weights(GOOD + 1 + index, before))


def foreign(drive: Drive) -> Callable[[int], ActorWeights]:
    """Send newer weights that somebody else has signed, by a new key each time."""
    return lambda index: drive.weights(GOOD + 1 + index, Signer(new_key(), time.time_ns()))


def of_another_shape(drive: Drive) -> Callable[[int], ActorWeights]:
    """Send newer weights, rightly signed, of a network of another shape."""
    other = dataclasses.replace(NETWORK, features=4)
    return lambda index: drive.weights(GOOD + 1 + index, network=other)


def not_finite(drive: Drive) -> Callable[[int], ActorWeights]:
    """Send newer weights, rightly signed, with one value that is not finite."""
    draw = random.Random(1)

    def make(index: int) -> ActorWeights:
        actor = Actor(NETWORK)
        with torch.no_grad():
            parameter = draw.choice(list(actor.parameters())).view(-1)
            parameter[draw.randrange(len(parameter))] = draw.choice(
                (float('nan'), float('inf'), float('-inf')))
        return drive.signer.seal(pack(actor, GOOD + 1 + index), time.time_ns())

    return make


def _fault(reason: str, prepare: Callable[[Drive], Callable[[int], ActorWeights]]) -> Fault:
    def inject(times: int) -> Outcome:
        with driving() as drive:
            return drive.inject(reason, times, prepare(drive))

    return Fault(TIMES, inject)


FAULTS = {
    'weights: unsigned': _fault('unsigned', unsigned),
    'weights: altered': _fault('altered', altered),
    'weights: replayed': _fault('replayed', replayed),
    'weights: foreign key': _fault('foreign key', foreign),
    'weights: wrong architecture': _fault('architecture', of_another_shape),
    'weights: not finite': _fault('not finite', not_finite),
}
