"""What every process of a session needs around its node: environment, executor, clean ending."""
from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import gc
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from av_td3_ros.parent import end_with_parent
from av_td3_ros.paths import config_directory
from av_td3_ros.ros.security_plugins import require_plugins

PARENT = 'AV_TD3_PARENT'
APART: dict[str, Any] = ({'process_group': 0} if sys.version_info >= (3, 11)
                         else {'start_new_session': True})
"""
Arguments of Popen for a process that Ctrl-C in the terminal does not reach.

It stays in the terminal's session where Python can do that: Linux shares processors out over
sessions first (autogroup, sched(7)), and a priority says nothing between two of them.
"""
LINK_PROFILE = 'fastdds_link.xml'  # of config/, where a network lies between
LAST_WORDS = 0.5  # s of wall time in which what a node said at its end may reach the others
LEAVING = 5  # s of wall time after which a node that is still leaving the graph is ended
# s of wall time after which everybody has let go of a node that left: at their next message, and
# each announces itself once in 3 s. Fast DDS 2.14 removes shared memory by its name when the last
# one lets go of it: also that of the node which has the name by then.
FORGOTTEN = 4
SWITCH = 2e-4  # s that one of a process's threads keeps another one waiting for Python at most
LONGEST_REASON = 500  # characters of what an error says that are logged
# Measured: page faults of the allocator cost a quarter of the update's time without these.
ALLOCATOR = {
    'MALLOC_MMAP_THRESHOLD_': str(1 << 30),
    'MALLOC_TRIM_THRESHOLD_': str(1 << 32),
    'MALLOC_TOP_PAD_': str(1 << 26),
    'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
}
# The same for any node, from within: number of the C library's option, and bytes.
KEPT = {'MALLOC_TRIM_THRESHOLD_': (-1, 1 << 28), 'MALLOC_MMAP_THRESHOLD_': (-3, 1 << 25)}


def ros_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variables that make ROS 2 stay on this host and carry images fast.

    Only those that the user has not set: discovery range (Iron and later) or its Humble
    counterpart, and the Fast DDS profile with a shared memory that holds whole images.
    """
    wanted = profile_environment(environment)
    if environment.get('ROS_DISTRO') == 'humble':
        wanted['ROS_LOCALHOST_ONLY'] = '1'
    elif 'ROS_LOCALHOST_ONLY' not in environment:
        wanted['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if (Path(sys.prefix) / 'share' / 'ament_index').is_dir():
        wanted['AMENT_PREFIX_PATH'] = sys.prefix  # a virtual environment that is an underlay
    return {key: value for key, value in wanted.items() if key not in environment}


def profile_environment(environment: Mapping[str, str], name: str = 'fastdds.xml'
                        ) -> dict[str, str]:
    """Return the variable that makes Fast DDS read a profile of ours, unless the user has one."""
    if 'FASTRTPS_DEFAULT_PROFILES_FILE' in environment:
        return {}
    # Fast DDS 2 (up to Jazzy) reads the one, Fast DDS 3 the other: it warns of the first.
    installed = [sys.prefix, *environment.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    old = any((Path(prefix) / 'share' / 'fastrtps').is_dir() for prefix in installed)
    variable = f'{"FASTRTPS" if old else "FASTDDS"}_DEFAULT_PROFILES_FILE'
    return {} if variable in environment else {variable: str(config_directory() / name)}


def allocator_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the learner's allocator settings that the user has not set; read at exec only."""
    return {key: value for key, value in ALLOCATOR.items() if key not in environment}


def run_with_allocator_settings() -> None:
    """Start this process anew with the allocator's settings, unless it has them already."""
    missing = allocator_environment(os.environ)
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})


def memory_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what does as `keep_memory` for a process that is not ours, and is not set yet."""
    return {name: str(value) for name, (_, value) in KEPT.items() if name not in environment}


def keep_memory() -> None:
    """
    Have this process keep the memory that its messages came in, unless the user has said how.

    glibc gives an image's memory back to the system with the image, and each of the next one's
    pages is a fault: an 800x600 image takes 5 ms to arrive instead of 2. What there is by now
    is also left out of the collection of garbage, which would stop the node for up to 0.1 s.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)  # of glibc only
    for name, (option, value) in KEPT.items():
        if mallopt is not None and name not in os.environ:
            mallopt(option, value)
    gc.collect()
    gc.freeze()
    # Once more, of nothing: Python looks at what is old only when there is a quarter more of it
    # than at the last full collection, which until here counts all that is frozen now.
    gc.collect()


class DomainLease:
    """Hold a ROS domain that no other session on this host uses, as long as this object lives."""

    def __init__(self) -> None:
        """Take the first free domain from 1 to 101; raise RuntimeError when all are taken."""
        for domain in range(1, 102):
            path = Path(tempfile.gettempdir()) / f'av_td3_ros-{os.getuid()}-domain-{domain}.lock'
            self._file: IO[str] = path.open('w')
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._file.close()
                continue
            self.domain = domain
            return
        raise RuntimeError('all ROS domains from 1 to 101 are taken by other sessions of '
                           'av_td3_ros on this host; end one, or set ROS_DOMAIN_ID')

    def release(self) -> None:
        """Give the domain back."""
        self._file.close()


def die_with_parent() -> None:
    """Ask the kernel to end this process when the session that started it is gone."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    if not end_with_parent(int(parent), signal.SIGTERM):
        sys.exit(f'the session {parent} that started this node is gone')


def make_executor(context: Any = None) -> Any:
    """Return the fastest executor this rclpy has: events where there, else single-threaded."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor(context=context)
    executor = EventsExecutor(context=context)
    faulthandler.disable()  # it prints a traceback on SIGTERM's way out of C++ otherwise
    return executor


def spin(executor: Any, context: Any, ended: Callable[[], bool] = lambda: False) -> None:
    """
    Execute callbacks until the context is shut down or `ended` returns True.

    Not by the events executor's own `spin`, which never returns after a signal; in short turns, as
    its `wake` does not end one that waits.
    """
    try:
        while context.ok() and not ended():
            executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        pass


def leave(executor: Any, node: Any) -> None:
    """Take a node out of the graph, and its shared memory off this host."""
    # The executor would keep the node's ends alive, and with them megabytes in /dev/shm for ever.
    executor.remove_node(node)
    executor.shutdown()
    node.destroy_node()


class EndSignals:
    """
    Turn SIGINT and SIGTERM into a fact, `told`; Python sees to them between two turns of `spin`.

    rclpy's own handlers shut the context down at once: no node could then say its last word, such
    as the command that leaves a vehicle braking.
    """

    def __init__(self) -> None:
        """Take the signals over; to be called on the main thread."""
        self.told = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.told = True


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> None:
    """
    Run one node until it is told to stop; the whole of a node's `main`.

    SIGINT and SIGTERM end it in good order with status 0: `close` is called, then the node leaves
    the graph. A node that cannot start says why in one line and exits with 1; so does one whose
    `failure` says that it cannot go on. One whose `is_cut_off` is true leaves the graph as well,
    and begins anew in the same process with the same arguments.
    """
    run_together([make_node], args)


def run_together(makers: Sequence[Callable[[], Any]], args: list[str] | None = None) -> None:
    """
    Run nodes in one process, each on an executor and a thread of its own; otherwise as `run`.

    When one of them ends, all do. The first one's thread is the main one.
    """
    os.environ.update(ros_environment(os.environ))
    signals = EndSignals()
    die_with_parent()
    try:
        require_plugins(os.environ)
    except RuntimeError as error:
        sys.exit(f'[FATAL] {error}')
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except (ValueError, OSError, RuntimeError) as error:
        logging.debug('start failed', exc_info=True)
        sys.exit(f'[FATAL] ROS does not start: {_of_ros(error)}')
    nodes: list[Any] = []
    executors: list[Any] = []
    beside: list[threading.Thread] = []
    ended = threading.Event()
    status, again = 0, False
    try:
        try:
            for make_node in makers:
                nodes.append(make_node())
        except (ValueError, OSError, RuntimeError) as error:
            logging.debug('start failed', exc_info=True)
            print(f'[FATAL] {type(error).__name__}: {error}', file=sys.stderr, flush=True)
            status = 1
        else:
            for node in nodes:
                executors.append(make_executor())
                executors[-1].add_node(node)
            keep_memory()
            if len(nodes) > 1:
                sys.setswitchinterval(SWITCH)
            beside = [threading.Thread(target=_spin_beside, name=node.get_name(),
                                       args=(executor, node.context, ended))
                      for node, executor in zip(nodes[1:], executors[1:], strict=True)]
            for thread in beside:
                thread.start()

            def is_cut_off() -> bool:
                # Nodes of one process do not need the network between them.
                return len(nodes) == 1 and getattr(nodes[0], 'is_cut_off', False)

            spin(executors[0], nodes[0].context,
                 lambda: signals.told or ended.is_set() or is_cut_off())
            again = is_cut_off() and not signals.told
            if again:
                nodes[0].get_logger().error('cut off from others of the graph: this node leaves '
                                            'it and begins anew')
            status = int((ended.is_set() and not signals.told)
                         or any(getattr(node, 'failure', '') for node in nodes))
    finally:
        ended.set()
        for thread in beside:
            thread.join()
        for node in nodes:
            node.close()
        for node in nodes:
            if node.context.ok():
                _deliver(node, LAST_WORDS)
        # Fast DDS 2.14 was seen to wait for itself for ever here, in what destroys a reader; the
        # kernel's alarm needs nobody in this process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LEAVING)
        for executor, node in zip(executors, nodes, strict=False):
            leave(executor, node)
        rclpy.try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if again:
        time.sleep(FORGOTTEN)
        if not signals.told:
            _begin_anew()
    # Nothing is left to finish, and taking torch apart would take longer than all before.
    os._exit(status)


def _of_ros(error: Exception) -> str:
    """Return in one line what ROS says of its arguments and variables, and what to look at."""
    said = ' '.join(str(error).split())
    if type(error).__name__ == 'UnknownROSArgsError':
        return f'unknown after --ros-args: {said}; leave it out'
    said = re.sub(r', at [^ ,]+:[0-9]+', '', said).removeprefix('failed to initialize rcl: ')
    if said == 'error not set':  # so it is where security is asked for and cannot be had
        return (f'it gives no reason; look at what is set of ROS_SECURITY_ENABLE = '
                f'{os.environ.get("ROS_SECURITY_ENABLE", "")!r} and RMW_IMPLEMENTATION = '
                f'{os.environ.get("RMW_IMPLEMENTATION", "")!r}')
    return f'{said}; correct it, and start the node again'


def _begin_anew() -> None:
    """Execute this process's program again, with nothing left of what was open."""
    signal.alarm(0)
    os.closerange(3, os.sysconf('SC_OPEN_MAX'))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _spin_beside(executor: Any, context: Any, ended: threading.Event) -> None:
    """Execute a node's callbacks; whatever ends that ends the others too."""
    try:
        spin(executor, context, ended.is_set)
    finally:
        ended.set()


def _deliver(node: Any, timeout: float) -> None:
    """Wait at most `timeout` s until the others have what the node published."""
    until = time.monotonic() + timeout
    for publisher in node.publishers:
        left = max(0.0, until - time.monotonic())
        publisher.wait_for_all_acked(Duration(seconds=left))


def actors_on(node: Any, publisher: Any) -> int:
    """
    Return how many act on what is published: all who subscribe to it, but for those that take it
    best effort, who only look on and may come before the others.
    """
    lookers = sum(one.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
                  for one in node.get_subscriptions_info_by_topic(publisher.topic_name))
    return int(publisher.get_subscription_count()) - lookers


def every(node: Any, period: float, callback: Callable[[], None]) -> Any:
    """
    Return a timer that calls `callback` every `period` s of wall time.

    Of wall time whatever use_sim_time says: a simulated clock stands still while the world waits,
    and a watchdog with it.
    """
    return node.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


def tell_refusal(node: Any, refused: Throttle, what: str, error: Exception) -> None:
    """Count what a node refuses, and log it with the reason, at most once a period."""
    if refused.ready():
        node.get_logger().warning(f'{what} refused ({refused.count} so far): {reason(error)}')


def reason(error: Exception) -> str:
    """Return what an error says in one printable line; one nobody foresaw with type and place."""
    text = str(error)
    if not isinstance(error, (ValueError, OSError)) or not text:
        frames = traceback.extract_tb(error.__traceback__)
        place = f' at {Path(frames[-1].filename).name}:{frames[-1].lineno}' if frames else ''
        text = f'{type(error).__name__}{place}: {text}'
    # It may quote the message: a line of its own, terminal codes or megabytes are not for a log.
    line = ''.join(one if one.isprintable() else ' ' for one in text[:LONGEST_REASON])
    return line if len(text) <= LONGEST_REASON else f'{line}...'


class Throttle:
    """Let a message through at most once a period, and count what was held back."""

    def __init__(self, period: float = 1.0) -> None:
        """`period` is in seconds of wall time."""
        self._period = period
        self._last = -period
        self.count = 0

    def ready(self) -> bool:
        """Count one occurrence; return True when it may be told now."""
        self.count += 1
        now = time.monotonic()
        if now - self._last < self._period:
            return False
        self._last = now
        return True
