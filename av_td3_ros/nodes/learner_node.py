"""Learns from recorded transitions while they arrive, and publishes refreshed weights."""
from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from av_td3_msgs.msg import EpisodeSummary, LearnerStatus, Transition
from carla_msgs.msg import CarlaControl
from rclpy.exceptions import NameValidationException
from rclpy.node import Node

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_metrics
from av_td3_ros.ros.diagnostics import ERROR, OK, Diagnostics, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.parameters import accept_changes, declare_settings
from av_td3_ros.ros.recording.raw_transition import RawTransition, read_transition
from av_td3_ros.ros.recording.recorders import Recorders
from av_td3_ros.ros.recording.run_log import RunLog
from av_td3_ros.ros.recording.transitions import by_human, load_bag, step_record
from av_td3_ros.ros.runtime import every, run, run_with_allocator_settings
from av_td3_ros.ros.weights_publisher import WeightsPublisher
from av_td3_ros.td3.agent import Metrics
from av_td3_ros.td3.follower import main as follow
from av_td3_ros.td3.learner import LearnerSettings, lead
from av_td3_ros.td3.priority import give_way
from av_td3_ros.td3.ranks import RanksError, is_told
from av_td3_ros.td3.replay import DuplicateError, ReplayError
from av_td3_ros.td3.symptoms import judge


class LearnerNode(Node):
    """Receives on the executor's thread, learns on a thread of its own."""

    def __init__(self) -> None:
        super().__init__('learner_node')
        self._inputs = Inputs(self)
        s = self.settings = declare_settings(self, LearnerSettings)
        self._learner = lead(s)
        for told in self._learner.told:
            self.get_logger().warning(told)
        accept_changes(self, s, self._apply)
        self._metrics: dict[str, float] = {}
        self._finished = self._closing = self._ranks_lost = False
        # An interrupted learner may have left the world standing.
        self._world_waiting: bool | None = None if self._learner.told else False
        self._has_news = True  # of weights to be sent
        self._world_lock, self._status_lock = threading.Lock(), threading.Lock()
        self.failure = ''
        try:
            self._load_bags()
        except ValueError:
            self._learner.close()
            raise
        self._recorders = Recorders(self, self._inputs, self._learner.replay.reached(),
                                    self._store, lambda: self._learner.is_complete)
        self._started = time.monotonic()
        self._rate_from = (self._started, self._learner.agent.updates)
        self._log = RunLog(Path(s.run)) if s.run else None

        self._weights = WeightsPublisher(self, s.signing.key, s.weights_precision,
                                         s.publish_period)
        self._status = self.create_publisher(LearnerStatus, '~/output/status', qos.STATUS)
        self._world = self.create_publisher(CarlaControl, '~/output/world_control', qos.SENSOR)
        self._inputs.listen(Transition, '~/input/transition', self._on_transition,
                                 qos.TRANSITION, raw=True)
        self._inputs.listen(EpisodeSummary, '~/input/episode_summary', self._on_episode,
                                 qos.EVENT)
        every(self, s.status_period, self._publish_status)
        diagnostics = Diagnostics(self)
        diagnostics.add('learning', self._tell)
        diagnostics.add('vehicles', self._recorders.tell)
        diagnostics.add('inputs', self._inputs.tell)
        self._publish_weights()
        self._worker = threading.Thread(target=self._work, name='learner')
        self._worker.start()

    def _apply(self, settings: LearnerSettings) -> None:
        self._learner.limiter.change(settings.limiter)

    def _load_bags(self) -> None:
        """Learn from what was recorded before; raises ValueError for a bag that cannot be read."""
        s, learner = self.settings, self._learner
        # Demonstrations first: a step that is there already would be refused by them.
        for bags, take in ((s.demonstration_bags,
                            lambda record, _: learner.take_demonstration(record)),
                           (s.bags, learner.take)):
            for bag in bags:
                loaded = load_bag(bag, s.network, take)
                tell = (self.get_logger().warning if loaded.refused or loaded.known
                        else self.get_logger().info)
                if loaded.unfinished:
                    self.get_logger().warning(f'bag {bag} was not closed: read as far as it is '
                                              'whole')
                tell(f'bag {bag}: {loaded.taken} steps, {loaded.refused} refused, {loaded.known} '
                     'there already')
        for name, buffer in (('capacity', learner.replay), ('human.capacity',
                                                            learner.demonstrations)):
            if buffer.total > buffer.steps:
                self.get_logger().warning(
                    f'{name} = {buffer.capacity} keeps {buffer.steps} of {buffer.total} steps: '
                    'the oldest are overwritten; give more')
        learner.begin_driving()

    # -- the executor's thread: what arrives

    def _on_transition(self, data: bytes) -> None:
        message = read_transition(data)
        try:
            self._recorders.hear(message)
        except NameValidationException:
            self._refuse(ValueError(f'vehicle {message.vehicle!r} is no ROS name: set that of '
                                    'its environment_node'))
            return
        self._hold_world()

    def _store(self, message: RawTransition) -> None:
        if self._learner.is_complete:
            return
        try:
            self._learner.take(step_record(message, self.settings.network), by_human(message))
        except DuplicateError:
            pass  # counted by the replay
        except ReplayError as error:
            self._refuse(error)

    def _refuse(self, error: ValueError) -> None:
        self._inputs.refuse('transition', error)

    @property
    def _refused(self) -> int:
        return self._inputs.refused('transition') + self._recorders.rivals.refused

    def _on_episode(self, message: EpisodeSummary) -> None:
        if not math.isfinite(message.episode_return):
            raise ValueError(f'the return of episode {message.episode} is '
                             f'{message.episode_return}')
        self._learner.finish_episode(message.episode_return,
                                     interrupted=message.result == 'interrupted')
        if self._log is not None:
            self._log.episode(time.monotonic() - self._started,
                              self._learner.limiter.transitions, message)

    # -- the worker's thread: learning

    def _work(self) -> None:
        """Learn; a fault of this thread ends the node instead of leaving it deaf."""
        try:
            self._learn()
        except Exception as error:
            self._ranks_lost = isinstance(error, RanksError)
            self.failure = f'learning stopped: {error if self._ranks_lost else repr(error)}'
            self.get_logger().fatal(f'{self.failure}\n{traceback.format_exc()}')
            self._release_world()
            self.context.try_shutdown()

    def _learn(self) -> None:
        s, learner = self.settings, self._learner
        give_way(s.priority)
        while not self._closing:
            if not learner.wait(0.1):
                if learner.is_complete and not self._finished:
                    self._finish()
                self._publish_weights()
                self._hold_world()
                continue
            metrics = learner.update()
            if metrics is None:
                recovered = learner.recover()
                if recovered:
                    self.get_logger().error(recovered)
                self._hold_world()  # skipped updates count as well: it must not wait for ever
                continue
            updates = learner.agent.updates
            if updates % s.publish_every == 0:
                self._has_news = True
                self._read(metrics)
            self._publish_weights()
            if updates % s.checkpoint_every == 0:
                self._save()
            self._hold_world()

    def _finish(self) -> None:
        """Everything is received and learned from: stop the world, keep the result."""
        self._has_news = True
        self._publish_weights(last=True)
        self._save()
        self._finished = True
        self._hold_world()
        self._publish_status()

    def _read(self, metrics: Metrics) -> None:
        self._metrics = {**metrics, **self._learner.examine(),
                         'weights_kilobytes': self._weights.size / 1e3,
                         'weights_pack_ms': 1e3 * self._weights.took}
        if self._log is not None:
            self._log.update(self._learner.agent.updates, self._metrics)

    def _publish_weights(self, last: bool = False) -> None:
        """Send the newest weights, where there are newer ones and their time has come."""
        if self._has_news and (last or self._weights.is_time):
            self._learner.policy_version += 1
            self._weights.publish(self._learner.agent.actor, self._learner.policy_version)
            self._has_news = False

    def _save(self) -> None:
        try:
            self._learner.save()
        except OSError as error:
            self.get_logger().error(f'checkpoint not written, learning goes on: {error}')

    # -- both

    def _hold_world(self) -> None:
        """Pause a lockstep world while updates are behind, or once nothing more is wanted."""
        if not self.settings.pause_world:
            return
        learner = self._learner
        with self._world_lock:  # both threads come here, and the last word must be the right one
            wait = self._finished or learner.limiter.world_must_wait() or learner.is_complete
            known = self._world_waiting is not None or self._world.get_subscription_count()
            if wait != self._world_waiting and known:
                self._world_waiting = wait
                self._world.publish(CarlaControl(
                    command=CarlaControl.PAUSE if wait else CarlaControl.PLAY))

    def _release_world(self) -> None:
        with self._world_lock:
            if self._world_waiting and self.context.ok():
                self._world.publish(CarlaControl(command=CarlaControl.PLAY))

    def _publish_status(self) -> None:
        with self._status_lock:  # both threads come here: a later one must not say less
            status = self._make_status()
            self._status.publish(status)
            if self._log is not None:
                self._log.status(time.monotonic() - self._started, status)

    def _make_status(self) -> LearnerStatus:
        learner, now = self._learner, time.monotonic()
        updates, transitions = learner.agent.updates, learner.limiter.transitions
        counts, missing = learner.replay.counts, self._recorders.missing
        since, before = self._rate_from
        self._rate_from = now, updates
        return LearnerStatus(
            stamp=self.get_clock().now().to_msg(), updates=updates, transitions=transitions,
            transitions_wanted=learner.total,
            transitions_lost=missing.lost,
            transitions_refused=self._refused,
            transitions_duplicate=counts.duplicate + missing.duplicates,
            episodes_unfinished=counts.unfinished, vehicle_restarts=counts.restarts,
            updates_skipped=learner.agent.skipped, episodes=learner.episodes,
            replay_size=len(learner.replay), demonstrations=len(learner.demonstrations),
            policy_version=learner.policy_version,
            updates_per_second=(updates - before) / max(now - since, 1e-3),
            updates_per_transition=updates / max(transitions, 1),
            world_waiting=bool(self._world_waiting), finished=self._finished,
            checkpoint=learner.checkpoint, metrics=to_metrics(self._metrics))

    def _tell(self) -> Reading:
        learner = self._learner
        values: dict[str, object] = {
            'updates': learner.agent.updates, 'replay': len(learner.replay),
            'transitions refused': self._refused,
            'updates skipped': learner.agent.skipped,
            'world waits': bool(self._world_waiting), 'policy version': learner.policy_version,
            'weights [kB]': self._weights.size / 1e3,
            'weights packed in [ms]': 1e3 * self._weights.took,
            **({'ranks': learner.ranks.count} if learner.ranks.count > 1 else {})}
        if self.failure:
            return Reading(ERROR, self.failure, values)
        if self._finished:
            return Reading(OK, 'finished', values)
        sick = [one for one in judge({
            'updates': learner.agent.updates, 'policy_version': learner.policy_version,
            **self._metrics}) if one.severity == 'sick']
        if sick:
            return Reading(ERROR, f'{sick[0].text}; {sick[0].remedy}', values)
        if not learner.agent.updates:
            return Reading(OK, 'collecting: '
                           f'{learner.limiter.transitions} transitions so far', values)
        return Reading(OK, f'{learner.agent.updates} updates', values)

    def close(self) -> None:
        """Stop learning, write a last, complete checkpoint, and let the world go on."""
        self._closing = True
        self._release_world()
        self._worker.join()
        self._recorders.close()
        if not self._finished and not self._ranks_lost:
            if self.context.ok():
                self._publish_weights(last=True)
            self._save()
            if self._learner.checkpoint:
                self.get_logger().info(f'checkpoint {self._learner.checkpoint} is written')
        self._learner.close()
        if self._log is not None:
            self._log.close()


def main(args: list[str] | None = None) -> None:
    """Run the node, or under torchrun any other rank than the first one's, which is no node."""
    run_with_allocator_settings()
    if is_told() and int(os.environ['RANK']):
        sys.exit(follow([]))
    run(LearnerNode, args)


if __name__ == '__main__':
    main()
