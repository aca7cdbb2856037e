"""Replay memory that stores every frame once and rebuilds stacks when it is sampled."""
from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_td3_ros.td3.networks import ACTION_SIZE
from av_td3_ros.td3.vehicle_steps import VehicleSteps

NONE = -1
"""Stands for a step that is not there, in columns that name steps by number."""

SEGMENT = 1024
"""Steps in one exported segment."""


TRANSITIONS, VEHICLES = 'transitions', 'vehicles'
"""What a replay draws alike: all transitions, or all vehicles, however much each one drove."""

SPARE = 1_000_000_000
"""Bytes of a disk that the frames leave to others."""

KNOWN = 0.05
"""A discounted sum of rewards counts as the whole return once no more than this share is left."""


class ReplayError(ValueError):
    """A step that cannot be stored, or a sample that cannot be drawn."""


class DuplicateError(ReplayError):
    """A step that is there already, or comes after a later one."""


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """
    One step of an episode in RLDS form: what was seen, done on it, and gained by it.

    `frame` is the newest camera frame uint8 (H, W), `state` float32 (S,), `action` what the
    vehicle executed, (2,) in [-1, 1], `reward` what followed it. The last step of an episode has
    no action and no reward: whatever stands there is ignored. `is_last` without `is_terminal` is
    a truncation. `session` tells a restarted vehicle of the same name from the one before.
    `is_context` marks a step that only completes the stacks and returns of its neighbours: it is
    never drawn itself. `sequence` is its number in the session, 0 where nobody counts.
    """

    vehicle: str
    episode: int
    step: int
    frame: NDArray[np.uint8]
    state: NDArray[np.float32]
    action: NDArray[np.float32] | None
    reward: float | None
    is_first: bool
    is_last: bool
    is_terminal: bool
    policy_version: int = 0
    session: str = ''
    is_context: bool = False
    sequence: int = 0


@dataclasses.dataclass
class ReplayCounts:
    """What was not as it should be, since the buffer was made."""

    broken: int = 0  # refused: a wrong size, a number that is not finite, an action out of range
    duplicate: int = 0  # refused: there already, or out of order
    gaps: int = 0  # a step is missing within an episode: its neighbours share no stack
    unfinished: int = 0  # the next episode began though this one had not ended
    restarts: int = 0  # a vehicle that was known came back with a new session


class Batch(NamedTuple):
    """
    Transitions to learn from, B of them.

    frames and next_frames (B, F, H, W) uint8 in channels-last memory, newest last; state and
    next_state (B, S); action (B, 2); reward (B,): the discounted sum of n rewards; discount (B,):
    gamma^n, 0 where the next step is terminal.
    """

    frames: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    next_frames: Tensor
    next_state: Tensor
    discount: Tensor


@dataclasses.dataclass
class Stream:
    """The newest step of one vehicle and session; `serial` is where a replay has it."""

    serial: int
    episode: int
    step: int
    is_last: bool
    sequence: int = 0

    @staticmethod
    def of(record: StepRecord, serial: int = NONE) -> Stream:
        """Return the stream that a step brings up to date."""
        return Stream(serial, int(record.episode), int(record.step), bool(record.is_last),
                      int(record.sequence))


class ReplayBuffer:
    """
    Keep the newest `capacity` steps of any number of vehicles, whose steps may interleave.

    Every step gets a serial number and lives in slot serial % capacity. Columns that point to
    other steps hold serial numbers, so that a pointer to an overwritten step is seen as such.
    A transition can be sampled when its next step and all frames of its stack are there: a stack
    is padded with the episode's first frame, as the vehicle's was, but never across a lost step.
    The frames lie in RAM, in a nameless mapped file in the folder `path`, which is gone with the
    process, or on `device`; a batch's frames are where they lie. `alike` says what is drawn
    alike: TRANSITIONS or VEHICLES. Safe to use from two threads.
    """

    def __init__(self, capacity: int, frames: int = 4, frame_size: int = 84, state_size: int = 53,
                 seed: int = 0, path: str | Path | None = None, device: str = 'cpu',
                 alike: str = TRANSITIONS) -> None:
        if capacity < 2:
            raise ReplayError(f'replay: capacity = {capacity} holds no transition; give 2 or more')
        self.capacity, self.frames, self.frame_size = capacity, frames, frame_size
        self.state_size = state_size
        self._frames = _frame_store((capacity, frame_size ** 2 if frames else 0), path, device)
        self._rows = self._frames.numpy() if self._frames.device.type == 'cpu' else None
        # What a step is, never changed once written, ...
        self._columns: dict[str, NDArray[Any]] = {
            'state': np.zeros((capacity, state_size), np.float32),
            'action': np.zeros((capacity, ACTION_SIZE), np.float32),
            'reward': np.zeros(capacity, np.float32),
            'is_last': np.zeros(capacity, np.bool_),
            'is_terminal': np.zeros(capacity, np.bool_),
            'is_context': np.zeros(capacity, np.bool_),
            'policy_version': np.zeros(capacity, np.int64),
            'vehicle': np.zeros(capacity, np.int32),
            'stack': np.full((capacity, max(frames, 1)), NONE, np.int64),
            'previous': np.full(capacity, NONE, np.int64)}
        # ... and what follows from later steps: the next step of the same episode, and how many
        # transitions cannot be sampled any more once this step is overwritten.
        self._next = np.full(capacity, NONE, np.int64)
        self._needed_by = np.zeros(capacity, np.int32)
        self._streams: dict[tuple[str, str], Stream] = {}
        self._vehicles: dict[str, int] = {}
        self._of_vehicles = VehicleSteps() if alike == VEHICLES else None
        self._first = self._total = self._available = 0
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._lock = threading.Lock()
        self.counts = ReplayCounts()
        # Who exported segments asks whether they still belong to this content.
        self.lineage: object = object()

    def __len__(self) -> int:
        """Return how many transitions can be sampled."""
        return self._available

    @property
    def steps(self) -> int:
        """Return how many steps are stored."""
        return self._total - self._first

    @property
    def total(self) -> int:
        """Return how many steps were ever added."""
        return self._total

    @property
    def bytes_per_step(self) -> int:
        """Return the memory that one stored step takes, index included."""
        columns = [*self._columns.values(), self._next, self._needed_by]
        return (self._frames.nbytes + sum(column.nbytes for column in columns)) // self.capacity

    def mean_policy_version(self, newest: int = 0) -> float:
        """
        Return the mean version of the policies that drove the `newest` steps, or all for 0.

        It is nan where none of them was driven by a policy of this run.
        """
        versions = self.stored('policy_version', newest)
        known = versions[versions != NONE]
        return float(known.mean()) if len(known) else float('nan')

    def stored(self, column: str, newest: int = 0) -> NDArray[Any]:
        """Return a column such as 'reward' of the `newest` steps, or all for 0, oldest first."""
        with self._lock:
            first = max(self._first, self._total - newest) if newest else self._first
            slots = np.arange(first, self._total) % self.capacity
            stored: NDArray[Any] = self._columns[column][slots]
            return stored

    def add(self, record: StepRecord) -> None:
        """
        Store one step.

        Raises ReplayError, storing nothing, for one that is broken, DuplicateError for one that
        is late; `counts` says how many there were, and what else was amiss.
        """
        try:
            state, action, reward = self.checked(record)
        except ReplayError:
            self.counts.broken += 1
            raise
        with self._lock:
            stream = self._streams.get((record.vehicle, record.session))
            try:
                linked = stream is not None and continues(stream, record)
            except ReplayError:
                self.counts.duplicate += 1
                raise
            note_irregular(self.counts, self._streams, linked, record)
            serial = self._total
            slot = serial % self.capacity
            column = self._columns
            if serial - self._first == self.capacity:
                self._available -= int(self._needed_by[slot])
                self._first += 1
                if self._of_vehicles is not None:
                    self._of_vehicles.drop(int(column['vehicle'][slot]),
                                           int(self._needed_by[slot]))
            vehicle = self._vehicles.setdefault(record.vehicle, len(self._vehicles))
            if self._of_vehicles is not None:
                self._of_vehicles.add(vehicle, serial)
            if self.frames:
                if self._rows is None:
                    self._frames[slot] = torch.from_numpy(np.array(record.frame)).view(-1)
                else:
                    self._rows[slot] = record.frame.reshape(-1)
            column['state'][slot], column['action'][slot] = state, action
            column['reward'][slot], column['policy_version'][slot] = reward, record.policy_version
            column['is_last'][slot] = record.is_last
            column['is_terminal'][slot] = record.is_terminal
            column['is_context'][slot] = record.is_context
            column['vehicle'][slot] = vehicle
            self._next[slot], self._needed_by[slot] = NONE, 0
            self._total += 1
            previous = NONE
            if linked and stream is not None and stream.serial >= self._first:
                previous = stream.serial
            column['previous'][slot] = previous
            self._stack_up(serial, previous, record.is_first)
            if previous != NONE:
                self._link(previous, serial)
            self._streams[record.vehicle, record.session] = Stream.of(record, serial)

    def sample(self, batch_size: int, gamma: float, n_step: int = 1, part: tuple[int, int] = (0, 1)
               ) -> Batch:
        """
        Draw transitions, with replacement: all of them alike, or all vehicles.

        Up to `n_step` rewards are summed: fewer where the episode, or what is known of it, ends
        before; then the value of the last known state is bootstrapped unless it is terminal.
        `part` says which of how many equal draws is wanted, for ranks that hold the same replay.
        Raises ReplayError when there is nothing to draw.
        """
        index, count = part
        with self._lock:
            slots = self._draw(count * batch_size)[index * batch_size:(index + 1) * batch_size]
            return self._batch(slots, gamma, n_step)

    def blank(self, batch_size: int) -> Batch:
        """Return a batch of nothing, to take part with where there is nothing to draw."""
        size = self.frame_size if self.frames else 0
        frames = torch.zeros((batch_size, size, size, self.frames), dtype=torch.uint8,
                             device=self._frames.device).permute(0, 3, 1, 2)
        state, numbers = torch.zeros(batch_size, self.state_size), torch.zeros(batch_size)
        return Batch(frames, state, torch.zeros(batch_size, ACTION_SIZE), numbers, frames, state,
                     numbers)

    def sample_returns(self, batch_size: int, gamma: float, newest: int, seed: int = 0) -> Batch:
        """
        Draw transitions of the newest steps whose observed return is known, as far as there are.

        `reward` holds the discounted sum of all rewards until the episode's end, or until no more
        than a twentieth of the discount is left. Their number varies, it may be none. Draws with
        a randomness of its own, so that to look changes nothing of what is learned.
        """
        horizon = 1 if gamma <= KNOWN else min(1000, math.ceil(math.log(KNOWN) / math.log(gamma))
                                               if gamma < 1.0 else 1000)
        with self._lock:
            first = max(self._first, self._total - newest)
            whole = np.flatnonzero(self._whole(np.arange(first, self._total) % self.capacity))
            if not len(whole):
                return self._batch(whole, gamma, 1)
            chosen = np.random.default_rng(seed).choice(whole, batch_size)
            batch = self._batch((first + chosen) % self.capacity, gamma, horizon)
        known = batch.discount <= KNOWN
        return Batch(*(column[known.to(column.device)] for column in batch))

    def _batch(self, slots: NDArray[np.int64], gamma: float, n_step: int) -> Batch:
        reward: NDArray[np.float64] = np.zeros(len(slots))
        discount: NDArray[np.float64] = np.ones(len(slots))
        last, more = slots, np.ones(len(slots), np.bool_)
        for _ in range(n_step):
            reward += np.where(more, discount * self._columns['reward'][last], 0.0)
            discount = np.where(more, discount * gamma, discount)
            last = np.where(more, self._next[last] % self.capacity, last)
            more = self._next[last] != NONE
            if not more.any():
                break
        discount[self._columns['is_terminal'][last]] = 0.0
        state, action = self._columns['state'], self._columns['action']
        return Batch(self._stacks(slots), torch.from_numpy(state[slots]),
                     torch.from_numpy(action[slots]),
                     torch.from_numpy(reward.astype(np.float32)), self._stacks(last),
                     torch.from_numpy(state[last]),
                     torch.from_numpy(discount.astype(np.float32)))

    def checked(self, record: StepRecord
                ) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """Return a step's state, action and reward; raise ReplayError when it is broken."""
        where = _where(record)
        if record.episode < 0 or record.step < 0:
            raise ReplayError(f'{where}: episode and step must not be negative')
        if record.is_terminal and not record.is_last:
            raise ReplayError(f'{where}: is_terminal without is_last')
        if not NONE <= record.policy_version < 2**63:
            raise ReplayError(f'{where}: policy_version {record.policy_version} is none')
        size = (self.frame_size, self.frame_size)
        frame = record.frame
        if self.frames and (frame.shape != size or frame.dtype != np.uint8):
            raise ReplayError(f'{where}: frame is {frame.dtype}{list(frame.shape)}, expected '
                              f'uint8{list(size)}')
        state = _numbers(where, 'state', record.state, self.state_size)
        if record.is_last:
            return state, np.zeros(ACTION_SIZE, np.float32), 0.0
        if record.action is None or record.reward is None:
            raise ReplayError(f'{where}: no action or no reward, though it is not the last step')
        action = _numbers(where, 'action', record.action, ACTION_SIZE)
        if np.abs(action).max() > 1.0:
            raise ReplayError(f'{where}: action {action.tolist()} is outside [-1, 1]')
        if not np.isfinite(record.reward):
            raise ReplayError(f'{where}: reward {record.reward} is not finite')
        return state, action, float(record.reward)

    def _stack_up(self, serial: int, previous: int, is_first: bool) -> None:
        stack, slot = self._columns['stack'], serial % self.capacity
        if previous != NONE:
            stack[slot, :-1] = stack[previous % self.capacity, 1:]
        else:
            # After a lost step the frames before are not known: not a stack to learn from yet.
            stack[slot] = serial if is_first else NONE
        stack[slot, -1] = serial

    def _link(self, previous: int, serial: int) -> None:
        slot = previous % self.capacity
        self._next[slot] = serial
        oldest_frame = int(self._columns['stack'][slot, 0])
        if oldest_frame >= self._first and not self._columns['is_context'][slot]:
            self._needed_by[oldest_frame % self.capacity] += 1
            self._available += 1
            if self._of_vehicles is not None:
                self._of_vehicles.available[int(self._columns['vehicle'][slot])] += 1

    def _whole(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which steps are transitions to draw: all frames and the next step are there."""
        whole: NDArray[np.bool_] = (
            (self._next[slots] != NONE) & ~self._columns['is_context'][slots]
            & (self._columns['stack'][slots, 0] >= self._first))
        return whole

    def _draw(self, count: int) -> NDArray[np.int64]:
        if not self._available:
            raise ReplayError('replay: no transition to sample yet; add two consecutive steps of '
                              'an episode first')
        if self._of_vehicles is not None:
            return self._of_vehicles.draw(
                self._random, count, lambda serials: self._whole(serials % self.capacity)
                ) % self.capacity
        if self._available * 4 < self.steps:  # so few that drawing and rejecting would take long
            stored = np.arange(self._first, self._total) % self.capacity
            return self._random.choice(stored[self._whole(stored)], count)
        found: NDArray[np.int64] = np.empty(0, np.int64)
        while len(found) < count:
            slots = self._random.integers(self._first, self._total, 2 * count) % self.capacity
            found = np.concatenate((found, slots[self._whole(slots)]))
        return found[:count]

    def _stacks(self, slots: NDArray[np.int64]) -> Tensor:
        stack = torch.from_numpy(self._columns['stack'][slots] % self.capacity)
        size = self.frame_size if self.frames else 0
        if not self.frames:
            return self._frames.new_empty((len(slots), 0, size, size))
        # Frame by frame, then interleaved: channels-last memory in two passes of whole rows.
        planes = [self._frames.index_select(0, column.to(self._frames.device))
                  for column in stack.unbind(1)]
        stacks = torch.stack(planes, -1).view(len(slots), size, size, self.frames)
        return stacks.permute(0, 3, 1, 2)

    def transitions_of(self, vehicles: Sequence[str]) -> list[int]:
        """Return how many transitions of each of these vehicles can be drawn, where all alike."""
        with self._lock:
            known = {} if self._of_vehicles is None else self._of_vehicles.available
            return [known.get(self._vehicles.get(vehicle, NONE), 0) for vehicle in vehicles]

    def know_whole(self, transitions: Mapping[str, int]) -> None:
        """Take how many transitions of each vehicle all ranks together hold."""
        with self._lock:
            if self._of_vehicles is not None:
                self._of_vehicles.whole = {
                    self._vehicles[vehicle]: count for vehicle, count in transitions.items()
                    if vehicle in self._vehicles}

    def reached(self) -> dict[tuple[str, str], int]:
        """Return the number of the newest step of each vehicle and session."""
        with self._lock:
            return {key: stream.sequence for key, stream in self._streams.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all but the segments' content, as plain values that JSON can hold."""
        with self._lock:
            return {'frames': self.frames, 'frame_size': self.frame_size,
                    'state_size': self.state_size, 'first': self._first, 'total': self._total,
                    'counts': dataclasses.asdict(self.counts),
                    'random': self._random.bit_generator.state,
                    'vehicles': list(self._vehicles),
                    'streams': [[*key, *dataclasses.astuple(stream)]
                                for key, stream in self._streams.items()]}

    def segment(self, index: int, total: int) -> dict[str, NDArray[Any]]:
        """Return copies of the columns of the index-th 1024 steps, as far as below `total`."""
        with self._lock:
            start = max(index * SEGMENT, self._first)
            serials = np.arange(start, max(start, min((index + 1) * SEGMENT, total)))
            slots = serials % self.capacity
            frames = self._frames[torch.from_numpy(slots)].cpu().numpy()
            return {'serial': serials, 'frame': frames,
                    **{name: column[slots] for name, column in self._columns.items()}}

    def load_state_dict(self, values: Mapping[str, Any],
                        segments: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        """
        Become the buffer that was exported, as far as the capacity goes.

        `segments` come in order. Raises ReplayError when the sizes differ.
        """
        for name in ('frames', 'frame_size', 'state_size'):
            if values[name] != getattr(self, name):
                raise ReplayError(f'replay: stored with {name} = {values[name]}, this one has '
                                  f'{getattr(self, name)}')
        with self._lock:
            self.lineage = object()
            self._total = int(values['total'])
            self._first = max(int(values['first']), self._total - self.capacity)
            self._next[:], self._needed_by[:] = NONE, 0
            expected = self._first
            for segment in segments:
                kept = (segment['serial'] >= self._first) & (segment['serial'] < self._total)
                serials = segment['serial'][kept]
                if len(serials) and serials[0] > expected:
                    # Steps that were overwritten while the export was being written.
                    self._first = int(serials[0])
                    self._next[:] = NONE
                expected = int(serials[-1]) + 1 if len(serials) else expected
                slots = serials % self.capacity
                if self.frames:
                    self._frames[torch.from_numpy(slots)] = torch.from_numpy(
                        segment['frame'][kept]).to(self._frames.device)
                for name, column in self._columns.items():
                    # Whose a step is was not written once: those before are of one vehicle.
                    column[slots] = (segment[name][kept] if name in segment or name != 'vehicle'
                                     else 0)
                previous = self._columns['previous'][slots]
                known = previous >= self._first
                self._next[previous[known] % self.capacity] = serials[known]
            if expected != self._total:
                raise ReplayError(f'replay: stored segments end at step {expected} of '
                                  f'{self._total}')
            slots = np.arange(self._first, self._total) % self.capacity
            oldest = self._columns['stack'][slots, 0]
            whole = self._whole(slots)
            np.add.at(self._needed_by, oldest[whole] % self.capacity, 1)
            self._available = int(whole.sum())
            if self._of_vehicles is not None:
                self._of_vehicles.restore(self._columns['vehicle'][slots],
                                          np.arange(self._first, self._total), whole)
            self._vehicles = {vehicle: index for index, vehicle in
                              enumerate(values.get('vehicles', ['']))}
            self._streams = {(vehicle, session): Stream(*rest)
                             for vehicle, session, *rest in values['streams']}
            self.counts = ReplayCounts(**values['counts'])
            self._random.bit_generator.state = values['random']


def _frame_store(shape: tuple[int, int], path: str | Path | None, device: str) -> Tensor:
    if path is None or not shape[1]:
        return torch.zeros(shape, dtype=torch.uint8, device=device)
    if torch.device(device).type != 'cpu':
        raise ReplayError(f'replay: frames cannot lie both in {path} and on {device}')
    size = shape[0] * shape[1]
    if not Path(path).is_dir():
        raise ReplayError(f'replay: {path} is no folder: make it, or name another one')
    free = shutil.disk_usage(path).free
    if free < size + SPARE:
        raise ReplayError(f'replay: {size / 1e9:.1f} GB of frames in {path}, where '
                          f'{free / 1e9:.1f} GB are free; name another folder or give a '
                          'smaller capacity')
    with tempfile.TemporaryFile(dir=path) as file:
        # All of it now: a page that cannot be written later would kill the process.
        os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, np.uint8, 'r+', shape=shape))


def _numbers(where: str, name: str, values: NDArray[np.float32], size: int
             ) -> NDArray[np.float32]:
    numbers = np.asarray(values, np.float32)
    if numbers.shape != (size,):
        raise ReplayError(f'{where}: {name} has shape {list(numbers.shape)}, expected [{size}]')
    if not np.isfinite(numbers).all():
        raise ReplayError(f'{where}: {name} {numbers.tolist()} is not finite')
    return numbers


def _where(record: StepRecord) -> str:
    return f'replay: vehicle {record.vehicle!r} episode {record.episode} step {record.step}'


def continues(stream: Stream, record: StepRecord) -> bool:
    """Return whether `record` follows the stream's newest step directly; raise if it is late."""
    if (record.episode, record.step) <= (stream.episode, stream.step):
        raise DuplicateError(f'{_where(record)}: duplicate or out of order, it came after episode '
                          f'{stream.episode} step {stream.step}')
    if record.episode != stream.episode:
        return False
    if stream.is_last:
        raise ReplayError(f'{_where(record)}: the episode ended at step {stream.step}')
    if record.is_first:
        raise ReplayError(f'{_where(record)}: is_first, but the episode already has step '
                          f'{stream.step}')
    return record.step == stream.step + 1


def note_irregular(counts: ReplayCounts, streams: Mapping[tuple[str, str], Stream], linked: bool,
                   record: StepRecord) -> None:
    """Count what is amiss with a step that `streams` do not have yet."""
    stream = streams.get((record.vehicle, record.session))
    if stream is None:
        counts.restarts += any(name == record.vehicle for name, _ in streams)
    elif not linked:
        counts.gaps += record.episode == stream.episode
        counts.unfinished += record.episode != stream.episode and not stream.is_last
