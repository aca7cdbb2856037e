"""The folder that a training session leaves."""
from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path


def new_run_folder(wanted: Path | None, kind: str = '',
                   otherwise: Callable[[Path], str] = lambda _: '') -> Path:
    """
    Create a run folder and return its full path; without one wanted, runs/<date>-<time>-<kind>.

    `runs/latest` leads to the newest of no kind: a training. Raises FileExistsError when the
    folder is in use, with the command, if any, that `otherwise` says goes on from it, OSError when
    it cannot be made.
    """
    when = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
    folder = wanted or Path('runs') / '-'.join(filter(None, (when, kind)))
    try:
        if folder.exists() and any(folder.iterdir()):
            command = otherwise(folder)
            raise FileExistsError(f'run folder {folder} is not empty: choose another one' + (
                f', or go on from it: {command}' if command else ''))
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(f'run folder {folder} cannot be made ({error.strerror}): choose another '
                      'place') from error
    if wanted is None and not kind:
        link = folder.parent / 'latest'
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
    return folder.resolve()


def check_output(path: Path, option: str) -> None:
    """Raise OSError, naming the option, unless a file can be written at `path`."""
    try:
        if path.is_dir():
            raise IsADirectoryError(21, 'it is a folder')
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f'{option} {path} cannot be written ({error.strerror}): choose another '
                      'file') from error
