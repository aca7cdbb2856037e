"""What a fault that `faults` injects is made of, and what comes of it."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Outcome:
    """
    Hold what came of a fault: how often, what happened, what was lost, which claims hold.

    `details` are rows of a table of its own, for each topic or file.
    """

    times: int
    happened: str
    lost: str
    claims: Sequence[dict[str, Any]] = ()
    details: Sequence[dict[str, Any]] = ()


@dataclasses.dataclass(frozen=True)
class Fault:
    """Name a fault's usual number of injections and what injects it so often."""

    times: int
    inject: Callable[[int], Outcome]


def claim(name: str, value: float, unit: str, goal: float, at_least: bool = False
          ) -> dict[str, Any]:
    """Return a claim as every benchmark writes it: the goal is a ceiling, or a floor."""
    return {'name': name, 'value': value, 'unit': unit, 'goal': goal,
            'holds': value >= goal if at_least else value <= goal}
