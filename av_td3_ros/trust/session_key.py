"""A key for one session that starts learner and policy itself: made with it, gone with it."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from av_td3_ros.trust.keys import KEY_FILE, create_key
from av_td3_ros.trust.trusted import Trust

TRUSTED_KEYS = 'trusted_keys'
PREFIX = 'av_td3_ros-key-'


class SessionKey:
    """
    Hold a new key in a directory that only this user can enter, outside of every run folder.

    The learner is told where the private half lies, policy nodes where the public one does. Should
    the session be killed before `remove`, what is left opens nothing: nobody else trusts this key.
    """

    def __init__(self) -> None:
        """Make the key; raises OSError."""
        parent = Path(os.environ.get('XDG_RUNTIME_DIR', ''))
        self.directory = Path(tempfile.mkdtemp(
            prefix=PREFIX, dir=parent if parent.is_absolute() and os.access(parent, os.W_OK)
            else None))
        self.key = create_key(self.directory / 'learner.key', 'session').public
        Trust().with_key(self.key).write(self.directory / TRUSTED_KEYS)

    def parameters(self, node: str) -> dict[str, str]:
        """Return the parameters that a node of this session needs, by its name."""
        trusted = {'trust.keys': str(self.directory / TRUSTED_KEYS)}
        return {'learner_node': {'signing.key': str(self.directory / 'learner.key')},
                'policy_node': trusted, 'vehicle_side': trusted}.get(node, {})

    def remove(self) -> None:
        """Destroy the key."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> SessionKey:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def session_key(nodes: Iterable[str], signing_key: str) -> SessionKey | None:
    """Return a key where learner and policy are among `nodes`, and their user chose none."""
    whole = {'learner_node', 'policy_node'} <= set(nodes)
    return SessionKey() if whole and signing_key == KEY_FILE else None
