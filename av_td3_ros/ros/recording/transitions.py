"""Transition messages, live or from a bag, as the steps that a replay takes."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from av_td3_msgs.msg import AppliedAction

from av_td3_ros.ros.recording.bag import read_transitions, unfinished
from av_td3_ros.td3.networks import NetworkSettings
from av_td3_ros.td3.replay import NONE, DuplicateError, ReplayError, StepRecord


def step_record(message: Any, network: NetworkSettings) -> StepRecord:
    """Return a message as the replay takes it. Raises ReplayError when its frame has no shape."""
    if len(message.frame) != message.height * message.width:
        raise ReplayError(f'{message.vehicle} episode {message.episode} step {message.step}: '
                          f'{len(message.frame)} bytes are no {message.width}x{message.height} '
                          'frame')
    frame = np.frombuffer(message.frame, np.uint8).reshape(message.height, message.width)
    state = np.asarray(message.state, np.float32)
    return StepRecord(
        vehicle=message.vehicle, session=message.session, episode=message.episode,
        step=message.step, frame=frame, state=state if network.state_size else state[:0],
        action=np.array((message.steer, message.acceleration), np.float32),
        reward=message.reward, is_first=message.is_first, is_last=message.is_last,
        is_terminal=message.is_terminal, policy_version=message.policy_version,
        sequence=message.sequence)


def by_human(message: Any) -> bool:
    """Return whether a human drove this step."""
    return int(message.source) == AppliedAction.SOURCE_HUMAN


@dataclasses.dataclass(frozen=True)
class Loaded:
    """How many steps of a bag were taken, refused as broken, and there already; was it closed."""

    taken: int
    refused: int
    known: int
    unfinished: bool = False


def load_bag(directory: str, network: NetworkSettings, take: Callable[[StepRecord, bool], None]
             ) -> Loaded:
    """
    Give every transition of a bag to `take(record, human)`.

    Versions of policies are left out: they are those of another run. Raises ValueError naming the
    bag when it cannot be read or nothing of it fits.
    """
    taken = refused = known = 0
    reason = ''
    for message in read_transitions(Path(directory)):
        try:
            record = dataclasses.replace(step_record(message, network), policy_version=NONE)
            take(record, by_human(message))
            taken += 1
        except DuplicateError:
            known += 1
        except ReplayError as error:
            refused += 1
            reason = reason or str(error)
    if not taken and not known:
        raise ValueError(f'bag {directory}: ' + (
            f'none of its {refused} transitions fits: {reason}' if refused else
            'it holds no transitions'))
    return Loaded(taken, refused, known, bool(unfinished(Path(directory))))
