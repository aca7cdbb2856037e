"""The camera's images of a drive as a video, with what is known of them."""
from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from av_td3_ros.cli.video import VideoWriter, annotate

SCALE = 2


class Film:
    """Write a video of images as they come; a context manager. Without images there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()
        self._writer: VideoWriter | None = None

    def add(self, image: np.ndarray, title: str, episode: int, speed: float, steer: float,
            acceleration: float) -> None:
        """Add an image, uint8 BGR or BGRA, of the `episode`-th drive (0: the first); m/s."""
        bgr = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) if image.shape[2] == 4 else image
        lines = [title, f'episode {episode + 1}   {speed:4.1f} m/s']
        picture = annotate(bgr, lines, steer, acceleration, scale=SCALE)
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
