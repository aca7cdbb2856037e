"""How messages lie in bytes: plain CDR, as ROS 2 has serialized so far."""
from __future__ import annotations

ORDERS = {b'\0\0': '>', b'\0\1': '<'}  # of the bytes, by the first two of a message
HEAD = 4  # bytes ahead of the message itself, from whose beginning CDR aligns


def aligned(at: int, to: int = 4) -> int:
    """Return the first place from `at` on that is a multiple of `to`."""
    return -(-at // to) * to
