"""Human driving in a replay of its own, and batches that are partly drawn from it (RLPD)."""
from __future__ import annotations

import collections
import dataclasses
from typing import Protocol

import torch

from av_td3_ros.settings import setting
from av_td3_ros.td3.ranks import ALONE, Ranks
from av_td3_ros.td3.replay import Batch, ReplayBuffer, StepRecord


@dataclasses.dataclass(frozen=True)
class DemonstrationSettings:
    """How much is learned from human driving."""

    capacity: int = setting(20_000, 'steps of human driving that are kept, 7.3 kB each',
                            minimum=2)
    share: float = setting(0.5, 'share of each batch drawn from human driving once there is any '
                           '(Ball et al. 2023 take half)', minimum=0.0, maximum=1.0)


class Store(Protocol):
    """What takes steps."""

    def add(self, record: StepRecord) -> None:
        """Store one step."""


class HumanSteps:
    """
    Pick out what a human drove, with the neighbours that its stacks and returns need.

    A stack needs the frames before a step, an n-step return the steps behind it: these come along
    as context and are never drawn themselves. `add` passes on to `store`.
    """

    def __init__(self, store: Store, frames: int, n_step: int) -> None:
        self._store = store
        self._before = max(frames - 1, 0)
        self._behind = n_step
        self._earlier: dict[tuple[str, str], collections.deque[StepRecord]] = {}
        self._wanted: dict[tuple[str, str], int] = {}

    def add(self, record: StepRecord, human: bool) -> None:
        """Take the next step of a vehicle; raises ReplayError like `ReplayBuffer.add`."""
        key = record.vehicle, record.session
        earlier = self._earlier.setdefault(key, collections.deque(maxlen=self._before))
        if record.is_first:
            earlier.clear()
        if human and not record.is_last:
            while earlier:
                self._store.add(_context(earlier.popleft()))
            self._store.add(record)
            self._wanted[key] = self._behind
            return
        if self._wanted.get(key, 0):
            self._wanted[key] = 0 if record.is_last else self._wanted[key] - 1
            self._store.add(_context(record))
            earlier.clear()
        elif self._before:
            earlier.append(record)


class MixedReplay:
    """
    Draw `share` of each batch from the demonstrations as soon as there are any.

    `drawn` counts what was drawn from the other replay. Of several `ranks` each has a replay of
    its own, but the same demonstrations, of which each draws another part.
    """

    def __init__(self, replay: ReplayBuffer, demonstrations: ReplayBuffer, share: float,
                 ranks: Ranks = ALONE) -> None:
        self.replay, self.demonstrations, self.share = replay, demonstrations, share
        self._ranks = ranks
        self.drawn = 0

    def __len__(self) -> int:
        """Return how many transitions can be drawn, of both kinds."""
        return len(self.replay) + len(self.demonstrations)

    def sample(self, batch_size: int, gamma: float, n_step: int) -> Batch:
        """
        Return a batch as `ReplayBuffer.sample` does.

        With both empty a rank among others returns a blank batch, whose weight is to be 0; a
        single one raises ReplayError.
        """
        if self._ranks.count > 1 and not len(self):
            return self.replay.blank(batch_size)
        share = self.share if len(self.demonstrations) else 0.0
        if len(self.demonstrations) and len(self.replay) < batch_size:
            share = 1.0  # a few transitions, drawn again and again, would teach nothing else
        shown = round(batch_size * share)
        self.drawn += batch_size - shown
        part = self._ranks.rank, self._ranks.count
        parts = [self.replay.sample(batch_size - shown, gamma, n_step)
                 ] if shown < batch_size else []
        if shown:
            parts.append(self.demonstrations.sample(shown, gamma, n_step, part))
        if len(parts) == 1:
            return parts[0]
        return Batch(*(_joined(columns) for columns in zip(*parts, strict=True)))


def _context(record: StepRecord) -> StepRecord:
    return dataclasses.replace(record, is_context=True)


def _joined(columns: tuple[torch.Tensor, ...]) -> torch.Tensor:
    if columns[0].dim() != 4:
        return torch.cat(columns)
    # Joined as it lies in memory, which stays channels-last.
    return torch.cat([one.permute(0, 2, 3, 1) for one in columns]).permute(0, 3, 1, 2)
