"""What the benchmark of learning concludes from the snapshots of its trainings."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from benchmarks._learning_report import (
    CENSORED,
    chosen,
    claims_of,
    current,
    draw,
    markdown,
    minutes_to,
    recipe_rows,
    table_of,
)

METRICS = ('route_completion', 'driving_score', 'mean_speed', 'cross_track_rms',
           'collisions_per_km', 'steering_reversals_per_km', 'mean_return')


def snapshot(minutes: float, success: float, score: float, **masked: float) -> dict[str, Any]:
    """Return what a job writes after some minutes."""
    def metrics(value: float) -> dict[str, dict[str, float]]:
        return {'success': {'mean': value}, **{name: {'mean': 1.0} for name in METRICS}}
    return {'minutes': minutes, 'transitions': 100, 'updates': 10, 'score': score,
            'nothing': metrics(success), 'best': {
                'minutes': minutes, **{mask: metrics(value) for mask, value in masked.items()}}}


RISING = [snapshot(1, 0.0, 0.0), snapshot(2, 0.6, 5.0), snapshot(3, 0.9, 20.0),
          snapshot(5, 0.5, 10.0), snapshot(10, 0.7, 15.0)]


@pytest.mark.parametrize(('minutes', 'best', 'newest'), [
    (1, 1, 1), (4, 3, 3), (5, 3, 5), (10, 3, 10)])
def test_the_best_of_the_last_three_drives(minutes: float, best: float, newest: float) -> None:
    picked, last = chosen(RISING, minutes), current(RISING, minutes)
    assert picked is not None and last is not None
    assert (picked['minutes'], last['minutes']) == (best, newest)
    assert chosen(RISING, 0.5) is None


def test_the_time_to_a_success_is_the_first_one_or_censored() -> None:
    assert minutes_to(RISING, 0.8) == 3
    assert minutes_to(RISING[:2], 0.8) is None  # it goes on
    assert minutes_to([*RISING[:2], RISING[1] | {'minutes': CENSORED}], 0.8) == CENSORED


def test_a_claim_is_the_median_and_tells_the_worst_seed() -> None:
    found = {f'ours-clean-{seed}': [snapshot(5, success, 1.0)]
             for seed, success in enumerate((1.0, 0.96, 0.5))}
    (claim, *_) = claims_of(found)
    assert (claim['value'], claim['holds']) == (0.96, True)
    assert 'median of 3 seeds (worst 0.5)' in claim['name']
    # What no seed has reached yet is not judged.
    assert not any('20 minutes' in one['name'] for one in claims_of(found))


def test_the_time_is_compared_with_the_peers() -> None:
    ours = {f'ours-clean-{seed}': RISING for seed in range(3)}
    theirs = {'sb3-clean-0': [snapshot(30, 0.1, 0.0)]}
    claim = next(one for one in claims_of(ours | theirs) if 'time to' in one['name'])
    assert (claim['value'], claim['goal'], claim['holds']) == (0.1, 0.1, True)


def test_collisions_are_compared_with_pursuit_at_the_same_speed() -> None:
    def driven(speed: float, collisions: float, minutes: float = 0) -> dict[str, Any]:
        made = snapshot(minutes, 1.0, 0.0)
        made['nothing'] |= {'mean_speed': {'mean': speed},
                            'collisions_per_km': {'mean': collisions}}
        return made
    found = {'traffic-cluttered-0': [driven(7.0, 1.0, minutes=20)],
             'pursuit_traffic_6-cluttered-0': [driven(6.0, 1.0)],
             'pursuit_traffic_8-cluttered-0': [driven(8.0, 3.0)]}
    claim = next(one for one in claims_of(found) if 'the same mean speed' in one['name'])
    assert (claim['value'], claim['holds']) == (0.5, True)
    # Without pursuit's drives there is nothing to compare with.
    del found['pursuit_traffic_6-cluttered-0'], found['pursuit_traffic_8-cluttered-0']
    assert not any('the same mean speed' in one['name'] for one in claims_of(found))


def test_the_page_has_a_row_for_each_mask(tmp_path: Path) -> None:
    found = {'ours-cluttered-0': [*RISING[:-1], snapshot(10, 0.7, 15.0, vector=0.4, image=0.1)],
             'pursuit-cluttered-0': [snapshot(0, 1.0, 0.0)]}
    rows = [row for row in table_of(found) if row['algorithm'] == 'ours' and row['minutes'] == 10]
    assert {row['sees']: row['success'] for row in rows} == {
        'everything': 0.9, 'vector zeroed': 0.4, 'black images': 0.1}
    assert 'pure pursuit' in markdown(table_of(found), claims_of(found))
    draw(found, tmp_path / 'learning.png')
    assert cv2.imread(str(tmp_path / 'learning.png')) is not None


def test_recipes_are_sorted_by_what_they_reach() -> None:
    better = snapshot(4, 0.9, 1.0, vector=0.5)
    better['nothing']['mean_return'] = {'mean': 2.0}
    rows = recipe_rows({'default-cluttered-0': [snapshot(4, 0.8, 1.0)],
                        'one-step-returns-cluttered-0': [better],
                        'one-step-returns-cluttered-1': [better]})
    assert [row['recipe'] for row in rows] == ['one-step-returns', 'default']
    assert rows[0]['seeds'] == 2 and rows[0]['success, vector zeroed'] == 0.5
