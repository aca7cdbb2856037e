"""What changes a batch so that more can be learned from it."""
from __future__ import annotations

import torch
from torch import Tensor

from av_td3_ros.td3.ranks import ALONE, Ranks

WIDE = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""A type for all the bytes of one pixel, by their number."""


def random_shift(frames: Tensor, pixels: int, generator: torch.Generator, ranks: Ranks = ALONE
                 ) -> Tensor:
    """
    Shift each stack by up to `pixels` along both axes, repeating its edge (Yarats et al. 2021).

    Frames (B, F, H, W); all frames of a stack shift together. What is returned is channels-last.
    Of what is drawn for all `ranks` a rank takes its own part.
    """
    count, channels, height, width = frames.shape
    shift = ranks.own(torch.randint(-pixels, pixels + 1, (2, ranks.count * count, 1),
                                    generator=generator, device=frames.device), 1)
    rows = (torch.arange(height, device=frames.device) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=frames.device) + shift[1]).clamp(0, width - 1)
    stacks = torch.arange(count, device=frames.device)[:, None]
    places = ((stacks * height + rows) * width)[:, :, None] + columns[:, None, :]
    each = frames.permute(0, 2, 3, 1).reshape(-1, channels)
    wide = WIDE.get(channels * each.element_size())
    if wide is not None:  # a pixel of all frames is moved at once, ten times as fast
        each = each.contiguous().view(wide)
    moved = each.index_select(0, places.flatten()).view(frames.dtype)
    return moved.view(count, height, width, channels).permute(0, 3, 1, 2)


def drop_vector(state: Tensor, next_state: Tensor, share: float, kept: int,
                generator: torch.Generator, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """
    Zero all but the first `kept` numbers of a share of the states (B, S), drawn at random.

    A state and the one that follows it lose them together, as in an episode driven so. Of what
    is drawn for all `ranks` a rank takes its own part.
    """
    drawn = ranks.own(torch.rand(ranks.count * len(state), 1, generator=generator,
                                 device=state.device))
    factor = (drawn >= share).to(state.dtype).expand_as(state).clone()
    factor[:, :kept] = 1.0
    return state * factor, next_state * factor
