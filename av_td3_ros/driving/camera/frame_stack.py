"""The last few camera frames, which let the policy see motion."""
from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from av_td3_ros.settings import setting

Frame = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class FrameSettings:
    """Say how many frames the policy sees, and when they no longer belong together."""

    count: int = setting(4, 'camera frames in an observation', minimum=1, maximum=64)
    size: int = setting(84, 'height and width of a frame in pixels', minimum=36, maximum=1024)
    max_gap: float = setting(
        0.5, 'time in s between two frames beyond which the stack starts anew', minimum=1e-3,
        maximum=3600.0)


class FrameStack:
    """
    Keep the last `count` frames, uint8 (size, size), newest last.

    A stack that starts anew holds the newest frame `count` times. It does so by itself after more
    than `max_gap` seconds without a frame and when time does not go forward.
    """

    def __init__(self, count: int = 4, size: int = 84, max_gap: float = 0.5) -> None:
        if count < 1 or size < 1:
            raise ValueError(f'a stack of {count} frames of {size}x{size} holds nothing')
        self._stack = np.zeros((count, size, size), dtype=np.uint8)
        self._max_gap_ns = round(max_gap * 1e9)
        self._stamp_ns: int | None = None
        self._restart_due = True

    @classmethod
    def from_settings(cls, settings: FrameSettings) -> FrameStack:
        """Return an empty stack of that size."""
        return cls(settings.count, settings.size, settings.max_gap)

    @property
    def frames(self) -> Frame:
        """Return a contiguous copy, uint8 (count, size, size), newest last."""
        copy: Frame = self._stack.copy()
        return copy

    @property
    def newest(self) -> Frame:
        """Return a copy of the newest frame, uint8 (size, size)."""
        copy: Frame = self._stack[-1].copy()
        return copy

    def restart(self, frame: Frame, stamp_ns: int | None = None) -> None:
        """Fill the stack with `frame`; without a stamp the next frame follows it whatever its."""
        self._check(frame)
        self._stack[:] = frame
        self._stamp_ns = stamp_ns
        self._restart_due = False

    def push(self, frame: Frame, stamp_ns: int) -> bool:
        """
        Add the frame taken at `stamp_ns`; return whether the stack started anew with it.

        Raises ValueError when the frame has another shape or is not uint8.
        """
        if self._restart_due or not self._follows(stamp_ns):
            self.restart(frame, stamp_ns)
            return True
        self._check(frame)
        self._stack[:-1] = self._stack[1:]
        self._stack[-1] = frame
        self._stamp_ns = stamp_ns
        return False

    def clear(self) -> None:
        """Let the next frame start the stack anew, as at the start of an episode."""
        self._restart_due = True

    def _follows(self, stamp_ns: int) -> bool:
        return self._stamp_ns is None or 0 < stamp_ns - self._stamp_ns <= self._max_gap_ns

    def _check(self, frame: Frame) -> None:
        if frame.shape != self._stack.shape[1:] or frame.dtype != np.uint8:
            raise ValueError(f'a frame is {frame.dtype} {frame.shape}, '
                             f'expected uint8 {self._stack.shape[1:]}')
