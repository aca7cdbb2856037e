"""`av-td3 diagnose`: what a run or a checkpoint tells of the health of its networks."""
from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from av_td3_ros.cli.config import dotted
from av_td3_ros.cli.pictures.diagnosis_plots import draw_checkpoint, draw_run
from av_td3_ros.cli.pictures.plots import Records, read_metrics
from av_td3_ros.cli.progress import figures as short
from av_td3_ros.cli.progress import number
from av_td3_ros.reading import read_yaml
from av_td3_ros.settings import flatten
from av_td3_ros.td3 import Checkpoint, CheckpointError, Checkpoints, load_checkpoint
from av_td3_ros.td3.inspection import Look, look_into
from av_td3_ros.td3.symptoms import CHECKS, SEVERITIES, Finding, judge, worst

RECENT = 10             # last measurements whose median stands for the end of a run
ENOUGH_RETURNS = 5      # measurements of the returns from which their size can be told
SICK = 2                # exit status
SETTINGS = {            # settings of the learner that the checks know, by their key in a config
    'td3.gamma': 'gamma', 'network.frames': 'frames', 'offline': 'offline',
    'limiter.updates_per_transition': 'wanted_updates_per_transition',
    'limiter.start_after': 'start_after', 'limiter.slack': 'slack'}
MARKS = {'sick': 'bold red', 'watch': 'yellow', 'well': 'green'}


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is looked at: a run, a checkpoint or both, and where the result goes."""

    run: Path | None
    checkpoint: Checkpoint | None
    out: Path
    notes: list[str]

    @property
    def title(self) -> str:
        """Return the place in words."""
        at = self.checkpoint
        parts = [f'run {self.run}' if self.run else '',
                 f'checkpoint {at.path.name if self.run else at.path} after {at.updates:,} updates'
                 if at else '']
        return ', '.join(part for part in parts if part)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('path', type=Path, metavar='PATH',
                        help='a run folder, its checkpoints folder, or one checkpoint')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='folder for pictures and report (default RUN/diagnosis)')


def run(options: argparse.Namespace) -> int:
    """Look, draw, report; return 2 when something is sick, else 0."""
    subject = _subject(options.path, options.out)
    learner, episodes = read_metrics(subject.run) if subject.run else ([], [])
    checkpoint = subject.checkpoint
    facts = known_settings(checkpoint.config if checkpoint else _run_config(subject.run))
    look = None
    try:
        look = look_into(checkpoint) if checkpoint else None
    except CheckpointError as error:
        if not learner:
            raise
        subject.notes.append(f'no checkpoint was looked at: {error}')
    sources: dict[str, dict[str, float]] = {}
    if look is not None:
        facts |= {key: look.figures[key] for key in ('gamma', 'frames', 'reward_largest')
                  if key in look.figures}
        sources['checkpoint'] = facts | look.figures
    if learner:
        sources['metrics.jsonl'] = facts | run_figures(learner, episodes)
    findings, sources_of = _worse_of_each(sources)

    subject.out.mkdir(parents=True, exist_ok=True)
    pictures = draw_run(learner, subject.out) if learner else []
    pictures += draw_checkpoint(look, subject.out) if look else []
    unmeasured = [name for name in CHECKS if name not in sources_of]
    _write_json(subject, findings, sources_of, unmeasured, sources, look, pictures)
    report = _write_report(subject, findings, sources_of, unmeasured, look, pictures)
    _print(subject, findings, unmeasured, report)
    return SICK if worst(findings) == 'sick' else 0


def run_figures(learner: Records, episodes: Records) -> dict[str, float]:
    """Return what the end of a run shows: its last counters, medians of its last metrics."""
    found = {key: value for key in learner[-1] if (value := number(learner[-1], key)) is not None}
    measured: list[Mapping[str, Any]] = []
    for record in reversed(learner):  # metrics stand in several records until there are new ones
        metrics = record.get('metrics')
        if isinstance(metrics, Mapping) and metrics and metrics not in measured[-1:]:
            measured.append(metrics)
    for key in dict.fromkeys(key for metrics in measured[:RECENT] for key in metrics):
        values = _numbers(measured[:RECENT], key)
        if values:
            found[key] = float(np.median(values))
    sizes = _numbers(measured, 'observed_return_mean')
    if len(sizes) >= ENOUGH_RETURNS:
        found['observed_return_scale'] = float(np.abs(sizes).max())
    returns = _numbers(episodes, 'return')
    if returns:
        found['episode_return_largest'] = float(np.abs(returns).max())
    return found


def known_settings(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the settings of a learner that the checks know, as far as they stand there."""
    return {name: value for key, name in SETTINGS.items()
            if (value := number(config, key)) is not None}


def _subject(path: Path, out: Path | None) -> Subject:
    """Return what a path stands for; raise ValueError when it is nothing of the sort."""
    expected = ('give a run folder (with metrics.jsonl or checkpoints/), a checkpoints folder or '
                'a checkpoint')
    if not path.is_dir():
        raise ValueError(f'{path} is {"no folder" if path.exists() else "not there"}: {expected}')
    path = path.resolve()
    is_checkpoint = (path / 'manifest.json').is_file()
    if not is_checkpoint and ((path / 'metrics.jsonl').is_file()
                              or (path / 'checkpoints').is_dir()):
        return _run_subject(path, out or path / 'diagnosis')
    if not is_checkpoint and Checkpoints(path).latest() is None:
        raise ValueError(f'{path} is neither a run nor a checkpoint: {expected}')
    checkpoint = load_checkpoint(path)
    folder, home = checkpoint.path.parent, checkpoint.path.parent.parent
    notes = [] if is_checkpoint else _newer_is_broken(path, checkpoint)
    if folder.name == 'checkpoints' and (home / 'metrics.jsonl').is_file():
        return Subject(None, checkpoint, out or home / f'diagnosis-{checkpoint.path.name}', notes)
    beside = folder / f'{checkpoint.path.name}-diagnosis'
    return Subject(None, checkpoint, out or beside, notes)


def _run_subject(path: Path, out: Path) -> Subject:
    checkpoint, notes = None, []
    try:
        checkpoint = load_checkpoint(path / 'checkpoints')
        notes += _newer_is_broken(path / 'checkpoints', checkpoint)
    except CheckpointError as error:
        notes.append(f'no checkpoint was looked at: {error}')
    if not read_metrics(path)[0]:
        if checkpoint is None:
            raise ValueError(f'{path} holds no records of a learner in metrics.jsonl, and '
                             f'{notes[0]}')
        notes.append('metrics.jsonl is missing or holds no records of a learner')
    return Subject(path, checkpoint, out, notes)


def _newer_is_broken(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Return a note where the newest checkpoint of a folder is not whole, so not looked at."""
    newer = Checkpoints(folder).broken_latest()
    return [] if newer is None else [
        f'checkpoint {checkpoint.path.name} was looked at: the newest one, {folder / newer}, is '
        'not whole (its manifest.json is missing)']


def _run_config(folder: Path | None) -> dict[str, Any]:
    """Return the learner's settings of a run as {dotted key: value}, empty when there are none."""
    try:
        if folder is None:
            return {}
        content = read_yaml(folder / 'config.yaml')
        return next((dotted(section['ros__parameters']) for name, section in content.items()
                     if name.endswith('learner_node')), {})
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}  # a run is worth looking at without its settings


def _numbers(records: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [value for record in records
            if (value := number(record, key)) is not None and not math.isnan(value)]


def _worse_of_each(sources: Mapping[str, Mapping[str, float]]
                   ) -> tuple[list[Finding], dict[str, str]]:
    """Return the worse finding of each check, and the source of each by the check's name."""
    found: dict[str, Finding] = {}
    sources_of: dict[str, str] = {}
    for source, figures in sources.items():
        for one in judge(figures):
            if one.name not in found or worst([found[one.name]]) != worst([found[one.name], one]):
                found[one.name], sources_of[one.name] = one, source
    return [found[name] for name in CHECKS if name in found], sources_of


# -- what a checkpoint shows


# -- pictures


# -- words

def _write_json(subject: Subject, findings: Sequence[Finding], sources_of: Mapping[str, str],
                unmeasured: Sequence[str], sources: Mapping[str, Mapping[str, float]],
                look: Look | None, pictures: Sequence[Path]) -> None:
    checkpoint = subject.checkpoint
    content = {
        'run': str(subject.run) if subject.run else None,
        'checkpoint': str(checkpoint.path) if checkpoint else None,
        'updates': checkpoint.updates if checkpoint else None,
        'notes': subject.notes, 'verdict': worst(findings),
        'findings': [{**one._asdict(), 'source': sources_of[one.name]} for one in findings],
        'not_measured': list(unmeasured), 'figures': sources,
        'layers': look.layers if look else [],
        'settings': flatten(checkpoint.settings) if checkpoint else None,
        'pictures': [path.name for path in pictures]}
    (subject.out / 'diagnosis.json').write_text(
        json.dumps(_plain(content), indent=1, allow_nan=False) + '\n', encoding='utf-8')


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what is not finite becomes its name."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _verdict(findings: Sequence[Finding], unmeasured: Sequence[str]) -> str:
    counts = {word: sum(one.severity == word for one in findings)
              for word in SEVERITIES}
    others = {'to watch': counts['watch'], 'well': counts['well'], 'not measured': len(unmeasured)}
    return ', '.join([f'{counts["sick"]} sick' if counts['sick'] else 'nothing sick',
                      *(f'{count} {word}' for word, count in others.items() if count)])


def _limit(one: Finding) -> str:
    return f'{"up to" if one.well == "below" else "from"} {one.threshold:.4g}'


def _write_report(subject: Subject, findings: Sequence[Finding], sources_of: Mapping[str, str],
                  unmeasured: Sequence[str], look: Look | None, pictures: Sequence[Path]) -> Path:
    lines = ['# Diagnosis', '', f'{subject.title}: **{_verdict(findings, unmeasured)}**.', '']
    lines += [f'- {note}' for note in subject.notes] + [''] * bool(subject.notes)
    for one in _ill(findings):
        lines += [f'## {one.severity.capitalize()}: {one.name}', '',
                  f'{_sentence(one.text)} Figure {short(one.figure)}, limit '
                  f'{short(one.threshold)} ({sources_of[one.name]}).', '',
                  f'What to do: {one.remedy}.', '']
    lines += ['## All checks', '', '| | Check | Figure | Limit | |', '|---|---|---|---|---|']
    lines += [f'| {one.severity} | {one.name} | {short(one.figure)} | {_limit(one)} '
              f'| {one.text.replace("|", chr(92) + "|")} |' for one in findings]
    if unmeasured:
        lines += ['', f'Not measured: {", ".join(unmeasured)}.']
    if look is not None:
        lines += ['', '## Weights', '', '| Layer | Shape | Norm | RMS | Change since the start |',
                  '|---|---|---|---|---|']
        lines += [f'| {one["layer"]} | {" x ".join(map(str, one["shape"]))} '
                  f'| {short(one["norm"])} | {short(one["rms"])} | {short(one["change"])} |'
                  for one in look.layers]
    lines += [''] + [f'![{path.stem}]({path.name})' for path in pictures]
    path = subject.out / 'diagnosis.md'
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


def _ill(findings: Sequence[Finding]) -> list[Finding]:
    return sorted((one for one in findings if one.severity != 'well'),
                  key=lambda one: SEVERITIES.index(one.severity))


def _sentence(text: str) -> str:
    return f'{text[0].upper()}{text[1:]}.'


def _print(subject: Subject, findings: Sequence[Finding], unmeasured: Sequence[str],
           report: Path) -> None:
    console = Console(highlight=False)
    console.print(Text(f'Diagnosis: {subject.title}\n', 'bold'), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title, justify in (('', 'left'), ('check', 'left'), ('figure', 'right'),
                           ('limit', 'right')):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for one in findings:
        style = MARKS[one.severity]
        table.add_row(Text(one.severity, style), Text(one.name), Text(short(one.figure), style),
                      Text(_limit(one), 'dim'))
    console.print(table)
    for one in _ill(findings):
        console.print(Text.assemble('\n', (f'{one.severity}: {one.name}. ', MARKS[one.severity]),
                                    f'{_sentence(one.text)} What to do: {one.remedy}.'))
    console.print()
    for note in subject.notes:
        console.print(Text(note, 'dim'), soft_wrap=True)
    if unmeasured:
        console.print(Text(f'not measured: {", ".join(unmeasured)}', 'dim'))
    console.print(Text(_verdict(findings, unmeasured), MARKS[worst(findings)]))
    console.print(Text(f'report: {report}'), soft_wrap=True)
