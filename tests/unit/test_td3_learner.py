"""The learner without messages: what it takes, when it learns, where it goes back to."""
from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_td3_ros.td3 import LimiterSettings, NetworkSettings, StepRecord, TD3Settings
from av_td3_ros.td3.demonstrations import DemonstrationSettings
from av_td3_ros.td3.learner import Learner, LearnerSettings, memory_here

torch.set_num_threads(1)

NETWORK = NetworkSettings(frame_size=36, state_size=2, channels=(4, 4, 4), features=8,
                          hidden=(8, 8))
SETTINGS = LearnerSettings(
    capacity=500, skips_tolerated=3, score_episodes=2, network=NETWORK,
    td3=TD3Settings(batch_size=4, precision='float32'), human=DemonstrationSettings(capacity=100),
    limiter=LimiterSettings(updates_per_transition=0.5, start_after=10))


def step(number: int, session: str = 'a') -> StepRecord:
    """Return a step of episodes of ten."""
    episode, at = divmod(number, 10)
    random = np.random.default_rng(number)
    return StepRecord('ego', episode, at, random.integers(0, 256, (36, 36), np.uint8),
                      random.normal(size=2).astype(np.float32), np.zeros(2, np.float32), 1.0,
                      at == 0, at == 9, at == 9, session=session)


def learner(**changes: Any) -> Learner:
    """Return a learner that has taken 60 steps."""
    made = Learner(dataclasses.replace(SETTINGS, **changes))
    for number in range(60):
        made.take(step(number))
    made.begin_driving()
    return made


def learn(one: Learner, updates: int) -> None:
    """Make some updates; none may be skipped."""
    for _ in range(updates):
        assert one.update() is not None


def spoil(one: Learner) -> None:
    """Break the critic, as an explosion would; the next updates are skipped."""
    with torch.no_grad():
        for parameter in one.agent.critic.parameters():
            parameter.fill_(math.inf)


def skip(one: Learner) -> str:
    """Let updates be skipped until the learner does something about it; return what it says."""
    while not (said := one.recover()):
        assert one.update() is None
    return said


def test_it_goes_back_to_the_newest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    one = learner(run=str(tmp_path))
    learn(one, 2)
    one.save()
    good = Path(one.checkpoint)
    learn(one, 2)
    one.save()
    newest = Path(one.checkpoint)
    file = newest / 'agent.safetensors'
    file.write_bytes(bytes(file.stat().st_size))
    spoil(one)
    said = skip(one)
    assert str(good) in said and 'truncated or altered' in said
    assert one.agent.updates == 2
    learn(one, 1)


def test_a_checkpoint_that_leads_to_the_same_end_is_not_tried_again(tmp_path: Path) -> None:
    one = learner(run=str(tmp_path))
    with torch.no_grad():
        for parameter in one.agent.critic.parameters():
            parameter.mul_(1e30)  # finite itself, but not what comes of it
    one.save()
    exploded = one.checkpoint
    assert exploded in skip(one)
    assert str(Path(tmp_path / 'checkpoints' / 'untrained').resolve()) in skip(one)
    learn(one, 1)


def test_while_updates_fail_nothing_is_saved(tmp_path: Path) -> None:
    one = learner(run=str(tmp_path))
    learn(one, 1)
    one.save()
    before = one.checkpoint
    spoil(one)
    assert one.update() is None
    one.save()
    assert one.checkpoint == before


def test_without_a_checkpoint_it_says_so_and_goes_on() -> None:
    one = learner()
    spoil(one)
    assert 'no checkpoint left to go back to' in skip(one)


def test_offline_needs_no_start_and_something_to_do() -> None:
    one = learner(offline=True, bags=('x',))
    assert one.is_complete and one.limiter.due == (54 - 1) / 2
    empty = Learner(dataclasses.replace(SETTINGS, offline=True, bags=('x',)))
    with pytest.raises(ValueError, match='allow no update'):
        empty.begin_driving()


def test_a_step_that_a_demonstration_holds_is_taken_all_the_same() -> None:
    one = Learner(SETTINGS)
    for number in range(20):
        one.take_demonstration(step(number))
    for number in range(20):
        one.take(step(number), human=True)
    assert one.limiter.transitions == 36 and len(one.replay) == len(one.demonstrations) == 18


def test_the_score_is_the_mean_return_of_whole_episodes(tmp_path: Path) -> None:
    one = learner(run=str(tmp_path))
    for value, interrupted in ((4.0, False), (99.0, True), (6.0, False)):
        one.finish_episode(value, interrupted)
    learn(one, 1)
    one.save()
    assert Path(tmp_path / 'checkpoints' / 'best').resolve() == Path(one.checkpoint)
    assert one.episodes == 3


def test_it_resumes_with_everything(tmp_path: Path) -> None:
    one = learner(run=str(tmp_path))
    one.finish_episode(1.0)
    learn(one, 3)
    one.save()
    again = Learner(dataclasses.replace(SETTINGS, resume=one.checkpoint, total_transitions=5))
    again.begin_driving()
    assert (again.agent.updates, len(again.replay), again.episodes) == (3, len(one.replay), 1)
    assert again.total == one.limiter.transitions + 5 and not again.is_complete
    assert again.examine() == one.examine()


@pytest.mark.parametrize(('changes', 'words'), [
    ({'capacity': memory_here() // 700}, r'^capacity = \d+ takes \d+\.\d GB of memory, and this '
     r'computer has \d+\.\d GB for everything: give a smaller one, or a replay_folder'),
    ({'capacity': 10**14}, '^capacity = 100000000000000 takes .* give a smaller one$'),
    ({'capacity': 10**14, 'replay_folder': '/tmp'}, 'for everything: give a smaller one$'),
    ({'human': DemonstrationSettings(capacity=10**13)}, r'^human\.capacity = 10000000000000 takes')
    ], ids=('frames', 'capacity', 'index alone', 'human'))
def test_a_replay_larger_than_the_memory_is_refused_by_name(changes: dict[str, Any], words: str
                                                            ) -> None:
    with pytest.raises(ValueError, match=words):
        Learner(dataclasses.replace(SETTINGS, **changes))
