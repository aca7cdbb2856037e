"""Draw the health of a run and of a checkpoint's networks."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    draw_lines,
    no_data,
)
from av_td3_ros.cli.progress import figures as short
from av_td3_ros.td3.agent import SATURATED
from av_td3_ros.td3.inspection import PARTS, Array, Look

COLOURS = {'actor': RED, 'critic': BLUE}


def draw_run(learner: Records, out: Path) -> list[Path]:
    """Draw the course of the CNNs' health and of the values and return the files."""
    return [_draw_cnns(learner, out), _draw_values(learner, out)]


def draw_checkpoint(look: Look, out: Path) -> list[Path]:
    """Draw what a checkpoint shows and return the files."""
    paths = [_draw_filters(look, out)] if look.filters else []
    if len(look.actions):
        paths = [_draw_actions(look, out),
                 *([_draw_features(look, out)] if look.features else []), *paths]
    return paths


def _draw_cnns(learner: Records, out: Path) -> Path:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 7.4), layout='constrained')
        panels = figure.subplots(2, 3, sharex=True)
        networks, cnns, change, norm, spread, dead = panels.flat
        draw_lines(networks, learner, {
            f'{part}_grad_norm{end}': (f'{part}{", clipped" if end else ""}', COLOURS[part])
            for part in PARTS for end in ('', '_clipped')}, log=True)
        networks.set_title('Gradient norm of the networks')
        draw_lines(cnns, learner, {
            f'{part}_cnn_grad_norm{end}': (f'{part} CNN{", clipped" if end else ""}',
                                           COLOURS[part])
            for part in PARTS for end in ('', '_clipped')}, log=True)
        cnns.set_title('Gradient norm of the CNNs')
        for panel, key, title, scale in (
                (change, 'weight_change', 'Way from the first weights, relative', 1.0),
                (norm, 'feature_norm', 'Length of the feature vector', 1.0),
                (spread, 'feature_std', 'Deviation of a feature between stacks', 1.0),
                (dead, 'dead_units', 'Dead channels [%]', 100.0)):
            draw_lines(panel, learner, {f'{part}_cnn_{key}': (f'{part} CNN', COLOURS[part])
                                        for part in PARTS}, scale=scale, smooth=False)
            panel.set_title(title)
            if panel.lines:
                panel.set_ylim(0, 1.12 * panel.get_ylim()[1])
        _limits(dead, 50, 90)
        return _finished(figure, panels[1], out / 'cnns.png')


def _draw_values(learner: Records, out: Path) -> Path:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 7.4), layout='constrained')
        panels = figure.subplots(2, 3, sharex=True)
        values, over, error, saturated, age, draws = panels.flat
        draw_lines(values, learner, {
            'q1_mean': ('Q1', BLUE), 'q2_mean': ('Q2', SKY), 'target_q_mean': ('target', GREEN),
            'q_policy_mean': ('under the policy', RED),
            'observed_return_mean': ('observed return', '#1c2330')})
        values.set_title('Q values and what was earned')
        draw_lines(over, learner, {'q_overestimation': ('', PURPLE)}, smooth=False)
        over.set_title('Q1 above the observed return')
        if over.lines:
            over.axhline(0, color=GREY, linewidth=1.0, zorder=1)
        draw_lines(error, learner, {'td_error_mean': ('mean', BLUE), 'td_error_max': ('max', SKY)},
                   log=True)
        error.set_title('TD error')
        draw_lines(saturated, learner, {'saturated_fraction': ('', RED)}, scale=100.0)
        saturated.set_title('Saturated actions [%]')
        _limits(saturated, 50, 90)
        draw_lines(age, learner, {'policy_age_mean': ('mean age of the data', PURPLE),
                                  'policy_version': ('published', GREY)}, smooth=False)
        age.set_title('Policy versions')
        draw_lines(draws, learner, {'draws_per_transition': ('', GREEN)}, smooth=False)
        draws.set_title('Draws of each transition')
        for panel in (age, draws):
            if panel.lines:
                panel.set_ylim(bottom=0)
        return _finished(figure, panels[1], out / 'values.png')


def _draw_actions(look: Look, out: Path) -> Path:
    colours = {'steer': BLUE, 'acceleration': ORANGE}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 8), layout='constrained')
        histogram, blinded, q_values, returns = figure.subplots(2, 2).flat
        for column, (name, colour) in enumerate(colours.items()):
            chosen = look.actions[:, column]
            histogram.hist(chosen, np.linspace(-1, 1, 41), color=colour, alpha=0.55,
                           label=f'{name}: {chosen.mean():.2f} ± {chosen.std():.2f}')
        for low in (-1.04, SATURATED):
            histogram.axvspan(low, low + 1.04 - SATURATED, color=RED, alpha=0.15, linewidth=0)
        histogram.set_xlim(-1.04, 1.04)
        histogram.set_title(f'Actions on {len(look.actions)} stored states '
                            f'({look.figures["saturated_fraction"]:.0%} saturated)')
        histogram.set_ylabel('states')
        histogram.legend()

        blinded.set_title('Mean change of the action when the actor is shown ...')
        for row, change in enumerate(look.blinded.values()):
            for column, (action, colour) in enumerate(colours.items()):
                size = float(change[:, column].mean())
                place = row + 0.36 * (column - 0.5)
                blinded.barh(place, size, 0.32, color=colour, alpha=0.85,
                             label=action if row == 0 else None)
                blinded.annotate(f'{size:.3f}', (size, place), xytext=(6, 0), va='center',
                                 textcoords='offset points', fontsize=9, fontweight='bold')
        blinded.set_yticks(range(len(look.blinded)), list(look.blinded))
        blinded.set_ylim(len(look.blinded) - 0.4, -0.6)
        blinded.set_xlim(0, max(0.1, 1.15 * blinded.get_xlim()[1]))
        blinded.grid(False, axis='y')
        blinded.legend(loc='lower right')

        edges = _edges(look.q_data, look.q_policy)
        for values, colour, name in ((look.q_data, BLUE, 'of the stored actions'),
                                     (look.q_policy, RED, 'under the policy')):
            q_values.hist(_finite(values), edges, color=colour, alpha=0.5,
                          label=f'{name}: {short(float(values.mean()))}')
        q_values.set_title('Q1 on stored states')
        q_values.set_ylabel('states')
        q_values.legend()
        _draw_returns(returns, look)
        path = out / 'actions.png'
        figure.savefig(path)
    return path


def _draw_returns(axes: Axes, look: Look) -> None:
    axes.set_title('Q1 against the return that followed')
    if not len(look.returns):
        no_data(axes)
        return
    axes.scatter(look.returns, look.q_recent, s=16, color=PURPLE, alpha=0.45, linewidths=0)
    ends = [float(look.returns.min()), float(look.returns.max())]
    axes.plot(ends, ends, color='#1c2330', linewidth=1.2, linestyle='--', label='equal')
    axes.set_xlabel('observed discounted return')
    axes.set_ylabel('Q1')
    axes.legend()


def _draw_features(look: Look, out: Path) -> Path:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 3.9 * len(look.features)), layout='constrained')
        rows = figure.subplots(len(look.features), 3, squeeze=False)
        for (values, activity, silent), (part, features) in zip(rows, look.features.items(),
                                                                strict=True):
            colour = COLOURS[part]
            values.hist(_finite(features.ravel()), 60, color=colour, alpha=0.7)
            values.set_title(f'{part} CNN: values of its {features.shape[1]} features')
            spread = np.sort(features.std(0))[::-1]
            activity.bar(np.arange(len(spread)), spread, 1.0, color=colour, alpha=0.7)
            activity.set_ylim(0, max(1e-3, activity.get_ylim()[1]))  # noise is not activity
            activity.set_title('Deviation of each feature between stacks')
            activity.set_xlabel('features, the liveliest first')
            shares = [100 * share for share in look.silent[part]]
            silent.bar(range(len(shares)), shares, 0.55, color=colour, alpha=0.85)
            for place, share in enumerate(shares):
                silent.annotate(f'{share:.0f} %', (place, share), xytext=(0, 4), ha='center',
                                textcoords='offset points', fontsize=9, fontweight='bold')
            silent.set_xticks(range(len(shares)),
                              [f'convolution {place + 1}' for place in range(len(shares))])
            silent.grid(False, axis='x')
            silent.set_title('Dead channels [%]')
            _limits(silent, 50, 90)
            silent.set_ylim(0, 108)
        path = out / 'features.png'
        figure.savefig(path)
    return path


def _draw_filters(look: Look, out: Path) -> Path:
    with matplotlib.rc_context({**STYLE, 'axes.grid': False}):
        sheets = [(f'{part} CNN: {word}', filters[part]) for word, filters in (
            ('filters of the first layer', look.filters),
            ('what learning added to them', look.learned_filters)) for part in filters]
        count, frames = sheets[0][1].shape[:2]
        lines = -(-len(sheets) // len(look.filters))
        figure = Figure(figsize=(13, 0.5 + lines * (0.5 + 0.38 * -(-count * frames // 16))),
                        layout='constrained')
        panels = figure.subplots(lines, len(look.filters), squeeze=False)
        for panel, (title, filters) in zip(panels.flat, sheets, strict=True):
            panel.imshow(_sheet(filters), cmap='RdBu_r', vmin=-1, vmax=1,
                         interpolation='nearest')
            panel.set_title(title)
            panel.set_axis_off()
        figure.supxlabel(f'each group: the {frames} frames of one filter, the oldest on the left; '
                         'red answers to bright, blue to dark', fontsize=9, color='#5a6372')
        path = out / 'filters.png'
        figure.savefig(path)
    return path


def _sheet(filters: Array) -> Array:
    """Return filters (N, frames, height, width) on one sheet, each scaled to [-1, 1]."""
    count, frames, height, width = filters.shape
    columns = max(1, 16 // frames)
    down, across = height + 2, frames * (width + 1) + 3
    sheet = np.full((-(-count // columns) * down, columns * across), np.nan, np.float32)
    for index, one in enumerate(filters):
        top, left = down * (index // columns), across * (index % columns)
        # By its own largest weight: what a filter looks for, not how loudly it answers.
        for patch in one / max(float(np.abs(one).max()), 1e-12):
            sheet[top:top + height, left:left + width] = patch
            left += width + 1
    return sheet


def _limits(axes: Axes, watch: float, sick: float) -> None:
    """Draw the limits of a share in percent."""
    if not axes.has_data():
        return
    axes.set_ylim(-2, 104)
    for limit, colour, word in ((watch, ORANGE, 'watch'), (sick, RED, 'sick')):
        axes.axhline(limit, color=colour, linewidth=1.0, linestyle=':', zorder=1)
        axes.text(0.995, limit + 1, word, transform=axes.get_yaxis_transform(), ha='right',
                  va='bottom', color=colour, fontsize=8)


def _finished(figure: Figure, bottom: Sequence[Axes], path: Path) -> Path:
    for panel in bottom:
        panel.set_xlabel('updates')
        count_axis(panel)
    figure.savefig(path)
    return path


def _finite(values: Array) -> Array:
    return np.asarray(values[np.isfinite(values)], np.float32)


def _edges(*values: Array) -> Array:
    together = _finite(np.concatenate(values))
    low, high = (float(together.min()), float(together.max())) if len(together) else (0.0, 1.0)
    high = high if high > low else low + 1.0
    return np.linspace(low, high, 51).astype(np.float32)
