"""The process that started this one, and ending with it."""
from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None, signal: int) -> bool:
    """
    Ask the kernel to send this process `signal` when the one that started it is gone.

    Return whether that was `parent`, where it is known; False: it was gone before.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal)
    return parent in (None, os.getppid())
