"""
Point the CMake targets that the ROS wheels export at this machine.

They name two directories of the host that built the wheels: numpy's headers and Python's.
"""
from __future__ import annotations

import pathlib
import re
import sys
import sysconfig

import numpy

BUILD_HOST = r'/opt/python/cp3\d+-cp3\d+'


def relocate(share: pathlib.Path) -> int:
    """Rewrite every exported path below `share`; return how many files changed."""
    here = {
        rf'{BUILD_HOST}/lib/python3\.\d+/site-packages/numpy/_core/include': numpy.get_include(),
        rf'{BUILD_HOST}/include/python3\.\d+': sysconfig.get_paths()['include'],
    }
    changed = 0
    for file in sorted(share.rglob('*.cmake')):
        text = relocated = file.read_text()
        for there, local in here.items():
            relocated = re.sub(there, lambda _, local=local: local, relocated)
        if relocated != text:
            file.write_text(relocated)
            changed += 1
    return changed


if __name__ == '__main__':
    print(f'{relocate(pathlib.Path(sys.prefix) / "share")} files relocated')
