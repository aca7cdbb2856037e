"""Ed25519 key files: a private key that only its owner reads, a public one of a single line."""
from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

KIND = 'ed25519'
RAW, FINGERPRINT = 32, 32  # bytes of a public key; digits of its fingerprint
LARGEST = 1 << 16  # bytes of a key file
KEY_FILE = '~/.config/av_td3_ros/learner.key'
PUBLIC = '.pub'


class KeyFileError(ValueError):
    """A key that cannot be read, or that others could read."""


@dataclasses.dataclass(frozen=True)
class PublicKey:
    """Hold a public key, 32 bytes, and the name that its owner gave it."""

    raw: bytes
    name: str = ''

    def __post_init__(self) -> None:
        """Raise KeyFileError for what is no key."""
        if len(self.raw) != RAW:
            raise KeyFileError(f'a public key of {len(self.raw)} bytes, expected {RAW}')
        if not re.fullmatch(r'[\w.@:+-]*', self.name):
            raise KeyFileError(f'key name {self.name!r}: give letters, digits and . @ : + - _')

    @property
    def fingerprint(self) -> str:
        """Return the key's id: the first 128 bits of its SHA-256 in hex."""
        return hashlib.sha256(self.raw).hexdigest()[:FINGERPRINT]

    @property
    def line(self) -> str:
        """Return the key as one line of text."""
        return f'{KIND} {base64.b64encode(self.raw).decode()} {self.name}'.rstrip()

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Return whether this key's owner made `signature` over these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True


def public_key(line: str) -> PublicKey:
    """Return the key that one line of text holds; raise KeyFileError when it holds none."""
    words = line.split()
    kind, text, name, *rest = [*words, *[''] * (3 - len(words))]
    if kind != KIND or rest:
        raise KeyFileError(f'{line.strip()[:80]!r} is no public key: expected one line, '
                           f'`{KIND} BASE64 NAME`, as `av-td3 key show` prints it')
    try:
        return PublicKey(base64.b64decode(text, validate=True), name)
    except binascii.Error as error:
        raise KeyFileError(f'{line.strip()[:80]!r} is no public key: {error}') from error


class PrivateKey:
    """Sign; the key itself never leaves this object but into its own file."""

    def __init__(self, key: Ed25519PrivateKey, name: str = '') -> None:
        self._key = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = PublicKey(raw, name)

    def sign(self, signed: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._key.sign(signed)

    def write(self, path: Path) -> None:
        """
        Write the private key, which only its owner may read, and beside it the public one.

        Raises FileExistsError where there is a key: it may be the only one.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise FileExistsError(
                f'{path} exists and is not overwritten: `av-td3 key rotate` replaces a key, or '
                'give another --key') from None
        with os.fdopen(file, 'wb') as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        public_file(path).write_text(f'{self.public.line}\n', encoding='utf-8')


def new_key(name: str = '') -> PrivateKey:
    """Make a new key."""
    return PrivateKey(Ed25519PrivateKey.generate(), name)


def create_key(path: Path, name: str = '') -> PrivateKey:
    """Make a new key and write its files; raises as `PrivateKey.write`."""
    key = new_key(name)
    key.write(path)
    return key


def load_key(path: Path) -> PrivateKey:
    """
    Return the private key of a file.

    Raises KeyFileError when it is none, or when others than its owner can read it; OSError when it
    cannot be read.
    """
    file = os.open(path, os.O_RDONLY)
    with os.fdopen(file, 'rb') as opened:
        about = os.fstat(opened.fileno())
        check_private(path, about)
        text = opened.read(LARGEST)
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f'{path} is no private key in PEM ({type(error).__name__}): '
                           f'{_instead_of(path)}') from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f'{path} holds a {type(key).__name__}, expected an Ed25519 key: '
                           f'{_instead_of(path)}')
    return PrivateKey(key, _name(path))


def check_private(path: Path, about: os.stat_result) -> None:
    """Raise KeyFileError where others than the owner can read or change a private key."""
    if not stat.S_ISREG(about.st_mode):
        raise KeyFileError(f'{path} is no file')
    if stat.S_IMODE(about.st_mode) & 0o077:
        raise KeyFileError(f'{path} has mode {stat.S_IMODE(about.st_mode):04o}: others could sign '
                           f'with it; chmod 600 {path}, and rotate it if somebody may have')


def _instead_of(path: Path) -> str:
    """Return what to do about a file that holds no key: a new one takes no file's place."""
    return (f'move it away, then make a new one with `av-td3 key create --key {path}` and trust '
            'that on each vehicle')


def public_file(path: Path) -> Path:
    """Return where the public half of a private key's file lies."""
    return path.with_name(path.name + PUBLIC)


def expanded(path: str) -> Path:
    """Return a path as settings hold it, with ~ resolved."""
    return Path(path).expanduser()


def _name(path: Path) -> str:
    """Return the name that the public half of a key says; it is for people only."""
    try:
        return public_key(public_file(path).read_text(encoding='utf-8')).name
    except (OSError, ValueError):
        return ''
