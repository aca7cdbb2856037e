"""
Stand in for the vehicles of a fleet: recorded steps go out as their recorders would send them.

Some of them share a participant: to find each other is what takes longest where one machine has
them all. What to do comes as lines on the standard input: `drive`,
`stop`, `end`; the report of what was done goes to the standard output, a line of JSON each time.
"""
from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import rclpy
from av_td3_msgs.msg import ActorWeights, Transition
from av_td3_msgs.srv import ResendTransitions
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions

from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import to_bytes, to_floats, to_stamp
from av_td3_ros.ros.recording.sender import TransitionSender
from av_td3_ros.ros.runtime import die_with_parent, make_executor, ros_environment, spin
from av_td3_ros.td3.replay import StepRecord
from av_td3_ros.td3.shards import unpack_steps

SHARED = 4  # vehicles of one participant
KEPT = 2000  # as a recorder_node keeps
MOST = 4096  # vehicles and steps of each that the marks in the state can tell apart
LATE = 0.5  # s behind its time at which a vehicle skips steps, as one whose processor is too slow
STAMP = struct.Struct('<iIQ')  # at the beginning of ActorWeights: stamp and version


def message(record: StepRecord) -> Transition:
    """Return a recorded step as a recorder would send it, without what is the vehicle's own."""
    one = Transition(
        step=record.step, height=record.frame.shape[0], width=record.frame.shape[1],
        frame=to_bytes(record.frame), state=to_floats(record.state), is_first=record.is_first,
        is_last=record.is_last, is_terminal=record.is_terminal)
    if record.action is not None and record.reward is not None:
        one.steer, one.acceleration = (float(x) for x in record.action)
        one.reward = float(record.reward)
    return one


def mark(vehicle: int, number: int) -> tuple[float, float, float]:
    """Return three numbers in [0, 1), exact in single precision, that name a step of a vehicle."""
    return vehicle / MOST, number // MOST / MOST, number % MOST / MOST


class Vehicle:
    """One vehicle: it plays recorded episodes again, and hears the weights."""

    def __init__(self, context: rclpy.Context, number: int, steps: list[Transition]) -> None:
        self.name = f'car_{number}'
        self._number, self._steps = number, steps
        self._size = len(serialize_message(steps[0]))
        # Without what a node has beside: it would be found by all others, too.
        self.node = rclpy.create_node(
            'recorder_node', namespace=self.name, context=context, enable_rosout=False,
            start_parameter_services=False, parameter_overrides=[
                Parameter('start_type_description_service', value=False)])
        self._publisher = self.node.create_publisher(
            Transition, '/learner/transition', qos.TRANSITION)
        self._sender = TransitionSender(self._publisher, KEPT)
        self._turns = threading.Lock()  # a recorder node has one thread, here are two
        self.node.create_service(
            ResendTransitions, f'/learner/learner_node/resend_transitions/{self.name}',
            self._resend)
        self.heard_at = 0.0
        self.heard: list[tuple[int, float]] = []  # version, s since it was sent
        self.node.create_subscription(
            ActorWeights, '/learner/actor_weights', self._hear, qos.LATCHED, raw=True)
        # Each begins with another episode.
        firsts = [index for index, one in enumerate(steps) if one.is_first]
        self._at = firsts[number % len(firsts)]
        self._episode = self.actions = self.bytes = 0

    @property
    def is_heard(self) -> bool:
        """Return whether the learner is there."""
        return bool(self._publisher.get_subscription_count())

    @property
    def sent(self) -> int:
        """Return how many transitions were sent so far."""
        return self._sender.sequence

    def step(self) -> None:
        """Send the next step."""
        one, now = self._steps[self._at], time.time_ns()  # serialised before the next one's turn
        one.vehicle, one.episode = self.name, self._episode
        one.header.stamp = one.recorded = to_stamp(now)
        # The last three numbers of the state are given up for the step's own name.
        one.state[-3:] = to_floats(mark(self._number, self._sender.sequence + 1))
        with self._turns:
            self._sender.send(one, now)
        self.bytes += self._size
        self.actions += not one.is_last
        self._at = (self._at + 1) % len(self._steps)
        self._episode += self._steps[self._at].is_first  # the last one may be cut off

    def _resend(self, request: ResendTransitions.Request, response: ResendTransitions.Response
                ) -> ResendTransitions.Response:
        with self._turns:
            return self._sender.resend(request, response)

    def _hear(self, data: bytes) -> None:
        now = time.time_ns()
        seconds, nanoseconds, version = STAMP.unpack_from(data, 4)
        self.heard_at = time.monotonic()
        self.heard.append((version, 1e-9 * (now - nanoseconds) - seconds))


class Slow:
    """Somebody who subscribes to the weights and does not look at them until asked to."""

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('slow', context=self._context, enable_rosout=False,
                                       start_parameter_services=False)
        self._subscription = self._node.create_subscription(
            ActorWeights, '/learner/actor_weights', lambda data: None, qos.LATCHED, raw=True)

    def held(self) -> list[int]:
        """Return the versions that were kept for it."""
        versions, handle = [], self._subscription.handle
        with handle:  # what an executor does; it would take long enough for the next one to come
            while (found := handle.take_message(ActorWeights, True)) is not None:
                versions.append(STAMP.unpack_from(found[0], 4)[2])
        return versions


class Fleet:
    """The vehicles of this process."""

    def __init__(self, first: int, count: int, steps: list[Transition], rate: float) -> None:
        self._vehicles: list[Vehicle] = []
        for index in range(first, first + count, SHARED):
            context = rclpy.Context()
            rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
            executor = make_executor(context)
            for number in range(index, min(index + SHARED, first + count)):
                self._vehicles.append(Vehicle(context, number, steps))
                executor.add_node(self._vehicles[-1].node)
            threading.Thread(target=spin, args=(executor, context), daemon=True).start()
        self._slow = Slow() if not first else None
        self._rate = rate
        self._process = psutil.Process()
        self._stopping = threading.Event()
        self._driving = threading.Thread()
        self._skipped = 0

    def wait(self) -> None:
        """Wait until the learner hears all of them."""
        while not all(one.is_heard and one.heard for one in self._vehicles):
            time.sleep(0.02)

    def drive(self) -> None:
        """Drive until `stop`."""
        self._stopping.clear()
        self._driving = threading.Thread(target=self._drive)
        self._driving.start()

    def _drive(self) -> None:
        period = 1.0 / self._rate / len(self._vehicles)
        due = time.monotonic()
        while not self._stopping.is_set():
            for one in self._vehicles:
                now = time.monotonic()
                if now < due:
                    time.sleep(due - now)
                elif now - due > LATE:
                    self._skipped += int((now - due) / period)
                    due = now
                one.step()
                due += period

    def stop(self) -> None:
        """Stop, but go on answering."""
        self._stopping.set()
        self._driving.join()

    def report(self) -> dict[str, Any]:
        """Return what was done so far, and what it took."""
        times = self._process.cpu_times()
        return {'cpu': times.user + times.system, 'memory': self._process.memory_info().rss,
                'at': time.monotonic(), 'skipped': self._skipped,
                'vehicles': {one.name: {'sent': one.sent, 'actions': one.actions,
                                        'bytes': one.bytes, 'heard': one.heard}
                             for one in self._vehicles}}

    def slow(self) -> list[int]:
        """Return what the slow subscriber holds, where one is here, while no news are coming."""
        if self._slow is None:
            return []
        while not 1.0 < time.monotonic() - max(one.heard_at for one in self._vehicles) < 5.0:
            time.sleep(0.05)
        return self._slow.held()


def main() -> None:
    """Do as told on the standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=Path, required=True)
    parser.add_argument('--first', type=int, required=True)
    parser.add_argument('--count', type=int, required=True)
    parser.add_argument('--rate', type=float, required=True)
    options = parser.parse_args()
    die_with_parent()
    # In a fleet these processors are elsewhere: here they take what the learner leaves of its own.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.environ.update(ros_environment(os.environ))
    steps = [message(record) for _, record in unpack_steps(options.steps.read_bytes())]
    fleet = Fleet(options.first, options.count, steps, options.rate)
    fleet.wait()
    print(json.dumps(fleet.report()), flush=True)
    for line in sys.stdin:
        match line.strip():
            case 'drive':
                fleet.drive()
            case 'stop':
                fleet.stop()
            case 'end':
                print(json.dumps({'slow': fleet.slow(), **fleet.report()}), flush=True)
                break
        print(json.dumps(fleet.report()), flush=True)
    os._exit(0)


if __name__ == '__main__':
    main()
