"""Let a driver drive the episodes that every other one gets too, and measure how well."""
import shlex

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from av_td3_ros.driving.perception.mask import MASKS, NO_MASK
from av_td3_ros.ros.graph import profiles
from av_td3_ros.ros.launching.parts import described
from av_td3_ros.simulator.view.appearance import WORLDS

OPTIONS = {  # argument: (default, choices, description); the options of `av-td3 evaluate`
    'policy': ('pretrained', None,
               'who drives: pretrained, a run folder (its best checkpoint), a checkpoint, an '
               'exported policy, pursuit or random'),
    'profile': ('embedded', profiles(), 'what the nodes are bound to: a file of config/profiles'),
    'map': ('', None, 'map of the embedded simulator, or several with blanks between them; empty: '
            'test/roads_a'),
    'episodes': ('10', None, 'episodes on each map'),
    'seed': ('10000', None, 'seed of routes, looks and traffic: episode i of a map and a seed is '
             'the same for every driver'),
    'vehicles': ('', None, 'other vehicles on the road; empty: as the configuration says'),
    'world': ('', ('', *WORLDS), 'how much the looks change; empty: as the '
              'configuration says'),
    'mask': ('', ('', *(one for one in MASKS if one != NO_MASK)),
             'hide the camera image, or the state vector but for the speed, from a learned '
             'policy'),
    'video': ('', None, 'file.mp4 to write the drives to; empty: none'),
    'json': ('', None, 'file to write the evaluation to as well; empty: none'),
    'out': ('', None, 'folder to create for evaluation.json, plots and logs; empty: '
            'runs/<date>-<time>-evaluation'),
    'config': ('', None, "settings that count more than all others, as 'KEY=VALUE ...'; `av-td3 "
               'config` lists them'),
}
SEVERAL = ('map', 'config')


def generate_launch_description() -> LaunchDescription:
    """Declare the options of `av-td3 evaluate`, which does the work."""
    return described(__file__, [
        *(DeclareLaunchArgument(name, default_value=default, choices=choices, description=about)
          for name, (default, choices, about) in OPTIONS.items()),
        OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Start the evaluation; the launch ends with it."""
    from av_td3_ros.ros.launching.sessions import (
        evaluate,  # imports every node: not for --show-args
    )

    chosen = {name: context.launch_configurations[name] for name in OPTIONS}
    return evaluate([
        word for name, value in chosen.items()
        for one in (shlex.split(value) if name in SEVERAL else filter(None, [value]))
        for word in (f'--{name}', one)])
