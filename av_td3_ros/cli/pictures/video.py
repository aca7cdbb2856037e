"""Write drives as video, with text and the action drawn on the frames."""
from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]

CLOSING_TIME = 30.0         # s that ffmpeg gets to write its last frames
WHITE, DARK = (255, 255, 255), (40, 34, 28)                         # B, G, R
LEFT_RIGHT, FASTER, SLOWER = (233, 180, 86), (115, 158, 0), (0, 94, 213)


class VideoError(RuntimeError):
    """Tell that a video could not be written, with ffmpeg's own words."""


class VideoWriter:
    """
    Write frames to an H.264 mp4 file that any browser plays.

    A context manager; the file is complete when the context is left, also by an exception. An
    odd width or height is padded by one pixel. Without a single frame no file is left.
    """

    def __init__(self, path: str | Path, width: int, height: int, fps: float = 20.0, *,
                 quality: int = 23) -> None:
        """
        Prepare a video of `width` x `height` pixels; `quality` is x264's, smaller is better.

        Raises ValueError for a size or rate that is not positive.
        """
        if width <= 0 or height <= 0 or not fps > 0:
            raise ValueError(f'a video of {width}x{height} pixels at {fps} frames/s cannot be '
                             f'written; all three must be positive')
        self.path = Path(path)
        self.width, self.height, self.fps, self.quality = width, height, fps, quality
        self.frames = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None

    def __enter__(self) -> VideoWriter:
        """
        Start ffmpeg.

        Raises VideoError when there is no ffmpeg or it cannot be started.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._messages = tempfile.TemporaryFile()
        try:
            program = imageio_ffmpeg.get_ffmpeg_exe()
            # In a process group of its own, so that Ctrl-C does not cut the file short.
            self._process = subprocess.Popen(
                self._command(program), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=self._messages, start_new_session=True)
        except (RuntimeError, OSError) as error:
            self._messages.close()
            raise VideoError(
                f'{self.path}: ffmpeg cannot be started ({error}); reinstall imageio-ffmpeg, or '
                f'set IMAGEIO_FFMPEG_EXE to an ffmpeg program') from error
        return self

    def write(self, frame: Frame) -> None:
        """
        Add one frame, uint8 (height, width, 3) BGR or (height, width, 4) BGRA.

        Raises ValueError for another shape or type, VideoError when ffmpeg has died.
        """
        if (frame.ndim != 3 or frame.shape[:2] != (self.height, self.width)
                or frame.shape[2] not in (3, 4) or frame.dtype != np.uint8):
            raise ValueError(f'{self.path}: a frame of {frame.dtype} {frame.shape} does not fit; '
                             f'expected uint8 ({self.height}, {self.width}, 3 or 4)')
        if self._process is None or self._process.stdin is None:
            raise VideoError(f'{self.path}: the video is not open; write inside its with block')
        try:
            self._process.stdin.write(np.ascontiguousarray(frame[..., :3]).data)
        except OSError as error:
            self._process.wait()
            raise VideoError(self._failure()) from error
        self.frames += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """
        Complete the file.

        Raises VideoError when ffmpeg failed, unless another exception is on its way.
        """
        process, self._process = self._process, None
        if process is None or process.stdin is None or self._messages is None:
            return
        try:
            with contextlib.suppress(OSError):      # ffmpeg is gone; its exit code tells
                process.stdin.close()
            try:
                code = process.wait(CLOSING_TIME)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if self.frames == 0:
                with contextlib.suppress(OSError):
                    self.path.unlink()
            elif code != 0 and error is None:
                raise VideoError(self._failure(code))
        finally:
            self._messages.close()

    def _command(self, program: str) -> list[str]:
        return [program, '-nostdin', '-y', '-loglevel', 'error',
                '-f', 'rawvideo', '-pixel_format', 'bgr24',
                '-video_size', f'{self.width}x{self.height}', '-framerate', f'{self.fps:g}',
                '-i', 'pipe:0', '-an', '-vf', 'pad=ceil(iw/2)*2:ceil(ih/2)*2',
                '-c:v', 'libx264', '-preset', 'veryfast', '-crf', str(self.quality),
                '-pix_fmt', 'yuv420p', '-threads', '1', '-movflags', '+faststart',
                '-f', 'mp4', str(self.path)]

    def _failure(self, code: int | None = None) -> str:
        said = ''
        if self._messages is not None and not self._messages.closed:
            self._messages.seek(0)
            said = self._messages.read().decode(errors='replace').strip()
        if self._process is not None and code is None:
            code = self._process.returncode
        why = said.splitlines()[-1] if said else f'it ended with code {code}'
        return (f'{self.path}: ffmpeg stopped after {self.frames} frames: {why}; see that the '
                f'folder is writable and the disk has room')


def annotate(frame: Frame, lines: Sequence[str], steer: float | None = None,
             acceleration: float | None = None, *, scale: int = 1) -> Frame:
    """
    Return a BGR copy of a BGR or BGRA frame with text and the action drawn on it.

    lines: text at the upper left, '' for a gap; steer: -1 to 1, + = left; acceleration: -1
    (brake) to 1 (throttle); None leaves its bar out. The copy is `scale` times as large, so that
    the text of a small camera stays readable.
    """
    picture: Any = np.ascontiguousarray(frame[..., :3])
    if scale != 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    elif picture is frame or np.shares_memory(picture, frame):
        picture = picture.copy()
    size = max(8.0, picture.shape[0] / 36)      # px, height of a text line's letters
    _draw_lines(picture, lines, size)
    if steer is not None:
        _draw_steer(picture, float(np.clip(np.nan_to_num(steer), -1.0, 1.0)), size)
    if acceleration is not None:
        _draw_acceleration(picture, float(np.clip(np.nan_to_num(acceleration), -1.0, 1.0)), size)
    return np.asarray(picture, dtype=np.uint8)


def _draw_lines(picture: Any, lines: Sequence[str], size: float) -> None:
    font, font_scale = cv2.FONT_HERSHEY_SIMPLEX, size / 22
    thickness = max(1, round(size / 12))
    for row, line in enumerate(lines):
        # cv2's fonts know ASCII only and draw anything else as question marks.
        text = line.replace('²', '^2').replace('·', '-')
        place = (round(size), round(size * (1.9 + 1.75 * row)))
        cv2.putText(picture, text, place, font, font_scale, DARK, thickness + 2, cv2.LINE_AA)
        cv2.putText(picture, text, place, font, font_scale, WHITE, thickness, cv2.LINE_AA)


def _draw_steer(picture: Any, steer: float, size: float) -> None:
    height, width = picture.shape[:2]
    middle, half = width // 2, round(0.25 * width)
    top, bottom = round(height - 2.0 * size), round(height - 1.0 * size)
    _shade(picture, middle - half, top, middle + half, bottom)
    # Positive steer is to the left, as on the road.
    end = round(middle - steer * half)
    cv2.rectangle(picture, (min(middle, end), top), (max(middle, end), bottom), LEFT_RIGHT, -1)
    cv2.line(picture, (middle, top), (middle, bottom), WHITE, max(1, round(size / 8)))


def _draw_acceleration(picture: Any, acceleration: float, size: float) -> None:
    height, width = picture.shape[:2]
    left, right = round(width - 2.0 * size), round(width - 1.0 * size)
    top, bottom = round(0.55 * height), round(height - 1.0 * size)
    middle = (top + bottom) // 2
    _shade(picture, left, top, right, bottom)
    end = round(middle - acceleration * (bottom - top) / 2)
    colour = FASTER if acceleration >= 0 else SLOWER
    cv2.rectangle(picture, (left, min(middle, end)), (right, max(middle, end)), colour, -1)
    cv2.line(picture, (left, middle), (right, middle), WHITE, max(1, round(size / 8)))


def _shade(picture: Any, left: int, top: int, right: int, bottom: int) -> None:
    area = picture[top:bottom + 1, left:right + 1]
    area[:] = (area * 0.45).astype(np.uint8)
