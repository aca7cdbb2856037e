"""Inject every fault that a session may meet, and count what was lost by it."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import (
    _faults_control,
    _faults_files,
    _faults_input,
    _faults_recording,
    _faults_weights,
    conclude,
)
from benchmarks._faults import Fault
from benchmarks._learning_report import table_page

FAULTS: dict[str, Fault] = {**_faults_control.FAULTS, **_faults_recording.FAULTS,
                            **_faults_weights.FAULTS, **_faults_input.FAULTS,
                            **_faults_files.FAULTS}


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', nargs='+', choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument('--times', type=int, help='how often to inject each (default its own)')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    table, claims = [], []
    for name in options.only:
        outcome = FAULTS[name].inject(options.times or FAULTS[name].times)
        table.append({'fault': name, 'times': outcome.times, 'what happened': outcome.happened,
                      'what was lost': outcome.lost})
        claims += outcome.claims
        print(table_page(table[-1:]).splitlines()[-1], flush=True)
    print(table_page(table))
    return conclude('faults', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
