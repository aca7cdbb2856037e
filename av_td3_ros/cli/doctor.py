"""`av-td3 doctor`: the checklist before a drive, of the ROS graph and of this computer."""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from av_td3_ros.cli.config import Config
from av_td3_ros.cli.launched import Told
from av_td3_ros.cli.policies import BASELINES, PRETRAINED, find_policy, trained_with
from av_td3_ros.cli.session import VEHICLE, take_domain
from av_td3_ros.driving.camera.check import recorded_camera
from av_td3_ros.driving.camera.view import MountingSettings
from av_td3_ros.driving.checkup import LEVELS, Finding, worst
from av_td3_ros.ros.checks.doctor import Expectation, examine
from av_td3_ros.ros.checks.keys import check_keys
from av_td3_ros.ros.checks.listening import Heard, Listener, needs
from av_td3_ros.ros.checks.machine import check_machine
from av_td3_ros.ros.graph import has_simulator, profiles, session_nodes
from av_td3_ros.td3 import Policy

MARKS = {'ok': 'green', 'skipped': 'dim', 'warning': 'yellow', 'error': 'bold red'}
STEP = 'world.fixed_delta_seconds'
STEERING = 'command.steering_range'
INFERENCES = 20
SLOW = 0.02  # s for one action; half of what is left between two images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--profile', choices=profiles(), required=True, metavar='PROFILE',
                        help=f'what a session is to be bound to: {", ".join(profiles())}')
    parser.add_argument('--vehicle', default=VEHICLE, metavar='NAME',
                        help='role name of the vehicle (default %(default)s)')
    parser.add_argument('--policy', metavar='POLICY',
                        help=f'what is to drive: a run, a checkpoint, an exported policy or '
                        f'{PRETRAINED} (default: no policy is checked)')
    parser.add_argument('--seconds', type=float, default=5.0, metavar='S',
                        help='how long to listen (default %(default)g)')
    parser.add_argument('--params-file', type=Path, metavar='FILE',
                        help='parameter file of the session, such as the config.yaml of a run '
                        '(default: the shipped configuration)')
    parser.add_argument('--config', action='append', default=[], metavar='KEY=VALUE',
                        help='change a setting, as in --config pairing.tolerance=0.02')
    parser.add_argument('--hours', type=float, default=1.0, metavar='H',
                        help='driving that the disk must have room for (default %(default)g)')
    parser.add_argument('--folder', type=Path, default=Path('runs'), metavar='DIR',
                        help='where recordings will go (default %(default)s)')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the findings here as well')


def run(options: argparse.Namespace) -> int:
    """Look, print one line a check; return 1 when there is an error, else 0."""
    if not 0.1 <= options.seconds <= 3600.0:
        raise ValueError(f'--seconds {options.seconds:g}: give 0.1 to 3600')
    if not 0.0 <= options.hours <= 1e9:
        raise ValueError(f'--hours {options.hours:g}: give 0 or more')
    nodes = session_nodes(options.profile, options.vehicle, learning=False)
    domain, _ = take_domain(simulated=False)
    print(f'Listening for {options.seconds:g} s in ROS domain {domain}, profile '
          f'{options.profile}, vehicle {options.vehicle} ...', file=sys.stderr)
    config, policy, findings = _configuration(options)
    expected = _expectation(config, policy, options.profile)
    with Listener(needs(nodes, config.settings), nodes, domain) as listener:
        heard = listener.listen(options.seconds)
    findings += examine(heard, expected, nodes)
    findings += check_machine(options.folder, options.hours, expected.camera_rate,
                              _bytes_per_second(heard), os.environ)
    findings += check_keys(config.settings['policy_node'].trust,
                           config.settings['learner_node'].signing, os.environ)
    _print(findings)
    if options.json:
        _write(options, findings)
    return int(worst(findings) == 'error')


def _configuration(options: argparse.Namespace
                   ) -> tuple[Config, Policy | None, list[Finding]]:
    """Return what a session would be configured with, its policy, and what is wrong with that."""
    told = Told(options.profile, options.vehicle, config=shlex.join(options.config),
                params_file=str(options.params_file) if options.params_file else '')
    without = told.driving(BASELINES[0], recording=True)
    if options.policy in (None, *BASELINES):
        return without, None, []
    try:
        config, policy = told.driving(options.policy, recording=True), find_policy(options.policy)
    except (ValueError, OSError) as error:
        return without, None, [Finding(
            'policy', 'error', str(error), 'give another --policy, or other settings')]
    return config, policy, [_weights(policy, config), _command(policy, config)]


def _weights(policy: Policy, config: Config) -> Finding:
    """Let the policy answer observations of nothing: are its actions finite, and how fast?"""
    import torch

    torch.set_num_threads(config.settings['policy_node'].threads)
    network = policy.network
    frames = np.zeros((network.frames, network.frame_size, network.frame_size), np.uint8)
    state, times = np.zeros(network.state_size, np.float32), []
    for _ in range(INFERENCES):
        begun = time.perf_counter()
        action = policy.actor.act(frames, state)
        times.append(time.perf_counter() - begun)
    median = float(np.median(times))
    found = (f'{policy.path}, version {policy.version}, verified; an action takes '
             f'{median * 1e3:.1f} ms')
    if not np.isfinite(action).all():
        return Finding('policy', 'error', f'{found}; it is not finite', 'train again')
    if median > SLOW:
        return Finding('policy', 'warning', found, 'end other programs, or take a smaller network')
    return Finding('policy', 'ok', found)


def _command(policy: Policy, config: Config) -> Finding:
    """Judge whether steering means the same as in the training."""
    trained = trained_with(policy).get('control_node', {}).get(STEERING)
    now = config.settings['control_node'].command.steering_range
    if trained is None or trained == now:
        return Finding('policy steering', 'ok', f'{STEERING} = {now:g}' + (
            ', as it was trained with' if trained is not None else ''))
    return Finding('policy steering', 'warning', f'{STEERING} = {now:g}, trained with {trained:g}',
                   f'give control_node {STEERING} = {trained:g}: steer means another angle')


def _expectation(config: Config, policy: Policy | None, profile: str) -> Expectation:
    """Return what the sensors are measured against: the settings, and the policy's training."""
    environment, control = config.settings['environment_node'], config.settings['control_node']
    # Where no policy says what it was trained with, it is the simulator's camera.
    world = config.values()['simulator_node']
    recorded = recorded_camera(trained_with(policy)) if policy else None
    picture = recorded or recorded_camera({'simulator_node': world})
    trained = trained_with(policy).get('simulator_node', {}) if policy else {}
    camera = environment.camera
    simulated = recorded_camera({'simulator_node': world}) if has_simulator(profile) else None
    if simulated is not None:  # the camera is mounted where the simulator puts it
        camera = dataclasses.replace(camera, mounting=MountingSettings(**{
            one.name: getattr(simulated, one.name)
            for one in dataclasses.fields(MountingSettings)}))
    return Expectation(
        camera_rate=1.0 / trained.get(STEP, world[STEP]), max_gap=environment.frame.max_gap,
        max_lateral=environment.driving.termination.max_lateral, resets=environment.resets,
        engaged_at_start=control.engaged_at_start,
        pairing=environment.pairing, camera=camera, frame_size=environment.frame.size,
        picture=(picture.width, picture.height) if picture else None, recorded=recorded)


def _bytes_per_second(heard: Heard) -> float:
    return sum(one.size for one in heard.ears.values()) / heard.seconds


def _print(findings: Sequence[Finding]) -> None:
    console = Console(soft_wrap=True)
    width = max(len(one.check) for one in findings)
    for one in findings:
        line = Text.assemble((f'{one.level:<8}', MARKS[one.level]), f'{one.check:<{width}}  ',
                             one.found, f' -> {one.remedy}' if one.remedy else '')
        console.print(line)
    counts = {level: sum(one.level == level for one in findings) for level in LEVELS}
    console.print(Text(f'{counts["error"]} errors, {counts["warning"]} warnings, '
                       f'{counts["skipped"]} skipped, {counts["ok"]} ok', MARKS[worst(findings)]))


def _write(options: argparse.Namespace, findings: Sequence[Finding]) -> None:
    content = {'profile': options.profile, 'vehicle': options.vehicle,
               'seconds': options.seconds, 'verdict': worst(findings),
               'findings': [dataclasses.asdict(one) for one in findings]}
    options.json.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
