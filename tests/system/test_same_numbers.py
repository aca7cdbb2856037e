"""The drive without messages against the drive through the real nodes."""
from __future__ import annotations

from pathlib import Path

import pytest

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.evaluation import Candidate, drive_in_process
from av_td3_ros.cli.node_evaluation import Evaluation
from av_td3_ros.driving.episode.record import EpisodeRecord

EPISODES, SEED = 4, 11
SMALL = ('episodes.min_length=40', 'episodes.max_length=60', 'world.camera.width=96',
         'world.camera.height=72', 'world.traffic.count=6', 'world.appearance.world=cluttered',
         'driving.termination.max_steps=200')
# So slow and so many that pursuit, which brakes for nobody, comes close to them.
CROWDED = ('world.traffic.count=12', 'world.traffic.desired_speed=2.0', 'episodes.max_length=120')


def differences(one: EpisodeRecord, other: EpisodeRecord) -> list[str]:
    """Say in what two records of an episode differ, and from which step on."""
    before, after = one.metrics.to_dict(), other.metrics.to_dict()
    found = [f'episode {one.index}: {key} {before[key]!r}, {after[key]!r}'
             for key in before if before[key] != after[key]]
    both = enumerate(zip(one.path, other.path, strict=False))
    first = next((step for step, (here, there) in both if here != there), None)
    if first is not None or len(one.path) != len(other.path):
        found.append(f'episode {one.index}: paths of {len(one.path)} and {len(other.path)} points '
                     f'differ from {first} on: {one.path[first or 0]}, {other.path[first or 0]}')
    if one.infractions != other.infractions:
        found.append(f'episode {one.index}: {one.infractions}, {other.infractions}')
    return found


@pytest.mark.parametrize(('driver', 'options'), [
    ('pursuit', CROWDED), ('random', ('driving.termination.max_lateral=6.0',)),
    ('policy', ('driving.termination.stuck_steps=40',))])
def test_both_give_the_same_numbers_to_the_last_digit(
        driver: str, options: tuple[str, ...], domain: int, tmp_path: Path) -> None:
    config = Config.shipped().for_training('embedded', 'ego_vehicle').with_options(
        (*SMALL, *options))
    evaluation = Evaluation(
        config, tmp_path, episodes=EPISODES, seed=SEED, profile='embedded',
        vehicle='ego_vehicle', domain=domain, log_level='info', check_interrupt=lambda: None)
    candidate = Candidate(driver, driver)
    through_nodes = evaluation.drive(candidate, 'loop')
    alone = drive_in_process(config, candidate, 'loop', EPISODES, SEED)
    assert [difference for one, other in zip(through_nodes, alone, strict=True)
            for difference in differences(one, other)] == []
    assert through_nodes == alone
    assert [one.index for one in alone] == list(range(EPISODES))
    assert all(len(one.path) == one.metrics.steps + 1 > 20 for one in alone)
    assert any(one.infractions for one in alone)
    if options == CROWDED:
        assert min(one.metrics.min_ttc or 9.0 for one in alone) < 2.0
