"""Weights on their way between processes: a policy that was killed has the newest at once."""
from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
from av_td3_msgs.msg import Action, Observation
from harness import SPECS, Peer, await_that, parameter_file
from std_msgs.msg import Header
from test_learner_node import NETWORK, SMALL, School

from av_td3_ros.cli.session import Session
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_stamp
from av_td3_ros.settings import flatten
from av_td3_ros.trust.session_key import SessionKey

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 36, 36), np.uint8)
RESTART = 30.0  # s of wall time in which a policy is back: most of it is the import of torch


class Vehicle:
    """Asks the policy for actions all the time."""

    def __init__(self, peer: Peer) -> None:
        self.actions = peer.hear(Action, '/ego_vehicle/action')
        self._observe = peer.speak(Observation, '/ego_vehicle/observation', heard=False)
        self._steps = itertools.count()

    def await_version(self, version: int, timeout: float) -> None:
        """Drive until a version of the policy answers."""
        seen = len(self.actions.messages)

        def answered() -> bool:
            step = next(self._steps)
            self._observe(Observation(
                header=Header(stamp=to_stamp(step * 50_000_000), frame_id='ego_vehicle'),
                vehicle='ego_vehicle', episode=0, step=step, count=4, height=36, width=36,
                frames=to_bytes(FRAMES), state=to_floats(np.full(5, 0.1, np.float32))))
            time.sleep(0.02)
            return any(one.policy_version == version for one in self.actions.messages[seen:])

        await_that(answered, f'an action of policy {version}', timeout)


def test_a_policy_that_was_killed_has_the_newest_weights_when_it_is_back(peer: Peer,
                                                                         tmp_path: Path) -> None:
    network = {f'network.{name}': value for name, value in flatten(NETWORK).items()}
    file = parameter_file(tmp_path, {
        'learner_node': {**SMALL, 'weights_precision': 'float16'}, 'policy_node': network})
    vehicle = Vehicle(peer)
    with SessionKey() as key:
        learner, first, second = (
            Session([SPECS[name]], file, tmp_path / f'logs_{number}', key=key)
            for number, name in enumerate(('learner_node', 'policy_node', 'policy_node')))
        with learner, first:
            school = School(peer)
            school.status.next()
            school.teach(1, 60)
            newest = school.until(lambda one: one.updates == 22).policy_version
            vehicle.await_version(newest, 2 * RESTART)
            os.kill(first.process_ids()['policy_node'], signal.SIGKILL)
            await_that(lambda: first.states()['policy_node'] == 'died', 'its death')
            with second:
                vehicle.await_version(newest, RESTART)
            # Nothing was published in between: it had what lay ready for it.
            assert school.status.messages[-1].policy_version == newest
