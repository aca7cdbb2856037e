"""Fixtures of every test that takes part in a ROS graph."""
from __future__ import annotations

import collections
import gc
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psutil
import pytest

if TYPE_CHECKING:
    from harness import Log, Peer, Running

    from av_td3_ros.ros.runtime import DomainLease


# What a shell starts in the background is deaf to Ctrl-C, and so is what it starts in turn: tests
# that press it would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No example has a time of its own: the machine may be busy with other things.
hypothesis.settings.register_profile('untimed', deadline=None)
hypothesis.settings.load_profile('untimed')


@pytest.fixture(scope='session')
def ros() -> None:
    """Set what keeps ROS on this host and lets it find its packages, as every entry point does."""
    from av_td3_ros.ros.runtime import ros_environment

    os.environ.update(ros_environment(os.environ))


@pytest.fixture(scope='session')
def leases() -> collections.deque[DomainLease]:
    """Return the newest leases: a domain is not used again soon, whatever still echoes in it."""
    return collections.deque(maxlen=20)


@pytest.fixture
def domain(ros: None, leases: collections.deque[DomainLease], monkeypatch: pytest.MonkeyPatch
           ) -> Iterator[int]:
    """Lend a ROS domain that nobody else on this host uses; child processes get it too."""
    from av_td3_ros.ros.runtime import DomainLease

    lease = DomainLease()
    if len(leases) == leases.maxlen:
        leases[0].release()
    leases.append(lease)
    monkeypatch.setenv('ROS_DOMAIN_ID', str(lease.domain))
    children = set(psutil.Process().children(recursive=True))
    yield lease.domain
    left = set(psutil.Process().children(recursive=True)) - children
    assert not left, f'processes left behind: {left}'


@pytest.fixture
def peer(domain: int) -> Iterator[Peer]:
    """Join the graph of this test with a participant of its own."""
    from harness import Peer

    joined = Peer(domain)
    yield joined
    joined.close()


@pytest.fixture
def make(domain: int, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that makes a node in this process: name, then {key: value}."""
    from harness import make_node

    made: list[Running] = []
    is_left_half_made = False

    def make(name: str, parameters: Mapping[str, Any] | None = None, profile: str = 'embedded'
             ) -> Running:
        nonlocal is_left_half_made
        try:
            made.append(make_node(name, domain, tmp_path, parameters or {}, profile))
        except BaseException:
            is_left_half_made = True
            raise
        return made[-1]

    yield make
    for one in made:
        if one.is_running:
            one.stop()
    if is_left_half_made:  # or it stays in this domain's graph, for whoever has the domain next
        gc.collect()


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str]) -> Log:
    """Return what the nodes in this process log."""
    from harness import Log

    return Log()  # reads the file that capfd makes of standard error
