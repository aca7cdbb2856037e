"""How the update shares a processor with what drives."""
from __future__ import annotations

import os
import threading

PRIORITIES = ('normal', 'low', 'idle')
LOW = 10  # nice value: a tenth of the time of what is not nice, where both want all of it


def give_way(priority: str) -> None:
    """
    Lower the calling thread, and those that it starts from now on, to one of PRIORITIES.

    A thread that is lower already stays so.
    """
    if priority == 'normal':
        return
    thread = threading.get_native_id()
    if priority == 'idle':
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    elif os.getpriority(os.PRIO_PROCESS, thread) < LOW:
        os.setpriority(os.PRIO_PROCESS, thread, LOW)
