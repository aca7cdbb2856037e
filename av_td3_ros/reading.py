"""Files that people and programs hand over: read within bounds, refused by their name."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

_ALIAS = re.compile(r'(^|[\s\[{,:-])\*[^\s/*:]')
_LONGEST = 300  # characters of a reason
_DEEPEST = 100  # collections in each other in YAML, whose reading takes the square of them


class FileError(ValueError):
    """A file that is not what it has to be: which, and why."""


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text; raise FileError for other bytes, OSError for no file."""
    try:
        return path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise FileError(f'{path} is no text in UTF-8: byte 0x{error.object[error.start]:02x} at '
                        f'{error.start}: {error.reason}') from None


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raise FileError when it is none, OSError as `read_text`."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """Return what JSON text holds; raise FileError naming `where` it is from."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f'{where} is not JSON: {brief(error)}') from None


def read_yaml(path: Path) -> Any:
    """
    Return what a YAML file holds; raise FileError when it is none, OSError as `read_text`.

    Aliases are refused: ROS takes none in parameter files, and a few of them make terabytes.
    """
    text = read_text(path)
    try:
        if _ALIAS.search(text) or text.count('[') + text.count('{') > _DEEPEST:
            _refuse_bombs(text, path)
        return yaml.safe_load(text)
    except FileError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # TypeError: a key that is a list; ValueError: a date that there is not.
        raise FileError(f'{path} is not YAML: {brief(error)}') from None


def _refuse_bombs(text: str, path: Path) -> None:
    """Raise FileError for YAML that is small in the file and endless to read."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise FileError(f'{path} has aliases (*name): write out what they stand for')
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise FileError(f'{path} is not YAML: it is nested too deeply')


def brief(error: BaseException) -> str:
    """Return in one short line what an error says, its type where it says little."""
    if isinstance(error, RecursionError):
        return 'it is nested too deeply'
    if isinstance(error, UnicodeDecodeError):  # which else quotes all of the data
        return f'byte 0x{error.object[error.start]:02x} at {error.start}: {error.reason}'
    if isinstance(error, MemoryError):
        return 'it says that it is larger than the memory'
    said = ' '.join(str(error).split())
    if isinstance(error, (KeyError, TypeError, AttributeError, IndexError)) or not said:
        said = f'{type(error).__name__}: {said}'
    return said if len(said) <= _LONGEST else f'{said[:_LONGEST]}...'
