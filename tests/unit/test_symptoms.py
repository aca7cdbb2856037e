"""The checks: a healthy learner trips none, each illness is named, what misses says nothing."""
from __future__ import annotations

import math

import pytest

from av_td3_ros.td3.symptoms import CHECKS, judge, worst

# Measured at the end of a run that learned to drive: 6000 transitions, shipped settings.
HEALTHY = {
    'updates': 2500, 'transitions': 6000, 'transitions_lost': 0, 'transitions_refused': 0,
    'updates_skipped': 0, 'policy_version': 52, 'gamma': 0.95, 'frames': 4,
    'wanted_updates_per_transition': 0.5, 'start_after': 1000, 'slack': 64,
    'q1_mean': 0.747, 'q1_std': 0.623, 'q2_mean': 0.718, 'q_policy_mean': 0.760,
    'target_q_std': 0.633, 'td_error_mean': 0.0231, 'saturated_fraction': 0.0,
    'critic_grad_norm': 0.587, 'critic_grad_norm_clipped': 0.587, 'critic_cnn_grad_norm': 0.0274,
    'actor_grad_norm': 0.0817, 'actor_grad_norm_clipped': 0.0817, 'actor_cnn_grad_norm': 0.0112,
    'draws_per_transition': 26.6, 'policy_age_mean': 30.5, 'newest_policy_age': 2.6,
    'observed_return_mean': 1.55, 'q_overestimation': -0.351, 'observed_return_scale': 1.89,
    'reward_largest': 0.59, 'steer_std': 0.6, 'acceleration_std': 0.25,
    'action_change_black_frames': 0.247, 'action_change_zero_state': 0.323,
    'non_finite_weights': 0.0, 'actor_cnn_dead_units': 0.006, 'actor_cnn_feature_norm': 1.48,
    'actor_cnn_feature_std': 0.136, 'actor_cnn_weight_change': 0.7, 'critic_cnn_dead_units': 0.0,
    'critic_cnn_feature_norm': 1.21, 'critic_cnn_feature_std': 0.0291,
    'critic_cnn_weight_change': 0.412}
# The same run after its first 100 updates, and a little later.
EARLY = HEALTHY | {
    'updates': 100, 'transitions': 1200, 'policy_version': 4, 'q1_mean': -0.38, 'q1_std': 0.11,
    'q_policy_mean': -0.35, 'td_error_mean': 0.055, 'target_q_std': 0.1,
    'actor_grad_norm': 1.2, 'actor_grad_norm_clipped': 1.0, 'draws_per_transition': 2.5,
    'policy_age_mean': 2.9, 'observed_return_mean': -0.08, 'q_overestimation': -0.29,
    'observed_return_scale': 0.5, 'actor_cnn_feature_std': 0.01, 'actor_cnn_feature_norm': 1.6,
    'steer_std': 0.004, 'acceleration_std': 0.003, 'action_change_black_frames': 0.002}


def found(figures):
    return {one.name: one for one in judge(figures)}


def test_every_check_speaks_on_a_healthy_run_and_none_is_alarmed():
    findings = judge(HEALTHY)
    assert [one.name for one in findings] == list(CHECKS)
    assert {one.severity for one in findings} == {'well'}
    assert worst(findings) == 'well'


def test_a_run_that_has_just_begun_is_not_called_sick():
    assert {one.severity for one in judge(EARLY)} == {'well'}


def test_nothing_is_said_without_figures():
    assert judge({}) == []
    assert worst([]) == 'well'


@pytest.mark.parametrize('missing', sorted(HEALTHY))
def test_a_missing_figure_stops_nothing(missing):
    for figures in ({key: value for key, value in HEALTHY.items() if key != missing},
                    HEALTHY | {missing: math.nan}):
        assert {one.severity for one in judge(figures)} <= {'well'}


@pytest.mark.parametrize(('name', 'change'), [
    ('finite weights', {'non_finite_weights': 1e-6}),
    ('Q within reach of rewards', {'q1_mean': 1e6, 'q_policy_mean': 1e6}),
    ('Q within reach of rewards', {'q2_mean': -500.0}),
    ('Q under the policy', {'q1_mean': 51.0, 'q1_std': 20.0, 'q_policy_mean': 611.0,
                            'reward_largest': 100.0}),
    ('Q against observed returns', {'q_overestimation': 8.0}),
    ('Q against observed returns', {'q_overestimation': -8.0}),
    ('TD error', {'td_error_mean': 5.0}),
    ('saturated actions', {'saturated_fraction': 0.95}),
    ('actor gradient', {'actor_grad_norm': 0.0}),
    ('varied actions', {'steer_std': 0.001, 'acceleration_std': 0.0}),
    ('actor CNN: dead units', {'actor_cnn_dead_units': 0.99}),
    ('critic CNN: dead units', {'critic_cnn_dead_layer': 1.0}),
    ('critic CNN: features differ', {'critic_cnn_feature_std': 0.0}),
    ('actor CNN: features differ', {'actor_cnn_feature_norm': 0.0, 'actor_cnn_feature_std': 0.0}),
    ('actor CNN: gradient', {'actor_cnn_grad_norm': 0.0}),
    ('critic CNN: moves', {'critic_cnn_weight_change': 0.0}),
    ('critic: clipped gradient', {'critic_grad_norm': 1e5, 'critic_cnn_grad_norm': 1e4,
                                  'critic_grad_norm_clipped': 10.0}),
    ('age of the data', {'policy_age_mean': 51.5}),
    ('age of the newest data', {'newest_policy_age': 51.0}),
    ('draws: not too many', {'draws_per_transition': 3000.0}),
    ('draws: enough', {'draws_per_transition': 0.1}),
    ('skipped updates', {'updates_skipped': 100}),
    ('lost transitions', {'transitions_lost': 500}),
    ('refused transitions', {'transitions_refused': 500}),
    ('learner keeps up', {'transitions': 20_000}),
])
def test_an_illness_is_named_alone_with_figure_limit_and_remedy(name, change):
    findings = found(HEALTHY | change)
    assert [one.name for one in findings.values() if one.severity != 'well'] == [name]
    one = findings[name]
    assert one.severity == 'sick' and one.remedy and ': ' in one.text
    assert one.figure > one.threshold if one.well == 'below' else one.figure < one.threshold


@pytest.mark.parametrize(('name', 'change'), [
    ('saturated actions', {'saturated_fraction': 0.6}),
    ('looks at the camera', {'action_change_black_frames': 0.0}),
    ('looks at the state', {'action_change_zero_state': 0.001}),
    ('lost transitions', {'transitions_lost': 1}),
    ('refused transitions', {'transitions_refused': 1}),
    ('skipped updates', {'updates_skipped': 1}),
    ('age of the data', {'policy_age_mean': 48.0}),
])
def test_what_is_odd_but_no_illness_is_to_watch(name, change):
    findings = found(HEALTHY | change)
    assert [one.name for one in findings.values() if one.severity != 'well'] == [name]
    assert findings[name].severity == 'watch'
    assert worst(findings.values()) == 'watch'


def test_the_right_loss_and_the_wrong_one_are_told_apart():
    """Q under the policy at updates 200 to 600 with either loss, next to a Q of 25 to 40."""
    for update, wrong, right in ((200, 5500, 26), (300, 55926, 30), (600, 5049761, 40)):
        figures = {'updates': update, 'q1_mean': right - 1.0, 'q1_std': 10.0}
        assert found(figures | {'q_policy_mean': right})['Q under the policy'].severity == 'well'
        assert found(figures | {'q_policy_mean': wrong})['Q under the policy'].severity == 'sick'


def test_a_network_without_camera_has_no_sick_cnn():
    blind = {key: value for key, value in HEALTHY.items() if '_cnn_' not in key} | {
        'frames': 0, 'actor_cnn_grad_norm': 0.0, 'critic_cnn_grad_norm': 0.0}
    assert worst(judge(blind)) == 'well'
    assert not any('CNN' in one.name for one in judge(blind))


def test_returns_of_episodes_stand_for_rewards_that_are_not_known():
    known = {key: value for key, value in HEALTHY.items() if key != 'reward_largest'}
    assert 'Q within reach of rewards' not in found(known)
    known['episode_return_largest'] = 37.0
    assert found(known)['Q within reach of rewards'].severity == 'well'
    assert found(known | {'q1_mean': 1e6})['Q within reach of rewards'].severity == 'sick'


def test_recorded_bags_may_be_old():
    offline = HEALTHY | {'offline': 1.0, 'policy_age_mean': 52.0, 'newest_policy_age': 52.0,
                         'draws_per_transition': 5000.0}
    assert worst(judge(offline)) == 'well'


def test_a_high_replay_ratio_alone_is_no_stale_driver():
    """Ten updates a transition: a version each five transitions, after a warm-up of 1000."""
    versions = 50
    driven = versions * 5
    age = versions - driven * versions / 2 / (1000 + driven)
    figures = HEALTHY | {'policy_version': versions, 'policy_age_mean': age,
                         'newest_policy_age': 5.0}
    assert worst([found(figures)['age of the data']]) != 'sick'
    assert found(figures)['age of the newest data'].severity == 'well'
