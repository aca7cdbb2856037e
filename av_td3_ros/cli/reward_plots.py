"""`av-td3 reward`: draw the shape of every reward term and tell what whole drives are worth."""
from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.pictures.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, STYLE
from av_td3_ros.driving.episode.episode import DrivingSettings
from av_td3_ros.driving.episode.reward import Situation, bounds, reward
from av_td3_ros.driving.episode.termination import COLLISION, OFF_ROAD, ROUTE_COMPLETED
from av_td3_ros.simulator.example_drives import TERMS, ExampleDrive, example_drives

DT = 0.05  # s between two steps
SAMPLES = 601
Change = Callable[[float], Mapping[str, float]]


def draw_reward(driving: DrivingSettings, path: Path) -> Path:
    """Draw each term over what it depends on, as weighted and scaled, with its bounds."""
    target, terms = driving.target_speed, driving.reward
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 7.4), layout='constrained')
        progress, efficiency, lane, comfort, proximity, failure = figure.subplots(2, 3).flat
        speeds = np.linspace(-1.5 * target, 2.5 * target, SAMPLES)
        for colour, reason, label in ((BLUE, '', 'on the way'),
                                      (GREEN, ROUTE_COMPLETED, 'at the step that completes it')):
            _curve(progress, driving, 'progress', speeds,
                   lambda speed: {'progress': speed * DT}, colour, label, reason)
        _finish(progress, driving, 'progress', 'Progress', 'speed along the route [m/s]')
        _curve(efficiency, driving, 'efficiency', speeds, lambda speed: {'speed': speed}, BLUE)
        _finish(efficiency, driving, 'efficiency', 'Efficiency', 'speed [m/s]')
        reach = 2.0 * terms.half_lane_width
        for colour, turned in ((BLUE, 0.0), (SKY, 0.5), (ORANGE, 1.0)):
            _curve(lane, driving, 'lane', np.linspace(-reach, reach, SAMPLES),
                   lambda left, turned=turned: {  # type: ignore[misc]
                       'lateral': left, 'heading_error': turned},
                   colour, f'heading error {turned:g} rad')
        _finish(lane, driving, 'lane', 'Lane', 'lateral error [m]')
        widest = 1.3 * max(terms.jerk_limit, terms.lateral_acceleration_limit)
        for colour, name, label in (
                (BLUE, 'jerk', 'jerk [m/s³]'),
                (ORANGE, 'lateral_acceleration', 'lateral acceleration [m/s²]')):
            _curve(comfort, driving, 'comfort', np.linspace(0.0, widest, SAMPLES),
                   lambda value, name=name: {name: value}, colour, label)  # type: ignore[misc]
        _finish(comfort, driving, 'comfort', 'Comfort', 'jerk, lateral acceleration')
        farthest = 1.5 * max(terms.safe_gap, terms.safe_time)
        for colour, name, label in ((BLUE, 'gap', 'gap [m]'),
                                    (ORANGE, 'time_to_collision', 'time to collision [s]')):
            _curve(proximity, driving, 'safety', np.linspace(0.0, farthest, SAMPLES),
                   lambda value, name=name: {name: value}, colour, label)  # type: ignore[misc]
        _finish(proximity, driving, '', 'Safety: proximity', 'gap, time to collision')
        impacts = np.linspace(0.0, 1.5 * target, SAMPLES)
        for colour, reason, label in ((RED, COLLISION, 'collision'),
                                      (PURPLE, OFF_ROAD, 'off the road, stuck')):
            _curve(failure, driving, 'safety', impacts,
                   lambda speed: {'impact_speed': speed}, colour, label, reason)
        _finish(failure, driving, 'safety', 'Safety: the step that fails', 'impact speed [m/s]')
        figure.supylabel('reward of one step', fontsize=10, color='#3a4250')
        path.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure)
        figure.savefig(path, metadata={'Title': 'reward'})
    return path


def _curve(axes: Axes, driving: DrivingSettings, term: str, at: np.ndarray[tuple[int],
           np.dtype[np.float64]], change: Change, colour: str, label: str = '',
           reason: str = '') -> None:
    """Draw one term over `at`; all but what `change` names is as in a perfect drive."""
    perfect = Situation(dt=DT, progress=driving.target_speed * DT, speed=driving.target_speed,
                        target_speed=driving.target_speed, lateral=0.0, heading_error=0.0,
                        reason=reason)
    axes.plot(at, [getattr(reward(driving.reward, dataclasses.replace(perfect, **change(value))),
                           term) for value in at.tolist()], color=colour, label=label)


def _finish(axes: Axes, driving: DrivingSettings, term: str, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.axhline(0.0, color='#c4cad3', linewidth=0.8, zorder=1)
    for bound in bounds(driving.reward)[term] if term else ():
        axes.axhline(bound, color=GREY, linewidth=1.0, linestyle=':', zorder=1)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend()


def terms_table(driving: DrivingSettings) -> str:
    """Return weights and bounds of the terms as a Markdown table."""
    rows = [f'| {term} | `driving.reward.{term}` | {getattr(driving.reward, term):g} '
            f'| {low:g} | {high:g} |'
            for term, (low, high) in bounds(driving.reward).items() if term != 'total']
    low, high = bounds(driving.reward)['total']
    return '\n'.join([
        '| Term | Weight | Default | Lowest in a step | Highest in a step |',
        '|---|---|---|---|---|', *rows,
        f'| all | `driving.reward.scale` | {driving.reward.scale:g} | {low:g} | {high:g} |'])


def drives_table(drives: Mapping[str, ExampleDrive], gamma: float) -> str:
    """Return what the example drives were worth as a Markdown table."""
    rows = [f'| {one.name} | {one.reason.replace("_", " ")} | {one.steps} '
            f'| {100 * one.completion:.0f} % | '
            + ' | '.join(f'{_shown(one.sums[term]):.2f}' for term in TERMS)
            + f' | {one.return_:.2f} | {one.discounted:.3f} |' for one in drives.values()]
    return '\n'.join([
        f'| Drive | Ends | Steps | Route | {" | ".join(map(str.capitalize, TERMS))} | Return '
        f'| Discounted by {gamma:g} |', '|---|---|---|---|' + '---|' * (len(TERMS) + 2), *rows])


def _shown(value: float) -> float:
    """Return a number for two decimals, without the sign of a zero."""
    return round(value, 2) + 0.0


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """
    Return a Markdown page with new text between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises ValueError for a page without these marks.
    """
    for name, table in tables.items():
        marks = re.compile(f'(<!-- {name} -->\n).*?(<!-- end of {name} -->)', re.DOTALL)
        if marks.search(page) is None:
            raise ValueError(f'the page has no <!-- {name} --> and <!-- end of {name} -->')
        page = marks.sub(lambda match, table=table: (  # type: ignore[misc]
            f'{match[1]}{table}\n{match[2]}'), page)
    return page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--out', type=Path, default=Path('reward.png'), metavar='FILE',
                        help='the picture (%(default)s)')
    parser.add_argument('--page', type=Path, metavar='FILE',
                        help='a Markdown page whose tables are written anew (docs/reward.md)')
    parser.add_argument('--config', action='append', default=[], metavar='KEY=VALUE',
                        help='change a setting, such as driving.reward.lane=1')


def run(options: argparse.Namespace) -> int:
    """Draw the terms, drive the examples and print both tables; return the exit status."""
    settings = Config.shipped().with_options(options.config).settings
    driving = settings['environment_node'].driving
    gamma = settings['learner_node'].td3.gamma
    picture = draw_reward(driving, options.out)
    tables = {'terms': terms_table(driving),
              'drives': drives_table(example_drives(driving, gamma), gamma)}
    print('\n\n'.join([*tables.values(), f'picture: {picture}']))
    if options.page is not None:
        page = options.page.read_text(encoding='utf-8')
        options.page.write_text(with_tables(page, tables), encoding='utf-8')
        print(f'page: {options.page}')
    return 0
