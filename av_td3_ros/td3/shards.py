"""The replay of several ranks: each keeps whole episodes, handed out by rank 0."""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import threading
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray

from av_td3_ros.td3.agent import TD3
from av_td3_ros.td3.checkpoint import agent_to_bytes
from av_td3_ros.td3.ranks import Ranks, RanksError
from av_td3_ros.td3.replay import (
    TRANSITIONS,
    VEHICLES,
    DuplicateError,
    ReplayBuffer,
    ReplayCounts,
    ReplayError,
    StepRecord,
    Stream,
    continues,
    note_irregular,
)
from av_td3_ros.td3.vehicle_steps import weights

REPLAY, DEMONSTRATIONS = 'replay', 'demonstrations'
HEARTBEAT = 1.0  # s of wall time after which the others hear from rank 0, whatever there is to say
FULL = 1024  # steps that wait for one rank before they are sent though nothing else is

_ARRAYS = ('frame', 'state', 'action')


def rank_of(record: StepRecord, count: int) -> int:
    """
    Return which of `count` ranks keeps a step: always the same for all of an episode.

    A vehicle's episodes go to the ranks in turn, so that these have about as much each.
    """
    first = zlib.crc32(f'{record.vehicle}\0{record.session}'.encode())
    return (first + record.episode) % count


def to_message(order: str, data: bytes = b'', **values: Any) -> bytes:
    """Return an order to a rank with what belongs to it: a line of JSON, then bytes."""
    return json.dumps({'order': order, **values}).encode() + b'\n' + data


def from_message(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Return what `to_message` was given: its values with 'order' among them, and the bytes."""
    line, _, data = message.partition(b'\n')
    return json.loads(line), data


def pack_steps(steps: Sequence[tuple[str, StepRecord]]) -> bytes:
    """Return steps, each with the name of the replay that it is for, as safetensors."""
    if not steps:
        return b''
    about, arrays = [], {}
    for index, (name, record) in enumerate(steps):
        about.append({'for': name, **{field.name: getattr(record, field.name)
                                      for field in dataclasses.fields(record)
                                      if field.name not in _ARRAYS}})
        arrays[f'{index}.frame'] = np.ascontiguousarray(record.frame)
        arrays[f'{index}.state'] = np.asarray(record.state, np.float32)
        if record.action is not None:
            arrays[f'{index}.action'] = np.asarray(record.action, np.float32)
    return safetensors.numpy.save(arrays, {'steps': json.dumps(about, default=_plain)})


def unpack_steps(data: bytes) -> list[tuple[str, StepRecord]]:
    """Return what `pack_steps` was given."""
    if not data:
        return []
    length = int.from_bytes(data[:8], 'little')
    about = json.loads(json.loads(data[8:8 + length])['__metadata__']['steps'])
    arrays = safetensors.numpy.load(data)
    steps = []
    for index, values in enumerate(about):
        name = values.pop('for')
        steps.append((name, StepRecord(**values, frame=arrays[f'{index}.frame'],
                                       state=arrays[f'{index}.state'],
                                       action=arrays.get(f'{index}.action'))))
    return steps


def _plain(value: Any) -> Any:
    return value.item()  # a number of numpy's


def shares(sizes: Sequence[float]) -> list[float]:
    """
    Return the weights of the ranks' batches, so that every transition counts the same.

    Each is drawn from a shard of its own: the larger, the more each transition stands for. Where
    vehicles are drawn alike, its size is what it holds of each vehicle, added up.
    """
    whole = sum(sizes)
    return [size / whole if whole else 1.0 / len(sizes) for size in sizes]


class RemoteReplay:
    """
    Export and restore a replay that another rank holds, as its `ReplayBuffer` would here.

    Between two rounds only, on the thread that makes these.
    """

    def __init__(self, ranks: Ranks, rank: int, name: str = REPLAY) -> None:
        self._ranks, self._rank, self._name = ranks, rank, name
        self.lineage = object()

    def state_dict(self) -> dict[str, Any]:
        """Return all but the segments' content."""
        state: dict[str, Any] = json.loads(self._ask('state'))
        return state

    def segment(self, index: int, total: int) -> dict[str, NDArray[Any]]:
        """Return the columns of the index-th 1024 steps, as far as below `total`."""
        return safetensors.numpy.load(self._ask('segment', index=index, total=total))

    def load_state_dict(self, values: Mapping[str, Any],
                        segments: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        """Become the replay that was exported. Raises ReplayError when it does not fit."""
        self.lineage = object()
        self._send('load', values=dict(values))
        for segment in segments:
            self._ranks.send(self._rank, to_message(
                'segment', safetensors.numpy.save(dict(segment))))
        self._ranks.send(self._rank, to_message('end'))
        refused = self._ranks.receive(self._rank).decode()
        if refused:
            raise ReplayError(f'rank {self._rank}: {refused}')

    def _send(self, order: str, **values: Any) -> None:
        self._ranks.send(self._rank, to_message(order, replay=self._name, **values))

    def _ask(self, order: str, **values: Any) -> bytes:
        self._send(order, **values)
        return self._ranks.receive(self._rank)


class ShardedReplay:
    """
    Hold the replay of all ranks, as rank 0 sees it: its `own` shard and those of the others.

    What another rank keeps waits here until `round`, which one thread alone may call. Counts are
    those of all; `others` are the other ranks' shards, to be exported and restored.
    """

    def __init__(self, own: ReplayBuffer, ranks: Ranks, alike: str = TRANSITIONS) -> None:
        self.own, self.ranks, self._alike = own, ranks, alike
        self.counts = ReplayCounts()
        self.others = [RemoteReplay(ranks, rank) for rank in range(1, ranks.count)]
        self._streams: dict[tuple[str, str], Stream] = {}
        self._waiting: dict[int, list[tuple[str, StepRecord]]] = {
            rank: [] for rank in range(1, ranks.count)}
        self._held = [Held(*measure(own))] * ranks.count
        self._heard = time.monotonic()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many transitions could be sampled at the latest round, and here now."""
        return len(self.own) + sum(held.transitions for held in self._held[1:])

    @property
    def steps(self) -> int:
        """Return how many steps are stored, in all shards."""
        return self.own.steps + sum(held.steps for held in self._held[1:])

    @property
    def total(self) -> int:
        """Return how many steps were ever added, to all shards."""
        return self.own.total + sum(held.total for held in self._held[1:])

    @property
    def capacity(self) -> int:
        """Return how many steps all shards can hold."""
        return self.own.capacity * self.ranks.count

    @property
    def is_full(self) -> bool:
        """Return whether so much waits for a rank that it should be sent."""
        return any(len(steps) >= FULL for steps in self._waiting.values())

    def add(self, record: StepRecord) -> None:
        """Store one step, here or with the rank that keeps its episode. Raises as a replay."""
        try:
            self.own.checked(record)
        except ReplayError:
            self.counts.broken += 1
            raise
        key = record.vehicle, record.session
        with self._lock:
            stream = self._streams.get(key)
            try:
                linked = stream is not None and continues(stream, record)
            except ReplayError:
                self.counts.duplicate += 1
                raise
            note_irregular(self.counts, self._streams, linked, record)
            rank = rank_of(record, self.ranks.count)
            if rank:
                self._waiting[rank].append((REPLAY, record))
            else:
                self.own.add(record)
            self._streams[key] = Stream.of(record)

    def reached(self) -> dict[tuple[str, str], int]:
        """Return the number of the newest step of each vehicle and session."""
        with self._lock:
            return {key: stream.sequence for key, stream in self._streams.items()}

    def show(self, record: StepRecord) -> None:
        """Let every other rank have a step of a demonstration: these all ranks keep whole."""
        with self._lock:
            for steps in self._waiting.values():
                steps.append((DEMONSTRATIONS, record))

    def round(self, order: str = 'take') -> float:
        """
        Send what waits, with an order that all of them follow at once.

        Returns the weight of rank 0's batch in the update that this may begin.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, {rank: [] for rank in self._waiting}
            vehicles = (sorted({vehicle for vehicle, _ in self._streams})
                        if self._alike == VEHICLES else [])
        for rank, steps in waiting.items():
            self.ranks.send(rank, to_message(order, pack_steps(steps), vehicles=vehicles))
        self._held = exchange(self.ranks, self.own, vehicles)
        self._heard = time.monotonic()
        return shares([held.weight for held in self._held])[0]

    def keep_in_touch(self) -> None:
        """Send what waits; say something at least once in a while, so that silence means death."""
        if any(self._waiting.values()) or time.monotonic() - self._heard > HEARTBEAT:
            self.round()

    def state_dict(self) -> dict[str, Any]:
        """Return the own shard's, once the others have all that came before."""
        self.round()
        return self.own.state_dict()

    def segment(self, index: int, total: int) -> dict[str, NDArray[Any]]:
        """Return a segment of the own shard."""
        return self.own.segment(index, total)

    @property
    def lineage(self) -> object:
        """Return that of the own shard."""
        return self.own.lineage

    def load_state_dict(self, values: Mapping[str, Any],
                        segments: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        """Restore the own shard; `others` are restored after it, and then `resume`."""
        self.own.load_state_dict(values, segments)

    def resume(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Go on behind the newest step of each vehicle in all shards' states."""
        self._streams = {}
        for values in states:
            for vehicle, session, *rest in values['streams']:
                stream = Stream(*rest)
                known = self._streams.get((vehicle, session))
                if known is None or (known.episode, known.step) < (stream.episode, stream.step):
                    self._streams[vehicle, session] = stream
        self.round()


class SharedDemonstrations:
    """Put steps of human driving into the demonstrations of every rank."""

    def __init__(self, own: ReplayBuffer, replay: ShardedReplay) -> None:
        self._own, self._replay = own, replay

    def add(self, record: StepRecord) -> None:
        """Store one step everywhere; raises as `ReplayBuffer.add`, which then holds for all."""
        self._own.add(record)
        self._replay.show(record)


def store(steps: Iterable[tuple[str, StepRecord]], replays: Mapping[str, ReplayBuffer]) -> None:
    """Store steps that rank 0 sent; it has checked them."""
    for name, record in steps:
        with contextlib.suppress(DuplicateError):  # from before a resumption
            replays[name].add(record)


def measure(replay: ReplayBuffer) -> tuple[int, int, int]:
    """Return how many transitions a shard can sample, and steps it holds and ever held."""
    return len(replay), replay.steps, replay.total


class Held(NamedTuple):
    """What a rank holds: `measure` of its shard, and the weight of a batch that it draws."""

    transitions: int
    steps: int
    total: int
    weight: float = 0.0


def exchange(ranks: Ranks, own: ReplayBuffer, vehicles: Sequence[str] = ()) -> list[Held]:
    """
    Return what every rank's shard holds, in the order of the ranks.

    `vehicles` are those that are drawn alike, on all ranks in the same order; without any all
    transitions are.
    """
    each = ranks.gather(torch.tensor([*measure(own), *own.transitions_of(vehicles)])).tolist()
    held = [row[3:] for row in each]
    own.know_whole({vehicle: sum(column) for vehicle, column in
                    zip(vehicles, zip(*held, strict=True), strict=True)})
    found = weights(held) if vehicles else [row[0] for row in each]
    return [Held(row[0], row[1], row[2], weight) for row, weight in zip(each, found, strict=True)]


def check_alike(ranks: Ranks, agent: TD3) -> None:
    """Raise RanksError unless all ranks have learned the same, to the last bit."""
    digest = hashlib.sha256(agent_to_bytes(agent)).digest()
    each = ranks.gather(torch.frombuffer(bytearray(digest), dtype=torch.uint8))
    for rank in range(1, ranks.count):
        if not torch.equal(each[rank], each[0]):
            raise RanksError(f'rank {rank} of {ranks.count} has learned other weights than rank '
                             '0: do all hosts run the same versions on the same devices?')
