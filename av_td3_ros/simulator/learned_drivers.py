"""Drivers made of the learner's parts, for an evaluation in this process."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from av_td3_ros.simulator.evaluation import Actions, Frames, States
from av_td3_ros.td3.exploration import Exploration, ExplorationSettings
from av_td3_ros.td3.networks import Actor


class ActorDriver:
    """Drive by a learned actor without exploring; what its network leaves out is left out."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor.eval()
        self._parameter = next(actor.parameters())

    def restart(self, vehicle: int) -> None:
        """Forget nothing: there is nothing to remember."""

    @torch.inference_mode()
    def act(self, frames: Frames, states: States, vehicles: Sequence[int]) -> Actions:
        """Return the actions (B, 2) for frames (B, F, H, W) and states (B, S)."""
        network, at = self._actor.network, self._parameter
        seen, numbers = (torch.from_numpy(array).to(at.device) for array in (
            frames if network.frames else frames[:, :0],
            states if network.state_size else states[:, :0]))
        actions = self._actor(seen, numbers.to(at.dtype))
        return actions.float().cpu().numpy()  # type: ignore[no-any-return]


class RandomDriver:
    """Drive by the smooth random actions with which training begins."""

    def __init__(self, settings: ExplorationSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._actions: dict[int, Exploration] = {}

    def restart(self, vehicle: int) -> None:
        """Forget the last action of `vehicle`; its randomness goes on."""
        self._of(vehicle).restart()

    def act(self, frames: Frames, states: States, vehicles: Sequence[int]) -> Actions:
        """Return the actions (B, 2), whatever is seen."""
        return np.stack([self._of(vehicle).act(0, None)[0] for vehicle in vehicles])

    def _of(self, vehicle: int) -> Exploration:
        if vehicle not in self._actions:
            self._actions[vehicle] = Exploration(self._settings, self._seed + vehicle)
        return self._actions[vehicle]
