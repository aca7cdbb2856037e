"""When each frame reached each stage of a node, to see where the time goes."""
from __future__ import annotations

import time
from pathlib import Path

HEADER = 'stage,stamp_ns,reached_ns'


class Trace:
    """
    Note when the frame of a stamp reached a stage; write it down at the end.

    Times are of the steady clock, which all processes of a host share. Without a file nothing is
    kept and a mark costs next to nothing.
    """

    def __init__(self, file: str) -> None:
        """`file` is a CSV to be written by `close`, '' for none."""
        self._file = file
        self._rows: list[tuple[str, int, int]] = []

    def mark(self, stage: str, stamp_ns: int) -> None:
        """Note that the frame with this stamp in ns is at a stage now."""
        if self._file:
            self._rows.append((stage, stamp_ns, time.monotonic_ns()))

    def close(self) -> None:
        """Write what was noted; raise OSError when that cannot be."""
        if self._file:
            Path(self._file).write_text('\n'.join([HEADER, *(
                ','.join(map(str, row)) for row in self._rows)]) + '\n', encoding='utf-8')


def read_trace(file: Path) -> dict[str, dict[int, int]]:
    """Return {stage: {stamp in ns: ns of the steady clock}}; the first mark of each counts."""
    found: dict[str, dict[int, int]] = {}
    for line in file.read_text(encoding='utf-8').splitlines()[1:]:
        stage, stamp, reached = line.split(',')
        found.setdefault(stage, {}).setdefault(int(stamp), int(reached))
    return found
