"""Environment, policy and control node in one process, each with an executor of its own."""
from __future__ import annotations

from av_td3_ros.nodes.control_node import ControlNode
from av_td3_ros.nodes.environment_node import EnvironmentNode
from av_td3_ros.nodes.policy_node import PolicyNode
from av_td3_ros.ros.runtime import run_together


def main(args: list[str] | None = None) -> None:
    """Run the nodes."""
    # The control node on the main thread: what happens to the others does not stop that one.
    run_together([ControlNode, EnvironmentNode, PolicyNode], args)


if __name__ == '__main__':
    main()
