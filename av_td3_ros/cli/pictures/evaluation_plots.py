"""Draw what an evaluation found: metrics with intervals, completion, and the paths on the map."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from av_td3_ros.cli.pictures.plots import (
    BLUE,
    ENDINGS,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    Records,
    no_data,
    read_evaluation,
    save,
)
from av_td3_ros.cli.progress import drivers, interval, maps_of, number, shown_metrics
from av_td3_ros.paths import map_file

DRIVER_COLOURS = {'untrained': GREY, 'learned': BLUE, 'pursuit': ORANGE, 'random': GREY,
                  'pretrained': BLUE}
LANE_INVASION = ('#1c2330', 'x', 'line crossed')
MARKS = {**ENDINGS, 'lane_invasion': LANE_INVASION}
LANE_WIDTH = 3.5            # m, drawn where the map gives no width
LANE_SPACING = 2.0          # m between the points that lanes are drawn from
BINS = np.linspace(0.0, 100.0, 11)  # % of a route


def draw_evaluation(run: str | Path) -> Path:
    """Draw every metric of the evaluation, drivers compared, with 95 % intervals."""
    evaluation = read_evaluation(run)
    compared, metrics = drivers(evaluation), shown_metrics(evaluation)
    with matplotlib.rc_context(STYLE):
        if not metrics:
            return save(_empty_figure('Drivers compared'), run, 'evaluation')
        columns = 2 if len(metrics) <= 4 else 3
        rows = max(1, math.ceil(len(metrics) / columns))
        height = 0.8 + 0.36 * max(len(compared), 2)
        figure = Figure(figsize=(11, 0.6 + height * rows), layout='constrained')
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat[len(metrics):]:
            panel.set_axis_off()
        for panel, metric in zip(panels.flat, metrics, strict=False):
            scale = 100.0 if metric.percent else 1.0
            ends = [0.0]
            for place, (name, driver) in enumerate(compared.items()):
                middle, low, high = interval(driver, metric.key)
                text = metric.text(middle)
                if middle is not None:
                    colour = DRIVER_COLOURS.get(name, PURPLE)
                    panel.barh(place, scale * middle, height=0.62, color=colour, alpha=0.85)
                    ends.append(scale * middle)
                    if low is not None and high is not None:
                        panel.plot([scale * low, scale * high], [place, place], color='#1c2330',
                                   linewidth=1.4, marker='|', markersize=7)
                        ends += [scale * low, scale * high]
                end = max(scale * (value or 0.0) for value in (middle, high, 0.0))
                panel.annotate(text, (end, place), xytext=(6, 0), textcoords='offset points',
                               va='center', fontsize=9, fontweight='bold')
            panel.set_yticks(range(len(compared)), list(compared))
            panel.set_ylim(len(compared) - 0.5, -0.5)
            panel.grid(False, axis='y')
            low_end, high_end = min(ends), max([*ends, 100.0] if metric.percent else ends)
            span = high_end - low_end or 1.0
            panel.set_xlim(low_end - (0.05 * span if low_end < 0 else 0), low_end + 1.2 * span)
            if low_end < 0:
                panel.axvline(0, color='#c4cad3', linewidth=0.8)
            panel.set_title(metric.title[0].upper() + metric.title[1:])
            panel.xaxis.set_major_locator(MaxNLocator(5))
        figure.supxlabel(_evaluation_note(evaluation), fontsize=9, color='#5a6372')
        return save(figure, run, 'evaluation')


def draw_completion(run: str | Path) -> Path:
    """Draw how much of their routes the episodes completed, by how they ended."""
    evaluation = read_evaluation(run)
    compared = {name: list(driver.get('episodes') or ())
                for name, driver in drivers(evaluation).items()}
    with matplotlib.rc_context(STYLE):
        if not any(compared.values()):
            return save(_empty_figure('Route completion'), run, 'completion')
        figure = Figure(figsize=(max(6.5, 1.0 + 3.6 * len(compared)), 3.8), layout='constrained')
        panels = figure.subplots(1, len(compared), squeeze=False, sharey=True)
        endings = {str(one.get('result') or '')
                   for episodes in compared.values() for one in episodes}
        seen = [*(one for one in ENDINGS if one in endings), *sorted(endings - set(ENDINGS))]
        for panel, (name, episodes) in zip(panels.flat, compared.items(), strict=True):
            parts = [[100.0 * value for one in episodes if str(one.get('result') or '') == ending
                      and (value := number(one, 'route_completion')) is not None]
                     for ending in seen]
            panel.hist(parts, BINS, stacked=True, edgecolor='white', linewidth=0.8,
                       color=[ENDINGS.get(one, (GREY,))[0] for one in seen])
            panel.set_title(name)
            panel.set_xlabel('route completion [%]')
            panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[0, 0].set_ylabel('episodes')
        figure.legend(handles=_mark_handles(seen), loc='outside lower center', ncols=len(seen))
        return save(figure, run, 'completion')


def draw_paths(run: str | Path) -> Path:
    """Draw the paths over the map's lanes, coloured by speed, with every end and infraction."""
    evaluation = read_evaluation(run)
    by_place: dict[tuple[str, str], Records] = {}
    for name, driver in drivers(evaluation).items():
        for episode in driver.get('episodes') or ():
            if len(episode.get('path') or ()) > 0:
                where = str(episode.get('map') or evaluation.get('map') or '')
                by_place.setdefault((where, name), []).append(episode)
    maps = list(dict.fromkeys(where for where, _ in by_place))
    names = [name for name in drivers(evaluation) if any(name == one for _, one in by_place)]
    with matplotlib.rc_context({**STYLE, 'axes.grid': False}):
        if not by_place:
            return save(_empty_figure('Driven paths'), run, 'paths')
        figure = Figure(figsize=(1.2 + 4.4 * len(names), 0.7 + 4.4 * len(maps)),
                        layout='compressed')        # as constrained, for axes of fixed aspect
        panels = figure.subplots(len(maps), len(names), squeeze=False)
        fastest = max((float(path[:, 2].max()) for episodes in by_place.values()
                       for episode in episodes if len(path := _path(episode)) > 0), default=1.0)
        colours = Normalize(0.0, max(1.0, fastest))
        seen: set[str] = set()
        for row, where in enumerate(maps):
            lanes = lane_strips(where)
            bounds = _bounds(episode for (place, _), group in by_place.items()
                             if place == where for episode in group)
            for column, name in enumerate(names):
                panel = panels[row, column]
                episodes = by_place.get((where, name), [])
                if lanes is not None:
                    # Without antialiasing: neighbouring strips would show their seams.
                    panel.add_collection(PolyCollection(
                        list(lanes), facecolors='#e3e6eb', edgecolors='#e3e6eb', linewidths=0.3,
                        antialiaseds=False, zorder=1))
                for episode in episodes:
                    seen |= _draw_path(panel, episode, colours)
                done = sum(episode.get('result') == 'route_completed' for episode in episodes)
                panel.set_title(f'{name} on {_short(where)}' if where else name)
                panel.text(1.0, 1.01, f'{done} of {len(episodes)} completed', fontsize=9,
                           transform=panel.transAxes, ha='right', va='bottom', color='#5a6372')
                panel.set_aspect('equal')
                panel.set_xlim(*bounds[0])
                panel.set_ylim(*bounds[1])
                panel.set_xlabel('x [m]')
                panel.set_ylabel('y [m]')
                for spine in panel.spines.values():
                    spine.set_visible(True)
        scale = ScalarMappable(colours, 'viridis')
        figure.colorbar(scale, ax=panels, label='speed [m/s]', shrink=0.8, pad=0.01, aspect=30)
        figure.legend(handles=[_start_handle(), *_mark_handles(seen)],
                      loc='outside lower center', ncols=min(len(seen) + 1, 2 + 2 * len(names)))
        return save(figure, run, 'paths')


def lane_strips(map_name: str) -> np.ndarray[Any, Any] | None:
    """
    Return the road surface of a map as rectangles (N, 4, 2) in m, None when it cannot be read.

    `map_name` is a map of config/maps or an OpenDRIVE file.
    """
    try:
        from av_td3_ros.driving.route.road_map import RoadMap
        poses = RoadMap.from_file(map_file(map_name)).sample_lane_points(LANE_SPACING)
        lanes = np.array([(pose.x, pose.y, pose.yaw) for pose in poses], dtype=np.float64)
    except (ImportError, ValueError, OSError):
        return None         # the paths are worth seeing without the road under them
    if len(lanes) == 0:
        return None
    along = np.stack([np.cos(lanes[:, 2]), np.sin(lanes[:, 2])], axis=1) * LANE_SPACING
    aside = np.stack([-np.sin(lanes[:, 2]), np.cos(lanes[:, 2])], axis=1) * 0.5 * LANE_WIDTH
    middle = lanes[:, :2]
    return np.stack([middle - along - aside, middle + along - aside, middle + along + aside,
                     middle - along + aside], axis=1)


def _draw_path(axes: Axes, episode: Mapping[str, Any], colours: Normalize) -> set[str]:
    """Draw a path and what happened on it; return what that was."""
    path = _path(episode)
    ending = str(episode.get('result', ''))
    colour, marker, _ = ENDINGS.get(ending, (GREY, '.', ''))
    if len(path) > 1:
        points = path[:, :2].reshape(-1, 1, 2)
        segments = np.concatenate([points[:-1], points[1:]], axis=1)
        lines = LineCollection(list(segments), cmap='viridis', norm=colours, linewidths=2.0,
                               zorder=2, capstyle='round')
        lines.set_array(path[:-1, 2])
        axes.add_collection(lines)
    if len(path) > 0:
        axes.plot(*path[0, :2], marker='o', markersize=4.5, markerfacecolor='white',
                  markeredgecolor='#1c2330', zorder=3)
        axes.plot(*path[-1, :2], marker=marker, markersize=8, color=colour,
                  markeredgecolor='white', markeredgewidth=0.8, zorder=5)
    return {ending, *_draw_infractions(axes, episode)}


def _draw_infractions(axes: Axes, episode: Mapping[str, Any]) -> set[str]:
    seen = set()
    for one in episode.get('infractions') or ():
        kind, x, y = str(one.get('kind', '')), number(one, 'x'), number(one, 'y')
        if x is None or y is None:
            continue
        colour, marker, _ = MARKS.get(kind, (GREY, '.', ''))
        edge = {} if marker == 'x' else {'markeredgecolor': 'white', 'markeredgewidth': 0.8}
        axes.plot(x, y, marker=marker, markersize=5, color=colour, zorder=4, **edge)
        seen.add(kind)
    return seen


def _short(map_name: str) -> str:
    return Path(map_name).stem if map_name.endswith('.xodr') else map_name


def _path(episode: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    try:
        path = np.array(episode.get('path') or (), dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty((0, 3))
    if path.ndim != 2 or path.shape[1] < 3:
        return np.empty((0, 3))
    return path[np.isfinite(path[:, :3]).all(axis=1), :3]


def _bounds(episodes: Iterable[Mapping[str, Any]]) -> tuple[tuple[float, float],
                                                            tuple[float, float]]:
    points = np.concatenate([_path(episode)[:, :2] for episode in episodes])
    if len(points) == 0:
        return (-50.0, 50.0), (-50.0, 50.0)
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, max(25.0, 0.55 * float((high - low).max()))
    return ((middle[0] - half, middle[0] + half), (middle[1] - half, middle[1] + half))


def _start_handle() -> Line2D:
    return Line2D([], [], linestyle='', marker='o', markersize=4.5, markerfacecolor='white',
                  markeredgecolor='#1c2330', label='start')


def _mark_handles(seen: Iterable[str]) -> list[Line2D]:
    present = set(seen)
    return [Line2D([], [], linestyle='', marker=marker, color=colour, markersize=8, label=words)
            for name, (colour, marker, words) in [
                *MARKS.items(), *((one, (GREY, '.', one or 'unknown end'))
                                  for one in sorted(present - set(MARKS)))]
            if name in present]


def _evaluation_note(evaluation: Mapping[str, Any]) -> str:
    found = drivers(evaluation)
    count = max(len(driver.get('episodes') or ()) for driver in found.values())
    where = maps_of(evaluation)
    on = f'map{"s" * (len(where) > 1)} {", ".join(where)}, ' if where else ''
    return f'{on}{count} episodes{" a driver" * (len(found) > 1)}; lines: 95 % intervals'


def _empty_figure(title: str) -> Figure:
    figure = Figure(figsize=(9.5, 3), layout='constrained')
    axes = figure.subplots()
    axes.set_title(title)
    no_data(axes)
    return figure
