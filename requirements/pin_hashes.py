"""
Write beside each pin the SHA-256 of every file that PyPI lists for that version.

    python requirements/pin_hashes.py            all of requirements/*.txt that are pinned
    python requirements/pin_hashes.py --check    say what differs, change nothing

pip then installs nothing else (`--require-hashes`), on whatever platform and Python. Files that
are not on PyPI but may be installed as well, such as the CPU build of torch, stand in
other-hashes.txt as `sha256sum` prints them.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
INDEX = 'https://pypi.org/pypi/{name}/json'
OTHERS = HERE / 'other-hashes.txt'
PIN = re.compile(r'(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?P<marker>\s*;[^\\]*)?')
NOT_PINNED = {'rosdep.txt', OTHERS.name}
TIMEOUT = 60.0  # s


def pin_files() -> list[Path]:
    """Return the files that hold pins."""
    return [path for path in sorted(HERE.glob('*.txt')) if path.name not in NOT_PINNED]


def pins(text: str) -> list[tuple[str, str]]:
    """Return (name, version) of each pin in the order of the text."""
    found = [PIN.match(line) for line in text.splitlines() if not line.startswith(('#', ' '))]
    return [(one['name'], one['version']) for one in found if one is not None]


def with_hashes(text: str, hashes_of: Callable[[str, str], list[str]]) -> str:
    """Return a requirements file with the hashes of each pin; comments stay where they are."""
    lines = []
    for line in text.splitlines():
        found = PIN.match(line)
        if line.startswith(' '):
            continue  # hashes of before
        if found is None:
            lines.append(line)
            continue
        hashes = hashes_of(found['name'], found['version'])
        pin = f'{found["name"]}=={found["version"]}{(found["marker"] or "").rstrip()}'
        lines.append(' \\\n'.join([pin, *(f'    --hash=sha256:{one}' for one in hashes)]))
    return '\n'.join(lines) + '\n'


def listed(name: str, version: str) -> list[str]:
    """Return the hashes of all files of a version; raises OSError where PyPI has none."""
    with urllib.request.urlopen(INDEX.format(name=name), timeout=TIMEOUT) as answer:
        files = json.load(answer)['releases'].get(version, [])
    if not files:
        raise OSError(f'{name} {version} has no file on PyPI: pin another version')
    return sorted({*(one['digests']['sha256'] for one in files), *others(name, version)})


def others(name: str, version: str) -> list[str]:
    """Return the hashes of files of a version that are not on PyPI."""
    lines = [line.split() for line in OTHERS.read_text(encoding='utf-8').splitlines()
             if not line.startswith('#')]
    return [digest for digest, file in lines
            if re.match(rf'{re.escape(name)}-{re.escape(version)}[+-]', file)]


def main() -> int:
    """Write or check the files; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='change nothing')
    options = parser.parse_args()
    texts = {path: path.read_text(encoding='utf-8') for path in pin_files()}
    wanted = sorted({pin for text in texts.values() for pin in pins(text)})
    with concurrent.futures.ThreadPoolExecutor(8) as several:
        try:
            hashes = dict(zip(wanted, several.map(lambda pin: listed(*pin), wanted),
                              strict=True))
        except (urllib.error.URLError, OSError, KeyError, ValueError) as error:
            print(f'pin_hashes: {error}', file=sys.stderr)
            return 1
    stale = 0
    for path, text in texts.items():
        new = with_hashes(text, lambda name, version: hashes[name, version])
        stale += new != text
        if new != text:
            print(f'{path.name}: {"differs from PyPI" if options.check else "written"}')
        if not options.check:
            path.write_text(new, encoding='utf-8')
    print(f'{len(wanted)} pins, {sum(map(len, hashes.values()))} files of PyPI')
    return int(options.check and stale > 0)


if __name__ == '__main__':
    sys.exit(main())
