"""The stack of frames: order, restarts, and what it refuses."""
from __future__ import annotations

import numpy as np
import pytest

from av_td3_ros.driving.camera.frame_stack import FrameSettings, FrameStack
from av_td3_ros.settings import check

STEP_NS = 50_000_000


def grey(value: int) -> np.ndarray:
    return np.full((84, 84), value, np.uint8)


def contents(stack: FrameStack) -> list[int]:
    frames = stack.frames
    assert (frames.min(axis=(1, 2)) == frames.max(axis=(1, 2))).all()
    return [int(frame[0, 0]) for frame in frames]


def filled() -> FrameStack:
    stack = FrameStack()
    for index in range(1, 6):
        stack.push(grey(index), index * STEP_NS)
    return stack


def test_first_frame_fills_the_stack_and_the_newest_comes_last() -> None:
    stack = FrameStack()
    assert stack.push(grey(1), STEP_NS)
    assert contents(stack) == [1, 1, 1, 1]
    assert not stack.push(grey(2), 2 * STEP_NS)
    assert contents(stack) == [1, 1, 1, 2]
    assert contents(filled()) == [2, 3, 4, 5]
    assert filled().newest[0, 0] == 5


def test_episode_starts_with_its_first_frame_only() -> None:
    stack = filled()
    stack.clear()
    assert stack.push(grey(9), 6 * STEP_NS)
    assert contents(stack) == [9, 9, 9, 9]
    stack.restart(grey(7))
    assert not stack.push(grey(8), 1)
    assert contents(stack) == [7, 7, 7, 8]


@pytest.mark.parametrize(('stamp_ns', 'restarted'), [
    (5 * STEP_NS + 500_000_000, False), (5 * STEP_NS + 500_000_001, True), (5 * STEP_NS, True),
    (4 * STEP_NS, True), (0, True), (5 * STEP_NS + 1, False)])
def test_gap_or_time_jump_starts_the_stack_anew(stamp_ns: int, restarted: bool) -> None:
    stack = filled()
    assert stack.push(grey(9), stamp_ns) == restarted
    assert contents(stack) == ([9, 9, 9, 9] if restarted else [3, 4, 5, 9])


def test_after_a_jump_back_time_goes_on_from_there() -> None:
    stack = filled()
    stack.push(grey(1), 0)
    assert not stack.push(grey(2), STEP_NS)
    assert contents(stack) == [1, 1, 1, 2]


def test_frames_are_a_contiguous_copy() -> None:
    stack = filled()
    frames = stack.frames
    assert frames.shape == (4, 84, 84)
    assert frames.flags.c_contiguous
    frames[:] = 0
    stack.newest[:] = 0
    assert contents(stack) == [2, 3, 4, 5]


def test_pushed_frame_may_be_reused_by_its_owner() -> None:
    stack, buffer = FrameStack(), grey(3)
    stack.push(buffer, 0)
    buffer[:] = 200
    assert contents(stack) == [3, 3, 3, 3]


def test_settings_give_count_size_and_gap() -> None:
    check(FrameSettings())
    stack = FrameStack.from_settings(FrameSettings(count=2, size=36, max_gap=0.01))
    stack.push(np.zeros((36, 36), np.uint8), 0)
    assert stack.frames.shape == (2, 36, 36)
    assert stack.push(np.zeros((36, 36), np.uint8), STEP_NS)


@pytest.mark.parametrize('frame', [
    np.zeros((83, 84), np.uint8), np.zeros((84, 84), np.float32), np.zeros((84, 84, 1), np.uint8)])
def test_frame_of_another_kind_is_refused(frame: np.ndarray) -> None:
    stack = filled()
    with pytest.raises(ValueError, match='expected uint8'):
        stack.push(frame, 6 * STEP_NS)
    assert contents(stack) == [2, 3, 4, 5]
