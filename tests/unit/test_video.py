"""Videos that are written: real files by the real ffmpeg, read again."""
from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from av_td3_ros.cli.pictures.video import VideoError, VideoWriter, annotate


def frames_of(path):
    """Return the frames of a video, BGR."""
    video = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = video.read()
        if not good:
            return frames
        frames.append(frame)


def atoms_of(path):
    """Return the names of an mp4 file's top-level boxes, in order."""
    data, names, at = path.read_bytes(), [], 0
    while at + 8 <= len(data):
        size, name = struct.unpack('>I4s', data[at:at + 8])
        names.append(name.decode())
        at += size
    return names


def grey(value, height=48, width=64, channels=3):
    return np.full((height, width, channels), value, dtype=np.uint8)


def test_a_video_holds_the_frames_that_were_written(tmp_path):
    path = tmp_path / 'new folder' / 'drive.mp4'
    with VideoWriter(path, 64, 48, 20.0) as video:
        for value in range(0, 200, 10):
            video.write(grey(value))
    frames = frames_of(path)
    assert video.frames == len(frames) == 20
    assert frames[0].shape == (48, 64, 3)
    assert [int(frame.mean()) for frame in frames] == pytest.approx(range(0, 200, 10), abs=6)


def test_a_browser_can_play_it(tmp_path):
    path = tmp_path / 'drive.mp4'
    with VideoWriter(path, 64, 48) as video:
        video.write(grey(100))
    reader = cv2.VideoCapture(str(path))
    codec = int(reader.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, 'little')
    assert codec in (b'h264', b'avc1')
    assert reader.get(cv2.CAP_PROP_FPS) == 20.0
    # The index comes first, so that it plays while it loads.
    atoms = atoms_of(path)
    assert atoms.index('moov') < atoms.index('mdat')


def test_bgra_keeps_its_colours(tmp_path):
    path = tmp_path / 'drive.mp4'
    frame = grey(0, channels=4)
    frame[..., 2] = 220         # red
    frame[..., 3] = 255
    with VideoWriter(path, 64, 48) as video:
        video.write(frame[::-1])            # not contiguous
    blue, green, red = frames_of(path)[0].reshape(-1, 3).mean(axis=0)
    assert red > 180
    assert max(blue, green) < 40


@pytest.mark.parametrize(('width', 'height'), [(63, 48), (64, 47), (33, 21)])
def test_odd_sizes_are_padded(tmp_path, width, height):
    path = tmp_path / 'drive.mp4'
    with VideoWriter(path, width, height) as video:
        video.write(grey(200, height, width))
    frame = frames_of(path)[0]
    assert frame.shape[:2] == (height + height % 2, width + width % 2)
    assert frame[:height - 1, :width - 1].mean() == pytest.approx(200, abs=8)


def test_what_was_written_before_an_exception_can_be_played(tmp_path):
    path = tmp_path / 'drive.mp4'
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 64, 48) as video:
        for _ in range(7):
            video.write(grey(90))
        raise KeyboardInterrupt
    assert len(frames_of(path)) == 7


def test_no_frame_leaves_no_file(tmp_path):
    path = tmp_path / 'drive.mp4'
    with VideoWriter(path, 64, 48):
        pass
    assert not path.exists()


@pytest.mark.parametrize('frame', [grey(0, height=47), grey(0, channels=2), grey(0)[..., 0],
                                   grey(0).astype(np.float32)])
def test_a_frame_that_does_not_fit_is_refused(tmp_path, frame):
    with (VideoWriter(tmp_path / 'drive.mp4', 64, 48) as video,
          pytest.raises(ValueError, match=r'expected uint8 \(48, 64, 3 or 4\)')):
        video.write(frame)


@pytest.mark.parametrize(('width', 'height', 'fps'), [(0, 48, 20.0), (64, -1, 20.0),
                                                      (64, 48, 0.0), (64, 48, float('nan'))])
def test_a_size_or_rate_of_nothing_is_refused(tmp_path, width, height, fps):
    with pytest.raises(ValueError, match='must be positive'):
        VideoWriter(tmp_path / 'drive.mp4', width, height, fps)


def test_without_ffmpeg_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('IMAGEIO_FFMPEG_EXE', str(tmp_path / 'missing'))
    with (pytest.raises(VideoError, match=r'ffmpeg cannot be started.*IMAGEIO_FFMPEG_EXE'),
          VideoWriter(tmp_path / 'drive.mp4', 64, 48)):
        pass


def test_when_ffmpeg_dies_its_words_are_told(tmp_path):
    path = tmp_path / 'drive.mp4'
    path.mkdir()                            # a folder stands where the file should be
    with (pytest.raises(VideoError, match=r'drive\.mp4: ffmpeg stopped after .*directory'),
          VideoWriter(path, 64, 48) as video):
        for _ in range(2000):
            video.write(grey(0))


def test_writing_outside_the_context_is_refused(tmp_path):
    video = VideoWriter(tmp_path / 'drive.mp4', 64, 48)
    with pytest.raises(VideoError, match='not open'):
        video.write(grey(0))


def test_annotations_leave_the_frame_alone():
    frame = grey(100, 240, 320)
    before = frame.copy()
    drawn = annotate(frame, ['speed 8.2 m/s'], 0.5, 0.5)
    assert np.array_equal(frame, before)
    assert drawn.shape == (240, 320, 3)
    assert drawn.dtype == np.uint8
    assert not np.array_equal(drawn[:40, :160], before[:40, :160])     # text at the upper left
    assert np.array_equal(drawn[60:120], before[60:120])


def test_steering_left_fills_the_left_half_of_its_bar():
    def coloured(steer):
        picture = annotate(grey(100, 240, 320), [], steer, None).astype(int)
        blue = picture[..., 0] - picture[..., 2] > 60
        return int(blue[:, :158].sum()), int(blue[:, 163:].sum())

    left, nothing = coloured(0.5)
    more, _ = coloured(1.0)
    none, right = coloured(-0.5)
    assert nothing == none == 0
    assert left == pytest.approx(right, rel=0.1)
    assert more == pytest.approx(2 * left, rel=0.1)
    assert coloured(0.0) == (0, 0)


def test_throttle_is_green_upwards_and_brake_red_downwards():
    def rows(acceleration, channel, other):
        picture = annotate(grey(100, 240, 320), [], None, acceleration).astype(int)
        return np.nonzero((picture[..., channel] - picture[..., other] > 60).any(axis=1))[0]

    faster, slower = rows(0.8, 1, 2), rows(-0.8, 2, 0)
    assert faster.max() <= slower.min()
    assert len(faster) == pytest.approx(len(slower), abs=2)
    assert len(rows(-0.8, 1, 2)) == 0


def test_annotation_can_enlarge_and_survives_odd_values():
    drawn = annotate(grey(100, 120, 160, 4), ['µ·²', ''], float('nan'), 7.0, scale=2)
    assert drawn.shape == (240, 320, 3)
