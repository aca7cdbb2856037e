"""Status messages as the plain records that metrics.jsonl and the progress view hold."""
from __future__ import annotations

import math
from typing import Any

from av_td3_msgs.msg import EpisodeSummary, LearnerStatus

from av_td3_ros.ros.conversions import from_metrics, to_nanoseconds

_STATUS = ('updates', 'transitions', 'transitions_wanted', 'transitions_lost',
           'transitions_refused', 'transitions_duplicate', 'episodes_unfinished',
           'vehicle_restarts', 'updates_skipped',
           'episodes', 'replay_size', 'demonstrations', 'policy_version', 'updates_per_second',
           'updates_per_transition', 'world_waiting', 'finished', 'checkpoint')


def status_record(message: LearnerStatus) -> dict[str, Any]:
    """Return a learner's status as plain values."""
    return {'kind': 'learner', **{name: getattr(message, name) for name in _STATUS},
            'metrics': from_metrics(message.metrics)}


def episode_record(message: EpisodeSummary) -> dict[str, Any]:
    """Return an episode summary as plain values, named as EpisodeMetrics.to_dict names them."""
    counts = ('steps', 'collisions', 'vehicle_collisions', 'lane_invasions',
              'steering_reversals')
    metrics = from_metrics(message.metrics)
    return {'kind': 'episode', 'min_ttc': None, **metrics,
            **{name: int(metrics[name]) for name in counts
               if math.isfinite(metrics.get(name, math.nan))},
            'vehicle': message.vehicle, 'episode': message.episode, 'result': message.result,
            'success': message.success, 'stamp_ns': to_nanoseconds(message.header.stamp)}
