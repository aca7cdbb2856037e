"""A captured update: inputs are copied in, outcomes belong to the caller."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from av_td3_ros.td3.capture import WARM_UP, CapturedUpdate, Measured, Outcome, Prepared


class Recorded:
    """Stands in for a CUDA graph: what was captured runs again on the same tensors."""

    work: Callable[[], None]

    def replay(self) -> None:
        """Run it again."""
        self.work()


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the graph of this processor be a recorded function."""
    @contextlib.contextmanager
    def capture(graph: Recorded, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == 'thread_local'
        yield
        graph.work = Update.last.again

    monkeypatch.setattr(torch.cuda, 'CUDAGraph', Recorded)
    monkeypatch.setattr(torch.cuda, 'graph', capture)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)


class Update:
    """Sums its inputs into tensors of its own, as a graph's outputs stay where they are."""

    last: Update

    def __init__(self) -> None:
        Update.last = self
        self.calls = 0

    def __call__(self, batch: Prepared, noise: Tensor) -> Outcome:
        """Note the inputs and work on them."""
        self.calls += 1
        self.inputs = (*batch, noise)
        self.finite, self.total = torch.tensor(False), torch.zeros(1)
        self.again()
        return self.finite, Measured(('total',), self.total), Measured.nothing()

    def again(self) -> None:
        """Work on the same inputs, into the same outputs."""
        self.total.copy_(sum(t.float().sum() for t in self.inputs))  # type: ignore[arg-type]
        self.finite.copy_(self.total[0] < 1000)


def inputs(value: float) -> tuple[Prepared, Tensor]:
    """Return a batch and noise whose numbers sum up to 11 times `value`."""
    return Prepared(*(torch.full((1,), value) for _ in range(10))), torch.full((1,), value)


def test_a_replayed_update_sees_new_inputs_and_keeps_nothing_of_the_callers(on_gpu: None) -> None:
    update = Update()
    captured = CapturedUpdate(update, captures=True)
    outcomes = []
    for value in range(1, 8):
        batch, noise = inputs(float(value))
        finite, measured, _ = captured(batch, noise)
        assert bool(finite)
        outcomes.append(measured)
        noise.fill_(99.0)  # the caller's own
    assert [float(one.values) for one in outcomes] == [11.0 * value for value in range(1, 8)]
    assert update.calls == WARM_UP + 1  # the rest were replays
    assert not captured(*inputs(200.0))[0]


def test_without_a_gpu_it_is_called_each_time() -> None:
    update = Update()
    captured = CapturedUpdate(update, captures=False)
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert float(captured(*inputs(value))[1].values) == 11 * value
    assert update.calls == 5
