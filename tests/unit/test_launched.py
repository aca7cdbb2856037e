"""What a launch file tells the nodes; without `launch`, which not every machine has."""
from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.launched import SEED_STEP, Told, fleet_configs, fleet_names


def parameter_file(folder: Path, **nodes: dict[str, object]) -> str:
    """Write a parameter file that sets this and nothing else."""
    path = folder / 'mine.yaml'
    path.write_text(yaml.safe_dump(
        {f'/**/{node}': {'ros__parameters': values} for node, values in nodes.items()}))
    return str(path)


def test_training_without_a_word_is_that_of_the_command_line() -> None:
    values = Told('embedded', 'hero').training().values()
    assert values == Config.shipped().for_training(
        'embedded', 'hero', map_name='train/roads').values()


def test_what_is_said_last_counts(tmp_path: Path) -> None:
    file = parameter_file(
        tmp_path, environment_node={'episodes': {'max_speed': 3.0, 'max_offset': 0.1}},
        learner_node={'seed': 4, 'threads': 2}, simulator_node={'world': {'map': 'town'}})
    told = Told('embedded', 'hero', seed='7', params_file=file, config='learner_node.threads=3')
    values = told.training(steps='50', ranks='2').values()
    assert values['environment_node']['episodes.max_offset'] == 0.1  # the file
    assert values['environment_node']['episodes.max_speed'] == 8.0   # the profile
    assert values['learner_node']['seed'] == 7                       # the argument
    assert values['learner_node']['threads'] == 3                    # config
    assert values['learner_node']['total_transitions'] == 50
    assert values['learner_node']['ranks'] == 2
    assert values['simulator_node']['world.map'] == 'town'


def test_the_update_gives_way_where_something_drives_and_not_on_a_computer_of_its_own() -> None:
    def priority(profile: str, config: str = '', apart: bool = False) -> str:
        told = Told(profile, 'hero', config=config)
        return str(told.training(apart=apart).values()['learner_node']['priority'])

    assert {priority(one) for one in ('carla', 'vehicle', 'vehicle_in_the_loop')} == {'idle'}
    assert priority('embedded') == 'low'
    assert priority('vehicle', apart=True) == 'normal'
    assert priority('vehicle', 'learner_node.priority=low', apart=True) == 'low'


def test_what_of_the_file_does_not_count_is_said(tmp_path: Path) -> None:
    file = parameter_file(tmp_path, environment_node={'episodes': {'max_speed': 3.0}})
    (words,) = Told('embedded', 'hero', params_file=file).overruled()
    assert 'episodes.max_speed = 8.0 by profile embedded, not 3.0' in words
    told = Told('embedded', 'hero', params_file=file, config='episodes.max_speed=2.0')
    assert told.overruled() == []
    assert told.training().values()['environment_node']['episodes.max_speed'] == 2.0


def test_a_policy_drives_with_the_settings_it_was_trained_with(tmp_path: Path) -> None:
    told = Told('embedded', 'hero', params_file=parameter_file(
        tmp_path, control_node={'command': {'speed_limit': 2.5}}))
    values = told.driving('pretrained', recording=False).values()
    assert values['policy_node']['weights'].endswith('pretrained')
    assert values['policy_node']['driver'] == 'policy'
    assert not values['policy_node']['training']
    assert values['control_node']['command.speed_limit'] == 2.5  # slower than it learned
    assert values['environment_node']['wait_for'] == 2
    assert told.driving('pursuit', recording=True).values()['environment_node']['wait_for'] == 3


def test_who_learns_from_a_simulated_camera_is_trained_with_that_one() -> None:
    config = 'world.camera.width=640 world.camera.height=360 world.camera.pitch=4.0'
    told = Told('embedded', 'hero', config=config)
    for chosen in (told.training(), told.driving('pursuit', recording=False)):
        camera = chosen.settings['environment_node'].camera.training
        assert (camera.width, camera.height) == (640, 360)
        assert math.degrees(camera.pitch) == pytest.approx(4.0)
    # A learned one keeps the camera that it knows, and the difference is told.
    learned = told.driving('pretrained', recording=False)
    assert learned.settings['environment_node'].camera.training.width == 320
    assert any('aspect of 1.78' in one for one in told.camera_words('pretrained', learned))
    turned = Told('embedded', 'hero', config=f'{config} camera.calibrate=true').training()
    assert turned.settings['environment_node'].camera.training.width == 320


def test_a_vehicle_is_one_argument_away() -> None:
    simulated, real = (Told(profile, 'hero').driving('pretrained', recording=True).values()
                       for profile in ('embedded', 'vehicle'))
    assert real['policy_node'].pop('trust.memory')  # what was accepted outlives the node
    assert not simulated['policy_node'].pop('trust.memory')
    assert simulated['policy_node'] == real['policy_node']
    assert real['environment_node']['image_transport'] == 'compressed'
    assert not real['environment_node']['resets']
    assert real['control_node']['sensor_timeout'] > 0.0


def test_a_fleet_has_names_seeds_and_bags_of_its_own(tmp_path: Path) -> None:
    vehicles = fleet_names('car', '3')
    assert vehicles == ['car_1', 'car_2', 'car_3']
    config = Told('embedded', vehicles[0], seed='7').training()
    values = {name: one.values() for name, one in
              fleet_configs(config, vehicles, tmp_path).items()}
    for node, key in (('simulator_node', 'seed'), ('environment_node', 'episodes.seed'),
                      ('policy_node', 'seed')):
        assert [values[one][node][key] for one in vehicles] == [
            7, 7 + SEED_STEP, 7 + 2 * SEED_STEP]
    assert values['car_2']['environment_node']['vehicle'] == 'car_2'
    assert values['car_2']['recorder_node']['bag'] == str(tmp_path / 'bags' / 'car_2')
    assert values['car_1']['learner_node'] == values['car_3']['learner_node']


@pytest.mark.parametrize('count', ['0', '-1', ''])
def test_a_fleet_of_none_is_refused(count: str) -> None:
    with pytest.raises(ValueError, match='give 1 or more'):
        fleet_names('car', count)


def test_who_looks_on_is_told_of_the_sessions_camera_and_steering(tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    Config.shipped().with_values({
        'simulator_node': {'world.camera.fov': 60.0, 'world.camera.pitch': 12.0},
        'control_node': {'command.steering_range': 0.5}}).write(file, 'of a run')
    seen = Told('embedded', 'hero', params_file=str(file)).viewing().settings['inspection_node']
    assert math.degrees(seen.view.fov) == pytest.approx(60.0, abs=1e-3)
    assert math.degrees(seen.view.pitch) == pytest.approx(12.0, abs=1e-3)
    assert seen.prediction.steering_angle == pytest.approx(0.3)
    chosen = Told('embedded', 'hero', config='inspection_node.view.fov=1.0').viewing()
    assert chosen.settings['inspection_node'].view.fov == 1.0
    assert not Told('vehicle', 'hero').viewing().settings['inspection_node'].tf
