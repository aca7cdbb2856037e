"""A vehicle's transitions on their way out: numbered, written down, published, sent again."""
from __future__ import annotations

import os
import re
import socket
import uuid
from typing import Any

from av_td3_msgs.msg import Transition
from av_td3_msgs.srv import ResendTransitions
from rclpy.serialization import serialize_message

from av_td3_ros.ros.recording.bag import TransitionBag
from av_td3_ros.ros.recording.history import History


def session_name() -> str:
    """Return a name for a recorder's session that no other has: HEX.PROCESS.HOST."""
    # Two recorders that take themselves for the same vehicle are to be told apart by who reads.
    host = re.sub('[^A-Za-z0-9_-]', '-', socket.gethostname())
    return f'{uuid.uuid4().hex}.{os.getpid()}.{host}'


class TransitionSender:
    """
    Send the transitions of one vehicle so that none gets lost: the recorder's end of their way.

    `sequence` is the number of the latest one in this `session`.
    """

    def __init__(self, publisher: Any, kept: int, bag: TransitionBag | None = None) -> None:
        """`kept` is how many of the newest ones are kept in memory beside the bag, if any."""
        self._publisher, self._bag = publisher, bag
        self._history = History(kept, bag)
        self.begin_session()

    def begin_session(self) -> None:
        """Count from 1 again, under another name."""
        self.session, self.sequence = session_name(), 0
        if self._bag is not None:
            self._bag.seal()

    def send(self, message: Transition, now: int) -> None:
        """Number a transition, write it down and publish it; `now` in nanoseconds."""
        self.sequence += 1
        message.session, message.sequence = self.session, self.sequence
        data = serialize_message(message)
        # Written before published: the bag holds all that the learner has seen.
        if self._bag is not None:
            self._bag.write(now, data)
        self._history.note(self.session, self.sequence, data)
        self._publisher.publish(data)

    def resend(self, request: ResendTransitions.Request, response: ResendTransitions.Response
               ) -> ResendTransitions.Response:
        """Answer a learner: tell of the sessions, and publish a page of one of them again."""
        sessions = self._history.sessions()
        response.sessions = list(sessions)
        response.first_sequences = [first for first, _ in sessions.values()]
        response.last_sequences = [last for _, last in sessions.values()]
        if not request.session:
            response.accepted = True
            return response
        try:
            page = self._history.page(request.session, request.from_sequence, request.to_sequence)
        except (OSError, ValueError) as error:
            page = []
            response.message = str(error)
        if not page:
            first, last = sessions.get(request.session, (0, 0))
            response.message = response.message or (
                f'{request.from_sequence} to {request.to_sequence} asked for, {first} to {last} '
                f'are kept of session {request.session}')
            return response
        response.accepted, response.count = True, len(page)
        response.first_sequence, response.last_sequence = page[0].sequence, page[-1].sequence
        for one in page:
            self._publisher.publish(one.data)
        return response
