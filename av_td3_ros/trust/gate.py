"""What lets weights through to the wheel: signed by a trusted key, newer, whole and finite."""
from __future__ import annotations

import collections
import dataclasses
import json
from datetime import datetime, timezone
from pathlib import Path

from torch import Tensor

from av_td3_ros.settings import setting
from av_td3_ros.td3.networks import NetworkSettings
from av_td3_ros.td3.weights import ActorWeights, WeightsError, unpack
from av_td3_ros.trust.keys import expanded
from av_td3_ros.trust.signing import statement
from av_td3_ros.trust.trusted import TRUST_FILE, Trust, TrustError, TrustFile, write_whole


@dataclasses.dataclass(frozen=True)
class TrustSettings:
    """Whose weights a policy node takes."""

    keys: str = setting(TRUST_FILE, 'file of the public keys whose weights are taken, of '
                        '`av-td3 key trust`; read again whenever it changes')
    allow_unsigned: bool = setting(False, 'also take weights that nobody signed: whoever reaches '
                                   'the topic then drives; warned of at every start')
    signed_files: bool = setting(False, 'start only from an exported policy that a trusted key '
                                 'has signed; false: an unsigned one or a checkpoint will do')
    memory: str = setting('', 'file that keeps which weights were the newest, so that older ones '
                          'are refused after a restart as well; empty: until the node ends')


@dataclasses.dataclass(frozen=True)
class Newest:
    """Hold which signed weights were the last to be let through."""

    session_started: int = -1
    session: str = ''
    version: int = 0
    sha256: str = ''


class Gate:
    """
    Let weights through that a trusted key signed, that fit, and that are newer than all before.

    Sessions follow each other by their starts, versions within one. A learner that goes on from a
    checkpoint may count versions again that it has sent before: it is a new session, and a newer
    one. `refused` counts by reason.
    """

    def __init__(self, settings: TrustSettings, network: NetworkSettings) -> None:
        """Raise ValueError for a memory that cannot be understood."""
        self._settings, self._network = settings, network
        self._file = TrustFile(expanded(settings.keys))
        self._memory = expanded(settings.memory) if settings.memory else None
        self._newest = Newest() if self._memory is None else _remembered(self._memory)
        self._driving: Newest | None = None
        self.key = ''  # that signed what was let through last
        self.trouble = ''
        self.refused: collections.Counter[str] = collections.Counter()
        self._told: set[str] = set()

    def warnings(self) -> list[str]:
        """Return what whoever starts a vehicle with these settings has to know."""
        said = []
        if self._settings.allow_unsigned:
            said.append('trust.allow_unsigned = true: weights that nobody signed are taken; '
                        'whoever reaches the topic drives')
        try:
            if not self._file.now().valid and not self._settings.allow_unsigned:
                said.append(f'{self._file.path} holds no trusted key: weights that a learner '
                            'sends will be refused; `av-td3 key trust` adds one')
        except TrustError as error:
            said.append(f'{error}: weights that a learner sends will be refused')
        return said

    def admit(self, weights: ActorWeights) -> dict[str, Tensor] | None:
        """
        Return the tensors of an actor to drive with; None for weights that drive already.

        Raises WeightsError with the reason when they are refused.
        """
        trusted = self._verify(weights)
        here = Newest(weights.session_started, weights.session, weights.version, weights.sha256)
        if trusted:
            if here == self._driving:
                return None  # a latched message comes again when two hosts meet again
            self._check_newer(here)
        tensors = unpack(weights, self._network)
        if trusted:
            self._newest = self._driving = here
            self._remember()
        self.key = weights.key if trusted else ''
        self._told.clear()
        return tensors

    def refuse(self, error: WeightsError) -> bool:
        """Count refused weights; return whether to tell: once a reason until some are taken."""
        self.refused[error.reason] += 1
        if error.reason in self._told:
            return False
        self._told.add(error.reason)
        return True

    @property
    def key_is_revoked(self) -> bool:
        """Return whether the key that signed what drives has been revoked since."""
        try:
            return bool(self.key) and self._file.now().key(self.key) is None
        except TrustError:
            return True

    def trust(self) -> Trust:
        """Return the keys that are trusted now; raises TrustError."""
        return self._file.now()

    def _verify(self, weights: ActorWeights) -> bool:
        """Return whether a trusted key signed them, False where nobody has to."""
        name = f'weights {weights.version}'
        if not weights.signature:
            if self._settings.allow_unsigned:
                return False
            raise WeightsError(f'{name}: unsigned; give the learner a key (`av-td3 key create`) '
                               f'and trust it here (`av-td3 key trust`)', 'unsigned')
        try:
            trust = self._file.now()
        except TrustError as error:
            raise WeightsError(f'{name}: {error}', 'trust file') from error
        key = trust.key(weights.key)
        if key is None:
            revoked = weights.key in trust.revoked
            raise WeightsError(
                f'{name}: signed by key {weights.key[:64]!r}, which is '
                f'{"revoked" if revoked else "not trusted"} in {self._file.path}',
                'revoked key' if revoked else 'foreign key')
        if not key.verifies(weights.signature, statement(weights)):
            raise WeightsError(f'{name}: the signature is not that of key {weights.key} over '
                               'these weights: altered on their way', 'altered')
        return True

    def _check_newer(self, here: Newest) -> None:
        newest = self._newest
        if (here.session_started, here.session) == (newest.session_started, newest.session):
            # The newest ones are taken again by a node that was started anew.
            again = self._driving is None and here == newest
            if here.version > newest.version or again:
                return
            raise WeightsError(f'weights {here.version}: version {newest.version} of the same '
                               'session was there already: replayed', 'replayed')
        if here.session_started <= newest.session_started:
            raise WeightsError(
                f'weights {here.version}: of a session that started {_time(here)}, but those of '
                f'one that started {_time(newest)} were there already: replayed, or the '
                "learner's clock went back", 'replayed')

    def _remember(self) -> None:
        if self._memory is None:
            return
        try:
            write_whole(self._memory, json.dumps(dataclasses.asdict(self._newest)) + '\n', 0o600)
            self.trouble = ''
        except OSError as error:
            self.trouble = f'{self._memory}: {error.strerror}: which weights are the newest is ' \
                           'not kept for a restart'


def _remembered(path: Path) -> Newest:
    try:
        kept = json.loads(path.read_text(encoding='utf-8'))
        return Newest(int(kept['session_started']), str(kept['session']), int(kept['version']),
                      str(kept['sha256']))
    except FileNotFoundError:
        return Newest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'trust.memory {path} cannot be understood ({error!r}): without it older '
                         'weights could be replayed; remove it if you accept that') from error


def _time(one: Newest) -> str:
    try:
        return datetime.fromtimestamp(one.session_started / 1e9, timezone.utc).isoformat(' ')
    except (OverflowError, ValueError, OSError):
        return f'{one.session_started} ns after 1970'
