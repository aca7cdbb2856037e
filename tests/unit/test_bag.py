"""Transitions on disk: written once, closed, read by any rosbag2 reader."""
from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from av_td3_msgs.msg import RewardTerms, Transition
from mcap.reader import make_reader
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from av_td3_ros.cli import recover as command
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_stamp
from av_td3_ros.ros.recording.bag import (
    TRANSITION,
    TransitionBag,
    read_transitions,
    recover,
    transition_types,
    unfinished,
)
from av_td3_ros.ros.recording.history import History
from av_td3_ros.ros.recording.mcap_file import contents

pytestmark = pytest.mark.usefixtures('ros')


def transition(sequence: int) -> Transition:
    """Return a transition that holds something in every field."""
    random = np.random.default_rng(sequence)
    message = Transition(
        vehicle='ego_vehicle', session='s', sequence=sequence, episode=2, step=sequence,
        height=84, width=84, frame=to_bytes(random.integers(0, 256, (84, 84), np.uint8)),
        state=to_floats(random.normal(size=53).astype(np.float32)), steer=-0.5,
        acceleration=0.25, source=1, exploring=True, reward=1.5,
        terms=RewardTerms(progress=2.0, lane=-0.5, total=1.5), is_first=sequence == 1,
        is_last=True, is_terminal=True, reason='off_road', policy_version=2**40)
    message.header.stamp = to_stamp(sequence * 50_000_000)
    message.header.frame_id = 'ego_vehicle'
    return message


def written(directory: Path, count: int) -> list[Transition]:
    """Write a bag; return what is in it."""
    messages = [transition(sequence) for sequence in range(1, count + 1)]
    bag = TransitionBag(directory, '/learner/transition')
    for number, message in enumerate(messages):
        bag.write(1_000 + number, serialize_message(message))
    assert bag.count == count
    bag.close()
    return messages


def test_what_is_written_is_read(tmp_path: Path) -> None:
    messages = written(tmp_path / 'deep' / 'bag', 50)
    read = list(read_transitions(tmp_path / 'deep' / 'bag'))
    assert len(read) == 50
    for one, other in zip(read, messages, strict=True):
        assert serialised(one) == serialised(other)


def serialised(message: object) -> list[object]:
    """Return every value of a transition, of either library."""
    return [
        (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id),
        bytes(message.frame), list(message.state),
        *(getattr(message, name) for name in (
            'vehicle', 'session', 'sequence', 'episode', 'step', 'height', 'width', 'steer',
            'acceleration', 'source', 'exploring', 'reward', 'is_first', 'is_last',
            'is_terminal', 'reason', 'policy_version')),
        *(getattr(message.terms, name) for name in (
            'progress', 'efficiency', 'lane', 'comfort', 'safety', 'total'))]


def test_frame_and_state_are_arrays(tmp_path: Path) -> None:
    written(tmp_path / 'bag', 1)
    (one,) = read_transitions(tmp_path / 'bag')
    assert (one.frame.dtype, one.frame.shape) == (np.uint8, (84 * 84,))
    assert (one.state.dtype, one.state.shape) == (np.float32, (53,))


def test_the_metadata_is_that_of_rosbag2(tmp_path: Path) -> None:
    written(tmp_path / 'bag', 3)
    about = yaml.safe_load((tmp_path / 'bag' / 'metadata.yaml').read_text())[
        'rosbag2_bagfile_information']
    assert about['storage_identifier'] == 'mcap'
    assert about['message_count'] == 3
    (topic,) = about['topics_with_message_count']
    assert topic['topic_metadata']['name'] == '/learner/transition'
    assert topic['topic_metadata']['type'] == 'av_td3_msgs/msg/Transition'
    assert topic['topic_metadata']['serialization_format'] == 'cdr'
    assert all((tmp_path / 'bag' / name).is_file() for name in about['relative_file_paths'])


def test_an_empty_bag_is_a_bag(tmp_path: Path) -> None:
    written(tmp_path / 'bag', 0)
    assert list(read_transitions(tmp_path / 'bag')) == []


def test_a_bag_that_is_there_goes_on_in_another_file(tmp_path: Path) -> None:
    first = written(tmp_path / 'bag', 2)
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    before = file.read_bytes()
    second = written(tmp_path / 'bag', 3)
    assert file.read_bytes() == before
    assert [serialised(one) for one in read_transitions(tmp_path / 'bag')] == [
        serialised(one) for one in (*first, *second)]
    assert [one[5] for one in by_rosbags(tmp_path / 'bag')] == [1, 2, 1, 2, 3]


def test_what_is_no_bag_of_ours_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag' / 'notes').write_text('mine')
    with pytest.raises(FileExistsError, match='exists already: choose another'):
        TransitionBag(tmp_path / 'bag', '/learner/transition')
    assert [path.name for path in (tmp_path / 'bag').iterdir()] == ['notes']


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'bag .*nowhere cannot be read'):
        list(read_transitions(tmp_path / 'nowhere'))
    written(tmp_path / 'bag', 5)
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r'cannot be read.*closed with 5 transitions'):
        list(read_transitions(tmp_path / 'bag'))


def by_rosbags(directory: Path) -> list[list[object]]:
    """Return what the library rosbags reads, by the definitions in the bag."""
    with AnyReader([directory]) as reader:
        return [serialised(reader.deserialize(data, connection.msgtype))
                for connection, _, data in reader.messages()]


def by_mcap(directory: Path) -> int:
    """Return how many messages Foxglove's own library finds by the index of the file."""
    (file,) = directory.glob('*.mcap')
    with file.open('rb') as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary = reader.get_summary()
        found = sum(1 for _ in reader.iter_messages('/learner/transition'))
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == found
        return found


def writer_process(directory: Path) -> subprocess.Popen[str]:
    """Start a process that writes for ever and tells the number of each transition on disk."""
    return subprocess.Popen(
        [sys.executable, '-c', WRITER, str(directory)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})


WRITER = """
import itertools, sys
from pathlib import Path
from rclpy.serialization import serialize_message
from av_td3_ros.ros.recording.bag import TransitionBag
from test_bag import transition
bag = TransitionBag(Path(sys.argv[1]), '/learner/transition')
for number in itertools.count(1):
    bag.write(number, serialize_message(transition(number)))
    print(number, flush=True)
"""


@pytest.mark.parametrize('count', [1, 3, 200])
def test_a_writer_that_is_killed_leaves_everything_it_wrote(tmp_path: Path, count: int) -> None:
    bag = tmp_path / 'bag'
    with writer_process(bag) as process:
        assert process.stdout is not None
        for _ in range(count):
            told = process.stdout.readline()
        with pytest.raises(FileExistsError, match=r'another process writes bag_0\.mcap'):
            TransitionBag(bag, '/learner/transition')
        with pytest.raises(ValueError, match=r'bag_0\.mcap is being written now'):
            recover(bag)
        live = [one.sequence for one in read_transitions(bag)]  # nor does a reader disturb it
        assert live == list(range(1, len(live) + 1)) and len(live) >= count
        process.kill()
        told = (process.stdout.read().splitlines() or [told])[-1]
    (file,) = bag.glob('*.mcap')
    before = file.read_bytes()
    read = list(read_transitions(bag))
    assert file.read_bytes() == before and unfinished(bag) == [file]
    assert [one.sequence for one in read] == list(range(1, len(read) + 1))
    assert len(read) >= int(told)
    assert all(serialised(one) == serialised(transition(one.sequence)) for one in read[-3:])

    (told_of,) = recover(bag)
    assert (told_of.path, told_of.count, told_of.failure) == (file, len(read), '')
    assert f'{len(read)} transitions recovered' in str(told_of)
    assert len(by_rosbags(bag)) == by_mcap(bag) == len(read)
    assert unfinished(bag) == [] and recover(bag) == []


@pytest.mark.parametrize('cut', range(1, 400, 37))
def test_a_torn_record_is_cut_off(tmp_path: Path, cut: int) -> None:
    bag, file = half_written(tmp_path, 9)
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert len(list(read_transitions(bag))) == 8
    (told,) = recover(bag)
    assert told.count == 8 and told.cut > 0
    assert len(by_rosbags(bag)) == by_mcap(bag) == 8


def test_a_message_whose_chunk_was_not_told_of_it_counts(tmp_path: Path) -> None:
    bag, file = half_written(tmp_path, 4)
    shorter = file.read_bytes()
    _, file_of_five = half_written(tmp_path / 'other', 5)
    # As killed between message and header of the chunk: a header of four before five messages.
    file.write_bytes(shorter + file_of_five.read_bytes()[len(shorter):])
    assert len(list(read_transitions(bag))) == 5
    assert recover(bag)[0].count == 5
    assert len(by_rosbags(bag)) == by_mcap(bag) == 5


def half_written(folder: Path, count: int) -> tuple[Path, Path]:
    """Return a bag of so many transitions that was not closed, and its file."""
    writing = TransitionBag(folder / 'writing' / 'bag', '/learner/transition')
    for number in range(1, count + 1):
        writing.write(number, serialize_message(transition(number)))
    bag = folder / 'bag'
    bag.mkdir()
    (source,) = writing.directory.glob('*.mcap')
    file = bag / 'bag_0.mcap'
    file.write_bytes(source.read_bytes())
    return bag, file


def test_what_is_damaged_in_its_middle_is_left_as_it_is(tmp_path: Path) -> None:
    bag, file = half_written(tmp_path, 5000)  # 37 MB
    data = bytearray(file.read_bytes())
    (piece, *_) = contents(file).pieces
    data[piece.offset] = 0  # no record begins by this
    file.write_bytes(data)
    (told,) = recover(bag)
    assert 'damaged at byte' in told.failure and 'was not closed' in str(told)
    assert file.read_bytes() == data


@pytest.mark.parametrize('length', [0, 7, 39, 100, 600, 1100])
def test_a_file_that_is_cut_off_at_its_beginning_stops_no_recorder(tmp_path: Path, length: int
                                                                   ) -> None:
    bag, file = half_written(tmp_path, 3)
    file.write_bytes(file.read_bytes()[:length])
    again = TransitionBag(bag, '/learner/transition')
    assert len(again.recovered) == 1
    again.write(1_000, serialize_message(transition(7)))
    again.close()
    recover(bag)
    if length >= 39:  # what is shorter is no MCAP file, and stays in the way of readers
        assert [one.sequence for one in read_transitions(bag)] == [7]


@pytest.mark.parametrize('kept', [1, 30, 48])
def test_a_file_that_is_cut_off_in_the_head_of_a_chunk_is_closed(tmp_path: Path, kept: int
                                                                 ) -> None:
    bag, file = half_written(tmp_path, 400)
    *_, last = contents(file).pieces
    file.write_bytes(file.read_bytes()[:last.offset + kept])
    (told,) = recover(bag)
    assert not told.failure and 0 < told.count < 400
    assert len(by_rosbags(bag)) == by_mcap(bag) == told.count


def spoil(file: Path, chunk: int) -> int:
    """Flip a byte of a message in a chunk; return how many messages there are in it."""
    piece = contents(file).pieces[chunk]
    data = bytearray(file.read_bytes())
    data[piece.messages + piece.size // 2] ^= 0x10
    file.write_bytes(data)
    return piece.count


@pytest.mark.parametrize('closed', [True, False])
def test_what_is_whole_of_a_damaged_file_can_be_kept(tmp_path: Path, closed: bool) -> None:
    bag, file = half_written(tmp_path, 600)
    if closed:
        recover(bag)
    gone = spoil(file, 1)
    before = file.read_bytes()
    (told,) = recover(bag)
    assert f'{600 - gone} of 600 transitions' in str(told)
    assert f'recover --drop-damaged {bag}' in told.failure
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match='damaged at byte'):
        list(read_transitions(bag))
    told = recover(bag, drop_damaged=True)[0]
    assert (told.count, told.dropped, told.failure) == (600 - gone, gone, '')
    assert len(list(read_transitions(bag))) == len(by_rosbags(bag)) == by_mcap(bag) == 600 - gone
    assert file.with_name('bag_0.mcap.damaged').read_bytes() == before
    assert recover(bag) == []


def test_a_recorder_goes_on_beside_a_damaged_file(tmp_path: Path) -> None:
    bag, file = half_written(tmp_path, 400)
    data = bytearray(file.read_bytes())
    piece = contents(file).pieces[0]
    data[piece.messages:piece.messages + piece.size] = bytes(piece.size)
    file.write_bytes(data)
    again = TransitionBag(bag, '/learner/transition')
    assert any('nobody can ask for the transitions there' in str(one) for one in again.recovered)
    again.write(1_000, serialize_message(transition(7)))
    assert again.count == 1
    again.close()


def test_metadata_that_cannot_be_read_are_written_anew(tmp_path: Path) -> None:
    written(tmp_path / 'bag', 3)
    (tmp_path / 'bag' / 'metadata.yaml').write_text('junk')
    with pytest.raises(ValueError, match=r'av-td3 recover .*bag` writes it anew'):
        list(read_transitions(tmp_path / 'bag'))
    assert recover(tmp_path / 'bag') == []
    assert len(list(read_transitions(tmp_path / 'bag'))) == len(by_rosbags(tmp_path / 'bag')) == 3


def test_a_bag_of_rosbags_is_read(tmp_path: Path) -> None:
    types = transition_types()
    writer = Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/learner/transition', TRANSITION, typestore=types)
        for number in range(1, 4):
            writer.write(connection, number, serialize_message(transition(number)))
    assert [one.sequence for one in read_transitions(tmp_path / 'bag')] == [1, 2, 3]
    written(tmp_path / 'bag', 2)
    assert [one.sequence for one in read_transitions(tmp_path / 'bag')] == [1, 2, 3, 1, 2]
    assert len(by_rosbags(tmp_path / 'bag')) == 5


def test_a_full_disk_loses_nothing_and_recording_goes_on(tmp_path: Path) -> None:
    with disk_of(tmp_path / 'disk', 400_000) as disk:
        (ballast := disk / 'ballast').write_bytes(bytes(200_000))
        bag = TransitionBag(disk / 'bag', '/learner/transition')
        for number in range(1, 41):
            bag.write(number, serialize_message(transition(number)))
        assert 'No space left' in bag.trouble
        assert bag.waiting + bag.count == 40 and 10 < bag.count < 40 and not bag.lost
        on_disk = [one.sequence for one in read_transitions(disk / 'bag')]
        assert on_disk == list(range(1, bag.count + 1))  # nothing torn
        ballast.unlink()
        bag.flush()
        assert (bag.trouble, bag.waiting, bag.count) == ('', 0, 40)
        bag.close()
        assert [one.sequence for one in read_transitions(disk / 'bag')] == list(range(1, 41))
        assert by_mcap(disk / 'bag') == len(by_rosbags(disk / 'bag')) == 40


def test_a_disk_that_is_full_from_the_start_is_written_once_there_is_room(tmp_path: Path) -> None:
    with disk_of(tmp_path / 'disk', 200_000) as disk:
        ballast = disk / 'ballast'
        with contextlib.suppress(OSError), ballast.open('wb', buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        bag = TransitionBag(disk / 'bag', '/learner/transition')
        bag.write(1, serialize_message(transition(1)))
        assert bag.trouble and bag.waiting == 1
        ballast.unlink()
        bag.write(2, serialize_message(transition(2)))
        bag.close()
        assert [one.sequence for one in read_transitions(disk / 'bag')] == [1, 2]


@contextlib.contextmanager
def disk_of(folder: Path, size: int) -> Iterator[Path]:
    """Lend a small disk, or skip the test where none can be made."""
    from benchmarks._places import CannotError, small_disk

    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(folder, size))
        except CannotError as error:
            pytest.skip(f'no small disk here: {error}')
        yield disk


def test_transitions_of_any_session_are_found_again(tmp_path: Path) -> None:
    def filled(session: str, count: int) -> TransitionBag:
        bag = TransitionBag(tmp_path / 'bag', '/learner/transition')
        bag.seal()
        for number in range(1, count + 1):
            message = transition(number)
            message.session = session
            bag.write(number, serialize_message(message))
        return bag

    filled('a', 300).close()
    bag = filled('b', 7)
    history = History(3, bag)
    assert history.sessions() == {'a': (1, 300), 'b': (1, 7)}
    assert [one.sequence for one in history.page('a', 120)] == list(range(120, 220))
    assert [one.sequence for one in history.page('a', 290)] == list(range(290, 301))
    assert [one.sequence for one in history.page('b', 2, 4)] == [2, 3, 4]
    assert history.page('b', 8) == history.page('c', 1) == []
    (found,) = history.page('a', 200, 200)
    assert serialised(deserialize_message(found.data, Transition))[:3] == serialised(
        transition(200))[:3]


def test_the_command_closes_a_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag, _ = half_written(tmp_path, 6)
    for words in ('6 transitions recovered', 'all of its files are closed'):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        assert command.run(parser.parse_args([str(bag)])) == 0
        assert words in capsys.readouterr().out
    assert by_mcap(bag) == 6
