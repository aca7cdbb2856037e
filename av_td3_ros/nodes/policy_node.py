"""Answers each observation with an action: the actor network, or a driver it is compared with."""
from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import torch
from av_td3_msgs.msg import Action, Observation
from av_td3_msgs.msg import ActorWeights as ActorWeightsMessage
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from av_td3_ros.driving.command.pursuit import PursuitDriver, PursuitSettings
from av_td3_ros.driving.perception.mask import MASKS, NO_MASK, VECTOR, hide
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import from_actor_weights, to_nanoseconds
from av_td3_ros.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Meter, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.lifecycle import attempt, start
from av_td3_ros.ros.parameters import accept_changes, declare_settings
from av_td3_ros.ros.runtime import actors_on, every, run
from av_td3_ros.ros.tracing import Trace
from av_td3_ros.settings import group, setting
from av_td3_ros.td3.exploration import Exploration, ExplorationSettings
from av_td3_ros.td3.networks import Actor, NetworkSettings, architecture_hash
from av_td3_ros.td3.onnx_actor import OnnxActor
from av_td3_ros.td3.policy import load_policy
from av_td3_ros.td3.weights import WeightsError
from av_td3_ros.trust.gate import Gate, TrustSettings
from av_td3_ros.trust.policy_file import check_policy

SLOW = 50.0  # ms that an action may take: a camera period


@dataclasses.dataclass(frozen=True)
class PolicySettings:
    """What the policy node is told."""

    driver: str = setting('policy', 'who drives: the actor network, pure pursuit with PID speed '
                          'control, or random actions', choices=('policy', 'pursuit', 'random'))
    autostart: bool = setting(True, 'configure and activate at the start; false: wait for '
                              '`ros2 lifecycle set`')
    training: bool = setting(False, 'explore: random actions first, noise on the policy later')
    weights: str = setting('', 'folder of a checkpoint or an exported policy to start from; '
                           'empty: a network drawn from the seed, until the learner sends one')
    seed: int = setting(0, 'seed of exploration and of an untrained network', minimum=0,
                        maximum=2**31 - 1)
    engine: str = setting('onnx', 'what computes the actions: ONNX Runtime, several times as fast '
                          'on a processor, or torch itself', choices=('onnx', 'torch'))
    threads: int = setting(1, 'threads of one inference', minimum=1, maximum=64)
    mask: str = setting(NO_MASK, 'what is hidden from the actor: image blackens the frames, '
                        'vector zeroes the state vector but the speed', choices=MASKS, live=True)
    network: NetworkSettings = group(NetworkSettings, 'shape of the actor, as the learner has it')
    exploration: ExplorationSettings = group(ExplorationSettings, 'noise while training')
    pursuit: PursuitSettings = group(PursuitSettings, 'the pure-pursuit driver')
    trace: str = setting('', 'CSV file to write at the end: when each frame reached each stage; '
                         'empty: none')
    trust: TrustSettings = group(TrustSettings, 'whose weights are taken')


class PolicyNode(LifecycleNode):
    """
    Keeps the newest verified actor and lets it drive; swaps between two observations only.

    A managed node: configuring loads the weights, and only the active one answers.
    """

    def __init__(self) -> None:
        super().__init__('policy_node')
        self._inputs = Inputs(self)
        s = self.settings = declare_settings(self, PolicySettings)
        accept_changes(self, s, self._apply)
        torch.set_num_threads(s.threads)
        torch.manual_seed(s.seed)
        self.refusal: Exception | None = None
        self._is_active = False
        self._actor: Actor | OnnxActor = Actor(s.network).eval()
        self._onnx: OnnxActor | None = None
        self._version = 0
        self._pursuit = PursuitDriver(s.pursuit)
        self._exploration = Exploration(s.exploration, s.seed)
        self._steps = 0
        self._next: tuple[Actor | OnnxActor, int] | None = None
        self._trace = Trace(s.trace)
        self._gate = Gate(s.trust, s.network)
        for words in self._gate.warnings():
            self.get_logger().warning(words)
        self._arrived: ActorWeightsMessage | None = None
        self._arrival = threading.Condition()
        self._closing = False
        self._loader = threading.Thread(target=self._load_arrivals, daemon=True)
        self._loader.start()

        self._actions = self.create_publisher(Action, '~/output/action', qos.STEP)
        self._listening = every(self, 0.05, self._listen)
        self._inputs.listen(ActorWeightsMessage, '~/input/actor_weights', self._on_weights,
                                 qos.LATCHED)
        self._inferences = Meter()
        self._arrived_at: float | None = None
        diagnostics = Diagnostics(self)
        diagnostics.add('inference', self._tell_inference)
        diagnostics.add('weights', self._tell_weights)
        diagnostics.add('inputs', self._inputs.tell)
        if s.autostart:
            start(self)

    def _apply(self, settings: PolicySettings) -> None:
        self.settings = settings
        self._exploration.settings = settings.exploration

    # -- managed states

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights to start from; a file that does not fit is refused."""
        return attempt(self, self._configure)

    def _configure(self) -> None:
        if self.settings.weights:
            self._load_file(Path(self.settings.weights))
        if isinstance(self._actor, Actor):
            self._actor = self._fast(self._actor)
        self._think(self._actor)  # the first inference is slow: not while the vehicle waits

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Answer observations."""
        self._is_active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Answer none: control_node then brakes."""
        self._is_active = False
        return super().on_deactivate(state)

    # -- driving

    def _listen(self) -> None:
        """Take observations once somebody hears the answers: who asks waits until then."""
        if actors_on(self, self._actions) < 1:
            return
        self._listening.cancel()
        self._inputs.listen(Observation, '~/input/observation', self._on_observation,
                                 qos.STEP)

    def _on_observation(self, message: Observation) -> None:
        stamp_ns = to_nanoseconds(message.header.stamp)
        self._trace.mark('observation arrived', stamp_ns)
        if self._next is not None:
            with self._arrival:
                (self._actor, self._version), self._next = self._next, None
        if message.is_first:
            self._exploration.restart()
            self._pursuit.reset()
        if message.is_last or not self._is_active:
            return  # nothing follows it that an action could change
        started = time.perf_counter()
        try:
            action, exploring = self._decide(message)
        except (ValueError, RuntimeError) as error:
            self._inputs.refuse('observation', error)
            return
        took = time.perf_counter() - started
        self._inferences.note(took)
        answer = Action(
            header=message.header, vehicle=message.vehicle, episode=message.episode,
            step=message.step, steer=float(action[0]), acceleration=float(action[1]),
            exploring=exploring, inference_time=took,
            policy_version=self._version if self.settings.driver == 'policy' else 0)
        self._trace.mark('decided', stamp_ns)
        self._actions.publish(answer)

    def _decide(self, message: Observation) -> tuple[np.ndarray, bool]:
        s = self.settings
        state = np.asarray(message.state, np.float32)
        if not np.isfinite(state).all():
            raise ValueError(f'state of step {message.step} is not finite')
        if s.driver == 'pursuit':
            return self._pursuit.act(state), False
        if s.network.state_size == 0:
            state = state[:0]  # it is left out
        if s.driver == 'policy' and len(state) != s.network.state_size:
            raise ValueError(f'state has {len(state)} numbers, the network takes '
                             f'{s.network.state_size}: set environment_node driving.waypoints')
        self._steps += 1
        if s.driver == 'random':
            return self._exploration.act(self._steps, None)
        if s.training and self._steps <= s.exploration.warmup_steps:
            return self._exploration.act(self._steps - 1, None)
        mask = VECTOR if s.training and self._exploration.hides_vector else s.mask
        greedy = self._actor.act(*hide(mask, self._frames(message), state))
        if not s.training:
            return greedy, False
        return self._exploration.act(self._steps - 1, greedy)

    def _frames(self, message: Observation) -> np.ndarray:
        network = self.settings.network
        if network.frames == 0:
            return np.zeros((0, network.frame_size, network.frame_size), np.uint8)
        shape = (message.count, message.height, message.width)
        wanted = (network.frames, network.frame_size, network.frame_size)
        if shape != wanted or len(message.frames) != int(np.prod(shape)):
            raise ValueError(f'frames are {shape} in {len(message.frames)} bytes, the network '
                             f'takes {wanted}: set environment_node frame.count and frame.size')
        return np.frombuffer(message.frames, np.uint8).reshape(shape)

    # -- weights

    def _on_weights(self, message: ActorWeightsMessage) -> None:
        with self._arrival:
            self._arrived = message  # an older one that still waits is out of date
            self._arrival.notify()

    def _load_arrivals(self) -> None:
        """Verify and load weights aside, so that no observation waits for it."""
        while True:
            with self._arrival:
                self._arrival.wait_for(lambda: self._closing or self._arrived is not None)
                if self._closing:
                    return
                message, self._arrived = self._arrived, None
            assert message is not None
            try:
                tensors = self._gate.admit(from_actor_weights(message))
            except WeightsError as error:
                if self._gate.refuse(error):
                    self.get_logger().error(f'keeping policy {self._version}: {error}')
                continue
            except Exception as error:  # whatever it is: the next ones must be heard
                self._inputs.refuse('actor_weights', error)
                continue
            if tensors is None:
                continue
            actor = Actor(self.settings.network).eval()
            actor.load_state_dict(tensors)
            driver = self._fast(actor)
            with self._arrival:
                self._next = driver, message.version
                self._arrived_at = time.monotonic()

    # -- health

    def _tell_inference(self) -> Reading:
        meter, worst = self._inferences, 1e3 * self._inferences.largest
        values = {'rate [1/s]': meter.rate, 'longest [ms]': worst, 'driver': self.settings.driver,
                  'refused observations': self._inputs.refused('observation')}
        if not self._is_active:
            return Reading(WARN, 'not active: the vehicle brakes', values)
        if meter.age is None and meter.count:
            return Reading(OK, 'no observation to answer now; environment_node says why', values)
        if meter.age is None:
            return Reading(WARN, 'no observation to answer: is environment_node alive, and is '
                           'there a route?', values)
        if worst > SLOW:
            return Reading(WARN, f'an action took {worst:.0f} ms: this computer is too busy',
                           values)
        return Reading(OK, f'{meter.rate:.1f} actions a second, the longest in {worst:.1f} ms',
                       values)

    def _tell_weights(self) -> Reading:
        age = None if self._arrived_at is None else time.monotonic() - self._arrived_at
        values = {'version': self._version, 'architecture': architecture_hash(
            self.settings.network), 'signed by': self._gate.key or 'nobody',
            'age [s]': 'from a file' if age is None else age,
            **{f'refused: {reason}': count for reason, count in self._gate.refused.items()}}
        if self._gate.key_is_revoked:
            return Reading(ERROR, f'version {self._version} drives, but its key {self._gate.key} '
                           'is trusted no more: disengage, and start with other weights', values)
        if self._gate.refused:
            return Reading(ERROR, f'{self._gate.refused.total()} weights refused '
                           f'({", ".join(self._gate.refused)}): version {self._version} drives '
                           'on', values)
        if self._gate.trouble:
            return Reading(WARN, self._gate.trouble, values)
        if not self._version and self.settings.driver == 'policy':
            return Reading(WARN, 'untrained: no weights were given or have come', values)
        return Reading(OK, f'version {self._version}' + (
            '' if age is None else f', {age:.0f} s old'), values)

    def _load_file(self, path: Path) -> None:
        policy = load_policy(path)
        words = check_policy(policy, self.settings.trust)
        if words:
            self.get_logger().warning(words)
        if architecture_hash(policy.network) != architecture_hash(self.settings.network):
            raise ValueError(f'weights {policy.path}: made for {policy.network}, this '
                             f'node has {self.settings.network}: set network.* alike')
        self._actor, self._version = policy.actor, policy.version

    def _fast(self, actor: Actor) -> Actor | OnnxActor:
        """Return the actor on the engine that is asked for."""
        if self.settings.engine == 'torch' or self.settings.driver != 'policy':
            return actor
        self._onnx = (OnnxActor(actor, self.settings.threads) if self._onnx is None
                      else self._onnx.renewed(actor))
        return self._onnx

    def _think(self, actor: Actor | OnnxActor) -> None:
        n = self.settings.network
        actor.act(np.zeros((n.frames, n.frame_size, n.frame_size), np.uint8),
                  np.zeros(n.state_size, np.float32))

    def close(self) -> None:
        """Let the loader end."""
        with self._arrival:
            self._closing = True
            self._arrival.notify()
        self._loader.join()
        self._trace.close()


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(PolicyNode, args)


if __name__ == '__main__':
    main()
