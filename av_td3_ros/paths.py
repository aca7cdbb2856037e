"""Where the files of this project lie: beside the package in a checkout, else in ROS's share."""
from __future__ import annotations

import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent


def share_directory() -> Path:
    """
    Return the directory that holds config/ and launch/.

    Raises FileNotFoundError when neither a checkout nor an installation has it.
    """
    if (_CHECKOUT / 'config' / 'profiles').is_dir():
        return _CHECKOUT
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        share = Path(prefix) / 'share' / 'av_td3_ros'
        if (share / 'config' / 'profiles').is_dir():
            return share
    raise FileNotFoundError(
        f'config/profiles is neither beside {_CHECKOUT / "av_td3_ros"} nor in the share directory '
        'of an installation on AMENT_PREFIX_PATH: install the project again')


def config_directory() -> Path:
    """Return the directory of the shipped configuration."""
    return share_directory() / 'config'


def pretrained_policy() -> Path:
    """
    Return the folder of the policy that comes with the project.

    Raises FileNotFoundError when there is none.
    """
    folder = config_directory() / 'pretrained'
    if not (folder / 'policy.json').is_file():
        raise FileNotFoundError(f'no pretrained policy in {folder}: train one, and make it that '
                                f'one with `av-td3 export --policy RUN --out {folder}`')
    return folder


def map_file(name: str) -> Path:
    """
    Return the OpenDRIVE file of a shipped map's name, or the file that `name` itself names.

    Maps in a folder are named with it: 'train/roads'.

    Raises FileNotFoundError that lists the shipped maps.
    """
    maps = config_directory() / 'maps'
    given = Path(name).expanduser()
    for path in (maps / f'{name}.xodr', given):
        if path.is_file():
            return path
    known = sorted(path.relative_to(maps).with_suffix('').as_posix()
                   for path in maps.rglob('*.xodr'))
    raise FileNotFoundError(f'map {name!r} is no file and not one of {", ".join(known)}')


def write_whole(path: Path, text: str) -> None:
    """
    Write a file whole or not at all: beside it, then renamed.

    What is no ordinary file, such as /dev/stdout, is written into and never replaced.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding='utf-8')
        return
    beside = path.with_name(f'{path.name}.writing')
    beside.write_text(text, encoding='utf-8')
    beside.replace(path)
