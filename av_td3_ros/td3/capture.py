"""One update as one CUDA graph: launched at once instead of kernel by kernel."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

WARM_UP = 3
"""Updates made kernel by kernel before one is captured: they choose algorithms and allocate."""


class Prepared(NamedTuple):
    """
    Hold a batch on the device, and what the actor is shown of its states.

    Frames are in the type of the CNNs' arithmetic; the rest is as in Batch. `share` (scalar) is
    the batch's weight among those of all ranks, which sum up to 1.
    """

    frames: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    next_frames: Tensor
    next_state: Tensor
    discount: Tensor
    shown_state: Tensor
    next_shown_state: Tensor
    share: Tensor


@dataclasses.dataclass(frozen=True)
class Measured:
    """Named numbers in one tensor, which stays on the device."""

    names: tuple[str, ...]
    values: Tensor

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Measured:
        """Pack scalars."""
        return Measured(tuple(tensors), torch.stack([t.detach().float() for t in
                                                     tensors.values()]))

    def clone(self) -> Measured:
        """Return a copy that the next replay does not overwrite."""
        return Measured(self.names, self.values.clone())

    @staticmethod
    def nothing() -> Measured:
        """Return no numbers."""
        return Measured((), torch.empty(0))


Outcome = tuple[Tensor, Measured, Measured]
"""Whether the update was made (a bool tensor), what was measured of the critics, of the actor."""


class CapturedUpdate:
    """
    Call `update` with a batch and noise; with `captures` replay it as a graph after a few calls.

    `update` must ask nothing of the host and have tensors of the same shapes at every call.
    """

    def __init__(self, update: Callable[[Prepared, Tensor], Outcome], captures: bool) -> None:
        self._update = update
        self._captures = captures
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outcome: Outcome | None = None

    def __call__(self, batch: Prepared, noise: Tensor) -> Outcome:
        """Return the outcome; its tensors are the caller's to keep."""
        self._calls += 1
        if not self._captures or self._calls <= WARM_UP:
            return self._update(batch, noise)
        if self._graph is None:
            self._capture(batch, noise)
        assert self._graph is not None and self._outcome is not None
        for held, given in zip(self._inputs, (*batch, noise), strict=True):
            held.copy_(given)
        self._graph.replay()
        finite, of_critics, of_actor = self._outcome
        return finite, of_critics.clone(), of_actor.clone()

    def _capture(self, batch: Prepared, noise: Tensor) -> None:
        self._inputs = [tensor.clone() for tensor in (*batch, noise)]
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, capture_error_mode='thread_local'):
            self._outcome = self._update(Prepared(*self._inputs[:-1]), self._inputs[-1])
        self._graph = graph
