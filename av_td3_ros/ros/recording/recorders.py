"""What comes from all recorders, in order and from one of each name; asked for what is lacking."""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from av_td3_msgs.srv import ResendTransitions

from av_td3_ros.ros.diagnostics import ERROR, OK, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.recording.catch_up import Answer, CatchUp, Question
from av_td3_ros.ros.recording.raw_transition import RawTransition
from av_td3_ros.ros.recording.rivals import OVER, Rivals
from av_td3_ros.ros.recording.sequencer import HIGHEST
from av_td3_ros.ros.runtime import Throttle, every

SERVICE = '~/resend_transitions'
MOST_VEHICLES = 100  # that one learner hears
DEAF = 30.0  # s for which a recorder that is there may leave every question unanswered
LOOK = 0.5  # s of wall time between two looks for recorders and for what is missing


class Recorders:
    """
    Bring what recorders send into order; find all of them in the graph, and ask for what lacks.

    So a session that began and ended while nobody listened is found as well. `take` gets the
    transitions whose turn has come; nothing is asked while `is_enough`. `reached` is as of
    CatchUp. Of two vehicles of one name the first one counts: see `rivals`.
    """

    def __init__(self, node: Any, inputs: Inputs, reached: Mapping[tuple[str, str], int],
                 take: Callable[[RawTransition], None], is_enough: Callable[[], bool]) -> None:
        self._node, self._take, self._is_enough = node, take, is_enough
        self._inputs = inputs
        self.rivals: Rivals[RawTransition] = Rivals()
        self.missing: CatchUp[RawTransition] = CatchUp(reached,
                                                    is_kept_out=self.rivals.is_kept_out)
        self._clients: dict[str, Any] = {}
        self._futures: dict[str, Any] = {}
        self._silence, self._deafness = Throttle(30.0), Throttle(30.0)
        self._asked_since: dict[str, float] = {}  # of each vehicle whose recorder is there
        self._prefix = node.resolve_service_name(SERVICE) + '/'
        self._late = inputs.guarded(SERVICE, self._order)
        every(node, LOOK, self.look)

    def hear(self, message: RawTransition) -> None:
        """Take what came; raises NameValidationException when its vehicle has no ROS name."""
        vehicle, session, number = message.vehicle, message.session, message.sequence
        if number > HIGHEST:
            raise ValueError(f'sequence number {number}: a recorder counts from 1')
        self._know(vehicle)
        is_new = not self.missing.was_asked_for(vehicle, session, number)
        for one in self.rivals.hear(vehicle, session, number, message, is_new):
            self._order(one)
        for conflict in self.rivals.news:
            self._node.get_logger().error(str(conflict))
        self.rivals.news.clear()
        if self.missing.lacks(vehicle):  # looking whether a service is there takes long
            self.ask(vehicle)

    def _order(self, message: RawTransition) -> None:
        for one in self.missing.add(message.vehicle, message.session, message.sequence, message):
            self._take(one)

    def _know(self, vehicle: str) -> None:
        """Look for a vehicle's recorder; raises NameValidationException when that is no name."""
        if vehicle not in self._clients:
            if len(self._clients) >= MOST_VEHICLES:  # each costs a service client for ever
                raise ValueError(f'vehicle {vehicle!r}: {MOST_VEHICLES} vehicles are known '
                                 'already; restart this node')
            self._clients[vehicle] = self._node.create_client(
                ResendTransitions, f'~/resend_transitions/{vehicle}')

    def look(self) -> None:
        """Find who is new, and ask everybody."""
        if not self._node.context.ok():
            return
        for name, _ in self._node.get_service_names_and_types():
            vehicle = name.removeprefix(self._prefix)
            if vehicle != name and '/' not in vehicle and len(self._clients) < MOST_VEHICLES:
                self._know(vehicle)
        for one in self.rivals.release():
            self._late(one)
        for vehicle in self._clients:
            self.ask(vehicle)
        self._tell_of_silence()

    def _tell_of_silence(self) -> None:
        deaf = self._deaf_to()
        if deaf and self._deafness.ready():
            self._node.get_logger().error(deaf)
        silent = self.missing.silent()
        if silent and self._silence.ready():
            self._node.get_logger().warning(
                f'{self.missing.waiting} transitions wait for others before them: no answer of '
                f'the recorder of {", ".join(silent)}; start it with the same bag again')

    def _deaf_to(self) -> str:
        """Return which recorders are in the graph and never answer, and what to do; or nothing."""
        now = time.monotonic()
        deaf = [vehicle for vehicle, since in self._asked_since.items()
                if now - max(since, self.missing.heard_at(vehicle)) > DEAF]
        return (f'the recorder of {", ".join(deaf)} is there and has answered nothing for '
                f'{DEAF:g} s: is it alive? Where it is, start learner_node again, which goes on '
                'from its checkpoint and asks for what it missed' if deaf else '')

    def ask(self, vehicle: str) -> None:
        """Ask a recorder for what is missing of its vehicle, if its turn has come."""
        client = self._clients[vehicle]
        if not self._node.context.ok() or self._is_enough() or not client.service_is_ready():
            self._asked_since.pop(vehicle, None)
            return
        self._asked_since.setdefault(vehicle, time.monotonic())
        question = self.missing.ask(vehicle)
        if question is None:
            return
        before = self._futures.get(vehicle)
        if before is not None and not before.done():
            client.remove_pending_request(before)
        future = self._futures[vehicle] = client.call_async(ResendTransitions.Request(
            session=question.session, from_sequence=question.first, to_sequence=question.last))
        future.add_done_callback(self._inputs.guarded(
            SERVICE, lambda done: self._on_answer(vehicle, question, done)))

    def _on_answer(self, vehicle: str, question: Question, future: Any) -> None:
        """Go on without what the recorder does not have any more."""
        if future.cancelled() or future.exception() is not None:
            return
        said, lost = future.result(), self.missing.lost
        ready = self.missing.answered(vehicle, question, Answer(
            said.accepted, said.first_sequence, said.last_sequence,
            {name: (first, last) for name, first, last in zip(
                said.sessions, said.first_sequences, said.last_sequences, strict=True)}),
            self.rivals.is_contested(vehicle))
        if self.missing.lost > lost:
            self._node.get_logger().warning(
                f'{self.missing.lost - lost} of the transitions {question.first} to '
                f'{question.last} of {vehicle} are lost: {said.message or "not recorded"}')
        elif question.session:
            self._node.get_logger().info(
                f'transitions {said.first_sequence} to {said.last_sequence} of {vehicle}, which '
                'were missed, come again')
        for one in ready:
            self._take(one)
        self.ask(vehicle)

    def close(self) -> None:
        """Take what waited for it to be known whether a vehicle was started again."""
        for one in self.rivals.close():
            self._late(one)

    def tell(self) -> Reading:
        """Say which vehicles are heard and whether two have the same name, for /diagnostics."""
        heard = self.rivals.vehicles
        values: dict[str, object] = {
            f'{vehicle} heard before [s]': round(ago, 1) for vehicle, ago in heard.items()}
        conflicts = self.rivals.conflicts()
        if conflicts:
            return Reading(ERROR, '; '.join(str(one) for one in conflicts), values)
        deaf = self._deaf_to()
        if deaf:
            return Reading(ERROR, deaf, values)
        driving = sum(ago < OVER for ago in heard.values())
        return Reading(OK, f'{driving} of {len(heard)} vehicles drive', values)
