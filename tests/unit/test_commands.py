"""Every command that the documentation names can be copied and run."""
from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import LAUNCH, ROOT, launch_arguments, make_targets, trouble

from av_td3_ros.cli import main

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')])
BLOCK = re.compile(r'^```(?:sh|bash)\n(.*?)^```', re.M | re.S)
NAMED = re.compile(r'`((?:\S*/)?(?:av-td3|make|ros2|docker compose) [^`]+)`')
OPTIONS = re.compile(r'`(--[^`]+)`')


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell script."""
    for line in text.replace('\\\n', ' ').splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        tokens = iter([*lexer, ';'])
        for word in tokens:
            if set(word) <= set('<>'):
                next(tokens)  # a file
            elif set(word) <= set('();|&'):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_each_command_of_a_page_can_be_run(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    wrong = [f'{shlex.join(words)}: {why}' for block in BLOCK.findall(text)
             for words in commands(block) if (why := trouble(words))]
    prose = BLOCK.sub('', text).replace('\n', ' ')
    for named in NAMED.findall(prose):
        if not re.search(r'\.\.\.|…|\b[A-Z]{3,}\b(?!=)', named):
            wrong += [f'{named}: {why}' for words in commands(named)
                      if (why := trouble(words, short=True))]
    assert not wrong


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_each_option_that_a_page_names_is_one_of_some_command(page: Path) -> None:
    prose = BLOCK.sub('', page.read_text(encoding='utf-8'))
    wrong = []
    for named in OPTIONS.findall(prose):
        words = shlex.split(named)
        if all(trouble(['av-td3', command, *words, *more], short=True)
               for command in main.COMMANDS for more in ([], ['x'], ['1'])):
            wrong.append(named)
    assert not wrong


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_each_link_and_path_of_a_page_leads_somewhere(page: Path) -> None:
    text = BLOCK.sub('', page.read_text(encoding='utf-8'))
    links = re.findall(r'\]\((?!https?:)([^)#]+)[^)]*\)', text)
    assert not [link for link in links if not (page.parent / link).exists()]
    folders = '|'.join(path.name for path in ROOT.iterdir() if path.is_dir())
    paths = re.findall(rf'`((?:{folders})/[a-z0-9_./-]*[a-z0-9])`', text)
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize(('command', 'told'), [
    ('make fly', 'knows no'),
    ('make train ARGS="--stepz 3"', '--stepz'),
    ('av-td3 fly', 'no command fly'),
    ('av-td3 train --steps many', 'invalid int'),
    ('av-td3 train --config td3.gama=0.9', 'td3.gama'),
    ('av-td3 train --config td3.gamma=9', 'gamma'),
    ('av-td3 train --map nowhere', 'nowhere'),
    ('ros2 launch av_td3_ros fly.launch.py', 'no launch/fly'),
    ('ros2 launch av_td3_ros train.launch.py stepz:=3', 'stepz'),
    ('ros2 launch av_td3_ros train.launch.py profile:=moon', 'moon'),
    ('ros2 launch av_td3_ros simulator.launch.py mode:=fast', 'fast'),
    ('ros2 launch av_td3_ros vehicle.launch.py config:=command.spede=3', 'spede'),
    ('ros2 run av_td3_ros fly_node', 'fly_node'),
    ('ros2 run av_td3_ros policy_node --ros-args -p drivr:=random', 'drivr'),
    ('ros2 topic echo /ego_vehicle/obs', '/ego_vehicle/obs'),
    ('ros2 param set /ego_vehicle/policy_node sed 3', 'sed'),
    ('docker compose -f docker/compose.yaml up pilot', 'pilot'),
    ('docker compose -f docker/compose.yml up', 'compose.yml'),
    ('pip install -r requirements/everything.txt', 'everything'),
    ('colcon test --packages-select av_td3', 'av_td3'),
    ('python -m benchmarks.nothing', 'nothing'),
    ('fly --high', 'nobody knows fly'),
])
def test_what_is_wrong_is_found(command: str, told: str) -> None:
    assert told in trouble(shlex.split(command))


@pytest.mark.parametrize('command', [
    'make test ARGS="-k replay"', 'av-td3 map make --out mine.xodr', 'CARLA_HOST=carla make setup',
    'ros2 launch av_td3_ros vehicle.launch.py transitions:=true policy:=runs/a --show-args',
    'ros2 run av_td3_ros policy_node --ros-args -p driver:=random -r __ns:=/x',
    'ros2 topic hz /carla/ego_vehicle/rgb_front/image',
])
def test_what_is_right_is_let_through(command: str) -> None:
    assert trouble(shlex.split(command)) == ''


@pytest.mark.parametrize('file', sorted(LAUNCH.glob('*.launch.py')), ids=lambda file: file.name)
def test_the_arguments_are_those_of_the_launch_file(file: Path) -> None:
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS installation only')
    from launch import LaunchContext
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    described = get_launch_description_from_python_launch_file(str(file))
    assert LaunchContext() is not None
    assert set(launch_arguments(file)) == {
        one.name for one in described.get_launch_arguments(conditional_inclusion=True)}


def test_readme_shows_every_target_that_a_user_starts_with() -> None:
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert {'train', 'test', 'drive', 'bench'} <= {
        target for target in make_targets() if f'make {target}' in readme}
