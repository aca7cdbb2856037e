"""How much of the processors others used while something was measured."""
from __future__ import annotations

import time

import psutil


class Busy:
    """What of the processors this machine and this session have used since it was made."""

    def __init__(self) -> None:
        self._at, self._all, self._ours = time.monotonic(), _used(), self._used_here()

    def elsewhere(self) -> float:
        """Return the cores that were busy with what is not of this session."""
        others = (_used() - self._all) - (self._used_here() - self._ours)
        return max(0.0, others / (time.monotonic() - self._at))

    def _used_here(self) -> float:
        here = psutil.Process()
        return sum(sum(one.cpu_times()[:2]) for one in (here, *here.children(recursive=True)))


def _used() -> float:
    """Return the seconds that all processors have worked so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.softirq)
