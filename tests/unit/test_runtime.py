"""What every process of a session needs around its node."""
from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from av_td3_ros.paths import config_directory
from av_td3_ros.ros import runtime, shared_memory
from av_td3_ros.ros.runtime import (
    APART,
    KEPT,
    LINK_PROFILE,
    PARENT,
    DomainLease,
    Throttle,
    allocator_environment,
    memory_environment,
    profile_environment,
    ros_environment,
)

TIMEOUT = 60.0
PROFILE = str(config_directory() / 'fastdds.xml')
(READ,) = [name for name, value in ros_environment({}).items() if value == PROFILE]
NODE = """
import sys
from rclpy.node import Node
from av_td3_ros.ros.runtime import run

class Small(Node):
    failure = ''

    def __init__(self):
        super().__init__('small')
        if 'refuse' in sys.argv:
            raise ValueError('no such thing: take another')
        self.create_timer(0.01, self.tick)

    def tick(self):
        if 'fail' in sys.argv:
            self.failure = 'cannot go on'
            self.context.try_shutdown()
        print('ready', flush=True)

    def close(self):
        print('context', self.context.ok(), flush=True)
        if 'slow' in sys.argv:
            sys.stdin.readline()  # until told to go on
        print('closed', flush=True)

    def destroy_node(self):
        if 'stuck' in sys.argv:
            sys.stdin.readline()  # nobody tells
        super().destroy_node()

run(Small)
"""


def test_ros_stays_on_this_host_with_the_shipped_profile() -> None:
    set_ = ros_environment({})
    assert set_['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert Path(PROFILE).is_file()
    assert ros_environment({'ROS_DISTRO': 'humble'})['ROS_LOCALHOST_ONLY'] == '1'


def test_fast_dds_reads_the_variable_that_names_the_profile(tmp_path: Path) -> None:
    broken = tmp_path / 'broken.xml'
    broken.write_text('<profiles')
    said = subprocess.run(
        [sys.executable, '-c', 'import rclpy; rclpy.init(); rclpy.create_node("reader")'],
        capture_output=True, text=True, check=False,
        env={**os.environ, **ros_environment({}), READ: str(broken)})
    assert 'XMLPARSER' in said.stdout + said.stderr
    assert 'deprecated' not in said.stdout + said.stderr


def test_the_profile_for_a_link_differs_in_the_size_of_packets_only() -> None:
    def read(name: str) -> ElementTree.Element:
        return ElementTree.parse(config_directory() / name).getroot()
    space = {'': 'http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles'}
    link, host = read(LINK_PROFILE), read('fastdds.xml')
    rtps = link.find('participant/rtps', space)
    assert rtps is not None
    (limit,) = rtps.findall('propertiesPolicy', space)
    rtps.remove(limit)
    assert ''.join(limit.itertext()).split() == ['fastdds.max_message_size', '1200']
    canonical = [ElementTree.canonicalize(ElementTree.tostring(one), strip_text=True)
                 for one in (link, host)]
    assert canonical[0] == canonical[1]
    assert list(profile_environment({}, LINK_PROFILE)) == [READ]


def test_a_process_apart_is_of_our_session_but_not_of_our_group() -> None:
    told = subprocess.run([sys.executable, '-c', 'import os; print(os.getpgid(0), os.getsid(0))'],
                          capture_output=True, text=True, check=True, **APART).stdout
    group, session = map(int, told.split())
    assert group != os.getpgid(0)  # which Ctrl-C ends
    # Between sessions a priority says nothing, where Linux shares out by them.
    assert session == os.getsid(0) or sys.version_info < (3, 11)


def test_what_the_user_has_set_stays() -> None:
    mine = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET', 'ROS_LOCALHOST_ONLY': '0',
            'FASTRTPS_DEFAULT_PROFILES_FILE': '/mine.xml', 'AMENT_PREFIX_PATH': '/opt/ros/x'}
    assert ros_environment(mine) == {}
    assert 'ROS_AUTOMATIC_DISCOVERY_RANGE' not in ros_environment({'ROS_LOCALHOST_ONLY': '0'})
    assert PROFILE not in ros_environment(
        {'FASTRTPS_DEFAULT_PROFILES_FILE': '/mine.xml'}).values()
    assert PROFILE not in ros_environment({READ: '/mine.xml'}).values()
    assert 'GLIBC_TUNABLES' not in allocator_environment({'GLIBC_TUNABLES': 'mine'})
    assert allocator_environment({})['MALLOC_TOP_PAD_'] == str(64 * 1024 * 1024)


def test_what_is_not_ours_is_told_to_keep_memory_too() -> None:
    told = memory_environment({'MALLOC_TRIM_THRESHOLD_': '131072'})
    assert told == {'MALLOC_MMAP_THRESHOLD_': str(32 * 1024 * 1024)}
    assert set(memory_environment({})) == set(KEPT)


@pytest.mark.parametrize('told', [{}, {'MALLOC_TRIM_THRESHOLD_': '131072'}])
def test_images_come_into_memory_that_is_there(told: dict[str, str]) -> None:
    script = (
        'import resource, sys; from av_td3_ros.ros.runtime import keep_memory; keep_memory()\n'
        'def image():\n'
        '    data = bytes(2_000_000); return [data + data, data + data]\n'
        'def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        'image(); image(); before = faults()\n'
        'for _ in range(20): image()\n'
        'print(faults() - before)')
    environment = {key: value for key, value in os.environ.items() if 'MALLOC' not in key}
    ran = subprocess.run([sys.executable, '-c', script], env={**environment, **told},
                         capture_output=True, text=True, check=True, timeout=TIMEOUT)
    # Or as the user has said, page for page: 10 MB are 2,441 of them.
    assert int(ran.stdout) < 1000 if not told else int(ran.stdout) > 20_000


def test_old_garbage_is_still_collected_beside_what_was_there_at_the_start() -> None:
    script = (
        'import gc, weakref; from av_td3_ros.ros.runtime import keep_memory; keep_memory()\n'
        'class Loop:\n'
        '    def __init__(self): self.itself = self\n'
        'loops = [Loop() for _ in range(500)]; gone = [weakref.ref(one) for one in loops]\n'
        'gc.collect(1); del loops\n'
        'for _ in range(200_000): Loop()\n'
        'print(sum(one() is not None for one in gone))')
    ran = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True,
                         check=True, timeout=TIMEOUT)
    assert int(ran.stdout) == 0


def test_a_domain_is_lent_to_one_at_a_time() -> None:
    first, second = DomainLease(), DomainLease()
    assert 1 <= first.domain != second.domain <= 101
    taken = first.domain
    assert taken not in {lease_elsewhere(), second.domain}
    first.release()
    third = DomainLease()
    assert third.domain <= taken
    second.release()
    third.release()


def lease_elsewhere() -> int:
    """Return the domain that another process gets."""
    script = 'from av_td3_ros.ros.runtime import DomainLease; print(DomainLease().domain)'
    return int(subprocess.run([sys.executable, '-c', script], capture_output=True, text=True,
                              check=True, timeout=TIMEOUT).stdout)


def test_when_all_domains_are_taken_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch,
                                                       tmp_path: Path) -> None:
    monkeypatch.setattr(runtime.tempfile, 'gettempdir', lambda: str(tmp_path))
    leases = [DomainLease() for _ in range(101)]
    assert [lease.domain for lease in leases] == list(range(1, 102))
    with pytest.raises(RuntimeError, match='set ROS_DOMAIN_ID'):
        DomainLease()
    leases[41].release()
    assert DomainLease().domain == 42


def test_a_process_whose_session_is_gone_does_not_start() -> None:
    script = 'from av_td3_ros.ros.runtime import die_with_parent; die_with_parent()'
    ended = subprocess.run([sys.executable, '-c', script], env={**os.environ, PARENT: '1'},
                           capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip() == 'the session 1 that started this node is gone'
    ended = subprocess.run([sys.executable, '-c', script], timeout=TIMEOUT, check=False,
                           env={**os.environ, PARENT: str(os.getpid())})
    assert ended.returncode == 0


@pytest.fixture
def small(domain: int, tmp_path: Path) -> Iterator[object]:
    """Return a function that starts a small node in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def small(*words: str) -> subprocess.Popen[str]:
        script = tmp_path / 'small.py'
        script.write_text(NODE)
        started.append(subprocess.Popen(
            [sys.executable, str(script), *words], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield small
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_in_good_order(small: object, number: int) -> None:
    process = small()
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(number)
    said, errors = process.communicate(timeout=TIMEOUT)
    # Its last words can still be published.
    assert said.replace('ready\n', '') == 'context True\nclosed\n'
    assert (process.returncode, errors) == (0, '')


def test_a_second_signal_does_not_interrupt_what_closes_files(small: object) -> None:
    process = small('slow')
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    while process.stdout.readline() != 'context True\n':
        pass
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate('go on\n', timeout=TIMEOUT)
    assert said == 'closed\n'
    assert (process.returncode, errors) == (0, '')


def test_a_node_that_gets_stuck_in_leaving_the_graph_is_ended_all_the_same(small: object) -> None:
    process = small('stuck')
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == -signal.SIGALRM
    assert process.stdout.read().endswith('closed\n')


def test_a_node_that_cannot_start_says_why_in_one_line(small: object) -> None:
    process = small('refuse')
    said, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, said) == (1, '')
    assert errors == '[FATAL] ValueError: no such thing: take another\n'


@pytest.mark.parametrize(('words', 'reason'), [
    (('--params-file', 'nosuch.yaml'), "'--params-file nosuch.yaml'. Error: Error opening YAML"),
    (('--params-file', 'alias.yaml'), "'--params-file alias.yaml'. Error: Will not support alias"),
    (('-r', 'bad'), "Couldn't parse remap rule: '-r bad'"),
    (('--nope',), "unknown after --ros-args: ['--nope']; leave it out")],
    ids=('no file', 'alias', 'remapping', 'unknown'))
def test_what_ros_cannot_start_with_is_said_in_one_line(
        small: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...],
        reason: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path('alias.yaml').write_text('/**:\n  ros__parameters:\n    a: &x 1\n    b: *x\n')
    process = small('--ros-args', *words)
    said, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, said) == (1, '')
    # What is there beside it is of rcl itself.
    (line,) = (one for one in errors.splitlines() if '[rcl]' not in one)
    assert line.startswith('[FATAL] ROS does not start: ') and reason in line
    assert '.c:' not in line


def test_a_variable_that_ros_cannot_start_with_is_named(
        small: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', 'home')
    _, errors = small().communicate(timeout=TIMEOUT)
    assert errors == ('[FATAL] ROS does not start: ROS_DOMAIN_ID is not an integral number; '
                      'correct it, and start the node again\n')


def test_a_node_that_cannot_go_on_ends_with_status_1(small: object) -> None:
    process = small('fail')
    said, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (1, '')
    assert said.endswith('closed\n')


def test_the_throttle_lets_one_through_a_period_and_counts_all() -> None:
    throttle = Throttle(period=3600.0)
    assert [throttle.ready() for _ in range(5)] == [True, False, False, False, False]
    assert throttle.count == 5
    assert [Throttle(period=0.0).ready() for _ in range(3)] == [True] * 3


def segments() -> set[Path]:
    """Return the shared memory of all processes of this host."""
    return {path for path in shared_memory.FOLDER.glob('fast*_*')
            if re.fullmatch('fast(rtps|dds)_[0-9a-f]{16}', path.name)}


def test_a_node_leaves_no_shared_memory_behind(
        small: Callable[..., subprocess.Popen[str]]) -> None:
    process = small()
    await_line(process, 'ready')
    owned = {path for path in segments() if owner_of(path) == process.pid}
    assert owned
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 0
    assert not owned & segments()


def test_what_a_killed_process_leaves_is_swept_and_a_living_one_keeps_its_own(
        small: Callable[..., subprocess.Popen[str]]) -> None:
    killed, living = small(), small()
    kept = set()
    for process in (killed, living):
        await_line(process, 'ready')
        kept = {path for path in segments() if owner_of(path) == process.pid}
        assert kept
    left = {path for path in segments() if owner_of(path) == killed.pid}
    killed.kill()
    killed.wait(TIMEOUT)
    assert left <= segments()
    shared_memory.sweep()
    assert not left & segments()
    assert kept <= segments()


def owner_of(segment: Path) -> int | None:
    """Return the process that holds the lock of a segment, None when nobody does."""
    inode = segment.with_name(f'{segment.name}_el').stat().st_ino
    for line in Path('/proc/locks').read_text().splitlines():
        number, kind, _, _, process, where, *_ = line.split()
        if kind == 'FLOCK' and number.endswith(':') and where.endswith(f':{inode}'):
            return int(process)
    return None


def await_line(process: subprocess.Popen[str], words: str) -> None:
    """Read what a process says until it says `words`."""
    assert process.stdout is not None
    while words not in (line := process.stdout.readline()):
        assert line, 'it ended'
