"""Write a run's report: one HTML page over the files of its folder, readable by itself."""
from __future__ import annotations

import html
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from av_td3_ros.cli.pictures.evaluation_plots import draw_completion, draw_evaluation, draw_paths
from av_td3_ros.cli.pictures.plots import (
    draw_learning_curve,
    draw_losses,
    draw_policy,
    read_evaluation,
    read_metrics,
)
from av_td3_ros.cli.progress import (
    Metric,
    clock_text,
    drivers,
    figures,
    interval,
    number,
    shown_metrics,
)
from av_td3_ros.paths import write_whole

PACKAGES = ('av_td3_ros', 'torch', 'numpy', 'opencv-python-headless', 'carla', 'rclpy',
            'matplotlib')
PLOTS = (
    ('learning_curve', 'Learning', 'Return and route completion of every training episode over '
     'the transitions, with the mean of the last 20 episodes.'),
    ('paths', 'Driven paths', 'Paths of the evaluation seen from above, a panel a driver, '
     'coloured by speed, with every end and infraction.'),
    ('evaluation', 'Drivers compared', 'Bars of every evaluation metric for the untrained policy, '
     'the learned policy and the baseline, with 95 % intervals.'),
    ('completion', 'Route completion', 'How much of their routes the episodes completed, by how '
     'they ended.'),
    ('losses', 'Losses, values and gradients', 'Critic loss, actor loss, Q values and gradient '
     'norms over the updates.'),
    ('policy', 'Policy and rate', 'Share of saturated actions, policy version, updates per '
     'second and age of the newest policy.'),
)
DRIVER_WORDS = {'untrained': 'Untrained policy', 'learned': 'Learned policy',
                'pursuit': 'Pure pursuit (baseline)'}
STYLE = """
:root { color-scheme: light dark; --text: #1c2330; --soft: #5a6372; --line: #dfe3e9;
  --page: #f6f7f9; --card: #ffffff; --accent: #0067a3; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #a3acba; --line: #333b48;
  --page: #14181f; --card: #1d232d; --accent: #6fc0f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .8rem 1rem; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: .1rem 0 0; font-size: 1.5rem; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.tiles small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; }
thead th { color: var(--soft); font-weight: 600; font-size: .9rem; }
tbody tr { border-top: 1px solid var(--line); }
td small { color: var(--soft); display: inline-block; min-width: 7em; }
.learned { font-weight: 650; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
figure { margin: 0 0 1.5rem; } figcaption { color: var(--soft); font-size: .9rem;
  margin-top: .4rem; }
img { display: block; width: 100%; height: auto; background: #fff; padding: .75rem;
  border: 1px solid var(--line); border-radius: .6rem; }
video { display: block; width: 100%; max-width: 48rem; border-radius: .6rem; background: #000; }
pre { margin: 0; padding: .9rem 1rem; overflow-x: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem;
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details { margin: .75rem 0; } summary { cursor: pointer; font-weight: 600; }
details > :not(summary) { margin-top: .6rem; } a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print { body { background: #fff; } figure { break-inside: avoid; } }
""".strip()


def draw_all(run: str | Path) -> list[Path]:
    """Draw every plot of a run into RUN/plots and return the files."""
    return [draw(run) for draw in (draw_learning_curve, draw_losses, draw_policy,
                                   draw_evaluation, draw_completion, draw_paths)]


def write_report(run: str | Path, session: Mapping[str, Any] | None = None) -> Path:
    """
    Write RUN/report.html over what the run folder holds and return its path.

    session: what `session_facts` returned; without it RUN/session.json is read where it exists.
    Images and video are linked by relative names, so the folder can be moved or sent whole.
    Raises ValueError when evaluation.json or session.json is broken.
    """
    run = Path(run)
    evaluation = read_evaluation(run)
    learner, episodes = read_metrics(run)
    facts = dict(session) if session is not None else _read_session(run)
    title = f'Run {run.resolve().name}'
    sections = [
        _headline(title, evaluation, learner, episodes, facts),
        _evaluation_section(evaluation),
        _video_section(run),
        *(_plot_section(run, *plot) for plot in PLOTS),
        _repeat_section(run, facts),
        _files_section(run),
    ]
    page = '\n'.join([
        '<!doctype html>', '<html lang="en">', '<head>', '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{_text(title)} · av_td3_ros</title>', f'<style>\n{STYLE}\n</style>', '</head>',
        '<body>', '<main>', *(section for section in sections if section), '</main>', '</body>',
        '</html>', ''])
    path = run / 'report.html'
    # Beside, then renamed: someone who has the page open never loads half of it.
    write_whole(path, page)
    return path


def session_facts(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what another person needs to repeat a session, as plain values for session.json."""
    versions = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        'command': list(sys.argv if command is None else command),
        'started': time.strftime('%Y-%m-%d %H:%M:%S %z'),
        'versions': versions,
        'commit': _commit(),
        'machine': f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores',
    }


def _headline(title: str, evaluation: Mapping[str, Any], learner: Sequence[Mapping[str, Any]],
              episodes: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    newest = learner[-1] if learner else {}
    tiles = []
    learned = drivers(evaluation).get('learned')
    if learned is not None:
        for metric in shown_metrics(evaluation)[:3]:
            middle, low, high = interval(learned, metric.key)
            unit = ' %' if metric.percent else ''
            between = (f'{metric.text(low)} to {metric.text(high)}{unit}'
                       if low is not None and high is not None else 'learned policy')
            tiles.append((metric.label, metric.text(middle) + unit, between))
    for key, label in (('transitions', 'transitions'), ('updates', 'updates')):
        value = number(newest, key)
        if value is not None:
            rate = number(newest, 'updates_per_second') if key == 'updates' else None
            note = (f'{figures(rate)} a second at the end' if rate is not None
                    else f'{len(episodes):,} episodes')
            tiles.append((label, f'{value:,.0f}', note))
    wall = number(newest, 'wall_time')
    if wall is not None:
        tiles.append(('training time', clock_text(wall), 'h:min:s' if wall >= 3600 else 'min:s'))
    items = ''.join(f'<div><dt>{_text(label)}</dt><dd>{_text(value)}'
                    f'<small>{_text(note)}</small></dd></div>' for label, value, note in tiles)
    started = f'<p class="soft">{_text(facts["started"])}</p>' if facts.get('started') else ''
    return (f'<header><h1>{_text(title)}</h1>{started}{_sentence(evaluation)}'
            + (f'<dl class="tiles">{items}</dl>' if items else '') + '</header>')


def _sentence(evaluation: Mapping[str, Any]) -> str:
    found = drivers(evaluation)
    if 'learned' not in found and 'untrained' in found:
        return '<p>Nothing was learned: the learner made no update.</p>'
    if 'learned' not in found:
        return '<p>This run has not been evaluated yet.</p>'
    success = {name: interval(driver, 'success')[0] for name, driver in found.items()}
    percent = Metric('success', 'success', percent=True)
    words = [f'the learned policy completes <strong>{percent.text(success["learned"])} %</strong> '
             f'of the evaluation routes']
    words += [f'{phrase} {percent.text(success[name])} %' for name, phrase in
              (('untrained', 'the untrained policy'), ('pursuit', 'the pure-pursuit baseline'))
              if success.get(name) is not None]
    where = f'On map {_text(evaluation["map"])}, ' if evaluation.get('map') else ''
    sentence = where + ', '.join(words) + '.'
    return f'<p>{sentence[0].upper() + sentence[1:]}</p>'


def _evaluation_section(evaluation: Mapping[str, Any]) -> str:
    found, metrics = drivers(evaluation), shown_metrics(evaluation)
    if not metrics:
        return ''
    head = ''.join(f'<th scope="col">{_text(DRIVER_WORDS.get(name, name))}</th>' for name in found)
    rows = []
    for metric in metrics:
        cells = []
        for name, driver in found.items():
            middle, low, high = interval(driver, metric.key)
            between = (f'<small>{metric.text(low)} to {metric.text(high)}</small>'
                       if None not in (middle, low, high) else '')
            kind = ' class="learned"' if name == 'learned' else ''
            cells.append(f'<td><span{kind}>{metric.text(middle)}</span>{between}</td>')
        rows.append(f'<tr><th scope="row">{_text(metric.title)}</th>{"".join(cells)}</tr>')
    count = max(len(driver.get('episodes') or ()) for driver in found.values())
    episodes = f'{count} episodes a driver. ' if count else ''
    policies = ''.join(f' {DRIVER_WORDS.get(name, name)}: {driver["policy"]}.'
                       for name, driver in found.items() if driver.get('policy'))
    return (f'<section><h2>Evaluation</h2><div class="scroll" tabindex="0" role="region" '
            f'aria-label="Evaluation table"><table><thead><tr><th scope="col">Metric</th>{head}'
            f'</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
            f'<p class="soft">{episodes}Small numbers: 95 % intervals.{_text(policies)}</p>'
            '</section>')


def _video_section(run: Path) -> str:
    if not (run / 'drive.mp4').is_file():
        return ''
    return ('<section><h2>The learned drive</h2><video controls preload="metadata" playsinline '
            'src="drive.mp4#t=0.1" aria-label="Front camera of the learned policy driving">'
            'This browser plays no video: <a href="drive.mp4">drive.mp4</a></video></section>')


def _plot_section(run: Path, name: str, title: str, alternative: str) -> str:
    if not (run / 'plots' / f'{name}.png').is_file():
        return ''
    return (f'<section><h2>{_text(title)}</h2><figure><a href="plots/{name}.png">'
            f'<img src="plots/{name}.png" alt="{_text(alternative)}" loading="lazy"></a>'
            f'<figcaption>{_text(alternative)}</figcaption></figure></section>')


def _repeat_section(run: Path, facts: Mapping[str, Any]) -> str:
    parts = []
    command = facts.get('command')
    if command:
        line = command if isinstance(command, str) else shlex.join(str(word) for word in command)
        parts.append(f'<p>The same command gives a run like this one:</p><pre>{_text(line)}</pre>')
    config = run / 'config.yaml'
    if config.is_file():
        text = config.read_text(encoding='utf-8', errors='replace')
        parts.append(f'<details><summary>Configuration as used (config.yaml)</summary>'
                     f'<pre>{_text(text)}</pre></details>')
    versions = facts.get('versions')
    rows = [(name, value) for name, value in (
        ('commit', facts.get('commit')), ('machine', facts.get('machine')),
        *(versions.items() if isinstance(versions, Mapping) else ())) if value]
    if rows:
        cells = ''.join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
                        for name, value in rows)
        parts.append('<details><summary>Versions and machine</summary><div class="scroll">'
                     f'<table class="facts"><tbody>{cells}</tbody></table></div></details>')
    return f'<section><h2>How to repeat it</h2>{"".join(parts)}</section>' if parts else ''


def _files_section(run: Path) -> str:
    known = (('metrics.jsonl', 'every learner and episode record'),
             ('evaluation.json', 'every evaluation episode with its path'),
             ('checkpoints', 'networks, optimisers and replay'),
             ('bag', 'every transition, rosbag2 with MCAP storage'),
             ('tensorboard', 'open with tensorboard --logdir'),
             ('logs', 'what each node said'))
    items = ''.join(f'<li><a href="{quote(name)}">{_text(name)}</a> '
                    f'<span class="soft">{_text(words)}</span></li>'
                    for name, words in known if (run / name).exists())
    return f'<section><h2>Files</h2><ul>{items}</ul></section>' if items else ''


def _read_session(run: Path) -> dict[str, Any]:
    path = run / 'session.json'
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON ({error}); delete it to report without') from error
    return facts if isinstance(facts, dict) else {}


def _commit() -> str:
    try:
        answer = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=Path(__file__).parent,
                                capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return answer.stdout.strip() if answer.returncode == 0 else ''


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
