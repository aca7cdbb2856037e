"""The folder that a training session leaves."""
from __future__ import annotations

import datetime
from pathlib import Path


def new_run_folder(wanted: Path | None) -> Path:
    """
    Create a run folder and return its full path; without one wanted, runs/<date>-<time>.

    `runs/latest` then leads to the newest. Raises FileExistsError when the folder is in use.
    """
    folder = wanted or Path('runs') / datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f'run folder {folder} is not empty: choose another one')
    folder.mkdir(parents=True, exist_ok=True)
    if wanted is None:
        link = folder.parent / 'latest'
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
    return folder.resolve()
