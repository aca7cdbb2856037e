"""The update gives way to what drives, and only the update."""
from __future__ import annotations

import os
import threading

import pytest

from av_td3_ros.td3.priority import LOW, give_way


def priority() -> tuple[int, int]:
    """Return policy and nice value of the calling thread."""
    thread = threading.get_native_id()
    return os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)


def lowered(wanted: str, nice: int = 0) -> list[tuple[int, int]]:
    """Return policy and nice value of a thread that gives way, and of one that it starts."""
    found: list[tuple[int, int]] = []

    def work() -> None:
        if nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        give_way(wanted)
        found.append(priority())
        started = threading.Thread(target=lambda: found.append(priority()))
        started.start()
        started.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found


@pytest.fixture
def here() -> int:
    """Return the nice value of this thread, which must stay as it is."""
    before = priority()
    if before[1] >= LOW:
        pytest.skip(f'needs to run at a nice value below {LOW}')
    yield before[1]
    assert priority() == before


def test_a_low_thread_is_nice_with_all_that_it_starts(here: int) -> None:
    assert lowered('low') == [(os.SCHED_OTHER, LOW)] * 2


def test_what_is_lower_already_stays_so(here: int) -> None:
    assert lowered('low', nice=LOW + 5) == [(os.SCHED_OTHER, LOW + 5)] * 2


def test_an_idle_thread_takes_only_what_nobody_wants(here: int) -> None:
    assert [policy for policy, _ in lowered('idle')] == [os.SCHED_IDLE] * 2


def test_a_normal_thread_is_like_the_rest(here: int) -> None:
    assert lowered('normal') == [(os.SCHED_OTHER, here)] * 2
