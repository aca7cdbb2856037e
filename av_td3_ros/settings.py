"""Typed, described, range-checked settings: plain dataclasses whose fields carry their meaning."""
from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar('T')
_WORDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describe one settings field: what it means and which values it takes."""

    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] | None = None
    live: bool = False


def setting(default: Any, description: str, *, minimum: float | None = None,
            maximum: float | None = None, choices: Sequence[Any] | None = None,
            live: bool = False) -> Any:
    """
    Make a dataclass field with a default, a description and the values it may take.

    `live` marks a setting that a running node can change. Lists become tuples.
    """
    described = Setting(description, minimum, maximum,
                        tuple(choices) if choices is not None else None, live)
    if isinstance(default, list):
        default = tuple(default)
    return dataclasses.field(default=default, metadata={'setting': described})


def group(settings_type: type[T], description: str) -> T:
    """Make a dataclass field that holds a nested group of settings."""
    made: Any = dataclasses.field(default_factory=settings_type,
                                  metadata={'group': description})
    return typing.cast(T, made)


def described_fields(settings_type: type[Any], prefix: str = ''
                     ) -> Iterator[tuple[str, Any, Setting]]:
    """Yield (dotted key, type, description) of every setting, nested groups included."""
    hints = typing.get_type_hints(settings_type)
    for field in dataclasses.fields(settings_type):
        key = prefix + field.name
        if 'group' in field.metadata:
            yield from described_fields(hints[field.name], key + '.')
        else:
            yield key, hints[field.name], field.metadata['setting']


def flatten(settings: Any, prefix: str = '') -> dict[str, Any]:
    """Return {dotted key: value} of all settings, tuples as lists (the form of ROS parameters)."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if 'group' in field.metadata:
            flat.update(flatten(value, prefix + field.name + '.'))
        else:
            flat[prefix + field.name] = list(value) if isinstance(value, tuple) else value
    return flat


def from_mapping(settings_type: type[T], values: Mapping[str, Any], where: str = 'settings') -> T:
    """
    Build settings from {dotted key: value}; a key that is missing keeps its default.

    Raises ValueError for an unknown key (with the nearest known one), a wrong type or a value out
    of range; the text names `where`, the key, the value and what is allowed.
    """
    known = {key: (kind, about) for key, kind, about in described_fields(settings_type)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise ValueError(f'{where}: unknown key {key!r}{hint}')
    checked = {key: _checked(key, value, *known[key], where) for key, value in values.items()}
    try:
        return _build(settings_type, checked, '')
    except ValueError as error:  # of settings that do not go together
        raise ValueError(f'{where}: {error}') from error


def check(settings: Any, where: str = 'settings') -> None:
    """Raise ValueError when a value of `settings` has the wrong type or is out of its range."""
    from_mapping(type(settings), flatten(settings), where)


def _build(settings_type: type[T], values: Mapping[str, Any], prefix: str) -> T:
    hints = typing.get_type_hints(settings_type)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, settings_type)):
        key = prefix + field.name
        if 'group' in field.metadata:
            arguments[field.name] = _build(hints[field.name], values, key + '.')
        elif key in values:
            arguments[field.name] = values[key]
    return settings_type(**arguments)


def _checked(key: str, value: Any, kind: Any, about: Setting, where: str) -> Any:
    optional = isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind)
    if optional:
        if value is None:
            return None
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f'{where}: {key} = {value!r}: give a list, each {_WORDS[item]}')
        return tuple(_scalar(key, one, item, about, where) for one in value)
    return _scalar(key, value, kind, about, where)


def _scalar(key: str, value: Any, kind: type, about: Setting, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wrong_bool = isinstance(value, bool) and kind is not bool
    if wrong_bool or not isinstance(value, kind):
        raise ValueError(f'{where}: {key} = {value!r}: give {_WORDS[kind]}')
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{where}: {key} = {value!r} is not finite')
    if about.choices is not None and value not in about.choices:
        raise ValueError(f'{where}: {key} = {value!r} is not one of {list(about.choices)}')
    low, high = about.minimum, about.maximum
    if isinstance(value, (int, float)) and (
            (low is not None and value < low) or (high is not None and value > high)):
        bounds = f'{"-inf" if low is None else low} to {"inf" if high is None else high}'
        raise ValueError(f'{where}: {key} = {value!r} is out of range ({bounds})')
    return value
