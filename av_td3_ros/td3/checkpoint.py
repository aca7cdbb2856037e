"""Complete checkpoints: safetensors and JSON in one directory that appears whole or not at all."""
from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_td3_ros.reading import brief, parse_json, read_json
from av_td3_ros.settings import flatten, from_mapping
from av_td3_ros.td3.agent import TD3, TD3Settings
from av_td3_ros.td3.limiter import UpdateLimiter
from av_td3_ros.td3.networks import Actor, NetworkSettings, architecture_hash
from av_td3_ros.td3.optimizer import MOMENTS
from av_td3_ros.td3.replay import SEGMENT, ReplayBuffer, ReplayError
from av_td3_ros.td3.weights import WeightsError, check_tensors, to_safetensors

FORMAT = 2
LATEST, BEST = 'latest', 'best'
NETWORKS = ('actor', 'critic', 'actor_target', 'critic_target')
OPTIMIZERS = ('actor_optimizer', 'critic_optimizer')
REPLAYS = ('replay', 'demonstrations')

_AGENT, _STATE, _MANIFEST = 'agent.safetensors', 'state.json', 'manifest.json'
_WRITING = '.writing-'
_SHARD = 'replay_'
_UNFIT = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)
"""What comes of values that are there, whole by their hash, and yet not what they must be."""


_STATES: tuple[tuple[tuple[type, ...], tuple[str, ...]], ...] = (
    ((int,), ('format', 'updates', 'skipped', 'skipped_in_row')),
    ((str,), ('architecture', 'device', 'generator')),
    ((dict,), ('network', 'settings', 'counters', 'config')),
    ((dict, type(None)), ('limiter', *REPLAYS)), ((int, float, type(None)), ('score',)))


class CheckpointError(ValueError):
    """A checkpoint that is not there, not whole, or not for this learner."""


class Exported(Protocol):
    """A replay as a checkpoint sees it, wherever it lies."""

    @property
    def lineage(self) -> object:
        """Return what stays the same as long as exported segments belong to the content."""

    def state_dict(self) -> dict[str, Any]:
        """Return all but the segments' content."""

    def segment(self, index: int, total: int) -> dict[str, NDArray[Any]]:
        """Return the columns of the index-th 1024 steps, as far as below `total`."""

    def load_state_dict(self, values: Mapping[str, Any],
                        segments: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        """Become the replay that was exported."""


@dataclasses.dataclass(frozen=True)
class _Written:
    """A replay segment on disk that later checkpoints share by a hard link."""

    path: Path
    size: int
    sha256: str


class Checkpoints:
    """
    Write the checkpoints of one run into `directory`, each a folder named by its updates.

    The newest `keep` are kept, and the one with the highest score. The links `latest` and `best`
    lead to them. A folder is written under another name, flushed to the disk and renamed, so that
    a process killed at any moment leaves the checkpoints before it as they were. Replay segments
    that are full never change; they are written once and shared by hard links. One process at a
    time writes into a directory.
    """

    def __init__(self, directory: str | Path, keep: int = 3) -> None:
        if keep < 1:
            raise CheckpointError(f'checkpoints: keep = {keep} would keep none; give 1 or more')
        self.directory, self.keep = Path(directory), keep
        self._segments: dict[str, dict[int, _Written]] = {}
        self._lineage: dict[str, object] = {}
        self._best = -np.inf

    def save(self, agent: TD3, replay: Exported | None = None,
             limiter: UpdateLimiter | None = None, counters: Mapping[str, Any] | None = None,
             config: Mapping[str, Any] | None = None, score: float | None = None,
             pin: str | None = None, demonstrations: ReplayBuffer | None = None,
             shards: Sequence[Exported] = (),
             hold: contextlib.AbstractContextManager[Any] | None = None) -> Path:
        """
        Write everything that learning needs to go on and return the checkpoint's folder.

        `counters` and `config` hold whatever the caller wants back, as far as JSON can hold it.
        `pin` names a further link to the checkpoint, which is kept as long as the link is there.
        `shards` are the parts of the replay that other ranks hold. `hold` is entered while what
        must agree is noted: replays and limiter, to which steps may come at any time. Call it
        between two updates. Raises OSError when the disk refuses.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        final = self._free_name(agent.updates)
        work = self.directory / f'{_WRITING}{final.name}'
        work.mkdir()
        tensors, state = _agent_state(agent)
        replays = _named(replay, demonstrations, shards)
        with hold or contextlib.nullcontext():
            state |= {'limiter': None if limiter is None else limiter.state_dict(),
                      'counters': dict(counters or {}), 'config': dict(config or {}),
                      'score': None if score is None else float(score),
                      **{name: None if buffer is None else buffer.state_dict()
                         for name, buffer in replays.items()}}
        files = {_AGENT: _write(work / _AGENT, to_safetensors(tensors)),
                 _STATE: _write(work / _STATE, _json(state))}
        full = {name: self._write_segments(name, buffer, state[name], work, files)
                for name, buffer in replays.items() if buffer is not None}
        _write(work / _MANIFEST, _json({name: {'size': file.size, 'sha256': file.sha256}
                                        for name, file in files.items()}))
        _flush_directory(work)
        os.rename(work, final)
        _flush_directory(self.directory)
        self._segments = {name: {index: dataclasses.replace(
            written, path=final / name / written.path.name)
            for index, written in segments.items()} for name, segments in full.items()}
        _point(self.directory / LATEST, final.name)
        if score is not None and score > self._best_score():
            self._best = float(score)
            _point(self.directory / BEST, final.name)
        if pin is not None:
            _point(self.directory / pin, final.name)
        self._sweep()
        self._prune()
        return final

    def latest(self) -> Path | None:
        """Return the newest checkpoint's folder, None when there is none."""
        linked = self.directory / LATEST
        if (linked / _MANIFEST).exists():
            return linked.resolve()
        found = self.folders()
        return found[-1] if found else None

    def broken_latest(self) -> str | None:
        """Return the name of the newest checkpoint where it is not whole, so is not `latest()`."""
        linked = self.directory / LATEST
        if not linked.is_symlink() or (linked / _MANIFEST).exists():
            return None
        return Path(os.readlink(linked)).name

    def _free_name(self, updates: int) -> Path:
        """Return a folder to be: named by its updates, and a number where that is taken."""
        path, again = self.directory / f'{updates:08d}', 0
        while path.exists():
            again += 1
            path = self.directory / f'{updates:08d}.{again}'
        return path

    def _write_segments(self, name: str, replay: Exported, state: Mapping[str, Any],
                        work: Path, files: dict[str, _Written]) -> dict[int, _Written]:
        """Write a replay's segments, noting them in `files`; return those that are full."""
        if self._lineage.get(name) is not replay.lineage:
            self._segments[name], self._lineage[name] = {}, replay.lineage
        (work / name).mkdir()
        full: dict[int, _Written] = {}
        for index in range(state['first'] // SEGMENT, -(-state['total'] // SEGMENT)):
            path = f'{name}/{index:08d}.safetensors'
            files[path] = self._segment(self._segments[name].get(index), replay, index,
                                        state['total'], work / path)
            if (index + 1) * SEGMENT <= state['total']:
                full[index] = files[path]
        _flush_directory(work / name)
        return full

    def _segment(self, known: _Written | None, replay: Exported, index: int, total: int,
                 path: Path) -> _Written:
        if known is not None:
            try:
                os.link(known.path, path)
                return known
            except OSError:
                pass  # gone, or a file system without hard links: write it again
        return _write(path, safetensors.numpy.save(replay.segment(index, total)))

    def _best_score(self) -> float:
        """Return the best score so far, of an earlier process as well."""
        if self._best == -np.inf and (self.directory / BEST).exists():
            try:
                score = load(self.directory / BEST).score
            except CheckpointError:
                score = None  # a broken one is not the best any more
            self._best = -np.inf if score is None else score
        return float(self._best)

    def folders(self) -> list[Path]:
        """Return all checkpoints in the order in which they were written."""
        if not self.directory.is_dir():
            return []
        return sorted((path for path in self.directory.iterdir()
                       if re.fullmatch(r'\d{8,}(\.\d+)?', path.name)
                       and (path / _MANIFEST).exists()),
                      key=lambda path: ((path / _MANIFEST).stat().st_mtime_ns, path.name))

    def _prune(self) -> None:
        linked = {path.resolve() for path in self.directory.iterdir() if path.is_symlink()}
        for path in self.folders()[:-self.keep]:
            if path.resolve() not in linked:
                shutil.rmtree(path)

    def _sweep(self) -> None:
        """Remove what a killed process left half written, and what has been replaced."""
        for path in self.directory.glob(f'{_WRITING}*'):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all there; their content is verified when it is read."""

    path: Path
    network: NetworkSettings
    settings: TD3Settings
    updates: int
    counters: dict[str, Any]
    config: dict[str, Any]
    score: float | None
    _state: dict[str, Any]
    _manifest: dict[str, Any]

    @property
    def agent_digest(self) -> str:
        """Return the SHA-256 of weights and optimizers: the same where nothing was learned."""
        return str(self._manifest[_AGENT]['sha256'])

    def actor(self) -> Actor:
        """Return the learned actor, for driving. Raises CheckpointError."""
        tensors = _part(self._tensors(), 'actor')
        try:
            check_tensors(tensors, self.network, f'{self.path}: actor')
        except WeightsError as error:
            raise CheckpointError(str(error)) from error
        actor = Actor(self.network)
        actor.load_state_dict(tensors)
        return actor

    def restore(self, agent: TD3, replay: Exported | None = None,
                limiter: UpdateLimiter | None = None,
                demonstrations: ReplayBuffer | None = None,
                shards: Sequence[Exported] = ()) -> None:
        """
        Put everything back, so that learning goes on bit for bit on the same kind of device.

        `agent` must have the checkpoint's architecture; its settings may differ. There must be as
        many `shards` as were saved, where a replay is to be restored. Raises CheckpointError,
        before anything is changed, when a file was altered or does not fit.
        """
        expected = architecture_hash(agent.network)
        if self._state['architecture'] != expected:
            raise CheckpointError(
                f'{self.path}: made for another architecture {_differences(self, agent)}; start '
                'with the same network settings or another run folder')
        replays = {name: buffer for name, buffer in
                   _named(replay, demonstrations, shards).items() if buffer is not None}
        if replay is not None and self.ranks != 1 + len(shards):
            raise CheckpointError(f'{self.path}: holds the replay of {self.ranks} ranks, here '
                                  f'are {1 + len(shards)}; go on with ranks = {self.ranks}')
        for name in replays:
            if self._state[name] is None:
                raise CheckpointError(f'{self.path}: holds no {name}')
        if limiter is not None and self._state['limiter'] is None:
            raise CheckpointError(f'{self.path}: holds no limiter')
        tensors = self._tensors()
        _check_agent(self.path, agent, tensors)
        for name in replays:
            for file in self._segments(name):
                self._read(file)  # verified before anything is changed
        for name, buffer in replays.items():
            try:
                buffer.load_state_dict(
                    self._state[name],
                    (safetensors.numpy.load(self._read(file)) for file in self._segments(name)))
            except (ReplayError, safetensors.SafetensorError, *_UNFIT) as error:
                raise CheckpointError(f'{self.path}: {name}: {brief(error)}') from error
        try:
            _restore_agent(agent, tensors, self._state)
            if limiter is not None:
                limiter.load_state_dict(self._state['limiter'])
        except _UNFIT as error:
            raise CheckpointError(f'{self.path / _STATE}: {brief(error)}') from error

    @property
    def stored_steps(self) -> int:
        """Return how many steps the checkpoint's replay holds, in all shards; 0 without one."""
        return sum(int(one['total']) - int(one['first']) for one in self.shard_states
                   if one is not None)

    @property
    def ranks(self) -> int:
        """Return among how many ranks the replay is shared out."""
        return 1 + sum(name.startswith(_SHARD) for name in self._state)

    @property
    def shard_states(self) -> list[dict[str, Any]]:
        """Return what the shards of the replay say of themselves, in the order of the ranks."""
        return [self._state[_shard_name(rank)] for rank in range(self.ranks)]

    def _segments(self, replay: str) -> list[str]:
        return sorted(name for name in self._manifest if name.startswith(f'{replay}/'))

    def _tensors(self) -> dict[str, Tensor]:
        try:
            return safetensors.torch.load(self._read(_AGENT))
        except safetensors.SafetensorError as error:
            raise CheckpointError(f'{self.path / _AGENT}: not safetensors ({error})') from error

    def _read(self, name: str) -> bytes:
        return _verified(self.path / name, self._manifest[name])


def load(path: str | Path) -> Checkpoint:
    """
    Open a checkpoint: its own folder, or the folder of all of a run, of which the latest is taken.

    Raises CheckpointError with the reason when it is not there, incomplete or not readable.
    """
    path = Path(path)
    if not (path / _MANIFEST).exists():
        newest = Checkpoints(path).latest()
        if newest is None:
            raise CheckpointError(f'{path}: no checkpoint here; give a folder that training '
                                  'wrote, such as RUN/checkpoints')
        path = newest
    path = path.resolve()
    try:
        manifest = read_json(path / _MANIFEST)
        for name, file in manifest.items():
            _check_entry(path, name, file)
            size = (path / name).stat().st_size
            if size != file['size']:
                raise CheckpointError(f'{path / name}: {size} bytes, expected {file["size"]}: '
                                      'truncated or altered')
        state = parse_json(_verified(path / _STATE, manifest[_STATE]), str(path / _STATE))
        _check_state(path / _STATE, state)
        if state['format'] != FORMAT:
            raise CheckpointError(f'{path}: format {state["format"]}, this program reads {FORMAT}')
        return Checkpoint(
            path, from_mapping(NetworkSettings, state['network'], f'{path}: network'),
            from_mapping(TD3Settings, state['settings'], f'{path}: settings'), state['updates'],
            state['counters'], state['config'], state['score'], state, manifest)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{path}: not a whole checkpoint ({brief(error)})') from error


def _check_entry(path: Path, name: str, file: Any) -> None:
    """Raise CheckpointError unless an entry of a manifest is a file's size and hash."""
    if not (isinstance(file, dict) and isinstance(file.get('size'), int)
            and isinstance(file.get('sha256'), str)):
        raise CheckpointError(f'{path / _MANIFEST}: {name!r} has no size and sha256')
    if not (path / name).resolve().is_relative_to(path):
        raise CheckpointError(f'{path / _MANIFEST}: {name!r} lies outside of the checkpoint')


def _check_state(path: Path, state: Any) -> None:
    """Raise CheckpointError unless a state has all that is read of it, of the right kind."""
    if not isinstance(state, dict):
        raise CheckpointError(f'{path} is no JSON object')
    for kinds, names in _STATES:
        for name in names:
            if name not in state:
                raise CheckpointError(f'{path}: {name} is missing')
            if not isinstance(state[name], kinds) or isinstance(state[name], bool):
                raise CheckpointError(f'{path}: {name} is {str(state[name])[:100]!r}')


def _shard_name(rank: int) -> str:
    return f'{_SHARD}{rank}' if rank else REPLAYS[0]


def _named(replay: Exported | None, demonstrations: Exported | None, shards: Sequence[Exported]
           ) -> dict[str, Exported | None]:
    """Return replays by the names of their folders."""
    return {**dict(zip(REPLAYS, (replay, demonstrations), strict=True)),
            **{_shard_name(rank): shard for rank, shard in enumerate(shards, 1)}}


def _agent_state(agent: TD3) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f'{part}.{name}': tensor.detach().cpu().contiguous()
               for part in NETWORKS for name, tensor in getattr(agent, part).state_dict().items()}
    tensors |= {f'{part}.{name}': tensor.detach().cpu().contiguous()
                for part in OPTIMIZERS for name, tensor in getattr(agent, part).tensors().items()}
    tensors |= {f'first_{part}_cnn.{name}': tensor.cpu().contiguous()
                for part, cnn in agent.first_cnns.items() for name, tensor in cnn.items()}
    return tensors, {
        'format': FORMAT, 'architecture': architecture_hash(agent.network),
        'network': flatten(agent.network), 'settings': flatten(agent.settings),
        'updates': agent.updates, 'skipped': agent.skipped,
        'skipped_in_row': agent.skipped_in_row, 'device': agent.device.type,
        'generator': base64.b64encode(agent.generator.get_state().numpy().tobytes()).decode()}


def agent_to_bytes(agent: TD3) -> bytes:
    """Return all of an agent, its randomness included: the same bytes for the same agent."""
    tensors, state = _agent_state(agent)
    return to_safetensors(tensors, {'state': json.dumps(state)})


def agent_from_bytes(agent: TD3, data: bytes) -> None:
    """Make an agent of the same architecture what `agent_to_bytes` was given."""
    length = int.from_bytes(data[:8], 'little')
    state = json.loads(json.loads(data[8:8 + length])['__metadata__']['state'])
    _restore_agent(agent, safetensors.torch.load(data), state)


def _check_agent(path: Path, agent: TD3, tensors: Mapping[str, Tensor]) -> None:
    for part in NETWORKS:
        found = _part(tensors, part)
        wanted = getattr(agent, part).state_dict()
        for name in wanted.keys() ^ found.keys():
            raise CheckpointError(f'{path}: {part}.{name} is '
                                  f'{"missing" if name in wanted else "unknown"}')
        for name, tensor in found.items():
            if tensor.shape != wanted[name].shape:
                raise CheckpointError(f'{path}: {part}.{name} is {list(tensor.shape)}, expected '
                                      f'{list(wanted[name].shape)}')
    for part, cnn in agent.first_cnns.items():
        if _part(tensors, f'first_{part}_cnn').keys() != cnn.keys():
            raise CheckpointError(f"{path}: the {part} CNN's first weights are not whole")
    for part in OPTIMIZERS:
        found = _part(tensors, part)
        missing = {f'{name}.{key}' for name in getattr(agent, part).names
                   for key in MOMENTS} - found.keys()
        if found and missing:
            raise CheckpointError(f'{path}: {part}.{min(missing)} is missing')


def _restore_agent(agent: TD3, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    for part in NETWORKS:
        getattr(agent, part).load_state_dict(_part(tensors, part))
    for part in OPTIMIZERS:
        getattr(agent, part).load_tensors(_part(tensors, part))
    for part, cnn in agent.first_cnns.items():
        for name, tensor in _part(tensors, f'first_{part}_cnn').items():
            cnn[name].copy_(tensor)
    agent.updates, agent.skipped = state['updates'], state['skipped']
    agent.skipped_in_row = state['skipped_in_row']
    if state['device'] == agent.device.type:  # elsewhere its own randomness goes on
        generator = np.frombuffer(base64.b64decode(state['generator']), np.uint8).copy()
        agent.generator.set_state(torch.from_numpy(generator))


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name[len(part) + 1:]: tensor for name, tensor in tensors.items()
            if name.startswith(f'{part}.')}


def _differences(checkpoint: Checkpoint, agent: TD3) -> str:
    there, here = flatten(checkpoint.network), flatten(agent.network)
    found = [f'{key} {there[key]} there, {here[key]} here' for key in here
             if there.get(key) != here[key]]
    return f'({"; ".join(found)})'


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1).encode()


def write_bytes(file: BinaryIO, data: bytes) -> None:
    """Write all of `data`."""
    file.write(data)


def _write(path: Path, data: bytes) -> _Written:
    with open(path, 'wb') as file:
        write_bytes(file, data)
        file.flush()
        os.fsync(file.fileno())
    return _Written(path, len(data), hashlib.sha256(data).hexdigest())


def _verified(path: Path, expected: Mapping[str, Any]) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected['sha256']:
        raise CheckpointError(f'{path}: SHA-256 differs from the manifest: truncated or altered')
    return data


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark_best(folder: Path) -> None:
    """Make the link `best` lead to a checkpoint, once nobody writes checkpoints beside it."""
    _point(folder.parent / BEST, folder.name)


def _point(link: Path, name: str) -> None:
    """Make `link` lead to its neighbour `name`, at once."""
    fresh = link.with_name(f'{_WRITING}{link.name}')
    os.symlink(name, fresh)
    os.replace(fresh, link)
