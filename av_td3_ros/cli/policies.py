"""Which policy a word or a folder means, and what it was trained with."""
from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from av_td3_ros.cli.config import Config
from av_td3_ros.driving.camera.check import compare_cameras, recorded_camera
from av_td3_ros.nodes.environment_node import EnvironmentSettings
from av_td3_ros.paths import pretrained_policy
from av_td3_ros.ros.parameters import to_ros
from av_td3_ros.td3 import Policy, load_policy
from av_td3_ros.td3.checkpoint import BEST

PRETRAINED = 'pretrained'
BASELINES = ('pursuit', 'random')
NODES_WITH_NETWORK = ('policy_node', 'learner_node')
# What a policy's observations and actions mean; anything else may differ between train and test.
TRAINED_WITH = {
    'environment_node': ('frame.', 'driving.'),
    'simulator_node': ('world.camera.', 'world.fixed_delta_seconds'),
    'control_node': ('command.',),
}


def find_policy(given: str) -> Policy:
    """
    Load the policy that `given` names: pretrained, a run, a checkpoint or an exported policy.

    Of a run it is the best checkpoint, or the newest one where no best one is known. Raises
    ValueError or OSError with the reason when there is none.
    """
    if given == PRETRAINED:
        return load_policy(pretrained_policy())
    path = Path(given).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f'policy {given!r} is no folder of a run or a checkpoint, and not '
                                f'pursuit, random or {PRETRAINED}')
    if (path / 'checkpoints').is_dir():
        path = path / 'checkpoints'
    if (path / BEST / 'manifest.json').is_file():
        path = path / BEST
    return load_policy(path)


def trained_with(policy: Policy) -> dict[str, dict[str, Any]]:
    """
    Return {node: {key: value}} of the settings that a policy was trained with and depends on.

    The camera of the embedded simulator is also the view to turn another camera's images to.
    They come with an exported policy and from the run folder of a checkpoint; of a checkpoint
    alone the network is known and nothing else. Raises ValueError for a broken config.yaml.
    """
    settings = {node: dict(values) for node, values in policy.settings.items()}
    config = _run(policy) / 'config.yaml'
    if not settings and config.is_file():
        values = Config.read(config).values()
        settings = {node: {key: value for key, value in values[node].items()
                           if key.startswith(keys)} for node, keys in TRAINED_WITH.items()}
    camera = recorded_camera(settings)
    if camera is not None:
        settings.setdefault('environment_node', {}).update(
            {f'camera.training.{key}': value for key, value in to_ros(camera).items()})
    network = {f'network.{key}': value for key, value in to_ros(policy.network).items()}
    return settings | {node: dict(network) for node in NODES_WITH_NETWORK}


def camera_warnings(policy: Policy, config: Config, simulated: bool) -> list[str]:
    """
    Return in which ways a session's camera is not the one that a policy was trained with.

    Of a camera that is not simulated only the view that images are turned to is known here.
    """
    recorded = recorded_camera(trained_with(policy))
    view = config.settings['environment_node'].camera
    actual = view.training if view.calibrate else (
        recorded_camera(config.values()) if simulated else None)
    return compare_cameras(recorded, actual) if recorded and actual else []


def training_command(policy: Policy) -> str:
    """Return the command that trained a policy, '' when it is not known."""
    if policy.command:
        return policy.command
    try:
        said = json.loads((_run(policy) / 'session.json').read_text(encoding='utf-8'))
        return shlex.join(['av-td3', *map(str, said['command'][1:])])
    except (OSError, ValueError, KeyError, TypeError):
        return ''


def check_fit(policy: Policy, environment: EnvironmentSettings) -> None:
    """Raise ValueError when a policy's network does not take what environment_node sends."""
    network = policy.network
    for key, taken, sent, setting in (
            ('frames', network.frames, environment.frame.count, 'frame.count'),
            ('frame_size', network.frame_size, environment.frame.size, 'frame.size'),
            ('state_size', network.state_size, environment.driving.state_size,
             'driving.waypoints')):
        if taken not in (0, sent):
            raise ValueError(
                f'policy {policy.path} has another architecture: it takes network.{key} = {taken},'
                f' environment_node sends {sent}; give the {setting} that it was trained with, as '
                f'in --config {setting}={(taken - 3) // 2 if key == "state_size" else taken}')


def _run(policy: Policy) -> Path:
    """Return the run folder that a checkpoint belongs to."""
    return policy.path.parent.parent
