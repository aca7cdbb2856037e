"""Adam over one network, its CNN a parameter group, clipped by the norm of the whole gradient."""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from av_td3_ros.td3.ranks import ALONE, Ranks

MOMENTS = ('step', 'exp_avg', 'exp_avg_sq')


class ClippedAdam:
    """
    Step one network down a loss, never by a gradient that is not finite.

    The CNN has a learning rate of its own but shares the clip, so that no part of the gradient
    escapes it. `norms` holds the latest gradient norms as tensors: of the whole network and of
    its CNN, before and after the clip. Loss and gradient are means over all `ranks`, so that
    these agree on every step and on whether it is taken.
    """

    def __init__(self, network: nn.Module, learning_rate: float, cnn_learning_rate: float,
                 clip_norm: float | None, ranks: Ranks = ALONE) -> None:
        self.clip_norm, self.ranks = clip_norm, ranks
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
        on_gpu = self.parameters[0].is_cuda
        self.adam = torch.optim.Adam(groups, fused=True, capturable=on_gpu)
        self.adam.grad_scale = None  # type: ignore[attr-defined]
        self.norms: dict[str, Tensor] = {}

    def step(self, loss: Tensor, share: Tensor, allowed: Tensor | None = None) -> Tensor:
        """
        Take one step, or leave everything as it is; return which of the two as a bool tensor.

        Nothing changes when the loss or a gradient is not finite, or `allowed` is False. The host
        is not asked, so that a GPU need not wait for it. `share` is this rank's weight in the
        means.
        """
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward(inputs=self.parameters)  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        mean_loss = loss.detach().clone()
        self.ranks.average([*gradients, mean_loss], share)
        whole, cnn = self._norms(gradients)
        finite = whole.isfinite() & mean_loss.isfinite()
        if allowed is not None:
            finite &= allowed
        self.norms = {'grad_norm': whole, 'cnn_grad_norm': cnn}
        if self.clip_norm is not None:
            torch._foreach_mul_(gradients, (self.clip_norm / whole).clamp(max=1.0))
            whole, cnn = self._norms(gradients)
        self.norms |= {'grad_norm_clipped': whole, 'cnn_grad_norm_clipped': cnn}
        # The fused kernel leaves weights and moments alone where this is 1.
        self.adam.found_inf = (~finite).to(torch.float32)  # type: ignore[attr-defined]
        self.adam.step()
        return finite

    def _norms(self, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
        each = torch.stack(torch._foreach_norm(gradients))
        return torch.linalg.vector_norm(each), torch.linalg.vector_norm(each[self.cnn_from:])

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as {'<parameter>.<moment>': tensor}; empty before the first step."""
        return {f'{name}.{key}': value
                for name, parameter in zip(self.names, self.parameters, strict=True)
                for key, value in self.adam.state.get(parameter, {}).items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned, in place where there is a state: a graph may use it."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            state = self.adam.state[parameter]
            for key in MOMENTS if tensors or state else ():
                like = torch.zeros(()) if key == 'step' else parameter.detach()
                stored = tensors.get(f'{name}.{key}', torch.zeros_like(like))
                if key not in state:
                    state[key] = torch.empty_like(like, device=parameter.device)
                state[key].copy_(stored)
