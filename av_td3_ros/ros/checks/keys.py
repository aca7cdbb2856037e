"""Checks of the keys that decide whose weights drive, and of SROS2."""
from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from av_td3_ros.driving.checkup import Finding
from av_td3_ros.ros.security import security_of
from av_td3_ros.ros.security_plugins import ENABLE, has_plugins
from av_td3_ros.trust.gate import TrustSettings
from av_td3_ros.trust.keys import expanded, load_key
from av_td3_ros.trust.signing import SigningSettings
from av_td3_ros.trust.trusted import TrustError, TrustFile


def check_keys(trust: TrustSettings, signing: SigningSettings, environment: Mapping[str, str]
               ) -> list[Finding]:
    """Return what the checks of the keys of this host found."""
    return [check_trust(trust), check_signing(signing), check_security(environment)]


def check_trust(settings: TrustSettings) -> Finding:
    """Check whose weights policy nodes take on this host."""
    check, path = 'trusted keys', expanded(settings.keys)
    if settings.allow_unsigned:
        return Finding(check, 'warning', 'trust.allow_unsigned: whoever reaches the topic of the '
                       'weights drives', 'give the learner a key and leave allow_unsigned out')
    try:
        trust = TrustFile(path).now()
    except TrustError as error:
        return Finding(check, 'error', str(error), 'no weights that a learner sends are taken')
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o020:
        return Finding(check, 'warning', f"{path}: the file's group can add keys",
                       f'chmod 644 {path}')
    if path.exists() and path.stat().st_uid not in (0, os.getuid()):
        return Finding(check, 'warning', f'{path} belongs to another user, who can add keys',
                       f'chown it to you or root: {path}')
    if not trust.valid:
        return Finding(check, 'ok', f'none in {path}: weights from another host are refused '
                       '(`av-td3 key trust` adds a key; a session with its own learner needs '
                       'none)')
    names = ', '.join(f'{key.name or "?"} {one[:8]}' for one, key in trust.valid.items())
    return Finding(check, 'ok', f'{names} in {path}; {len(trust.revoked)} revoked')


def check_signing(settings: SigningSettings) -> Finding:
    """Check the key that a learner on this host would sign with."""
    check, path = 'signing key', expanded(settings.key)
    if not path.exists():
        return Finding(check, 'ok', f'none at {path}: a learner for vehicles elsewhere needs one '
                       '(`av-td3 key create`)')
    try:
        key = load_key(path).public
    except (ValueError, OSError) as error:
        return Finding(check, 'error', str(error), 'the learner does not start with it')
    return Finding(check, 'ok', f'{key.fingerprint} {key.name}, {path}')


def check_security(environment: Mapping[str, str]) -> Finding:
    """Check what SROS2 is set to, and whether the middleware can do it."""
    check, said = 'SROS2', security_of(environment)
    if environment.get(ENABLE) != 'true':
        return Finding(check, 'ok', f'{said}: whoever reaches domain and network takes part; '
                       'docs/security.md tells how to switch it on')
    if not has_plugins():
        return Finding(check, 'error', f'{said}, but this middleware was built without security: '
                       'no node starts', 'use a ROS installation, or unset ROS_SECURITY_ENABLE')
    if environment.get('ROS_SECURITY_STRATEGY') != 'Enforce':
        return Finding(check, 'warning', f'{said}: a node without an enclave takes part unsecured',
                       'export ROS_SECURITY_STRATEGY=Enforce')
    return Finding(check, 'ok', said)
