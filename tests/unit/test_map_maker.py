import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.simulator.roads import map_maker
from av_td3_ros.simulator.roads.reference_line import (
    Corner,
    MapMakerError,
    Piece,
    largest_radius,
    rounded_polyline,
    tangent_length,
)

MAPS = Path(__file__).parents[2] / 'config' / 'maps'


def end_of(piece: Piece) -> tuple[float, float, float]:
    """Return where a piece ends, by adding up 20,000 short steps."""
    s = (np.arange(20_000) + 0.5) / 20_000 * piece.length
    bend = (piece.end_curvature - piece.start_curvature) / piece.length
    heading = piece.heading + piece.start_curvature * s + bend * s * s / 2.0
    step = piece.length / 20_000
    return (piece.x + float(np.cos(heading).sum()) * step,
            piece.y + float(np.sin(heading).sum()) * step,
            piece.heading + (piece.start_curvature + piece.end_curvature) / 2.0 * piece.length)


def test_the_committed_maps_are_what_the_code_writes(tmp_path, capsys):
    assert map_maker.main(['--out', str(tmp_path / 'maps')]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(map_maker.MAPS)
    for name in map_maker.MAPS:
        made = (tmp_path / 'maps' / f'{name}.xodr').read_bytes()
        assert made == (MAPS / f'{name}.xodr').read_bytes(), (
            f'config/maps/{name}.xodr is stale: run '
            'python -m av_td3_ros.simulator.roads.map_maker')
        assert b'date' not in made


@pytest.mark.parametrize('corner, end', [(Corner(100, 0, 30), (100, 100)),
                                         (Corner(100, 0, 20), (120, -90)),
                                         (Corner(100, 0, 60), (200, 15))])
def test_a_rounded_corner_is_smooth_and_arrives(corner, end):
    pieces = rounded_polyline((0, 0), [corner], end)
    assert [piece.length > 0 for piece in pieces] == [True] * 5
    assert max(abs(piece.end_curvature) for piece in pieces) == pytest.approx(1 / corner.radius)
    for piece, after in itertools.pairwise(pieces):
        x, y, heading = end_of(piece)
        assert (x, y) == pytest.approx((after.x, after.y), abs=1e-5)
        assert math.remainder(heading - after.heading, math.tau) == pytest.approx(0, abs=1e-9)
        assert piece.end_curvature == pytest.approx(after.start_curvature)
    assert end_of(pieces[-1])[:2] == pytest.approx(end, abs=1e-5)


def test_a_corner_without_spirals_would_take_its_radius_of_a_right_angle():
    # A right angle rounded by an arc alone takes exactly its radius; the spirals take more.
    assert 30.0 < tangent_length(30.0, math.pi / 2) < 45.0
    room = tangent_length(30.0, math.pi / 2)
    assert largest_radius(room, math.pi / 2) == pytest.approx(30.0, abs=0.011)


def test_radii_too_large_for_a_straight_are_refused_by_name():
    with pytest.raises(MapMakerError, match=r'too short for the radii.*smaller radii'):
        rounded_polyline((0, 0), [Corner(20, 0, 50)], (20, 20))


def curve_radii(name: str) -> list[float]:
    """Return the signed radii of a map's arcs; left turns are positive."""
    text = (MAPS / f'{name}.xodr').read_text()
    return [1.0 / float(found) for found in re.findall(r'arc curvature="([^"]+)"', text)]


def total_length(name: str) -> float:
    return sum(float(found) for found in re.findall(
        r'junction="-1" length="([^"]+)"', (MAPS / f'{name}.xodr').read_text()))


def test_loop_is_a_closed_circuit_of_both_directions():
    assert 600 <= total_length('loop') <= 1000
    assert {radius > 0 for radius in curve_radii('loop')} == {True, False}
    assert (MAPS / 'loop.xodr').read_text().count('<road ') >= 8


def test_winding_has_tight_and_wide_curves_both_ways():
    assert 2500 <= total_length('winding') <= 4000
    for radii in ([r for r in curve_radii('winding') if r > 0],
                  [-r for r in curve_radii('winding') if r < 0]):
        assert min(radii) > 14.99 and max(radii) < 100.01
        assert all(any(low <= r < high for r in radii)
                   for low, high in ((14.99, 20), (20, 30), (30, 50), (50, 100)))


def test_town_has_junctions_to_turn_left_right_and_go_straight():
    town = RoadMap.from_file(MAPS / 'town.xodr')
    turns: dict[int, set[str]] = {}
    for lane in town.lanes:
        if lane.is_junction:
            turn = math.degrees(lane.yaws[-1] - lane.yaws[0])
            way = 'left' if turn > 45 else 'right' if turn < -45 else 'straight'
            turns.setdefault(lane.junction_id, set()).add(way)
            tightest = np.max(np.abs(np.gradient(lane.yaws, lane.distances)))
            assert 1.0 / tightest >= 8.0
    assert len(turns) >= 4
    assert all(ways == {'left', 'right', 'straight'} for ways in turns.values())


def test_no_two_roads_of_a_circuit_come_close():
    for name in ('loop', 'winding'):
        road_map = RoadMap.from_file(MAPS / f'{name}.xodr')
        right = [lane for lane in road_map.lanes if lane.lane_id == -1]
        for i, lane in enumerate(right):
            for j, other in enumerate(right):
                if 1 < (i - j) % len(right) < len(right) - 1:
                    gaps = np.hypot(*(lane.points[::8, None] - other.points[None, ::8]).T)
                    assert gaps.min() > 20.0
