"""The drive without messages against the drive through the real nodes."""
from __future__ import annotations

from pathlib import Path

import pytest

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.evaluate import Evaluation
from av_td3_ros.driving.pursuit import PursuitDriver
from av_td3_ros.simulator.drive import Drive, DriveSettings

EPISODES, SEED = 4, 11
SMALL = ('episodes.min_length=40', 'episodes.max_length=60', 'world.camera.width=96',
         'world.camera.height=72')
# So slow and so many that pursuit, which brakes for nobody, comes close to them.
CROWDED = ('world.traffic.count=12', 'world.traffic.desired_speed=2.0', 'episodes.max_length=120')


@pytest.mark.parametrize('traffic', [('world.traffic.count=3',), CROWDED])
def test_both_give_the_same_numbers_to_the_last_digit(domain: int, tmp_path: Path,
                                                      traffic: tuple[str, ...]) -> None:
    config = Config.shipped().for_training('embedded', 'ego_vehicle').with_options(
        (*SMALL, *traffic))
    evaluation = Evaluation(
        config, tmp_path, map_name='loop', episodes=EPISODES, seed=SEED, profile='embedded',
        vehicle='ego_vehicle', domain=domain, log_level='info', check_interrupt=lambda: None)
    through_nodes = evaluation.drive('pursuit', 'pursuit')['episodes']

    told = evaluation.configured('pursuit', None).settings
    simulator, environment = told['simulator_node'], told['environment_node']
    drive = Drive(DriveSettings(
        simulator.world, environment.episodes, environment.frame, environment.driving,
        told['control_node'].command, environment.obstacles), simulator.seed)
    driver = PursuitDriver(told['policy_node'].pursuit)
    nearest = []
    for index in range(EPISODES):
        step = drive.begin(index)
        driver.reset()
        while not step.is_last:
            step = drive.act(driver.act(step.state))
        alone = drive.summary().to_dict()
        assert {name: through_nodes[index][name] for name in alone} == alone
        assert alone['steps'] > 20
        nearest.append(alone['min_ttc'])
    assert environment.obstacles.measured
    if traffic == CROWDED:
        assert min(one for one in nearest if one is not None) < 2.0
