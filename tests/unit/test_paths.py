"""Where the shipped files are found."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from av_td3_ros import paths


def test_a_checkout_is_its_own_share_directory() -> None:
    root = Path(__file__).resolve().parents[2]
    assert paths.share_directory() == root
    assert paths.config_directory() == root / 'config'


def test_an_installation_is_found_on_the_prefix_path(monkeypatch: pytest.MonkeyPatch,
                                                     tmp_path: Path) -> None:
    share = tmp_path / 'install' / 'share' / 'av_td3_ros'
    (share / 'config' / 'profiles').mkdir(parents=True)
    monkeypatch.setattr(paths, '_CHECKOUT', tmp_path / 'elsewhere')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "other"}:{tmp_path / "install"}')
    assert paths.share_directory() == share
    monkeypatch.delenv('AMENT_PREFIX_PATH')
    with pytest.raises(FileNotFoundError, match='install the project again'):
        paths.share_directory()


def test_maps_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert paths.map_file('loop') == paths.config_directory() / 'maps' / 'loop.xodr'
    assert paths.map_file('train/roads') == (
        paths.config_directory() / 'maps' / 'train' / 'roads.xodr')
    own = tmp_path / 'mine.xodr'
    own.write_text('<OpenDRIVE/>')
    assert paths.map_file(str(own)) == own


def test_an_unknown_map_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=(
            r"'atlantis'.*loop, test/roads_a, .*, train/streets, winding")):
        paths.map_file('atlantis')
    with pytest.raises(FileNotFoundError):
        paths.map_file(str(tmp_path))  # a directory is no map


def test_a_file_is_written_whole_and_a_device_is_never_replaced(tmp_path: Path) -> None:
    paths.write_whole(tmp_path / 'a', 'one')
    paths.write_whole(tmp_path / 'a', 'two')
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [('a', 'two')]
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    paths.write_whole(pipe, 'three')
    assert os.read(reader, 10) == b'three' and pipe.is_fifo()
    os.close(reader)
