"""Parts of a ROS graph for tests: a node under test, and a participant that talks with it."""
from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import rclpy
import yaml
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from av_td3_ros.ros import qos
from av_td3_ros.ros.graph import NodeSpec, session_nodes, viewing_nodes
from av_td3_ros.ros.runtime import leave, make_executor, spin

T = TypeVar('T')
VEHICLE = 'ego_vehicle'
TIMEOUT = 60.0  # s of wall time; the machine may be busy with other things
SPECS: dict[str, NodeSpec] = {
    spec.name: spec for spec in [*session_nodes('embedded', VEHICLE, learning=True),
                                 *viewing_nodes('embedded', VEHICLE)]}
UNSHARED = {'/rosout', '/parameter_events'}
CLASSES = {'simulator_node': 'SimulatorNode', 'environment_node': 'EnvironmentNode',
           'policy_node': 'PolicyNode', 'control_node': 'ControlNode',
           'recorder_node': 'RecorderNode', 'learner_node': 'LearnerNode',
           'mirror_node': 'MirrorNode', 'stand_in_vehicle_node': 'StandInVehicleNode',
           'inspection_node': 'InspectionNode'}


def await_that(condition: Callable[[], T], what: str, timeout: float = TIMEOUT) -> T:
    """Return what `condition` returns once it is true; raise AssertionError when it never is."""
    until = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < until, f'waited {timeout:g} s in vain for {what}'
        time.sleep(0.002)
    return result


class Inbox(Generic[T]):
    """What has come in on one topic, in order."""

    def __init__(self, topic: str, journal: list[tuple[str, Any]]) -> None:
        self.topic = topic
        self._journal = journal
        self._messages: list[T] = []
        self._seen = 0
        self._changed = threading.Condition()

    def put(self, message: T) -> None:
        """Take a message in."""
        with self._changed:
            self._messages.append(message)
            self._journal.append((self.topic, message))
            self._changed.notify_all()

    @property
    def messages(self) -> list[T]:
        """Return all messages so far."""
        with self._changed:
            return list(self._messages)

    def next(self, wanted: Callable[[T], bool] = lambda _: True, timeout: float = TIMEOUT) -> T:
        """Return the first wanted message behind the one that was returned last."""
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                for index in range(self._seen, len(self._messages)):
                    if wanted(self._messages[index]):
                        self._seen = index + 1
                        return self._messages[index]
                left = until - time.monotonic()
                assert self._changed.wait(left) if left > 0 else False, (
                    f'{self.topic}: the wanted message did not come within {timeout:g} s; '
                    f'{len(self._messages) - self._seen} others did: '
                    f'{[_short(one) for one in self._messages[self._seen:]][-5:]}')


class Peer:
    """A participant with a context, a node and an executor of its own; a context manager."""

    def __init__(self, domain: int, name: str = 'peer',
                 executor: Callable[..., Any] = make_executor) -> None:
        self.domain = domain
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain,
                   signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = executor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=spin, args=(self._executor, self._context))
        self._thread.start()
        self.journal: list[tuple[str, Any]] = []

    def hear(self, kind: type[T], topic: str, profile: QoSProfile = qos.EVENT) -> Inbox[T]:
        """Subscribe; return where the messages come in."""
        inbox: Inbox[T] = Inbox(topic, self.journal)
        self.node.create_subscription(kind, topic, inbox.put, profile)
        return inbox

    def speak(self, kind: type[T], topic: str, profile: QoSProfile = qos.SENSOR,
              heard: bool = True) -> Callable[[T], None]:
        """Return a function that publishes; with `heard`, wait until somebody subscribes."""
        publisher = self.node.create_publisher(kind, topic, profile)
        if heard:
            await_that(publisher.get_subscription_count, f'a subscriber of {topic}')
        return publisher.publish

    def ask(self, kind: Any, service: str, request: Any) -> Any:
        """Call a service and return its response."""
        client = self.node.create_client(kind, service)
        # Not by wait_for_service, which polls four times a second.
        await_that(client.service_is_ready, f'service {service}')
        future = client.call_async(request)
        await_that(future.done, f'an answer of {service}')
        self.node.destroy_client(client)
        return future.result()

    def set_parameter(self, node: str, name: str, value: Any) -> Any:
        """Set one parameter of a node as `ros2 param set` does; return the result."""
        request = SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg()])
        return self.ask(SetParameters, f'{node}/set_parameters', request).results[0]

    def close(self) -> None:
        """Leave the graph."""
        self._context.try_shutdown()
        self._thread.join(TIMEOUT)
        leave(self._executor, self.node)


class Log:
    """
    What the nodes of this process have logged, line by line; pytest's capture must be on.

    It is read where it lies: capfd.readouterr() loses what is written meanwhile.
    """

    def __init__(self) -> None:
        self._read, self._text = 0, b''

    def next(self, words: str) -> str:
        """Wait for a line with these words; return it and forget what is before it."""
        return await_that(lambda: self.find(words), f'{words!r} in the log')

    def find(self, words: str) -> str:
        """Return the next line with these words as `next` does, '' while there is none."""
        new = os.pread(2, 1 << 24, self._read)
        self._read += len(new)
        self._text += new
        *lines, rest = self._text.split(b'\n')
        for index, line in enumerate(lines):
            if words.encode() in line:
                self._text = b'\n'.join([*lines[index + 1:], rest])
                return line.decode(errors='replace')
        return ''


class Running:
    """A node under test in this process; it stands still until `spin`."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.is_running = True
        self._executor = make_executor(node.context)
        self._executor.add_node(node)
        self._errors: list[BaseException] = []
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._work, name=node.get_name())

    def _work(self) -> None:
        try:
            spin(self._executor, self.node.context, self._told.is_set)
        except BaseException as error:
            self._errors.append(error)

    def connected(self, peer: Peer) -> None:
        """
        Wait until the node and the peer know all of each other's ends, from both sides.

        Until then the first messages on one topic may come behind later ones on another.
        """
        shared = {one.topic_name for one in (*peer.node.publishers, *peer.node.subscriptions)}
        shared &= {one.topic_name for one in (*self.node.publishers, *self.node.subscriptions)}
        for node in (self.node, peer.node):
            for one in node.publishers:
                if one.topic_name in shared - UNSHARED:
                    await_that(one.get_subscription_count, f'a subscriber of {one.topic_name}')
            for one in node.subscriptions:
                if one.topic_name in shared - UNSHARED:
                    await_that(one.get_publisher_count, f'a publisher of {one.topic_name}')

    def spin(self) -> None:
        """Let callbacks and timers run."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the node as its `main` does; raise what a callback raised."""
        self.is_running = False
        self._told.set()
        self._executor.wake()
        if self._thread.ident is not None:
            self._thread.join(TIMEOUT)
        self.node.close()
        leave(self._executor, self.node)
        rclpy.try_shutdown()
        if self._errors:
            raise self._errors[0]


def make_node(name: str, domain: int, folder: Path, parameters: Mapping[str, Any],
              profile: str = 'embedded') -> Running:
    """
    Make one node of the session in this process, wired by config/graph.yaml and a profile.

    `parameters` are {dotted key: value}. Raises what the node's constructor raises.
    """
    file = parameter_file(folder, {name: parameters})
    spec = SPECS[name] if profile == 'embedded' else next(
        one for one in session_nodes(profile, VEHICLE, learning=True) if one.name == name)
    rclpy.init(args=[name, *spec.arguments(file)], domain_id=domain,
               signal_handler_options=SignalHandlerOptions.NO)
    try:
        return Running(getattr(importlib.import_module(spec.module), CLASSES[name])())
    except BaseException:
        rclpy.try_shutdown()
        raise


def parameter_file(folder: Path, parameters: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a ROS parameter file for {node: {dotted key: value}}."""
    path = folder / 'parameters.yaml'
    path.write_text(yaml.safe_dump({
        f'/**/{node}': {'ros__parameters': dict(values) or {'use_sim_time': False}}
        for node, values in parameters.items()}))
    return path


def _short(message: Any) -> str:
    text = str(message)
    return text if len(text) < 300 else f'{text[:300]}...'
