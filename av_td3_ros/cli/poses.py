"""Poses of a drive: read from a file, recorded from a topic, written to a file."""
from __future__ import annotations

import contextlib
import csv
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from av_td3_ros.cli.session import Interrupt, take_domain
from av_td3_ros.driving.route.geometry import FloatArray
from av_td3_ros.paths import write_whole
from av_td3_ros.reading import brief, read_json, read_text

SPACING = 0.5  # m between two poses that are kept of a drive
COLUMNS = ('x', 'y', 'yaw')
FRAME = '# frame: '


def read_poses(file: Path) -> FloatArray:
    """Return (N, 3) x, y, yaw of a .csv or .json file; raise ValueError naming file and fault."""
    try:
        rows: Iterable[Any] = (read_json(file) if file.suffix == '.json'
                               else _csv_rows(read_text(file).splitlines()))
        poses = np.array([[float(row[key]) for key in (
            COLUMNS if isinstance(row, dict) else range(3))] for row in rows], np.float64)
    except OSError as error:
        raise ValueError(f'{file} cannot be read ({error.strerror}): give a .csv or .json file '
                         'of poses') from error
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, csv.Error) as error:
        why = ('a pose has not all of x, y, yaw' if isinstance(error, (KeyError, IndexError))
               else brief(error))
        raise ValueError(f'{file} holds no poses ({why}): give x, y, yaw in m and rad, '
                         'as columns of a .csv or a list of lists in a .json') from error
    if not len(poses) or not np.isfinite(poses).all():
        raise ValueError(f'{file}: {len(poses)} poses, or some that are not finite')
    return poses


def frame_of(file: Path) -> str:
    """Return the frame that a file of poses names, '' when it names none."""
    first = file.read_text(encoding='utf-8').partition('\n')[0]
    return first.removeprefix(FRAME).strip() if first.startswith(FRAME) else ''


def record(topic: str, seconds: float) -> tuple[FloatArray, str]:
    """
    Return (N, 3) what comes on an odometry topic until Ctrl-C or for `seconds`, and its frame.

    Raises ValueError when nothing comes.
    """
    from nav_msgs.msg import Odometry

    from av_td3_ros.ros import qos
    from av_td3_ros.ros.conversions import from_odometry

    poses: list[tuple[float, float, float]] = []
    frame = ''

    def hear(message: Odometry) -> None:
        nonlocal frame
        try:
            vehicle = from_odometry(message)
        except ValueError as error:
            print(f'left out: {error}')
            return
        if not poses:
            print(f'it comes, first from x {vehicle.x:.1f}, y {vehicle.y:.1f} m of frame '
                  f'{message.header.frame_id!r}', flush=True)
        frame = message.header.frame_id
        poses.append((vehicle.x, vehicle.y, vehicle.yaw))

    with joined('poses') as node:
        node.create_subscription(Odometry, topic, hear, qos.VEHICLE)
        print(f'recording {topic}: drive; Ctrl-C ends it', flush=True)
        spin(node, seconds)
    if not poses:
        raise ValueError(f'--topic {topic}: no odometry came; `ros2 topic list` shows what there '
                         'is, ROS_DOMAIN_ID must be that of the vehicle')
    return np.array(poses, np.float64), frame


def thinned(poses: FloatArray) -> FloatArray:
    """Return the poses at least 0.5 m apart: standing still must not count for more."""
    kept = [poses[0]]
    for pose in poses[1:]:
        if math.hypot(*(pose[:2] - kept[-1][:2])) >= SPACING:
            kept.append(pose)
    return np.array(kept)


def write_poses(file: Path, poses: FloatArray, frame: str) -> None:
    """Write (N, 3) x, y, yaw in a frame as a .csv file that `read_poses` takes."""
    lines = [f'{FRAME}{frame}', ','.join(COLUMNS),
             *(','.join(f'{value:.4f}' for value in pose) for pose in poses)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, '\n'.join(lines) + '\n')


@contextlib.contextmanager
def joined(name: str) -> Iterator[Any]:
    """Lend a node in the graph of the vehicle, for as long as a command works."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    take_domain(simulated=False)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def spin(node: Any, seconds: float) -> None:
    """Let a node hear and speak until Ctrl-C, for some s of wall time at most."""
    import rclpy

    until = time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt), Interrupt() as interrupt:
        while time.monotonic() < until:
            rclpy.spin_once(node, timeout_sec=0.1)
            interrupt.check()


def _csv_rows(lines: list[str]) -> list[Any]:
    lines = [one for one in lines if not one.startswith('#')]
    has_names = any(one.strip() in COLUMNS for one in lines[0].split(',')) if lines else False
    return list(csv.DictReader(lines, skipinitialspace=True) if has_names else csv.reader(lines))
