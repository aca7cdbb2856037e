"""`av-td3 key`: from the first key to the one that follows it."""
from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from av_td3_ros.cli.main import main
from av_td3_ros.trust.keys import load_key
from av_td3_ros.trust.trusted import read_trust

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the keys of a user who has none yet will lie."""
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path / '.config' / 'av_td3_ros'


@pytest.fixture
def key(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command; it returns the exit status and what was said."""
    def key(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['av-td3', 'key', *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert 'PRIVATE KEY' not in said.out + said.err
        return int(ended.value.code or 0), said.out + said.err

    return key


def test_a_key_is_made_once(home: Path, key: Run) -> None:
    status, said = key('create', '--name', 'desk')
    fingerprint = load_key(home / 'learner.key').public.fingerprint
    assert status == 0 and fingerprint in said and 'av-td3 key trust' in said
    assert stat.S_IMODE((home / 'learner.key').stat().st_mode) == 0o600
    status, said = key('create')
    assert status == 1 and 'is not overwritten' in said
    assert key('create', '--unless-there')[0] == 0
    assert load_key(home / 'learner.key').public.fingerprint == fingerprint
    assert 'no key is trusted' in key('show')[1]


def test_one_key_follows_another_without_a_gap(home: Path, key: Run) -> None:
    key('create', '--trust')
    old = load_key(home / 'learner.key').public.fingerprint
    assert set(read_trust(home / 'trusted_keys').valid) == {old}
    status, said = key('rotate', '--finish')
    assert status == 1 and 'is missing' in said
    key('rotate')
    assert load_key(home / 'learner.key').public.fingerprint == old  # it signs until the end
    line = (home / 'learner.key.next.pub').read_text().strip()
    status, said = key('rotate')  # once more: what is left to do
    assert status == 1 and f"av-td3 key trust '{line}'" in said and 'rotate --finish' in said
    assert key('trust', str(home / 'learner.key.next.pub'))[0] == 0
    assert len(read_trust(home / 'trusted_keys').valid) == 2
    assert old in key('rotate', '--finish')[1]
    new = load_key(home / 'learner.key').public.fingerprint
    assert key('revoke', old)[0] == 0
    assert set(read_trust(home / 'trusted_keys').valid) == {new} != {old}
    assert not list(home.glob('*.next*'))
    said = key('show')[1]
    assert f'revoked: {old}' in said and f'trusted: {new}' in said and f'signs: {new}' in said


def test_a_key_can_be_trusted_by_its_line(home: Path, key: Run) -> None:
    key('create')
    line = (home / 'learner.key.pub').read_text().strip()
    assert key('trust', line)[0] == 0
    assert key('trust', 'ed25519 nonsense x')[0] == 1
    assert key('trust', '/nowhere.pub')[0] == 1
    status, said = key('trust', '')
    assert status == 1 and "'' is no public key: expected one line" in said
    assert len(read_trust(home / 'trusted_keys').valid) == 1


@pytest.mark.parametrize('word', ['create --unless-there', 'show', 'rotate', 'rotate --finish'])
def test_out_of_a_damaged_key_there_is_a_way(home: Path, key: Run, word: str) -> None:
    key('create')
    damaged = home / 'learner.key'
    damaged.write_text('damaged')
    status, said = key(*word.split())
    assert status == 1 and said.count('\n') == 1
    assert f'move it away, then make a new one with `av-td3 key create --key {damaged}`' in said
    damaged.rename(home / 'damaged')
    assert key('create', '--key', str(damaged))[0] == 0
    assert key('rotate')[0] == 0


def test_what_is_not_there_is_not_replaced(home: Path, key: Run) -> None:
    status, said = key('rotate')
    assert status == 1 and 'no key to replace: `av-td3 key create` makes one' in said


def test_a_script_may_revoke_twice_and_ahead(home: Path, key: Run) -> None:
    key('create', '--trust')
    old = load_key(home / 'learner.key').public.fingerprint
    status, said = key('revoke', old[:2])
    assert status == 1 and 'at least the first 16' in said
    assert set(read_trust(home / 'trusted_keys').valid) == {old}
    assert key('revoke', old[:16])[1].startswith(f'revoked: {old}')
    assert key('revoke', old) == key('revoke', old[:16]) == (
        0, f'revoked already: {old} in {home / "trusted_keys"}\n')
    status, said = key('revoke', 'f' * 32)
    assert status == 0 and said.startswith(f'revoked ahead: {"f" * 32}')
    assert key('revoke', 'f' * 32)[1].startswith('revoked already')
    assert f'revoked: {"f" * 32} (never trusted here)' in key('show')[1]
