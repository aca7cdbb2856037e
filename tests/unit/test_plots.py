"""The plots of a run folder: real files, read again as pictures."""
from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from av_td3_ros.cli.pictures.evaluation_plots import draw_paths, lane_strips
from av_td3_ros.cli.pictures.plots import (
    draw_learning_curve,
    draw_losses,
    draw_policy,
    read_evaluation,
    read_metrics,
    running_mean,
)
from av_td3_ros.cli.report import draw_all

NAMES = ['learning_curve', 'losses', 'policy', 'evaluation', 'completion', 'paths']


def learner(number, **metrics):
    return {'kind': 'learner', 'wall_time': float(number), 'updates': 10 * number,
            'transitions': 20 * number, 'updates_per_second': 10.0, 'policy_version': number // 3,
            'metrics': {'critic_loss': 1.0 / (number + 1), 'actor_loss': -0.1 * number,
                        'q1_mean': 1.0, 'q1_std': 0.5, 'q2_mean': 1.1, 'target_q_mean': 1.2,
                        'q_policy_mean': 1.3, 'critic_grad_norm': 2.0, 'actor_grad_norm': 0.1,
                        'saturated_fraction': 0.02, **metrics}}


def episode(number, result='off_road'):
    return {'kind': 'episode', 'wall_time': float(number), 'transitions': 50 * number,
            'result': result, 'return': 2.0 * number, 'route_completion': number / 40}


def driver(result, path):
    return {'episodes': [{'result': result, 'path': path}], 'metrics': {
        'success': {'mean': 0.5, 'low': 0.2, 'high': 0.8},
        'mean_return': {'mean': -3.0, 'low': -5.0, 'high': -1.0},
        'min_ttc': {'mean': None, 'low': None, 'high': None}}}


def write_metrics(run, records, tail=''):
    text = ''.join(json.dumps(record) + '\n' for record in records)
    (run / 'metrics.jsonl').write_text(text + tail)


def picture(path):
    image = cv2.imread(str(path))
    assert image is not None, f'{path} is no picture'
    return image


def pixels(path, colour):
    """Return how many pixels have exactly this '#rrggbb' colour."""
    bgr = [int(colour[at:at + 2], 16) for at in (5, 3, 1)]
    return int((picture(path) == bgr).all(axis=2).sum())


def test_records_are_read_up_to_a_line_that_was_cut(tmp_path):
    write_metrics(tmp_path, [learner(1), episode(2), {'kind': 'other'}, learner(3)],
                  tail='[1, 2]\n{"kind": "learner", "upda')
    learners, episodes = read_metrics(tmp_path)
    assert [record['updates'] for record in learners] == [10, 30]
    assert [record['transitions'] for record in episodes] == [100]


def test_bytes_that_are_no_text_do_not_stop_the_reader(tmp_path):
    write_metrics(tmp_path, [learner(1)])
    with (tmp_path / 'metrics.jsonl').open('ab') as file:
        file.write(b'\xff\x00{"kind"')
    assert len(read_metrics(tmp_path)[0]) == 1


def test_a_run_that_wrote_nothing_has_no_records(tmp_path):
    assert read_metrics(tmp_path) == ([], [])
    assert read_evaluation(tmp_path) == {}


@pytest.mark.parametrize('text', ['{"map": ', '[]'])
def test_a_broken_evaluation_is_named(tmp_path, text):
    (tmp_path / 'evaluation.json').write_text(text)
    with pytest.raises(ValueError, match=r'evaluation\.json.*evaluate the run again'):
        read_evaluation(tmp_path)


def test_running_mean_by_hand():
    assert running_mean([1.0, 2.0, 6.0, 4.0], window=3).tolist() == [1.0, 1.5, 3.0, 4.0]
    assert running_mean([], window=3).tolist() == []


def test_every_plot_is_drawn_for_an_empty_run(tmp_path):
    paths = draw_all(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f'plots/{name}.png' for name in NAMES]
    for path in paths:
        assert picture(path).shape[1] > 800


def test_every_plot_changes_with_its_data(tmp_path):
    empty = {path.stem: picture(path) for path in draw_all(tmp_path)}
    write_metrics(tmp_path, [*map(learner, range(40)), *map(episode, range(30))])
    (tmp_path / 'evaluation.json').write_text(json.dumps({
        'map': 'nowhere', 'learned': driver('off_road', [[0, 0, 5], [30, 10, 8]])}))
    for path in draw_all(tmp_path):
        image = picture(path)
        assert image.shape != empty[path.stem].shape or (image != empty[path.stem]).any()


def test_the_learning_curve_marks_how_episodes_ended(tmp_path):
    write_metrics(tmp_path, [episode(number) for number in range(1, 10)])
    failed = pixels(draw_learning_curve(tmp_path), '#009e73')
    write_metrics(tmp_path, [episode(number, 'route_completed') for number in range(1, 10)])
    assert failed == 0
    assert pixels(draw_learning_curve(tmp_path), '#009e73') > 20


@pytest.mark.parametrize('records', [
    [learner(0)],
    [learner(1, critic_loss=math.nan, actor_loss=math.inf), learner(2, critic_loss=-1.0),
     learner(3, critic_loss=0.0, q1_std=None), {'kind': 'learner'},
     {'kind': 'learner', 'metrics': None, 'updates': None, 'wall_time': 'late'}]])
def test_odd_learner_records_do_not_stop_a_plot(tmp_path, records):
    write_metrics(tmp_path, records)
    for draw in (draw_losses, draw_policy):
        assert picture(draw(tmp_path)).size


def test_odd_episode_records_do_not_stop_a_plot(tmp_path):
    write_metrics(tmp_path, [
        {'kind': 'episode'}, {'kind': 'episode', 'transitions': 5, 'return': None},
        {'kind': 'episode', 'transitions': 5, 'return': 1.0, 'result': 'unheard of'},
        {'kind': 'episode', 'transitions': None, 'return': 'much', 'result': None}])
    assert picture(draw_learning_curve(tmp_path)).size


def test_paths_are_drawn_on_the_roads_of_their_map(tmp_path):
    def roads(map_name):
        (tmp_path / 'evaluation.json').write_text(json.dumps({
            'map': map_name, 'learned': driver('stuck', [[0, 0, 5], [60, 40, 8], [90, 80, 3]])}))
        return pixels(draw_paths(tmp_path), '#e3e6eb')

    assert roads('nowhere') == 0
    assert roads('town') > 5000


def test_maps_of_an_evaluation_each_get_their_row(tmp_path):
    evaluation = {'map': 'loop', 'learned': driver('stuck', [[0, 0, 5], [60, 40, 8]]),
                  'pursuit': driver('route_completed', [[0, 0, 5], [60, 40, 8]])}
    (tmp_path / 'evaluation.json').write_text(json.dumps(evaluation))
    one_row = picture(draw_paths(tmp_path)).shape[0]
    evaluation['pursuit']['episodes'][0]['map'] = 'winding'
    (tmp_path / 'evaluation.json').write_text(json.dumps(evaluation))
    assert picture(draw_paths(tmp_path)).shape[0] > 1.7 * one_row


@pytest.mark.parametrize('paths', [
    [None], [[[0, 0, 1], 'x']],
    [[], [[1.0, 2.0]], [[1, 2, 3]], [[0, 0, None], [1, 1, 2]], [[5, 5, 0], [5, 5, 0]]]])
def test_odd_paths_do_not_stop_the_plot(tmp_path, paths):
    (tmp_path / 'evaluation.json').write_text(json.dumps({'map': 'nowhere', 'learned': {
        'episodes': [{'result': '', 'path': path} for path in paths]}}))
    assert picture(draw_paths(tmp_path)).size


def test_lane_strips_cover_the_lanes(tmp_path):
    strips = lane_strips('loop')
    assert strips.shape[1:] == (4, 2)
    across = np.linalg.norm(strips[:, 0] - strips[:, 3], axis=1)
    assert across == pytest.approx(np.full(len(strips), 3.5))
    assert lane_strips('nowhere') is None
    assert lane_strips('') is None
    broken = tmp_path / 'broken.xodr'
    broken.write_text('<OpenDRIVE>')
    assert lane_strips(str(broken)) is None
