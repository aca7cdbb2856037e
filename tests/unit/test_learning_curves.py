"""The learning curves of several runs: what is drawn, where the mean holds, what is refused."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from av_td3_ros.cli import learning_curves
from av_td3_ros.cli.learning_curves import (
    CURVES,
    chosen_curves,
    common_grid,
    read_groups,
    spread,
)

BLUE, ORANGE = (178, 114, 0), (0, 159, 230)  # as OpenCV has them


def write_run(folder: Path, gain: float = 1.0, count: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict] = []
    for number in range(count):
        common = {'wall_time': 2.0 * number, 'transitions': 100 * number}
        records.append({'kind': 'learner', **common, 'updates': 40 * number,
                        'updates_per_second': 20.0, 'metrics': {} if not number else {
                            'q1_mean': gain * number, 'q_policy_mean': 1.1 * gain * number,
                            'critic_loss': 1.0 / number, 'saturated_fraction': 0.01}})
        records.append({'kind': 'episode', **common, 'return': gain * number, 'mean_speed': 5.0,
                        'route_completion': number / count, 'success': number > 20,
                        'cross_track_rms': 0.5, 'result': 'time_limit'})
    records.append({'kind': 'episode', 'wall_time': 2.0 * count, 'transitions': 100 * count,
                    'return': -1000.0, 'result': 'interrupted'})
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(one) + '\n' for one in records))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / f'run{number}', 1.0 + 0.1 * number, 40 + 10 * number)
            for number in range(6)]


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    learning_curves.add_arguments(parser)
    return learning_curves.run(parser.parse_args([str(one) for one in arguments]))


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, f'{path} is no picture'
    return image


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    return int((picture(path) == colour).all(axis=2).sum())


def only(folder: Path) -> learning_curves.Run:
    (run,), = read_groups([str(folder)]).values()
    return run


def test_runs_are_drawn_into_the_current_directory(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(*runs[:3]) == 0
    assert capsys.readouterr().out == 'learning curves: learning_curves.png\n'
    assert picture(tmp_path / 'learning_curves.png').shape[1] > 1600
    assert pixels(tmp_path / 'learning_curves.png', BLUE) > 1000


@pytest.mark.parametrize('x', ['transitions', 'updates', 'wall_time'])
def test_groups_are_told_apart_by_colour(runs, tmp_path, x):
    path = tmp_path / 'new' / 'curves.png'
    one = f'default={runs[0]},{runs[1]}'
    assert command(one, '--x', x, '--out', path) == 0
    assert pixels(path, ORANGE) == 0 and pixels(path, BLUE) > 1000
    assert command(one, f'paper={runs[2]}', '--x', x, '--out', path) == 0
    assert pixels(path, ORANGE) > 100


def test_one_run_is_a_line(runs, tmp_path):
    assert command(runs[0], '--metric', 'return', '--out', tmp_path / 'a.png') == 0
    assert pixels(tmp_path / 'a.png', BLUE) > 100


def test_any_number_of_the_records_can_be_drawn(runs, tmp_path):
    curves = chosen_curves(['critic_loss', 'q'], [only(runs[0])])
    assert [curve.title for curve in curves] == ['Critic loss', 'Q']
    assert command(runs[0], '--metric', 'critic_loss', '--out', tmp_path / 'a.png') == 0


def test_without_names_everything_is_drawn_that_there_is(runs, tmp_path):
    assert chosen_curves([], [only(runs[0])]) == list(CURVES.values())
    (tmp_path / 'metrics.jsonl').write_text(
        '{"kind": "episode", "transitions": 5, "return": 1.0}\nno JSON')
    assert chosen_curves([], [only(tmp_path)]) == [CURVES['return']]
    assert command(tmp_path, '--out', tmp_path / 'a.png') == 0


def test_records_without_numbers_stop_nothing(runs, tmp_path):
    write_run(tmp_path / 'odd')
    with (tmp_path / 'odd' / 'metrics.jsonl').open('a') as file:
        file.write('{"kind": "episode"}\n{"kind": "learner", "metrics": null, "updates": null}\n'
                   '{"kind": "episode", "transitions": 7, "return": NaN}\n{"kind": "episo')
    assert command(runs[0], tmp_path / 'odd', '--out', tmp_path / 'a.png') == 0


def test_an_unknown_metric_is_refused_with_the_nearest_names(runs):
    with pytest.raises(ValueError, match=r'--metric crictic_loss: .*critic_loss'):
        command(runs[0], '--metric', 'crictic_loss')


def test_what_is_no_run_is_named(runs, tmp_path):
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(ValueError, match=r'empty is no run: it has no metrics\.jsonl'):
        command(runs[0], empty)
    with pytest.raises(ValueError, match=r'nowhere is not there'):
        command(f'name={runs[0]},{tmp_path / "nowhere"}')
    (empty / 'metrics.jsonl').touch()
    with pytest.raises(ValueError, match=r'empty: metrics\.jsonl holds no records'):
        command(empty)
    for wrong in ('name=', f'={runs[0]}'):
        with pytest.raises(ValueError, match='write NAME=DIR,DIR'):
            command(wrong)


def test_errors_are_one_line_and_exit_status_1(runs, monkeypatch, capsys, tmp_path):
    from av_td3_ros.cli.main import main

    monkeypatch.setattr(sys, 'argv', ['av-td3', 'plot', str(tmp_path / 'nowhere')])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count('\n') == 1
    assert said.startswith(f'av-td3 plot: {tmp_path / "nowhere"} is not there')


def test_arguments_form_groups(runs, tmp_path):
    groups = read_groups([str(runs[0]), f'a={runs[1]},{runs[2]}', f'a={runs[3]}'])
    assert {name: [run.folder for run in some] for name, some in groups.items()} == {
        'a': [runs[1], runs[2], runs[3]], 'run0': [runs[0]]}
    assert list(read_groups([str(runs[0]), str(runs[1])])) == ['runs']
    odd = write_run(tmp_path / 'x=1')
    assert [run.folder for run in read_groups([str(odd)])['x=1']] == [odd]


def test_points_are_the_numbers_of_the_records_in_order(runs):
    run = only(runs[0])
    at, values = run.points('return', 'transitions')
    assert at.tolist() == [100.0 * number for number in range(40)]  # none was interrupted
    assert values.tolist() == [float(number) for number in range(40)]
    at, values = run.points('q1_mean', 'wall_time')
    assert (at[0], values[0], len(at)) == (2.0, 1.0, 39)
    assert run.points('success', 'transitions')[1].tolist() == [0.0] * 21 + [1.0] * 19
    assert [len(column) for column in run.points('unheard_of', 'updates')] == [0, 0]


def test_episodes_get_their_updates_from_the_clock(runs):
    at, _ = only(runs[0]).points('return', 'updates')
    assert at.tolist() == pytest.approx([40.0 * number for number in range(40)])


def test_the_mean_holds_where_every_run_has_data():
    lines = [(np.array([0.0, 10.0]), np.array([0.0, 10.0])),
             (np.array([4.0, 20.0]), np.array([4.0, 20.0]))]
    grid, values = common_grid(lines)
    assert (grid[0], grid[-1]) == (4.0, 10.0)
    assert values == pytest.approx(np.stack([grid, grid]))
    apart = [lines[0], (np.array([11.0, 12.0]), np.array([1.0, 1.0]))]
    assert len(common_grid(apart)[0]) == 0
    assert len(common_grid([])[0]) == 0


def test_the_band_is_the_extremes_of_a_few_and_the_quartiles_of_many():
    values = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
    assert [float(end[0]) for end in spread(values[:4])] == [0.0, 3.0]
    assert [float(end[0]) for end in spread(values)] == [1.0, 3.0]


def test_the_legend_says_which_band_it_is(runs):
    groups = read_groups([f'few={runs[0]},{runs[1]}', 'many=' + ','.join(map(str, runs)),
                          f'one={runs[0]}'])
    assert [handle.get_label() for handle in learning_curves._legend(groups)] == [
        'few: mean of 2 runs, band: min-max', 'many: mean of 6 runs, band: 25-75 %', 'one']
