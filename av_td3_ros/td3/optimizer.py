"""Adam over one network, its CNN a parameter group, clipped by the norm of the whole gradient."""
from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

MOMENTS = ('step', 'exp_avg', 'exp_avg_sq')


class ClippedAdam:
    """
    Step one network down a loss, never by a gradient that is not finite.

    The CNN has a learning rate of its own but shares the clip, so that no part of the gradient
    escapes it. `norms` holds the latest gradient norms as tensors: of the whole network and of
    its CNN, before and after the clip.
    """

    def __init__(self, network: nn.Module, learning_rate: float, cnn_learning_rate: float,
                 clip_norm: float | None) -> None:
        self.clip_norm = clip_norm
        named = list(network.named_parameters())
        head = [p for name, p in named if not name.startswith('cnn.')]
        cnn = [p for name, p in named if name.startswith('cnn.')]
        self.parameters = head + cnn
        self.names = [name for name, _ in named if not name.startswith('cnn.')]
        self.names += [name for name, _ in named if name.startswith('cnn.')]
        self.cnn_from = len(head)
        groups = [{'params': head, 'lr': learning_rate}]
        if cnn:
            groups.append({'params': cnn, 'lr': cnn_learning_rate})
        self.adam = torch.optim.Adam(groups, fused=True)
        self.norms: dict[str, Tensor] = {}

    def step(self, loss: Tensor) -> bool:
        """Take one step and return True, or leave everything as it is and return False."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward(inputs=self.parameters)  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        whole, cnn = self._norms(gradients)
        norm = float(whole)
        if not math.isfinite(norm) or not math.isfinite(float(loss.detach())):
            return False
        self.norms = {'grad_norm': whole, 'cnn_grad_norm': cnn}
        if self.clip_norm is not None and norm > self.clip_norm:
            torch._foreach_mul_(gradients, self.clip_norm / norm)
            whole, cnn = self._norms(gradients)
        self.norms |= {'grad_norm_clipped': whole, 'cnn_grad_norm_clipped': cnn}
        self.adam.step()
        return True

    def _norms(self, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
        each = torch.stack(torch._foreach_norm(gradients))
        return torch.linalg.vector_norm(each), torch.linalg.vector_norm(each[self.cnn_from:])

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as {'<parameter>.<moment>': tensor}; empty before the first step."""
        return {f'{name}.{key}': value
                for name, parameter in zip(self.names, self.parameters, strict=True)
                for key, value in self.adam.state.get(parameter, {}).items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        self.adam.state.clear()
        if not tensors:
            return
        for name, parameter in zip(self.names, self.parameters, strict=True):
            self.adam.state[parameter] = {
                'step': tensors[f'{name}.step'].clone(),
                **{key: torch.empty_like(parameter).copy_(tensors[f'{name}.{key}'])
                   for key in ('exp_avg', 'exp_avg_sq')}}
