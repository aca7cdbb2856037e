"""What the camera shows: where things are in the image, what hides what, light and noise."""
from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.simulator.vehicle.contact import contacts
from av_td3_ros.simulator.view.appearance import (
    LEAST_CONTRAST,
    WORLDS,
    Appearance,
    AppearanceSettings,
    grey,
)
from av_td3_ros.simulator.view.bodies import VEHICLE, parts_of
from av_td3_ros.simulator.view.camera import Camera, CameraSettings, Vehicles
from av_td3_ros.simulator.view.projection import cut_ahead, paint_order
from av_td3_ros.simulator.view.scenery import Scenery

ORIGIN = Pose(0.0, 0.0, 0.0)
LEVEL = CameraSettings(x=0.0, z=1.6, pitch=0.0)
# Everything as bright from all sides and at all distances, so that a colour tells what it is.
FLAT = Appearance(ambient=1.0, haze=0.0)


def along_x(start: float, end: float, y: float) -> np.ndarray:
    x = np.linspace(start, end, 200)
    return np.stack([x, np.full_like(x, y)], axis=1)


def straight_road(kind: str = 'solid') -> Scenery:
    """Return a road along x, 3.5 m to both sides, with a line in its middle and at its edges."""
    left, middle, right = (along_x(-50.0, 150.0, y) for y in (3.5, 0.0, -3.5))
    return Scenery([(left, right)], [(left, 'solid', 0.15, 'white'), (middle, kind, 0.15, 'white'),
                                     (right, 'solid', 0.15, 'white')])


def brightness(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY).astype(int)


def test_points_land_where_the_pinhole_says() -> None:
    camera = Camera(LEVEL, Scenery())
    assert camera.intrinsics() == pytest.approx((160.0, 160.0, 160.0, 120.0))
    points = np.array([[10.0, 0.0, 1.6], [10.0, 1.0, 1.6], [10.0, 0.0, 0.6], [-5.0, 0.0, 1.6]])
    image = camera.project(points, ORIGIN)
    # 90 degrees over 320 pixels: the focal length is 160 pixels.
    assert image[:3] == pytest.approx(np.array([[160.0, 120.0], [144.0, 120.0], [160.0, 136.0]]))
    assert np.isnan(image[3]).all()


def test_mounting_turns_and_shifts_the_view() -> None:
    point = np.array([[12.0, 3.0, 0.0]])
    shifted = Camera(CameraSettings(x=2.0, y=-1.0, z=3.0, pitch=0.0), Scenery())
    assert shifted.project(point, ORIGIN)[0] == pytest.approx(
        (160.0 - 160.0 * 4.0 / 10.0, 120.0 + 160.0 * 3.0 / 10.0))
    down = Camera(CameraSettings(x=0.0, z=1.6, pitch=10.0), Scenery())
    horizon = down.project(np.array([[1e6, 0.0, 1.6]]), ORIGIN)[0]
    assert horizon == pytest.approx((160.0, 120.0 - 160.0 * math.tan(math.radians(10.0))))
    left = Camera(CameraSettings(x=0.0, z=1.6, pitch=0.0, yaw=45.0), Scenery())
    assert left.project(np.array([[10.0, 10.0, 1.6]]), ORIGIN)[0] == pytest.approx((160.0, 120.0))
    turned = Camera(LEVEL, Scenery()).project(np.array([[5.0, 20.0, 1.6]]),
                                              Pose(5.0, 5.0, math.pi / 2.0))[0]
    assert turned == pytest.approx((160.0, 120.0))


def test_image_is_bgra8_of_the_asked_size() -> None:
    camera = Camera(CameraSettings(width=200, height=100), straight_road())
    image = camera.render(ORIGIN)
    assert image.shape == (100, 200, 4)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert (image[..., 3] == 255).all()


def test_sky_is_above_the_horizon_and_ground_below_it() -> None:
    look = Appearance(haze=0.0)
    image = Camera(LEVEL, Scenery()).render(ORIGIN, appearance=look)
    assert image[125, 160, :3] == pytest.approx(np.array(look.ground), abs=1.0)
    assert image[239, 5, :3] == pytest.approx(np.array(look.ground), abs=1.0)
    assert image[5, 160, :3] == pytest.approx(np.array(look.sky), abs=15.0)
    assert (image[118, :, :3] > 150).all()


@pytest.mark.parametrize('pitch', [0.0, 8.0, 20.0])
def test_lines_and_asphalt_are_where_the_projection_puts_them(pitch: float) -> None:
    camera = Camera(CameraSettings(x=0.5, z=1.6, pitch=pitch), straight_road())
    image = camera.render(ORIGIN, appearance=FLAT)
    for ahead in (6.0, 10.0, 15.0, 20.0, 30.0):
        for y, expected in ((3.5, FLAT.white), (0.0, FLAT.white), (-3.5, FLAT.white),
                            (1.7, FLAT.asphalt), (-1.7, FLAT.asphalt), (4.5, FLAT.ground)):
            u, v = camera.project(np.array([[ahead, y, 0.0]]), ORIGIN)[0]
            if 0.0 <= u < 320.0 and v < 240.0:
                seen = image[int(v), int(u), :3]
                # Far away a line is thinner than its pixel.
                slack = 2.0 if ahead < 16.0 or expected != FLAT.white else 90.0
                assert seen == pytest.approx(np.array(expected), abs=slack), (ahead, y)


def test_lines_and_edges_show_in_the_frames_of_the_policy() -> None:
    camera = Camera(CameraSettings(), straight_road())
    frame = cv2.resize(brightness(camera.render(Pose(0.0, -1.75, 0.0))).astype(np.uint8), (84, 84),
                       interpolation=cv2.INTER_AREA).astype(int)
    for ahead in (10.0, 20.0, 30.0):
        _, v = camera.project(np.array([[ahead, -1.75, 0.0]]), Pose(0.0, -1.75, 0.0))[0]
        row = frame[int(v * 84 / 240)]
        for y in (0.0, -3.5):
            u = camera.project(np.array([[ahead, y, 0.0]]), Pose(0.0, -1.75, 0.0))[0, 0]
            column = int(u * 84 / 320)
            line = row[max(column - 1, 0):column + 2].max()
            lane = row[42]
            assert line - lane > 30, (ahead, y)


def test_dashes_are_3_m_long_and_6_m_apart_and_lie_still() -> None:
    left, right = along_x(0.0, 100.0, 3.5), along_x(0.0, 100.0, -3.5)
    scenery = Scenery([(left, right)], [(along_x(0.0, 100.0, 0.0), 'broken', 0.2, 'white')])
    camera = Camera(CameraSettings(x=0.0, z=3.0, pitch=25.0), scenery)
    for driven in (5.0, 8.3, 31.7):
        pose = Pose(driven, 0.5, 0.0)
        image = brightness(camera.render(pose, appearance=FLAT))
        for x in np.arange(math.ceil(driven) + 4.5, driven + 15.0, 0.5):
            if min(x % 9.0, abs(x % 9.0 - 3.0), 9.0 - x % 9.0) < 0.2:
                continue  # just at a dash's end
            u, v = camera.project(np.array([[x, 0.0, 0.0]]), pose)[0]
            assert (image[int(v), int(u)] > 150) == (x % 9.0 < 3.0), x


def test_the_road_reaches_from_under_the_car_to_the_image_edge() -> None:
    for settings in (CameraSettings(), CameraSettings(pitch=60.0), CameraSettings(pitch=85.0)):
        camera = Camera(settings, straight_road('broken'))
        image = camera.render(Pose(3.0, 1.0, 0.0), appearance=dataclasses.replace(
            FLAT, ground=(0.0, 0.0, 250.0)))
        bottom = image[-1, 100:220, :3]
        assert (bottom[:, 2] < 245).any()
        assert not (bottom == (0, 0, 250)).all(axis=1).any()


def test_a_box_that_reaches_past_the_camera_fills_its_side() -> None:
    # A wall from 20 m behind to 20 m ahead, 2 m to the left: all of the left half of the image,
    # but for what is beyond its end.
    camera = Camera(LEVEL, Scenery())
    wall = Vehicles(np.array([[0.0, 3.0, 0.0, 40.0, 2.0, 8.0]]), np.array([[10.0, 10.0, 240.0]]))
    image = camera.render(ORIGIN, wall, FLAT)[..., :3].astype(int)
    end = 160.0 - 160.0 * 2.0 / 20.0
    # Its lower part has the given colour, its upper part is glass; neither is sky or ground.
    plain = camera.render(ORIGIN, None, FLAT)[..., :3].astype(int)
    changed = (np.abs(image - plain).sum(axis=2) > 30)[100:130]
    assert changed[:, :int(end) - 2].all()
    assert not changed[:, int(end) + 3:].any()


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    camera = Camera(CameraSettings(), straight_road())
    behind = Vehicles(np.array([[-8.0, 0.0, 0.0, 4.5, 1.8, 1.5]]), np.array([[10.0, 10.0, 240.0]]))
    assert np.array_equal(camera.render(ORIGIN, behind, FLAT), camera.render(ORIGIN, None, FLAT))


def cast(camera: Camera, pose: Pose, vehicles: Vehicles) -> np.ndarray:
    """Return the image's colours by a ray through every pixel; nan where it meets no box."""
    settings = camera.settings
    parts, sides, tops = (one.reshape(-1, one.shape[-1]) for one in parts_of(
        vehicles.boxes, vehicles.colours, np.full(len(vehicles.boxes), VEHICLE), settings.z))
    rows, columns = np.mgrid[0:settings.height, 0:settings.width]
    pitch, heading = math.radians(settings.pitch), pose.yaw + math.radians(settings.yaw)
    focal = camera.intrinsics().fx
    aside = -(columns + 0.5 - settings.width / 2.0) / focal
    down = (rows + 0.5 - settings.height / 2.0) / focal
    ahead = math.cos(pitch) - down * math.sin(pitch)
    up = -math.sin(pitch) - down * math.cos(pitch)
    ray = np.stack([math.cos(heading) * ahead - math.sin(heading) * aside,
                    math.sin(heading) * ahead + math.cos(heading) * aside, up])
    eye = np.array([pose.x + math.cos(pose.yaw) * settings.x - math.sin(pose.yaw) * settings.y,
                    pose.y + math.sin(pose.yaw) * settings.x + math.cos(pose.yaw) * settings.y,
                    settings.z])
    nearest = np.full(rows.shape, np.inf)
    image = np.full((*rows.shape, 3), np.nan)
    for (x, y, yaw, length, width, bottom, top), side, lid in zip(parts, sides, tops, strict=True):
        cosine, sine = math.cos(yaw), math.sin(yaw)
        turn = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        origin = turn @ (eye - (x, y, 0.5 * (bottom + top)))
        direction = np.tensordot(turn, ray, axes=1)
        half = 0.5 * np.array([length, width, top - bottom])
        direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
        one = (-half - origin)[:, None, None]
        other = (half - origin)[:, None, None]
        low = np.minimum(one / direction, other / direction)
        high = np.maximum(one / direction, other / direction)
        entry, leave = low.max(axis=0), high.min(axis=0)
        hit = (entry < leave) & (entry > 0.0) & (entry < nearest)
        nearest[hit] = entry[hit]
        level = low.argmax(axis=0) == 2
        image[hit & ~level] = side
        image[hit & level] = np.where(origin[2] > 0.0, lid, 0.5 * side)
    return image


@pytest.mark.parametrize('seed', range(8))
def test_boxes_hide_each_other_as_rays_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes: list[np.ndarray] = []
    while len(boxes) < 25:
        box = rng.uniform([2.0, -22.0, -math.pi, 0.3, 0.3, 0.4],
                          [50.0, 22.0, math.pi, 25.0, 3.0, 6.0])
        if all(not contacts(box[:5], other[None, :5]) for other in boxes) and not contacts(
                box[:5], np.array([[0.0, 0.0, 0.0, 3.0, 3.0]])):
            boxes.append(box)
    settings = CameraSettings(x=0.0, y=0.3, z=float(rng.uniform(0.8, 5.0)),
                              pitch=float(rng.uniform(-10.0, 25.0)),
                              yaw=float(rng.uniform(-30.0, 30.0)))
    vehicles = Vehicles(np.array(boxes), rng.integers(1, 255, (len(boxes), 3)).astype(float))
    camera = Camera(settings, Scenery())
    image = camera.render(ORIGIN, vehicles, FLAT)[..., :3].astype(float)
    expected = cast(camera, ORIGIN, vehicles)
    # Away from edges, where a pixel and all its neighbours show the same face.
    inner = np.ones(expected.shape[:2], bool)
    for shift in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
        inner &= (np.roll(expected, shift, axis=(0, 1)) == expected).all(axis=2)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert inner.sum() > 3000
    wrong = inner & (np.abs(image - expected).max(axis=2) > 1.5)
    # A roof seen edge-on is thinner than a pixel but painted as one; nothing thicker is wrong.
    assert wrong.sum() < 30
    assert not cv2.erode(wrong.astype(np.uint8), np.ones((3, 3), np.uint8)).any()


def test_polygons_are_cut_at_a_plane() -> None:
    square = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    step = np.array([0.0, 0.0, 5.0])
    half, whole, none = cut_ahead(np.stack([square, square + step, square - step]), 1.0)
    assert sorted(half[:, 2].tolist()) == [1.0, 1.0, 2.0, 2.0]
    assert sorted(half[:, 0].tolist()) == [0.0, 0.0, 2.0, 2.0]
    assert np.array_equal(whole, square + step)
    assert none.shape == (0, 3)


def test_long_walls_are_ordered_though_their_middles_are_not() -> None:
    # The middle of the long wall is nearer, yet at the shared ray the short one stands before it.
    wall = np.array([[5.0, 10.0], [5.2, 10.0], [5.2, 9.0], [5.0, 9.0]])
    long_wall = np.array([[6.0, 12.0], [6.2, 12.0], [6.2, -12.0], [6.0, -12.0]])
    assert np.hypot(*long_wall.mean(axis=0)) < np.hypot(*wall.mean(axis=0))
    assert paint_order(np.stack([wall, long_wall])) == [1, 0]
    assert paint_order(np.stack([long_wall, wall])) == [0, 1]


def test_boxes_in_each_other_are_painted_all_the_same() -> None:
    rng = np.random.default_rng(1)
    boxes = np.column_stack([rng.uniform(8.0, 14.0, 12), rng.uniform(-3.0, 3.0, 12),
                             rng.uniform(-3.0, 3.0, 12), np.full((12, 3), (4.0, 2.0, 1.5))])
    camera = Camera(CameraSettings(), Scenery())
    image = camera.render(ORIGIN, Vehicles(boxes, np.full((12, 3), 20.0)), FLAT)
    assert image.shape == (240, 320, 4)


def test_buildings_hide_the_road_behind_them() -> None:
    left, right = along_x(0.0, 100.0, 3.5), along_x(0.0, 100.0, -3.5)
    house = [[20.0, 0.0, 0.0, 4.0, 10.0, 6.0]]
    camera = Camera(LEVEL, Scenery([(left, right)], [], house, ['building']))
    image = camera.render(ORIGIN, appearance=FLAT)
    seen = image[125:130, 130:190, :3].reshape(-1, 3)
    assert (seen == seen[0]).all()
    assert np.abs(seen[0] - np.array(FLAT.asphalt)).max() > 20.0


def test_faces_towards_the_sun_are_brighter() -> None:
    box = Vehicles(np.array([[15.0, 0.0, 0.0, 4.0, 2.0, 1.5]]), np.array([[150.0, 150.0, 150.0]]))
    camera = Camera(LEVEL, Scenery())
    _, v = camera.project(np.array([[13.0, 0.0, 0.6]]), ORIGIN)[0]
    back = [camera.render(ORIGIN, box, Appearance(sun_azimuth=azimuth))[int(v), 160, 0]
            for azimuth in (math.pi, 0.0)]
    assert back[0] > back[1] + 20


def test_haze_takes_far_boxes_to_the_colour_of_the_horizon() -> None:
    black = np.array([[10.0, 0.0, 0.0, 4.0, 2.0, 1.5], [80.0, 10.0, 0.0, 4.0, 12.0, 9.0]])
    camera = Camera(LEVEL, Scenery())
    image = brightness(camera.render(ORIGIN, Vehicles(black, np.zeros((2, 3))),
                                     Appearance(haze=0.02)))
    near, far = (int(image[int(v), int(u)]) for u, v in camera.project(
        np.array([[8.0, 0.0, 0.5], [78.0, 10.0, 3.0]]), ORIGIN))
    assert far > near + 80


def test_the_same_seed_gives_the_same_frames_and_another_gives_others() -> None:
    settings = AppearanceSettings(world='cluttered')
    looks = [Appearance.sample(settings, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    films = [[Camera(CameraSettings(), straight_road()).render(ORIGIN, appearance=look)]
             for look in looks]
    assert np.array_equal(films[0], films[1])
    assert not np.array_equal(films[0], films[2])


def test_noise_changes_from_frame_to_frame_and_repeats_with_the_episode() -> None:
    camera = Camera(CameraSettings(), straight_road())
    first, second = (camera.render(ORIGIN, appearance=Appearance(noise=10.0, seed=1))
                     for _ in range(2))
    assert np.array_equal(first, second)  # a new appearance starts anew
    look = Appearance(noise=10.0, seed=1)
    frames = [camera.render(ORIGIN, appearance=look)[..., :3].astype(float) for _ in range(3)]
    clean = camera.render(ORIGIN, appearance=Appearance())[..., :3].astype(float)
    assert not np.array_equal(frames[0], frames[1])
    difference = (frames[0] - clean)[130:230]
    assert difference.std() == pytest.approx(10.0, rel=0.1)
    assert abs(difference.mean()) < 0.5


def test_the_ground_texture_lies_still_on_the_map() -> None:
    rng = np.random.default_rng(0)
    look = dataclasses.replace(
        Appearance.sample(AppearanceSettings(world='cluttered', marking_missing=0.0, noise=0.0,
                                             blur=0.0, shadows=0.9, haze=0.0), rng), haze=0.0)
    camera = Camera(CameraSettings(x=0.0, z=4.0, pitch=45.0), Scenery())
    seen = []
    for pose in (ORIGIN, Pose(1.0, 0.4, 0.15)):
        image = brightness(camera.render(pose, appearance=look))
        spots = np.array([[x, y, 0.0] for x in (4.0, 5.0, 6.0, 7.0, 8.0)
                          for y in (-2.0, -1.0, 0.0, 1.0, 2.0)])
        seen.append(np.array([image[int(v) - 2:int(v) + 3, int(u) - 2:int(u) + 3].mean()
                              for u, v in camera.project(spots, pose)]))
    assert np.std(seen[0]) > 2.0
    assert np.corrcoef(seen[0], seen[1])[0, 1] > 0.8


def test_missing_and_worn_paint() -> None:
    camera = Camera(LEVEL, straight_road())
    plain, worn, gone = (
        brightness(camera.render(ORIGIN, appearance=dataclasses.replace(FLAT, **change)))
        for change in ({}, {'marking_wear': 1.0}, {'marking_missing': 1.0}))
    line = (slice(150, 230), slice(158, 162))
    assert plain[line].mean() > 200
    assert worn[line].mean() < plain[line].mean() - 20
    assert gone[line].mean() == pytest.approx(grey(FLAT.asphalt), abs=2.0)


def test_every_look_tells_road_from_ground_in_grey() -> None:
    for world in WORLDS:
        for seed in range(60):
            look = Appearance.sample(AppearanceSettings(world=world), np.random.default_rng(seed))
            assert abs(grey(look.ground) - grey(look.asphalt)) >= LEAST_CONTRAST - 0.5
            assert all(0.0 <= channel <= 255.0 for colour in (look.ground, look.sky, look.asphalt)
                       for channel in colour)
            assert 0.5 < look.grip <= 1.0


def test_clean_worlds_all_look_the_same_and_cluttered_ones_differ() -> None:
    clean, cluttered = ([Appearance.sample(AppearanceSettings(world=world),
                                           np.random.default_rng(seed)) for seed in range(8)]
                        for world in ('clean', 'cluttered'))
    assert len({look.asphalt for look in clean}) == 1
    assert all(look.noise == 0.0 and look.texture is None and look.grip == 1.0 for look in clean)
    assert len({look.asphalt for look in cluttered}) == 8
    assert max(look.noise for look in cluttered) > 5.0


def test_a_long_map_brings_no_more_to_draw_than_a_short_one() -> None:
    counts = []
    for length in (300.0, 4000.0):
        points = np.arange(0.0, length, 2.0)
        edges = [np.stack([points, np.full_like(points, y)], axis=1) for y in (1.75, -1.75)]
        scenery = Scenery([(edges[0], edges[1])], [(edges[0], 'solid', 0.15, 'white')])
        near = scenery.around(150.0, 0.0, 80.0)
        counts.append(len(near.pieces))
    assert counts[0] == counts[1] < 50


@pytest.mark.parametrize('settings', [
    CameraSettings(width=16, height=16), CameraSettings(width=321, height=241, fov=150.0),
    CameraSettings(width=100, height=300, pitch=85.0), CameraSettings(pitch=-60.0, yaw=180.0),
    CameraSettings(fov=10.0, z=50.0, draw_distance=1000.0)])
def test_any_camera_draws_any_world(settings: CameraSettings) -> None:
    rng = np.random.default_rng(2)
    boxes = rng.uniform([-90.0, -20.0, -3.0, 0.2, 0.2, 0.2], [90.0, 20.0, 3.0, 9.0, 9.0, 9.0],
                        (60, 6))
    camera = Camera(settings, straight_road('broken'))
    for seed in range(3):
        look = Appearance.sample(AppearanceSettings(world='cluttered'),
                                 np.random.default_rng(seed))
        image = camera.render(Pose(seed, 0.5, seed), Vehicles(boxes, np.full((60, 3), 99.0)), look)
        assert image.shape == (settings.height, settings.width, 4)


def test_unknown_markings_and_boxes_are_refused() -> None:
    line = along_x(0.0, 10.0, 0.0)
    with pytest.raises(ValueError, match="marking 'dotted' in 'white'"):
        Scenery(markings=[(line, 'dotted', 0.1, 'white')])
    with pytest.raises(ValueError, match='1 boxes need as many kinds'):
        Scenery(boxes=[[0.0] * 6], box_kinds=['lamp'])
