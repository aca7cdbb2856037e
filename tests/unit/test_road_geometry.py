import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_maps import straight_road

from av_td3_ros.driving.route.road_map import RoadMap
from av_td3_ros.simulator.roads.geometry import RoadGeometry, RoadsideBox

MAPS = Path(__file__).parents[2] / 'config' / 'maps'
PIXELS_PER_METRE = 10


@pytest.fixture(scope='module', params=['loop', 'winding', 'town'])
def road_map(request) -> RoadMap:
    return RoadMap.from_file(MAPS / f'{request.param}.xodr')


def footprint(box: RoadsideBox) -> np.ndarray:
    """Return the corners (4, 2) of a box."""
    local = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (box.length / 2, box.width / 2)
    cosine, sine = math.cos(box.yaw), math.sin(box.yaw)
    return local @ np.array([[cosine, sine], [-sine, cosine]]) + (box.x, box.y)


def test_a_straight_road_has_two_lanes_and_three_lines():
    geometry = RoadGeometry.from_map(RoadMap.from_text(straight_road(), 'straight'))
    sides = {(round(float(lane.left[0, 1]), 2), round(float(lane.right[0, 1]), 2))
             for lane in geometry.lanes}
    assert sides == {(0.0, -3.5), (0.0, 3.5)}
    for lane in geometry.lanes:
        assert lane.left.shape == lane.right.shape == (51, 2)
        assert lane.left.dtype == np.float64
    lines = {(round(float(line.points[0, 1]), 2), line.kind, round(line.width, 2), line.colour)
             for line in geometry.markings}
    assert lines == {(0.0, 'broken', 0.12, 'yellow'), (3.5, 'solid', 0.15, 'white'),
                     (-3.5, 'solid', 0.15, 'white')}
    assert len(geometry.markings) == 3
    for line in geometry.markings:
        assert abs(line.points[-1, 0] - line.points[0, 0]) == pytest.approx(100.0, abs=0.01)


def test_a_line_that_changes_is_cut_where_it_changes():
    text = straight_road().replace(
        '<roadMark sOffset="0" type="broken"', '<roadMark sOffset="60" type="solid" '
        'weight="standard" color="white" width="0.2"/><roadMark sOffset="0" type="broken"')
    # OpenDRIVE wants the entries in order of sOffset.
    first, second = text.index('<roadMark sOffset="60"'), text.index('<roadMark sOffset="0" type='
                                                                     '"broken"')
    end = text.index('/>', second) + 2
    text = text[:first] + text[second:end] + text[first:second] + text[end:]
    geometry = RoadGeometry.from_map(RoadMap.from_text(text, 'changing'))
    centre = sorted((float(line.points[:, 0].min()), float(line.points[:, 0].max()), line.kind)
                    for line in geometry.markings if abs(line.points[0, 1]) < 0.1)
    assert centre == [(pytest.approx(0.0, abs=0.1), pytest.approx(60.0, abs=2.1), 'broken'),
                      (pytest.approx(60.0, abs=2.1), pytest.approx(100.0, abs=0.1), 'solid')]


def test_the_asphalt_has_no_holes(road_map):
    geometry = RoadGeometry.from_map(road_map, box_distance=0.0)
    low = np.array(road_map.bounds[:2]) - 10.0
    width, height = ((np.array(road_map.bounds[2:]) + 10.0 - low) * PIXELS_PER_METRE).astype(int)
    picture = np.zeros((height, width), np.uint8)
    for lane in geometry.lanes:
        outline = np.concatenate([lane.left, lane.right[::-1]])
        cv2.fillPoly(picture, [np.round((outline - low) * PIXELS_PER_METRE).astype(np.int32)], 1)
    contours, tree = cv2.findContours(picture, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [cv2.contourArea(contour) / PIXELS_PER_METRE ** 2
             for contour, (*_, parent) in zip(contours, tree[0], strict=True) if parent >= 0]
    # A block of houses is a hole of hundreds of square metres; pixels are of 0.01.
    assert not [hole for hole in holes if 0.1 < hole < 500.0]


def test_boxes_stand_off_the_lanes_and_off_each_other(road_map):
    geometry = RoadGeometry.from_map(road_map)
    assert {box.kind for box in geometry.boxes} == {'building', 'tree', 'post'}
    assert len(geometry.boxes) > 50
    # Paint the boxes one by one into a picture of the lanes: nothing may be painted twice.
    low = np.array(road_map.bounds[:2]) - 40.0
    size = ((np.array(road_map.bounds[2:]) + 40.0 - low) * 4).astype(int)
    road = np.zeros((size[1], size[0]), np.uint8)
    for lane in geometry.lanes:
        outline = np.concatenate([lane.left, lane.right[::-1]])
        cv2.fillPoly(road, [np.round((outline - low) * 4).astype(np.int32)], 255)
    for box in geometry.boxes:
        corners = np.round((footprint(box) - low) * 4).astype(np.int32)
        x, y, width, height = cv2.boundingRect(corners)
        painted = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(painted, corners - (x, y), 255)
        below = road[y:y + height, x:x + width]
        assert not np.any((below > 0) & (painted > 0)), box
        below[painted > 0] = 128
        assert road_map.distance_to_lanes(footprint(box)).min() > 1.75 + 1.5


def test_boxes_follow_the_seed(road_map):
    one, same, other = (RoadGeometry.from_map(road_map, seed=seed).boxes for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert RoadGeometry.from_map(road_map, box_distance=0.0).boxes == ()


@pytest.mark.parametrize('side', ['left', 'right'])
def test_boxes_stand_on_both_sides_of_a_one_way_road(side):
    text = straight_road(400.0)
    start = text.index(f'<{side}>') + len(f'<{side}>')
    one_way = text[:start] + text[text.index(f'</{side}>'):]
    road_map = RoadMap.from_text(one_way, 'one-way')
    assert len(road_map.lanes) == 1
    sides = [box.y > 0.0 for box in RoadGeometry.from_map(road_map).boxes]
    assert 10 < sum(sides) < len(sides) - 10
