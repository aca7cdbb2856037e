"""Which steps of a replay are whose, for batches in which each vehicle has the same share."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Serials = NDArray[np.int64]


class _Queue:
    """Serial numbers, of which the newest are appended and the oldest taken away."""

    def __init__(self) -> None:
        self._numbers: Serials = np.empty(64, np.int64)
        self._start = self._end = 0

    def append(self, number: int) -> None:
        if self._end == len(self._numbers):
            held = self.held
            self._numbers = np.empty(max(64, 2 * len(held)), np.int64)
            self._numbers[:len(held)] = held
            self._start, self._end = 0, len(held)
        self._numbers[self._end] = number
        self._end += 1

    def drop(self) -> None:
        self._start += 1

    @property
    def held(self) -> Serials:
        return self._numbers[self._start:self._end]


class VehicleSteps:
    """
    Keep the serial numbers of each vehicle's steps, and draw from all vehicles alike.

    `available` counts the transitions of each vehicle that can be drawn; `whole` those that all
    ranks together hold, where it is known: each rank then draws its part of a vehicle's share.
    """

    def __init__(self) -> None:
        self._queues: dict[int, _Queue] = {}
        self.available: dict[int, int] = {}
        self.whole: Mapping[int, int] = {}

    def add(self, vehicle: int, serial: int) -> None:
        """Take a vehicle's next step."""
        if vehicle not in self._queues:
            self._queues[vehicle], self.available[vehicle] = _Queue(), 0
        self._queues[vehicle].append(serial)

    def drop(self, vehicle: int, transitions: int) -> None:
        """Forget a vehicle's oldest step, and with it so many transitions."""
        self._queues[vehicle].drop()
        self.available[vehicle] -= transitions

    def draw(self, random: np.random.Generator, count: int,
             is_whole: Callable[[Serials], NDArray[np.bool_]]) -> Serials:
        """Return steps of vehicles that are drawn alike, each one's transitions alike as well."""
        some = [vehicle for vehicle, there in self.available.items() if there]
        share = np.array([self.available[vehicle] / max(
            self.whole.get(vehicle, 0), self.available[vehicle]) for vehicle in some])
        chosen = random.choice(len(some), count, p=share / share.sum())
        drawn: Serials = np.empty(count, np.int64)
        for index in np.unique(chosen):
            rows = np.flatnonzero(chosen == index)
            drawn[rows] = self._of(some[index], random, len(rows), is_whole)
        return drawn

    def _of(self, vehicle: int, random: np.random.Generator, count: int,
            is_whole: Callable[[Serials], NDArray[np.bool_]]) -> Serials:
        held = self._queues[vehicle].held
        if self.available[vehicle] * 4 < len(held):  # drawing and rejecting would take long
            return random.choice(held[is_whole(held)], count)
        found: Serials = np.empty(0, np.int64)
        while len(found) < count:
            some = held[random.integers(0, len(held), 2 * count)]
            found = np.concatenate((found, some[is_whole(some)]))
        return found[:count]

    def restore(self, vehicles: NDArray[np.int32], serials: Serials, whole: NDArray[np.bool_]
                ) -> None:
        """Become that of these steps, oldest first; `whole` says which are transitions."""
        self._queues, self.available = {}, {}
        for vehicle, serial, there in zip(vehicles.tolist(), serials.tolist(), whole.tolist(),
                                          strict=True):
            self.add(vehicle, serial)
            self.available[vehicle] += there


def weights(held: Sequence[Sequence[int]]) -> list[float]:
    """
    Return how much the batch of each rank counts, from its transitions of each vehicle.

    Each vehicle counts 1 in all, and each of its transitions the same part of that.
    """
    whole = [sum(column) for column in zip(*held, strict=True)]
    return [sum(size / total for size, total in zip(sizes, whole, strict=True) if total)
            for sizes in held]
