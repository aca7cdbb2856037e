"""Settings: typed, ranged, named when wrong."""
from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from av_td3_ros.settings import check, described_fields, flatten, from_mapping, group, setting


@dataclasses.dataclass(frozen=True)
class Engine:
    """An inner group."""

    power: float = setting(90.0, 'kW', minimum=5.0, maximum=500.0, live=True)
    gears: tuple[int, ...] = setting([1, 2, 3], 'which gears', minimum=0)


@dataclasses.dataclass(frozen=True)
class Car:
    """One field of each kind."""

    name: str = setting('car', 'what it is called')
    fuel: str = setting('petrol', 'what it burns', choices=('petrol', 'diesel'))
    doors: int = setting(4, 'number of doors', minimum=1)
    open: bool = setting(False, 'without a roof')
    tow: float | None = setting(None, 'kg that it may tow', maximum=3500.0)
    engine: Engine = group(Engine, 'what drives it')

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.open and self.doors > 2:
            raise ValueError(f'open = True goes with 2 doors, not with {self.doors}')


def test_what_is_not_given_keeps_its_default() -> None:
    assert from_mapping(Car, {}) == Car()
    changed = from_mapping(Car, {'engine.power': 120.0, 'tow': 750.0, 'engine.gears': [1, 5]})
    assert changed == Car(tow=750.0, engine=Engine(power=120.0, gears=(1, 5)))


def test_flatten_is_the_way_back() -> None:
    flat = flatten(Car(tow=750.0))
    assert flat == {'name': 'car', 'fuel': 'petrol', 'doors': 4, 'open': False, 'tow': 750.0,
                    'engine.power': 90.0, 'engine.gears': [1, 2, 3]}
    assert from_mapping(Car, flat) == Car(tow=750.0)


def test_every_field_is_described() -> None:
    described = {key: (kind, about) for key, kind, about in described_fields(Car)}
    assert list(described) == list(flatten(Car()))
    kind, about = described['engine.power']
    assert kind is float
    assert (about.description, about.minimum, about.maximum, about.live) == (
        'kW', 5.0, 500.0, True)
    assert described['fuel'][1].choices == ('petrol', 'diesel')
    assert not described['doors'][1].live


def test_a_whole_number_will_do_for_a_float() -> None:
    power = from_mapping(Car, {'engine.power': 120}).engine.power
    assert power == 120.0 and isinstance(power, float)


@pytest.mark.parametrize(('key', 'value', 'words'), [
    ('doors', 0, ('doors = 0', '1 to inf')),
    ('engine.power', 501.0, ('engine.power = 501.0', '5.0 to 500.0')),
    ('engine.power', math.nan, ('engine.power', 'not finite')),
    ('tow', 4000.0, ('tow = 4000.0', '-inf to 3500.0')),
    ('fuel', 'hay', ("fuel = 'hay'", 'petrol', 'diesel')),
    ('doors', 4.0, ('doors = 4.0', 'give a whole number')),
    ('doors', True, ('doors = True', 'whole number')),
    ('open', 1, ('open = 1', 'give true or false')),
    ('name', 7, ('name = 7', 'give a text')),
    ('doors', None, ('doors = None',)),
    ('engine.gears', 3, ('engine.gears = 3', 'give a list, each a whole number')),
    ('engine.gears', 'all', ("engine.gears = 'all'", 'give a list')),
    ('engine.gears', [1, -1], ('engine.gears = -1', 'out of range')),
    ('engine.gears', [1, 2.5], ('engine.gears = 2.5', 'whole number'))])
def test_what_cannot_be_is_named(key: str, value: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r'^my_node: ') as error:
        from_mapping(Car, {key: value}, 'my_node')
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(('key', 'near'), [
    ('engine.powr', 'engine.power'), ('door', 'doors'), ('power', 'engine.power')])
def test_an_unknown_key_is_named_with_the_nearest(key: str, near: str) -> None:
    with pytest.raises(ValueError, match=f'unknown key {key!r}; did you mean {near!r}'):
        from_mapping(Car, {key: 1})


def test_what_does_not_go_together_is_refused() -> None:
    assert from_mapping(Car, {'open': True, 'doors': 2}).open
    with pytest.raises(ValueError, match='goes with 2 doors'):
        from_mapping(Car, {'open': True})


def test_settings_made_by_hand_can_be_checked() -> None:
    check(Car())
    with pytest.raises(ValueError, match='car: doors = -1'):
        check(Car(doors=-1), 'car')
