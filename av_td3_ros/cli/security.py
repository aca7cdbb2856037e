"""`av-td3 security`: SROS2 policies of a session, and whether they could be enforced here."""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from av_td3_ros.cli.session import VEHICLE
from av_td3_ros.paths import config_directory
from av_td3_ros.ros.graph import profiles
from av_td3_ros.ros.security import permissions, policy, security_of
from av_td3_ros.ros.security_plugins import has_plugins

SHIPPED = ('carla', 'embedded', 'vehicle')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    policies = actions.add_parser('policies', help='write the SROS2 policy of a session')
    policies.add_argument('--out', type=Path, metavar='FILE',
                          help='file to write (default: standard output)')
    enclaves = actions.add_parser('enclaves', help='list the enclaves that a session needs')
    for one in (policies, enclaves):
        one.add_argument('--profile', choices=profiles(), default='vehicle', metavar='PROFILE',
                         help='what the nodes are bound to (default %(default)s)')
        one.add_argument('--vehicle', action='append', metavar='NAME',
                         help=f'role name of a vehicle, again for each (default {VEHICLE})')
    actions.add_parser('status', help='say what SROS2 does in this environment')


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if options.action == 'status':
        there = 'has' if has_plugins() else 'has NOT'
        print(f'SROS2: {security_of(os.environ)}; the middleware {there} the security plug-ins')
        return 0
    vehicles = options.vehicle or [VEHICLE]
    if options.action == 'enclaves':
        print('\n'.join(permissions(options.profile, vehicles)))
        return 0
    text = policy(options.profile, vehicles)
    if options.out is None:
        print(text, end='')
    else:
        options.out.write_text(text, encoding='utf-8')
    return 0


def write_shipped() -> list[Path]:
    """Write config/security anew; return the files."""
    folder = config_directory() / 'security'
    folder.mkdir(exist_ok=True)
    written = []
    for profile in SHIPPED:
        written.append(folder / f'{profile}.policy.xml')
        written[-1].write_text(policy(profile, [VEHICLE]), encoding='utf-8')
    return written


if __name__ == '__main__':
    for file in write_shipped():
        print(file)
