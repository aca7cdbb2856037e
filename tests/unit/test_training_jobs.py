"""Trainings of benchmarks: what was seen is kept, and a job that was stopped goes on from it."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from av_td3_ros.driving.perception.mask import IMAGE
from av_td3_ros.simulator.evaluation import Driver
from benchmarks import _jobs
from benchmarks._jobs import Job, Recipe, read_lines, work
from benchmarks.learning import pursuit

DRIVER = pursuit(['clean']).driver
JOB = Job('counting', 'clean', 0, 2.0)


class Counting:
    """An algorithm that makes an update a minute, and whose policy is pure pursuit."""

    def __init__(self, folder: Path) -> None:
        self._saved = folder / 'saved'
        self.updates = int(self._saved.read_text()) if self._saved.exists() else 0

    @property
    def transitions(self) -> int:
        return 2 * self.updates

    def advance(self, seconds: float) -> None:
        self.updates += round(seconds / 60)

    def driver(self, updates: int | None = None) -> Driver:
        assert DRIVER is not None
        return DRIVER

    def save(self) -> None:
        self._saved.write_text(str(self.updates))


RECIPE = Recipe(lambda drive, seed, folder: Counting(folder), {'clean': (1, 2)}, masked=(1,))


@pytest.fixture(autouse=True)
def one_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_jobs, 'EPISODES', 1)
    monkeypatch.setattr(_jobs, 'VALIDATION_EPISODES', 1)
    monkeypatch.setattr(_jobs, 'TEST_MAPS', ('test/roads_a',))


def test_a_job_that_was_stopped_goes_on_from_what_was_seen(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examine = _jobs.examine

    def stopped(job: Job, recipe: Recipe, driver: Driver, mask: str) -> dict[str, Any]:
        if mask == IMAGE:
            raise KeyboardInterrupt
        return examine(job, recipe, driver, mask)

    monkeypatch.setattr(_jobs, 'examine', stopped)
    with pytest.raises(KeyboardInterrupt):
        work(JOB, RECIPE, tmp_path)
    (first,) = read_lines(tmp_path / 'evaluations.jsonl')
    assert first['minutes'] == 1 and 'best' not in first

    monkeypatch.setattr(_jobs, 'examine', examine)
    work(JOB, RECIPE, tmp_path)
    again, second = read_lines(tmp_path / 'evaluations.jsonl')
    assert again == first | {'best': again['best']}
    assert set(RECIPE.masks) < set(again['best'])
    assert (second['minutes'], second['updates'], second['transitions']) == (2, 2, 4)


def test_what_was_learned_beyond_the_last_evaluation_is_not_counted_short(tmp_path: Path) -> None:
    work(dataclasses.replace(JOB, minutes=1.0), RECIPE, tmp_path)
    ahead = Counting(tmp_path)
    ahead.advance(60.0)
    ahead.save()
    with pytest.raises(RuntimeError, match=r'of 2 updates, is not that of the last evaluation'):
        work(JOB, RECIPE, tmp_path)
