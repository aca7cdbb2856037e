"""
Inject every fault that a session may meet, and count what was lost by it.

With --out a run of some faults takes the place of their rows in faults.json and faults.md there,
and leaves the others as they are.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    _faults_control,
    _faults_files,
    _faults_input,
    _faults_recording,
    _faults_weights,
    at_least_one,
    conclude,
)
from benchmarks._faults import Fault
from benchmarks._jobs import write_tables
from benchmarks._learning_report import table_page

FAULTS: dict[str, Fault] = {**_faults_control.FAULTS, **_faults_recording.FAULTS,
                            **_faults_weights.FAULTS, **_faults_input.FAULTS,
                            **_faults_files.FAULTS}


def merged(file: Path, table: Sequence[Mapping[str, Any]], claims: Sequence[Mapping[str, Any]]
           ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows and claims of an earlier run, in order, with the new ones in their places."""
    before = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}
    rows = {one['fault']: dict(one) for one in (*before.get('table', ()), *table)}
    new = {one['fault'] for one in table}
    kept = [one for one in before.get('claims', ()) if one.get('fault') not in new]
    return ([rows[name] for name in FAULTS if name in rows],
            [one for name in FAULTS for one in (*kept, *claims) if one.get('fault') == name])


def page(table: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the tables of faults.md: one of all faults, and one of each that has details."""
    tables = {'rows': table_page([{key: value for key, value in one.items() if key != 'details'}
                                  for one in table])}
    return tables | {one['fault']: table_page(one['details']) for one in table
                     if one.get('details')}


def main() -> int:
    """Print the table and the claims; write them as JSON and as a page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', nargs='+', choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument('--times', type=at_least_one,
                        help='how often to inject each (default its own)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    parser.add_argument('--out', type=Path, help='folder of faults.json and faults.md, which keep '
                        'what is not injected now')
    options = parser.parse_args()
    table: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    for name in options.only:
        outcome = FAULTS[name].inject(options.times or FAULTS[name].times)
        load = os.getloadavg()[1]
        table.append({'fault': name, 'times': outcome.times, 'load': f'{load:.1f}',
                      'what happened': outcome.happened, 'what was lost': outcome.lost,
                      'details': list(outcome.details)})
        claims += [{**one, 'fault': name} for one in outcome.claims]
        print(page(table[-1:])['rows'].splitlines()[-1], flush=True)
    print(*page(table).values(), sep='\n')
    file = options.json
    if options.out is not None:
        file = file or options.out / 'faults.json'
        table, claims = merged(file, table, claims)
        write_tables(options.out / 'faults.md', page(table))
    return conclude('faults', claims, table, file)


if __name__ == '__main__':
    sys.exit(main())
