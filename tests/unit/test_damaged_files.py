"""Damaged files: each is refused with its name and a reason, or read; nothing else comes of it."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from av_td3_ros.driving.route.map_trial import trial
from av_td3_ros.driving.route.road_map import MapError, RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.reading import FileError, read_json, read_text, read_yaml
from benchmarks._faults_files import JUNK, KINDS, Tally, count

CASES = 6
SLOW = 'map: .xodr, other values'  # each a process of its own


@pytest.fixture(scope='module')
def tallies() -> dict[str, Tally]:
    """Return what came of a few cases of each kind of file, the junk in its place not counted."""
    first = len(JUNK) + 1
    return count([(name, case) for name in KINDS if name != SLOW
                  for case in range(first, first + CASES)])


@pytest.mark.parametrize('name', [name for name in KINDS if name != SLOW])
def test_damage_is_refused_with_file_and_reason(tallies: dict[str, Tally], name: str) -> None:
    assert tallies[name].cases == CASES
    assert not tallies[name].bad


@pytest.mark.parametrize('name', ['config: graph.yaml', 'route: .json'])
def test_junk_in_place_of_a_file_is_refused(name: str) -> None:
    tally = count([(name, case) for case in range(len(JUNK) + 1)])[name]
    assert tally.cases == len(JUNK) + 1
    assert not tally.bad
    assert tally.refused > 0.8 * tally.cases


def test_a_map_that_carla_dies_of_ends_another_process(tmp_path: Path) -> None:
    whole = map_file('loop').read_text(encoding='utf-8')
    assert not trial(whole)
    deadly = [whole.replace(f'<{tag} ', f'<{tag}_not ') for tag in ('line', 'arc', 'geometry',
                                                                   'laneSection', 'width')]
    reasons = [trial(one) for one in deadly]
    assert any('CARLA dies of it (SIGSEGV)' in one for one in reasons), reasons
    file = tmp_path / 'deadly.xodr'
    file.write_text(deadly[next(i for i, one in enumerate(reasons) if 'SIGSEGV' in one)])
    with pytest.raises(MapError, match=r'deadly\.xodr.*CARLA dies of it'):
        RoadMap.from_file(file)


@pytest.mark.parametrize(('length', 'words'), [
    ('1e18', 'not a number that can be'), ('nan', 'not a number that can be'),
    ('-5', 'not a number that can be')])
def test_a_map_of_impossible_size_is_refused(length: str, words: str) -> None:
    whole = map_file('loop').read_text(encoding='utf-8')
    start = whole.index('length="', whole.index('<road')) + len('length="')
    text = whole[:start] + length + whole[whole.index('"', start):]
    with pytest.raises(MapError, match=words):
        RoadMap.from_text(text, 'mine')


def test_files_are_refused_by_name_whatever_is_in_them(tmp_path: Path) -> None:
    file = tmp_path / 'mine'
    for data, read, words in (
            (b'\xff', read_text, 'byte 0xff at 0'), (b'[' * 100_000, read_json, 'too deeply'),
            (b'{', read_json, 'is not JSON'), (b'9' * 5000, read_json, 'is not JSON'),
            (b'a: &a [1]\nb: *a\n', read_yaml, 'aliases'),
            *((one * 100_000, read_yaml, 'too deeply') for one in (b'[', b'{', b'{"a":')),
            (b'a: [', read_yaml, 'is not YAML'),
            (b'!!python/object/apply:os.system [id]', read_yaml, 'is not YAML')):
        file.write_bytes(data)
        with pytest.raises(FileError, match=words) as refused:
            read(file)
        assert str(file) in str(refused.value) and len(str(refused.value)) < 600


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    file = tmp_path / 'mine'
    file.write_text('/**/node:\n  a: 3 * x\n', encoding='utf-8')
    assert read_yaml(file) == {'/**/node': {'a': '3 * x'}}
    file.write_text(json.dumps([1]), encoding='utf-8')
    assert read_json(file) == [1]
