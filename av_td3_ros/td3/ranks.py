"""The processes that learn together: what one averages with the others, tells them and hears."""
from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LOOPBACK = '127.0.0.1'
FOLLOWER = 'av_td3_ros.td3.follower'
"""What the ranks that this host's rank 0 starts run."""

SILENCE = 300.0
"""Wall time in s that a rank may be silent by default: rank 0 writes checkpoints meanwhile."""

_RULES = 'device and timeout'
_ENDING = 30.0  # s of wall time that a rank has to end in good order: it gives way to others
_NOTICING = 2.0  # s of wall time after which the end of a process is known


class RanksError(RuntimeError):
    """Another rank has ended, is silent, or has learned something else."""


class Ranks:
    """
    Stand for this process, number `rank` of `count`, among those that learn together.

    Rank 0 leads; all ranks call `average`, `gather` and `summarise` in the same order. With one
    rank these return what they were given. All raise RanksError for a rank that has ended, or is
    silent for longer than `enlist` was told.
    """

    def __init__(self, rank: int = 0, count: int = 1,
                 processes: Mapping[int, subprocess.Popen[bytes]] | None = None) -> None:
        self.rank, self.count = rank, count
        self.processes = dict(processes or {})

    def own(self, drawn: Tensor, dimension: int = 0) -> Tensor:
        """Return this rank's part of what every rank draws alike for all of them."""
        size = drawn.shape[dimension] // self.count
        return drawn.narrow(dimension, self.rank * size, size)

    def average(self, tensors: Sequence[Tensor], share: Tensor) -> None:
        """
        Replace each tensor by its mean over all ranks; what is not finite on one is so on all.

        `share`, a scalar tensor, is this rank's weight in it; those of all ranks sum up to 1.
        """
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]) * share
        with self._explained():
            dist.all_reduce(flat)
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def gather(self, values: Tensor) -> Tensor:
        """Return the vectors (N,) of all ranks as (count, N), in the order of the ranks."""
        if self.count == 1:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.count)]
        with self._explained():
            dist.all_gather(found, values)
        return torch.stack(found)

    def summarise(self, share: Tensor, means: Mapping[str, Tensor], spreads: Mapping[str, Tensor],
                  largest: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Return figures of the values of all ranks as if one had them all.

        Of `means` the mean, of `spreads` <name>_mean and <name>_std, of `largest` the maximum.
        """
        mean, middle = ([x.mean() for x in some.values()] for some in (means, spreads))
        largest_here = [x.max() for x in largest.values()]
        if self.count == 1:
            deviation = [x.std(correction=0) for x in spreads.values()]
        else:
            variance = [x.var(correction=0) for x in spreads.values()]
            each = self.gather(torch.stack([
                x.double() for x in (share, *mean, *middle, *variance, *largest_here)]))
            weight, means_of, middles, variances, largest_of = torch.split(
                each, [1, len(mean), len(middle), len(variance), len(largest_here)], 1)
            weight = weight[:, 0]
            whole = weight @ middles
            # Of all values: the mean variance within the batches, and that of their means.
            deviation = list((weight @ (variances + (middles - whole).square())).sqrt())
            mean, middle = list(weight @ means_of), list(whole)
            counting = largest_of.where(weight[:, None] > 0, -torch.inf)
            largest_here = list(counting.amax(0))
        return {**dict(zip(means, mean, strict=True)),
                **{f'{name}_mean': x for name, x in zip(spreads, middle, strict=True)},
                **{f'{name}_std': x for name, x in zip(spreads, deviation, strict=True)},
                **dict(zip(largest, largest_here, strict=True))}

    def send(self, rank: int, data: bytes) -> None:
        """Send bytes to one rank, which must `receive` them."""
        with self._explained():
            dist.send(torch.tensor([len(data)]), rank)
            if data:
                dist.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), rank)

    def receive(self, rank: int) -> bytes:
        """Wait for the bytes that a rank sends."""
        size = torch.zeros(1, dtype=torch.int64)
        with self._explained():
            dist.recv(size, rank)
            data = torch.empty(int(size), dtype=torch.uint8)
            if len(data):
                dist.recv(data, rank)
        return data.numpy().tobytes()

    def check(self) -> None:
        """Raise RanksError when a rank that was started here has ended."""
        for rank, process in self.processes.items():
            status = process.poll()
            if status is not None:
                how = (f'was killed by {signal.Signals(-status).name}' if status < 0
                       else f'ended with status {status}')
                raise RanksError(f'rank {rank} of {self.count} {how}, and the part of the replay '
                                 'that it held is gone: go on from the last checkpoint')

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            until = time.monotonic() + _NOTICING
            while self.processes and time.monotonic() < until:
                self.check()
                time.sleep(0.05)
            raise RanksError(f'rank {self.rank} of {self.count} has lost the others: {error}'
                             ) from error

    def leave(self) -> None:
        """Be alone again; what was started here is given a while to end, and then ended."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
        until = time.monotonic() + _ENDING
        for process in self.processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.count, self.processes = 1, {}


ALONE = Ranks()


def is_told() -> bool:
    """Return whether the environment says which rank this is, as torchrun does."""
    return 'RANK' in os.environ and 'WORLD_SIZE' in os.environ


def own_device(device: str) -> str:
    """Return this rank's GPU where `device` is 'cuda': each rank of a host has one of its own."""
    return f'cuda:{os.environ.get("LOCAL_RANK", "0")}' if device == 'cuda' else device


def enlist(count: int, device: str, timeout: float) -> Ranks:
    """
    Return this process as rank 0 of `count`; the others are started here, on this host.

    Under torchrun they are started already. A rank may be silent for `timeout` s of wall time.
    Raises ValueError where there are too few GPUs or cores, or other ranks than torchrun's are
    asked for, RanksError when one of the others does not come.
    """
    if is_told():
        if count not in (1, int(os.environ['WORLD_SIZE'])):
            raise ValueError(f'ranks = {count}, but torchrun says {os.environ["WORLD_SIZE"]}: '
                             'leave ranks out')
        return join(device, timeout)
    if count == 1:
        return ALONE
    if device.startswith('cuda') and (device != 'cuda' or torch.cuda.device_count() < count):
        raise ValueError(f'ranks = {count} with device = {device!r}: each rank needs a GPU of its '
                         f'own and torch sees {torch.cuda.device_count()}; set device = cuda, and '
                         'no more ranks than there are GPUs')
    cores = max(2, len(os.sched_getaffinity(0)))  # two of them learn on one core as well, to try
    if not device.startswith('cuda') and count > cores:
        raise ValueError(f'ranks = {count} on the processor: this process may use {cores} cores, '
                         'and each rank needs one; give at most as many')
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')  # whatever this host's name resolves to
    store = _store(0, count, True)
    started = Ranks(0, count, processes={rank: subprocess.Popen(
        [sys.executable, '-m', FOLLOWER, '--port', str(store.port), '--parent', str(os.getpid())],
        env={**os.environ, 'WORLD_SIZE': str(count), 'RANK': str(rank), 'LOCAL_RANK': str(rank)},
        stdin=subprocess.DEVNULL) for rank in range(1, count)})
    until = time.monotonic() + SILENCE
    try:
        while not store.check([_here(rank) for rank in range(1, count)]):
            started.check()  # one that could not start will not come
            if time.monotonic() > until:
                raise RanksError(f'not all of {count} ranks started within {SILENCE:g} s')
            time.sleep(0.05)
        joined = _join((store, 0, count), device, timeout)
    except RanksError:
        for process in started.processes.values():
            process.kill()
        raise
    joined.processes = started.processes
    return joined


def follow(port: int) -> Ranks:
    """Become the rank that RANK says of those that `enlist` waits for at a port of this host."""
    count = int(os.environ['WORLD_SIZE'])
    return _join((_store(port, count, False), int(os.environ['RANK']), count))


def join(device: str = 'cpu', timeout: float = SILENCE) -> Ranks:
    """
    Become the rank that torchrun says; `device` and `timeout` hold for all if this is the first.

    Raises RanksError when the others are not there.
    """
    return _join(_rendezvous(), device, timeout)


def _join(found: tuple[Any, int, int], device: str = '', timeout: float = 0.0) -> Ranks:
    """Meet the others at a store; rank 0 says what they compute on and how long they wait."""
    store, rank, count = found
    try:
        if rank == 0:
            store.set(_RULES, json.dumps([device, timeout]))
        else:
            store.set(_here(rank), '')
            device, timeout = json.loads(store.get(_RULES))
        on_gpu = torch.device(device).type == 'cuda'
        dist.init_process_group('cpu:gloo,cuda:nccl' if on_gpu else 'gloo', rank=rank,
                                world_size=count, store=store,
                                timeout=datetime.timedelta(seconds=timeout))
    except RuntimeError as error:
        raise RanksError(f'rank {rank} of {count} did not find the others: {error}') from error
    return Ranks(rank, count)


def _rendezvous() -> tuple[Any, int, int]:
    wait = datetime.timedelta(seconds=SILENCE)
    try:
        found: tuple[Any, int, int] = next(
            dist.rendezvous('env://', timeout=wait))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise RanksError(f'no other ranks at {os.environ.get("MASTER_ADDR")}: {error}') from error
    return found


def _store(port: int, count: int, is_master: bool) -> Any:
    return dist.TCPStore(LOOPBACK, port, count, is_master,  # type: ignore[attr-defined]
                         wait_for_workers=False)


def _here(rank: int) -> str:
    return f'rank {rank} is here'
