"""Which weights are let through to the wheel: signed, whole, and newer than all before."""
from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av_td3_ros.td3 import Actor, ActorWeights, NetworkSettings, WeightsError, pack
from av_td3_ros.trust.gate import Gate, TrustSettings
from av_td3_ros.trust.keys import KEY_FILE, KeyFileError, create_key, new_key
from av_td3_ros.trust.signing import Signer, begin_session, statement
from av_td3_ros.trust.trusted import Trust

NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
KEY = new_key('learner')
PACKED = pack(Actor(NETWORK), 1)


def weights_of(signer: Signer, version: int) -> ActorWeights:
    """Return weights as a learner's session sends them."""
    return signer.seal(pack(Actor(NETWORK), version), stamp=version)


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., Gate]:
    """Return a function that makes a gate which trusts KEY."""
    file = tmp_path / 'trusted_keys'
    Trust().with_key(KEY.public).write(file)

    def gate(**given: object) -> Gate:
        return Gate(TrustSettings(**{'keys': str(file), **given}), NETWORK)  # type: ignore[arg-type]

    return gate


def reason(gate: Gate, weights: ActorWeights) -> str:
    """Return why weights are refused, 'taken' or 'known'."""
    try:
        return 'known' if gate.admit(weights) is None else 'taken'
    except WeightsError as error:
        gate.refuse(error)
        return error.reason


def test_versions_rise_within_a_session_and_sessions_follow_each_other(
        gate: Callable[..., Gate]) -> None:
    door, first, second = gate(), Signer(KEY, 100), Signer(KEY, 200)
    assert [reason(door, weights_of(first, version)) for version in (1, 2, 5, 4, 6)] == [
        'taken', 'taken', 'taken', 'replayed', 'taken']
    # From a checkpoint of version 3: a new session may count back, and the old one is over.
    assert [reason(door, one) for one in (
        weights_of(second, 4), weights_of(first, 7), weights_of(second, 5))] == [
        'taken', 'replayed', 'taken']
    assert door.refused == {'replayed': 2}


def test_two_sessions_cannot_share_a_start(gate: Callable[..., Gate]) -> None:
    door = gate()
    assert reason(door, weights_of(Signer(KEY, 100), 1)) == 'taken'
    assert reason(door, weights_of(Signer(KEY, 100), 2)) == 'replayed'


def test_each_reason_has_its_name(gate: Callable[..., Gate]) -> None:
    door, sent = gate(), weights_of(Signer(KEY, 100), 3)
    other = dataclasses.replace(NETWORK, features=4)
    disguised = dataclasses.replace(sent, signature=new_key().sign(statement(sent)))
    assert [reason(door, one) for one in (
        dataclasses.replace(sent, signature=b''), weights_of(Signer(new_key(), 100), 3),
        disguised, dataclasses.replace(sent, version=4),
        Signer(KEY, 100).seal(pack(Actor(other), 3), 0))] == [
        'unsigned', 'foreign key', 'altered', 'altered', 'architecture']
    assert reason(door, sent) == 'taken'


def test_latched_weights_that_come_again_are_no_attack(gate: Callable[..., Gate]) -> None:
    door, sent = gate(), weights_of(Signer(KEY, 100), 3)
    assert [reason(door, sent), reason(door, sent)] == ['taken', 'known']
    assert not door.refused


def test_another_policy_under_the_same_version_is_refused(gate: Callable[..., Gate]) -> None:
    door, signer = gate(), Signer(KEY, 100)
    assert [reason(door, weights_of(signer, 3)) for _ in range(2)] == ['taken', 'replayed']


def test_several_policy_nodes_take_the_same_weights(gate: Callable[..., Gate]) -> None:
    sent = weights_of(Signer(KEY, 100), 3)
    assert [reason(gate(), sent) for _ in range(3)] == ['taken'] * 3


def test_a_restart_forgets_nothing_where_it_may_remember(gate: Callable[..., Gate],
                                                         tmp_path: Path) -> None:
    first, second = Signer(KEY, 100), Signer(KEY, 200)
    memory, newest = str(tmp_path / 'state' / 'newest'), weights_of(second, 5)
    door = gate(memory=memory)
    assert [reason(door, weights_of(first, 9)), reason(door, newest)] == ['taken'] * 2
    again = gate(memory=memory)
    assert [reason(again, one) for one in (
        weights_of(first, 10), weights_of(second, 4), newest, newest, weights_of(second, 6))] == [
        'replayed', 'replayed', 'taken', 'known', 'taken']


def test_a_memory_that_is_no_memory_is_an_error_at_the_start(gate: Callable[..., Gate],
                                                             tmp_path: Path) -> None:
    (tmp_path / 'newest').write_bytes(b'\x80\x04')
    with pytest.raises(ValueError, match=r'trust\.memory .* cannot be understood'):
        gate(memory=str(tmp_path / 'newest'))


def test_a_memory_that_cannot_be_written_is_told_and_it_drives_on(gate: Callable[..., Gate],
                                                                  tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    door = gate(memory=str(tmp_path / 'newest'))
    door._memory = tmp_path / 'file' / 'newest'  # the folder was replaced by a file meanwhile
    assert reason(door, weights_of(Signer(KEY, 100), 1)) == 'taken'
    assert 'not kept for a restart' in door.trouble


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_nothing_of_what_is_signed_can_be_changed(tmp_path_factory: pytest.TempPathFactory,
                                                  data: st.DataObject) -> None:
    weights = Signer(KEY, 100).seal(PACKED, stamp=7)
    changes = {
        'version': st.integers(0, 2**64 - 1), 'session_started': st.integers(-2**62, 2**62),
        'stamp': st.integers(-2**62, 2**62), 'session': st.text(max_size=40),
        'architecture': st.text(max_size=70),
        'sha256': st.binary(max_size=40).map(bytes.hex),
        'signature': st.binary(min_size=1, max_size=70)}
    name = data.draw(st.sampled_from(sorted(changes)))
    value = data.draw(changes[name].filter(lambda one: one != getattr(weights, name)))
    changed = dataclasses.replace(weights, **{name: value})
    assert not KEY.public.verifies(changed.signature, statement(changed))
    assert KEY.public.verifies(weights.signature, statement(weights))


def test_texts_cannot_be_moved_from_one_field_to_the_next() -> None:
    one = dataclasses.replace(PACKED, session='ab', key='c')
    other = dataclasses.replace(PACKED, session='a', key='bc')
    assert statement(one) != statement(other)


def test_any_flipped_bit_of_the_bytes_is_refused(gate: Callable[..., Gate]) -> None:
    door, draw = gate(), random.Random(0)
    sent = Signer(KEY, 100).seal(PACKED, stamp=0)
    for _ in range(50):
        spoilt = bytearray(sent.data)
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        assert reason(door, dataclasses.replace(sent, data=bytes(spoilt))) == 'altered'
    assert reason(door, sent) == 'taken'


def test_a_broken_trust_file_lets_nobody_in(gate: Callable[..., Gate], tmp_path: Path) -> None:
    door, signer = gate(), Signer(KEY, 100)
    assert reason(door, weights_of(signer, 1)) == 'taken'
    (tmp_path / 'trusted_keys').write_text('half a li')
    assert reason(door, weights_of(signer, 2)) == 'trust file'
    assert door.key_is_revoked


def test_the_key_of_what_drives_can_be_revoked(gate: Callable[..., Gate], tmp_path: Path) -> None:
    door = gate()
    assert reason(door, weights_of(Signer(KEY, 100), 1)) == 'taken' and not door.key_is_revoked
    Trust().with_key(KEY.public).without(KEY.public.fingerprint).write(tmp_path / 'trusted_keys')
    assert door.key_is_revoked
    assert reason(door, weights_of(Signer(KEY, 200), 1)) == 'revoked key'


def test_a_later_start_is_promised_though_the_clock_goes_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'learner.key'
    create_key(path)
    starts = [begin_session(str(path))[0].started]
    monkeypatch.setattr('time.time_ns', lambda: 1_000)
    starts += [begin_session(str(path))[0].started for _ in range(3)]
    assert starts == sorted(set(starts))


def test_each_start_is_another_session(tmp_path: Path) -> None:
    create_key(tmp_path / 'learner.key')
    first, second = (begin_session(str(tmp_path / 'learner.key'))[0] for _ in range(2))
    assert first.session != second.session and first.fingerprint == second.fingerprint


def test_without_a_key_the_learner_says_that_it_does_not_sign(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    signer, words = begin_session(KEY_FILE)
    assert 'UNSIGNED' in words and 'av-td3 key create' in words
    assert not weights_of(signer, 1).signature


def test_a_key_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / 'mine.key'
    with pytest.raises(FileNotFoundError, match=f"^signing.key = '{path}' is missing: make it "
                                                f'with `av-td3 key create --key {path}`'):
        begin_session(str(path))
    path.touch(0o600)
    with pytest.raises(KeyFileError, match=r'^signing\.key: .* is no private key in PEM'):
        begin_session(str(path))
