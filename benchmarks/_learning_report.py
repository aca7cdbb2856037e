"""What the snapshots of all trainings say: table, claims and curves."""
from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from av_td3_ros.cli.pictures.plots import BLUE, GREY, ORANGE, PURPLE, SKY, STYLE
from av_td3_ros.driving.perception.mask import IMAGE, NO_MASK, VECTOR

Snapshot = dict[str, Any]
Found = Mapping[str, Sequence[Snapshot]]  # by job, algorithm-world-seed

CHOICE = 3  # newest snapshots that the best is chosen from
CENSORED = 30.0  # minutes
PURSUIT_SPEEDS = (4, 5, 6, 7, 8, 10)  # m/s that it aims at among other vehicles
EASY = 0.8  # success that the time to it is measured for
NAMES = {'ours': 'ours', 'camera': 'ours, trained by camera alone',
         'traffic': 'ours, among other vehicles', 'sb3': 'Stable-Baselines3 as shipped',
         'sb3_tuned': 'Stable-Baselines3 retuned', 'pursuit': 'pure pursuit',
         **{f'pursuit_traffic_{speed}': f'pure pursuit at {speed} m/s, among other vehicles'
            for speed in PURSUIT_SPEEDS}}
BLINDFOLDED = {'camera': VECTOR}  # what is always hidden from a driver, in learning and after
COLOURS = {'ours': BLUE, 'camera': SKY, 'traffic': PURPLE, 'sb3': GREY, 'sb3_tuned': ORANGE}
MASKS = {NO_MASK: 'everything', VECTOR: 'vector zeroed', IMAGE: 'black images'}
COLUMNS = ('success', 'route_completion', 'driving_score', 'mean_speed', 'cross_track_rms',
           'collisions_per_km', 'steering_reversals_per_km')


def groups(found: Found) -> dict[tuple[str, str], list[Sequence[Snapshot]]]:
    """Return the jobs of each (algorithm, world), one a seed."""
    sorted_out: dict[tuple[str, str], list[Sequence[Snapshot]]] = {}
    for name, snapshots in found.items():
        algorithm, world, _ = name.rsplit('-', 2)
        if snapshots:
            sorted_out.setdefault((algorithm, world), []).append(snapshots)
    return sorted_out


def best_of(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Return the best of the last snapshots by the evaluation that chooses."""
    return max(snapshots[-CHOICE:], key=lambda one: one['score'])


def chosen(snapshots: Sequence[Snapshot], minutes: float) -> Snapshot | None:
    """Return the snapshot that would have been chosen after so many minutes, None before any."""
    known = [one for one in snapshots if one['minutes'] <= minutes]
    return best_of(known) if known else None


def current(snapshots: Sequence[Snapshot], minutes: float) -> Snapshot | None:
    """Return the newest snapshot, None before any."""
    known = [one for one in snapshots if one['minutes'] <= minutes]
    return known[-1] if known else None


def best_masked(snapshots: Sequence[Snapshot], minutes: float) -> Snapshot | None:
    """Return what the chosen policy reached behind the masks, None where that was not seen."""
    known = current(snapshots, minutes)
    return known.get('best') if known else None


def values(seeds: Sequence[Sequence[Snapshot]], minutes: float, metric: str,
           mask: str = NO_MASK, pick: Callable[..., Snapshot | None] = chosen) -> list[float]:
    """Return a metric of the chosen policy, one number a seed that has got so far."""
    numbers = []
    for snapshots in seeds:
        if snapshots[-1]['minutes'] < minutes:
            continue
        one = pick(snapshots, minutes) if mask == NO_MASK else best_masked(snapshots, minutes)
        if one is not None and metric in one.get(mask, {}):
            numbers.append(one[mask][metric]['mean'])
    return numbers


def minutes_to(snapshots: Sequence[Snapshot], success: float) -> float | None:
    """
    Return when the present policy first reached a success, CENSORED when it did not.

    None: it has not yet, and is not at its end.
    """
    reached = [one['minutes'] for one in snapshots
               if one[NO_MASK]['success']['mean'] >= success]
    if not reached and snapshots[-1]['minutes'] < CENSORED:
        return None
    return float(min([*reached, CENSORED]))


def table_of(found: Found) -> list[dict[str, Any]]:
    """Return a row for each algorithm, world, time and mask: medians and worst seeds."""
    rows = []
    order = list(NAMES)
    for (algorithm, world), seeds in sorted(
            groups(found).items(), key=lambda one: (order.index(one[0][0]), one[0][1])):
        last = max(one['minutes'] for snapshots in seeds for one in snapshots)
        for minutes in sorted({5, 10, 20, last} if last else {0}):
            for mask in MASKS:
                success = values(seeds, minutes, 'success', mask)
                if minutes > last or not success:
                    continue
                rows.append({
                    'algorithm': NAMES[algorithm], 'world': world, 'minutes': minutes,
                    'sees': MASKS[BLINDFOLDED.get(algorithm, mask)],
                    'seeds': len(success), 'worst_success': min(success),
                    **{name: round(statistics.median(numbers), 3) for name in COLUMNS
                       if (numbers := values(seeds, minutes, name, mask))}})
    return rows


def claims_of(found: Found) -> list[dict[str, Any]]:
    """Return the claims that the finished jobs allow to judge."""
    jobs = groups(found)
    claims: list[dict[str, Any]] = []

    def claim(name: str, numbers: Sequence[float], goal: float, unit: str,
              at_least: bool = True) -> None:
        if numbers:
            value = round(statistics.median(numbers), 3)
            worst = min(numbers) if at_least else max(numbers)
            claims.append({
                'name': f'{name}, median of {len(numbers)} seeds (worst {worst:.3g})',
                'value': value, 'unit': unit, 'goal': goal,
                'holds': value >= goal if at_least else value <= goal})

    def at(key: tuple[str, str], minutes: float, metric: str, mask: str = NO_MASK) -> list[float]:
        return values(jobs.get(key, []), minutes, metric, mask)

    clean, cluttered = ('ours', 'clean'), ('ours', 'cluttered')
    routes = 'of the routes'
    claim('clean: success after 5 minutes', at(clean, 5, 'success'), 0.95, routes)
    later = [at(clean, minutes, 'success') for minutes in (10, 12, 14, 16, 18, 20)]
    if all(later):
        claim('clean: success at the lowest of all evaluations from 10 to 20 minutes',
              min(later, key=statistics.median), 0.95, routes)
    claim('clean: mean speed after 20 minutes', at(clean, 20, 'mean_speed'), 9.0, 'm/s')
    claim('clean: lateral RMS after 20 minutes', at(clean, 20, 'cross_track_rms'), 0.4, 'm',
          at_least=False)
    claim('clean, vector zeroed: success of the same policy after 20 minutes',
          at(clean, 20, 'success', VECTOR), 0.7, routes)
    claim('cluttered: success after 20 minutes', at(cluttered, 20, 'success'), 0.85, routes)
    claim('clean, trained by camera alone: success after 10 minutes',
          at(('camera', 'clean'), 10, 'success'), 0.95, routes)
    claim('cluttered, trained by camera alone: success after 20 minutes',
          at(('camera', 'cluttered'), 20, 'success'), 0.7, routes)
    claim('cluttered, among 10 other vehicles: success after 20 minutes',
          at(('traffic', 'cluttered'), 20, 'success'), 0.75, routes)
    traffic = ('traffic', 'cluttered')
    bar = [_of_pursuit(jobs, speed) for speed in at(traffic, 20, 'mean_speed')]
    if bar and None not in bar:
        claim('cluttered, among 10 other vehicles: collisions/km over those of pure pursuit at '
              'the same mean speed', [ours / max(theirs or 0.0, 1e-9) for ours, theirs in
                                      zip(at(traffic, 20, 'collisions_per_km'), bar, strict=True)],
              1.0, 'of its collisions', at_least=False)
    for peer, goal in (('sb3', 0.1), ('sb3_tuned', 1 / 3)):
        ours, theirs = ([minutes for one in jobs.get((algorithm, 'clean'), [])
                         if (minutes := minutes_to(one, EASY)) is not None]
                        for algorithm in ('ours', peer))
        if ours and theirs:
            claim(f'clean: time to {EASY:.0%} success over that of {NAMES[peer]} '
                  f'({statistics.median(theirs):g} minutes, {CENSORED:g} where it did not get '
                  'there)', [one / statistics.median(theirs) for one in ours], round(goal, 3),
                  'of its time', at_least=False)
    return claims


def _of_pursuit(jobs: Mapping[tuple[str, str], Sequence[Sequence[Snapshot]]], speed: float
                ) -> float | None:
    """Return pure pursuit's collisions/km at a mean speed in m/s, between the speeds driven."""
    driven = sorted((statistics.median(values(seeds, 0, 'mean_speed')),
                     statistics.median(values(seeds, 0, 'collisions_per_km')))
                    for aim in PURSUIT_SPEEDS
                    if (seeds := jobs.get((f'pursuit_traffic_{aim}', 'cluttered'))))
    if not driven:
        return None
    return float(np.interp(speed, *zip(*driven, strict=True)))


def recipe_rows(found: Found) -> list[dict[str, Any]]:
    """Return a row for each recipe: what its last snapshots reached, as means over the seeds."""
    rows = []
    for (recipe, _), seeds in groups(found).items():
        last = [snapshots[-1] for snapshots in seeds]
        rows.append({
            'recipe': recipe, 'seeds': len(last), 'minutes': last[0]['minutes'],
            'updates': round(statistics.mean(one['updates'] for one in last)),
            'success, everything': round(statistics.mean(
                one[NO_MASK]['success']['mean'] for one in last), 3),
            **{f'success, {MASKS[mask]}': round(statistics.mean(
                one['best'][mask]['success']['mean'] for one in last), 3)
               for mask in (VECTOR, IMAGE) if all(mask in one.get('best', {}) for one in last)},
            **{name: round(statistics.mean(one[NO_MASK][name]['mean'] for one in last), 3)
               for name in ('mean_return', 'mean_speed', 'cross_track_rms', 'collisions_per_km',
                            'steering_reversals_per_km')}})
    return sorted(rows, key=lambda row: -row['mean_return'])


def markdown(table: Sequence[dict[str, Any]], claims: Sequence[dict[str, Any]]) -> str:
    """Return table and claims as a page."""
    lines = [table_page(table), '| claim | value | goal | holds |', '|---|---|---|---|']
    lines += [f'| {one["name"]} | {one["value"]} {one["unit"]} | {one["goal"]} | '
              f'{"yes" if one["holds"] else "**no**"} |' for one in claims]
    return '\n'.join(lines) + '\n'


def table_page(table: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table, one column for each key."""
    names = list(dict.fromkeys(name for row in table for name in row))
    lines = ['| ' + ' | '.join(name.replace('_', ' ') for name in names) + ' |',
             '|' + '---|' * len(names)]
    lines += ['| ' + ' | '.join(_cell(row.get(name)) for name in names) + ' |' for row in table]
    return '\n'.join(lines) + '\n'


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def draw(found: Found, file: Path) -> None:
    """Draw success over minutes: median of the chosen policy, range of seeds, present policy."""
    jobs = groups(found)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout='constrained')
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2, sharey=True)
        for world, panel in zip(('clean', 'cluttered'), panels, strict=True):
            for algorithm, colour in COLOURS.items():
                _curve(panel, jobs.get((algorithm, world), []), NAMES[algorithm], colour)
            pursuit = values(jobs.get(('pursuit', world), []), 0, 'success')
            if pursuit:
                panel.axhline(statistics.median(pursuit), color='black', linewidth=1,
                              linestyle=':', label=NAMES['pursuit'])
            panel.set_title(f'{world} world, roads never seen')
            panel.set_xlabel('minutes on one processor core')
            panel.set_ylim(-0.03, 1.03)
        panels[0].set_ylabel('success')
        handles, labels = panels[1].get_legend_handles_labels()
        more = panels[0].get_legend_handles_labels()
        both = dict(zip([*labels, *more[1]], [*handles, *more[0]], strict=True))
        figure.legend(both.values(), both.keys(), loc='outside lower center', ncols=3)
        figure.savefig(file)


def _curve(panel: Axes, seeds: Sequence[Sequence[Snapshot]], name: str, colour: str) -> None:
    minutes = sorted({one['minutes'] for snapshots in seeds for one in snapshots})
    if not minutes:
        return
    best = [values(seeds, minute, 'success') for minute in minutes]
    now = [values(seeds, minute, 'success', pick=current) for minute in minutes]
    panel.plot(minutes, [statistics.median(one) for one in best], color=colour, label=name)
    panel.plot(minutes, [statistics.median(one) for one in now], color=colour, linewidth=1,
               linestyle='--')
    panel.fill_between(minutes, [min(one) for one in best], [max(one) for one in best],
                       color=colour, alpha=0.15, linewidth=0)
