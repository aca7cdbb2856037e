"""Make each known mistake on the same recorded drives, and take away each protection."""
from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from av_td3_ros.ros.recording.bag import read_transitions
from av_td3_ros.ros.recording.transitions import step_record
from av_td3_ros.ros.runtime import ros_environment, run_with_allocator_settings
from av_td3_ros.td3 import PRESETS, Batch, NetworkSettings, ReplayBuffer, StepRecord, TD3Settings
from benchmarks import at_least_one, conclude
from benchmarks._variants import OURS, VARIANTS, EagerTD3, Variant, make_networks

GOAL_EXPLOSION = 10.0  # Q under the policy, in multiples of the data's
GOAL_SATURATED = 0.05
BATCH_SIZE = 64
EVERY = 100  # updates between two points of a series
HELD_OUT = 5  # every fifth episode
HELD_OUT_BATCH = 512
ALL = 'all'


@dataclasses.dataclass(frozen=True)
class Data:
    """Steps to learn from, a batch of others, and the seed of every draw."""

    training: list[StepRecord]
    held_out: Batch
    seed: int

    @staticmethod
    def of(records: Sequence[StepRecord], seed: int) -> Data:
        """Hold out whole episodes; raise ValueError when there are too few."""
        training, held_out = split(records)
        gamma, n_step = PRESETS['paper'][0].gamma, PRESETS['paper'][0].n_step
        return Data(training, replay_of(held_out, seed).sample(HELD_OUT_BATCH, gamma, n_step),
                    seed)


def read(bags: Iterable[Path]) -> list[StepRecord]:
    """Return the steps of some bags; raise ValueError for one that cannot be read."""
    messages = (message for bag in bags for message in read_transitions(bag))
    records = (step_record(message, PRESETS['paper'][1]) for message in messages)
    # A copy of the frame lets go of the message.
    return [dataclasses.replace(one, frame=one.frame.copy()) for one in records]


def record(steps: int) -> list[StepRecord]:
    """Drive some steps in the embedded simulator, learning as ever, and return them."""
    with tempfile.TemporaryDirectory(prefix='av_td3_ros-') as folder:
        run_folder = Path(folder) / 'run'
        subprocess.run([sys.executable, '-m', 'av_td3_ros.cli.main', 'train', '--steps',
                        str(steps), '--eval-episodes', '0', '--run', str(run_folder)], check=True)
        return read([run_folder / 'bag'])


def split(records: Iterable[StepRecord]) -> tuple[list[StepRecord], list[StepRecord]]:
    """Return the steps of four fifths of the episodes, and of the others."""
    episodes: dict[tuple[str, str, int], list[StepRecord]] = {}
    for one in records:
        episodes.setdefault((one.vehicle, one.session, one.episode), []).append(one)
    if len(episodes) < HELD_OUT:
        raise ValueError(f'{len(episodes)} episodes are too few to hold one of {HELD_OUT} out: '
                         'give more bags, or record more steps')
    training: list[StepRecord] = []
    held_out: list[StepRecord] = []
    for index, steps in enumerate(episodes.values()):
        (held_out if index % HELD_OUT == HELD_OUT - 1 else training).extend(steps)
    return training, held_out


def replay_of(records: Sequence[StepRecord], seed: int) -> ReplayBuffer:
    """Return a replay that holds all of some steps."""
    first = records[0]
    replay = ReplayBuffer(len(records), PRESETS['paper'][1].frames, len(first.frame),
                          len(first.state), seed)
    for one in records:
        replay.add(one)
    return replay


def paper() -> tuple[TD3Settings, NetworkSettings]:
    """Return the `paper` preset with this benchmark's batch size, in float32."""
    settings, network = PRESETS['paper']
    return (dataclasses.replace(settings, batch_size=BATCH_SIZE, precision='float32'), network)


def protections() -> list[tuple[str, TD3Settings, NetworkSettings]]:
    """Return what may keep the actor alive: nothing, one thing, several, all of `default`."""
    settings, network = paper()
    default, default_network = PRESETS['default']
    penalty = default.pre_activation_penalty
    scaled = dataclasses.replace(settings, scale_policy_loss=True)
    both = dataclasses.replace(scaled, pre_activation_penalty=penalty)
    normed = dataclasses.replace(network, layer_norm=True, feature_activation='tanh')
    return [
        ('none', settings, network),
        ('scaled policy loss', scaled, network),
        ('pre-activation penalty',
         dataclasses.replace(settings, pre_activation_penalty=penalty), network),
        ('small last layer', settings, dataclasses.replace(
            network, last_layer_scale=default_network.last_layer_scale)),
        ('LayerNorm, tanh features', settings, normed),
        ('scaled loss and penalty', both, network),
        (ALL, both, dataclasses.replace(default_network, features=network.features)),
    ]


def run(name: str, settings: TD3Settings, network: NetworkSettings, variant: Variant, data: Data,
        updates: int, every: int = EVERY) -> dict[str, Any]:
    """Make some updates; return the whole series and what to say of it."""
    first = data.training[0]
    network = dataclasses.replace(network, state_size=len(first.state),
                                  frame_size=len(first.frame))
    replay = replay_of(data.training, data.seed)
    agent = EagerTD3(*make_networks(network, data.seed), settings, variant, data.seed)
    series: list[dict[str, float]] = []
    gradients: list[float] = []
    latest: dict[str, torch.Tensor] = {}
    for update in range(1, updates + 1):
        measured = agent.train(replay)
        latest |= measured
        if 'actor_head_grad_norm' in measured:
            gradients.append(float(measured['actor_head_grad_norm']))
        if update % every == 0 or update == updates:
            series.append({'update': update, 'saturated': agent.saturated(data.held_out),
                           'td_error': agent.td_error(data.held_out),
                           **{key: float(value) for key, value in latest.items()}})
    end = series[-1]
    return {'row': name, 'updates': updates, 'q_policy': end['q_policy'],
            'q_data': end['q_data'], 'q_ratio': end['q_policy'] / end['q_data_magnitude'],
            'saturated': end['saturated'],
            'actor_gradient_lowest': min(gradients[len(gradients) // 2:]),
            'actor_gradient_end': gradients[-1], 'actor_gradient_minimum': min(gradients),
            'critic_gradient': float(np.hypot(end['critic_head_grad_norm'],
                                              end['critic_cnn_grad_norm'])),
            'td_error': end['td_error'], 'series': series, 'actor_gradients': gradients}


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print one table; the actor's gradient is its head's, lowest over the second half."""
    print(f'{title:28}{"updates":>8}{"Q policy":>11}{"Q data":>9}{"ratio":>9}{"saturated":>11}'
          f'{"actor grad: lowest":>20}{"end":>9}{"critic grad":>13}{"TD error":>10}')
    for row in rows:
        print(f'{row["row"]:28}{row["updates"]:8}{row["q_policy"]:11.4g}{row["q_data"]:9.3g}'
              f'{row["q_ratio"]:9.3g}{row["saturated"]:11.3f}'
              f'{row["actor_gradient_lowest"]:20.2e}{row["actor_gradient_end"]:9.1e}'
              f'{row["critic_gradient"]:13.3g}{row["td_error"]:10.3g}')
        print('   Q under the policy: ' + ', '.join(f'{point["q_policy"]:.4g}'
                                                    for point in row['series']))


def claims_from(mistakes: Sequence[dict[str, Any]], protected: Sequence[dict[str, Any]]
                ) -> list[dict[str, Any]]:
    """Return what is claimed of the rows."""
    cross_fed = next(row for row in mistakes if row['row'] == 'cross-fed features')
    alive = next(row for row in protected if row['row'] == ALL)
    ratio, updates = round(cross_fed['q_ratio'], 1), alive['updates']
    lowest = alive['actor_gradient_minimum']
    return [
        {'name': f'cross-fed features reproduce the known mistake: Q under the policy over Q of '
                 f'the data at update {cross_fed["updates"]}', 'value': ratio, 'unit': 'times',
         'goal': GOAL_EXPLOSION, 'holds': ratio > GOAL_EXPLOSION},
        {'name': f'saturated actions with all protections after {updates} updates',
         'value': alive['saturated'], 'unit': 'of all', 'goal': GOAL_SATURATED,
         'holds': alive['saturated'] < GOAL_SATURATED},
        {'name': f"lowest norm of the actor's gradient at any of {updates} updates",
         'value': lowest, 'unit': '', 'goal': 0.0, 'holds': lowest > 0.0}]


def main() -> int:
    """Print the tables and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--bag', type=Path, nargs='+', metavar='DIR',
                        help='bags of transitions (default: record some)')
    parser.add_argument('--steps', type=at_least_one, default=3000,
                        help='transitions to record (default %(default)s)')
    parser.add_argument('--updates', type=at_least_one, default=1000,
                        help='updates of each row (default %(default)s)')
    parser.add_argument('--protected-updates', type=at_least_one, default=2000,
                        help=f'updates of the row {ALL!r} (default %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=at_least_one, default=2)
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    if min(options.updates, options.protected_updates) < 2:
        parser.error('--updates and --protected-updates must be 2 or more: the actor moves at '
                     'every second one')
    run_with_allocator_settings()
    os.environ.update(ros_environment(os.environ))
    torch.set_num_threads(options.threads)
    try:
        data = Data.of(read(options.bag) if options.bag else record(options.steps), options.seed)
    except ValueError as error:
        sys.exit(f'benchmarks.ablation: {error}')
    mistakes = []
    for variant in VARIANTS:
        print(f'.. {variant.name}', flush=True)
        mistakes.append(run(variant.name, *paper(), variant, data, options.updates))
    protected = [{**mistakes[0], 'row': 'none'}]  # the same run
    for name, settings, network in protections()[1:]:
        print(f'.. {name}', flush=True)
        protected.append(run(name, settings, network, OURS, data, options.protected_updates
                             if name == ALL else options.updates))
    show('mistakes', mistakes)
    show('what keeps the actor alive', protected)
    table = [{'table': title, **row} for title, rows in (
        ('mistakes', mistakes), ('protections', protected)) for row in rows]
    return conclude('ablation', claims_from(mistakes, protected), table, options.json)


if __name__ == '__main__':
    sys.exit(main())
