"""One action out of one observation, alone: the engines that could compute it."""
from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from av_td3_ros.cli.policies import find_policy
from av_td3_ros.td3.networks import Actor
from av_td3_ros.td3.onnx_actor import OnnxActor

PERIOD = 0.05  # s between two observations: by then the caches hold other things
WARM = 20  # actions that are not counted
Act = Callable[[np.ndarray, np.ndarray], np.ndarray]


def frozen(actor: Actor) -> Act:
    """Return what acts by torch's traced and frozen graph."""
    n = actor.network
    seen = (torch.zeros(1, n.frames, n.frame_size, n.frame_size, dtype=torch.uint8),
            torch.zeros(1, n.state_size))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # of the tracer about itself
        graph = torch.jit.optimize_for_inference(torch.jit.freeze(
            torch.jit.trace(actor.eval(), seen)))

    def act(frames: np.ndarray, state: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return graph(torch.from_numpy(frames)[None], torch.from_numpy(state)[None])[0].numpy()

    return act


ENGINES: dict[str, Callable[[Actor], Act]] = {
    'ONNX Runtime, as shipped': lambda actor: OnnxActor(actor).act,
    'torch': lambda actor: actor.act, "torch's frozen graph": frozen}


def inference(engine: str, frames: int) -> np.ndarray:
    """Return how long each action of the shipped policy takes on one thread, in ms."""
    torch.set_num_threads(1)
    actor = find_policy('pretrained').actor
    n, random, act = actor.network, np.random.default_rng(0), ENGINES[engine](actor)
    took = []
    for _ in range(WARM + frames):
        seen = random.integers(0, 256, (n.frames, n.frame_size, n.frame_size), np.uint8)
        state = random.normal(size=n.state_size).astype(np.float32)
        time.sleep(PERIOD)
        began = time.perf_counter()
        act(seen, state)
        took.append(1e3 * (time.perf_counter() - began))
    return np.array(took[WARM:])
