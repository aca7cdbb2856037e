"""docs/carla.md names what there is: commands, launch arguments, files, settings."""
from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'carla.md').read_text(encoding='utf-8')
LINES = [line for block in re.findall(r'^```sh\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL)
         for line in block.splitlines()]
LAUNCHES = [shlex.split(line, comments=True) for line in LINES if line.startswith('ros2 launch')]
COMMAND_LINES = [shlex.split(line, comments=True) for line in LINES if line.startswith('av-td3')]


@pytest.mark.parametrize('words', COMMAND_LINES, ids=' '.join)
def test_every_command_can_be_typed(words: list[str]) -> None:
    command = importlib.import_module(f'av_td3_ros.cli.{COMMANDS[words[1]][0]}')
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    parser.parse_args(words[2:])  # exits where it cannot


@pytest.mark.parametrize('words', LAUNCHES, ids=' '.join)
def test_every_launch_can_be_typed(words: list[str]) -> None:
    assert words[2] == 'av_td3_ros'
    file = ROOT / 'launch' / words[3]
    session = next((word.partition(':=')[2] for word in words if word.startswith('session:=')), '')
    known = _declared(file) | _declared(ROOT / 'launch' / f'{session}.launch.py')
    given = {word.partition(':=')[0] for word in words[4:] if ':=' in word}
    assert given <= known


def test_every_argument_in_the_text_is_declared() -> None:
    named = set(re.findall(r'`(\w+):=', TEXT))
    assert {'map', 'host', 'timeout'} <= named
    known = set().union(*(_declared(file) for file in (ROOT / 'launch').glob('*.launch.py')))
    assert named <= known


def test_every_file_setting_and_profile_in_the_text_exists() -> None:
    for path in re.findall(r'`((?:config|tests|docs)/[\w./]+)`', TEXT):
        assert (ROOT / path).exists(), path
    keys = {key for values in Config.shipped().values().values() for key in values}
    assert 'world.appearance.unmarked' in keys and 'world.appearance.marking_missing' in keys
    assert (ROOT / 'config' / 'profiles' / 'carla_native.yaml').is_file()


def _declared(file: Path) -> set[str]:
    """Return the words that a launch file and what all of them share quote: its arguments too."""
    shared = ROOT / 'av_td3_ros' / 'ros' / 'launching' / 'parts.py'
    return {word for one in (file, shared) if one.is_file()
            for word in re.findall(r"'(\w+)'", one.read_text(encoding='utf-8'))}
