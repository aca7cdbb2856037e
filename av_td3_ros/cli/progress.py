"""Show a session while it runs: one live panel in a terminal, plain lines anywhere else."""
from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

MEAN_OF = 20                # episodes in the means shown
RATE_WINDOW = 60.0          # s of progress that the time left is estimated from
MISSING = '-'
WIDE = 100                  # columns that every table fits into
NODE_STYLES = {'starting': ('○', 'yellow'), 'running': ('●', 'green'), 'ended': ('○', 'dim'),
               'died': ('✗', 'bold red')}
NODE_LETTERS = {'○': 'o', '●': '*', '✗': 'x'}       # for terminals that only know ASCII
BLOCKS = '▁▂▃▄▅▆▇█'


class Metric(NamedTuple):
    """Name one evaluation metric: its key, what a person calls it, its unit and its decimals."""

    key: str
    label: str
    unit: str = ''
    decimals: int = 2
    percent: bool = False

    @property
    def title(self) -> str:
        """Return the label with its unit."""
        return f'{self.label} [{self.unit}]' if self.unit else self.label

    def text(self, value: float | None) -> str:
        """Return a value as it is shown, in percent where the metric is a share."""
        if value is None or not math.isfinite(value):
            return MISSING
        return f'{100 * value:.0f}' if self.percent else f'{value:,.{self.decimals}f}'


EVALUATION_METRICS = (
    Metric('success', 'success', '%', percent=True),
    Metric('route_completion', 'route completion', '%', percent=True),
    Metric('driving_score', 'driving score', '%', percent=True),
    Metric('mean_return', 'mean return', decimals=1),
    Metric('mean_speed', 'mean speed', 'm/s', 1),
    Metric('completion_time', 'completion time', 's', 1),
    Metric('collisions_per_km', 'collisions', '1/km', 1),
    Metric('lane_invasions_per_km', 'lane invasions', '1/km', 1),
    Metric('off_road_share', 'off the road', '%', percent=True),
    Metric('cross_track_rms', 'cross-track RMS', 'm'),
    Metric('cross_track_max', 'cross-track max', 'm'),
    Metric('lateral_acceleration_rms', 'lateral acc. RMS', 'm/s²', 1),
    Metric('jerk_rms', 'jerk RMS', 'm/s³', 1),
    Metric('steering_reversals_per_km', 'steering reversals', '1/km', 0),
    Metric('min_ttc', 'mean smallest TTC', 's', 1),
)
KNOWN_DRIVERS = ('untrained', 'learned', 'pursuit')


class ProgressView:
    """
    Show the progress of a session from the records that it is fed.

    In a terminal a panel is redrawn `refresh` times a second; elsewhere one line is printed every
    `interval` seconds of `clock`, when something is fed. A record may lack any key. Every method
    may be called from any thread.
    """

    def __init__(self, target: int, title: str = 'av_td3_ros', *, console: Console | None = None,
                 interval: float = 10.0, refresh: float = 4.0,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare a view of a session that ends after `target` transitions."""
        self.target = target
        self.title = title
        self.console = console if console is not None else plain_console()
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._interval = interval
        self._clock = clock
        self._lock = threading.RLock()
        self._phase = 'starting'
        self._learner: Mapping[str, Any] = {}
        self._metrics: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self._episodes = self._ended = 0
        self._returns: deque[float] = deque(maxlen=200)
        self._completions: deque[float] = deque(maxlen=200)
        self._last_end = ''
        self._transitions = 0
        self._seen: deque[tuple[float, int]] = deque()
        self._started = self._printed = clock()
        self._live = Live(console=self.console, get_renderable=self.render,
                          refresh_per_second=refresh) if self.is_live else None

    def __enter__(self) -> ProgressView:
        """Start the clock and, in a terminal, the live panel."""
        self._started = self._printed = self._clock()
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Leave the last state on the screen and give the terminal back."""
        if self._live is not None:
            self._live.stop()
        else:
            with self._lock:
                self._print_line()

    def learner(self, record: Mapping[str, Any]) -> None:
        """Take a learner record of metrics.jsonl."""
        with self._lock:
            self._learner = {**self._learner, **record}
            metrics = record.get('metrics')
            if isinstance(metrics, Mapping):
                # The actor is updated less often than the critic: keep its last values.
                self._metrics.update(metrics)
            self._count(_whole(record, 'transitions'))
            self._episodes = max(self._episodes, _whole(record, 'episodes'))
            self._tick()

    def episode(self, record: Mapping[str, Any]) -> None:
        """Take an episode record of metrics.jsonl."""
        with self._lock:
            self._ended += 1
            # The learner's count may already hold this episode, and holds those before a resume.
            self._episodes = max(self._episodes, self._ended, _whole(record, 'episodes'))
            for values, key in ((self._returns, 'return'),
                                (self._completions, 'route_completion')):
                value = number(record, key)
                if value is not None:
                    values.append(value)
            self._last_end = str(record.get('result') or '')
            self._count(_whole(record, 'transitions'))
            self._tick()

    def phase(self, text: str) -> None:
        """Say what the session does now, for instance 'training' or 'evaluating learned 3/5'."""
        with self._lock:
            changed, self._phase = text != self._phase, text
        if changed and self._live is None:
            self.event(text)

    def event(self, text: str) -> None:
        """Tell one thing that happened; it stays on the screen above the panel."""
        # Without the lock: the panel's thread takes rich's lock first and ours second.
        line = Text.assemble((f'{clock_text(self._elapsed()):>8}  ', 'dim'), self._shown(text))
        self.console.print(line, soft_wrap=True)

    def nodes(self, states: Mapping[str, str]) -> None:
        """Take what each node is: 'starting', 'running', 'ended', 'died' or another word."""
        with self._lock:
            self._nodes = {str(name): str(state) for name, state in states.items()}
            self._tick()

    def tick(self) -> None:
        """Print the plain line when it is due, also when no record came."""
        with self._lock:
            self._tick()

    def render(self) -> RenderableType:
        """Return the panel as it stands now."""
        with self._lock:
            rows: list[RenderableType] = [self._bar(), Padding(self._numbers(), (1, 0, 0, 0))]
            if self._nodes:
                rows.append(Padding(self._node_line(), (1, 0, 0, 0)))
            title = Text.assemble((self._shown(self.title), 'bold'), ' - ',
                                  (self._shown(self._phase), 'cyan'))
            below = f'means of {MEAN_OF} episodes, {clock_text(self._elapsed())}'
            return Panel(Group(*rows), title=title, title_align='left',
                         subtitle=Text(below, 'dim'), subtitle_align='right',
                         border_style='blue', padding=(0, 1),
                         width=min(self.console.width, 100))

    def line(self) -> str:
        """Return the state as one plain line."""
        with self._lock:
            returns, completions = self._returns, self._completions
            share = 100 * self._transitions / self.target if self.target > 0 else 0.0
            parts = [
                f'{self._transitions:,}/{self.target:,} transitions ({share:.0f} %), '
                f'ETA {self._time_left()}',
                f'updates {self._count_text("updates")} '
                f'at {figures(number(self._learner, "updates_per_second"))}/s',
                f'episodes {self._episodes}',
                f'return {last(returns)} (mean {mean(returns)})',
                f'completion {last(completions, 100)} % (mean {mean(completions, 100)} %)',
                f'policy {self._count_text("policy_version")}',
                f'critic loss {self._metric("critic_loss")}',
                f'actor loss {self._metric("actor_loss")}',
                f'Q {self._q_text()}',
                f'saturated {self._metric("saturated_fraction", 100)} %',
            ]
            return f'{clock_text(self._elapsed()):>8}  {self._phase}: ' + ' | '.join(parts)

    def _tick(self) -> None:
        if self._live is None and self._clock() - self._printed >= self._interval:
            self._print_line()

    def _print_line(self) -> None:
        self._printed = self._clock()
        self.console.print(Text(self._shown(self.line())), soft_wrap=True)

    def _elapsed(self) -> float:
        return self._clock() - self._started

    def _count(self, transitions: int) -> None:
        if transitions <= self._transitions:
            return
        now = self._clock()
        self._transitions = transitions
        self._seen.append((now, self._transitions))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_WINDOW:
            self._seen.popleft()

    def _time_left(self) -> str:
        if self._transitions >= self.target:
            return 'done'
        if len(self._seen) < 2:
            return MISSING
        (begin, first), (end, newest) = self._seen[0], self._seen[-1]
        # Count the time since the last progress as well, or a stalled session looks on time.
        rate = (newest - first) / max(max(end, self._clock()) - begin, 1e-9)
        return clock_text((self.target - self._transitions) / rate) if rate > 0 else MISSING

    def _count_text(self, key: str) -> str:
        value = number(self._learner, key)
        return f'{value:,.0f}' if value is not None and math.isfinite(value) else MISSING

    def _metric(self, key: str, scale: float = 1.0) -> str:
        value = number(self._metrics, key)
        return figures(None if value is None else scale * value)

    def _q_text(self) -> str:
        return f'{self._metric("q1_mean")} / {self._metric("q2_mean")}'

    def _bar(self) -> RenderableType:
        done = min(self._transitions, self.target)
        share = 100 * self._transitions / self.target if self.target > 0 else 0.0
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(ratio=1)
        row.add_column(justify='right', no_wrap=True)
        row.add_row(ProgressBar(total=max(self.target, 1), completed=done),
                    Text.assemble((f'{self._transitions:,}', 'bold'),
                                  f'/{self.target:,} transitions ', (f'{share:3.0f} %', 'bold'),
                                  '  ETA ', (self._time_left(), 'cyan')))
        return row

    def _numbers(self) -> RenderableType:
        returns, completions = self._returns, self._completions
        learning = [
            ('updates', self._count_text('updates')),
            ('updates/s', figures(number(self._learner, 'updates_per_second'))),
            ('policy', 'version ' + self._count_text('policy_version')),
            ('replay', self._count_text('replay_size')),
        ]
        driving = [
            ('episodes', f'{self._episodes:,}'),
            ('return', f'{last(returns)}, mean {mean(returns)}'),
            ('completion', f'{last(completions, 100)} %, mean {mean(completions, 100)} %'),
            ('last end', self._shown(self._last_end).replace('_', ' ') or MISSING),
        ]
        losses = [
            ('critic loss', self._metric('critic_loss')),
            ('actor loss', self._metric('actor_loss')),
            ('Q1 / Q2', self._q_text()),
            ('saturated', f'{self._metric("saturated_fraction", 100)} %'),
        ]
        blocks = [_pairs(block) for block in (driving, learning, losses)]
        # The view fits a terminal of 80 columns side by side; a narrower one gets it stacked.
        grid = Table.grid(padding=(0, 3))
        if self.console.width >= 80:
            grid.add_row(*blocks)
        else:
            for block in blocks:
                grid.add_row(block)
        if len(returns) < 2:
            return grid
        width = min(self.console.width, 100) - 20
        bars = sparkline(list(returns)[-width:], ascii_only=self._ascii_only())
        return Group(grid, Text.assemble(('returns  ', 'dim'), (bars, 'green')))

    def _node_line(self) -> Text:
        line = Text()
        for name, state in self._nodes.items():
            mark, style = NODE_STYLES.get(state, ('○', 'yellow'))
            mark = NODE_LETTERS[mark] if self._ascii_only() else mark
            word = name if state in ('running', 'ended') else f'{name} {state}'
            text = f'{mark} {self._shown(word)}'
            line.append(text if self._ascii_only() else text.replace(' ', '\N{NO-BREAK SPACE}'),
                        style)
            line.append('  ')
        return line

    def _shown(self, text: str) -> str:
        """Return text in the characters that this terminal has."""
        return text.encode(self.console.encoding, 'replace').decode(self.console.encoding)

    def _ascii_only(self) -> bool:
        return not self.console.encoding.lower().startswith('utf')


def plain_console() -> Console:
    """Return a console on standard output; a file or a pipe is as wide as the widest table."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """Return the evaluation as a table: a row a metric, a column a driver, 95 % intervals."""
    names, rows = _evaluation_rows(evaluation)
    table = Table(title=Text(_evaluation_title(evaluation), 'bold'), title_justify='left',
                  caption='in brackets: 95 % intervals', caption_justify='left',
                  box=box.SIMPLE_HEAD, collapse_padding=True, show_edge=False,
                  pad_edge=False, min_width=40)
    table.add_column('metric', no_wrap=True)
    for name in names:
        table.add_column(Text(name), justify='right', style='bold' if name == 'learned' else '')
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def evaluation_text(evaluation: Mapping[str, Any]) -> str:
    """Return the evaluation as plain text in aligned columns, for logs."""
    names, rows = _evaluation_rows(evaluation)
    lines = [['metric', *names], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
    text = [_evaluation_title(evaluation)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        text.append('  '.join([line[0].ljust(widths[0]), *cells]))
    text.append('in brackets: 95 % intervals')
    return '\n'.join(text)


def drivers(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """
    Return the drivers of an evaluation by name: the known ones first, then the others.

    The evaluation of a single driver is that driver itself.
    """
    if 'policy' in evaluation:
        return {str(evaluation.get('name') or evaluation['policy']): evaluation}
    found = {str(name): value for name, value in evaluation.items()
             if isinstance(value, Mapping) and ('metrics' in value or 'episodes' in value)}
    order = [name for name in KNOWN_DRIVERS if name in found]
    return {name: found[name] for name in [*order, *found]}


def maps_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the names of the maps that were driven on."""
    given = [evaluation['map']] if evaluation.get('map') else evaluation.get('maps') or ()
    return [Path(str(name)).stem if str(name).endswith('.xodr') else str(name) for name in given]


def interval(driver: Mapping[str, Any], key: str) -> tuple[float | None, float | None,
                                                           float | None]:
    """Return (mean, low, high) of a driver's metric; what is missing or not finite is None."""
    metrics = driver.get('metrics')
    entry = metrics.get(key) if isinstance(metrics, Mapping) else None
    if not isinstance(entry, Mapping):
        entry = {'mean': driver.get(key)}
    values = (number(entry, name) for name in ('mean', 'low', 'high'))
    middle, low, high = (None if value is None or not math.isfinite(value) else value
                         for value in values)
    return middle, low, high


def shown_metrics(evaluation: Mapping[str, Any]) -> list[Metric]:
    """Return the metrics that at least one driver has a value of."""
    return [metric for metric in EVALUATION_METRICS
            if any(interval(driver, metric.key)[0] is not None
                   for driver in drivers(evaluation).values())]


def number(record: Mapping[str, Any], key: str) -> float | None:
    """Return record[key] as a float, None when it is missing or no number."""
    value = record.get(key)
    if value is None or isinstance(value, (str, bytes)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _whole(record: Mapping[str, Any], key: str) -> int:
    value = number(record, key)
    return int(value) if value is not None and math.isfinite(value) else 0


def figures(value: float | None) -> str:
    """Return a number in three to four figures; '-' when there is none."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f'{value:.1e}'
    return f'{value:,.0f}' if size >= 1000 else f'{value:.1f}' if size >= 10 else f'{value:.3g}'


def last(values: Sequence[float], scale: float = 1.0) -> str:
    """Return the last of some values as text."""
    if not values:
        return MISSING
    return f'{scale * values[-1]:.0f}' if scale != 1.0 else f'{values[-1]:.1f}'


def mean(values: Sequence[float], scale: float = 1.0) -> str:
    """Return the mean of the last MEAN_OF values as text."""
    recent = list(values)[-MEAN_OF:]
    return last([sum(recent) / len(recent)], scale) if recent else MISSING


def clock_text(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    if not math.isfinite(seconds):
        return MISSING
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    text = f'{minutes}:{whole % 60:02d}'
    return f'{hours}:{minutes:02d}:{whole % 60:02d}' if hours else text


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """Return values as a row of small bars; what is not finite is a blank."""
    marks = '_.:-=+*#' if ascii_only else BLOCKS
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ''
    low, span = min(finite), max(finite) - min(finite)
    return ''.join(marks[int((len(marks) - 1) * (value - low) / span) if span > 0 else 0]
                   if math.isfinite(value) else ' ' for value in values)


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style='dim', no_wrap=True)
    table.add_column(no_wrap=True)
    for label, value in rows:
        broken = 'nan' in value or 'inf' in value
        table.add_row(label, Text(value, 'bold red' if broken else ''))
    return table


def _evaluation_title(evaluation: Mapping[str, Any]) -> str:
    found = drivers(evaluation)
    count = max((len(driver.get('episodes') or ()) for driver in found.values()), default=0)
    where = maps_of(evaluation)
    parts = [f'map{"s" * (len(where) > 1)} {", ".join(where)}' if where else '',
             f'{count} episodes' + ' a driver' * (len(found) > 1) if count else '',
             f'seed {evaluation["seed"]}' if evaluation.get('seed') is not None else '']
    return 'Evaluation: ' + (', '.join(part for part in parts if part) or 'no drivers')


def _evaluation_rows(evaluation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    found = drivers(evaluation)
    rows = []
    for metric in shown_metrics(evaluation):
        row = [metric.title]
        for driver in found.values():
            middle, low, high = interval(driver, metric.key)
            text = metric.text(middle)
            if low is not None and high is not None and middle is not None:
                text += f' [{metric.text(low)}, {metric.text(high)}]'
            row.append(text)
        rows.append(row)
    return list(found), rows
