"""The reward's picture and page: drawn, and told as they are."""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import pytest

from av_td3_ros.cli import reward_plots
from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.driving.episode.reward import RewardSettings
from av_td3_ros.paths import config_directory

PAGE = config_directory().parent / 'docs' / 'reward.md'


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    reward_plots.add_arguments(parser)
    return reward_plots.run(parser.parse_args(arguments))


def test_the_page_tells_the_numbers_of_the_shipped_reward(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / 'reward.md'
    page.write_text(PAGE.read_text())
    command('--out', str(tmp_path / 'reward.png'), '--page', str(page))
    assert page.read_text() == PAGE.read_text(), (
        'write it anew: av-td3 reward --out docs/images/reward.png --page docs/reward.md')
    assert '| standing still | stuck | 60 |' in capsys.readouterr().out
    drawn = cv2.imread(str(tmp_path / 'reward.png'))
    shipped = cv2.imread(str(PAGE.parent / 'images' / 'reward.png'))
    assert drawn.shape == shipped.shape and (drawn != shipped).mean() < 0.01


def test_settings_change_table_and_picture(tmp_path: Path) -> None:
    wild = DrivingSettings(reward=RewardSettings(lane=3.0, failure_penalty=0.0))
    assert '| lane | `driving.reward.lane` | 3 | -0.51 | 0 |' in reward_plots.terms_table(wild)
    pictures = [reward_plots.draw_reward(one, tmp_path / name).read_bytes()
                for one, name in ((wild, 'wild.png'), (DrivingSettings(), 'shipped.png'))]
    assert pictures[0] != pictures[1]


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match='no <!-- terms -->'):
        reward_plots.with_tables('# Reward\n', {'terms': 'x'})
    page = '<!-- a -->\nold\n<!-- end of a -->\nrest\n'
    assert reward_plots.with_tables(page, {'a': 'new'}) == page.replace('old', 'new')
