"""The actor as an ONNX model, and ONNX Runtime to drive with it: a fraction of torch's time."""
from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from av_td3_ros.td3.networks import Actor


def to_onnx(actor: Actor) -> onnx.ModelProto:
    """
    Return the actor as a model: `frames` uint8 (1, F, H, W), `state` float32 (1, S) -> `action`.

    Its initializers bear the names of the actor's parameters, each its own: the exporter makes one
    of those that are alike, as biases are before the first update, so that it sees other ones.
    """
    n = actor.network
    model = copy.deepcopy(actor).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in model.parameters():
            one.normal_(generator=generator)
    seen = (torch.zeros(1, n.frames, n.frame_size, n.frame_size, dtype=torch.uint8),
            torch.zeros(1, n.state_size))
    file: Any = io.BytesIO()  # which it takes, whatever its annotation says
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the exporter about itself
        torch.onnx.export(model, seen, file, input_names=['frames', 'state'],
                          output_names=['action'], do_constant_folding=False, dynamo=False)
    translated = onnx.load_from_string(file.getvalue())
    _fill(translated, actor)
    return translated


def _fill(model: onnx.ModelProto, actor: Actor) -> None:
    """Give a model the weights of an actor; it needs not all of them, but each by its name."""
    weights = actor.state_dict()
    for one in model.graph.initializer:
        one.CopyFrom(numpy_helper.from_array(weights[one.name].cpu().float().numpy(), one.name))


class OnnxActor:
    """Drives as an actor does; its weights can be renewed from another actor of its shape."""

    def __init__(self, actor: Actor, threads: int = 1) -> None:
        """Translate `actor`; one inference uses `threads` threads."""
        self._model = to_onnx(actor)
        self._inputs = {one.name for one in self._model.graph.input}
        self._threads = threads
        self._session = self._start()

    def renewed(self, actor: Actor) -> OnnxActor:
        """Return the same with the weights of another actor; this one stays as it is."""
        other = copy.copy(self)
        other._model = onnx.ModelProto()
        other._model.CopyFrom(self._model)
        _fill(other._model, actor)
        other._session = other._start()
        return other

    def act(self, frames: NDArray[np.uint8], state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the action float32[2] for one observation: frames (F, H, W), state (S,)."""
        seen = {'frames': frames[None], 'state': state[None]}
        (action,) = self._session.run(['action'], {
            name: value for name, value in seen.items() if name in self._inputs})
        return action[0]  # type: ignore[no-any-return]

    def _start(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self._model.SerializeToString(), options,
                                            providers=['CPUExecutionProvider'])
