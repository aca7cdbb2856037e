"""What the doctor says of keys and of SROS2."""
from __future__ import annotations

from pathlib import Path

import pytest

from av_td3_ros.ros.checks.keys import check_security, check_signing, check_trust
from av_td3_ros.ros.security_plugins import has_plugins
from av_td3_ros.trust.gate import TrustSettings
from av_td3_ros.trust.keys import create_key, new_key
from av_td3_ros.trust.signing import SigningSettings
from av_td3_ros.trust.trusted import Trust


def test_trusted_keys_are_named_and_dangers_told(tmp_path: Path) -> None:
    file = tmp_path / 'trusted_keys'
    settings = TrustSettings(keys=str(file))
    assert 'weights from another host are refused' in check_trust(settings).found
    key = new_key('desk').public
    Trust().with_key(key).write(file)
    found = check_trust(settings)
    assert found.level == 'ok' and f'desk {key.fingerprint[:8]}' in found.found
    assert check_trust(TrustSettings(allow_unsigned=True)).level == 'warning'
    file.chmod(0o664)
    assert 'group can add keys' in check_trust(settings).found
    file.chmod(0o666)
    assert check_trust(settings).level == 'error'


def test_the_signing_key_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / 'learner.key'
    settings = SigningSettings(key=str(path))
    assert 'av-td3 key create' in check_signing(settings).found
    key = create_key(path, 'desk').public
    assert key.fingerprint in check_signing(settings).found
    path.chmod(0o644)
    found = check_signing(settings)
    assert found.level == 'error' and 'chmod 600' in found.found


@pytest.mark.parametrize(('environment', 'level'), [
    ({}, 'ok'), ({'ROS_SECURITY_ENABLE': 'true'}, 'warning'),
    ({'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'Enforce'}, 'ok')])
def test_what_sros2_is_set_to_is_told(environment: dict[str, str], level: str) -> None:
    found = check_security(environment)
    assert found.level == ('error' if environment and not has_plugins() else level)
