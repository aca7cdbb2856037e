"""The signature of an exported policy: over all that policy.json says, its actor by its hash."""
from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from av_td3_ros.td3.policy import SIGNATURE, Policy
from av_td3_ros.trust.gate import TrustSettings
from av_td3_ros.trust.keys import PrivateKey, expanded
from av_td3_ros.trust.signing import POLICY_DOMAIN
from av_td3_ros.trust.trusted import Trust, TrustError, TrustFile


def signature_of(key: PrivateKey, about: Mapping[str, Any]) -> dict[str, str]:
    """Return what policy.json says of its signature."""
    made = {'key': key.public.fingerprint}
    return {**made, 'ed25519': base64.b64encode(key.sign(_statement(about, made))).decode()}


def check_policy(policy: Policy, settings: TrustSettings) -> str:
    """
    Check who signed a policy out of a file; return words of warning, '' where none are needed.

    A signature of a trusted key has to be right, one of a revoked key is refused; whether there
    has to be one is `signed_files`. Raises TrustError when it is refused.
    """
    signed = policy.about.get(SIGNATURE)
    if signed is None:
        if settings.signed_files:
            raise TrustError(f'{policy.path} is not signed and trust.signed_files is set: export '
                             'it with `av-td3 export --key`, and trust that key here')
        return ''
    if not isinstance(signed, dict):
        raise TrustError(f'{policy.path}: {SIGNATURE} is no mapping: altered')
    file, name = TrustFile(expanded(settings.keys)), str(signed.get('key', ''))
    trust = file.now() if settings.signed_files or file.path.exists() else Trust()
    if name in trust.revoked:
        raise TrustError(f'{policy.path}: signed by key {name}, which is revoked in {file.path}')
    key = trust.key(name)
    if key is None:
        words = f'{policy.path}: signed by key {name}, which {file.path} does not trust'
        if settings.signed_files:
            raise TrustError(words)
        return words
    try:
        signature = base64.b64decode(str(signed.get('ed25519', '')), validate=True)
    except binascii.Error:
        signature = b''
    if not key.verifies(signature, _statement(policy.about, {'key': name})):
        raise TrustError(f'{policy.path}: the signature is not that of key {name} over this '
                         'policy: altered')
    return ''


def _statement(about: Mapping[str, Any], signed: Mapping[str, str]) -> bytes:
    said = {**{key: value for key, value in about.items() if key != SIGNATURE}, **signed}
    return POLICY_DOMAIN + json.dumps(said, sort_keys=True, separators=(',', ':')).encode()
