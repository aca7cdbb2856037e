"""What a fault needs and only root can make: a small disk, two hosts with a wire between them."""
from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from av_td3_ros.ros.runtime import LINK_PROFILE, profile_environment

_TUNSETIFF, _TAP, _NO_INFORMATION = 0x400454ca, 0x0002, 0x1000


class CannotError(RuntimeError):
    """Something that this machine does not let this user make."""


def _run(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, 'stderr', '') or str(error)
        raise CannotError(f'{" ".join(words)}: {said.strip()}') from error


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Lend a file system of `size` bytes; raises CannotError where none can be mounted."""
    folder.mkdir()
    _run('mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder))
    try:
        yield folder
    finally:
        subprocess.run(['umount', '--lazy', str(folder)], check=True)


def across(environment: Mapping[str, str], profile: str = LINK_PROFILE) -> dict[str, str]:
    """Return the environment with a profile of ours for Fast DDS, the one for a link."""
    without = {name: value for name, value in environment.items()
               if not name.endswith('_DEFAULT_PROFILES_FILE')}
    return without | profile_environment(without, profile)


class TwoHosts:
    """
    Two network namespaces and the wire between them; a context manager.

    The wire is this process, which carries each Ethernet frame from one to the other, but for the
    share `loss` of them, or none while it is cut (`is_cut`); `sent` counts the bytes that each
    host has put on it. Raises CannotError without the rights for that.
    """

    def __init__(self) -> None:
        self.names = f'av_a{os.getpid()}', f'av_b{os.getpid()}'
        self.loss = 0.0
        self.is_cut = False
        self.carried = self.dropped = 0
        self.sent = [0, 0]
        self._ends: list[int] = []
        self._chance = random.Random(1)
        self._ending = threading.Event()
        self._wire = threading.Thread(target=self._carry, name='wire')

    def __enter__(self) -> TwoHosts:
        try:
            for number, name in enumerate(self.names, 1):
                _run('ip', 'netns', 'add', name)
                self._ends.append(_tap(f'av{number}p{os.getpid()}'))
                _run('ip', 'link', 'set', f'av{number}p{os.getpid()}', 'netns', name)
                for words in (('ip', 'link', 'set', f'av{number}p{os.getpid()}', 'name', 'eth0'),
                              ('ip', 'addr', 'add', f'10.82.0.{number}/24', 'dev', 'eth0'),
                              ('ip', 'link', 'set', 'lo', 'up'),
                              ('ip', 'link', 'set', 'eth0', 'up'),
                              ('ip', 'route', 'add', 'default', 'dev', 'eth0')):
                    _run('ip', 'netns', 'exec', name, *words)
        except BaseException:
            self._clear()
            raise
        self._wire.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._wire.join()
        self._clear()

    def _clear(self) -> None:
        for end in self._ends:
            os.close(end)
        for name in self.names:
            subprocess.run(['ip', 'netns', 'del', name], check=False, capture_output=True)
            shutil.rmtree(Path('/dev/shm') / name, ignore_errors=True)

    def on(self, host: int) -> list[str]:
        """Return what goes before a command that is to run on host 0 or 1."""
        # Shared memory of its own as well: else the two would talk by that.
        memory = Path('/dev/shm') / self.names[host]
        memory.mkdir(exist_ok=True)
        return ['ip', 'netns', 'exec', self.names[host], 'unshare', '--mount', 'sh', '-c',
                f'mount --bind {memory} /dev/shm && exec "$0" "$@"']

    def _carry(self) -> None:
        one, other = self._ends
        while not self._ending.is_set():
            for end in select.select(self._ends, [], [], 0.1)[0]:
                frame = os.read(end, 65536)
                self.sent[end != one] += len(frame)
                if self.is_cut or self._chance.random() < self.loss:
                    self.dropped += 1
                    continue
                self.carried += 1
                with contextlib.suppress(OSError):  # the other end is not up
                    os.write(other if end == one else one, frame)


def _tap(name: str) -> int:
    try:
        end = os.open('/dev/net/tun', os.O_RDWR)
    except OSError as error:
        raise CannotError(f'/dev/net/tun: {error}') from error
    try:
        fcntl.ioctl(end, _TUNSETIFF, struct.pack('16sH22x', name.encode(),
                                                 _TAP | _NO_INFORMATION))
    except OSError as error:
        os.close(end)
        raise CannotError(f'a network device {name}: {error}') from error
    return end
