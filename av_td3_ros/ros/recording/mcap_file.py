"""MCAP files that are whole after each message, however their writer ends."""
from __future__ import annotations

import dataclasses
import fcntl
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mcap.data_stream import ReadDataStream, RecordBuilder
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    Message,
    MessageIndex,
    Schema,
    Statistics,
)
from mcap.stream_reader import breakup_chunk
from mcap.writer import MCAP0_MAGIC as MAGIC

LIBRARY = 'av_td3_ros'
CHUNK = 1_000_000  # bytes of messages in a chunk
LARGEST = 1 << 30  # bytes: no record that we read is larger

# Opcode, length, first and last time, size, CRC, no name of a compression, size again.
_CHUNK = struct.Struct('<BQQQQIIQ')
_RECORD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<BQHIQQ')  # opcode, length, channel, sequence, two times
_FOOTER = _RECORD.size + 20 + len(MAGIC)
_NOTED = (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.STATISTICS)
_BROKEN = (McapError, struct.error, ValueError, KeyError, MemoryError)  # of a spoilt content


class DamageError(ValueError):
    """A file that is not what its writer left behind."""


@dataclasses.dataclass
class Piece:
    """A chunk: where it begins, the bytes of its messages, and where their index is (or 0)."""

    offset: int
    size: int = 0
    begin: int = 0  # ns
    end: int = 0  # ns
    crc: int = 0
    count: int = 0
    index: int = 0

    @property
    def messages(self) -> int:
        """Return where its first message lies in the file."""
        return self.offset + _CHUNK.size

    def header(self) -> bytes:
        """Return what stands before its messages."""
        return _CHUNK.pack(Opcode.CHUNK, _CHUNK.size - _RECORD.size + self.size, self.begin,
                           self.end, self.size, self.crc, 0, self.size)

    def grow(self, record: bytes) -> None:
        """Count in the record of a message that stands behind the others."""
        time = _MESSAGE.unpack_from(record)[4]
        self.begin = min(self.begin, time) if self.size else time
        self.end = max(self.end, time)
        self.crc = zlib.crc32(record, self.crc)
        self.size += len(record)
        self.count += 1


class McapWriter:
    """
    Write messages of one topic so that each is in the file before `add` returns.

    A chunk grows in its place: behind each message its header is written anew. So a process that
    is killed leaves a file that lacks nothing but the index at its end. The file is locked as
    long as its writer lives.
    """

    def __init__(self, path: Path, schema: Schema, channel: Channel) -> None:
        """Create the file; raises FileExistsError where there is one, OSError without room."""
        self.path = path
        self._file = path.open('x+b', buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._channel = channel.id
        self.size = 0
        self.piece: Piece | None = None
        builder = RecordBuilder()
        builder.write(MAGIC)
        for record in (Header('ros2', LIBRARY), schema, channel):
            record.write(builder)
        try:
            self._append(builder.end())
        except OSError:
            self._file.close()
            path.unlink()
            raise

    def add(self, time: int, data: bytes, sequence: int = 0) -> None:
        """Append a message of `time` ns; after an OSError the file is as it was before."""
        length = _MESSAGE.size - _RECORD.size + len(data)
        record = _MESSAGE.pack(Opcode.MESSAGE, length, self._channel, sequence % 2**32, time,
                               time) + data
        if self.piece is None:
            piece = Piece(self.size)
            piece.grow(record)
            self._append(piece.header() + record)
        else:
            piece = dataclasses.replace(self.piece)
            piece.grow(record)
            before = self.size
            self._append(record)
            try:
                os.pwrite(self._file.fileno(), piece.header(), piece.offset)
            except OSError:
                self._cut(before)
                raise
        self.piece = piece

    def is_full(self, data: bytes) -> bool:
        """Return whether the chunk should end before another message."""
        return self.piece is not None and self.piece.size + len(data) > CHUNK

    def seal(self) -> Piece | None:
        """End the chunk, if there is one, and return it; what comes next begins another one."""
        piece = self.piece
        if piece is None:
            return None
        piece.index = self.size
        self._append(_index(self._file, piece))
        self.piece = None
        return piece

    def finish(self) -> None:
        """Write the index, without which other readers do not open the file, and close it."""
        try:
            self.seal()
            self._append(_summary(contents(self.path), self.size))
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _append(self, data: bytes) -> None:
        """Write all of it or nothing: behind a torn record no other would be found."""
        left, offset = memoryview(data), self.size
        try:
            while left:
                written = os.pwrite(self._file.fileno(), left, offset)
                left, offset = left[written:], offset + written
        except OSError:
            self._cut(self.size)
            raise
        self.size = offset

    def _cut(self, size: int) -> None:
        self._file.truncate(size)
        self.size = size


@dataclasses.dataclass
class Contents:
    """What an MCAP file of ours holds: `end` is where its whole records end, of `size` bytes."""

    path: Path
    library: str = ''
    finished: bool = False
    schemas: dict[int, Schema] = dataclasses.field(default_factory=dict)
    channels: dict[int, Channel] = dataclasses.field(default_factory=dict)
    pieces: list[Piece] = dataclasses.field(default_factory=list)
    statistics: Statistics | None = None
    end: int = 0
    size: int = 0

    @property
    def count(self) -> int:
        """Return how many messages there are."""
        if self.statistics is not None:
            return self.statistics.message_count
        return sum(piece.count for piece in self.pieces)

    @property
    def span(self) -> tuple[int, int]:
        """Return the times of the first and of the last message in ns, 0 without any."""
        if self.statistics is not None:
            return self.statistics.message_start_time, self.statistics.message_end_time
        return (min((piece.begin for piece in self.pieces), default=0),
                max((piece.end for piece in self.pieces), default=0))


def contents(path: Path) -> Contents:
    """
    Look through a file for its chunks, without their messages.

    A chunk that is compressed, as other writers have them, is left out. Raises DamageError for
    what is no MCAP file, OSError when it cannot be read.
    """
    with path.open('rb') as file:
        size = os.fstat(file.fileno()).st_size
        found = Contents(path, size=size, finished=_is_finished(file, size))
        for opcode, start, length in _records(file, path, size, whole=False):
            file.seek(start)
            if start + length > size:
                piece = _torn_piece(file, start, size) if opcode == Opcode.CHUNK else None
                if piece is not None:
                    found.pieces.append(piece)
                    found.end = piece.messages + piece.size
                break
            if opcode == Opcode.CHUNK:
                piece = _piece(file, start, length)
                if piece is not None:
                    found.pieces.append(piece)
            elif opcode == Opcode.MESSAGE_INDEX and found.pieces:
                piece = found.pieces[-1]
                piece.index, piece.count = start - _RECORD.size, (length - 6) // 16
            elif (opcode == Opcode.MESSAGE and found.pieces and not found.pieces[-1].index
                  and _MESSAGE.size - _RECORD.size <= length <= LARGEST):
                # Killed between message and header of the chunk.
                found.pieces[-1].grow(_RECORD.pack(opcode, length) + file.read(length))
            elif opcode in _NOTED:
                _note(found, opcode, _content(file, path, start, length))
            if opcode == Opcode.DATA_END and not found.finished:
                break  # killed while the index was written
            found.end = start + length
            if opcode == Opcode.FOOTER:
                break
        if found.pieces and not found.pieces[-1].index:
            last = found.pieces[-1]
            last.count = sum(1 for _ in _inner(_pread(file, last.messages, last.size)))
        return found


def _note(found: Contents, opcode: int, content: bytes) -> None:
    stream = ReadDataStream(io.BytesIO(content))
    try:
        if opcode == Opcode.HEADER:
            found.library = Header.read(stream).library
        elif opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            found.schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            found.channels[channel.id] = channel
        else:
            found.statistics = Statistics.read(stream)
    except _BROKEN as error:
        raise DamageError(f'{found.path}: {Opcode(opcode).name} is damaged: {error!r}') from error


def _piece(file: BinaryIO, start: int, length: int) -> Piece | None:
    head = file.read(_CHUNK.size - _RECORD.size)
    if len(head) < _CHUNK.size - _RECORD.size:
        return None
    begin, end, size, crc, name, stored = struct.unpack('<QQQIIQ', head)
    if name or stored != size or len(head) + size != length:
        return None
    return Piece(start - _RECORD.size, size, begin, end, crc)


def _torn_piece(file: BinaryIO, start: int, size: int) -> Piece | None:
    """Return the chunk with those of its messages that are whole, None when none is."""
    piece = Piece(start - _RECORD.size)
    if size <= piece.messages:
        return None  # not even its head is whole
    data = _pread(file, piece.messages, min(size - piece.messages, LARGEST))
    for position, length in _inner(data):
        piece.grow(data[position - _RECORD.size:position + length])
    return piece if piece.size else None


def finish(path: Path) -> Contents:
    """
    Write the index of a file whose writer was killed; return what it holds.

    What is cut off is the one record that was being written. Raises BlockingIOError while somebody
    writes the file, DamageError when it is none of ours or damaged before its end, OSError without
    room for the index: then the file stays as it was.
    """
    with path.open('r+b', buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = contents(path)
        if found.finished:
            return found
        if found.library != LIBRARY:
            raise DamageError(f'{path}: written by {found.library or "nobody known"}, not by '
                              'this program: try `ros2 bag reindex`')
        if found.size - found.end > 16 * CHUNK:
            raise DamageError(f'{path}: damaged at byte {found.end} of {found.size}: left as it '
                              'is, what is before that can be read')
        added = b''
        if found.pieces and not found.pieces[-1].index:
            last = found.pieces[-1]
            os.pwrite(file.fileno(), last.header(), last.offset)
            last.index = found.end
            added = _index(file, last)
        end = found.end
        file.truncate(end)
        added += _summary(found, end + len(added))
        try:
            while added:
                written = os.pwrite(file.fileno(), added, end)
                added, end = added[written:], end + written
        except OSError:
            file.truncate(found.end)
            raise
        os.fsync(file.fileno())
        found.finished = True
        return found


def damage(found: Contents) -> list[Piece]:
    """Return the chunks of a file of our own whose messages are not those that were written."""
    if found.library != LIBRARY:
        return []
    with found.path.open('rb') as file:
        return [piece for piece in found.pieces
                if zlib.crc32(_pread(file, piece.messages, piece.size)) != piece.crc]


def leave_out(found: Contents, damaged: Sequence[Piece]) -> Contents:
    """
    Put a file without these chunks in the place of one of our own; return what it holds.

    The damaged one is kept as FILE.damaged. Raises as `finish`, FileExistsError where one is kept
    there already; then all stays as it was.
    """
    path = found.path
    fresh, kept = (path.with_name(f'{path.name}.{word}') for word in ('part', 'damaged'))
    if kept.exists():
        raise FileExistsError(f'{kept} is there already: move it elsewhere first')
    try:
        with path.open('rb') as file, fresh.open('wb') as copy:
            copy.write(_pread(file, 0, found.pieces[0].offset))
            for piece in found.pieces:
                if piece not in damaged:
                    copy.write(piece.header() + _pread(file, piece.messages, piece.size))
                    copy.write(_index(file, piece))
        whole = finish(fresh)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    path.rename(kept)
    fresh.rename(path)
    return dataclasses.replace(whole, path=path)


def in_use(path: Path) -> bool:
    """Return whether somebody writes this file now."""
    with path.open('rb') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def messages(path: Path) -> Iterator[tuple[Schema | None, Channel, Message]]:
    """
    Yield every message of an MCAP file of any writer in the order in which they were written.

    An unfinished file is read as far as it is whole. Raises DamageError for a damaged one and for
    what is no MCAP file, OSError when it cannot be read.
    """
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with path.open('rb') as file:
        size = os.fstat(file.fileno()).st_size
        finished = _is_finished(file, size)
        end = 0
        for opcode, start, length in _records(file, path, size, whole=False):
            if opcode == Opcode.DATA_END:
                return
            end = start + length
            if opcode not in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK):
                continue
            content = _content(file, path, start, min(length, size - start))
            try:
                records = (_chunk(content, length) if opcode == Opcode.CHUNK else
                           [_read(opcode, content)] if len(content) == length else [])
                for record in records:
                    if isinstance(record, Schema):
                        schemas[record.id] = record
                    elif isinstance(record, Channel):
                        channels[record.id] = record
                    else:
                        channel = channels[record.channel_id]
                        yield schemas.get(channel.schema_id), channel, record
            except Exception as error:  # each compressor has its own
                raise DamageError(f'{path}: damaged at byte {start}: {error!r}') from error
        if finished:
            raise DamageError(f'{path}: damaged at byte {end}: no record there')


def messages_of(path: Path, piece: Piece) -> list[Message]:
    """Return the messages of a chunk of our own. Raises DamageError, OSError."""
    with path.open('rb') as file:
        data = _pread(file, piece.messages, piece.size)
    try:
        return [_read(Opcode.MESSAGE, data[start:start + length])
                for start, length in _inner(data)]
    except _BROKEN as error:
        raise DamageError(f'{path}: damaged at byte {piece.offset}: {error!r}') from error


def ends_of(path: Path, piece: Piece) -> tuple[bytes, bytes]:
    """Return the first and the last message of a chunk of our own. Raises as `messages_of`."""
    if not piece.index:
        inside = messages_of(path, piece)
        return inside[0].data, inside[-1].data
    with path.open('rb') as file:
        entry = piece.index + _RECORD.size + 6 + 16 * (piece.count - 1)
        try:
            _, offset = struct.unpack('<QQ', _pread(file, entry, 16))
            return _message(file, piece.messages), _message(file, piece.messages + offset)
        except _BROKEN as error:
            raise DamageError(f'{path}: damaged at byte {piece.index}: {error!r}') from error


def _message(file: BinaryIO, offset: int) -> bytes:
    opcode, length, *_ = _MESSAGE.unpack(_pread(file, offset, _MESSAGE.size))
    if opcode != Opcode.MESSAGE or length > LARGEST:
        raise ValueError(f'no message at byte {offset}')
    return _pread(file, offset + _MESSAGE.size, length + _RECORD.size - _MESSAGE.size)


def _is_finished(file: BinaryIO, size: int) -> bool:
    if size < _FOOTER + len(MAGIC):
        return False
    end = _pread(file, size - _FOOTER, _FOOTER)
    return end[0] == Opcode.FOOTER and end.endswith(MAGIC)


def _records(file: BinaryIO, path: Path, size: int, whole: bool = True
             ) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, start and length of each record, the last one only if `whole` allows it."""
    if _pread(file, 0, len(MAGIC)) != MAGIC:
        raise DamageError(f'{path}: no MCAP file: it does not begin as one')
    position = len(MAGIC)
    while position + _RECORD.size <= size:
        opcode, length = _RECORD.unpack(_pread(file, position, _RECORD.size))
        start = position + _RECORD.size
        if not 0 < opcode <= Opcode.DATA_END and opcode < 0x80:
            return
        if start + length > size:
            if not whole and length <= LARGEST:
                yield opcode, start, length
            return
        yield opcode, start, length
        position = start + length


def _content(file: BinaryIO, path: Path, start: int, length: int) -> bytes:
    if length > LARGEST:
        raise DamageError(f'{path}: damaged at byte {start}: a record of {length} bytes')
    return _pread(file, start, length)


def _read(opcode: int, content: bytes) -> Any:
    stream = ReadDataStream(io.BytesIO(content))
    if opcode == Opcode.MESSAGE:
        return Message.read(stream, len(content))
    return (Schema if opcode == Opcode.SCHEMA else Channel).read(stream)


def _chunk(content: bytes, length: int) -> list[Any]:
    """Return the records of a chunk; of a torn one those that are whole."""
    if len(content) == length:
        chunk = Chunk.read(ReadDataStream(io.BytesIO(content)))
        if chunk.uncompressed_size > LARGEST:
            raise ValueError(f'a chunk of {chunk.uncompressed_size} bytes')
        return list(breakup_chunk(chunk, validate_crc=True))
    head = _CHUNK.size - _RECORD.size
    if len(content) < head or struct.unpack_from('<I', content, 28)[0]:
        return []  # of a compressed one nothing can be told before its end
    data = content[head:]
    end = max((start + length for start, length in _inner(data, every=True)), default=0)
    return list(breakup_chunk(Chunk('', data[:end], 0, 0, 0, end)))


def _inner(data: bytes, every: bool = False) -> Iterator[tuple[int, int]]:
    """Yield where each whole message (or every record) within a chunk lies, and its length."""
    position = 0
    while position + _RECORD.size <= len(data):
        opcode, length = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        if position + length > len(data) or (
                opcode == Opcode.MESSAGE and length < _MESSAGE.size - _RECORD.size):
            return
        if every or opcode == Opcode.MESSAGE:
            yield position, length
        position += length


def _index(file: BinaryIO, piece: Piece) -> bytes:
    """Return the index of the messages of a chunk."""
    data = _pread(file, piece.messages, piece.size)
    entries: list[tuple[int, int]] = []
    channel = 0
    for start, _ in _inner(data):
        _, _, channel, _, time, _ = _MESSAGE.unpack_from(data, start - _RECORD.size)
        entries.append((time, start - _RECORD.size))
    builder = RecordBuilder()
    MessageIndex(channel, entries).write(builder)
    return builder.end()


def _summary(found: Contents, end: int) -> bytes:
    """Return everything behind the data, which end at byte `end`."""
    builder = RecordBuilder()
    DataEnd(0).write(builder)
    summary = builder.count
    counts = dict.fromkeys(found.channels, found.count)
    begin, last = found.span
    for record in (*found.schemas.values(), *found.channels.values(),
                   Statistics(attachment_count=0, channel_count=len(found.channels),
                              channel_message_counts=counts, chunk_count=len(found.pieces),
                              message_count=found.count, metadata_count=0,
                              message_start_time=begin, message_end_time=last,
                              schema_count=len(found.schemas)),
                   *(_chunk_index(found, piece) for piece in found.pieces)):
        record.write(builder)
    Footer(summary_start=end + summary, summary_offset_start=0, summary_crc=0).write(builder)
    builder.write(MAGIC)
    return builder.end()


def _chunk_index(found: Contents, piece: Piece) -> ChunkIndex:
    (channel,) = found.channels
    return ChunkIndex(
        chunk_length=_CHUNK.size + piece.size, chunk_start_offset=piece.offset, compression='',
        compressed_size=piece.size, message_end_time=piece.end,
        message_index_length=_RECORD.size + 6 + 16 * piece.count,
        message_index_offsets={channel: piece.index}, message_start_time=piece.begin,
        uncompressed_size=piece.size)


def _pread(file: BinaryIO, start: int, length: int) -> bytes:
    return os.pread(file.fileno(), length, start)
