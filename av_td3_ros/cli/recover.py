"""`av-td3 recover`: close a bag whose recorder was killed, so that every reader opens it."""
from __future__ import annotations

import argparse
from pathlib import Path

from av_td3_ros.ros.recording.bag import recover


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this command."""
    parser.add_argument('bags', nargs='+', type=Path, metavar='BAG',
                        help='folder of a bag of transitions, such as RUN/bag')
    parser.add_argument('--drop-damaged', action='store_true',
                        help='where a file is damaged, keep what is whole of it; the damaged one '
                        'is kept as FILE.damaged')


def run(options: argparse.Namespace) -> int:
    """Recover each bag and say what was found; return 1 when one cannot be closed."""
    failed = False
    for bag in options.bags:
        told = recover(bag, options.drop_damaged)
        print('\n'.join(map(str, told)) or f'{bag}: all of its files are closed')
        failed |= any(one.failure for one in told)
    return int(failed)
