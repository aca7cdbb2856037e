"""What the options of `av-td3 train` come to."""
from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from av_td3_ros.cli import train
from av_td3_ros.ros.diagnostics import OK, WARN
from av_td3_ros.td3 import PRESETS


def configured(*words: str) -> dict[str, object]:
    """Return the settings of learner and policy, by dotted name."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    settings = train.configured(parser.parse_args(words), simulated=True).settings
    learner, policy = settings['learner_node'], settings['policy_node']
    return {'bags': learner.bags, 'shown': learner.demonstration_bags, 'td3': learner.td3,
            'offline': learner.offline, 'ranks': learner.ranks, 'total': learner.total_transitions,
            'warmup': policy.exploration.warmup_steps, 'features': policy.network.features}


@pytest.fixture
def bag(tmp_path: Path) -> str:
    """Return a folder that looks like a closed bag."""
    (tmp_path / 'metadata.yaml').touch()
    return str(tmp_path)


def test_bags_replace_the_warm_up(bag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bag)
    found = configured('--from-bags', '.', bag, '--steps', '100')
    assert found['bags'] == (bag, bag)
    assert (found['warmup'], found['offline'], found['total']) == (0, False, 100)
    assert configured('--from-bags', bag, '--steps', '0')['offline'] is True


def test_what_the_user_says_comes_last(bag: str) -> None:
    found = configured('--from-bags', bag, '--preset', 'paper', '--config',
                       'exploration.warmup_steps=500', '--config', 'td3.tau=0.5')
    assert found['warmup'] == 500
    assert found['td3'].tau == 0.5 and found['td3'].gamma == PRESETS['paper'][0].gamma
    assert found['features'] == PRESETS['paper'][1].features


def test_ranks_are_as_many_as_is_said() -> None:
    assert configured()['ranks'] == 1
    assert configured('--ranks', '2')['ranks'] == 2
    with pytest.raises(ValueError, match='ranks = 0'):
        configured('--ranks', '0')


def test_demonstrations_replace_the_warm_up_too(bag: str) -> None:
    found = configured('--demonstrations', bag)
    assert (found['shown'], found['bags'], found['warmup']) == ((bag,), (), 0)
    assert configured()['warmup'] != 0


def test_what_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'no metadata\.yaml and no MCAP file there; name the'):
        configured('--from-bags', str(tmp_path))
    with pytest.raises(ValueError, match='no checkpoint here'):
        configured('--config', f'resume={tmp_path}')
    with pytest.raises(ValueError, match=r'^learner_node\.capacity = 10{14} takes .* smaller'):
        configured('--config', f'learner_node.capacity={10**14}')


@pytest.mark.parametrize('words', [('--steps', '-1'), ('--steps', '0')])
def test_nothing_to_learn_from_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match='give 1 or more, or 0 with --from-bags'):
        configured(*words)


def test_a_session_that_was_stopped_did_not_wait() -> None:
    waiting = train.Waiting()
    waiting.look(0.0)
    waiting.look(1e6)  # the computer was asleep
    assert waiting.seconds == train.TURN
    worries = 0
    for second in range(100):
        worries += waiting.look(1e6 + 0.5 * second)
    assert waiting.seconds == pytest.approx(train.TURN + 49.5)
    assert worries == 0
    for second in range(100, 200):
        worries += waiting.look(1e6 + 0.5 * second)
    assert worries == 1  # told once
    waiting.end()
    assert waiting.seconds == 0.0


def test_a_policy_that_takes_no_weights_is_told_once() -> None:
    symptoms = train.Symptoms()
    record = {'updates': 2000, 'policy_version': 40, 'metrics': {'newest_policy_age': 2.0}}
    assert symptoms.news(record) == []
    record['metrics'] = {'newest_policy_age': 40.0}
    (words,) = symptoms.news(record)
    assert '40 versions behind' in words and 'policy_node' in words
    assert symptoms.news(record) == []


def test_why_nothing_is_driven_is_told_after_a_while_and_once_for_each_reason() -> None:
    standstill = train.Standstill('carla', 7)

    def told(level: int, reason: str, times: int) -> list[str]:
        return [words for _ in range(times) for words in standstill.news(level, reason)]

    no_frame = 'waiting for the start: no frame of camera and odometry has come'
    assert told(WARN, no_frame, train.STANDSTILL - 1) == []
    (words,) = told(WARN, no_frame, 100)
    assert no_frame in words
    assert 'av-td3 doctor --profile carla' in words and 'ROS_DOMAIN_ID=7' in words
    (words,) = [*told(WARN, 'the vehicle is 12 m from the start', 1),
                *told(WARN, 'the vehicle is 11 m from the start', 10)]
    assert '12 m' in words
    assert told(OK, 'driving episode 0, step 1', 1) == []
    assert told(WARN, no_frame, train.STANDSTILL - 1) == []  # between two episodes
    assert len(told(WARN, no_frame, 1)) == 1


def test_too_few_steps_for_an_update_are_told_with_the_remedy(bag: str) -> None:
    def told(*words: str) -> str:
        parser = argparse.ArgumentParser()
        train.add_arguments(parser)
        options = parser.parse_args(words)
        return train.too_short(options, train.configured(options, simulated=True))

    words = told('--steps', '100')
    assert '--steps 100 ' in words and 'limiter.start_after = 1000' in words
    assert 'give more steps, or --config learner_node.limiter.start_after=50' in words
    assert told('--steps', '1001')  # half an update
    assert not told('--steps', '1002')
    assert not told('--steps', '100', '--config', 'learner_node.limiter.start_after=50')
    assert not told('--steps', '100', '--from-bags', bag)
