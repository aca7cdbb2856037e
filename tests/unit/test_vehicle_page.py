"""docs/vehicle.md names what there is: commands, launch files, nodes, topics."""
from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex

import pytest

from av_td3_ros.cli import main
from av_td3_ros.paths import share_directory
from av_td3_ros.ros import graph

PAGE = (share_directory() / 'docs' / 'vehicle.md').read_text(encoding='utf-8')
LINES = [line.split('  #')[0].strip()
         for block in re.findall(r'```sh\n(.*?)```', PAGE, re.DOTALL)
         for line in block.replace('\\\n', ' ').splitlines()]
COMMANDS = [shlex.split(line.replace('"', "'") if "'" not in line else line)
            for line in LINES if line and not line.startswith('#')]


@pytest.mark.parametrize('words', [one for one in COMMANDS if one[0] == 'av-td3'], ids=shlex.join)
def test_our_commands_take_these_options(words: list[str]) -> None:
    module, _ = main.COMMANDS[words[1]]
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f'av_td3_ros.cli.{module}').add_arguments(parser)
    parser.parse_args(words[2:])


@pytest.mark.parametrize('words', [one for one in COMMANDS if one[0] == 'ros2'], ids=shlex.join)
def test_what_ros2_is_told_exists(words: list[str]) -> None:
    nodes = {f'/ego_vehicle/{name}' for name in graph.VEHICLE_SIDE}
    match words[1:]:
        case ['launch', 'av_td3_ros', file, *arguments]:
            text = (share_directory() / 'launch' / file).read_text()
            shared = share_directory().joinpath(
                'av_td3_ros', 'ros', 'launching', 'parts.py').read_text()
            drive = (share_directory() / 'launch' / 'drive.launch.py').read_text()
            for one in arguments:
                assert f"'{one.partition(':=')[0]}'" in text + shared + drive, one
        case ['run', 'av_td3_ros', node, *_]:
            assert importlib.util.find_spec(f'av_td3_ros.nodes.{node}') is not None
        case ['service', 'call', service, _, *_]:
            node, _, role = service.rpartition('/')
            assert node in nodes
            source = share_directory() / 'av_td3_ros' / 'nodes' / f'{node.rpartition("/")[2]}.py'
            assert f"'~/{role}'" in source.read_text()
        case ['lifecycle', 'set', node, _]:
            assert node in nodes
        case ['topic', _, topic] | ['topic', 'pub', '--once', topic, _, _]:
            bound = {spec.topic(role) for profile in graph.profiles()
                     for spec in graph.session_nodes(profile, 'ego_vehicle', learning=False)
                     for role in spec.remaps}
            assert topic in bound
        case _:
            raise AssertionError(f'unknown: {shlex.join(words)}')


def test_the_topics_are_those_of_the_profile() -> None:
    told = set(re.findall(r'`(/vehicle/[a-z_/]+)`', PAGE))
    bound = {topic.format(world='', vehicle='') for node in graph.roles('vehicle').values()
             for topic in node.values() if topic is not None}
    assert told <= bound, told - bound
    assert {one for one in bound if one.startswith('/vehicle/')} <= told
