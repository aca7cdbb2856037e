"""
Measure a whole TD3 update: ours, Stable-Baselines3's and the original's, side by side.

Sampling is what replay.sample takes. Stable-Baselines3 casts its frames to floats later, in each
of its networks; the original's are floats already.
"""
from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from av_td3_ros.td3 import PRESETS, TD3, Batch, NetworkSettings, ReplayBuffer, StepRecord
from av_td3_ros.td3.agent import TD3Settings, compute_type
from av_td3_ros.td3.diagnostics import examine
from av_td3_ros.td3.learner import LearnerSettings
from av_td3_ros.td3.networks import ACTION_SIZE, KERNELS, STRIDES
from benchmarks import at_least_one, conclude
from benchmarks._variants import ORIGINAL, EagerTD3, make_networks

GOAL_FLOAT32, GOAL_BFLOAT16, GOAL_CUDA = 2.1, 3.5, 8.0  # times as fast as Stable-Baselines3
GOAL_BYTES = 8192
GOAL_SAMPLING, GOAL_METRICS = 5.0, 1.0  # percent of an update
TRANSITIONS = 4000  # stored in every row; more than the processor's cache holds
EPISODE = 100
WARM_UP = 6  # even: every second update is longer
SETTINGS, NETWORK = PRESETS['paper']

P = ParamSpec('P')
R = TypeVar('R')


@dataclasses.dataclass(frozen=True)
class Passes:
    """How often an update passes the CNNs and the heads; `delayed` means in the actor's update."""

    target_cnns: int
    delayed_cnns: int  # forward only, beside the actor's own
    judging: int  # 2: back through the critic's head to the action; 3: to its weights as well


OURS_PASSES = Passes(target_cnns=2, delayed_cnns=1, judging=2)
SB3_PASSES = dataclasses.replace(OURS_PASSES, judging=3)
ORIGINAL_PASSES = Passes(target_cnns=1, delayed_cnns=0, judging=3)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: a worker in an environment."""

    name: str
    worker: str
    allocator: bool
    passes: Passes = OURS_PASSES


SB3 = Row('Stable-Baselines3', 'sb3', False, SB3_PASSES)
SB3_ALLOCATOR = Row('Stable-Baselines3, our allocator', 'sb3', True, SB3_PASSES)
ORIGINAL_ROW = Row("the original's eager update", 'original', False, ORIGINAL_PASSES)
FLOAT32 = Row('ours float32', 'float32', True)
BFLOAT16 = Row('ours bfloat16', 'bfloat16', True)
PEAK = Row('convolution peak', 'peak', True)


def rows_on(device: str) -> list[Row]:
    """Return what can be measured on a device."""
    rows = [SB3, FLOAT32] if device == 'cuda' else [SB3, SB3_ALLOCATOR, ORIGINAL_ROW, FLOAT32]
    has_bfloat16 = compute_type('auto', device) == torch.bfloat16
    return [*rows, *([BFLOAT16] if has_bfloat16 else [])]


def convolutions(network: NetworkSettings) -> list[float]:
    """Return the multiply-adds that each layer of a CNN makes for one stack of frames."""
    layers: list[float] = []
    size, channels = network.frame_size, network.frames
    for out, kernel, stride in zip(network.channels, KERNELS, STRIDES, strict=True):
        size = (size - kernel) // stride + 1
        layers.append(size * size * out * kernel * kernel * channels)
        channels = out
    return [*layers, size * size * channels * network.features]


def perceptron(inputs: int, network: NetworkSettings, outputs: int) -> float:
    """Return the multiply-adds of one head for one sample."""
    widths = (inputs, *network.hidden, outputs)
    return sum(a * b for a, b in itertools.pairwise(widths))


def update_gflop(settings: TD3Settings, network: NetworkSettings, passes: Passes
                 ) -> tuple[float, float]:
    """Return the GFLOP of a mean update in CNNs and in heads; two are a multiply-add."""
    layers = convolutions(network)
    cnn = sum(layers)
    learned = 3 * cnn - layers[0]  # back to weights and inputs, but not to the frames
    often = 1 / settings.policy_freq
    seen = network.features + network.state_size
    actor = perceptron(seen, network, ACTION_SIZE)
    critic = perceptron(seen + ACTION_SIZE, network, 1)
    in_cnns = (passes.target_cnns * cnn + learned
               + often * (passes.delayed_cnns * cnn + learned))
    in_heads = actor + 2 * critic + 3 * 2 * critic + often * (3 * actor + passes.judging * critic)
    return tuple(2e-9 * settings.batch_size * part  # type: ignore[return-value]
                 for part in (in_cnns, in_heads))


class Clock:
    """Add up the time of calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, whose calls count from now on."""
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
        return call


def measure(train: Callable[[int], None], updates: int, device: str, clocks: dict[str, Clock]
            ) -> dict[str, float]:
    """Return the mean time of an update in ms, and each clock's share of it in percent."""
    train(WARM_UP)
    finish(device)
    for clock in clocks.values():
        clock.seconds = 0.0
    start = time.perf_counter()
    train(updates)
    finish(device)
    seconds = time.perf_counter() - start
    return {'ms': 1e3 * seconds / updates,
            **{name: 100 * clock.seconds / seconds for name, clock in clocks.items()}}


def finish(device: str) -> None:
    """Wait for what the device still has to do."""
    if device == 'cuda':
        torch.cuda.synchronize()


class Drive:
    """Random numbers in place of a drive: one frame, state, action and reward a step."""

    def __init__(self, steps: int, network: NetworkSettings, seed: int) -> None:
        random = np.random.default_rng(seed)
        size = (network.frame_size, network.frame_size)
        self.frames = random.integers(0, 256, (steps + network.frames, *size), np.uint8)
        self.states = random.normal(0, 0.3, (steps + 1, network.state_size)).astype(np.float32)
        self.actions = random.uniform(-1, 1, (steps, ACTION_SIZE)).astype(np.float32)
        self.rewards = random.normal(0.1, 0.1, steps).astype(np.float32)
        self.depth = network.frames

    def stack(self, step: int) -> NDArray[np.uint8]:
        """Return the frames that a step's observation shows."""
        return self.frames[step:step + self.depth]


class FloatStacks:
    """A replay that stores every stack whole, twice, as float32 in [-1, 1], like the original."""

    def __init__(self, capacity: int, network: NetworkSettings, seed: int) -> None:
        drive = Drive(capacity, network, seed)
        shape = (capacity, network.frames, network.frame_size, network.frame_size)
        self.frames, self.next_frames = np.empty((2, *shape), np.float32)
        for step in range(capacity):
            self.frames[step] = drive.stack(step) / np.float32(127.5) - 1
            self.next_frames[step] = drive.stack(step + 1) / np.float32(127.5) - 1
        self.state, self.next_state = drive.states[:-1].copy(), drive.states[1:].copy()
        self.action, self.reward = drive.actions, drive.rewards
        self.done = np.zeros(capacity, np.float32)
        self._random = np.random.default_rng(seed)

    @property
    def bytes_per_transition(self) -> int:
        """Return the memory that one stored transition takes."""
        arrays = (self.frames, self.next_frames, self.state, self.next_state, self.action,
                  self.reward, self.done)
        return sum(array.nbytes for array in arrays) // len(self.reward)

    def sample(self, batch_size: int, gamma: float, n_step: int) -> Batch:
        """Draw transitions of one step."""
        assert n_step == 1
        drawn = self._random.integers(0, len(self.reward), batch_size)
        frames, state, action, reward, next_frames, next_state, done = (
            torch.from_numpy(array[drawn]) for array in (
                self.frames, self.state, self.action, self.reward, self.next_frames,
                self.next_state, self.done))
        return Batch(frames, state, action, reward, next_frames, next_state, gamma * (1 - done))


def float_cnn(network: NetworkSettings) -> nn.Sequential:
    """Return a NatureCNN of ordinary modules for frames in [-1, 1]."""
    layers: list[nn.Module] = []
    size, channels = network.frame_size, network.frames
    for out, kernel, stride in zip(network.channels, KERNELS, STRIDES, strict=True):
        layers += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU()]
        size, channels = (size - kernel) // stride + 1, out
    return nn.Sequential(*layers, nn.Flatten(),
                         nn.Linear(size * size * channels, network.features), nn.ReLU())


def work_sb3(updates: int, device: str) -> dict[str, float]:
    """Measure Stable-Baselines3's TD3 with its DictReplayBuffer."""
    import gymnasium
    from stable_baselines3 import TD3 as SB3TD3
    from stable_baselines3.common.logger import Logger

    class Nowhere(gymnasium.Env[Any, Any]):
        """Spaces without a world."""

        observation_space = gymnasium.spaces.Dict({
            'image': gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8),
            'state': gymnasium.spaces.Box(-10, 10, (NETWORK.state_size,), np.float32)})
        action_space = gymnasium.spaces.Box(-1, 1, (ACTION_SIZE,), np.float32)

    agent: Any = SB3TD3(
        'MultiInputPolicy', Nowhere(), learning_rate=SETTINGS.learning_rate,
        buffer_size=TRANSITIONS, batch_size=SETTINGS.batch_size, seed=0, device=device,
        policy_kwargs={'net_arch': list(NETWORK.hidden), 'share_features_extractor': False,
                       'features_extractor_kwargs': {'cnn_output_dim': NETWORK.features}})
    agent.set_logger(Logger(None, []))
    replay = agent.replay_buffer
    drive = Drive(TRANSITIONS, NETWORK, seed=0)
    for step in range(TRANSITIONS):
        seen, after = ({'image': drive.stack(at)[None], 'state': drive.states[at][None]}
                       for at in (step, step + 1))
        replay.add(seen, after, drive.actions[step][None], drive.rewards[step:step + 1],
                   np.array([False]), [{}])
    clock = Clock()
    replay.sample = clock.timed(replay.sample)
    measured = measure(lambda count: agent.train(count, SETTINGS.batch_size), updates, device,
                       {'sampling_percent': clock})
    arrays = (*replay.observations.values(), *replay.next_observations.values(), replay.actions,
              replay.rewards, replay.dones, replay.timeouts)
    return {**measured,
            'bytes_per_transition': sum(array.nbytes for array in arrays) // TRANSITIONS}


def work_original(updates: int, device: str) -> dict[str, float]:
    """Measure the original's update, mistakes included: they decide which passes it makes."""
    actor, critic = make_networks(NETWORK, seed=0)
    for network in (actor, critic):
        network.register_module('cnn', float_cnn(NETWORK))
    agent = EagerTD3(actor, critic, SETTINGS, ORIGINAL)
    replay = FloatStacks(TRANSITIONS, NETWORK, seed=0)
    clock = Clock()
    replay.sample = clock.timed(replay.sample)  # type: ignore[method-assign]

    def train(count: int) -> None:
        for _ in range(count):
            agent.train(replay)

    return {**measure(train, updates, device, {'sampling_percent': clock}),
            'bytes_per_transition': replay.bytes_per_transition}


def work_ours(updates: int, device: str, precision: str) -> dict[str, float]:
    """Measure our TD3 with its replay; metrics are read at every update, health as in use."""
    replay = ReplayBuffer(TRANSITIONS, device=device)
    drive = Drive(TRANSITIONS, NETWORK, seed=0)
    for index in range(TRANSITIONS):
        episode, step = divmod(index, EPISODE)
        replay.add(StepRecord('v', episode, step, drive.frames[index], drive.states[index],
                              drive.actions[index], float(drive.rewards[index]), step == 0,
                              step == EPISODE - 1, False))
    agent = TD3(dataclasses.replace(SETTINGS, precision=precision), NETWORK, device=device)
    sampling, metrics = Clock(), Clock()
    replay.sample = sampling.timed(replay.sample)  # type: ignore[method-assign]
    for name in dir(agent):
        if name.startswith('_measure'):
            setattr(agent, name, metrics.timed(getattr(agent, name)))
    read = metrics.timed(lambda values: dict(values))

    def train(count: int) -> None:
        for _ in range(count):
            read(agent.train(replay))

    measured = measure(train, updates, device, {'sampling_percent': sampling,
                                                'metrics_percent': metrics})
    # What the learner looks at beside, now and then.
    started = time.perf_counter()
    examine(agent, replay, policy_version=1)
    finish(device)
    looking = 1e3 * (time.perf_counter() - started) / LearnerSettings().publish_every
    measured['metrics_percent'] += 100 * looking / measured['ms']
    return {**measured, 'bytes_per_transition': replay.bytes_per_step}


@torch.no_grad()
def work_peak(device: str) -> dict[str, float]:
    """Measure GFLOP/s of a convolution that suits the processor, in each arithmetic."""
    flop = 2 * SETTINGS.batch_size * 20 * 20 * 64 * 64 * 3 * 3
    peaks = {}
    for dtype in (torch.float32, torch.bfloat16):
        frames, weight = (torch.randn(shape, device=device).to(dtype).to(
            memory_format=torch.channels_last) for shape in (
                (SETTINGS.batch_size, 64, 22, 22), (64, 64, 3, 3)))
        times = []
        for _ in range(25):
            start = time.perf_counter()
            torch.conv2d(frames, weight)
            finish(device)
            times.append(time.perf_counter() - start)
        peaks[str(dtype).removeprefix('torch.')] = flop / 1e9 / statistics.median(times[5:])
    return peaks


def work(worker: str, updates: int, device: str) -> dict[str, float]:
    """Do what one process does; return its numbers."""
    if worker == 'peak':
        return work_peak(device)
    if worker == 'sb3':
        numbers = work_sb3(updates, device)
    elif worker == 'original':
        numbers = work_original(updates, device)
    else:
        numbers = work_ours(updates, device, worker)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**numbers, 'peak_mb': memory / 1024}


def start(row: Row, options: argparse.Namespace) -> dict[str, float]:
    """Run a row's worker in a fresh process; return its numbers."""
    from av_td3_ros.ros.runtime import ALLOCATOR  # brings ROS along, which no worker needs

    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    if row.allocator:
        environment |= ALLOCATOR
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.learner', '--worker', row.worker, '--updates',
         str(options.updates), '--threads', str(options.threads), '--device', options.device],
        env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f'benchmarks.learner: the process of {row.name!r} failed with status '
                 f'{done.returncode}')
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def floor_ms(row: Row, peaks: dict[str, float]) -> float:
    """Return the time in ms that a row's arithmetic takes at the measured peak."""
    cnn, heads = update_gflop(SETTINGS, NETWORK, row.passes)
    in_cnn = 'bfloat16' if row is BFLOAT16 else 'float32'
    return 1e3 * (cnn / peaks[in_cnn] + heads / peaks['float32'])


def summarise(rounds: dict[Row, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Return the table: medians over the rounds, ratios within a round."""
    def median(row: Row, name: str) -> float:
        return statistics.median(one[name] for one in rounds[row])

    peaks = {name: median(PEAK, name) for name in rounds[PEAK][0]}
    table: list[dict[str, Any]] = []
    for row in rounds:
        if row is PEAK:
            continue
        ms = median(row, 'ms')
        ratios = [theirs['ms'] / own['ms'] for theirs, own in
                  zip(rounds[SB3], rounds[row], strict=True)]
        table.append({
            'row': row.name, 'ms': round(ms, 1), 'updates_per_second': round(1e3 / ms, 2),
            'times_sb3': round(statistics.median(ratios), 2),
            **({'times_sb3_allocator': round(statistics.median(
                theirs['ms'] / own['ms'] for theirs, own in
                zip(rounds[SB3_ALLOCATOR], rounds[row], strict=True)), 2)}
               if SB3_ALLOCATOR in rounds else {}),
            **{name: round(median(row, name), 2) for name in
               ('sampling_percent', 'metrics_percent') if name in rounds[row][0]},
            'peak_mb': round(median(row, 'peak_mb')),
            'bytes_per_transition': round(median(row, 'bytes_per_transition')),
            'gflop': round(sum(update_gflop(SETTINGS, NETWORK, row.passes)), 1),
            'floor_percent': round(100 * floor_ms(row, peaks) / ms, 1),
            'ms_of_rounds': [round(one['ms'], 1) for one in rounds[row]]})
    table.append({'row': PEAK.name, **{f'{name}_gflop_per_second': round(peak)
                                       for name, peak in peaks.items()}})
    return table


def claims_from(table: list[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Return what is claimed of the rows."""
    by_name = {row['row']: row for row in table}
    ours = [by_name[row.name] for row in (FLOAT32, BFLOAT16) if row.name in by_name]
    if device == 'cuda':
        return [_at_least('update on the GPU, times as fast as Stable-Baselines3',
                          ours[-1]['times_sb3'], GOAL_CUDA)]
    claims = [_at_least(f'{row["row"]}, times as fast as Stable-Baselines3', row['times_sb3'],
                        goal)
              for row, goal in zip(ours, (GOAL_FLOAT32, GOAL_BFLOAT16), strict=False)]
    claims += [_at_least(f'{row["row"]}, times as fast as Stable-Baselines3 with our allocator '
                         'settings', row['times_sb3_allocator'], goal)
               for row, goal in zip(ours, (GOAL_FLOAT32, GOAL_BFLOAT16), strict=False)]
    claims.append(_at_most('memory of a transition', ours[0]['bytes_per_transition'],
                           GOAL_BYTES, 'B'))
    claims += [_at_most(f'{row["row"]}, sampling', row['sampling_percent'], GOAL_SAMPLING,
                        '% of the update') for row in ours]
    return [*claims, _at_most('metrics, in the fastest row', ours[-1]['metrics_percent'],
                              GOAL_METRICS, '% of the update')]


def _at_least(name: str, value: float, goal: float) -> dict[str, Any]:
    return {'name': name, 'value': value, 'unit': 'times', 'goal': goal, 'holds': value >= goal}


def _at_most(name: str, value: float, goal: float, unit: str) -> dict[str, Any]:
    return {'name': name, 'value': value, 'unit': unit, 'goal': goal, 'holds': value <= goal}


def show(table: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f'{"":34}{"ms":>8}{"upd/s":>7}{"x SB3":>7}{"sampl %":>9}{"metr %":>8}{"peak MB":>9}'
          f'{"B/trans":>9}{"GFLOP":>7}{"floor %":>9}')
    for row in table[:-1]:
        metrics = f'{row["metrics_percent"]:.2f}' if 'metrics_percent' in row else '-'
        print(f'{row["row"]:34}{row["ms"]:8.1f}{row["updates_per_second"]:7.2f}'
              f'{row["times_sb3"]:7.2f}{row["sampling_percent"]:9.2f}{metrics:>8}'
              f'{row["peak_mb"]:9}{row["bytes_per_transition"]:9}{row["gflop"]:7.1f}'
              f'{row["floor_percent"]:9.1f}')
    peak = table[-1]
    print(f'{peak["row"]}: {peak["float32_gflop_per_second"]} GFLOP/s float32, '
          f'{peak["bfloat16_gflop_per_second"]} bfloat16')


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=at_least_one, default=8,
                        help='fresh processes of each row (default %(default)s)')
    parser.add_argument('--updates', type=at_least_one, default=20,
                        help='updates in each process, an even number (default %(default)s)')
    parser.add_argument('--threads', type=at_least_one, default=2)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    if options.updates < 2 or options.updates % 2:
        parser.error(f'--updates {options.updates}: every second update is longer, give an even '
                     'number')
    return options


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    options = parse()
    if options.worker:
        torch.set_num_threads(options.threads)
        print(json.dumps(work(options.worker, options.updates, options.device)))
        return 0
    if not all(map(importlib.util.find_spec, ('stable_baselines3', 'gymnasium', 'cloudpickle'))):
        sys.exit('benchmarks.learner: Stable-Baselines3 is not installed: '
                 'pip install --no-deps -r requirements/bench.txt')
    rounds: dict[Row, list[dict[str, float]]] = {
        row: [] for row in (*rows_on(options.device), PEAK)}
    for number in range(options.rounds):
        for row, results in rounds.items():
            results.append(start(row, options))
            print(f'round {number + 1}: {row.name}: ' + ', '.join(
                f'{name} {value:.1f}' for name, value in results[-1].items()), flush=True)
    table = summarise(rounds)
    show(table)
    return conclude('learner', claims_from(table, options.device), table, options.json)


if __name__ == '__main__':
    sys.exit(main())
