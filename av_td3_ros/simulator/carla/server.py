"""The world of a CARLA server: its map, its weather, its traffic. A client, beside the bridge."""
from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable
from types import TracebackType

import carla

from av_td3_ros.settings import setting
from av_td3_ros.simulator.carla.maps import opendrive_file, server_map

ALIVE_EVERY = 5.0  # s of wall time between two questions whether the server is still there


@dataclasses.dataclass(frozen=True)
class Place:
    """Hold where a server listens, and for how many s it is waited for."""

    host: str = setting('localhost', 'host of the CARLA server')
    port: int = setting(2000, 'TCP port of the CARLA server', minimum=1, maximum=65534)
    timeout: float = setting(60.0, 's that one answer may take; a big map takes long to load',
                             minimum=0.1, maximum=3600.0)


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Say how the server makes a road's surface from OpenDRIVE."""

    vertex_distance: float = setting(2.0, 'm between the points of the surface', minimum=0.1,
                                     maximum=20.0)
    wall_height: float = setting(0.0, "m of wall along the road's edges; CARLA's own 1 m hides "
                                 'what is beyond and is hit where the lane is left', minimum=0.0,
                                 maximum=10.0)
    additional_width: float = setting(0.6, 'm by which lanes in junctions are wider',
                                      minimum=0.0, maximum=5.0)


def connect(place: Place) -> carla.Client:
    """Return a client of the server; raise ConnectionError when none answers in time."""
    where = f'{place.host}:{place.port}'
    try:
        client = carla.Client(place.host, place.port)
        client.set_timeout(place.timeout)
        client.get_server_version()
    except RuntimeError as error:
        raise ConnectionError(
            f'no CARLA server answers at {where} within {place.timeout:g} s ({error}); start one '
            'there (./CarlaUE4.sh -RenderOffScreen), or say where it is with --host and --port'
        ) from error
    return client


def load(client: carla.Client, name: str, mesh: MeshSettings) -> carla.World:
    """
    Load a map of config/maps, an .xodr file or a town of the server; return the new world.

    Raises ValueError for a town that the server does not have, MapError for a map it cannot read.
    """
    file = opendrive_file(name)
    world = client.get_world()
    settings = world.get_settings()
    if settings.synchronous_mode:  # left by a bridge that is gone: nobody ticks, nothing loads
        settings.synchronous_mode, settings.fixed_delta_seconds = False, None
        world.apply_settings(settings)
    if file is not None:
        world = client.generate_opendrive_world(
            server_map(file).opendrive, carla.OpendriveGenerationParameters(
                vertex_distance=mesh.vertex_distance, wall_height=mesh.wall_height,
                additional_width=mesh.additional_width,
                # The mesh for walkers covers the whole ground: minutes for maps of kilometres.
                enable_pedestrian_navigation=False))
    else:
        towns = sorted(one.rpartition('/')[2] for one in client.get_available_maps())
        if name not in towns:
            raise ValueError(f'map {name!r} is neither one of config/maps nor of the server, '
                             f'which has {", ".join(towns)}')
        world = client.load_world(name)
    world.wait_for_tick()
    return world


class Traffic:
    """
    Vehicles that the traffic manager drives, gone when the context is left.

    The traffic manager runs on the world's frames as they come. In its synchronous mode it would
    stand still: it is then moved by world.tick() of its own process only, and here the bridge
    ticks. `say` takes one line about what there is.
    """

    def __init__(self, client: carla.Client, count: int, seed: int, manager_port: int,
                 say: Callable[[str], None]) -> None:
        self._client = client
        self._count = count
        self._seed = seed
        self._manager_port = manager_port
        self._say = say
        self._manager: carla.TrafficManager | None = None
        self._ids: list[int] = []

    def __enter__(self) -> Traffic:
        """Spawn the vehicles on the map's own places, which the ego vehicle's is not one of."""
        world = self._client.get_world()
        draw = random.Random(self._seed)
        places = world.get_map().get_spawn_points()
        draw.shuffle(places)
        kinds = sorted((one for one in world.get_blueprint_library().filter('vehicle.*')
                        if _is_car(one)), key=lambda one: one.id)
        self._manager = self._client.get_trafficmanager(self._manager_port)
        self._manager.set_random_device_seed(self._seed)
        self._manager.set_synchronous_mode(False)
        orders = [_order(draw.choice(kinds), place, self._manager.get_port())
                  for place in places[:self._count]]
        answers = self._client.apply_batch_sync(orders, False)  # the bridge ticks, not we
        self._ids = [one.actor_id for one in answers if not one.error]
        refused = next((one.error for one in answers if one.error), 'no more places on this map')
        self._say(f'{len(self._ids)} vehicles' if len(self._ids) == self._count else
                  f'{len(self._ids)} of {self._count} vehicles: {refused}')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Take the vehicles out of the world."""
        if self._ids:
            self._client.apply_batch_sync(
                [carla.command.DestroyActor(one) for one in self._ids], False)
        if self._manager is not None:
            self._manager.shut_down()

    def watch(self, stop: threading.Event) -> None:
        """Wait until `stop` is set; raise ConnectionError when the server goes away before."""
        while not stop.wait(ALIVE_EVERY):
            try:
                self._client.get_server_version()
            except RuntimeError as error:
                self._ids = []  # gone with the server
                self._manager = None
                raise ConnectionError(f'the CARLA server is gone: {error}') from error


def _order(kind: carla.ActorBlueprint, place: carla.Transform, manager_port: int) -> object:
    kind.set_attribute('role_name', 'autopilot')  # an empty one the bridge takes for the ego
    return carla.command.SpawnActor(kind, place).then(
        carla.command.SetAutopilot(carla.command.FutureActor, True, manager_port))


def _is_car(kind: carla.ActorBlueprint) -> bool:
    return not kind.has_attribute('base_type') or kind.get_attribute('base_type').as_str() == 'car'
