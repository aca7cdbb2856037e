"""What a training session leaves, and the command that goes on from it."""
from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from av_td3_ros.ros.recording.bag import count_recorded, unfinished
from av_td3_ros.td3 import Checkpoint, CheckpointError, load_checkpoint

_OWN = ('--run', '--steps', '--from-bags')  # options that are given anew


def command(run: Path, words: Sequence[str], steps: int, bags: Sequence[str] = ()) -> str:
    """
    Return the command that goes on from a run folder, '' when nothing is there to go on from.

    `words` are the options that its training, or the one that is wanted now, was given; `steps`
    are to be driven, and `bags` are learned from as well.
    """
    checkpoint, recorded = _checkpoint(run), _recorded(run)
    if checkpoint is None and not recorded:
        return ''
    # What a checkpoint holds already is skipped where a bag has it too.
    bags = [*bags, *([str(run / 'bag')] if recorded else ())]
    resumed = ['--config', f'resume={run / "checkpoints"}'] if checkpoint is not None else []
    return shlex.join(['av-td3', 'train', *_without(words, _OWN), '--steps', str(steps), *resumed,
                       *(['--from-bags', *bags] if bags else []), '--run', str(_free(run))])


def survivors(run: Path, words: Sequence[str], steps: int, bags: Sequence[str] = ()) -> str:
    """Return in words what is left of a session that failed, '' when nothing is; as `command`."""
    checkpoint, recorded, bag = _checkpoint(run), _recorded(run), run / 'bag'
    left = ([f'{recorded} transitions in {bag}'] if recorded else []) + (
        [f'checkpoint {checkpoint.path} with {checkpoint.updates} updates'] if checkpoint else [])
    if not left:
        return ''
    lines = [f'what survived: {", ".join(left)}',
             f'go on from it: {command(run, words, steps, bags)}']
    if recorded and unfinished(bag):
        lines.append(f'the bag was not closed; learning reads it as it is, for ros2 bag and '
                     f'Foxglove: {shlex.join(["av-td3", "recover", str(bag)])}')
    return '\n'.join(lines)


def _checkpoint(run: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a run that has learned something."""
    try:
        found = load_checkpoint(run / 'checkpoints')
    except CheckpointError:
        return None
    return found if found.updates else None


def _recorded(run: Path) -> int:
    try:
        return count_recorded(run / 'bag')
    except (OSError, ValueError):
        return 0


def _free(run: Path) -> Path:
    """Return a folder beside a run's that is not there yet."""
    number = 2
    while (found := run.with_name(f'{run.name}-{number}')).exists():
        number += 1
    return found


def _without(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a command's words without some options and what they were given."""
    kept, is_kept = [], True
    for word in words:
        if word.startswith('--'):
            is_kept = word.partition('=')[0] not in names
        if is_kept:
            kept.append(word)
    return kept
