"""Join what was seen and what was applied into steps of a trajectory (RLDS)."""
from __future__ import annotations

import dataclasses
from typing import Generic, Protocol, TypeVar

PATIENCE = 100  # observations that wait for the action on the oldest of them


class Observed(Protocol):
    """What the joiner reads of an observation."""

    episode: int
    step: int
    is_first: bool
    is_last: bool


class Applied(Protocol):
    """What the joiner reads of an applied action."""

    episode: int
    step: int


O = TypeVar('O', bound=Observed)  # noqa: E741
A = TypeVar('A', bound=Applied)


@dataclasses.dataclass(frozen=True)
class JoinedStep(Generic[O, A]):
    """
    Hold one step: the observation, the action applied on it, and the observation that followed.

    The last step of an episode has neither action nor a next observation.
    """

    observation: O
    action: A | None
    following: O | None


class TrajectoryJoiner(Generic[O, A]):
    """
    Join observations with the actions applied on them, whichever of the two comes first.

    A step comes out when the observation after it is there. A step whose action or successor never
    came is left out and counted in `incomplete`: the next one then begins after a gap.
    """

    def __init__(self) -> None:
        """Begin with nothing waiting."""
        self._observations: list[O] = []
        self._newest: O | None = None
        self._actions: dict[tuple[int, int], A] = {}
        self.incomplete = 0

    def add_observation(self, observation: O) -> list[JoinedStep[O, A]]:
        """Take an observation; return the steps that are complete now, in order."""
        newest = self._newest
        if newest is not None and newest.episode == observation.episode \
                and observation.step <= newest.step:
            return []  # a copy
        self._newest = observation
        self._observations.append(observation)
        return self._complete()

    def add_action(self, action: A) -> list[JoinedStep[O, A]]:
        """Take an applied action; return the steps that are complete now, in order."""
        self._actions[action.episode, action.step] = action
        while len(self._actions) > PATIENCE:  # of whatever was never seen
            del self._actions[next(iter(self._actions))]
        return self._complete()

    def _complete(self) -> list[JoinedStep[O, A]]:
        steps: list[JoinedStep[O, A]] = []
        waiting = self._observations
        while waiting:
            first = waiting[0]
            following = waiting[1] if len(waiting) > 1 else None
            if first.is_last:
                steps.append(JoinedStep(first, None, None))
                self._leave(first)
                continue
            if following is None:
                break
            consecutive = (following.episode == first.episode
                           and following.step == first.step + 1)
            action = self._actions.get((first.episode, first.step))
            if consecutive and action is not None:
                steps.append(JoinedStep(first, action, following))
            elif consecutive and not self._is_lost(first):
                break  # its action may still be on its way
            else:
                self.incomplete += 1
            self._leave(first)
        return steps

    def _is_lost(self, observation: O) -> bool:
        """Return whether an action will not come: actions come in order, or not for long."""
        key = observation.episode, observation.step
        return len(self._observations) > PATIENCE or any(one > key for one in self._actions)

    def _leave(self, observation: O) -> None:
        self._observations.pop(0)
        for key in [key for key in self._actions
                    if key <= (observation.episode, observation.step)]:
            del self._actions[key]
