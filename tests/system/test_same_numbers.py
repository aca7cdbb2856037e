"""The drive without messages against the drive through the real nodes."""
from __future__ import annotations

from pathlib import Path

import pytest

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.evaluation import Candidate, drive_in_process
from av_td3_ros.cli.node_evaluation import Evaluation

EPISODES, SEED = 4, 11
SMALL = ('episodes.min_length=40', 'episodes.max_length=60', 'world.camera.width=96',
         'world.camera.height=72', 'world.traffic.count=6', 'world.appearance.world=cluttered',
         'driving.termination.max_steps=200')
# So slow and so many that pursuit, which brakes for nobody, comes close to them.
CROWDED = ('world.traffic.count=12', 'world.traffic.desired_speed=2.0', 'episodes.max_length=120')


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
    assert through_nodes == alone
    assert [one.index for one in alone] == list(range(EPISODES))
    assert all(len(one.path) == one.metrics.steps + 1 > 20 for one in alone)
    assert any(one.infractions for one in alone)
    if options == CROWDED:
        assert min(one.metrics.min_ttc or 9.0 for one in alone) < 2.0
