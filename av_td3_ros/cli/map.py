"""`av-td3 map`: make an OpenDRIVE map of random roads, or write one for a CARLA server."""
from __future__ import annotations

import argparse
import re
from pathlib import Path

from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.simulator.carla.maps import server_map
from av_td3_ros.simulator.roads.drawing import opendrive_text
from av_td3_ros.simulator.roads.generator import RoadSettings, generate

DEFAULTS = RoadSettings()
OPTIONS = {'min_length': '--length LOW', 'max_length': '--length HIGH',
           'min_lane_width': '--lane-width LOW', 'max_lane_width': '--lane-width HIGH',
           'min_radius': '--min-radius', 'max_radius': '--max-radius', 'roads': '--roads',
           'junctions': '--junctions', 'seed': '--seed'}
"""What the settings are called on the command line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    _add_export(actions.add_parser(
        'export', help='check a map and write it as a CARLA server wants it'))
    make = actions.add_parser(
        'make', help='draw roads from a seed and write them as an .xodr file')
    make.add_argument('--out', type=Path, required=True, metavar='FILE',
                      help='the map, such as roads.xodr; `av-td3 train --map FILE` drives on it')
    make.add_argument('--seed', type=int, default=0, metavar='N',
                      help='what is drawn; the same seed and options give the same map (default '
                           '%(default)s)')
    make.add_argument('--roads', type=int, default=DEFAULTS.roads, metavar='N',
                      help='roads that meet no other (default %(default)s)')
    make.add_argument('--junctions', type=int, default=DEFAULTS.junctions, metavar='N',
                      help='junctions of three and four streets, each apart from all others '
                           '(default %(default)s)')
    make.add_argument('--length', type=float, nargs=2, metavar=('LOW', 'HIGH'),
                      default=(DEFAULTS.min_length, DEFAULTS.max_length),
                      help='length of the roads in m '
                           f'(default {DEFAULTS.min_length:g} {DEFAULTS.max_length:g})')
    make.add_argument('--min-radius', type=float, default=DEFAULTS.min_radius, metavar='M',
                      help='radius of the tightest curves, of the innermost lane, in m (default '
                           '%(default)s)')
    make.add_argument('--max-radius', type=float, default=DEFAULTS.max_radius, metavar='M',
                      help='radius of the widest curves in m (default %(default)s)')
    make.add_argument('--lane-width', type=float, nargs=2, metavar=('LOW', 'HIGH'),
                      default=(DEFAULTS.min_lane_width, DEFAULTS.max_lane_width),
                      help='width of the lanes in m '
                           f'(default {DEFAULTS.min_lane_width:g} {DEFAULTS.max_lane_width:g})')


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument('map', metavar='MAP',
                        help='a name of config/maps, such as train/roads, or an .xodr file')
    export.add_argument('--out', type=Path, required=True, metavar='FILE',
                        help='the map for the server, such as roads.xodr; `av-td3 carla '
                             '--map FILE` loads it')


def run(options: argparse.Namespace) -> int:
    """Make or export a map; return 0."""
    out: Path = options.out
    if out.suffix != '.xodr':
        raise ValueError(f'--out {out}: name an OpenDRIVE file, such as roads.xodr')
    if out.exists():
        raise ValueError(f'--out {out} exists already: remove it or choose another name')
    return _export(options.map, out) if options.action == 'export' else _make(options, out)


def _export(name: str, out: Path) -> int:
    """Check, write, and say what there is."""
    exported = server_map(map_file(name))
    _write(out, exported.opendrive)
    kilometres, places = _measured(exported.road_map)
    print(f'{out}: {kilometres:.1f} km of lanes, {places} places to start from')
    for note in exported.notes:
        print(note)
    return 0


def _write(out: Path, text: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding='utf-8', newline='\n')


def _measured(road_map: RoadMap) -> tuple[float, int]:
    """Return the km of lanes and the number of places to start from."""
    return (sum(lane.length for lane in road_map.lanes) / 1000.0, len(road_map.spawn_points()))


def _make(options: argparse.Namespace, out: Path) -> int:
    """Draw, write, read back, and say what there is."""
    try:
        settings, text = _drawn(options, out.stem)
    except ValueError as error:
        raise ValueError(re.sub(
            r'\b(\w+)(?= = )', lambda match: OPTIONS.get(match[1], match[1]),
            str(error).removeprefix('roads: '))) from None
    road_map = RoadMap.from_text(text, out.stem)
    _write(out, text)
    kilometres, places = _measured(road_map)
    print(f'{out}: {settings.roads} roads, {settings.junctions} junctions, {kilometres:.1f} km of '
          f'lanes, {places} places to start from')
    return 0


def _drawn(options: argparse.Namespace, name: str) -> tuple[RoadSettings, str]:
    settings = RoadSettings(
        roads=options.roads, junctions=options.junctions,
        min_length=options.length[0], max_length=options.length[1],
        min_radius=options.min_radius, max_radius=options.max_radius,
        min_lane_width=options.lane_width[0], max_lane_width=options.lane_width[1])
    return settings, opendrive_text(generate(name, settings, options.seed))
