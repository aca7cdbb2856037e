"""Checks of the computer and the ROS environment that a session is to run in."""
from __future__ import annotations

import ctypes
import os
import shutil
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from av_td3_ros.driving.checkup import Finding

TRANSITION = 7300          # bytes of a transition in the recorder's bag
SPARE = 1 << 30            # bytes of disk that shall be left for logs and checkpoints
PARTICIPANTS = 8           # processes of a session and of somebody who looks at it
MEMORY = 2 << 30           # bytes that the nodes of a session take at most while they drive
PROCESSORS = 2
LAST_DOMAIN = 101          # beyond it Linux gives the ports away itself
TIME_ERROR = 5             # what adjtimex returns where nobody disciplines the clock
SHARED_MEMORY = Path('/dev/shm')
DAEMONS = {'chronyd', 'ntpd', 'systemd-timesyn', 'ptp4l', 'phc2sys', 'openntpd'}
USE_PROFILE = 'export FASTRTPS_DEFAULT_PROFILES_FILE=.../config/fastdds.xml'
_GIB = 1 << 30


def check_machine(folder: Path, hours: float, rate: float, sensor_bytes: float,
                  environment: Mapping[str, str]) -> list[Finding]:
    """
    Return what the checks of this computer found.

    Recordings go to `folder`, for `hours` of driving at `rate` transitions a second;
    `sensor_bytes` is what the sensor topics bring each second.
    """
    return [check_disk(folder, hours, rate, sensor_bytes), check_shared_memory(environment),
            check_memory(), check_processors(), check_time_service(),
            check_domain(environment), check_profile(environment)]


def check_disk(folder: Path, hours: float, rate: float, sensor_bytes: float) -> Finding:
    """Check the room for the recorder's transitions, and for a bag of the sensor topics."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(existing).free
    needed = hours * 3600.0 * rate * TRANSITION + SPARE
    with_sensors = needed + hours * 3600.0 * sensor_bytes
    found = (f'{free / _GIB:.1f} GiB free at {existing}; {hours:g} h take '
             f'{needed / _GIB:.1f} GiB, with a bag of the sensors {with_sensors / _GIB:.1f} GiB')
    if free < needed:
        return Finding('disk', 'error', found, 'free some, or record to another disk (--folder)')
    if not os.access(existing, os.W_OK):
        return Finding('disk', 'error', f'{existing} cannot be written',
                       'record to another folder (--folder)')
    if free < with_sensors:
        return Finding('disk', 'warning', found, 'do not record the sensors, or drive less')
    return Finding('disk', 'ok', found)


def check_shared_memory(environment: Mapping[str, str]) -> Finding:
    """Check that the shared-memory segments of a session's processes fit into /dev/shm."""
    check = 'shared memory'
    segment = _segment_size(environment)
    if not SHARED_MEMORY.is_dir():
        return Finding(check, 'warning', f'no {SHARED_MEMORY}: images go over the network stack',
                       'mount it; in Docker use --ipc=host')
    free = shutil.disk_usage(SHARED_MEMORY).free
    needed = PARTICIPANTS * segment
    found = (f'{free >> 20} MiB free in {SHARED_MEMORY}; {PARTICIPANTS} processes take '
             f'{needed >> 20} MiB')
    if free < needed:
        return Finding(check, 'error', found, 'in Docker give --shm-size=1g or --ipc=host; else '
                       'remove what killed processes left: fastdds shm clean')
    return Finding(check, 'ok', found)


def check_memory() -> Finding:
    """Check the memory that is available."""
    try:
        text = Path('/proc/meminfo').read_text()
        free = int(text.split('MemAvailable:')[1].split()[0]) << 10
    except (OSError, IndexError, ValueError):
        return Finding('memory', 'warning', 'not known: /proc/meminfo cannot be read')
    found = f'{free / _GIB:.1f} GiB available; driving takes up to {MEMORY / _GIB:.1f} GiB'
    if free < MEMORY:
        return Finding('memory', 'warning', found, 'end other programs, or learn elsewhere')
    return Finding('memory', 'ok', found)


def check_processors() -> Finding:
    """Check the number of processors and what others do with them."""
    count, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    found = f'{count} processors, load {load:.1f}'
    if count < PROCESSORS:
        return Finding('processors', 'warning', found,
                       f'drive on {PROCESSORS} or more, learn on another computer')
    if load > count:
        return Finding('processors', 'warning', found, 'end other programs before driving')
    return Finding('processors', 'ok', found)


def check_time_service() -> Finding:
    """Check by the kernel's word whether a service keeps this computer's clock right."""
    check = 'time service'
    daemons = _running(DAEMONS)
    names = ', '.join(sorted(daemons)) or 'no time service'
    state = _kernel_clock()
    if state is None:
        return Finding(check, 'warning', f'{names}; the kernel does not tell', 'look at `chronyc '
                       'tracking`')
    synchronised, error = state
    if synchronised:
        return Finding(check, 'ok', f'{names}; synchronised, at most {error * 1e3:.1f} ms off')
    if daemons & {'phc2sys', 'ptp4l'}:  # they leave the kernel's flag alone
        return Finding(check, 'ok', f'{names}; look at its log for the offset')
    return Finding(check, 'warning', f'{names}; the clock is not synchronised',
                   'install chrony and let camera, vehicle and this computer ask the same server')


def check_domain(environment: Mapping[str, str]) -> Finding:
    """Check which nodes can be seen from here: domain and discovery range."""
    check = 'ROS domain'
    given = environment.get('ROS_DOMAIN_ID', '') or '0'
    if not given.isdigit() or int(given) > LAST_DOMAIN:
        return Finding(check, 'error', f'ROS_DOMAIN_ID={given!r}',
                       f'set a number from 0 to {LAST_DOMAIN}, the same on every computer')
    local = environment.get('ROS_LOCALHOST_ONLY', '0') == '1'
    where = 'LOCALHOST' if local else environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')
    known = ('LOCALHOST', 'SUBNET', 'OFF', 'SYSTEM_DEFAULT')
    if where.upper() not in known:
        return Finding(check, 'error', f'ROS_AUTOMATIC_DISCOVERY_RANGE={where!r}',
                       f'set one of {", ".join(known)}')
    about = {'LOCALHOST': 'nodes of this computer only (others: export '
                          'ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET)',
             'OFF': 'nobody, but for ROS_STATIC_PEERS'}.get(where.upper(), 'nodes of the subnet')
    return Finding(check, 'ok', f'{given}, sees {about}')


def check_profile(environment: Mapping[str, str]) -> Finding:
    """Check which middleware carries the messages, and that it finds its settings."""
    from rclpy import get_rmw_implementation_identifier

    check, middleware = 'middleware', get_rmw_implementation_identifier()
    if 'fastrtps' not in middleware:
        return Finding(check, 'ok', f'{middleware}; large images may need buffers of their own')
    given = _profile_file(environment)
    if given is None:
        return Finding(check, 'warning', f'{middleware} with its own settings: images over '
                       '640x480 take five times as long',
                       USE_PROFILE)
    try:
        ElementTree.parse(given)
    except (OSError, ElementTree.ParseError) as error:
        return Finding(check, 'error', f'{middleware}: profile file {given} cannot be read '
                       f'({error})', USE_PROFILE)
    return Finding(check, 'ok', f'{middleware}, profile {given}')


def _profile_file(environment: Mapping[str, str]) -> Path | None:
    given = (environment.get('FASTDDS_DEFAULT_PROFILES_FILE')
             or environment.get('FASTRTPS_DEFAULT_PROFILES_FILE'))
    return Path(given) if given else None


def _segment_size(environment: Mapping[str, str]) -> int:
    """Return the bytes of shared memory that each process takes."""
    default = 1 << 19  # of Fast DDS itself
    try:
        given = _profile_file(environment)
        sizes = [] if given is None else [
            int(one.text or 0) for one in ElementTree.parse(given).iter()
            if one.tag.rpartition('}')[2] == 'segment_size']
    except (OSError, ValueError, ElementTree.ParseError):
        return default
    return max([default, *sizes])


def _kernel_clock() -> tuple[bool, float] | None:
    """Return (clock is disciplined, its largest error in s) as adjtimex tells, or None."""
    # struct timex: modes, offset, freq, maxerror, ...; all else is left to the kernel.
    buffer = ctypes.create_string_buffer(512)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (AttributeError, OSError):
        return None
    if state < 0:
        return None
    return state != TIME_ERROR, struct.unpack_from('@Illl', buffer.raw)[3] * 1e-6


def _running(names: set[str]) -> set[str]:
    found = set()
    for comm in Path('/proc').glob('[0-9]*/comm'):
        try:
            found.add(comm.read_text().strip())
        except OSError:
            continue  # it has ended
    return found & names
