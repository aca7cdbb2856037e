"""Faults of what is recorded: killed processes, a network that is cut or loses, a full disk."""
from __future__ import annotations

import contextlib
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from av_td3_ros.ros.recording.bag import read_transitions
from av_td3_ros.td3.checkpoint import Checkpoints
from benchmarks._faults import Fault, Outcome, claim
from benchmarks._loop import Comparison, Loop, actions, compare
from benchmarks._places import TwoHosts, small_disk
from benchmarks._sessions import SMALL, Processes, await_that

TEN_MINUTES = 12_000  # transitions at 20 a second
CUT = 30.0  # s: longer than DDS believes in somebody who is silent


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix='av_td3_ros-') as name:
        yield Path(name)


def _lost(found: Comparison) -> str:
    return (f'{found.missing} of {found.recorded} recorded transitions not learned from, '
            f'{found.invented} not recorded, {found.twice} twice')


def _claims(fault: str, found: Comparison) -> list[dict[str, Any]]:
    return [claim(f'{fault}: transitions recorded', found.recorded, '', 1, at_least=True),
            claim(f'{fault}: recorded transitions that the replay lacks', found.missing, '', 0),
            claim(f'{fault}: transitions in the replay that no bag holds', found.invented, '', 0),
            claim(f'{fault}: transitions that are there twice', found.twice, '', 0)]


def recorder_killed(times: int) -> Outcome:
    """Kill the recorder while it records, and start it again on the same bag."""
    chance = random.Random(0)
    with _folder() as folder, Loop(folder) as loop:
        loop.start('learner_node')
        loop.start('recorder_node')
        loop.drive(10**9, 100.0)
        for _ in range(times):
            before = loop.recorded()
            await_that(lambda known=before: loop.recorded() > known + 5, 'recording')
            time.sleep(chance.uniform(0.0, 1.5))
            loop.kill('recorder_node')
            loop.start('recorder_node')
        before = loop.recorded()
        await_that(lambda: loop.recorded() > before + 5, 'recording')
        loop.kill('driver')
        found = loop.finish()
        recovered = loop.log('recorder_node').count('transitions recovered')
        sessions = len({one.session for one in read_transitions(loop.bag)})
    return Outcome(times, f'{recovered} files recovered, {sessions} sessions in one bag',
                   _lost(found), [
                       *_claims('recorder killed', found),
                       claim('recorder killed: files not recovered', times - recovered, '', 0)])


def learner_killed(times: int) -> Outcome:
    """Kill the learner of a whole session again and again until its training ends."""
    chance = random.Random(0)
    wrong: list[str] = []
    with _folder() as folder:
        total = 300 + 150 * times
        with Processes(folder, (*SMALL, 'simulator_node.mode=real_time',
                                'learner_node.capacity=40000'), total) as session:
            checkpoints = Checkpoints(folder / 'checkpoints')
            killed = 0
            newest: Path | None = None
            while killed < times and not session.status().get('finished'):
                count = len(list(session.statuses()))
                await_that(lambda known=count: len(list(session.statuses())) > known,
                           'a status of the learner')
                said = re.findall(r'going on from (\S+) with', session.log('learner_node'))
                if newest is not None and (not said or Path(said[-1]) != newest):
                    wrong.append(f'{said[-1:]} instead of {newest}')
                time.sleep(chance.uniform(0.0, 3.0))
                session.kill('learner_node')
                killed += 1
                whole = checkpoints.folders()
                newest = whole[-1] if whole[-1].name != '00000000' else None
                session.start('learner_node')
            await_that(lambda: session.status().get('finished'), 'the end of the training', 900)
            status = session.status()
            session.end('learner_node')
        first = _stored(folder)
        found = compare(folder, folder / 'bag', first)
    return Outcome(killed, f'training ended after {status["transitions"]} of {total} transitions '
                   f'and {status["updates"]} updates; {len(wrong)} restarts not from the newest '
                   f'whole checkpoint {wrong[:1]}', _lost(found), [
                       *_claims('learner killed', found),
                       claim('learner killed: restarts not from the newest whole checkpoint',
                             len(wrong), '', 0),
                       claim('learner killed: transitions beyond or short of what was wanted',
                             abs(status['transitions'] - total), '', 0)])


def _stored(run: Path) -> int:
    from av_td3_ros.td3 import load_checkpoint

    return load_checkpoint(run / 'checkpoints').stored_steps


def learner_away(times: int, transitions: int = TEN_MINUTES) -> Outcome:
    """Let the learner be away for ten minutes of driving, while recorders come and go."""
    longest, founds = 0.0, []
    for _ in range(times):
        with _folder() as folder, Loop(folder) as loop:
            loop.start('learner_node')
            loop.start('recorder_node')
            loop.drive(200, 100.0)
            loop.await_end('driver')
            loop.await_learned(actions(loop.bag))
            loop.kill('learner_node')
            for part in range(2):  # a session that begins and ends meanwhile
                loop.drive(transitions // 2, 500.0)
                loop.await_end('driver')
                if not part:
                    loop.end('recorder_node')
                    loop.start('recorder_node')
            started = time.monotonic()
            loop.start('learner_node')
            founds.append(loop.finish())
            longest = max(longest, time.monotonic() - started)
    found = _sum(founds)
    return Outcome(times, f'{transitions} transitions of two sessions fetched in {longest:.0f} s '
                   'from the start of its process', _lost(found), _claims('learner away', found))


def network_cut(times: int, seconds: float = CUT) -> Outcome:
    """Cut the network between the hosts of recorder and learner."""
    with _folder() as folder, TwoHosts() as hosts, Loop(folder, hosts) as loop:
        loop.start('learner_node')
        loop.start('recorder_node')
        loop.drive(10**9, 20.0)
        deaf = 0
        for _ in range(times):
            known = loop.status().get('transitions', 0)
            await_that(lambda known=known: loop.status().get('transitions', 0) > known + 20,
                       'transitions')
            hosts.is_cut = True
            time.sleep(2.0)
            before = loop.status()['transitions']
            time.sleep(seconds - 2.0)
            deaf += loop.status()['transitions'] - before
            hosts.is_cut = False
        known = loop.status()['transitions']
        await_that(lambda: loop.status()['transitions'] > known + 20, 'transitions')
        loop.kill('driver')
        found = loop.finish()
    return Outcome(times, f'cut for {seconds:g} s each, {deaf} transitions came meanwhile',
                   _lost(found), _claims('network cut', found))


def lossy_network(times: int, loss: float = 0.05, transitions: int = 1000) -> Outcome:
    """Lose 5 % of the frames between the hosts of recorder and learner."""
    founds, longest, dropped, carried = [], 0.0, 0, 0
    for _ in range(times):
        with _folder() as folder, TwoHosts() as hosts, Loop(folder, hosts) as loop:
            hosts.loss = loss
            loop.start('recorder_node')
            loop.drive(transitions // 2, 100.0)  # before the learner is there
            loop.await_end('driver')
            loop.start('learner_node')
            await_that(loop.status, 'the learner')
            loop.drive(transitions // 2, 20.0)
            loop.await_end('driver')
            started = time.monotonic()
            founds.append(loop.finish(600.0))
            longest = max(longest, time.monotonic() - started)
            dropped, carried = dropped + hosts.dropped, carried + hosts.carried
    found = _sum(founds)
    return Outcome(times, f'{dropped} of {dropped + carried} frames lost on the wire; everything '
                   f'there {longest:.0f} s after the last step', _lost(found),
                   _claims('lossy network', found))


def full_disk(times: int) -> Outcome:
    """Fill the disk of the bag while it is written, and make room again."""
    with _folder() as folder, small_disk(folder / 'disk', 20_000_000) as disk, Loop(
            folder, bag=disk / 'bag') as loop:
        loop.start('learner_node')
        loop.start('recorder_node')
        loop.drive(10**9, 50.0)
        ballast = disk / 'ballast'
        for number in range(times):
            known = loop.status().get('transitions', 0)
            await_that(lambda known=known: loop.status().get('transitions', 0) > known + 20,
                       'transitions')
            with contextlib.suppress(OSError), ballast.open('wb', buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            await_that(lambda count=number + 1: loop.log('recorder_node').count(
                'recording stands still') == count, 'a word of the recorder')
            known = loop.status()['transitions']
            await_that(lambda known=known: loop.status()['transitions'] > known + 20,
                       'transitions while the disk is full')
            ballast.unlink()
            await_that(lambda count=number + 1: loop.log('recorder_node').count(
                'recording goes on') == count, 'a word of the recorder')
        loop.kill('driver')
        found = loop.finish()
        warned = 'left below' in loop.log('recorder_node')
    return Outcome(times, f'{"a warning before" if warned else "no warning"}, told each time, '
                   'driving and learning went on, recording resumed', _lost(found), [
                       *_claims('full disk', found),
                       claim('full disk: warnings before', int(warned), '', 1, at_least=True)])


def _sum(founds: list[Comparison]) -> Comparison:
    return Comparison(*(sum(getattr(one, name) for one in founds) for name in (
        'recorded', 'stored', 'missing', 'invented', 'twice')))


FAULTS = {
    'recorder killed': Fault(50, recorder_killed), 'learner killed': Fault(50, learner_killed),
    'learner away for 10 minutes': Fault(3, learner_away),
    'network cut': Fault(5, network_cut), '5 % of the frames lost': Fault(1, lossy_network),
    'disk full': Fault(5, full_disk)}
"""Each is ended and compared: the final replay with everything that was recorded."""
