"""Key files and the file of trusted keys: nobody else reads them, several keys at a time."""
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from av_td3_ros.trust.keys import (
    KeyFileError,
    create_key,
    load_key,
    new_key,
    public_file,
    public_key,
)
from av_td3_ros.trust.session_key import SessionKey, session_key
from av_td3_ros.trust.trusted import Trust, TrustError, TrustFile, read_trust

KEY = new_key('desk').public

def test_a_key_is_its_owners_alone_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / 'keys' / 'learner.key'
    old = os.umask(0)
    try:
        made = create_key(path, 'here')
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    again = load_key(path)
    assert again.public == made.public == public_key(public_file(path).read_text())
    assert made.public.verifies(again.sign(b'said'), b'said')
    assert not made.public.verifies(again.sign(b'said'), b'SAID')
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match='not overwritten'):
        create_key(path)
    assert path.read_bytes() == before


def test_a_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / 'learner.key'
    create_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match='mode 0640: others could sign'):
        load_key(path)


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'learner.key'
    path.touch(0o600)
    path.write_bytes(b'\x80\x04nonsense')
    with pytest.raises(KeyFileError, match='no private key in PEM'):
        load_key(path)
    path.write_bytes(generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyFileError, match='expected an Ed25519 key'):
        load_key(path)


@pytest.mark.parametrize('line', [
    '', 'ed25519', 'ed25519 !', 'ed25519 AAAA', 'rsa AAAA name', 'ed25519 AAAA a b',
    f'ed25519 {"A" * 43}= na/me'])
def test_lines_that_hold_no_key_are_refused(line: str) -> None:
    with pytest.raises(KeyFileError):
        public_key(line)


def test_old_and_new_count_until_the_old_one_is_revoked(tmp_path: Path) -> None:
    file, old, new = tmp_path / 'trusted_keys', new_key('old').public, new_key('new').public
    Trust().with_key(old).with_key(new).write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert set(read_trust(file).valid) == {old.fingerprint, new.fingerprint}
    read_trust(file).without(old.fingerprint[:16]).write(file)
    trust = read_trust(file)
    assert trust.key(old.fingerprint) is None and trust.key(new.fingerprint) == new
    with pytest.raises(TrustError, match='is revoked'):
        trust.with_key(old)
    assert trust.without(old.fingerprint) == trust  # once more


@pytest.mark.parametrize(('start', 'words'), [
    ('', 'is no fingerprint'), ('zz', "'zz' is no fingerprint: give the 32 characters"),
    (KEY.fingerprint[:15], 'at least the first 16'), (f'{KEY.fingerprint}0', 'is no fingerprint'),
    ('0' * 31, 'names 0 of the keys that are known here: give all 32')],
    ids=['empty', 'no digits', 'too short', 'too long', 'unknown'])
def test_what_names_no_key_revokes_none(start: str, words: str) -> None:
    with pytest.raises(TrustError, match=words):
        Trust().with_key(KEY).without(start)


def test_a_key_is_revoked_before_it_is_trusted(tmp_path: Path) -> None:
    file = tmp_path / 'trusted_keys'
    Trust().without(KEY.fingerprint).write(file)
    trust = read_trust(file)
    assert list(trust.revoked) == [KEY.fingerprint] and trust.key(KEY.fingerprint) is None
    with pytest.raises(TrustError, match='is revoked'):
        trust.with_key(KEY)
    assert trust.without(KEY.fingerprint[:16]) == trust
    file.write_text(f'{file.read_text()}trusted {KEY.line}\n')  # by hand
    assert not read_trust(file).valid


def test_a_key_that_is_both_is_revoked(tmp_path: Path) -> None:
    file, key = tmp_path / 'trusted_keys', new_key().public
    file.write_text(f'trusted {key.line}\nrevoked {key.line}\n')
    assert read_trust(file).key(key.fingerprint) is None


@pytest.mark.parametrize(('text', 'words'), [
    ('trusted nonsense\n', "line 1: 'trusted nonsense' is not understood: correct it to"),
    ('\n\ngarbage\n', "line 3: 'garbage' is not understood: correct it to"),
    (f'friend {new_key("a-long-name").public.line}\n',
     r"line 1: 'friend ed25519 .{45}\.\.\.' is not understood"),
    ('#' * (1 << 17), 'no file of keys')], ids=('nonsense', 'garbage', 'unknown word', 'large'))
def test_a_file_that_cannot_be_relied_on_trusts_nobody(tmp_path: Path, text: str, words: str
                                                       ) -> None:
    file = tmp_path / 'trusted_keys'
    file.write_text(text)
    with pytest.raises(TrustError, match=words):
        read_trust(file)


def test_a_file_that_everybody_can_write_trusts_nobody(tmp_path: Path) -> None:
    file = tmp_path / 'trusted_keys'
    Trust().write(file)
    file.chmod(0o666)
    with pytest.raises(TrustError, match='everybody can write it'):
        read_trust(file)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, key = tmp_path / 'trusted_keys', new_key().public
    file = TrustFile(path)
    assert not file.now().valid
    Trust().with_key(key).write(path)
    assert set(file.now().valid) == {key.fingerprint}
    path.write_text('nonsense')
    for _ in range(2):  # not only when it is seen first
        with pytest.raises(TrustError):
            file.now()
    path.unlink()
    assert not file.now().valid


def test_a_session_key_lives_in_a_directory_of_its_own_and_ends(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    with SessionKey() as key:
        assert key.directory.parent == tmp_path
        assert stat.S_IMODE(key.directory.stat().st_mode) == 0o700
        private, trusted = (Path(one) for one in (
            key.parameters('learner_node')['signing.key'],
            key.parameters('policy_node')['trust.keys']))
        assert load_key(private).public.fingerprint in read_trust(trusted).valid
        assert not key.parameters('control_node')
    assert not list(tmp_path.iterdir())


def test_only_a_whole_session_without_a_key_of_its_users_gets_one() -> None:
    assert session_key(['policy_node'], '~/.config/av_td3_ros/learner.key') is None
    assert session_key(['policy_node', 'learner_node'], '/my/own.key') is None
