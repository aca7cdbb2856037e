"""The camera's images of a drive, with what is known of them: as a video or in a window."""
from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np

from av_td3_ros.cli.pictures.video import VideoWriter, annotate
from av_td3_ros.simulator.view.window import Window

SCALE = 2


class Viewer(Protocol):
    """What shows a drive."""

    def add(self, image: np.ndarray, title: str, episode: int, speed: float, steer: float,
            acceleration: float) -> None:
        """Show an image, uint8 BGR or BGRA, of the `episode`-th drive (0: the first); m/s."""


class Film:
    """Write a video of images as they come; a context manager. Without images there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()
        self._writer: VideoWriter | None = None

    def add(self, image: np.ndarray, title: str, episode: int, speed: float, steer: float,
            acceleration: float) -> None:
        """Add an image, uint8 BGR or BGRA, of the `episode`-th drive (0: the first); m/s."""
        picture = _picture(image, title, episode, speed, steer, acceleration)
        if self._writer is None:
            height, width = picture.shape[:2]
            self._writer = self._stack.enter_context(VideoWriter(self._path, width, height))
        self._writer.write(picture)

    def __enter__(self) -> Film:
        """Begin; the file begins with the first image."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Complete the file."""
        self._stack.__exit__(kind, error, trace)


class Screen:
    """Show images in a window as they come, at the rate of the camera; a context manager."""

    def __init__(self, rate: float = 20.0) -> None:
        """Raise DependencyNotInstalled without pygame."""
        self._window = Window('av-td3 drive', rate, scale=1)

    def add(self, image: np.ndarray, title: str, episode: int, speed: float, steer: float,
            acceleration: float) -> None:
        """
        Show an image, uint8 BGR or BGRA, of the `episode`-th drive (0: the first); m/s.

        Raises RuntimeError without a screen, KeyboardInterrupt once the window is closed.
        """
        picture = _picture(image, title, episode, speed, steer, acceleration)
        self._window.show(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        if self._window.is_closed:
            raise KeyboardInterrupt

    def __enter__(self) -> Screen:
        """Begin; the window opens with the first image."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the window."""
        self._window.close()


def _picture(image: np.ndarray, title: str, episode: int, speed: float, steer: float,
             acceleration: float) -> np.ndarray:
    bgr = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) if image.shape[2] == 4 else image
    lines = [title, f'episode {episode + 1}   {speed:4.1f} m/s']
    return annotate(bgr, lines, steer, acceleration, scale=SCALE)
