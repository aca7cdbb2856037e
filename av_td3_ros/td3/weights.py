"""Actor weights as data: safetensors bytes that are verified before anything drives on them."""
from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from av_td3_ros.td3.networks import Actor, NetworkSettings, architecture_hash

PRECISIONS = {'float32': torch.float32, 'float16': torch.float16}
"""What weights may be sent in, by the name of the setting."""


class WeightsError(ValueError):
    """Weights that do not verify; `reason` is the kind of it, to be counted by."""

    def __init__(self, text: str, reason: str = 'altered') -> None:
        super().__init__(text)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class ActorWeights:
    """
    One version of the actor: safetensors `data` with its SHA-256 and architecture hash.

    What was sent also says who sent it: the learner's session, when that started and the stamp of
    the message in ns since 1970, the fingerprint of the key and its signature.
    """

    version: int
    architecture: str
    data: bytes
    sha256: str
    session: str = ''
    session_started: int = 0
    stamp: int = 0
    key: str = ''
    signature: bytes = b''


def pack(actor: Actor, version: int, precision: str = 'float32') -> ActorWeights:
    """
    Return the actor's weights as safetensors of `precision`, ready to be sent.

    A tensor with a value beyond what float16 can hold, 65504, stays float32.
    """
    architecture = architecture_hash(actor.network)
    tensors = {name: _narrowed(tensor.detach().to('cpu', torch.float32), PRECISIONS[precision])
               for name, tensor in actor.state_dict().items()}
    data = to_safetensors(tensors, {'version': str(version), 'architecture': architecture})
    return ActorWeights(version, architecture, data, hashlib.sha256(data).hexdigest())


def to_safetensors(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> bytes:
    """
    Return dense tensors of the processor's memory as safetensors.

    By way of NumPy: what `safetensors.torch.save` makes of each tensor refers to itself, and stays
    until the garbage collector comes, again and again in a process that sends and saves for hours.
    """
    return safetensors.numpy.save({name: tensor.numpy() for name, tensor in tensors.items()},
                                  None if about is None else dict(about))


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a smaller type, or as it is where that would make it infinite."""
    narrow = tensor.to(dtype).contiguous()
    return narrow if narrow.isfinite().all() else tensor.contiguous()


def unpack(weights: ActorWeights, network: NetworkSettings) -> dict[str, Tensor]:
    """
    Return the state dict of an actor of shape `network` in float32, verified.

    Raises WeightsError when the bytes do not match their hash, belong to another architecture or
    version, cannot be parsed, or hold a wrong shape, another type than `pack` writes or a value
    that is not finite.
    """
    found = hashlib.sha256(weights.data).hexdigest()
    if found != weights.sha256:
        raise WeightsError(f'weights {weights.version}: SHA-256 is {found[:12]}..., expected '
                           f'{weights.sha256[:12]}...; refused')
    expected = architecture_hash(network)
    if weights.architecture != expected:
        raise WeightsError(f'weights {weights.version}: architecture is '
                           f'{weights.architecture[:12]}..., expected {expected[:12]}...; give '
                           'learner and policy the same network settings', 'architecture')
    try:
        tensors = safetensors.torch.load(weights.data)
        about = _metadata(weights.data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError,
            RecursionError) as error:
        raise WeightsError(f'weights {weights.version}: not safetensors ({error})') from error
    for name, given in (('version', str(weights.version)), ('architecture', expected)):
        if about.get(name) != given:
            raise WeightsError(f'weights {weights.version}: the data say {name} '
                               f'{about.get(name)!r}, expected {given!r}')
    check_tensors(tensors, network, f'weights {weights.version}')
    for name, tensor in tensors.items():
        if tensor.dtype not in PRECISIONS.values():
            raise WeightsError(f'weights {weights.version}: {name} is {tensor.dtype}, expected '
                               f'one of {", ".join(PRECISIONS)}')
    return {name: tensor.float() for name, tensor in tensors.items()}


def check_tensors(tensors: dict[str, Tensor], network: NetworkSettings, where: str) -> None:
    """Raise WeightsError unless `tensors` are exactly an actor's parameters, all finite."""
    with torch.device('meta'):
        wanted = {name: t.shape for name, t in Actor(network).state_dict().items()}
    for name in wanted.keys() ^ tensors.keys():
        raise WeightsError(f'{where}: {name} is {"missing" if name in wanted else "unknown"}')
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name]:
            raise WeightsError(f'{where}: {name} is {list(tensor.shape)}, expected '
                               f'{list(wanted[name])}')
        if not torch.isfinite(tensor).all():
            raise WeightsError(f'{where}: {name} holds a value that is not finite', 'not finite')


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of safetensors bytes: a JSON header after its 8-byte length."""
    length = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:8 + length])
    found = header.get('__metadata__', {})
    return {str(key): str(value) for key, value in found.items()}
