"""`av-td3 drive` shows a driver on an unseen map: a film without a screen, else a window."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from av_td3_ros.cli import evaluate, main
from av_td3_ros.paths import pretrained_policy

SHORT = ['--policy', 'pursuit', '--episodes', '1', '--config', 'episodes.min_length=30',
         '--config', 'episodes.max_length=40', '--config', 'world.camera.width=96',
         '--config', 'world.camera.height=72']


def test_without_a_screen_there_is_a_film_and_a_table(tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'drive'
    assert main._run(['drive', *SHORT, '--no-window', '--out', str(out)]) == 0
    said = capsys.readouterr().out
    assert 'success' in said and str(out / 'drive.mp4') in said
    film = cv2.VideoCapture(str(out / 'drive.mp4'))
    steps = json.loads((out / 'evaluation.json').read_text())['episodes'][0]['steps']
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == pytest.approx(steps + 1, abs=2)


def test_with_a_screen_there_is_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('SDL_VIDEODRIVER', 'dummy')
    out = tmp_path / 'drive'
    assert main._run(['drive', *SHORT, '--window', '--out', str(out)]) == 0
    assert json.loads((out / 'evaluation.json').read_text())['metrics']['success']['mean'] == 1.0
    assert not (out / 'drive.mp4').exists()


def test_the_window_may_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    monkeypatch.setenv('SDL_VIDEODRIVER', 'dummy')
    monkeypatch.setattr(pygame.event, 'get', lambda: [pygame.event.Event(pygame.QUIT)])
    with pytest.raises(KeyboardInterrupt):
        main._run(['drive', *SHORT, '--window', '--out', str(tmp_path / 'drive')])


@pytest.mark.parametrize(('options', 'words'), [
    (['--episodes', '0'], '--episodes 0: give 1 or more'),
    (['--map', 'nowhere'], 'nowhere'),
    (['--policy', '/nowhere'], '/nowhere'),
    (['--mask', 'vector'], 'pursuit is not learned')])
def test_bad_input_is_one_line_and_nothing_is_begun(tmp_path: Path, options: list[str],
                                                    words: str,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'drive'
    assert main._run(['drive', *SHORT, '--no-window', '--out', str(out), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and not out.exists()


def test_the_policy_in_the_box_drives_what_it_has_never_seen(tmp_path: Path) -> None:
    out = tmp_path / 'drive'
    assert main._run(['drive', '--episodes', '1', '--no-window', '--out', str(out)]) == 0
    evaluation = json.loads((out / 'evaluation.json').read_text())
    assert evaluation['name'] == 'pretrained' and evaluation['metrics']['success']['mean'] == 1.0
    box = pretrained_policy()
    assert sum(file.stat().st_size for file in box.iterdir()) < 8_000_000
    command = json.loads((box / 'policy.json').read_text())['command']
    assert command.startswith('av-td3 train') and evaluation['maps'][0] not in command


def test_an_unseen_map_is_the_default() -> None:
    assert evaluate.MAP.startswith('test/')
