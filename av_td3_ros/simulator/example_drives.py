"""Drives that show what a reward is worth: well driven, standing still, off the road."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from av_td3_ros.driving.camera.frame_stack import FrameSettings
from av_td3_ros.driving.command.pursuit import PursuitDriver, PursuitSettings
from av_td3_ros.driving.episode.episode import DrivingSettings, Step
from av_td3_ros.driving.episode.planner import EpisodePlanSettings
from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.view.appearance import AppearanceSettings
from av_td3_ros.simulator.view.camera import CameraSettings
from av_td3_ros.simulator.world import WorldSettings

TERMS = ('progress', 'efficiency', 'lane', 'comfort', 'safety')
LAP = (850.0, 900.0)  # m, once round the map 'loop'
LAP_STEPS = 4000  # a lap at any speed; an episode of a training ends sooner
PERFECT, STANDING, OFF_AT_ONCE, OFF_LATER, SLOW, FAST = (
    'a lap, well driven', 'standing still', 'full steer and throttle at once',
    'well driven for 10 s, then full steer', 'creeping at 0.7 m/s', 'the lap at up to 15 m/s')
STEPS_BEFORE_LEAVING = 200

Policy = Callable[[Step, int], npt.ArrayLike]


@dataclasses.dataclass(frozen=True)
class ExampleDrive:
    """
    Hold what one drive was worth.

    sums: {term: its sum}; return_ and discounted: sums of the rewards, the latter from the start
    on with the discount of the caller.
    """

    name: str
    reason: str
    steps: int
    completion: float
    sums: dict[str, float]
    return_: float
    discounted: float


def example_drives(driving: DrivingSettings, gamma: float) -> dict[str, ExampleDrive]:
    """Drive each example from standstill and return them by name."""
    termination = dataclasses.replace(driving.termination, max_steps=LAP_STEPS)
    drive = Drive(DriveSettings(
        world=WorldSettings(map='loop', roadside_distance=0.0,
                            camera=CameraSettings(width=48, height=36),
                            appearance=AppearanceSettings(world='clean')),
        episodes=EpisodePlanSettings(min_length=LAP[0], max_length=LAP[1], max_offset=0.0,
                                     max_yaw_offset=0.0),
        frame=FrameSettings(size=36),
        driving=dataclasses.replace(driving, termination=termination)))
    policies = {
        PERFECT: _pursuit(driving.target_speed),
        FAST: _pursuit(15.0),
        SLOW: _pursuit(0.7),
        STANDING: lambda step, number: (0.0, -1.0),
        OFF_AT_ONCE: lambda step, number: (1.0, 1.0),
        OFF_LATER: _leaving(_pursuit(driving.target_speed))}
    return {name: _drive(drive, name, policy, gamma) for name, policy in policies.items()}


def _pursuit(speed: float) -> Policy:
    driver = PursuitDriver(PursuitSettings(target_speed=speed))
    return lambda step, number: driver.act(step.state)


def _leaving(before: Policy) -> Policy:
    return lambda step, number: (before(step, number) if number < STEPS_BEFORE_LEAVING
                                 else (1.0, 0.0))


def _drive(drive: Drive, name: str, policy: Policy, gamma: float) -> ExampleDrive:
    step = drive.begin(0)
    sums = dict.fromkeys(TERMS, 0.0)
    rewards: list[float] = []
    while not step.is_last:
        step = drive.act(policy(step, len(rewards)))
        rewards.append(step.reward)
        for term in TERMS:
            sums[term] += getattr(step.terms, term)
    discounted = float(np.asarray(rewards) @ gamma ** np.arange(len(rewards)))
    return ExampleDrive(name, step.reason, len(rewards), drive.summary().route_completion, sums,
                        sum(rewards), discounted)
