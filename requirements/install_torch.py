"""
Install torch: the one pin that comes in two builds, of which only one is on PyPI.

PyPI's build for Linux brings CUDA, gigabytes of it. Where pip is told of another place (such as
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, or PIP_FIND_LINKS), its build `+cpu` is
taken instead. Either is installed only when torch.txt has its hash; of a build that is not on PyPI
and that other-hashes.txt does not know, the hash is told and the place is trusted.
"""
from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PINS = Path(__file__).resolve().with_name('torch.txt')


def main() -> int:
    """Download, check, install; return the exit status."""
    text = PINS.read_text(encoding='utf-8')
    pin = re.search(r'^torch==[^ ]+', text, re.MULTILINE)
    assert pin is not None, PINS
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, 'download', '--no-deps', '--dest', folder, pin[0]], check=True)
        (file,) = Path(folder).iterdir()
        with file.open('rb') as opened:
            digest = hashlib.sha256()
            while block := opened.read(1 << 20):
                digest.update(block)
        if f'sha256:{digest.hexdigest()}' not in text:
            if '+' not in file.name:
                print(f'ERROR: {file.name} has SHA-256 {digest.hexdigest()}, which {PINS} does '
                      'not list: not installed', file=sys.stderr)
                return 1
            print(f'{file.name}: not on PyPI, so its SHA-256 {digest.hexdigest()} is not known '
                  'here; the place that pip was told of is trusted')
        return subprocess.run([*pip, 'install', str(file)], check=False).returncode


if __name__ == '__main__':
    sys.exit(main())
