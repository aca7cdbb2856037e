"""The command line as a whole: its help, its errors."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from av_td3_ros.cli import main


def test_an_unknown_option_shows_the_usage_of_its_command(
        capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main._run(['map', 'make', '--out', 'a.xodr', '--bogus', '3'])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert 'usage: av-td3 map' in said and '--bogus 3' in said


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main._run(['--help'])
    said = capsys.readouterr().out
    assert all(f'{name} ' in said and about in ' '.join(said.split())
               for name, (_, about) in main.COMMANDS.items())


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main._run(['--version'])
    assert capsys.readouterr().out.startswith('av_td3_ros 0.')


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'file').write_text('')
    assert main._run(['map', 'make', '--out', str(tmp_path / 'file' / 'roads.xodr')]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f'av-td3 map: {tmp_path / "file"}') and 'Errno' not in said


def test_a_command_that_needs_no_network_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = ('import sys; from av_td3_ros.cli import main; '
            f'main._run(["map", "make", "--out", {str(tmp_path / "a.xodr")!r}, "--roads", "1"]); '
            'sys.exit("torch" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
