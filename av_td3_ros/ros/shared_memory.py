"""Shared memory that killed processes leave behind: megabytes each, until somebody sweeps."""
from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

FOLDER = Path('/dev/shm')
_SEGMENT = re.compile('fast(rtps|dds)_[0-9a-f]{16}')  # of Fast DDS 2 (up to Jazzy) and 3


def sweep(folder: Path = FOLDER) -> int:
    """
    Remove the data segments of Fast DDS whose process is gone; return how many bytes that freed.

    A living owner holds a lock on the file `<segment>_el`, as `fastdds shm clean` knows as well.
    """
    freed = 0
    for segment in folder.glob('fast*_*') if folder.is_dir() else ():
        if not _SEGMENT.fullmatch(segment.name):
            continue
        lock = segment.with_name(f'{segment.name}_el')
        try:
            with lock.open('rb') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                freed += segment.stat().st_size
                segment.unlink()
                os.unlink(lock)
        except OSError:
            continue  # in use, somebody else's, or gone already
    return freed
