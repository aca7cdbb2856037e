"""`av-td3`: the command line."""
from __future__ import annotations

import argparse
import os
import sys

from av_td3_ros.ros.runtime import ros_environment


def main() -> None:
    """Run one command; errors that a user can mend are one line and exit status 1."""
    os.environ.update(ros_environment(os.environ))
    from av_td3_ros.cli import config, train

    parser = argparse.ArgumentParser(
        prog='av-td3', description='Visual TD3 for driving on ROS 2.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    training = commands.add_parser(
        'train', help='train a driving policy, compare it, and write a report')
    train.add_arguments(training)
    listing = commands.add_parser('config', help='list every setting with meaning and default')
    listing.add_argument('node', nargs='?', choices=list(config.SETTINGS), metavar='NODE',
                         help='only those of this node')
    options = parser.parse_args()
    try:
        if options.command == 'train':
            sys.exit(train.run(options))
        for node in [options.node] if options.node else config.SETTINGS:
            print(f'# {node}\n{config.described_file(node)}')
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on
    except (ValueError, OSError, RuntimeError) as error:
        if getattr(options, 'debug', False):
            raise
        print(f'av-td3 {options.command}: {error}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    main()
