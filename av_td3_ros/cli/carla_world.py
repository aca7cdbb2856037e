"""`av-td3 carla`: load a CARLA server's map, set its weather, add traffic to it."""
from __future__ import annotations

import argparse
import signal
import sys
import threading

from av_td3_ros.ros.runtime import die_with_parent
from av_td3_ros.settings import check
from av_td3_ros.simulator.carla.maps import opendrive_file, server_map
from av_td3_ros.simulator.carla.server import (
    MeshSettings,
    Place,
    Traffic,
    connect,
    load,
)
from av_td3_ros.simulator.carla.weather import weather_presets

MANAGER_PORT = 8000
PLACE, MESH = Place(), MeshSettings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--host', default=PLACE.host,
                        help='host of the CARLA server (default %(default)s)')
    parser.add_argument('--port', type=int, default=PLACE.port, metavar='N',
                        help='its TCP port (default %(default)s)')
    parser.add_argument('--timeout', type=float, default=PLACE.timeout, metavar='S',
                        help='s that one answer may take: a server that starts, a map that loads '
                             '(default %(default)s)')
    parser.add_argument('--map', metavar='MAP',
                        help='a town of the server such as Town03, a name of config/maps such as '
                             'train/roads, or an .xodr file; without it the world stays')
    parser.add_argument('--wall-height', type=float, default=MESH.wall_height, metavar='M',
                        help="m of wall along an OpenDRIVE road's edges (default %(default)s)")
    parser.add_argument('--vertex-distance', type=float, default=MESH.vertex_distance,
                        metavar='M', help="m between the points of an OpenDRIVE road's surface "
                                          '(default %(default)s)')
    parser.add_argument('--weather', metavar='PRESET', choices=sorted(weather_presets()),
                        help=f'one of {", ".join(sorted(weather_presets()))}')
    parser.add_argument('--traffic', type=int, default=0, metavar='N',
                        help='vehicles that the traffic manager drives until this command is '
                             'ended (default: none, and the command ends at once)')
    parser.add_argument('--seed', type=int, default=0, metavar='N',
                        help='which vehicles start where (default %(default)s)')
    parser.add_argument('--traffic-port', type=int, default=MANAGER_PORT, metavar='N',
                        help='TCP port of the traffic manager (default %(default)s)')


def run(options: argparse.Namespace) -> int:
    """Do what is asked, print the name of the world's map; return 0."""
    place = Place(options.host, options.port, options.timeout)
    mesh = MeshSettings(options.vertex_distance, options.wall_height)
    for one in (place, mesh):
        check(one, 'carla')
    if options.traffic < 0 or options.seed < 0:
        raise ValueError(f'--traffic {options.traffic}, --seed {options.seed}: 0 or more')
    file = opendrive_file(options.map) if options.map else None
    if file is not None:
        server_map(file)  # said before a server is waited for
    die_with_parent()
    stop = threading.Event()
    client = connect(place)
    world = load(client, options.map, mesh) if options.map else client.get_world()
    if options.weather:
        world.set_weather(weather_presets()[options.weather])
    print(world.get_map().name, flush=True)
    if options.traffic:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        with Traffic(client, options.traffic, options.seed, options.traffic_port, _say) as traffic:
            traffic.watch(stop)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
