"""The file of trusted keys: several at a time, so that one can follow another while it drives."""
from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from av_td3_ros.trust.keys import FINGERPRINT, LARGEST, KeyFileError, PublicKey, public_key

TRUST_FILE = '~/.config/av_td3_ros/trusted_keys'
TRUSTED, REVOKED = 'trusted', 'revoked'
QUOTED = 60  # characters of a line that is not understood
SHORTEST = 16  # characters of a fingerprint that may stand for all of it
HEADER = ('# Keys whose weights this vehicle takes, one a line: trusted|revoked ed25519 BASE64 '
          'NAME,\n# or revoked FINGERPRINT for one that was never trusted here.\n'
          '# `av-td3 key trust` and `av-td3 key revoke` write it; a running policy_node '
          'reads it again.\n')


class TrustError(ValueError):
    """A file of trusted keys that cannot be relied on."""


@dataclasses.dataclass(frozen=True)
class Trust:
    """
    Hold trusted and revoked keys by their fingerprints; a key in both is revoked.

    Of one that was revoked before it was ever trusted only the fingerprint is known: None.
    """

    trusted: Mapping[str, PublicKey] = dataclasses.field(default_factory=dict)
    revoked: Mapping[str, PublicKey | None] = dataclasses.field(default_factory=dict)

    def key(self, fingerprint: str) -> PublicKey | None:
        """Return the trusted key of a fingerprint, None when it is unknown or revoked."""
        return None if fingerprint in self.revoked else self.trusted.get(fingerprint)

    @property
    def valid(self) -> dict[str, PublicKey]:
        """Return the keys that are trusted and not revoked."""
        return {one: key for one, key in self.trusted.items() if one not in self.revoked}

    def with_key(self, key: PublicKey) -> Trust:
        """Return the same with a further trusted key; raise TrustError for a revoked one."""
        if key.fingerprint in self.revoked:
            raise TrustError(f'key {key.fingerprint} is revoked: it is not trusted again; make a '
                             'new one with `av-td3 key rotate`')
        return dataclasses.replace(self, trusted={**self.trusted, key.fingerprint: key})

    def without(self, fingerprint: str) -> Trust:
        """Return the same with a key revoked; raise TrustError for what names no key."""
        whole = self.whole(fingerprint)
        if whole in self.revoked:
            return self
        return Trust({one: kept for one, kept in self.trusted.items() if one != whole},
                     {**self.revoked, whole: self.trusted.get(whole)})

    def whole(self, fingerprint: str) -> str:
        """
        Return the whole of a fingerprint, of which the first 16 characters are enough here.

        Those of a key that is not known here are not: raises TrustError.
        """
        if not re.fullmatch(f'[0-9a-f]{{{SHORTEST},{FINGERPRINT}}}', fingerprint):
            raise TrustError(f'{fingerprint[:2 * FINGERPRINT]!r} is no fingerprint: give the '
                             f'{FINGERPRINT} characters that `av-td3 key show` prints, or at '
                             f'least the first {SHORTEST}; a key is revoked for ever')
        if len(fingerprint) == FINGERPRINT:
            return fingerprint
        found = [one for one in {**self.trusted, **self.revoked} if one.startswith(fingerprint)]
        if len(found) != 1:
            raise TrustError(f'{fingerprint!r} names {len(found)} of the keys that are known '
                             f'here: give all {FINGERPRINT} characters of the fingerprint')
        return found[0]

    def write(self, path: Path) -> None:
        """Write the file whole or not at all; raises OSError."""
        lines = [*(f'{TRUSTED} {key.line}\n' for key in self.trusted.values()),
                 *(f'{REVOKED} {key.line if key else one}\n'
                   for one, key in self.revoked.items())]
        write_whole(path, ''.join([HEADER, *lines]), 0o644)


def read_trust(path: Path) -> Trust:
    """
    Return the keys of a file.

    Raises FileNotFoundError when there is none, TrustError when a line is not understood or
    everybody could add one, OSError when it cannot be read.
    """
    keys: dict[str, dict[str, PublicKey]] = {TRUSTED: {}, REVOKED: {}}
    ahead: dict[str, None] = {}
    with path.open('rb') as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o002:
            raise TrustError(f'{path}: everybody can write it, and so add a key; chmod 644 {path}')
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise TrustError(f'{path}: more than {LARGEST} bytes is no file of keys')
    for number, line in enumerate(text.decode('utf-8', 'replace').splitlines(), 1):
        state, _, rest = line.strip().partition(' ')
        if not state or state.startswith('#'):
            continue
        if state == REVOKED and re.fullmatch(f'[0-9a-f]{{{FINGERPRINT}}}', rest):
            ahead[rest] = None
            continue
        try:
            key = public_key(rest)
            keys[state][key.fingerprint] = key
        except (KeyFileError, KeyError) as error:
            quoted = line if len(line) <= QUOTED else f'{line[:QUOTED]}...'
            raise TrustError(f'{path}, line {number}: {quoted!r} is not understood: correct it to '
                             '`trusted ed25519 BASE64 NAME`, as `av-td3 key show` prints a key'
                             ) from error
    return Trust(keys[TRUSTED], {**ahead, **keys[REVOKED]})


class TrustFile:
    """Read a file of trusted keys again whenever it changes; a missing file trusts nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at: tuple[int, ...] | None = None
        self._trust: Trust | None = None

    def now(self) -> Trust:
        """Return what it says now; raises TrustError when it cannot be relied on."""
        try:
            about = self.path.stat()
            seen = about.st_mtime_ns, about.st_ino, about.st_size, about.st_mode
            if self._trust is None or seen != self._read_at:
                self._trust, self._read_at = None, seen
                self._trust = read_trust(self.path)
        except FileNotFoundError:
            self._trust = None
            return Trust()
        except OSError as error:
            self._trust = None
            raise TrustError(f'{self.path}: {error.strerror}') from error
        return self._trust


def write_whole(path: Path, text: str, mode: int) -> None:
    """Write a small file so that it is there as a whole or not at all; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(path) as (file, name):
        with os.fdopen(file, 'w', encoding='utf-8') as out:
            out.write(text)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
        os.replace(name, path)


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[tuple[int, str]]:
    file, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}-')
    try:
        yield file, name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # only where it was not put into its place
