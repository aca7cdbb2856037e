"""OpenDRIVE as a CARLA server wants it: what it refuses or leaves out, and what is missing."""
from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from av_td3_ros.driving.route.road_map import MapError, RoadMap
from av_td3_ros.paths import map_file
from av_td3_ros.simulator.roads.drawing import GEO_REFERENCE

UNREAD_JUNCTIONS = ('virtual', 'direct')  # of OpenDRIVE 1.6 and 1.7; CARLA's reader is of 1.4


@dataclasses.dataclass(frozen=True)
class ServerMap:
    """Hold the text for a CARLA server, the map read from it, and what the server leaves out."""

    opendrive: str
    road_map: RoadMap
    notes: tuple[str, ...]


def opendrive_file(name: str) -> Path | None:
    """
    Return the OpenDRIVE file that a map's name stands for, None for a town of the server.

    Raises FileNotFoundError for a missing .xodr file.
    """
    try:
        return map_file(name)
    except FileNotFoundError:
        if name.endswith('.xodr') or '/' in name:
            raise
        return None


def server_map(file: Path) -> ServerMap:
    """
    Check a map as CARLA's OpenDRIVE mode reads it, and place it on the earth where it is not.

    The server parses with the code behind carla.Map, so what that reads, the server reads. Raises
    MapError for what has nothing to drive on or a junction that CARLA does not know.
    """
    text = RoadMap.from_file(file).opendrive
    root = ET.fromstring(text.encode())  # an encoding declared in a str is refused
    for junction in root.iter('junction'):
        if junction.get('type') in UNREAD_JUNCTIONS:
            raise MapError(
                f'map {str(file)!r}: junction {junction.get("id")} is of type '
                f'{junction.get("type")!r}, which CARLA does not know; draw it with connecting '
                'roads (type default)')
    notes = []
    if {'superelevation', 'crossfall'} & {one.tag for one in root.iter()}:
        notes.append('CARLA leaves out lateral slope (superelevation, crossfall)')
    place = root.findtext('header/geoReference', '')
    if not all(re.search(rf'\+{key}=\S+', place) for key in ('lat_0', 'lon_0')):
        text = _placed(text, file)
        notes.append(f'geoReference added: {GEO_REFERENCE}')
    return ServerMap(text, RoadMap.from_text(text, file.stem), tuple(notes))


def _placed(text: str, file: Path) -> str:
    """Return the text with our geoReference in its header, all else as it was."""
    text = re.sub(r'<geoReference\s*(/>|>.*?</geoReference>)', '', text, flags=re.DOTALL)
    added = f'<geoReference>{GEO_REFERENCE}</geoReference>'
    for pattern, put in ((r'<header\b([^>]*)/>', rf'<header\1>{added}</header>'),
                         (r'<header\b[^>]*>', rf'\g<0>{added}')):
        placed, count = re.subn(pattern, put, text, count=1)
        if count:
            return placed
    raise MapError(f'map {str(file)!r} has no <header>; OpenDRIVE wants one, with revMajor and '
                   'revMinor')
