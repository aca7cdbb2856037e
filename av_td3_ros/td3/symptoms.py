"""What looks sick in the figures of a learner: thresholds, what they mean, what to do about it."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

Figures = Mapping[str, float]
"""Named numbers: metrics of `TD3.train`, figures of `examine`, a learner's counters, settings."""

Severity = Literal['sick', 'watch', 'well']
SEVERITIES: tuple[Severity, ...] = ('sick', 'watch', 'well')

# Values and weights of the first updates are those of the initial networks.
LEARNED = 200
# An actor that begins near zero (a small last layer) takes its time to tell states apart.
FORMED = 1000
# The warm-up's random driving counts as version 0 or 1 and outweighs the first versions.
VERSIONS = 20


class Grade(NamedTuple):
    """
    What one check says.

    `threshold` is the limit that `figure` has passed, or that it keeps to; `well` tells on which
    side of it healthy figures are.
    """

    severity: Severity
    figure: float
    threshold: float
    text: str
    remedy: str = ''
    well: Literal['below', 'above'] = 'below'


class Finding(NamedTuple):
    """A grade with the name of the check that gave it."""

    name: str
    severity: Severity
    figure: float
    threshold: float
    text: str
    remedy: str
    well: Literal['below', 'above']


Check = Callable[[Figures], Grade | None]


def judge(figures: Figures) -> list[Finding]:
    """Return what each check of CHECKS finds; one whose figures are missing says nothing."""
    return [Finding(name, *grade) for name, check in CHECKS.items()
            if (grade := check(figures)) is not None]


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the most serious severity among some findings, 'well' without any."""
    return min((one.severity for one in findings), key=SEVERITIES.index, default='well')


def unbroken_weights(figures: Figures) -> Grade | None:
    """Look for weights that are not finite: one is enough to make every value nan."""
    broken = _known(figures, 'non_finite_weights')
    return None if broken is None else _judged(
        broken, 0.0, 0.0, f'{broken:.2%} of the weights are nan or infinite',
        'nothing that these networks answer means anything',
        'go back to an earlier checkpoint (learner_node.resume) and lower td3.learning_rate')


def reachable_q(figures: Figures) -> Grade | None:
    """
    Compare Q with what the rewards can sum up to: largest |reward| / (1 - gamma).

    The largest reward of a step, received for ever, is beyond what any driving earns, so a
    healthy Q stays far below; twice of it leaves room for errors of the fit. Where the rewards
    are not known, ten times the largest return of an episode stands for it: a return without
    discount is more than a Q of the same episode.
    """
    q = max((abs(one) for key in ('q_policy_mean', 'q1_mean', 'q2_mean')
             if (one := _known(figures, key)) is not None), default=None)
    reward, gamma = _known(figures, 'reward_largest'), _known(figures, 'gamma')
    returned = _known(figures, 'episode_return_largest')
    if reward and gamma is not None and gamma < 1.0:
        limit = reward / (1.0 - gamma)
        told = f'rewards of up to {reward:.3g} can sum up to {limit:.4g}'
    elif returned:
        limit, told = 10.0 * returned, f'no episode returned more than {returned:.4g}'
    else:
        return None
    if q is None or not _has_learned(figures):
        return None
    return _judged(
        q, limit, 2.0 * limit, f'|Q| is {q:.4g}, {told}',
        'Q explodes, its values mean nothing any more', _Q_REMEDY)


def policy_q(figures: Figures) -> Grade | None:
    """
    Compare Q under the policy with Q of the data.

    The policy's actions are a little better than the data's: healthy runs show a gap of a tenth
    to a quarter of Q's own size and deviation. A gap of several times that was measured where
    the actor is trained on features that the critic does not know (201 against 26 after 100
    updates, 5 million after 600), and where the actor exploits errors of the critic.
    """
    policy, q, spread = (_known(figures, key) for key in ('q_policy_mean', 'q1_mean', 'q1_std'))
    if policy is None or q is None or spread is None or not _has_learned(figures):
        return None
    scale = max(abs(q) + spread, 1e-9)
    gap = abs(policy - q) / scale
    return _judged(
        gap, 1.0, 3.0,
        f'Q under the policy is {policy:.4g}, Q of the data {q:.4g} with a deviation of '
        f'{spread:.3g}: {gap:.2g} times its size apart',
        'Q under the policy leaves the Q of the data behind: the signature of an actor that is '
        "trained on features the critic does not know, or that exploits the critic's errors",
        "give the critic its own CNN's features in the actor's loss; then td3.scale_policy_loss="
        'true, a lower td3.learning_rate, a larger td3.policy_freq')


def overestimated_q(figures: Figures) -> Grade | None:
    """
    Compare Q of recent data with the returns that followed.

    Clipped double Q lags behind a policy that gets better, by up to the return itself; three
    times the size and deviation of the returns is no lag.
    """
    over, scale = (_known(figures, key) for key in ('q_overestimation', 'observed_return_scale'))
    observed = _known(figures, 'observed_return_mean')
    if over is None or observed is None or not scale or not _has_learned(figures):
        return None
    ratio = abs(over) / scale
    word = 'over' if over > 0 else 'under'
    return _judged(
        ratio, 1.0, 3.0,
        f'Q is {observed + over:.4g} where {observed:.4g} was earned, {ratio:.2g} times the '
        'size of the returns apart',
        f'the critic {word}estimates what the policy earns',
        _Q_REMEDY if over > 0 else
        'more updates (limiter.updates_per_transition), a larger td3.tau or td3.n_step; after a '
        'change of the reward begin a new run')


def td_error(figures: Figures) -> Grade | None:
    """
    Compare the TD error with the spread of the targets.

    A critic that answers with the mean of its targets has an error of about 0.8 of their
    deviation; healthy runs are at 0.05 to 0.2.
    """
    error, spread = (_known(figures, key) for key in ('td_error_mean', 'target_q_std'))
    if error is None or not spread or _before(figures, FORMED):
        return None
    return _judged(
        error / spread, 0.8, 3.0,
        f'the TD error is {error:.3g}, the deviation of the targets {spread:.3g}',
        'the critic tells good states from bad ones no better than their mean would',
        'a lower td3.learning_rate or td3.tau, a smaller td3.n_step; look whether the rewards '
        'follow from what can be seen')


def saturated_actions(figures: Figures) -> Grade | None:
    """
    Look at the share of action components at their limit, where tanh has no gradient.

    Runs with half of them saturated have still learned to drive; with nine in ten the actor does
    not come back.
    """
    share = _known(figures, 'saturated_fraction')
    return None if share is None else _judged(
        share, 0.5, 0.9, f'{share:.0%} of the action components are at '
        'their limit', 'the actor is saturated and gets next to no gradient', _ACTOR_REMEDY)


def actor_gradient(figures: Figures) -> Grade | None:
    """
    Look whether the actor still gets a gradient.

    Healthy runs are at 0.01 to 1; a saturated tanh gives exactly 0 in float32.
    """
    norm = _known(figures, 'actor_grad_norm')
    return None if norm is None else _judged(
        norm, 1e-5, 1e-8, f"the norm of the actor's gradient is {norm:.3g}",
        'the actor does not learn any more', _ACTOR_REMEDY, above=True)


def varied_actions(figures: Figures) -> Grade | None:
    """
    Look whether the actor answers different states differently.

    A hundredth of the range is less than what a lane keeper needs on a straight road.
    """
    spreads = [one for key in ('steer_std', 'acceleration_std')
               if (one := _known(figures, key)) is not None]
    if not spreads or _before(figures, FORMED):
        return None
    return _judged(
        max(spreads), 0.01, 0.002,
        f'over the stored states the actions deviate by {max(spreads):.3g}',
        'the actor does about the same whatever it is shown', _ACTOR_REMEDY, above=True)


def sees_frames(figures: Figures) -> Grade | None:
    """Look whether black frames change the actions: below 0.01 the camera does not matter."""
    change = _known(figures, 'action_change_black_frames')
    if change is None or _before(figures, FORMED):
        return None
    return _judged(
        change, 0.01, 0.0,
        f'black frames change an action by {change:.3g} on average',
        'the actor drives without the camera',
        'train with network.state_size=0 if it shall see; see what the checks of the CNNs say',
        above=True)


def sees_state(figures: Figures) -> Grade | None:
    """Look whether a zeroed state changes the actions: below 0.01 it does not matter."""
    change = _known(figures, 'action_change_zero_state')
    if change is None or _before(figures, FORMED):
        return None
    return _judged(
        change, 0.01, 0.0,
        f'a state of zeros changes an action by {change:.3g} on average',
        'the actor drives without its speed and its route',
        'a smaller network.feature_scale gives the few numbers their say beside the features',
        above=True)


def dead_units(network: str, figures: Figures) -> Grade | None:
    """
    Look at the share of ReLU channels that never answer, of the worst layer where it is known.

    Healthy CNNs of this size have none to a third; with nine in ten of a layer dead hardly
    anything passes it, and what is dead has no gradient to come back.
    """
    shares = [one for key in ('dead_units', 'dead_layer')
              if (one := _known(figures, f'{network}_cnn_{key}')) is not None]
    if not shares or not _has_camera(figures):
        return None
    whole = '' if len(shares) == 1 else ' of a layer'
    return _judged(
        max(shares), 0.5, 0.9,
        f'{max(shares):.0%} of the channels{whole} are silent', 'the CNN is dying or dead',
        _cnn_remedy(network))


def feature_spread(network: str, figures: Figures) -> Grade | None:
    """
    Look whether features differ between stacks, against the length of the feature vector.

    Healthy CNNs are at 0.02 to 0.06; a constant answer gives 0.
    """
    norm, spread = (_known(figures, f'{network}_cnn_{key}')
                    for key in ('feature_norm', 'feature_std'))
    if norm is None or spread is None or not _has_camera(figures):
        return None
    ratio = spread / norm if norm > 0 else 0.0
    return _judged(
        ratio, 2e-3, 1e-4,
        f'between stacks a feature deviates by {spread:.3g}, the feature vector is {norm:.3g} '
        'long', 'the CNN answers the same whatever it is shown', _cnn_remedy(network),
        above=True)


def cnn_gradient(network: str, figures: Figures) -> Grade | None:
    """
    Compare the CNN's gradient with that of its whole network.

    Healthy runs are at 0.01 to 0.5.
    """
    whole = _known(figures, f'{network}_grad_norm')
    cnn = _known(figures, f'{network}_cnn_grad_norm')
    if not whole or cnn is None or not _has_camera(figures):
        return None
    return _judged(
        cnn / whole, 1e-3, 1e-6,
        f"the CNN's gradient norm is {cnn:.3g}, that of the whole {network} {whole:.3g}",
        'next to nothing reaches the CNN', _cnn_remedy(network), above=True)


def weight_change(network: str, figures: Figures) -> Grade | None:
    """
    Look whether the CNN has moved from its first weights.

    Adam moves a weight by about the learning rate an update: 500 updates make 0.2 to 0.4, and
    still 0.01 at a sixth of the rate. Below 0.001 it stands.
    """
    change = _known(figures, f'{network}_cnn_weight_change')
    if change is None or _before(figures, LEARNED) or not _has_camera(figures):
        return None
    return _judged(
        change, 1e-3, 1e-4,
        f'{change:.3g} of its length away from its first weights', 'the CNN does not learn',
        f'td3.cnn_learning_rate must not be 0; {_cnn_remedy(network)}', above=True)


def clipped_gradient(network: str, figures: Figures) -> Grade | None:
    """
    Compare the gradient before and after the clip.

    A clip is for rare steps; a gradient that is always ten times too long learns by the clip.
    """
    whole, kept = (_known(figures, f'{network}_grad_norm{end}') for end in ('', '_clipped'))
    if not whole or not kept:
        return None
    scaled = 'td3.scale_policy_loss=true; ' if network == 'actor' else ''
    return _judged(
        whole / kept, 10.0, 1000.0,
        f'the gradient norm is {whole:.3g}, {kept:.3g} after the clip',
        'the gradient is far longer than what is used of it',
        f'{scaled}scale the rewards to returns of order 1 to 100; a larger '
        f'td3.{network}_clip_norm')


def policy_age(figures: Figures) -> Grade | None:
    """
    Compare the mean age of the data's policies with the versions published so far.

    Steady driving gives a half, a long warm-up or a high replay ratio up to nine tenths.
    """
    age, versions = (_known(figures, key) for key in ('policy_age_mean', 'policy_version'))
    if age is None or not versions or versions < VERSIONS or figures.get('offline'):
        return None
    return _judged(
        age / versions, 0.9, 0.97,
        f'the policies that drove the data are {age:.3g} versions old on average, of '
        f'{versions:.0f} published',
        'nearly everything that is learned from was driven by policies long gone',
        'see whether policy_node takes new weights (its log, `ros2 topic echo`); a smaller '
        'learner_node.capacity or limiter.updates_per_transition, a larger publish_every')


def newest_data(figures: Figures) -> Grade | None:
    """
    Look at which policy drove the newest steps.

    Weights take effect within a few versions; a driver that is nine tenths behind gets none.
    """
    age, versions = (_known(figures, key) for key in ('newest_policy_age', 'policy_version'))
    if age is None or not versions or versions < VERSIONS or figures.get('offline'):
        return None
    return _judged(
        age / versions, 0.5, 0.9,
        f'the newest steps were driven {age:.3g} versions behind, of {versions:.0f} published',
        'new policies do not reach the vehicle',
        'see whether policy_node takes new weights: its log, `ros2 topic hz` on the weights, one '
        'architecture on both sides')


def many_draws(figures: Figures) -> Grade | None:
    """
    Look at how often a transition was learned from.

    The shipped settings make 32 draws, others up to 256. Replay ratios of 10 to 20 updates with
    a batch of 256 (2560 draws and more) are where learning collapses onto early data (Nikishin
    et al. 2022, D'Oro et al. 2023).
    """
    draws = _known(figures, 'draws_per_transition')
    if draws is None or _before(figures, FORMED) or figures.get('offline'):
        return None
    return _judged(
        draws, 400.0, 2000.0,
        f'each transition was learned from {draws:.3g} times',
        'the networks learn the same few transitions by heart',
        'a smaller limiter.updates_per_transition or td3.batch_size, more transitions (--steps)')


def few_draws(figures: Figures) -> Grade | None:
    """
    Look whether the transitions are used at all.

    Below 4 draws most of what was driven teaches nothing before the run ends; below 0.5 most of
    it was never looked at.
    """
    draws = _known(figures, 'draws_per_transition')
    if draws is None or _before(figures, FORMED):
        return None
    return _judged(
        draws, 4.0, 0.5, f'each transition was learned from {draws:.3g} times',
        'the learner hardly uses what is driven',
        'a larger limiter.updates_per_transition or td3.batch_size; learner_node.threads or '
        'device where the learner cannot keep up', above=True)


def skipped_updates(figures: Figures) -> Grade | None:
    """
    Look at updates that were refused because a number was not finite.

    None is normal; one in a hundred is no accident any more.
    """
    skipped, updates = (_known(figures, key) for key in ('updates_skipped', 'updates'))
    if skipped is None or updates is None or not skipped + updates:
        return None
    return _judged(
        skipped / (skipped + updates), 0.0, 0.01,
        f'{skipped:.0f} updates were skipped beside {updates:.0f} made',
        'losses or gradients were not finite',
        'a lower td3.learning_rate, td3.precision=float32, clip norms that are not null; look '
        'for rewards of very different size')


def lost_transitions(figures: Figures) -> Grade | None:
    """Look at transitions that never arrived: one in a hundred tears many stacks apart."""
    return _share_of_transitions(
        figures, 'lost', 'the transport or the recorder drops messages',
        "look into the recorder's log; lower the load, or give its queue more depth")


def refused_transitions(figures: Figures) -> Grade | None:
    """Look at transitions that the replay refused: one in a hundred is no accident any more."""
    return _share_of_transitions(
        figures, 'refused', 'what arrives is broken, out of order or of another size',
        "the learner's log says why; frame and state sizes must agree between the nodes")


def keeps_up(figures: Figures) -> Grade | None:
    """
    Compare the updates made with those that are due by the transitions received.

    A lockstep world waits, which leaves `slack` updates at most; a world that does not wait runs
    away from a learner that is too slow.
    """
    transitions, updates, ratio, start, slack = (_known(figures, key) for key in (
        'transitions', 'updates', 'wanted_updates_per_transition', 'start_after', 'slack'))
    if transitions is None or updates is None or not ratio or start is None or slack is None:
        return None
    wanted = max(0.0, transitions - start) * ratio
    # A few transitions arrive between the message to wait and its effect.
    behind = wanted - updates - 2.0 * slack
    if wanted < LEARNED:
        return None
    return _judged(
        max(0.0, behind) / wanted, 0.1, 0.5,
        f'{updates:.0f} updates made of {wanted:.0f} due', 'the learner falls behind the world',
        'learner_node.threads, learner_node.device=cuda, a smaller td3.batch_size or '
        'limiter.updates_per_transition; learner_node.pause_world=true where the world can wait')


_Q_REMEDY = ('a lower td3.gamma, td3.tau or td3.learning_rate; rewards of order 1; twin critics '
             'with td3.policy_noise on; a td3.critic_clip_norm')
_ACTOR_REMEDY = ('td3.scale_policy_loss=true, td3.pre_activation_penalty=0.01, '
                 'network.layer_norm=true, a small network.last_layer_scale; a saturated actor '
                 'does not recover: begin anew or from an earlier checkpoint')


def _cnn_remedy(network: str) -> str:
    return (f'a lower td3.cnn_learning_rate, network.layer_norm=true, td3.{network}_clip_norm; '
            'look at the frames (dark, frozen, constant?); a dead CNN does not recover: begin '
            'anew or from an earlier checkpoint')


def _share_of_transitions(figures: Figures, what: str, cause: str, remedy: str
                          ) -> Grade | None:
    count, transitions = (_known(figures, key) for key in (f'transitions_{what}', 'transitions'))
    if count is None or transitions is None or not count + transitions:
        return None
    return _judged(
        count / (count + transitions), 0.0, 0.01,
        f'{count:.0f} transitions {what} beside {transitions:.0f} taken', cause, remedy)


def _known(figures: Figures, name: str) -> float | None:
    value = figures.get(name)
    return None if value is None or math.isnan(value) else float(value)


def _before(figures: Figures, updates: int) -> bool:
    return figures.get('updates', math.inf) < updates


def _has_learned(figures: Figures) -> bool:
    return not _before(figures, LEARNED)


def _has_camera(figures: Figures) -> bool:
    return figures.get('frames', 1) > 0


def _judged(figure: float, watch: float, sick: float, text: str, cause: str,
            remedy: str, above: bool = False) -> Grade:
    """Grade a figure that is well up to `watch`, or from there on where `above`."""
    sign = -1.0 if above else 1.0
    side: Literal['below', 'above'] = 'above' if above else 'below'
    if sign * figure > sign * sick:
        return Grade('sick', figure, sick, f'{text}: {cause}', remedy, side)
    if sign * figure > sign * watch:
        return Grade('watch', figure, watch, f'{text}: {cause}', remedy, side)
    return Grade('well', figure, watch, text, '', side)


CHECKS: dict[str, Check] = {
    'finite weights': unbroken_weights,
    'Q within reach of rewards': reachable_q,
    'Q under the policy': policy_q,
    'Q against observed returns': overestimated_q,
    'TD error': td_error,
    'saturated actions': saturated_actions,
    'actor gradient': actor_gradient,
    'varied actions': varied_actions,
    'looks at the camera': sees_frames,
    'looks at the state': sees_state,
    **{f'{network} CNN: {what}': functools.partial(check, network)
       for network in ('actor', 'critic')
       for what, check in (('dead units', dead_units), ('features differ', feature_spread),
                           ('gradient', cnn_gradient), ('moves', weight_change))},
    **{f'{network}: clipped gradient': functools.partial(clipped_gradient, network)
       for network in ('actor', 'critic')},
    'age of the data': policy_age,
    'age of the newest data': newest_data,
    'draws: not too many': many_draws,
    'draws: enough': few_draws,
    'skipped updates': skipped_updates,
    'lost transitions': lost_transitions,
    'refused transitions': refused_transitions,
    'learner keeps up': keeps_up,
}
