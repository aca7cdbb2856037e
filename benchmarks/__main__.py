"""Run every benchmark, one after the other, and print which claims hold."""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Return 0 when every claim holds."""
    names = sorted(path.stem for path in HERE.glob('[a-z]*.py'))
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=f'which ones (default all of {", ".join(names)})')
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f'no benchmark {unknown[0]!r}; there are {", ".join(names)}')
    results = HERE / 'results'
    results.mkdir(exist_ok=True)
    lines, all_hold = [], True
    for name in options.names or names:
        print(f'== {name}', flush=True)
        file = results / f'{name}.json'
        file.unlink(missing_ok=True)
        subprocess.run([sys.executable, '-m', f'benchmarks.{name}', '--json', str(file)],
                       check=False)
        if not file.exists():
            lines.append(f'FAILS  {name}: it wrote no result')
            all_hold = False
            continue
        for claim in json.loads(file.read_text(encoding='utf-8'))['claims']:
            all_hold &= claim['holds']
            lines.append(f'{"holds" if claim["holds"] else "FAILS"}  {name}: {claim["name"]}: '
                         f'{claim["value"]} {claim["unit"]} (goal {claim["goal"]})')
    print('\n'.join(['== claims', *lines]))
    return 0 if all_hold else 1


if __name__ == '__main__':
    sys.exit(main())
