"""Whether a command that a page or a container names can be right, found without running it."""
from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from av_td3_ros.cli import main
from av_td3_ros.cli.config import SETTINGS, Config
from av_td3_ros.paths import map_file
from av_td3_ros.ros.graph import profiles, roles
from av_td3_ros.ros.parameters import to_ros

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / 'launch'
NODES = sorted(path.stem for path in (ROOT / 'av_td3_ros' / 'nodes').glob('*_node.py'))
OTHERS = {'CarlaUE4.sh', 'apt', 'apt-get', 'cd', 'cp', 'echo', 'export', 'git', 'ls', 'mkdir',
          'rosdep', 'rqt', 'rviz2', 'source', 'sudo', 'tensorboard', 'torchrun', 'xhost'}
"""Programs of other packages, whose words are not looked at."""
OF_ROS = ('/clock', '/diagnostics', '/rosout', '/tf', '/tf_static')
PLACES = re.compile(r'\{(vehicle|world)\}')


def trouble(command: list[str], short: bool = False) -> str:
    """
    Return why this command, in words, cannot be right; '' where nothing speaks against it.

    `short`: it is one named in passing, that may lack what the real one needs.
    """
    while command and re.fullmatch('[A-Z][A-Z0-9_]*=.*', command[0]):
        command = command[1:]
    program, words = Path(command[0]).name, command[1:]
    check = {'av-td3': _av_td3, 'make': _make, 'ros2': _ros2, 'docker': _docker, 'pip': _pip,
             'colcon': _colcon, 'python': _python, 'python3': _python}.get(program)
    if check is None:
        return '' if program in OTHERS else f'nobody knows {program}'
    try:
        return check(words, short)
    except (ValueError, OSError, KeyError) as error:
        return str(error) or repr(error)


@functools.cache
def launch_arguments(file: Path) -> dict[str, tuple[str, ...]]:
    """
    Return {argument: choices} of a launch file as its source says them, without `launch`.

    Those of the files that it includes are among them; no choices where the source computes them.
    """
    tree = ast.parse(file.read_text(encoding='utf-8'))
    parts = ROOT / 'av_td3_ros' / 'ros' / 'launching' / 'parts.py'
    helpers = ast.parse(parts.read_text(encoding='utf-8'))
    functions = {one.name: one for one in helpers.body if isinstance(one, ast.FunctionDef)}
    tables = {target.id: one.value for one in tree.body if isinstance(one, ast.Assign)
              for target in one.targets if isinstance(target, ast.Name)}
    (describe,) = [one for one in tree.body if isinstance(one, ast.FunctionDef)
                   and one.name == 'generate_launch_description']
    left_out = {one.comparators[0].value for one in ast.walk(describe)  # if one.name != 'this'
                if isinstance(one, ast.Compare) and isinstance(one.ops[0], ast.NotEq)
                and isinstance(one.comparators[0], ast.Constant)}
    return {name: choices for name, choices in _declared(describe, functions, tables)
            if name not in left_out}


def _declared(where: ast.AST, functions: dict[str, ast.FunctionDef], tables: dict[str, ast.expr]
              ) -> Iterator[tuple[str, tuple[str, ...]]]:
    for call in ast.walk(where):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        name = call.func.id
        if name == 'DeclareLaunchArgument' and isinstance(call.args[0], ast.Constant):
            chosen = [one.value for one in call.keywords if one.arg == 'choices']
            yield call.args[0].value, _words(chosen[0]) if chosen else ()
        elif name == 'include' and isinstance(call.args[0], ast.Constant):
            yield from launch_arguments(LAUNCH / f'{call.args[0].value}.launch.py').items()
        elif name in functions and 'argument' in name:
            yield from _declared(functions[name], functions, tables)
    for loop in ast.walk(where):  # (DeclareLaunchArgument(name) for name in TABLE.items())
        if isinstance(loop, ast.comprehension) and isinstance(loop.iter, ast.Call) and isinstance(
                loop.iter.func, ast.Attribute) and isinstance(loop.iter.func.value, ast.Name):
            table = tables[loop.iter.func.value.id]
            assert isinstance(table, ast.Dict)
            for key in table.keys:
                assert isinstance(key, ast.Constant)
                yield key.value, ()


def _words(node: ast.expr) -> tuple[str, ...]:
    try:
        return tuple(ast.literal_eval(node))
    except ValueError:
        return ()


def _av_td3(words: list[str], short: bool) -> str:
    if words and words[0] in main.COMMANDS:
        module = main.COMMANDS[words[0]][0]
        parser = argparse.ArgumentParser(prog=f'av-td3 {words[0]}')
        importlib.import_module(f'av_td3_ros.cli.{module}').add_arguments(parser)
        options, said = _parsed(parser, words[1:])
        if options is None:
            return '' if short and 'are required' in said else said
        for key in getattr(options, 'config', None) or ():
            Config.shipped().with_options([key])
        for name in ('map', 'eval_map'):
            given = getattr(options, name, None) or []
            for one in [given] if isinstance(given, str) else given:
                if not one.endswith('.xodr'):
                    map_file(one)
        return ''
    return '' if words[:1] in ([], ['--help']) else f'av-td3 has no command {words[0]}'


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> tuple[Any, str]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parser.parse_args(words), ''
    except SystemExit as ended:
        return (argparse.Namespace(), '') if ended.code == 0 else (
            None, said.getvalue().splitlines()[-1])


def make_targets() -> set[str]:
    """Return what `make` can be asked for."""
    return set(re.findall('^([a-z-]+):.*## ', (ROOT / 'Makefile').read_text(), re.M))


def _make(words: list[str], short: bool) -> str:
    given = dict(word.split('=', 1) for word in words if '=' in word)
    targets = [word for word in words if '=' not in word]
    unknown = set(targets) - make_targets()
    settable = set(re.findall(r'^([A-Z]+) \?=', (ROOT / 'Makefile').read_text(), re.M))
    if unknown or set(given) - settable:
        return f'make knows no {unknown or set(given) - settable}'
    if 'ARGS' in given and targets[0] in main.COMMANDS:
        return _av_td3([targets[0], *shlex.split(given['ARGS'])], short)
    if 'ARGS' in given and targets == ['bench']:
        missing = [word for word in shlex.split(given['ARGS'])
                   if not (ROOT / 'benchmarks' / f'{word}.py').exists()]
        return f'no benchmarks {missing}' if missing else ''
    return ''


def _ros2(words: list[str], short: bool) -> str:
    kind, *rest = words or ['']
    if kind == 'launch' and rest[:1] == ['av_td3_ros']:
        return _launch(rest[1:])
    if kind == 'run' and rest[:1] == ['av_td3_ros']:
        return _run(rest[1:])
    rest = [word for word in rest if not word.startswith('-')]
    if kind == 'topic' and len(rest) > 1 and rest[0] in ('echo', 'hz', 'info', 'delay', 'pub'):
        return '' if rest[1] in topics() else f'no profile has a topic {rest[1]}'
    if kind == 'param' and len(rest) > 2 and rest[0] in ('get', 'set'):
        return _setting(Path(rest[1]).name, rest[2], *rest[3:4])
    if kind in ('lifecycle', 'node', 'service') and len(rest) > 1 and rest[1].startswith('/'):
        known = any(f'/{node}' in rest[1] for node in NODES)
        return '' if known else f'no node has {rest[1]}'
    return ''


def _launch(words: list[str]) -> str:
    if not words:
        return ''
    file = LAUNCH / words[0]
    if not file.exists():
        return f'there is no launch/{words[0]}'
    known = launch_arguments(file)
    for word in words[1:]:  # a file that another one starts takes its own arguments as well
        if word.startswith('session:=') and not word.endswith(':=none'):
            known = {**launch_arguments(LAUNCH / f'{word[9:]}.launch.py'), **known}
    for word in words[1:]:
        if word.startswith('-'):
            continue
        name, assigned, value = word.partition(':=')
        if not assigned or name not in known:
            return f'{words[0]} has no argument {name}'
        if '$' in value:
            continue
        if known[name] and value not in known[name]:
            return f'{name} of {words[0]} can be {known[name]}, not {value}'
        if name == 'profile' and value not in profiles():
            return f'there is no profile {value}'
        if name == 'map' and '/' in value and not value.endswith('.xodr'):
            map_file(value)
        if name == 'config':
            Config.shipped().with_options(value.split())
    return ''


def _run(words: list[str]) -> str:
    if words[0] == 'av-td3':
        return _av_td3(words[1:], False)
    if words[0] not in NODES:
        return f'there is no node {words[0]}'
    for given in [words[i + 1] for i, word in enumerate(words) if word == '-p']:
        name, _, value = given.partition(':=')
        if name != 'use_sim_time' and (wrong := _setting(words[0], name, value)):
            return wrong
    return ''


def _setting(node: str, name: str, value: str | None = None) -> str:
    if name not in to_ros(SETTINGS[node]()):
        return f'{node} has no parameter {name}'
    if value is not None:
        Config.shipped().with_values({node: {name: yaml.safe_load(value)}})
    return ''


@functools.cache
def topics() -> set[str]:
    """Return the topics that any profile binds for `ego_vehicle`, and those that ROS has."""
    bound = {topic for profile in profiles() for node in roles(profile).values()
             for topic in node.values() if topic}
    named = {PLACES.sub(lambda found: {'vehicle': 'ego_vehicle', 'world': ''}[found[1]], topic)
             for topic in bound}
    return {*OF_ROS, *named, *(f'/{space}/{topic}' for topic in named for space in (
        'ego_vehicle', 'learner') if not topic.startswith('/'))}


def _docker(words: list[str], short: bool) -> str:
    if words[:1] != ['compose']:
        return ''
    parser = argparse.ArgumentParser(prog='docker compose')
    parser.add_argument('-f', action='append', default=[])
    parser.add_argument('--profile', action='append', default=[])
    parser.add_argument('command')
    parser.add_argument('rest', nargs=argparse.REMAINDER)
    options, said = _parsed(parser, words[1:])
    if options is None:
        return '' if short else said
    services = composed('compose.yaml')['services']
    missing = [name for name in options.f if not (ROOT / 'docker' / Path(name).name).exists()]
    allowed = {name for one in services.values() for name in one.get('profiles', ())}
    unknown = [*missing, *set(options.profile) - allowed]
    rest = list(itertools.dropwhile(lambda word: word.startswith('-'), options.rest))
    inside = rest[1:] if options.command in ('run', 'exec') else []
    named = [word for word in rest[:len(rest) - len(inside)] if not word.startswith('-')]
    unknown += [word for word in named if word not in services]
    return f'there is no {unknown}' if unknown else trouble(inside) if inside else ''


class _Loader(yaml.SafeLoader):
    """Reads what Compose has beyond YAML."""


_Loader.add_constructor('!reset', lambda loader, node: None)


def composed(file: str) -> dict[str, Any]:
    """Return a compose file of docker/, its anchors merged."""
    with (ROOT / 'docker' / file).open(encoding='utf-8') as stream:
        return dict(yaml.load(stream, _Loader))


def _pip(words: list[str], short: bool) -> str:
    files = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ('-r', '-c')]
    missing = [file for file in files
               if not (ROOT / 'requirements' / Path(file).name).exists()]
    return f'there is no {missing}' if missing else ''


def _colcon(words: list[str], short: bool) -> str:
    packages = {path.parent.name for path in (ROOT / 'ros2_ws' / 'src').glob('*/package.xml')}
    if '--packages-select' not in words:
        return ''
    named = words[words.index('--packages-select') + 1:]
    end = next((i for i, word in enumerate(named) if word.startswith('-')), len(named))
    unknown = set(named[:end]) - packages
    return f'there are no packages {unknown}' if unknown else ''


def _python(words: list[str], short: bool) -> str:
    if words[:2] == ['-m', 'colcon']:
        return _colcon(words[2:], short)
    if words[:1] == ['-m'] and importlib.util.find_spec(words[1].split('.')[0]) is not None:
        known = importlib.util.find_spec(words[1]) is not None
        return '' if known else f'there is no module {words[1]}'
    return '' if words[:1] != ['-m'] or words[1] == 'venv' else f'there is no module {words[1]}'
