"""Whether the middleware can do what SROS2 asks of it."""
from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rclpy import get_rmw_implementation_identifier

ENABLE = 'ROS_SECURITY_ENABLE'


def require_plugins(environment: Mapping[str, str]) -> None:
    """Raise RuntimeError where SROS2 is asked for and the middleware would leave it out."""
    if environment.get(ENABLE) == 'true' and not has_plugins():
        raise RuntimeError(
            f'{ENABLE}=true, but this middleware was built without security and would protect '
            'nothing: use a ROS installation (docs/security.md), or unset it')


def has_plugins() -> bool:
    """Return whether the middleware in use was built with the security plug-ins of DDS."""
    if 'fastrtps' not in get_rmw_implementation_identifier():
        return True  # the others tell by themselves, at the start of a node
    # Fast DDS is in this process by now: the name of the plug-in is in it or not.
    libraries = {line.split()[-1] for line in Path('/proc/self/maps').read_text().splitlines()
                 if 'libfastrtps.so' in line or 'libfastdds.so' in line}
    return any(b'builtin.PKI-DH' in Path(one).read_bytes() for one in libraries
               if os.path.isfile(one))
