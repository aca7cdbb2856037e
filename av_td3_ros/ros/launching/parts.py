"""What the launch files share; only a ROS installation has `launch` and `launch_ros`."""
from __future__ import annotations

import difflib
import importlib.metadata
import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import launch.logging
from av_td3_msgs.msg import LearnerStatus
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.events import Shutdown as ShutdownEvent
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node
from launch_ros.ros_adapters import get_ros_node

from av_td3_ros.paths import share_directory
from av_td3_ros.ros import qos
from av_td3_ros.ros.graph import (
    COMPOSED,
    VEHICLE_SIDE,
    ComposedSpec,
    NodeSpec,
    composed,
    profiles,
    sensor_topics,
)
from av_td3_ros.ros.runtime import (
    LINK_PROFILE,
    PARENT,
    allocator_environment,
    profile_environment,
)
from av_td3_ros.ros.security import enclave_environment
from av_td3_ros.trust.session_key import SessionKey

LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
NO_OR_YES = ('false', 'true')
RESPAWN_DELAY = 1.0  # s of wall time; a control node that ends leaves the vehicle braking


def described(file: str, actions: Sequence[Action], others: Sequence[str] = ()
              ) -> LaunchDescription:
    """
    Return the launch description of `file`, which refuses arguments that nobody declares.

    `ros2 launch` itself passes over a misspelt one without a word. `others` are launch files of
    this package whose arguments may be given too.
    """
    description = LaunchDescription(actions)

    def check(context: LaunchContext) -> None:
        if Path(file).name not in {Path(word).name for word in sys.argv}:
            return  # another launch file includes this one: the words are for that
        _take_signals_in_turn()
        known = {one.name for one in description.get_launch_arguments()}
        for other in others:
            source = include(other).launch_description_source
            known |= {one.name for one in source.get_launch_description(context)
                      .get_launch_arguments()}
        given = [word.split(':=')[0] for word in sys.argv[1:] if ':=' in word]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ValueError(f'{name}: {Path(file).name} has no such argument'
                                 + (f'; {near[0]}?' if near else '; --show-args lists them'))

    description.entities.insert(0, OpaqueFunction(function=check))
    return description


def _take_signals_in_turn() -> None:
    """
    Let launch see to Ctrl-C between two events only, as it does with each signal by itself.

    Python's own KeyboardInterrupt comes beside that, anywhere: in the middle of what ends the
    thread of the launch's ROS node, and then the process aborts, or goes on for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: None)


def common_arguments() -> list[DeclareLaunchArgument]:
    """Return the arguments of every launch file that starts nodes."""
    return [
        DeclareLaunchArgument(
            'params_file', default_value='',
            description='parameter file with sections such as /**/simulator_node, for example the '
                        'config.yaml of a run; what it leaves out is as shipped, what the profile '
                        'sets counts more'),
        DeclareLaunchArgument(
            'config', default_value='',
            description="settings that count more than all others, as 'KEY=VALUE ...', for "
                        "example 'command.speed_limit=3.0 learner_node.threads=2'; `av-td3 "
                        'config` lists them with their meaning'),
        DeclareLaunchArgument(
            'log_level', default_value='info', choices=LOG_LEVELS,
            description='the least severe log messages that the nodes show'),
        DeclareLaunchArgument(
            'seed', default_value='',
            description='seed of everything drawn at random; empty: as params_file says'),
    ]


def world_arguments(default_map: str) -> list[DeclareLaunchArgument]:
    """Return the arguments that say which vehicle drives where."""
    return [
        DeclareLaunchArgument(
            'vehicle', default_value='ego_vehicle',
            description='role name of the vehicle: its namespace and part of its topics'),
        DeclareLaunchArgument(
            'map', default_value='',
            description='map of the embedded simulator: a name of config/maps, such as '
                        'train/streets, or an .xodr file; empty: as params_file says, or '
                        f'{default_map}'),
    ]


def session_arguments(profile: str = 'embedded', respawn: str = 'false'
                      ) -> list[DeclareLaunchArgument]:
    """Return the arguments of launch files that start the vehicle side."""
    return [
        DeclareLaunchArgument(
            'profile', default_value=profile, choices=profiles(),
            description='what the nodes are bound to: a file of config/profiles'),
        DeclareLaunchArgument(
            'odometry', default_value='',
            description='topic of the odometry (nav_msgs/Odometry, in the frame of the route); '
                        '{vehicle} in it stands for the name; empty: as the profile says'),
        DeclareLaunchArgument(
            'use_sim_time', default_value='false', choices=NO_OR_YES,
            description='let the nodes stamp what they record by the clock of the world (/clock) '
                        'instead of that of this host; no watchdog ever goes by it'),
        DeclareLaunchArgument(
            'respawn', default_value=respawn, choices=NO_OR_YES,
            description=f'start {", ".join(VEHICLE_SIDE)} again when one of them ends, instead of '
                        'ending the session'),
        DeclareLaunchArgument(
            'composed', default_value='false', choices=NO_OR_YES,
            description=f'run {", ".join(VEHICLE_SIDE)} in one process, {COMPOSED}, which takes '
                        'less of the processor: then none of them outlives another'),
        DeclareLaunchArgument(
            'record', default_value='false', choices=NO_OR_YES,
            description="also record the vehicle's own topics (camera, odometry, commands) as a "
                        'rosbag, RUN/sensors, by `ros2 bag record`'),
        run_argument(),
    ]


def run_argument() -> DeclareLaunchArgument:
    """Return the argument that names the run folder."""
    return DeclareLaunchArgument(
        'run', default_value='',
        description='run folder to create for configuration, bags and checkpoints; empty: one '
                    'named by date and time in runs/ below the working directory')


def learner_argument() -> DeclareLaunchArgument:
    """Return the argument that says where the learner of a training session runs."""
    return DeclareLaunchArgument(
        'learner', default_value='true', choices=('true', 'elsewhere'),
        description='true: start it here; elsewhere: another host runs learner.launch.py, takes '
                    'the transitions and sends the weights')


def learning_arguments() -> list[DeclareLaunchArgument]:
    """Return the arguments of launch files that start the learner."""
    return [
        DeclareLaunchArgument(
            'steps', default_value='',
            description='transitions after which training ends, 0: never; empty: as params_file '
                        'says'),
        DeclareLaunchArgument(
            'resume', default_value='',
            description='run or checkpoint to go on from with all that it learned, and with the '
                        'settings it was trained with; empty: start anew'),
        DeclareLaunchArgument(
            'ranks', default_value='',
            description='processes that learn together on this host, each with a batch and a part '
                        'of the replay of its own, on GPUs one each; empty: as params_file says'),
    ]


def include(file: str, condition: IfCondition | None = None, **arguments: str
            ) -> IncludeLaunchDescription:
    """Return another launch file of this package as an action; it sees all arguments given."""
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / 'launch' / f'{file}.launch.py')),
        launch_arguments=list(arguments.items()), condition=condition)


def reach_other_hosts() -> list[Action]:
    """Let the nodes be found from other hosts, as ROS does where nobody says anything else."""
    if os.environ.get('ROS_DISTRO') == 'humble':
        name, value = 'ROS_LOCALHOST_ONLY', '0'
    else:
        name, value = 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET'
    return [] if name in os.environ else [SetEnvironmentVariable(name, value)]


def node_actions(context: LaunchContext, nodes: Sequence[NodeSpec], parameters: Path,
                 key: SessionKey | None = None, far: Collection[str] = ()) -> list[Node]:
    """
    Return the actions that start `nodes`; when one of them ends, all of them are ended.

    With the argument respawn:=true a node of the vehicle side is started again instead. `key` is
    that of a session which has its learner here. `far` names the nodes that send much to other
    hosts.
    """
    chosen = context.launch_configurations
    # Dies with the launch process, however that ends; a prefix would stand between the two.
    parent = {} if 'launch-prefix' in chosen else {PARENT: str(os.getpid())}
    clock = [{'use_sim_time': True}] if chosen.get('use_sim_time') == 'true' else []
    actions = []
    side = {one.name for one in nodes} >= set(VEHICLE_SIDE)
    for spec in composed(nodes) if chosen.get('composed') == 'true' and side else nodes:
        again = chosen.get('respawn') == 'true' and spec.name in (*VEHICLE_SIDE, COMPOSED)
        log = spec.log_arguments(chosen['log_level'])
        if isinstance(spec, ComposedSpec):  # launch would give all of them one name
            its_own = key.parameters(spec.name) if key else None
            bound = {'arguments': [*spec.arguments(parameters, its_own), *log],
                     'parameters': clock}
        else:
            bound = {'name': spec.name, 'namespace': spec.namespace,
                     'remappings': list(spec.remaps.items()), 'arguments': ['--ros-args', *log],
                     'parameters': [str(parameters), *clock,
                                    *([key.parameters(spec.name)] if key else ())]}
        actions.append(Node(
            package='av_td3_ros', executable=spec.name, **bound,
            additional_env={**parent, **enclave_environment(spec, os.environ),
                            **(allocator_environment(os.environ)
                               if spec.name == 'learner_node' else {}),
                            **(profile_environment(os.environ, LINK_PROFILE)
                               if spec.name in far else {})},
            output='screen', respawn=again, respawn_delay=RESPAWN_DELAY,
            on_exit=None if again else end_of_a_process))
    return actions


def recording(context: LaunchContext, vehicles: Sequence[str], own_worlds: bool = False
              ) -> Callable[[Path], list[Action]]:
    """
    Return what starts a rosbag of the sensor topics in a run folder, where record:=true asks.

    Raises RuntimeError where `ros2 bag` is not installed.
    """
    chosen = context.launch_configurations
    if chosen['record'] != 'true':
        return lambda folder: []
    if 'bag' not in {one.name for one in
                     importlib.metadata.entry_points(group='ros2cli.command')}:
        distribution = os.environ.get('ROS_DISTRO', 'jazzy')
        raise RuntimeError(
            'record:=true needs `ros2 bag`, which is not installed: sudo apt install '
            f'ros-{distribution}-ros2bag ros-{distribution}-rosbag2-storage-mcap, or leave record '
            'out (transitions are recorded without it)')
    topics = {topic for vehicle in vehicles for topic in sensor_topics(
        chosen['profile'], vehicle, f'/{vehicle}' if own_worlds else '')}
    return lambda folder: [ExecuteProcess(
        # A pattern: the one way to name topics that ros2 bag has had in every distribution.
        cmd=['ros2', 'bag', 'record', '--storage', 'mcap', '--output', str(folder / 'sensors'),
             '--regex', f'^({"|".join(sorted(topics))})$'],
        name='rosbag', output='screen', on_exit=end_of_a_process)]


def command_line() -> str:
    """Return what was typed, as a heading of what comes of it."""
    return shlex.join(['ros2', *sys.argv[1:]])


def shut_down_when_finished(context: LaunchContext, topic: str) -> None:
    """End the launch once the learner says on `topic` that it has what it wanted."""
    def on_status(message: LearnerStatus) -> None:
        if message.finished:
            context.asyncio_loop.call_soon_threadsafe(finish, message)

    def finish(message: LearnerStatus) -> None:
        if not context.is_shutdown:
            reason = f'finished: {message.transitions} transitions, {message.updates} updates'
            launch.logging.get_logger('launch.user').info(reason)
            context.emit_event_sync(ShutdownEvent(reason=reason))

    get_ros_node(context).create_subscription(LearnerStatus, topic, on_status, qos.STATUS)


def end_of_a_process(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """End the session with the first of its processes that ends."""
    if context.is_shutdown:
        return None
    if event.returncode:  # an exception is what makes `ros2 launch` itself exit with 1
        raise RuntimeError(f'{event.process_name} ended with status {event.returncode}')
    return Shutdown(reason=f'{event.process_name} ended')


def when(argument: str, *values: str) -> IfCondition:
    """Return the condition that an argument has one of these values."""
    return IfCondition(PythonExpression(
        ["'", LaunchConfiguration(argument), "' in ", repr(values)]))
