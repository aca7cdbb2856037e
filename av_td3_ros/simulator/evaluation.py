"""Let a driver drive a set of episodes in this process: the same numbers as through the nodes."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.episode.record import EpisodeLog, EpisodeRecord
from av_td3_ros.driving.perception.mask import NO_MASK, hide
from av_td3_ros.driving.perception.state import LATERAL_SCALE
from av_td3_ros.simulator.drive import Drive, DriveSettings

Frames = npt.NDArray[np.uint8]
States = npt.NDArray[np.float32]
Actions = npt.NDArray[np.float32]
Watch = Callable[[int, Drive], None]


class Driver(Protocol):
    """Who drives: one vehicle, or several in step."""

    def restart(self, vehicle: int) -> None:
        """Forget what `vehicle` did so far: it begins an episode."""

    def act(self, frames: Frames, states: States, vehicles: Sequence[int]) -> Actions:
        """Return the actions (B, 2) of `vehicles` for frames (B, F, H, W) and states (B, S)."""


class StateActor(Protocol):
    """What drives one vehicle by its state vector, such as pure pursuit."""

    def reset(self) -> None:
        """Forget the drive so far."""

    def act(self, state: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the action (2,) for a state vector."""


class StateDriver:
    """Drive every vehicle by its state vector, with what `make` returns for it."""

    def __init__(self, make: Callable[[], StateActor]) -> None:
        self._make = make
        self._actors: dict[int, StateActor] = {}

    def restart(self, vehicle: int) -> None:
        """Forget what `vehicle` did so far: it begins an episode."""
        self._actors.setdefault(vehicle, self._make()).reset()

    def act(self, frames: Frames, states: States, vehicles: Sequence[int]) -> Actions:
        """Return the actions (B, 2) for the states (B, S)."""
        return np.array([self._actors[vehicle].act(state)
                         for vehicle, state in zip(vehicles, states, strict=True)], np.float32)


def evaluate(settings: DriveSettings, driver: Driver, episodes: int | Iterable[int], seed: int, *,
             mask: str = NO_MASK, parallel: int = 1, watch: Watch | None = None
             ) -> list[EpisodeRecord]:
    """
    Let `driver` drive episodes 0 to `episodes` - 1, or those listed, and return their records.

    `seed` decides the routes, looks and traffic, so that episode i is the same for every driver.
    `mask` hides a part of what the driver sees. `parallel` vehicles, each in a world of its own,
    are driven in step with one call of the driver for all of them; the episodes stay the same,
    but a network may round a batch in another way than one observation. `watch` is called with
    the episode and its drive at each step. Raises ValueError without episodes and for a map or
    routes that cannot be driven.
    """
    wanted = list(range(episodes)) if isinstance(episodes, int) else list(episodes)
    if not wanted:
        raise ValueError(f'{episodes} evaluation episodes: give 1 or more')
    if parallel < 1:
        raise ValueError(f'parallel = {parallel}: give 1 or more')
    settings = dataclasses.replace(settings, episodes=dataclasses.replace(
        settings.episodes, seed=seed))
    waiting = iter(wanted)
    driven: dict[int, EpisodeRecord] = {}
    vehicles = [_Vehicle(number, Drive(settings, seed), watch)
                for number in range(min(parallel, len(wanted)))]
    while True:
        for vehicle in vehicles:
            if vehicle.is_free and (index := next(waiting, None)) is not None:
                vehicle.begin(index)
                driver.restart(vehicle.number)
        busy = [vehicle for vehicle in vehicles if not vehicle.is_free]
        if not busy:
            return [driven[index] for index in wanted]
        seen = [vehicle.seen(mask) for vehicle in busy]
        actions = driver.act(np.stack([frames for frames, _ in seen]),
                             np.stack([state for _, state in seen]),
                             [vehicle.number for vehicle in busy])
        for vehicle, action in zip(busy, actions, strict=True):
            record = vehicle.act(action)
            if record is not None:
                driven[record.index] = record


class _Vehicle:
    """One drive and the log of its present episode."""

    def __init__(self, number: int, drive: Drive, watch: Watch | None) -> None:
        self.number = number
        self.is_free = True
        self._drive, self._watch = drive, watch
        self._index = 0
        self._log = self._new_log()

    def _new_log(self) -> EpisodeLog:
        return EpisodeLog(self._drive.settings.driving)

    def begin(self, index: int) -> None:
        self._drive.begin(index)
        self._index, self._log, self.is_free = index, self._new_log(), False
        self._note()

    def seen(self, mask: str) -> tuple[Frames, States]:
        assert self._drive.step is not None
        return hide(mask, self._drive.frames, self._drive.step.state)

    def act(self, action: Actions) -> EpisodeRecord | None:
        """Drive on by one step; return the episode's record when it has ended with it."""
        step = self._drive.act(action)
        self._note()
        if not step.is_last:
            return None
        self.is_free = True
        return self._log.record(self._index, self._drive.summary())

    def _note(self) -> None:
        step, snapshot = self._drive.step, self._drive.snapshot
        assert step is not None and snapshot is not None
        hit, crossed = snapshot.collision, len(snapshot.lane_invasion)
        if step.is_first:
            hit, crossed = None, 0  # what happened on the way to it belongs to no episode
        self._log.add(
            stamp_ns=snapshot.stamp_ns, x=snapshot.ego.x, y=snapshot.ego.y,
            speed=snapshot.ego.speed, lateral=float(step.state[1]) * LATERAL_SCALE,
            impulse=hit.magnitude if hit is not None else None, lane_invasions=crossed,
            reason=step.reason)
        if self._watch is not None:
            self._watch(self._index, self._drive)
