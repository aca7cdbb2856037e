"""Run the main job, `av-td3 train`, for several seeds: learned against untrained and pursuit."""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import conclude

GOAL_SUCCESS = 0.8
GOAL_MINUTES = 15.0
DRIVERS = ('untrained', 'learned', 'pursuit')
METRICS = ('success', 'route_completion', 'mean_return', 'mean_speed', 'cross_track_rms')


def run_seed(seed: int, folder: Path, arguments: list[str]) -> tuple[float, dict[str, Any]]:
    """Train and evaluate with one seed; return the minutes it took and its evaluation."""
    run = folder / f'seed{seed}'
    started = time.monotonic()
    subprocess.run([sys.executable, '-m', 'av_td3_ros.cli.main', 'train', '--seed', str(seed),
                    '--run', str(run), *arguments], check=True)
    minutes = (time.monotonic() - started) / 60
    return minutes, json.loads((run / 'evaluation.json').read_text(encoding='utf-8'))


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--runs', type=Path, help='folder of the runs (default a temporary one)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options, arguments = parser.parse_known_args()
    folder = options.runs or Path(tempfile.mkdtemp(prefix='av_td3_ros-'))
    table, successes, times = [], [], []
    for seed in options.seeds:
        minutes, evaluation = run_seed(seed, folder, arguments)
        times.append(minutes)
        successes.append(evaluation['learned']['success'])
        for driver in DRIVERS:
            metrics = evaluation[driver]['metrics']
            table.append({'seed': seed, 'minutes': round(minutes, 1), 'driver': driver, **{
                name: round(metrics[name]['mean'], 3) for name in METRICS if name in metrics}})
    claims = [
        {'name': f'success of the learned policy on an unseen map, worst of '
                 f'{len(options.seeds)} seeds', 'value': min(successes), 'unit': 'of the routes',
         'goal': GOAL_SUCCESS, 'holds': min(successes) >= GOAL_SUCCESS},
        {'name': 'training, evaluation and report, slowest seed', 'value': round(max(times), 1),
         'unit': 'minutes', 'goal': GOAL_MINUTES, 'holds': max(times) <= GOAL_MINUTES}]
    print(f'{"seed":>4} {"driver":10}' + ''.join(f'{name:>18}' for name in METRICS))
    for row in table:
        print(f'{row["seed"]:4} {row["driver"]:10}' + ''.join(
            f'{row[name]:18.2f}' if name in row else f'{"-":>18}' for name in METRICS))
    return conclude('main_job', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
