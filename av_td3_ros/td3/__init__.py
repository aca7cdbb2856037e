"""TD3 from pixels, without ROS: networks, learner, replay, exploration, weights, checkpoints."""
from av_td3_ros.td3.agent import PRESETS, TD3, Metrics, TD3Settings
from av_td3_ros.td3.checkpoint import Checkpoint, CheckpointError, Checkpoints
from av_td3_ros.td3.checkpoint import load as load_checkpoint
from av_td3_ros.td3.exploration import Exploration, ExplorationSettings
from av_td3_ros.td3.limiter import LimiterSettings, UpdateLimiter
from av_td3_ros.td3.networks import Actor, Critic, NetworkSettings, architecture_hash
from av_td3_ros.td3.policy import Policy, export_policy, load_policy
from av_td3_ros.td3.replay import Batch, ReplayBuffer, ReplayError, StepRecord
from av_td3_ros.td3.weights import ActorWeights, WeightsError, pack, unpack

__all__ = [
    'PRESETS', 'TD3', 'Actor', 'ActorWeights', 'Batch', 'Checkpoint', 'CheckpointError',
    'Checkpoints', 'Critic', 'Exploration',
    'ExplorationSettings', 'LimiterSettings', 'Metrics', 'NetworkSettings', 'Policy',
    'ReplayBuffer', 'ReplayError', 'StepRecord', 'TD3Settings', 'UpdateLimiter', 'WeightsError',
    'architecture_hash', 'export_policy', 'load_checkpoint', 'load_policy', 'pack', 'unpack',
]
