"""A policy to drive with: out of a checkpoint, or an actor alone with what it was trained with."""
from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from av_td3_ros.reading import brief, read_json
from av_td3_ros.settings import flatten, from_mapping
from av_td3_ros.td3.checkpoint import CheckpointError, load
from av_td3_ros.td3.networks import Actor, NetworkSettings, architecture_hash
from av_td3_ros.td3.weights import ActorWeights, WeightsError, pack, unpack

FORMAT = 1
ABOUT_FILE, ACTOR_FILE = 'policy.json', 'actor.safetensors'
SIGNATURE = 'signature'
NodeSettings = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Policy:
    """
    Hold a learned actor, ready to drive, and its version.

    `settings` is {node: {dotted key: value}} of what it was trained with and `command` what
    trained it; both are empty where a checkpoint does not know. `about` is all that policy.json
    says, its signature, which nobody has verified here, included; a checkpoint has none.
    """

    path: Path
    actor: Actor
    version: int
    settings: NodeSettings = dataclasses.field(default_factory=dict)
    command: str = ''
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def network(self) -> NetworkSettings:
        """Return the shape of the actor."""
        return self.actor.network


def load_policy(path: str | Path) -> Policy:
    """
    Load a checkpoint, the newest one of a folder of checkpoints, or an exported policy.

    Raises CheckpointError with the reason when it is not there, altered or not readable.
    """
    path = Path(path)
    if (path / ABOUT_FILE).is_file():
        return _exported(path)
    checkpoint = load(path)
    return Policy(checkpoint.path, checkpoint.actor().eval(),
                  int(checkpoint.counters.get('policy_version', 0)))


def export_policy(policy: Policy, folder: str | Path, settings: Mapping[str, Mapping[str, Any]],
                  command: str = '',
                  sign: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None) -> Path:
    """
    Write the actor alone with what it was trained with; return the folder.

    `settings` and `command` are those of Policy; `sign` returns the signature of all that
    policy.json says. Raises FileExistsError for a folder in use.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f'{folder} is not empty: choose another folder')
    folder.mkdir(parents=True, exist_ok=True)
    weights = pack(policy.actor, policy.version)
    about = {'format': FORMAT, 'version': weights.version, 'architecture': weights.architecture,
             'sha256': weights.sha256, 'command': command, 'network': flatten(policy.network),
             'settings': {node: dict(values) for node, values in settings.items()}}
    if sign is not None:
        about[SIGNATURE] = dict(sign(about))
    (folder / ACTOR_FILE).write_bytes(weights.data)
    # Last: with it the folder is a policy.
    (folder / ABOUT_FILE).write_text(json.dumps(about, indent=1) + '\n', encoding='utf-8')
    return folder


def _exported(path: Path) -> Policy:
    try:
        about = read_json(path / ABOUT_FILE)
        if about['format'] != FORMAT:
            raise CheckpointError(f'{path}: format {about["format"]}, this program reads {FORMAT}')
        network = from_mapping(NetworkSettings, about['network'], f'{path}: network')
        if about['architecture'] != architecture_hash(network):
            raise CheckpointError(f'{path / ABOUT_FILE}: network and architecture do not belong '
                                  'together: altered, or of another release')
        data = (path / ACTOR_FILE).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != about['sha256']:
            raise CheckpointError(f'{path / ACTOR_FILE}: SHA-256 differs from {ABOUT_FILE}: '
                                  'truncated or altered')
        actor = Actor(network)
        actor.load_state_dict(unpack(
            ActorWeights(about['version'], about['architecture'], data, found), network))
        return Policy(path.resolve(), actor.eval(), int(about['version']),
                      {node: dict(values) for node, values in about['settings'].items()},
                      str(about['command']), about)
    except CheckpointError:
        raise
    except WeightsError as error:
        raise CheckpointError(f'{path}: {error}') from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
            RuntimeError) as error:
        raise CheckpointError(f'{path}: not a whole policy ({brief(error)})') from error
