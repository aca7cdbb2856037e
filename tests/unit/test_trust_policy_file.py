"""Signed policies out of files: whose they are, and that nothing of them was changed."""
from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from av_td3_ros.cli.main import _run
from av_td3_ros.td3 import TD3, Checkpoints, NetworkSettings, Policy, TD3Settings, load_policy
from av_td3_ros.td3.policy import export_policy
from av_td3_ros.trust.gate import TrustSettings
from av_td3_ros.trust.keys import create_key, new_key
from av_td3_ros.trust.policy_file import check_policy, signature_of
from av_td3_ros.trust.trusted import Trust, TrustError

NETWORK = NetworkSettings(frame_size=36, state_size=3, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
KEY = new_key('desk')


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Write a checkpoint of an untrained learner."""
    return Checkpoints(tmp_path / 'checkpoints').save(TD3(TD3Settings(), NETWORK, seed=1))


@pytest.fixture
def signed(checkpoint: Path, tmp_path: Path) -> Path:
    """Write a policy that KEY has signed."""
    return export_policy(load_policy(checkpoint), tmp_path / 'policy',
                         {'control_node': {'command.steering_range': 0.6}}, 'av-td3 train',
                         functools.partial(signature_of, KEY))


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., str]:
    """Return a function that checks a policy against a trust."""
    def check(policy: Policy, trust: Trust | None, strict: bool = True) -> str:
        file = tmp_path / 'trusted_keys'
        if trust is not None:
            trust.write(file)
        return check_policy(policy, TrustSettings(keys=str(file), signed_files=strict))

    return check


def test_a_policy_of_a_trusted_key_is_taken(signed: Path, check: Callable[..., str]) -> None:
    assert check(load_policy(signed), Trust().with_key(KEY.public)) == ''


@pytest.mark.parametrize('strict', [True, False])
def test_what_a_trusted_key_did_not_sign_is_refused(signed: Path, check: Callable[..., str],
                                                    strict: bool) -> None:
    about = json.loads((signed / 'policy.json').read_text())
    about['settings']['control_node']['command.steering_range'] = 1.0
    (signed / 'policy.json').write_text(json.dumps(about))
    with pytest.raises(TrustError, match='altered'):
        check(load_policy(signed), Trust().with_key(KEY.public), strict)


@pytest.mark.parametrize('strict', [True, False])
def test_a_revoked_key_signs_no_policy(signed: Path, check: Callable[..., str], strict: bool
                                       ) -> None:
    trust = Trust().with_key(KEY.public).without(KEY.public.fingerprint)
    with pytest.raises(TrustError, match='is revoked'):
        check(load_policy(signed), trust, strict)


def test_an_unknown_key_is_told_or_refused(signed: Path, check: Callable[..., str]) -> None:
    assert 'does not trust' in check(load_policy(signed), None, strict=False)
    with pytest.raises(TrustError, match='does not trust'):
        check(load_policy(signed), Trust().with_key(new_key().public))


def test_a_checkpoint_is_taken_unless_signatures_are_asked_for(
        checkpoint: Path, check: Callable[..., str]) -> None:
    assert check(load_policy(checkpoint), None, strict=False) == ''
    with pytest.raises(TrustError, match='av-td3 export --key'):
        check(load_policy(checkpoint), Trust().with_key(KEY.public))


def test_export_signs_where_there_is_a_key(checkpoint: Path, tmp_path: Path,
                                           check: Callable[..., str], ros: None,
                                           monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    assert _run(['export', '--policy', str(checkpoint), '--out', str(tmp_path / 'a')]) == 0
    assert 'not signed' in capsys.readouterr().out
    key = create_key(tmp_path / 'mine.key').public
    assert _run(['export', '--policy', str(checkpoint), '--out', str(tmp_path / 'b'), '--key',
                 str(tmp_path / 'mine.key')]) == 0
    assert key.fingerprint in capsys.readouterr().out
    assert check(load_policy(tmp_path / 'b'), Trust().with_key(key)) == ''


def test_export_with_a_key_that_is_revoked_here_warns(
        checkpoint: Path, tmp_path: Path, ros: None, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    keys = tmp_path / '.config' / 'av_td3_ros'
    key = create_key(keys / 'learner.key').public
    for number, (trust, words) in enumerate((
            (Trust().with_key(key), ''),
            (Trust().without(key.fingerprint), f'warning: key {key.fingerprint} is revoked in'))):
        trust.write(keys / 'trusted_keys')
        assert _run(['export', '--policy', str(checkpoint), '--out',
                     str(tmp_path / str(number))]) == 0
        said = capsys.readouterr().err
        assert words in said if words else not said
