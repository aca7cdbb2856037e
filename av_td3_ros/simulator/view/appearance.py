"""How the world looks in one episode: light, colours, paint, texture and noise, from a seed."""
from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from av_td3_ros.settings import setting

Colour = tuple[float, float, float]  # blue, green, red in [0, 255]

# How much of every knob below a world uses.
WORLDS = {'clean': 0.0, 'moderate': 0.4, 'cluttered': 1.0}
TEXTURE_SIZE = 512  # cells; a power of two, so that the pattern repeats by a bit mask
TEXTURE_CELL = 0.1  # m
TEXTURE_NEUTRAL = 128
LEAST_CONTRAST = 28.0  # grey levels between road and ground

_GROUNDS: tuple[Colour, ...] = ((70.0, 138.0, 104.0), (96.0, 138.0, 152.0), (70.0, 96.0, 128.0),
                                (84.0, 148.0, 128.0), (202.0, 204.0, 206.0))
_SKY: Colour = (214.0, 168.0, 118.0)
_HORIZON: Colour = (226.0, 216.0, 204.0)
_ASPHALT: Colour = (82.0, 80.0, 78.0)
_WHITE: Colour = (238.0, 238.0, 238.0)
_YELLOW: Colour = (70.0, 190.0, 232.0)


@dataclasses.dataclass(frozen=True)
class AppearanceSettings:
    """Say how much the look changes from episode to episode; each knob's full size is given."""

    world: str = setting('moderate', 'share of the knobs below that is used: clean 0, moderate '
                         '0.4, cluttered 1', choices=tuple(WORLDS))
    brightness: float = setting(0.45, 'change of the light, up and down, over its middle',
                                minimum=0.0, maximum=0.9)
    colour: float = setting(0.25, "change of each thing's colour, over its middle",
                            minimum=0.0, maximum=1.0)
    haze: float = setting(0.012, 'thickest haze, 1/m', minimum=0.0, maximum=0.05)
    noise: float = setting(14.0, 'largest pixel noise, standard deviation in grey levels',
                           minimum=0.0, maximum=60.0)
    blur: float = setting(0.4, 'probability of a lens out of focus', minimum=0.0, maximum=1.0)
    texture: float = setting(0.18, 'roughness of the ground, over its brightness',
                             minimum=0.0, maximum=0.5)
    shadows: float = setting(0.45, 'deepest shadows and patches on the ground',
                             minimum=0.0, maximum=0.9)
    marking_wear: float = setting(0.9, 'largest share of the paint that is worn away',
                                  minimum=0.0, maximum=1.0)
    marking_missing: float = setting(0.4, 'largest share of the pieces of paint that is missing',
                                     minimum=0.0, maximum=1.0)
    unmarked: float = setting(0.15, 'probability of a road without markings',
                              minimum=0.0, maximum=1.0)
    grip_loss: float = setting(0.45, 'largest loss of road friction', minimum=0.0, maximum=0.9)


@dataclasses.dataclass(frozen=True, eq=False)
class Appearance:
    """
    Hold the look of one episode.

    Colours are BGR as lit by the sun; haze in 1/m; sun angles in rad (map frame); texture is uint8
    (512, 512) of brightness over 128, or None; noise in grey levels; grip is the road's friction,
    1 when dry. `seed` drives what differs from piece to piece and from frame to frame.
    """

    sky: Colour = _SKY
    horizon: Colour = _HORIZON
    ground: Colour = _GROUNDS[0]
    asphalt: Colour = _ASPHALT
    white: Colour = _WHITE
    yellow: Colour = _YELLOW
    light: float = 1.0
    ambient: float = 0.55
    sun_azimuth: float = 0.8
    sun_elevation: float = 0.8
    haze: float = 0.001
    noise: float = 0.0
    blur: float = 0.0
    texture: NDArray[np.uint8] | None = None
    marking_wear: float = 0.0
    marking_missing: float = 0.0
    grip: float = 1.0
    seed: int = 0

    @classmethod
    def sample(cls, settings: AppearanceSettings, rng: np.random.Generator) -> Appearance:
        """Draw the look of one episode."""
        share = WORLDS[settings.world]
        if share == 0.0:
            return cls(seed=int(rng.integers(2**31)))
        light = 1.0 + share * settings.brightness * rng.uniform(-1.0, 1.0)

        def vary(colour: Colour) -> Colour:
            # More of it is brightness than tint: roads are grey, skies are blue.
            changes = rng.uniform(-1.0, 1.0) + 0.3 * rng.uniform(-1.0, 1.0, 3)
            lit = np.multiply(colour, light * (1.0 + share * settings.colour * changes))
            blue, green, red = np.clip(lit, 0.0, 255.0)
            return float(blue), float(green), float(red)

        asphalt = vary(_scaled(_ASPHALT, 1.0 + 0.4 * share * rng.uniform(-1.0, 1.0)))
        grounds = _GROUNDS if rng.random() < share else _GROUNDS[:1]
        ground = _apart(vary(grounds[rng.integers(len(grounds))]), asphalt)
        missing = share * settings.marking_missing * rng.random()
        if rng.random() < share * settings.unmarked:
            missing = 1.0
        return cls(
            sky=vary(_SKY), horizon=vary(_HORIZON), ground=ground, asphalt=asphalt,
            white=vary(_WHITE), yellow=vary(_YELLOW), light=light,
            ambient=rng.uniform(0.4, 0.8), sun_azimuth=rng.uniform(-math.pi, math.pi),
            sun_elevation=rng.uniform(0.3, 1.3),
            haze=0.001 + share * settings.haze * rng.random() ** 2,
            noise=share * settings.noise * rng.random(),
            blur=float(rng.random() < share * settings.blur) * rng.uniform(0.5, 1.2),
            texture=_ground_texture(share * settings.texture * rng.uniform(0.3, 1.0),
                                    share * settings.shadows * rng.random(), rng),
            marking_wear=share * settings.marking_wear * rng.random(), marking_missing=missing,
            grip=1.0 - share * settings.grip_loss * rng.random(),
            seed=int(rng.integers(2**31)))

    def shade(self, azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the brightness of upright faces whose normals point to `azimuth` (map frame)."""
        sunny = np.maximum(np.cos(azimuth - self.sun_azimuth), 0.0) * math.cos(self.sun_elevation)
        return np.asarray(self.light * (self.ambient + (1.0 - self.ambient) * sunny))

    @property
    def shade_of_tops(self) -> float:
        """Return the brightness of level faces."""
        return self.light * (self.ambient
                             + (1.0 - self.ambient) * math.sin(self.sun_elevation))


def grey(colour: Colour) -> float:
    """Return the brightness of a BGR colour as OpenCV weighs it."""
    return 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]


def _scaled(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _apart(ground: Colour, asphalt: Colour) -> Colour:
    """Return the ground's colour, changed where it could not be told from the road in grey."""
    gap = grey(ground) - grey(asphalt)
    if abs(gap) >= LEAST_CONTRAST:
        return ground
    wanted = grey(asphalt) + math.copysign(LEAST_CONTRAST, gap)
    if wanted < 15.0:
        wanted = grey(asphalt) + LEAST_CONTRAST
    return _scaled(ground, wanted / max(grey(ground), 1.0))


def _ground_texture(roughness: float, shadows: float,
                    rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a pattern of the ground's brightness that repeats in both directions."""
    size = TEXTURE_SIZE
    grain = rng.standard_normal((size, size), np.float32)
    spots, blotches = (cv2.resize(rng.standard_normal((size // cells, size // cells), np.float32),
                                  (size, size), interpolation=cv2.INTER_LINEAR)
                       for cells in (4, 32))
    pattern = 1.0 + roughness * (0.3 * grain + 0.3 * spots + 0.4 * blotches)
    if shadows > 0.0:
        shadow = np.zeros((size, size), np.uint8)
        for _ in range(rng.integers(10, 40)):
            centre = rng.integers(0, size, 2).tolist()
            axes = rng.integers(5, 60, 2).tolist()
            cv2.ellipse(shadow, centre, axes, rng.uniform(0.0, 180.0), 0.0, 360.0,
                        int(rng.integers(90, 256)), -1)
        pattern *= 1.0 - shadows * cv2.blur(shadow, (3, 3)).astype(np.float32) / 255.0
    texture: NDArray[np.uint8] = np.clip(pattern * TEXTURE_NEUTRAL, 0.0, 255.0).astype(np.uint8)
    return texture
