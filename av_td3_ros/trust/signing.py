"""What is signed of actor weights, and who signs: one session of a learner."""
from __future__ import annotations

import dataclasses
import fcntl
import os
import struct
import time
import uuid
from pathlib import Path

from av_td3_ros.settings import setting
from av_td3_ros.td3.weights import ActorWeights
from av_td3_ros.trust.keys import KEY_FILE, KeyFileError, PrivateKey, expanded, load_key

# Nothing that is signed for one purpose is ever taken for another.
WEIGHTS_DOMAIN = b'av_td3_ros ActorWeights 1\0'
POLICY_DOMAIN = b'av_td3_ros policy.json 1\0'
STARTED = '.started'


@dataclasses.dataclass(frozen=True)
class SigningSettings:
    """With what the learner signs."""

    key: str = setting(KEY_FILE, 'file of the private key that signs the weights, of '
                       '`av-td3 key create`; where this default is missing they go out unsigned, '
                       'and policy nodes refuse them')


def statement(weights: ActorWeights) -> bytes:
    """
    Return what a signature of weights covers: all of the message, of the bytes their SHA-256.

    Every part has a fixed length or its length before it, so that no two messages are alike here.
    """
    numbers = struct.pack('>qqQ', weights.stamp, weights.session_started, weights.version)
    texts = (weights.session, weights.key, weights.architecture)
    parts = [*(text.encode('utf-8', 'surrogatepass') for text in texts),
             bytes.fromhex(weights.sha256)]
    return WEIGHTS_DOMAIN + numbers + b''.join(
        struct.pack('>I', len(part)) + part for part in parts)


class Signer:
    """Seal the weights of one session of a learner: who sends them, since when, the signature."""

    def __init__(self, key: PrivateKey | None, started: int) -> None:
        """Begin a session at `started`, ns since 1970; without a key nothing is signed."""
        self.session, self.started = uuid.uuid4().hex, started
        self._key = key

    @property
    def fingerprint(self) -> str:
        """Return the id of the key that signs, '' without one."""
        return '' if self._key is None else self._key.public.fingerprint

    def seal(self, weights: ActorWeights, stamp: int) -> ActorWeights:
        """Return weights as this session sends them at `stamp`, ns since 1970."""
        sealed = dataclasses.replace(
            weights, stamp=stamp, session=self.session, session_started=self.started,
            key=self.fingerprint)
        if self._key is None:
            return sealed
        return dataclasses.replace(sealed, signature=self._key.sign(statement(sealed)))


def begin_session(path: str) -> tuple[Signer, str]:
    """
    Return who signs with the key of a file, and words of warning, '' where none are needed.

    Nothing is signed where the default file is missing. Raises KeyFileError for a file that is no
    private key, cannot be read or that others can read, FileNotFoundError for one not there.
    """
    file = expanded(path)
    if path == KEY_FILE and not file.exists():
        return Signer(None, time.time_ns()), (
            f'weights go out UNSIGNED, there is no {file}: policy nodes refuse them unless '
            'trust.allow_unsigned is set; make a key with `av-td3 key create`')
    try:
        key = load_key(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'signing.key = {path!r} is missing: make it with `av-td3 key create --key {file}`, '
            'or name a key that is there') from error
    except OSError as error:
        raise KeyFileError(f'signing.key = {path!r} cannot be read: {error.strerror}; give a file '
                           'that this user may read') from error
    except KeyFileError as error:
        raise KeyFileError(f'signing.key: {error}') from error
    try:
        return Signer(key, _later_than_ever(file.with_name(file.name + STARTED))), ''
    except OSError as error:
        return Signer(key, time.time_ns()), (
            f'{error.filename}: {error.strerror}; the start of this session is not kept: should '
            'the clock of this host go back, vehicles take the next one for a replay')


def _later_than_ever(path: Path) -> int:
    """Return a start, ns since 1970, that is later than all before it, and keep it in a file."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(file, 'r+', encoding='ascii', errors='replace') as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)  # two learners may sign with one key
        text = kept.read(32).strip()
        before = int(text) if text.isdecimal() else 0
        started = max(time.time_ns(), before + 1)
        kept.seek(0)
        kept.write(f'{started:020d}\n')
        kept.flush()
        os.fsync(kept.fileno())
    return started
