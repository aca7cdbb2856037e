"""Well-typed garbage: messages of any type that no node should die of, the same for a seed."""
from __future__ import annotations

import array
import importlib
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np

LONGEST = 20_000   # elements of a random sequence at most
HUGE = 1_000_000   # characters of a huge string
BOUNDS = {f'{sign}int{bits}': ((0, 2**bits - 1) if sign else (-2**(bits - 1), 2**(bits - 1) - 1))
          for sign in ('', 'u') for bits in (8, 16, 32, 64)} | {'octet': (0, 255)}
TYPECODES = {'int8': 'b', 'uint8': 'B', 'int16': 'h', 'uint16': 'H', 'int32': 'i', 'uint32': 'I',
             'int64': 'q', 'uint64': 'Q', 'float': 'f', 'double': 'd'}
ODD_STRINGS = (
    '', ' ', '\n\r\t', '../../../etc/passwd', '/dev/zero', '%s%n%x', '{0.__class__}', '\x1b[2J',
    '\u202etxet', '\U0001f697', 'e\u0301' * 50, '\ufeffbom', 'a/b', '1abc', 'ego vehicle',
    "'; DROP TABLE", 'nan', '-1', 'None', '\\x00', '~', '/', 'ego_vehicle', 'ego_vehicle/')
_SEQUENCE = re.compile(r'sequence<(.+?)(?:, *(\d+))?>$')
_ARRAY = re.compile(r'(.+)\[(\d+)\]$')
_STRING = re.compile(r'w?string(?:<(\d+)>)?$')


def garbage(kind: type, chance: random.Random) -> Any:
    """Return a message of a type, each field of it drawn from what its type allows."""
    return kind(**{name: _value(about, chance)
                   for name, about in _fields(kind).items()})


def spoil(message: Any, chance: random.Random) -> None:
    """Replace one to three values somewhere in a message, its nested ones included."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        _spoil_one(message, chance)


def number(chance: random.Random, single: bool = False) -> float:
    """Return a number as it should not be, or an ordinary one; `single` precision where told."""
    largest = 3.4e38 if single else 1.7e308
    return chance.choice((
        float('nan'), float('inf'), -float('inf'), 0.0, -0.0, largest, -largest, 5e-324, 1e-38,
        1e200 if not single else 1e30, -1e155 if not single else -1e20, 2.0**31, -2.0**63,
        chance.uniform(-1, 1), chance.uniform(-1, 1) * 10.0**chance.randint(-6, 9)))


def text(chance: random.Random) -> str:
    """Return a string that is empty, odd, long or, seldom, huge."""
    draw = chance.random()
    if draw < 0.6:
        return chance.choice(ODD_STRINGS)
    if draw < 0.97:
        return ''.join(chr(chance.choice((chance.randint(32, 126), chance.randint(1, 0xd7ff))))
                       for _ in range(chance.randint(1, 60)))
    return chance.choice('aZ\u2603') * (HUGE if draw > 0.995 else 5000)


def _spoil_one(message: Any, chance: random.Random) -> None:
    name, about = chance.choice(list(_fields(type(message)).items()))
    value = getattr(message, name)
    if '/' in about and not isinstance(value, (list, tuple)):
        _spoil_one(value, chance)
    elif '/' in about and len(value) and chance.random() < 0.8:
        _spoil_one(chance.choice(list(value)), chance)
    elif not isinstance(value, (str, bytes)) and hasattr(value, '__len__') and len(value) \
            and '/' not in about and chance.random() < 0.5:
        item = (_SEQUENCE.match(about) or _ARRAY.match(about))[1]  # type: ignore[index]
        value[chance.randrange(len(value))] = _value(item, chance)
    else:
        setattr(message, name, _value(about, chance))


def _fields(kind: type) -> dict[str, str]:
    return {name: about for name, about in
            kind.get_fields_and_field_types().items()  # type: ignore[attr-defined]
            if name != 'structure_needs_at_least_one_member'}


def _value(about: str, chance: random.Random) -> Any:
    for pattern, make in ((_SEQUENCE, _sequence), (_ARRAY, _array)):
        found = pattern.match(about)
        if found:
            return make(found, chance)
    limited = _STRING.match(about)
    if limited:
        return text(chance)[:int(limited[1])] if limited[1] else text(chance)
    if about == 'boolean':
        return chance.random() < 0.5
    if about in ('float', 'double'):
        return number(chance, about == 'float')
    if about == 'octet':
        return bytes([chance.randrange(256)])
    if about in BOUNDS:
        low, high = BOUNDS[about]
        return min(max(chance.choice((low, high, 0, 1, 2, high // 2, chance.randint(low, high),
                                      chance.randint(0, 100))), low), high)
    package, name = about.split('/')
    return garbage(getattr(importlib.import_module(f'{package}.msg'), name), chance)


def _sequence(found: re.Match[str], chance: random.Random) -> Any:
    item, bound = found[1], int(found[2] or LONGEST)
    length = chance.choice((0, 0, 1, 2, 3, chance.randint(0, 60)))
    if item in TYPECODES and chance.random() < 0.1:
        length = chance.randint(0, LONGEST)
    length = min(length, bound if '/' not in item else 5)
    if item not in TYPECODES:
        return [_value(item, chance) for _ in range(length)]
    draw: Callable[[], Any] = lambda: _value(item, chance)  # noqa: E731
    if length > 100:  # the same few, for the sake of time
        few = [draw() for _ in range(20)]
        return array.array(TYPECODES[item], [few[i % 20] for i in range(length)])
    return array.array(TYPECODES[item], [draw() for _ in range(length)])


def _array(found: re.Match[str], chance: random.Random) -> Any:
    item, length = found[1], int(found[2])
    values = [_value(item, chance) for _ in range(length)]
    if item not in TYPECODES:
        return values
    with np.errstate(over='ignore'):
        return np.array(values, np.dtype(TYPECODES[item]))
