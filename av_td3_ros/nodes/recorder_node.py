"""Joins observations and applied actions into transitions, on a topic and on disk."""
from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from av_td3_msgs.msg import AppliedAction, Observation, Transition
from av_td3_msgs.srv import ResendTransitions
from rclpy.node import Node

from av_td3_ros.driving.episode.trajectory import JoinedStep, TrajectoryJoiner
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_nanoseconds
from av_td3_ros.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Meter, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.parameters import declare_settings
from av_td3_ros.ros.recording.bag import TransitionBag
from av_td3_ros.ros.recording.sender import TransitionSender
from av_td3_ros.ros.runtime import every, run
from av_td3_ros.settings import setting

LITTLE = 1_000_000_000  # bytes: less room is worth a warning
UNANSWERED = 100  # observations in a row, 5 s at 20 Hz, without an action: it does not come
CUT_OFF = 600  # of them while there is who publishes actions: they do not get through to this one


@dataclasses.dataclass(frozen=True)
class RecorderSettings:
    """What the recorder node is told."""

    bag: str = setting('', 'rosbag2 directory to create, or to go on with after a restart; empty: '
                       'only the topic')
    wait_for: int = setting(0, 'subscribers of transitions (the learner) that must be there '
                            'before observations are taken; an environment that waits for this '
                            'node waits for them as well', minimum=0, maximum=100)
    kept: int = setting(2000, 'newest transitions kept in memory to be sent again on request; '
                        'older ones come from the bag', minimum=1, maximum=10_000_000)


class RecorderNode(Node):
    """Numbers each transition, writes it down, then publishes it."""

    def __init__(self) -> None:
        super().__init__('recorder_node')
        self._inputs = Inputs(self)
        s = declare_settings(self, RecorderSettings)
        self._trouble, self._is_little = '', False
        self._interventions = 0
        self._driven_by: int | None = None
        self._begun: tuple[int, int] | None = None
        self._unanswered, self._is_deaf = 0, False
        self._transitions = self.create_publisher(
            Transition, '~/output/transition', qos.TRANSITION)
        self._bag = (TransitionBag(Path(s.bag), self._transitions.topic_name) if s.bag else None)
        for recovered in self._bag.recovered if self._bag else ():
            self.get_logger().warning(str(recovered))
        self._sender = TransitionSender(self._transitions, s.kept, self._bag)
        self._begin_steps()
        self._place = Path(s.bag).absolute().parent
        self._wait_for = s.wait_for
        self._listening = every(self, 0.05, self._listen)
        self._listen()
        self._actions = self._inputs.listen(AppliedAction, '~/input/applied_action',
                                            self._on_action, qos.TRANSITION)
        every(self, 1.0, self._look_after)
        self._recorded = Meter()
        diagnostics = Diagnostics(self)
        diagnostics.add('transitions', self._tell)
        diagnostics.add('inputs', self._inputs.tell)
        self._inputs.serve(ResendTransitions, '~/resend_transitions', self._sender.resend)

    def _listen(self) -> None:
        """Take observations once those who learn from them are there."""
        if self._transitions.get_subscription_count() < self._wait_for:
            return
        self._listening.cancel()
        self._inputs.listen(Observation, '~/input/observation', self._on_observation,
                                 qos.TRANSITION)

    def _begin_steps(self) -> None:
        self._told = 0
        self._joiner: TrajectoryJoiner[Observation, AppliedAction] = TrajectoryJoiner()

    def _on_observation(self, message: Observation) -> None:
        size = message.count * message.height * message.width
        if not size or len(message.frames) != size:
            raise ValueError(f'{len(message.frames)} bytes are not {message.count} frames of '
                             f'{message.width}x{message.height}')
        if message.is_first:
            begun = message.episode, to_nanoseconds(message.header.stamp)
            # An environment node that was started again counts its episodes from the first again:
            # in the same session they would be taken for copies.
            if self._begun is not None and begun != self._begun and begun[0] <= self._begun[0]:
                self.get_logger().warning('the environment node has begun anew: a new session')
                self._sender.begin_session()
                self._begin_steps()
            self._begun = begun
        self._unanswered += 1
        self._record(self._joiner.add_observation(message))

    def _on_action(self, message: AppliedAction) -> None:
        self._unanswered = 0
        self._record(self._joiner.add_action(message))

    def _look_after(self) -> None:
        """Tell of gaps, and bring to disk what waits for room there."""
        if self._bag is not None:
            self._bag.flush()
            self._tell_of_disk(self._bag)
        if self._hears_no_action() and not self._is_deaf:
            self.get_logger().error(self._deafness())
        self._is_deaf = self._hears_no_action()
        if self._joiner.incomplete > self._told and not self._is_deaf:
            self._told = self._joiner.incomplete
            self.get_logger().warning(f'{self._told} steps so far lack their action or successor '
                                      'and are not recorded')

    def _hears_no_action(self) -> bool:
        """Return whether observations come and applied actions do not."""
        return self._unanswered >= UNANSWERED

    @property
    def is_cut_off(self) -> bool:
        """
        Return whether only another participant in this one's place would hear applied actions.

        Fast DDS 2.14 was seen to make a process's shared memory port anew, where it got no
        processor for seconds, and to leave its old one to others. Nothing is lost in beginning
        anew: what was recorded is in the bag.
        """
        return (self._bag is not None and self._unanswered >= CUT_OFF
                and bool(self.count_publishers(self._actions.topic_name)))

    def _deafness(self) -> str:
        return (f'{self._unanswered} observations in a row without an applied action, nothing is '
                'recorded: is control_node alive? Where it is, start recorder_node again, which '
                'goes on in the same bag')

    def _record(self, steps: list[JoinedStep[Observation, AppliedAction]]) -> None:
        for step in steps:
            if step.action is not None and step.action.source == AppliedAction.SOURCE_STOPPED:
                continue  # nobody drove: there is nothing to learn from
            self._note_intervention(step)
            self._sender.send(self._transition(step), self.get_clock().now().nanoseconds)
            if self._bag is not None:
                self._tell_of_disk(self._bag)
            self._recorded.note()

    def _note_intervention(self, step: JoinedStep[Observation, AppliedAction]) -> None:
        """Count where a human takes over from the policy; human driving alone is none."""
        before, now = self._driven_by, None if step.action is None else step.action.source
        if now not in (None, AppliedAction.SOURCE_POLICY, AppliedAction.SOURCE_HUMAN):
            return  # a repeated action, or the brake until the human's command is known
        self._driven_by = now
        if before == AppliedAction.SOURCE_POLICY and now == AppliedAction.SOURCE_HUMAN:
            self._interventions += 1
            self.get_logger().info(f'intervention {self._interventions}: a human took over at '
                                   f'step {step.observation.step} of episode '
                                   f'{step.observation.episode}')

    def _transition(self, step: JoinedStep[Observation, AppliedAction]) -> Transition:
        seen, action, after = step.observation, step.action, step.following
        size = seen.height * seen.width
        message = Transition(
            header=seen.header, recorded=self.get_clock().now().to_msg(), vehicle=seen.vehicle,
            episode=seen.episode, step=seen.step, height=seen.height, width=seen.width,
            frame=to_bytes(bytes(memoryview(seen.frames)[-size:])), state=seen.state,
            is_first=seen.is_first, is_last=seen.is_last, is_terminal=seen.is_terminal,
            reason=seen.reason)
        if action is not None and after is not None:
            message.steer, message.acceleration = action.steer, action.acceleration
            message.source, message.exploring = action.source, action.exploring
            message.policy_version = action.policy_version
            message.reward, message.terms = after.reward, after.terms
        return message

    def _tell_of_disk(self, bag: TransitionBag) -> None:
        """Tell once that the disk refuses, that it takes again, and that room gets little."""
        if bool(bag.trouble) != bool(self._trouble):
            if bag.trouble:
                self.get_logger().error(f'recording stands still: {bag.trouble}; transitions wait '
                                        f'in memory: make room below {self._place}')
            else:
                self.get_logger().info(f'recording goes on: {bag.count} transitions on disk, '
                                       f'{bag.lost} lost')
            self._trouble = bag.trouble

    def _has_little(self, free: int) -> bool:
        """Return whether there is little room on the disk, and tell it once."""
        is_little = free < LITTLE
        if is_little and not self._is_little:
            self.get_logger().warning(f'{free / 1e9:.2f} GB left below {self._place}')
        self._is_little = is_little
        return is_little

    def _tell(self) -> Reading:
        values: dict[str, object] = {
            'rate [1/s]': self._recorded.rate, 'recorded': self._sender.sequence,
            'without action or successor': self._joiner.incomplete,
            'interventions': self._interventions}
        if self._hears_no_action():
            return Reading(ERROR, self._deafness(), values)
        if self._bag is None:
            return Reading(OK, f'{self._recorded.rate:.1f} a second, no bag wanted', values)
        bag, free = self._bag, shutil.disk_usage(self._place).free
        values |= {'free on disk [GB]': free / 1e9, 'not on disk': bag.waiting + bag.lost,
                   'lost for the bag': bag.lost}
        little = self._has_little(free)
        if bag.trouble:
            return Reading(ERROR, f'{bag.waiting} transitions wait for the disk, {bag.lost} are '
                           f'lost for the bag: {bag.trouble}: make room below {self._place}',
                           values)
        if little:
            return Reading(WARN, f'{free / 1e9:.2f} GB left below {self._place}', values)
        return Reading(OK, f'{self._recorded.rate:.1f} a second', values)

    def close(self) -> None:
        """Close the bag."""
        if self._bag is not None:
            try:
                self._bag.close()
            except OSError as error:
                self.get_logger().error(f'the bag is not closed: {error}; `av-td3 recover` does '
                                        'it once there is room')


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(RecorderNode, args)


if __name__ == '__main__':
    main()
