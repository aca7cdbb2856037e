"""`av-td3 plot`: the learning curves of several runs, their mean and spread, groups compared."""
from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from av_td3_ros.cli.pictures.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    STYLE,
    Records,
    count_axis,
    no_data,
    read_metrics,
    running_mean,
)
from av_td3_ros.cli.progress import MEAN_OF, number

MANY = 5                # runs from which quartiles say more than the extremes
GRID = 300              # points of the common grid
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
LINES = ('-', '--')     # of the first and the second series of a panel
AXES = {'transitions': ('transitions', 1.0), 'updates': ('updates', 1.0),
        'wall_time': ('wall time [min]', 1.0 / 60.0)}

Array = NDArray[np.float64]
Points = tuple[Array, Array]


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a panel shows: up to two series {key of a record: word in the legend}."""

    title: str
    series: Mapping[str, str]
    scale: float = 1.0

    @property
    def is_share(self) -> bool:
        """Return whether it is shown in percent."""
        return self.scale != 1.0


CURVES: dict[str, Curve] = {
    'return': Curve('Return of an episode', {'return': ''}),
    'route_completion': Curve('Route completion [%]', {'route_completion': ''}, 100.0),
    'success': Curve('Success [%]', {'success': ''}, 100.0),
    'cross_track_rms': Curve('Cross-track RMS [m]', {'cross_track_rms': ''}),
    'mean_speed': Curve('Mean speed [m/s]', {'mean_speed': ''}),
    'q': Curve('Q', {'q_policy_mean': 'under the policy', 'q1_mean': 'of the data'}),
    'saturated_fraction': Curve('Saturated actions [%]', {'saturated_fraction': ''}, 100.0),
    'updates_per_second': Curve('Updates per second', {'updates_per_second': ''}),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """The records of one run."""

    folder: Path
    learner: Records
    episodes: Records

    def points(self, key: str, x: str) -> Points:
        """Return (x, value of `key`) in the order of x, empty arrays without any."""
        found = [(at, value) for record in self.learner
                 if (at := number(record, x)) is not None
                 and (value := _metric(record, key)) is not None and math.isfinite(value)]
        if not found:
            found = [(at, value) for record in self._episodes_with(x)
                     if (at := number(record, x)) is not None
                     and (value := number(record, key)) is not None and math.isfinite(value)]
        ordered = np.array(sorted(found, key=lambda pair: pair[0]), np.float64).reshape(-1, 2)
        return ordered[:, 0], ordered[:, 1]

    def names(self) -> set[str]:
        """Return the keys of every number in the records."""
        metrics = (one for record in self.learner
                   if isinstance(one := record.get('metrics'), Mapping))
        return {key for record in (*self.learner, *self.episodes, *metrics)
                for key in record if number(record, key) is not None}

    def _episodes_with(self, x: str) -> Records:
        """Return the episodes; they do not know the updates: those at their end, by the clock."""
        clock = np.array([(when, updates) for record in self.learner
                          if (when := number(record, 'wall_time')) is not None
                          and (updates := number(record, 'updates')) is not None])
        if x != 'updates' or not len(clock):
            return self.episodes
        return [{**record, x: float(np.interp(when, *clock.T))} for record in self.episodes
                if (when := number(record, 'wall_time')) is not None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('runs', nargs='+', metavar='RUN',
                        help='a run folder: those given so are drawn as one, with mean and '
                             'spread; or NAME=DIR,DIR, a group of its own')
    parser.add_argument('--out', type=Path, default=Path('learning_curves.png'), metavar='FILE',
                        help='picture to write (default %(default)s)')
    parser.add_argument('--metric', action='append', default=[], metavar='NAME',
                        help=f'what to draw: {", ".join(CURVES)}, or any number in '
                             'metrics.jsonl; may be given again (default: the named ones)')
    parser.add_argument('--x', choices=tuple(AXES), default='transitions',
                        help='what to draw over (default %(default)s)')


def run(options: argparse.Namespace) -> int:
    """Draw the curves; return the exit status."""
    groups = read_groups(options.runs)
    curves = chosen_curves(options.metric, [one for runs in groups.values() for one in runs])
    print(f'learning curves: {draw_groups(groups, curves, options.x, options.out)}')
    return 0


def read_groups(arguments: Iterable[str]) -> dict[str, list[Run]]:
    """Return the runs by their group; raise ValueError naming a folder that is no run."""
    folders: dict[str, list[str]] = {}
    plain: list[str] = []
    for argument in arguments:
        name, equals, listed = argument.partition('=')
        if equals and not Path(argument).exists():
            some = [folder for folder in listed.split(',') if folder]
            if not name or not some:
                raise ValueError(f'{argument}: write NAME=DIR,DIR')
            folders.setdefault(name, []).extend(some)
        else:
            plain.append(argument)
    if plain:
        name = Path(plain[0]).resolve().name if len(plain) == 1 else 'runs'
        folders[name] = [*plain, *folders.get(name, [])]
    return {name: [_read_run(Path(folder)) for folder in some] for name, some in folders.items()}


def chosen_curves(names: Sequence[str], runs: Sequence[Run]) -> list[Curve]:
    """
    Return what to draw; without names all of CURVES that some run has.

    Raises ValueError with the nearest names for one that no run knows.
    """
    known = set().union(*(one.names() for one in runs))
    if not names:
        return [curve for curve in CURVES.values() if known & set(curve.series)]
    chosen = []
    for name in names:
        curve = CURVES.get(name, Curve(_title(name), {name: ''}))
        if not known & set(curve.series):
            choices = sorted(known | set(CURVES))
            near = difflib.get_close_matches(name, choices, 3, 0.4) or list(CURVES)
            raise ValueError(f'--metric {name}: no run has it; near it: {", ".join(near)}')
        chosen.append(curve)
    return chosen


def draw_groups(groups: Mapping[str, Sequence[Run]], curves: Sequence[Curve], x: str,
                path: Path) -> Path:
    """Draw every curve of every group into one picture and return its file."""
    count = len(curves)
    columns = count if count <= 3 else 2 if count == 4 else 3 if count <= 6 else 4
    rows = -(-count // max(columns, 1))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.5, 4.1 * columns), 0.7 + 3.3 * rows), layout='constrained')
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for panel in panels.flat[count:]:
            panel.set_axis_off()
        for place, (panel, curve) in enumerate(zip(panels.flat, curves, strict=False)):
            _draw_curve(panel, curve, groups, x)
            count_axis(panel)
            if place + columns >= count:
                panel.set_xlabel(AXES[x][0])
                panel.tick_params(labelbottom=True)
        figure.legend(handles=_legend(groups), loc='outside lower center',
                      ncols=min(3, len(groups)), title_fontsize=9,
                      title=f'lines: running means of a fifth of the values, at most {MEAN_OF}')
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path


def common_grid(lines: Sequence[Points]) -> tuple[Array, Array]:
    """
    Return (x, y (len(lines), x)): lines interpolated where all of them have data.

    Beyond the shortest line a mean would jump as runs drop out of it. Without a common stretch
    both are empty.
    """
    ends = [(float(at[0]), float(at[-1])) for at, _ in lines if len(at)]
    low, high = max((one[0] for one in ends), default=0.0), min((one[1] for one in ends),
                                                                default=0.0)
    if len(ends) < len(lines) or low >= high:
        return np.empty(0), np.empty((len(lines), 0))
    grid = np.asarray(np.linspace(low, high, GRID), np.float64)
    return grid, np.stack([np.interp(grid, *line) for line in lines])


def spread(values: Array) -> tuple[Array, Array]:
    """Return the band (low, high) over runs (runs, x): extremes of a few, quartiles of many."""
    if len(values) < MANY:
        return values.min(0), values.max(0)
    low, high = (np.percentile(values, share, axis=0) for share in (25.0, 75.0))
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def _read_run(folder: Path) -> Run:
    if not (folder / 'metrics.jsonl').is_file():
        raise ValueError(f'{folder} is {"no run" if folder.is_dir() else "not there"}: it has no '
                         'metrics.jsonl; give folders that `av-td3 train` wrote')
    learner, episodes = read_metrics(folder)
    # What the end of a session cut off says nothing about the driving.
    episodes = [record for record in episodes if record.get('result') != 'interrupted']
    if not learner and not episodes:
        raise ValueError(f'{folder}: metrics.jsonl holds no records yet')
    return Run(folder, learner, episodes)


def _title(name: str) -> str:
    return f'{name[:1].upper()}{name[1:]}'.replace('_', ' ')


def _metric(record: Mapping[str, Any], key: str) -> float | None:
    metrics = record.get('metrics')
    if isinstance(metrics, Mapping) and key in metrics:
        return number(metrics, key)
    return number(record, key)


def _draw_curve(axes: Axes, curve: Curve, groups: Mapping[str, Sequence[Run]], x: str) -> None:
    axes.set_title(curve.title)
    alone = sum(len(runs) for runs in groups.values()) == 1
    for colour, runs in zip(_colours(len(groups)), groups.values(), strict=True):
        for style, key in zip(LINES, curve.series, strict=False):
            points = [(AXES[x][1] * at, curve.scale * values)
                      for at, values in (one.points(key, x) for one in runs) if len(at)]
            lines = [(at, running_mean(values, _window(len(values)))) for at, values in points]
            if len(lines) == 1:
                if alone and style == LINES[0]:
                    axes.plot(*points[0], color=colour, linestyle='', marker='o', markersize=3,
                              alpha=0.3, markeredgewidth=0, zorder=2)
                axes.plot(*lines[0], color=colour, linestyle=style, zorder=3)
                continue
            for at, values in lines:
                axes.plot(at, values, color=colour, linestyle=style, linewidth=0.9, alpha=0.35,
                          zorder=2)
            grid, values = common_grid(lines)
            if len(lines) > 1 and len(grid):
                if style == LINES[0]:  # bands of both series could not be told apart
                    axes.fill_between(grid, *spread(values), color=colour, alpha=0.16,
                                      linewidth=0)
                axes.plot(grid, values.mean(0), color=colour, linestyle=style, linewidth=2.3,
                          zorder=3)
    if not axes.lines:
        no_data(axes)
        return
    if curve.is_share:
        axes.set_ylim(-3, 103)
    if len(curve.series) > 1:
        axes.legend(handles=[Line2D([], [], color=GREY, linestyle=style, label=word)
                             for style, word in zip(LINES, curve.series.values(), strict=True)])


def _window(count: int) -> int:
    """Return how many values to average: in a short run many would hide how it ends."""
    return max(1, min(MEAN_OF, count // 5))


def _colours(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def _legend(groups: Mapping[str, Sequence[Run]]) -> list[Any]:
    handles: list[Any] = []
    for colour, (name, runs) in zip(_colours(len(groups)), groups.items(), strict=True):
        if len(runs) == 1:
            handles.append(Line2D([], [], color=colour, label=name))
            continue
        band = 'min-max' if len(runs) < MANY else '25-75 %'
        handles.append(Line2D([], [], color=colour, linewidth=2.3,
                              label=f'{name}: mean of {len(runs)} runs, band: {band}'))
    return handles
