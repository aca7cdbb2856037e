"""What the control node is told."""
from __future__ import annotations

import dataclasses

from av_td3_ros.driving.command.ackermann import AckermannSettings
from av_td3_ros.driving.command.control import CommandSettings, Pedals
from av_td3_ros.driving.perception.odometry_monitor import OdometrySettings
from av_td3_ros.settings import group, setting

OUTPUTS = ('carla', 'ackermann')


@dataclasses.dataclass(frozen=True)
class ControlSettings:
    """What the control node is told."""

    output: str = setting('carla', "what the vehicle takes: CARLA's own command, or an Ackermann "
                          'drive command', choices=OUTPUTS)
    autostart: bool = setting(True, 'configure and activate at the start; false: wait for '
                              '`ros2 lifecycle set`')
    engaged_at_start: bool = setting(True, 'let the policy drive as soon as the node is active; '
                                     'false on a real vehicle: wait for the service ~/engage')
    heartbeat: float = setting(0.0, 'commands a second that are sent whatever comes, so that the '
                               'vehicle stops by itself when this node is gone; 0: one for each '
                               'observation only, as a lockstep world wants it', minimum=0.0,
                               maximum=200.0)
    action_timeout: float = setting(
        0.5, 'wall time in s after an observation at which the brake takes over from an action '
        'that has not come', minimum=0.01, maximum=60.0, live=True)
    sensor_timeout: float = setting(
        0.5, 'wall time in s without an observation after which the vehicle is stopped; 0: never, '
        'for a lockstep world, which may stand still', minimum=0.0, maximum=60.0, live=True)
    sensor_max_age: float = setting(
        0.0, "difference in s between an observation's stamp and now, by this node's clock, "
        'beyond which the vehicle is stopped; 0: any, for a world with a time of its own',
        minimum=0.0, maximum=60.0, live=True)
    clock_tolerance: float = setting(
        0.0, "s by which this node's clock may leap against the time that really passes; beyond "
        'it the vehicle is stopped until somebody engages again; 0: any, for simulated time',
        minimum=0.0, maximum=60.0, live=True)
    idle_timeout: float = setting(
        0.0, 'wall time in s without an episode to drive, for want of a route or at its end, '
        'that the vehicle may stay engaged; 0: for ever, for a simulator, which sets it down '
        'anew', minimum=0.0, maximum=600.0, live=True)
    disengage_after: float = setting(
        0.0, 'wall time in s of braking for what the policy lacks after which somebody has to '
        'engage again; 0: it drives on when that comes back', minimum=0.0, maximum=600.0,
        live=True)
    human_timeout: float = setting(
        0.5, "wall time in s without a human driver's command after which an override brakes",
        minimum=0.05, maximum=60.0, live=True)
    odometry: OdometrySettings = group(OdometrySettings, 'odometry that is not to be driven on')
    command: CommandSettings = group(CommandSettings, 'limits on what reaches the vehicle')
    ackermann: AckermannSettings = group(AckermannSettings, 'the vehicle behind output ackermann')
    trace: str = setting('', 'CSV file to write at the end: when each frame reached each stage; '
                         'empty: none')

    @property
    def pedals(self) -> Pedals:
        """Return what an acceleration of -1 to 1 stands for; shares, where nobody knows more."""
        return self.ackermann.pedals if self.output == 'ackermann' else Pedals()
