"""Transitions on disk: written once, closed, read by any rosbag2 reader."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from av_td3_msgs.msg import RewardTerms, Transition
from rclpy.serialization import serialize_message

from av_td3_ros.ros.conversions import to_bytes, to_floats, to_stamp
from av_td3_ros.ros.recording.bag import TransitionBag, read_transitions

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


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    written(tmp_path / 'bag', 2)
    with pytest.raises(FileExistsError, match='exists already: choose another'):
        TransitionBag(tmp_path / 'bag', '/learner/transition')
    assert len(list(read_transitions(tmp_path / 'bag'))) == 2


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'bag .*nowhere cannot be read'):
        list(read_transitions(tmp_path / 'nowhere'))
    written(tmp_path / 'bag', 5)
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match='cannot be read'):
        list(read_transitions(tmp_path / 'bag'))
