"""`av-td3`: the command line."""
from __future__ import annotations

import argparse
import os
import sys

from av_td3_ros.ros.runtime import ros_environment

INTERRUPTED = 130


def main() -> None:
    """Run one command; errors that a user can mend are one line and exit status 1."""
    os.environ.update(ros_environment(os.environ))
    try:
        sys.exit(_run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run(arguments: list[str]) -> int:
    from av_td3_ros.cli import (  # seconds: torch
        config,
        diagnose,
        drive,
        evaluate,
        export,
        learning_curves,
        reward_plots,
        train,
    )
    from av_td3_ros.cli import map as map_command

    parser = argparse.ArgumentParser(
        prog='av-td3', description='Visual TD3 for driving on ROS 2.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, command, about in (
            ('train', train, 'train a driving policy, compare it, and write a report'),
            ('drive', drive, 'watch a policy drive, in a window or as a film'),
            ('evaluate', evaluate, 'let a driver drive episodes, and measure how well'),
            ('export', export, 'write a policy alone, to send or to ship it'),
            ('diagnose', diagnose, 'tell what looks sick in a run or a checkpoint, and draw it'),
            ('plot', learning_curves, 'draw the learning curves of several runs'),
            ('map', map_command, 'make a map of random roads'),
            ('reward', reward_plots, 'draw the reward terms and tell what drives are worth'),
            ('config', config, 'list every setting with meaning and default')):
        described = commands.add_parser(name, help=about)
        command.add_arguments(described)
        described.set_defaults(execute=command.run)
    options = parser.parse_args(arguments)
    try:
        return int(options.execute(options))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        if getattr(options, 'debug', False):
            raise
        print(f'av-td3 {options.command}: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    main()
