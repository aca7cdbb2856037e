"""Learns from recorded transitions while they arrive, and publishes refreshed weights."""
from __future__ import annotations

import dataclasses
import json
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av_td3_msgs.msg import ActorWeights as ActorWeightsMessage
from av_td3_msgs.msg import EpisodeSummary, LearnerStatus, Transition
from av_td3_msgs.srv import ResendTransitions
from carla_msgs.msg import CarlaControl
from rclpy.node import Node

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_metrics
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.records import episode_record, status_record
from av_td3_ros.ros.runtime import Throttle, run, run_with_allocator_settings
from av_td3_ros.ros.sequencer import Sequencer
from av_td3_ros.settings import flatten, group, setting
from av_td3_ros.td3.agent import TD3, Metrics, TD3Settings
from av_td3_ros.td3.checkpoint import Checkpoints, load
from av_td3_ros.td3.limiter import LimiterSettings, UpdateLimiter
from av_td3_ros.td3.networks import NetworkSettings
from av_td3_ros.td3.replay import ReplayBuffer, ReplayError, StepRecord
from av_td3_ros.td3.weights import pack

ASK_PERIOD = 1.0  # s of wall time between two requests for the same missing transitions


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """What the learner node is told."""

    run: str = setting('', 'run folder for checkpoints, tensorboard and metrics.jsonl; empty: '
                       'nothing is written')
    resume: str = setting('', 'checkpoint to go on from; empty: start anew')
    seed: int = setting(0, 'seed of weights, noise and sampling', minimum=0, maximum=2**31 - 1)
    device: str = setting('cpu', 'torch device of the update, such as cpu or cuda')
    threads: int = setting(1, 'threads of the update on the processor', minimum=1, maximum=256)
    total_transitions: int = setting(0, 'transitions to receive, beside those of a resumed run, '
                                     'until training is finished; 0: it goes on',
                                     minimum=0)
    capacity: int = setting(100_000, 'steps that the replay keeps, 7.3 kB each', minimum=2)
    publish_every: int = setting(50, 'updates between two published policies', minimum=1)
    checkpoint_every: int = setting(2000, 'updates between two checkpoints', minimum=1)
    checkpoints_kept: int = setting(3, 'newest checkpoints that are kept, beside the untrained '
                                    'one', minimum=1)
    skips_tolerated: int = setting(20, 'updates in a row that are not finite after which the last '
                                   'checkpoint is restored', minimum=1)
    status_period: float = setting(1.0, 'wall time in s between two status messages',
                                   minimum=0.05, maximum=3600.0)
    pause_world: bool = setting(True, 'hold a lockstep world while learning is behind')
    network: NetworkSettings = group(NetworkSettings, 'shape of actor and critic')
    td3: TD3Settings = group(TD3Settings, 'the algorithm')
    limiter: LimiterSettings = group(LimiterSettings, 'updates for each transition')


class LearnerNode(Node):
    """Receives on the executor's thread, learns on a thread of its own."""

    def __init__(self) -> None:
        super().__init__('learner_node')
        s = self.settings = declare_settings(self, LearnerSettings)
        torch.set_num_threads(s.threads)
        if s.device.startswith('cuda') and not torch.cuda.is_available():
            raise ValueError(f'device = {s.device!r}: this torch sees no CUDA device; set cpu')
        self._agent = TD3(s.td3, s.network, s.seed, s.device)
        n = s.network
        self._replay = ReplayBuffer(s.capacity, n.frames, n.frame_size, n.state_size, s.seed)
        self._limiter = UpdateLimiter(s.limiter)
        self._version = self._episodes = self._refused = 0
        self._sequencers: dict[tuple[str, str], Sequencer[Transition]] = {}
        self._asked: dict[tuple[str, str], float] = {}
        self._refusals = Throttle()
        self._metrics: dict[str, float] = {}
        self._world_waiting = self._finished = self._closing = False
        self._world_lock = threading.Lock()
        self._checkpoint = ''
        self.failure = ''
        self._started = time.monotonic()
        self._rate_from = (self._started, 0)
        self._checkpoints = (Checkpoints(Path(s.run) / 'checkpoints', s.checkpoints_kept)
                             if s.run else None)
        self._log = _RunLog(Path(s.run)) if s.run else None
        if s.run and not (Path(s.run) / 'checkpoints' / 'untrained').exists():
            self._save(pin='untrained')  # to compare with
        self._total = s.total_transitions
        if s.resume:
            self._resume(Path(s.resume))

        self._weights = self.create_publisher(
            ActorWeightsMessage, '~/output/actor_weights', qos.LATCHED)
        self._status = self.create_publisher(LearnerStatus, '~/output/status', qos.STATUS)
        self._world = self.create_publisher(CarlaControl, '~/output/world_control', qos.SENSOR)
        self._resend = self.create_client(ResendTransitions, '~/resend_transitions')
        self.create_subscription(Transition, '~/input/transition', self._on_transition,
                                 qos.TRANSITION)
        self.create_subscription(EpisodeSummary, '~/input/episode_summary', self._on_episode,
                                 qos.EVENT)
        self.create_timer(s.status_period, self._on_timer)
        self._publish_weights()
        self._worker = threading.Thread(target=self._work, name='learner')
        self._worker.start()

    # -- the executor's thread: what arrives

    def _on_transition(self, message: Transition) -> None:
        """Bring transitions into order, ask for missing ones, store them."""
        key = message.vehicle, message.session
        sequencer = self._sequencers.setdefault(key, Sequencer())
        for one in sequencer.add(message.sequence, message):
            self._store(one)
        self._ask_for_missing(key)
        self._hold_world()

    def _ask_for_missing(self, key: tuple[str, str]) -> None:
        missing = self._sequencers[key].missing
        if missing is None or time.monotonic() - self._asked.get(key, 0.0) < ASK_PERIOD:
            return
        self._asked[key] = time.monotonic()
        asked = self._resend.call_async(ResendTransitions.Request(
            session=key[1], from_sequence=missing[0], to_sequence=missing[1]))
        asked.add_done_callback(lambda future: self._on_answer(key, missing, future))

    def _on_answer(self, key: tuple[str, str], missing: tuple[int, int], future: Any) -> None:
        """Go on without what the recorder does not have any more."""
        answer = future.result()
        if answer.accepted or self._sequencers[key].missing != missing:
            return
        self.get_logger().warning(f'transitions {missing[0]} to {missing[1]} of {key[0]} are '
                                  f'lost: {answer.message}')
        for one in self._sequencers[key].skip():
            self._store(one)

    def _store(self, message: Transition) -> None:
        if self._is_complete():
            return
        try:
            self._replay.add(_record(message, self.settings.network))
        except ReplayError as error:
            self._refused += 1
            if self._refusals.ready():
                self.get_logger().warning(f'transition refused ({self._refused} so far): {error}')
            return
        if not message.is_last:
            self._limiter.received()

    def _on_episode(self, message: EpisodeSummary) -> None:
        self._episodes += 1
        if self._log is not None:
            self._log.episode(time.monotonic() - self._started, self._limiter.transitions, message)

    def _is_complete(self) -> bool:
        return self._total > 0 and self._limiter.transitions >= self._total

    # -- the worker's thread: learning

    def _work(self) -> None:
        """Learn; a fault of this thread ends the node instead of leaving it deaf."""
        try:
            self._learn()
        except Exception as error:
            self.failure = f'learning stopped: {error!r}'
            self.get_logger().fatal(f'{self.failure}\n{traceback.format_exc()}')
            self.context.try_shutdown()

    def _learn(self) -> None:
        s = self.settings
        while not self._closing:
            if not self._limiter.wait(0.1) or not len(self._replay):
                if self._is_complete() and not self._finished:
                    self._finish()
                continue
            metrics = self._agent.train(self._replay)
            self._limiter.updated()
            if self._agent.skipped_in_row:
                self._recover()
                continue
            if self._agent.updates % s.publish_every == 0:
                self._publish_weights()
                self._read(metrics)
            if self._agent.updates % s.checkpoint_every == 0:
                self._save()
            self._hold_world()

    def _recover(self) -> None:
        """After too many updates in a row that were not finite, go back to the last checkpoint."""
        if self._agent.skipped_in_row < self.settings.skips_tolerated:
            return
        latest = self._checkpoints.latest() if self._checkpoints else None
        if latest is None:
            self.get_logger().error(f'{self._agent.skipped_in_row} updates in a row were not '
                                    'finite and there is no checkpoint to go back to')
            self._agent.skipped_in_row = 0
            return
        skipped = self._agent.skipped
        load(latest).restore(self._agent)
        self._agent.skipped, self._agent.skipped_in_row = skipped, 0
        self.get_logger().error(f'{self.settings.skips_tolerated} updates in a row were not '
                                f'finite: went back to {latest}')

    def _finish(self) -> None:
        """Everything is received and learned from: stop the world, keep the result."""
        self._publish_weights()
        self._save()
        self._finished = True
        self._hold_world()
        self._publish_status()

    def _read(self, metrics: Metrics) -> None:
        self._metrics = dict(metrics)
        if self._log is not None:
            self._log.update(self._agent.updates, self._metrics)

    def _publish_weights(self) -> None:
        self._version += 1
        weights = pack(self._agent.actor, self._version)
        message = ActorWeightsMessage(
            stamp=self.get_clock().now().to_msg(), version=weights.version,
            architecture=weights.architecture, weights=to_bytes(weights.data),
            sha256=to_bytes(bytes.fromhex(weights.sha256)))
        self._weights.publish(message)

    def _save(self, pin: str | None = None) -> None:
        if self._checkpoints is None:
            return
        counters = {'policy_version': self._version, 'episodes': self._episodes,
                    'transitions': self._limiter.transitions}
        try:
            self._checkpoint = str(self._checkpoints.save(
                self._agent, self._replay, self._limiter, counters, flatten(self.settings),
                pin=pin))
        except OSError as error:
            self.get_logger().error(f'checkpoint not written, learning goes on: {error}')

    def _resume(self, path: Path) -> None:
        checkpoint = load(path)
        checkpoint.restore(self._agent, self._replay, self._limiter)
        self._version = int(checkpoint.counters['policy_version'])
        self._episodes = int(checkpoint.counters['episodes'])
        self._rate_from = (time.monotonic(), self._agent.updates)
        self._total += self._limiter.transitions if self._total else 0

    # -- both

    def _on_timer(self) -> None:
        for key in self._sequencers:  # also when nothing arrives any more that would show the gap
            self._ask_for_missing(key)
        self._publish_status()

    def _hold_world(self) -> None:
        """Pause a lockstep world while updates are behind, or once nothing more is wanted."""
        if not self.settings.pause_world:
            return
        with self._world_lock:  # both threads come here, and the last word must be the right one
            wait = self._finished or self._limiter.world_must_wait() or self._is_complete()
            if wait != self._world_waiting:
                self._world_waiting = wait
                self._world.publish(CarlaControl(
                    command=CarlaControl.PAUSE if wait else CarlaControl.PLAY))

    def _publish_status(self) -> None:
        now, updates = time.monotonic(), self._agent.updates
        since, before = self._rate_from
        rate = (updates - before) / max(now - since, 1e-3)
        self._rate_from = now, updates
        transitions = self._limiter.transitions
        status = LearnerStatus(
            stamp=self.get_clock().now().to_msg(), updates=updates, transitions=transitions,
            transitions_lost=sum(one.lost for one in self._sequencers.values()),
            transitions_refused=self._refused, updates_skipped=self._agent.skipped,
            episodes=self._episodes, replay_size=len(self._replay), policy_version=self._version,
            updates_per_second=rate, updates_per_transition=updates / max(transitions, 1),
            world_waiting=self._world_waiting, finished=self._finished,
            checkpoint=self._checkpoint, metrics=to_metrics(self._metrics))
        self._status.publish(status)
        if self._log is not None:
            self._log.status(now - self._started, status)

    def close(self) -> None:
        """Stop learning, write a last, complete checkpoint, and let the world go on."""
        self._closing = True
        if self._world_waiting and self.context.ok():
            self._world.publish(CarlaControl(command=CarlaControl.PLAY))
        self._worker.join()
        if not self._finished:
            self._save()
        if self._log is not None:
            self._log.close()


class _RunLog:
    """metrics.jsonl and TensorBoard of a run."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        run.mkdir(parents=True, exist_ok=True)
        self._lines = (run / 'metrics.jsonl').open('a', encoding='utf-8')
        self._board = SummaryWriter(str(run / 'tensorboard'))
        self._lock = threading.Lock()

    def update(self, updates: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._board.add_scalar(f'learner/{name}', value, updates)

    def status(self, wall_time: float, status: LearnerStatus) -> None:
        self._write({**status_record(status), 'wall_time': wall_time})

    def episode(self, wall_time: float, transitions: int, message: EpisodeSummary) -> None:
        values = episode_record(message)
        self._write({**values, 'wall_time': wall_time, 'transitions': transitions})
        for name in ('return', 'route_completion', 'mean_speed', 'steps'):
            if name in values:
                self._board.add_scalar(f'episode/{name}', values[name], transitions)

    def _write(self, values: dict[str, Any]) -> None:
        with self._lock:
            self._lines.write(json.dumps(values) + '\n')
            self._lines.flush()

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def _record(message: Transition, network: NetworkSettings) -> StepRecord:
    """Return a message as the replay takes it. Raises ReplayError when its frame has no shape."""
    if len(message.frame) != message.height * message.width:
        raise ReplayError(f'{message.vehicle} episode {message.episode} step {message.step}: '
                          f'{len(message.frame)} bytes are no {message.width}x{message.height} '
                          'frame')
    frame = np.frombuffer(message.frame, np.uint8).reshape(message.height, message.width)
    state = np.asarray(message.state, np.float32)
    return StepRecord(
        vehicle=message.vehicle, session=message.session, episode=message.episode,
        step=message.step, frame=frame, state=state if network.state_size else state[:0],
        action=np.array((message.steer, message.acceleration), np.float32),
        reward=message.reward, is_first=message.is_first, is_last=message.is_last,
        is_terminal=message.is_terminal, policy_version=message.policy_version)


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run_with_allocator_settings()
    run(LearnerNode, args)


if __name__ == '__main__':
    main()
