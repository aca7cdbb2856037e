"""Transitions on disk: rosbag2 directories with MCAP storage, by the library rosbags."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

TRANSITION = 'av_td3_msgs/msg/Transition'
_OURS = ('RewardTerms', 'Transition')


def transition_types() -> Typestore:
    """Return the message types of a bag of transitions, from the installed .msg files."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    share = Path(get_package_share_directory('av_td3_msgs'))
    types: dict[str, Any] = {}
    for name in _OURS:
        text = (share / 'msg' / f'{name}.msg').read_text()
        types.update(get_types_from_msg(text, f'av_td3_msgs/msg/{name}'))
    store.register(types)
    return store


class TransitionBag:
    """Write serialised transitions; readable by `ros2 bag` and `rosbags` once closed."""

    def __init__(self, directory: Path, topic: str) -> None:
        """
        Create the bag `directory` (it must not exist yet).

        Raises FileExistsError when it does, OSError when it cannot be written.
        """
        if directory.exists():
            raise FileExistsError(f'bag {directory} exists already: choose another directory')
        directory.parent.mkdir(parents=True, exist_ok=True)
        store = transition_types()
        self._writer = Writer(directory, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connection = self._writer.add_connection(topic, TRANSITION, typestore=store)
        self.count = 0

    def write(self, stamp_ns: int, serialised: bytes) -> None:
        """Append one transition (CDR bytes); raise OSError when the disk is full."""
        self._writer.write(self._connection, stamp_ns, serialised)
        self.count += 1

    def close(self) -> None:
        """Finish the file and its metadata."""
        self._writer.close()


def read_transitions(directory: Path) -> Iterator[Any]:
    """
    Yield every transition of a bag in the order of its recording.

    Each has the fields of av_td3_msgs/msg/Transition; frame and state are numpy arrays. Raises
    ValueError naming the bag when it cannot be read.
    """
    store = transition_types()
    try:
        with Reader(directory) as reader:
            wanted: list[ConnectionExtRosbag2 | Any] = [
                one for one in reader.connections if one.msgtype == TRANSITION]
            for connection, _, data in reader.messages(connections=wanted):
                yield store.deserialize_cdr(data, connection.msgtype)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f'bag {directory} cannot be read: {error}') from error
    except Exception as error:  # rosbags wraps what it finds in errors of its own
        if type(error).__module__.startswith('rosbags'):
            raise ValueError(f'bag {directory} cannot be read: {error}') from error
        raise
