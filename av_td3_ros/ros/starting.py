"""The executables of the nodes: what `ros2 run` and launch files start."""
from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from types import FrameType


def executable(node: str) -> Callable[[], None]:
    """Return what runs a node, and ends without a word when told to while it is still loading."""
    def main() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)  # until the node's own `run` takes them over
        importlib.import_module(f'av_td3_ros.nodes.{node}').main()

    return main


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing has begun yet, and loading torch half is no state to unwind from


control_node = executable('control_node')
environment_node = executable('environment_node')
inspection_node = executable('inspection_node')
learner_node = executable('learner_node')
mirror_node = executable('mirror_node')
policy_node = executable('policy_node')
recorder_node = executable('recorder_node')
simulator_node = executable('simulator_node')
stand_in_vehicle_node = executable('stand_in_vehicle_node')
vehicle_side = executable('vehicle_side')
