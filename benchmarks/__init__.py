"""What every benchmark does with its options and at its end."""
from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def machine() -> str:
    """Say what this runs on: processor, cores, GPU where torch sees one."""
    import torch

    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    said = dict(line.split(':', 1) for line in lines if ':' in line)
    about = {key.strip(): value.strip() for key, value in said.items()}
    names = [about.get('model name', platform.machine()),
             f'family {about.get("cpu family", "?")} model {about.get("model", "?")}',
             f'{os.cpu_count()} cores']
    if torch.cuda.is_available():
        names.append(torch.cuda.get_device_name())
    return ', '.join(names)


def at_least_one(text: str) -> int:
    """Return an option of the command line that says how many, at least 1."""
    if not re.fullmatch(r'\s*\d+\s*', text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number of at least 1')
    return int(text)


def above_zero(text: str) -> float:
    """Return an option of the command line that says how long, more than 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
    return value


def command_line(name: str) -> str:
    """Return the command that runs now."""
    return shlex.join(['python', '-m', f'benchmarks.{name}', *sys.argv[1:]])


def write_results(name: str, claims: Sequence[dict[str, Any]], table: Sequence[dict[str, Any]],
                  file: Path, **more: Any) -> None:
    """Write everything to `file` as JSON, and what `more` there is."""
    file.write_text(json.dumps({
        'benchmark': name, 'machine': machine(), 'command': command_line(name), **more,
        'claims': claims, 'table': table}, indent=2) + '\n', encoding='utf-8')


def conclude(name: str, claims: Sequence[dict[str, Any]], table: Sequence[dict[str, Any]],
             file: Path | None) -> int:
    """Print which claims hold, write everything to `file` as JSON, return the exit status."""
    for claim in claims:
        print(f'{"holds" if claim["holds"] else "FAILS"}: {claim["name"]}: {claim["value"]} '
              f'{claim["unit"]} (goal {claim["goal"]})')
    if file is not None:
        write_results(name, claims, table, file)
    return 0 if all(claim['holds'] for claim in claims) else 1
