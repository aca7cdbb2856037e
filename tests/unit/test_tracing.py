"""When each frame reached each stage, in memory and on disk."""
from __future__ import annotations

from pathlib import Path

from av_td3_ros.ros.tracing import Trace, read_trace


def test_the_first_mark_of_a_stage_counts(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / 'trace.csv'))
    for stage, stamp_ns in (('seen', 1), ('done', 1), ('seen', 2), ('seen', 1)):
        trace.mark(stage, stamp_ns)
    trace.close()
    found = read_trace(tmp_path / 'trace.csv')
    assert {stage: set(times) for stage, times in found.items()} == {'seen': {1, 2}, 'done': {1}}
    assert found['seen'][1] <= found['done'][1] <= found['seen'][2]


def test_without_a_file_nothing_is_kept() -> None:
    trace = Trace('')
    trace.mark('seen', 1)
    trace.close()
    assert trace.__dict__ == Trace('').__dict__
