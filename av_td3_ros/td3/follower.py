"""A rank beside the first: keeps its shard of the replay and learns whenever rank 0 does."""
from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from av_td3_ros.parent import end_with_parent
from av_td3_ros.settings import from_mapping
from av_td3_ros.td3.checkpoint import agent_from_bytes
from av_td3_ros.td3.learner import Learner, LearnerSettings
from av_td3_ros.td3.priority import give_way
from av_td3_ros.td3.ranks import Ranks, RanksError, join
from av_td3_ros.td3.ranks import follow as follow_here
from av_td3_ros.td3.replay import ReplayError
from av_td3_ros.td3.shards import (
    DEMONSTRATIONS,
    REPLAY,
    check_alike,
    exchange,
    from_message,
    shares,
    store,
    unpack_steps,
)


def follow(ranks: Ranks) -> None:
    """Do what rank 0 orders until it orders to stop. Raises RanksError when it is gone."""
    settings = from_mapping(LearnerSettings, json.loads(ranks.receive(0)), 'rank 0')
    give_way(settings.priority)
    learner = Learner(dataclasses.replace(
        settings, run='', resume='', bags=(), demonstration_bags=(), offline=False), ranks)
    replays = {REPLAY: learner.own, DEMONSTRATIONS: learner.demonstrations}
    while True:
        order, data = from_message(ranks.receive(0))
        match order['order']:
            case 'take' | 'update' as wanted:
                store(unpack_steps(data), replays)
                weights = shares([held.weight for held in
                                  exchange(ranks, learner.own, order['vehicles'])])
                if wanted == 'update':
                    learner.train(weights[ranks.rank])
            case 'agent':
                agent_from_bytes(learner.agent, data)
            case 'alike':
                check_alike(ranks, learner.agent)
            case 'state':
                ranks.send(0, json.dumps(replays[order['replay']].state_dict()).encode())
            case 'segment':
                ranks.send(0, safetensors.numpy.save(replays[order['replay']].segment(
                    order['index'], order['total'])))
            case 'load':
                refused = ''
                segments = _segments(ranks)
                try:
                    replays[order['replay']].load_state_dict(order['values'], segments)
                except ReplayError as error:
                    refused = str(error)
                for _ in segments:
                    pass  # those that nobody asked for any more
                ranks.send(0, refused.encode())
            case 'stop':
                return


def main(args: list[str] | None = None) -> int:
    """Run as the rank that the environment says; return the exit status."""
    parser = argparse.ArgumentParser(prog=f'python -m {__spec__.name}', description=__doc__)
    parser.add_argument('--port', type=int, help='port of this host where rank 0 waits; without '
                        'it, as torchrun says')
    parser.add_argument('--parent', type=int, help='process without which this one ends')
    options = parser.parse_args(args)
    if not end_with_parent(options.parent, signal.SIGKILL):
        print(f'[FATAL] rank 0, process {options.parent}, is gone', file=sys.stderr, flush=True)
        return 1
    # Whoever ends the session tells rank 0, which has a last checkpoint to write from all shards.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        ranks = join() if options.port is None else follow_here(options.port)
        follow(ranks)
    except (RanksError, ValueError, OSError) as error:
        print(f'[FATAL] {error}', file=sys.stderr, flush=True)
        return 1
    ranks.leave()
    return 0


def _segments(ranks: Ranks) -> Iterator[dict[str, NDArray[Any]]]:
    while True:
        order, data = from_message(ranks.receive(0))
        if order['order'] == 'end':
            return
        yield safetensors.numpy.load(data)


if __name__ == '__main__':
    sys.exit(main())
