"""Transitions on disk: rosbag2 directories with MCAP storage."""
from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from av_td3_msgs.msg import Transition
from mcap.records import Channel, Schema
from rclpy.serialization import deserialize_message
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from av_td3_ros.reading import brief, read_yaml
from av_td3_ros.ros.recording.mcap_file import (
    Contents,
    DamageError,
    McapWriter,
    Piece,
    contents,
    damage,
    ends_of,
    finish,
    in_use,
    leave_out,
    messages,
    messages_of,
)

TRANSITION = 'av_td3_msgs/msg/Transition'
METADATA = 'metadata.yaml'
LARGEST_FILE = 2_000_000_000  # bytes: then the bag goes on in another file; FAT takes twice that
WAITING = 50_000_000  # bytes of transitions that wait in memory for room on the disk
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


@dataclasses.dataclass(frozen=True)
class Recovered:
    """
    A file that was not as its writer leaves it: what it holds now, and what became of the rest.

    `cut` are the torn bytes at its end, `dropped` the transitions of damaged chunks.
    """

    path: Path
    count: int
    cut: int = 0
    dropped: int = 0
    failure: str = ''

    def __str__(self) -> str:
        """Tell it in one line."""
        if self.failure:
            return f'{self.path} {self.failure}'
        if self.dropped:
            return (f'{self.path} was damaged: {self.count} transitions are whole, {self.dropped} '
                    f'are left out; the damaged file is kept as {self.path.name}.damaged')
        return (f'{self.path} was not closed: {self.count} transitions recovered, {self.cut} torn '
                'bytes cut off')


@dataclasses.dataclass
class _Span:
    """The transitions `first` to `last` of a session, in a chunk of a file."""

    first: int
    last: int
    path: Path
    piece: Piece


class TransitionBag:
    """
    Write serialised transitions; readable by `ros2 bag` and `rosbags` once closed.

    A transition that was written survives the death of this process. What the disk refuses waits
    in memory until there is room (`waiting`, `trouble`), and is lost where it gets too much
    (`lost`). A bag that is there already goes on in a file of its own; `recovered` tells which
    earlier ones had not been closed.
    """

    def __init__(self, directory: Path, topic: str) -> None:
        """
        Create the bag `directory`, or go on with the bag that is there.

        Raises FileExistsError when something else is there or another process writes it, OSError
        when it cannot be written.
        """
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()) and not _files(directory):
            raise FileExistsError(f'bag {directory} exists already: choose another directory, for '
                                  'it holds something else than a bag of MCAP files')
        for path in _files(directory):
            if in_use(path):
                raise FileExistsError(f'bag {directory} exists already: choose another '
                                      f'directory, for another process writes {path.name}')
        self.recovered, earlier = _recover(directory)
        self._spans: dict[str, list[_Span]] = {}
        for one in earlier:
            for piece in one.pieces:
                try:
                    if piece.count:
                        self._note(one.path, piece, *ends_of(one.path, piece))
                except Exception as error:  # rclpy has its own for what is no transition
                    self.recovered.append(Recovered(one.path, piece.count, failure=(
                        f'is damaged at byte {piece.offset}: nobody can ask for the transitions '
                        f'there: {brief(error)}')))
        self._schema, self._channel = _records(topic)
        self._waiting: collections.deque[tuple[int, bytes]] = collections.deque()
        self._ends = b'', b''  # the first and the last transition of the growing chunk
        self._bytes = self.lost = self.count = 0
        self.trouble = ''
        self._writer: McapWriter | None = None
        self._begin()

    @property
    def waiting(self) -> int:
        """Return how many transitions wait for room on the disk."""
        return len(self._waiting)

    def write(self, stamp_ns: int, serialised: bytes) -> None:
        """Append one transition (CDR bytes); one that the disk refuses waits."""
        if self._bytes + len(serialised) > WAITING:
            self.lost += 1
        else:
            self._waiting.append((stamp_ns, bytes(serialised)))
            self._bytes += len(serialised)
        self.flush()

    def flush(self) -> None:
        """Write what waits; `trouble` says what keeps it from the disk, if anything."""
        try:
            while self._waiting:
                self._add(*self._waiting[0])
                self._bytes -= len(self._waiting.popleft()[1])
                self.count += 1
        except OSError as error:
            self.trouble = str(error)
        else:
            self.trouble = ''

    def _add(self, stamp_ns: int, data: bytes) -> None:
        if self._writer is None:
            self._writer = McapWriter(_next_file(self.directory), self._schema, self._channel)
        if self._writer.is_full(data):
            self._seal(self._writer)
        fresh = self._writer.piece is None
        self._writer.add(stamp_ns, data)
        self._ends = data if fresh else self._ends[0], data
        if self._writer.size > LARGEST_FILE:
            self._end_file()

    def _begin(self) -> None:
        try:
            self._writer = McapWriter(_next_file(self.directory), self._schema, self._channel)
        except OSError as error:
            self.trouble = str(error)

    def seal(self) -> None:
        """End the chunk: what comes now belongs to another session."""
        if self._writer is not None:
            try:
                self._seal(self._writer)
            except OSError as error:
                self.trouble = str(error)

    def _seal(self, writer: McapWriter) -> None:
        piece = writer.seal()
        if piece is not None:
            self._note(writer.path, piece, *self._ends)

    def sessions(self) -> dict[str, tuple[int, int]]:
        """Return the first and last number on disk of every session that has any."""
        return {session: (min(span.first for span in spans), max(span.last for span in spans))
                for session, spans in self._all_spans().items()}

    def read(self, session: str, first: int, last: int) -> list[tuple[int, bytes]]:
        """
        Return number and serialised transition of those with these numbers that are on disk.

        Raises OSError or ValueError when a file of the bag cannot be read.
        """
        found = []
        for span in self._all_spans().get(session, []):
            if span.last < first or span.first > last:
                continue
            for message in messages_of(span.path, span.piece):
                name, number = _key(message.data)
                if name == session and first <= number <= last:
                    found.append((number, message.data))
        return sorted(found)

    def _all_spans(self) -> dict[str, list[_Span]]:
        """Return those of finished chunks and of the one that grows."""
        if self._writer is None or self._writer.piece is None:
            return self._spans
        session, span = _span(self._writer.path, self._writer.piece, *self._ends)
        return {**self._spans, session: [*self._spans.get(session, []), span]}

    def _note(self, path: Path, piece: Piece, first: bytes, last: bytes) -> None:
        session, span = _span(path, piece, first, last)
        self._spans.setdefault(session, []).append(span)

    def _end_file(self) -> None:
        if self._writer is not None:
            self.seal()
            writer, self._writer = self._writer, None
            writer.finish()
            _write_metadata(self.directory)

    def close(self) -> None:
        """Finish the file and its metadata; raises OSError where the disk refuses even that."""
        self.flush()
        if self._writer is None:  # it never had room for a file
            return
        self._end_file()


def read_transitions(directory: Path) -> Iterator[Any]:
    """
    Yield every transition of a bag in the order of its recording, of an unfinished one as well.

    Each has the fields of av_td3_msgs/msg/Transition; frame and state are numpy arrays. Nothing
    is changed on disk. Raises ValueError naming the bag when it cannot be read.
    """
    store = transition_types()
    try:
        paths = _files(directory)
        if not paths:
            yield from _read_by_rosbags(directory, store)
        for path in paths:
            _check_whole(directory, path)
            for schema, _, message in messages(path):
                if schema is not None and schema.name == TRANSITION:
                    yield store.deserialize_cdr(message.data, TRANSITION)
    except Exception as error:  # rosbags wraps little of what it runs into in errors of its own
        remedy = (f'; `av-td3 recover {directory}` says what can be kept'
                  if isinstance(error, DamageError) and 'av-td3' not in str(error) else '')
        raise ValueError(f'bag {directory} cannot be read: {brief(error)}{remedy}') from error


def _read_by_rosbags(directory: Path, store: Typestore) -> Iterator[Any]:
    with Reader(directory) as reader:
        wanted: list[ConnectionExtRosbag2 | Any] = [
            one for one in reader.connections if one.msgtype == TRANSITION]
        for connection, _, data in reader.messages(connections=wanted):
            yield store.deserialize_cdr(data, connection.msgtype)


def is_bag(directory: Path) -> bool:
    """Return whether there is a bag, closed or not."""
    return (directory / METADATA).is_file() or bool(_files(directory))


def count_recorded(directory: Path) -> int:
    """Return how many transitions the files of a bag hold, last steps included; 0 without any."""
    return sum(_contents(path).count for path in _files(directory))


def unfinished(directory: Path) -> list[Path]:
    """Return the files of a bag that were not closed, or are written now."""
    return [path for path in _files(directory) if not _contents(path).finished]


def recover(directory: Path, drop_damaged: bool = False) -> list[Recovered]:
    """
    Close the files of a bag that their writer could not close, and look for damage in all of them.

    A damaged file stays as it is, unless its damaged chunks are to be dropped. Raises ValueError
    for what is no bag, or one that is being written.
    """
    if not _files(directory):
        raise ValueError(f'bag {directory}: no MCAP file there; name the folder of a bag, such as '
                         'RUN/bag')
    for path in _files(directory):
        if in_use(path):
            raise ValueError(f'bag {directory}: {path.name} is being written now: end its '
                             'recorder first')
    mended = []
    for path in _files(directory):
        found = _contents(path)
        damaged = damage(found)
        dropped = sum(piece.count for piece in damaged)
        try:
            if damaged and drop_damaged:
                mended.append(Recovered(path, leave_out(found, damaged).count, dropped=dropped))
            elif damaged:
                mended.append(Recovered(path, found.count, failure=(
                    f'is damaged at byte {damaged[0].offset}: `av-td3 recover --drop-damaged '
                    f'{directory}` keeps all but {len(damaged)} of its {len(found.pieces)} '
                    f'chunks, {found.count - dropped} of {found.count} transitions')))
        except (OSError, ValueError) as error:
            mended.append(Recovered(path, found.count, failure=f'stays damaged: {error}'))
    if any(one.failure for one in mended):
        return mended  # closed, it would look like a whole one
    if any(one.dropped for one in mended):
        _write_metadata(directory)
    return mended + _recover(directory)[0]


def _recover(directory: Path) -> tuple[list[Recovered], list[Contents]]:
    told, found = [], []
    for path in _files(directory):
        before = _contents(path)
        if not before.finished:
            try:
                after = finish(path)
                told.append(Recovered(path, after.count, before.size - before.end))
                before = after
            except (OSError, ValueError) as error:
                told.append(Recovered(path, before.count, failure=(
                    f'was not closed and cannot be closed now: {error}')))
        found.append(before)
    if told or not _lists_files(directory):
        _write_metadata(directory)
    return told, found


def _lists_files(directory: Path) -> bool:
    """Return whether there are metadata that can be read."""
    try:
        _listed(directory)
    except (FileNotFoundError, DamageError):
        return False
    return True


def _listed(directory: Path) -> dict[str, int]:
    """Return which files are closed, with how many transitions."""
    try:
        about = read_yaml(directory / METADATA)
        return {one['path']: one['message_count']
                for one in about['rosbag2_bagfile_information']['files']}
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(f'{directory / METADATA} is damaged: {brief(error)}; `av-td3 recover '
                          f'{directory}` writes it anew') from error


def _contents(path: Path) -> Contents:
    """Return what a file holds, nothing for one whose very beginning is not whole."""
    try:
        return contents(path)
    except DamageError:
        return Contents(path, size=path.stat().st_size)


def _files(directory: Path) -> list[Path]:
    """Return the MCAP files of a bag in the order of their numbers."""
    return sorted(directory.glob('*.mcap'), key=lambda path: (_number(path), path.name))


def _number(path: Path) -> int:
    found = re.search(r'_(\d+)$', path.stem)
    return int(found[1]) if found else -1


def _next_file(directory: Path) -> Path:
    number = max((_number(path) for path in _files(directory)), default=-1) + 1
    return directory / f'{directory.resolve().name}_{number}.mcap'


def _check_whole(directory: Path, path: Path) -> None:
    """Raise DamageError for a file that was closed once and is not whole any more."""
    try:
        listed = _listed(directory)
    except FileNotFoundError:
        return  # nothing was closed so far
    if path.name in listed and not _contents(path).finished:
        raise DamageError(f'{path.name} was closed with {listed[path.name]} transitions and is '
                          f'cut off: `av-td3 recover {directory}` keeps what is whole')


def _key(data: bytes) -> tuple[str, int]:
    message = deserialize_message(data, Transition)
    return message.session, message.sequence


def _span(path: Path, piece: Piece, first: bytes, last: bytes) -> tuple[str, _Span]:
    session, number = _key(first)
    return session, _Span(number, _key(last)[1], path, piece)


def _records(topic: str) -> tuple[Schema, Channel]:
    store = transition_types()
    definition, _ = store.generate_msgdef(TRANSITION, ros_version=2)
    return (Schema(id=1, name=TRANSITION, encoding='ros2msg', data=definition.encode()),
            Channel(id=1, topic=topic, message_encoding='cdr', schema_id=1, metadata={
                'offered_qos_profiles': '', 'topic_type_hash': store.hash_rihs01(TRANSITION)}))


def _write_metadata(directory: Path) -> None:
    """Write what `ros2 bag` and `rosbags` look at first: which files are closed and hold what."""
    closed = [one for one in map(_contents, _files(directory)) if one.finished]
    if not closed:
        return
    spans = [one.span for one in closed if one.count]
    begin, end = min((one[0] for one in spans), default=0), max((one[1] for one in spans),
                                                                default=0)
    channel = next((channel for one in closed for channel in one.channels.values()), None)
    if channel is None:
        return  # cut off within their first thousand bytes
    about = {
        'version': 9, 'storage_identifier': 'mcap',
        'duration': {'nanoseconds': end - begin},
        'starting_time': {'nanoseconds_since_epoch': begin},
        'message_count': sum(one.count for one in closed),
        'topics_with_message_count': [{
            'topic_metadata': {
                'name': channel.topic, 'type': TRANSITION, 'serialization_format': 'cdr',
                'offered_qos_profiles': [],
                'type_description_hash': channel.metadata.get('topic_type_hash', '')},
            'message_count': sum(one.count for one in closed)}],
        'compression_format': '', 'compression_mode': '',
        'relative_file_paths': [one.path.name for one in closed],
        'files': [{'path': one.path.name,
                   'starting_time': {'nanoseconds_since_epoch': one.span[0]},
                   'duration': {'nanoseconds': one.span[1] - one.span[0]},
                   'message_count': one.count} for one in closed],
        'custom_data': None, 'ros_distro': 'unknown'}
    text = yaml.safe_dump({'rosbag2_bagfile_information': about}, sort_keys=False)
    fresh = directory / f'.{METADATA}'
    fresh.write_text(text, encoding='utf-8')
    os.replace(fresh, directory / METADATA)
