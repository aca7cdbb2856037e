"""Draw what the training of a run folder left: learning, losses and policy."""
from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from av_td3_ros.cli.progress import MEAN_OF, number
from av_td3_ros.reading import FileError, parse_json, read_json, read_text

# The colours of Okabe and Ito: told apart by readers with any colour vision.
BLUE, ORANGE, GREEN, RED = '#0072b2', '#e69f00', '#009e73', '#d55e00'
PURPLE, SKY, GREY = '#cc79a7', '#56b4e9', '#7f8794'
# How an episode ended: colour, marker and words.
ENDINGS = {
    'route_completed': (GREEN, 'o', 'route completed'),
    'time_limit': (SKY, 's', 'time limit'),
    'off_road': (RED, 'X', 'off the road'),
    'collision': (PURPLE, 'P', 'collision'),
    'stuck': (ORANGE, 'D', 'stuck'),
}
VALIDATION_FILE = 'validation.jsonl'
STYLE: dict[str, Any] = {
    'figure.facecolor': 'white', 'savefig.facecolor': 'white', 'figure.dpi': 110,
    'font.family': 'DejaVu Sans', 'font.size': 10,
    'axes.titlesize': 11, 'axes.titleweight': 'bold', 'axes.titlelocation': 'left',
    'axes.labelcolor': '#3a4250', 'axes.edgecolor': '#c4cad3', 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.grid': True, 'axes.axisbelow': True,
    'grid.color': '#e8ebf0', 'grid.linewidth': 0.8, 'xtick.color': '#5a6372',
    'ytick.color': '#5a6372', 'text.color': '#1c2330', 'legend.framealpha': 0.85,
    'legend.edgecolor': 'none', 'legend.fontsize': 9, 'lines.linewidth': 1.8,
    'lines.solid_capstyle': 'round',
    'figure.constrained_layout.h_pad': 0.11, 'figure.constrained_layout.w_pad': 0.11,
}

Records = list[dict[str, Any]]


def read_metrics(run: str | Path) -> tuple[Records, Records]:
    """
    Return (learner records, episode records) of RUN/metrics.jsonl, in the order written.

    A line that is no JSON object, such as the last one of a run that was killed, is left out; a
    missing file gives two empty lists.
    """
    path = Path(run) / 'metrics.jsonl'
    records: dict[str, Records] = {'learner': [], 'episode': []}
    if path.is_file():
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and record.get('kind') in records:
                records[record['kind']].append(record)
    return records['learner'], records['episode']


def read_validations(run: str | Path) -> Records:
    """Return the records of RUN/validation.jsonl, one a checkpoint, in their order."""
    path = Path(run) / VALIDATION_FILE
    if not path.is_file():
        return []
    # What is not a whole line is still being written.
    whole, _, _ = read_text(path).rpartition('\n')
    records = [parse_json(line, f'{path}, line {number}')
               for number, line in enumerate(whole.splitlines(), 1)]
    if not all(isinstance(one, dict) for one in records):
        raise ValueError(f'{path} holds what is no record of a validation')
    return records


def read_evaluation(run: str | Path) -> dict[str, Any]:
    """
    Return RUN/evaluation.json, empty when there is none yet.

    Raises ValueError naming the file when it holds no JSON object.
    """
    path = Path(run) / 'evaluation.json'
    if not path.is_file():
        return {}
    try:
        evaluation = read_json(path)
    except FileError as error:
        raise ValueError(f'{error}; evaluate the run again') from error
    if not isinstance(evaluation, dict):
        raise ValueError(f'{path} holds a {type(evaluation).__name__}, expected a JSON object; '
                         f'evaluate the run again')
    return evaluation


def draw_learning_curve(run: str | Path) -> Path:
    """Draw return and route completion of every training episode over the transitions."""
    learner, episodes = read_metrics(run)
    validated = _validated(Path(run), learner)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 6.4), layout='constrained')
        above, below = figure.subplots(2, 1, sharex=True)
        _episode_curve(above, episodes, 'return', 'Return of an episode', 1.0)
        _episode_curve(below, episodes, 'route_completion', 'Route completion [%]', 100.0)
        for panel, key, scale in ((above, 'mean_return', 1.0), (below, 'route_completion', 100.0)):
            _validated_curve(panel, validated, key, scale)
        below.set_ylim(-4, 104)
        below.set_xlabel('transitions')
        count_axis(below)
        present = [name for name in ENDINGS
                   if any(record.get('result') == name for record in episodes)]
        handles: list[Any] = [
            Line2D([], [], linestyle='', marker=ENDINGS[name][1], color=ENDINGS[name][0],
                   label=ENDINGS[name][2]) for name in present]
        if episodes:
            handles.append(Line2D([], [], color=BLUE, linewidth=2.4,
                                  label=f'mean of {MEAN_OF} episodes'))
            if validated:
                handles.append(Line2D([], [], color='black', marker='.', linewidth=1.0,
                                      label='checkpoints on other routes (ring: chosen)'))
            figure.legend(handles=handles, loc='outside lower center', ncols=len(handles))
        return save(figure, run, 'learning_curve')


def draw_losses(run: str | Path) -> Path:
    """Draw losses, Q values and gradient norms over the updates."""
    learner, _ = read_metrics(run)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.2), layout='constrained')
        panels = figure.subplots(2, 2, sharex=True)
        critic, actor, q_values, norms = panels.flat
        draw_lines(critic, learner, {'critic_loss': ('critic loss', BLUE)}, log=True)
        critic.set_title('Critic loss')
        draw_lines(actor, learner, {'actor_loss': ('actor loss', ORANGE)})
        actor.set_title('Actor loss')
        draw_lines(q_values, learner, {
            'q1_mean': ('Q1', BLUE), 'q2_mean': ('Q2', SKY), 'target_q_mean': ('target', GREEN),
            'q_policy_mean': ('under the policy', RED)}, bands={'q1_mean': 'q1_std'})
        q_values.set_title('Q values of a batch (band: Q1 ± its deviation)')
        draw_lines(norms, learner, {
            'critic_grad_norm': ('critic', BLUE), 'critic_cnn_grad_norm': ('critic CNN', SKY),
            'critic_grad_norm_clipped': ('critic, clipped', BLUE),
            'actor_grad_norm': ('actor', RED), 'actor_cnn_grad_norm': ('actor CNN', ORANGE),
            'actor_grad_norm_clipped': ('actor, clipped', RED)}, log=True)
        norms.set_title('Gradient norms')
        for panel in panels[1]:
            panel.set_xlabel('updates')
            count_axis(panel)
        return save(figure, run, 'losses')


def draw_policy(run: str | Path) -> Path:
    """Draw how far the actions saturate, which policy version there was, its age and the rate."""
    learner, _ = read_metrics(run)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.2), layout='constrained')
        panels = figure.subplots(2, 2)
        saturation, version, rate, age = panels.flat
        draw_lines(saturation, learner, {'saturated_fraction': ('', RED)}, scale=100.0)
        saturation.set_title('Saturated actions of a batch [%]')
        _share_limits(saturation)
        draw_lines(version, learner, {'policy_version': ('', BLUE)}, x='transitions',
               smooth=False)
        version.set_title('Newest policy version')
        draw_lines(rate, learner, {'updates_per_second': ('', GREEN)}, x='wall_time')
        rate.set_title('Updates per second')
        aged = [{'wall_time': when, 'age': since} for when, since in _policy_age(learner)]
        draw_lines(age, aged, {'age': ('', PURPLE)}, x='wall_time', smooth=False)
        age.set_title('Age of the newest policy [s]')
        for panel, label in ((saturation, 'updates'), (version, 'transitions'),
                             (rate, 'wall time [s]'), (age, 'wall time [s]')):
            panel.set_xlabel(label)
            count_axis(panel)
        for panel in (rate, age):
            panel.set_ylim(bottom=0)
        return save(figure, run, 'policy')


def running_mean(values: Sequence[float] | np.ndarray[Any, Any],
                 window: int = MEAN_OF) -> np.ndarray[Any, Any]:
    """Return the mean of each value and the up to `window` - 1 values before it."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(sums))
    starts = np.maximum(0, ends - window)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _episode_curve(axes: Axes, episodes: Records, key: str, title: str, scale: float) -> None:
    axes.set_title(title)
    points = [(x, scale * y, str(record.get('result', ''))) for record in episodes
              if (x := number(record, 'transitions')) is not None
              and (y := number(record, key)) is not None and math.isfinite(y)]
    if not points:
        no_data(axes)
        return
    for result in dict.fromkeys(point[2] for point in points):
        colour, marker, _ = ENDINGS.get(result, (GREY, '.', ''))
        some = [point for point in points if point[2] == result]
        axes.scatter([point[0] for point in some], [point[1] for point in some], s=22,
                     color=colour, marker=marker, alpha=0.55, linewidths=0, zorder=2)
    axes.plot([point[0] for point in points], running_mean([point[1] for point in points]),
              color=BLUE, linewidth=2.4, zorder=3)


def _validated(run: Path, learner: Records) -> Records:
    """Return the validations of the checkpoints, with the transitions that each had learned."""
    points = [(updates, transitions) for record in learner
              if (updates := number(record, 'updates')) is not None
              and (transitions := number(record, 'transitions')) is not None]
    if not points:
        return []
    best = (run / 'checkpoints' / 'best').resolve().name
    return [{**one, 'transitions': float(np.interp(one['updates'], *zip(*points, strict=True))),
             'is_best': one['checkpoint'] == best} for one in read_validations(run)]


def _validated_curve(axes: Axes, validated: Records, key: str, scale: float) -> None:
    at, values = ([one['transitions'] for one in validated],
                  [scale * one[key] for one in validated])
    axes.plot(at, values, color='black', marker='.', linewidth=1.0, zorder=4)
    axes.scatter([x for x, one in zip(at, validated, strict=True) if one['is_best']],
                 [y for y, one in zip(values, validated, strict=True) if one['is_best']],
                 s=90, facecolors='none', edgecolors='black', zorder=5)


def draw_lines(axes: Axes, records: Records, series: Mapping[str, tuple[str, str]], *,
           x: str = 'updates', scale: float = 1.0, smooth: bool = True, log: bool = False,
           bands: Mapping[str, str] | None = None) -> None:
    """Draw series {key: (label, colour)} with their running mean, `bands` {key: key of std}."""
    smallest = math.inf
    for key, (label, colour) in series.items():
        spread_key = (bands or {}).get(key, '')
        rows = [(at, value, _metric(record, spread_key)) for record in records
                if (at := number(record, x)) is not None
                and (value := _metric(record, key)) is not None and math.isfinite(value)]
        if not rows:
            continue
        points = scale * np.array([row[1] for row in rows])
        at_x = np.array([row[0] for row in rows])
        smallest = min(smallest, float(points.min()))
        clipped = key.endswith('_clipped')
        smooth_here = smooth and len(points) > MEAN_OF
        if smooth_here and not clipped:
            axes.plot(at_x, points, color=colour, alpha=0.28, linewidth=1.0, zorder=2)
        # One record alone would be a line without length.
        axes.plot(at_x, running_mean(points) if smooth_here else points, color=colour,
                  label=label, marker='o' if len(points) == 1 else '', zorder=3,
                  drawstyle='default' if smooth else 'steps-post',
                  linestyle=':' if clipped else '-')
        spread = scale * np.array([row[2] for row in rows], dtype=np.float64)
        if spread_key and np.isfinite(spread).any():
            axes.fill_between(at_x, points - spread, points + spread, color=colour, alpha=0.09,
                              linewidth=0)
    if smallest == math.inf:
        no_data(axes)
        return
    if log and smallest > 0:
        axes.set_yscale('log')
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(series) > 1:
        axes.legend(ncols=2)


def _metric(record: Mapping[str, Any], key: str) -> float | None:
    metrics = record.get('metrics')
    if isinstance(metrics, Mapping) and key in metrics:
        return number(metrics, key)
    return number(record, key)


def _policy_age(learner: Records) -> list[tuple[float, float]]:
    ages, version, since = [], None, 0.0
    for record in learner:
        now, newest = number(record, 'wall_time'), number(record, 'policy_version')
        if now is None or newest is None:
            continue
        if newest != version:
            version, since = newest, now
        ages.append((now, now - since))
    return ages


def no_data(axes: Axes) -> None:
    """Say that there is nothing to draw yet."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, 'no data yet', transform=axes.transAxes, ha='center', va='center',
              color=GREY, fontsize=12)


def _share_limits(axes: Axes) -> None:
    axes.set_ylim(-2, max(10.0, 1.1 * axes.get_ylim()[1]))


def count_axis(axes: Axes) -> None:
    """Mark the x axis with whole numbers."""
    if axes.get_xticks().size:
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.0f}'))


def save(figure: Figure, run: str | Path, name: str) -> Path:
    """Write RUN/plots/NAME.png and return it."""
    path = Path(run) / 'plots' / f'{name}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    # No pyplot: its global figures are not for threads, and nothing has to be closed here.
    FigureCanvasAgg(figure)
    figure.savefig(path, metadata={'Title': name})
    return path
