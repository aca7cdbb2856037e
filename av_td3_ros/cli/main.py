"""`av-td3`: the command line."""
from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys

from av_td3_ros.ros.runtime import ros_environment

INTERRUPTED = 130
COMMANDS = {
    'train': ('train', 'train a driving policy, compare it, and write a report'),
    'drive': ('drive', 'watch a policy drive, in a window or as a film'),
    'evaluate': ('evaluate', 'let a driver drive episodes, and measure how well'),
    'export': ('export', 'write a policy alone, to send or to ship it'),
    'key': ('key', 'make, show, trust, revoke and replace the keys that sign weights'),
    'security': ('security', 'write the SROS2 policies: who may say and hear what'),
    'doctor': ('doctor', 'check vehicle, topics and computer before a drive'),
    'diagnose': ('diagnose', 'tell what looks sick in a run or a checkpoint, and draw it'),
    'plot': ('learning_curves', 'draw the learning curves of several runs'),
    'map': ('map', 'make a map of random roads, or write one for a CARLA server'),
    'carla': ('carla_world', "load a CARLA server's map, set its weather and traffic"),
    'align': ('align', 'find where the ground of a real vehicle lies on a map'),
    'route': ('route', 'record the way that is driven, publish it to be driven again'),
    'reward': ('reward_plots', 'draw the reward terms and tell what drives are worth'),
    'recover': ('recover', 'close a bag whose recorder was killed'),
    'config': ('config', 'list every setting with meaning and default'),
}
"""The module of each command, and what it is for."""


def main() -> None:
    """Run one command; errors that a user can mend are one line and exit status 1."""
    os.environ.update(ros_environment(os.environ))
    try:
        sys.exit(_run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog='av-td3', description='Visual TD3 for driving on ROS 2.')
    parser.add_argument('--version', action='version',
                        version=f'av_td3_ros {importlib.metadata.version("av_td3_ros")}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, (module, about) in COMMANDS.items():
        described = commands.add_parser(name, help=about)
        if arguments[:1] == [name]:  # no other one is imported: torch takes seconds
            command = importlib.import_module(f'av_td3_ros.cli.{module}')
            command.add_arguments(described)
            described.set_defaults(execute=command.run, parser=described)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.parser.error(f'unknown: {" ".join(unknown)}')
    try:
        return int(options.execute(options))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        if getattr(options, 'debug', False):
            raise
        print(f'av-td3 {options.command}: {_said(error)}', file=sys.stderr)
        return 1


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f'{error.filename}: {error.strerror}'
    return str(error)


if __name__ == '__main__':
    main()
