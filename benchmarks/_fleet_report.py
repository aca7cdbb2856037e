"""The page and the picture of what the vehicles of a fleet cost."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from av_td3_ros.cli.pictures.plots import BLUE, GREY, ORANGE, STYLE
from benchmarks import machine

Rows = Sequence[Mapping[str, Any]]
COLUMNS = {
    'vehicles': 'Vehicles', 'seconds': 'Seconds', 'offered': 'Offered',
    'skipped_by_vehicles': 'Left out', 'missing': 'Missing', 'twice': 'Twice',
    'sent_per_second': 'Transitions/s', 'updates_alone': 'Updates/s alone',
    'updates_beside': 'beside', 'rate_percent': '%', 'delay_median_s': 'Weights, median s',
    'delay_to_all_s': 'to all', 'delay_worst_s': 'worst', 'policies': 'Policies'}
WHERE = {
    'update_alone_ran': 'Runs alone', 'update_ran': 'Runs beside them',
    'update_waited_for_core': 'waits for a core', 'update_waited_otherwise': 'waits otherwise'}
COSTS = {
    'learner_cpu': ('Learner: % of a core', 100.0), 'learner_bytes': ('kB/s', 1e-3),
    'learner_memory': ('MB', 1.0), 'vehicle_cpu': ("Vehicles' side: % of a core", 100.0),
    'vehicle_memory': ('MB', 1.0)}


def write_report(table: Rows, folder: Path) -> None:
    """Write fleet.md and fleet.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'fleet.md').write_text(_page(table), encoding='utf-8')
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.2), layout='constrained')
        FigureCanvasAgg(figure)
        _draw(figure, table)
        figure.savefig(folder / 'fleet.png')


def _row(values: Sequence[Any]) -> str:
    return f'| {" | ".join(str(one) for one in values)} |'


def _page(table: Rows) -> str:
    size = table[-1]['weights_bytes'] / 1e6
    return '\n'.join([
        '# A fleet and one learner', '',
        '```sh', 'python -m benchmarks.fleet --json docs/results/fleet.json --out docs/results',
        '```', '',
        f'{machine()}.', '',
        'Recorded driving is played again at 20 Hz, four vehicles a participant, with the way of',
        'sending and of sending again that a recorder has, on the machine of the learner, which',
        'learns all the time; in a fleet their processors are elsewhere, so here they take what',
        f'the learner leaves (SCHED_IDLE). Weights of {size:.1f} MB go out every 10 s; the delay',
        'runs from the stamp of the message until a vehicle has it. Missing and twice: the replay',
        'of the last checkpoint against what was sent. Left out: steps that were due while the',
        "vehicles' processes had no processor, and that they never offered.", '',
        _row(list(COLUMNS.values())), _row(['---'] * len(COLUMNS)),
        *(_row([one[name] for name in COLUMNS]) for one in table), '',
        'Where the time of the thread that learns goes, in % of it. It waits for a core where its',
        "own process takes transitions in, DDS works or vehicles drive; otherwise, for Python's",
        'lock and the memory of the replay.', '',
        _row(['Vehicles', *WHERE.values()]), _row(['---'] * (len(WHERE) + 1)),
        *(_row([one['vehicles'], *(round(100 * one[name], 1) for name in WHERE)])
          for one in table if WHERE.keys() <= one.keys()), '',
        'What the whole fleet costs. Learner: its threads beside the one that learns, and the',
        'memory that it has grown by; bytes are those of the serialised transitions. '
        "Vehicles' side:", 'the processes that play the vehicles, 16 in each.', '',
        _row(['Vehicles', *(name for name, _ in COSTS.values())]),
        _row(['---'] * (len(COSTS) + 1)),
        *(_row([one['vehicles'], *(round(one[name] * scale, 1)
                                   for name, (_, scale) in COSTS.items())]) for one in table),
        '', '![cost](fleet.png)', '', 'The figures lie in [fleet.json](fleet.json).', ''])


def _draw(figure: Figure, table: Rows) -> None:
    count = [one['vehicles'] for one in table]
    left, middle, right = figure.subplots(1, 3)
    for axes, title, curves in (
            (left, '% of a core', (('learner', 'learner_cpu', 100.0, BLUE),
                                   ("vehicles' side", 'vehicle_cpu', 100.0, ORANGE))),
            (middle, 'MB of memory', (('learner', 'learner_memory', 1.0, BLUE),
                                      ("vehicles' side", 'vehicle_memory', 1.0, ORANGE))),
            (right, 'MB/s to the learner', (('learner', 'learner_bytes', 1e-6, BLUE),))):
        for name, key, scale, colour in curves:
            values = [max(one[key] * scale, 1e-3) for one in table]
            axes.loglog(count, values, 'o-', color=colour, label=name)
            axes.loglog(count, [values[-1] * one / count[-1] for one in count], '--',
                        color=GREY, linewidth=1.0)
        axes.set_title(title)
        axes.set_xlabel('vehicles')
        axes.set_xticks(count, [str(one) for one in count])
        axes.minorticks_off()
    left.legend()
