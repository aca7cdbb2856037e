"""What an evaluation hears of the nodes, topic by topic, in whatever order it comes."""
from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from av_td3_ros.cli.node_evaluation import SETTLING, Heard
from av_td3_ros.driving.episode.episode import DrivingSettings

PERIOD = 50_000_000  # ns between two steps
STEPS = 4
SUMMARY = {'result': 'off_road', 'steps': STEPS, 'duration': STEPS * PERIOD * 1e-9,
           'stamp_ns': (1 + STEPS) * PERIOD, 'collisions': 1, 'lane_invasions': 3}


def parts(heard: Heard) -> dict[str, Callable[[], None]]:
    """Return what comes of one episode and the start of the next, by topic."""
    stamps = range(PERIOD, (2 + STEPS) * PERIOD, PERIOD)

    def odometry() -> None:
        for stamp in stamps:
            heard.odometry(stamp, 0.0, 0.0, 1.0)

    def observations() -> None:
        for stamp in stamps:
            heard.observation(stamp, 0.0)

    def collisions() -> None:
        heard.collision(2 * PERIOD, 0.0)  # a touch that is no collision
        heard.collision(3 * PERIOD, 1e6)

    def lane_invasions() -> None:
        heard.lane_invasion(2 * PERIOD, 1)
        heard.lane_invasion(4 * PERIOD, 2)

    return {one.__name__: one for one in (odometry, observations, collisions, lane_invasions)}


@pytest.mark.parametrize('order', list(itertools.permutations(range(4))))
def test_an_episode_is_whole_once_all_of_it_has_come(order: tuple[int, ...]) -> None:
    heard = Heard(1, DrivingSettings())
    come = list(parts(heard).values())
    heard.episode(dict(SUMMARY))
    for after in range(SETTLING):
        heard.odometry((2 + STEPS + after) * PERIOD, 0.0, 0.0, 1.0)
    for index in order:
        assert heard.is_over and not heard.is_complete
        come[index]()
    assert heard.is_complete


def test_what_belongs_to_the_next_episode_completes_none() -> None:
    heard = Heard(1, DrivingSettings())
    heard.episode(dict(SUMMARY))
    for name, come in parts(heard).items():
        if name != 'lane_invasions':
            come()
    for after in range(1, SETTLING + 1):
        heard.odometry((1 + STEPS + after) * PERIOD, 0.0, 0.0, 1.0)
        heard.lane_invasion((1 + STEPS + after) * PERIOD, 3)
    assert not heard.is_complete
