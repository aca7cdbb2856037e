"""`av-td3 key`: the keys that sign weights, and those that a vehicle trusts."""
from __future__ import annotations

import argparse
import os
import platform
import re
import stat
import time
from pathlib import Path

from av_td3_ros.trust.keys import (
    KEY_FILE,
    PrivateKey,
    PublicKey,
    create_key,
    expanded,
    load_key,
    public_file,
    public_key,
)
from av_td3_ros.trust.trusted import TRUST_FILE, Trust, read_trust

NEXT = '.next'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    create = actions.add_parser('create', help='make the key that the learner signs with')
    create.add_argument('--unless-there', action='store_true',
                        help='leave the key that is there and succeed')
    create.add_argument('--trust', action='store_true', help='trust it on this host as well')
    actions_of = {'create': create}
    for name, about in (
            ('show', "show the learner's key and the trusted ones"),
            ('trust', 'take weights that a key has signed'),
            ('revoke', 'take no more weights that a key has signed'),
            ('rotate', "replace the learner's key: once to make the new one, once to use it")):
        actions_of[name] = actions.add_parser(name, help=about)
    actions_of['trust'].add_argument('public', metavar='KEY', help='a .pub file, or its line')
    actions_of['revoke'].add_argument('fingerprint', metavar='FINGERPRINT',
                                      help='that of the key, or at least its first 16 '
                                           'characters; a key may be revoked ahead by all 32')
    actions_of['rotate'].add_argument('--finish', action='store_true',
                                      help='use the new key from now on; the old one is destroyed')
    for name in ('create', 'rotate'):
        actions_of[name].add_argument('--name', default=_default_name(), metavar='NAME',
                                      help='what people know it by (default %(default)s)')
    for name in ('create', 'show', 'rotate'):
        actions_of[name].add_argument('--key', default=KEY_FILE, metavar='FILE',
                                      help="file of the learner's key (default %(default)s)")
    for name in ('create', 'show', 'trust', 'revoke'):
        actions_of[name].add_argument('--trusted', default=TRUST_FILE, metavar='FILE',
                                      help='file of the trusted keys (default %(default)s)')


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    return {'create': _create, 'show': _show, 'trust': _trust, 'revoke': _revoke,
            'rotate': _rotate}[options.action](options)


def _create(options: argparse.Namespace) -> int:
    path = expanded(options.key)
    if options.unless_there and path.exists():
        key = load_key(path).public
    else:
        key = create_key(path, options.name).public
        print(f'{path}: a new key; it never leaves this host')
    print(f'fingerprint {key.fingerprint}\n{key.line}')
    if options.trust:
        return _add(key, expanded(options.trusted))
    print(f"on each vehicle that shall take this learner's weights: av-td3 key trust '{key.line}'")
    return 0


def _show(options: argparse.Namespace) -> int:
    path = expanded(options.key)
    for file, what in ((path, 'signs'), (_next(path), 'signs after `rotate --finish`')):
        if file.exists():
            key = load_key(file).public
            print(f'{what}: {key.fingerprint} {key.name}, {file} '
                  f'(mode {stat.S_IMODE(file.stat().st_mode):04o})\n  {key.line}')
    if not path.exists():
        print(f'no key to sign with: {path} is missing')
    trusted = expanded(options.trusted)
    trust = _read(trusted)
    for key in trust.valid.values():
        print(f'trusted: {key.fingerprint} {key.name}')
    for one, revoked in trust.revoked.items():
        print(f'revoked: {one} {revoked.name if revoked else "(never trusted here)"}')
    if not trust.valid:
        print(f'no key is trusted in {trusted}: weights that a learner sends are refused')
    return 0


def _trust(options: argparse.Namespace) -> int:
    file = Path(options.public).expanduser()
    is_line = ' ' in options.public or not options.public
    text = options.public if is_line else file.read_text(encoding='utf-8')
    return _add(public_key(text), expanded(options.trusted))


def _add(key: PublicKey, trusted: Path) -> int:
    _read(trusted).with_key(key).write(trusted)
    print(f'trusted: {key.fingerprint} {key.name} in {trusted}')
    return 0


def _revoke(options: argparse.Namespace) -> int:
    trusted = expanded(options.trusted)
    before = _read(trusted)
    fingerprint = before.whole(options.fingerprint)
    if fingerprint in before.revoked:
        print(f'revoked already: {fingerprint} in {trusted}')
        return 0
    before.without(fingerprint).write(trusted)
    if fingerprint not in before.trusted:
        print(f'revoked ahead: {fingerprint} in {trusted}; it was not trusted there, and will not '
              'be')
        return 0
    print(f'revoked: {fingerprint} in {trusted}; a policy that it signed and that drives now goes '
          'on until other weights come')
    return 0


def _rotate(options: argparse.Namespace) -> int:
    path = expanded(options.key)
    if not path.exists():
        raise FileNotFoundError(f'{path} is missing, there is no key to replace: `av-td3 key '
                                'create` makes one')
    old, following = load_key(path).public, _next(path)
    if not options.finish:
        if following.exists():
            raise FileExistsError(
                f'{following} is the new key already: on each vehicle `av-td3 key trust '
                f"'{load_key(following).public.line}'`, then here `av-td3 key rotate --finish`")
        key = create_key(following, options.name).public
        print(f"1. on each vehicle: av-td3 key trust '{key.line}'\n"
              '2. here: av-td3 key rotate --finish, and start the learner again\n'
              f'3. on each vehicle: av-td3 key revoke {old.fingerprint}')
        return 0
    key = _replace(path, following).public
    print(f'{path}: signs as {key.fingerprint} from the next start of the learner\n'
          f'on each vehicle, once that runs: av-td3 key revoke {old.fingerprint}')
    return 0


def _replace(path: Path, following: Path) -> PrivateKey:
    if not following.exists():
        raise FileNotFoundError(f'{following} is missing: `av-td3 key rotate` makes the new key, '
                                'then trust it on each vehicle')
    key = load_key(following)
    os.replace(following, path)
    os.replace(public_file(following), public_file(path))
    return key


def _read(trusted: Path) -> Trust:
    return read_trust(trusted) if trusted.exists() else Trust()


def _next(path: Path) -> Path:
    return path.with_name(path.name + NEXT)


def _default_name() -> str:
    host = re.sub(r'[^\w.-]', '-', platform.node()) or 'learner'
    return f'{host}-{time.strftime("%Y-%m-%d")}'
