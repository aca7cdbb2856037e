"""`av-td3 export`: a policy alone, small enough to send and to ship."""
from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from av_td3_ros.cli.policies import (
    BASELINES,
    NODES_WITH_NETWORK,
    find_policy,
    trained_with,
    training_command,
)
from av_td3_ros.td3 import export_policy
from av_td3_ros.trust.keys import KEY_FILE, PublicKey, expanded, load_key
from av_td3_ros.trust.policy_file import signature_of
from av_td3_ros.trust.trusted import TRUST_FILE, TrustError, TrustFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--policy', required=True, metavar='RUN|CHECKPOINT',
                        help='run folder, of which the best checkpoint is taken, or a checkpoint')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR',
                        help='folder to create, with actor.safetensors and policy.json; '
                             'av-td3 evaluate and policy_node.weights take it')
    parser.add_argument('--key', metavar='FILE', default='',
                        help='private key that signs it, of `av-td3 key create` (default: '
                             f'{KEY_FILE} where it is there; else it is not signed)')
    parser.add_argument('--onnx', action='store_true',
                        help='also write actor.onnx, for whatever runs ONNX: frames uint8 '
                             '(1, F, H, W) and state float32 (1, S) in, action float32 (1, 2) out')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')


def run(options: argparse.Namespace) -> int:
    """Write the policy; return the exit status."""
    if options.policy in BASELINES:
        raise ValueError(f'--policy {options.policy}: it is not learned, there is nothing to '
                         'export; name a run or a checkpoint')
    policy = find_policy(options.policy)
    settings = {node: values for node, values in trained_with(policy).items()
                if node not in NODES_WITH_NETWORK}
    file = expanded(options.key or KEY_FILE)
    key = load_key(file) if options.key or file.exists() else None
    folder = export_policy(policy, options.out, settings, training_command(policy),
                           functools.partial(signature_of, key) if key else None)
    if options.onnx:
        from av_td3_ros.td3.onnx_actor import to_onnx  # a heavy import

        (folder / 'actor.onnx').write_bytes(to_onnx(policy.actor).SerializeToString())
    size = sum(path.stat().st_size for path in folder.iterdir())
    signed = f'signed by key {key.public.fingerprint}' if key else 'not signed'
    print(f'{policy.path} -> {folder} ({size / 1e6:.1f} MB, {signed})')
    if key and (words := _doubt(key.public)):
        print(f'av-td3 export: warning: {words}', file=sys.stderr)
    return 0


def _doubt(key: PublicKey) -> str:
    """Return what speaks against the key on this host, '' where nothing does."""
    file = TrustFile(expanded(TRUST_FILE))
    try:
        if key.fingerprint not in file.now().revoked:
            return ''
    except TrustError as error:
        return f'{error}; whether key {key.fingerprint} is revoked is not known'
    return (f'key {key.fingerprint} is revoked in {file.path}: vehicles that have revoked it too '
            'refuse this policy; `av-td3 key rotate` makes a new key')
