"""Polygons in homogeneous image coordinates: cutting what is behind and ordering what hides."""
from __future__ import annotations

import functools
import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_td3_ros.driving.route.geometry import FloatArray

SLIVER = 1e-3  # m ahead of the eye; what is nearer decides nothing


def cut_ahead(polygons: NDArray[np.floating[Any]], least: float
              ) -> list[NDArray[np.floating[Any]]]:
    """
    Return what of polygons (N, V, 3) has its third coordinate at `least` or above.

    Sutherland and Hodgman's cut at one plane. Each result is (M, 3), empty when nothing is left.
    """
    following = np.concatenate([polygons[:, 1:], polygons[:, :1]], axis=1)
    depth, depth_after = polygons[..., 2], following[..., 2]
    inside = depth >= least
    crossing = inside != (depth_after >= least)
    span = np.where(crossing, depth_after - depth, 1.0)
    on_plane = polygons + ((least - depth) / span)[..., None] * (following - polygons)
    count, corners = depth.shape
    points = np.concatenate([polygons, on_plane], axis=2).reshape(count, 2 * corners, 3)
    kept = np.empty((count, 2 * corners), np.bool_)
    kept[:, 0::2], kept[:, 1::2] = inside, crossing
    return [points[index][kept[index]] for index in range(count)]


def paint_order(footprints: FloatArray) -> list[int]:
    """
    Return in which order upright boxes are painted, far to near, to hide each other rightly.

    footprints (N, 4, 2) are the corners of rectangles, forward and left of the camera in m, apart
    from each other. A ray from the camera that meets two of them decides which is behind, whatever
    their heights. Convex things ahead of one point never hide each other in a circle: projecting
    the point to infinity makes the rays parallel. Footprints in each other have no right order;
    then the farther middle comes first.
    """
    count = len(footprints)
    # Corners first, one array a coordinate: twice as fast as (N, 4, 2) for the few that there are.
    ahead, aside = np.ascontiguousarray(footprints.T)
    far_off = (ahead[0] + ahead[2]) ** 2 + (aside[0] + aside[2]) ** 2
    order = np.argsort(-far_off, kind='stable')
    if count < 2:
        return list(order.tolist())
    ahead, aside = ahead[:, order], aside[:, order]
    low, high = _slopes(ahead, aside)
    start = np.maximum(low[:, None], low)
    end = np.minimum(high[:, None], high)
    first, second = np.nonzero((end - start > 1e-9) & _pairs(count))
    ray = 0.5 * (start[first, second] + end[first, second])
    both = np.concatenate([first, second])
    entry = _entry(ahead[:, both], aside[:, both], np.concatenate([ray, ray]))
    behind = entry[:len(ray)] >= entry[len(ray):]
    if behind.all():
        return list(order.tolist())
    far = np.where(behind, first, second).tolist()
    near = np.where(behind, second, first).tolist()
    return list(order[_sorted(count, far, near)].tolist())


def _sorted(count: int, before: list[int], after: list[int]) -> list[int]:
    """Return 0 to count - 1 such that before[i] comes ahead of after[i], the lowest first."""
    waiting = [0] * count
    followers: list[list[int]] = [[] for _ in range(count)]
    for one, other in zip(before, after, strict=True):
        waiting[other] += 1
        followers[one].append(other)
    ready = [one for one in range(count) if not waiting[one]]
    done = [False] * count
    result: list[int] = []
    while len(result) < count:
        # Nothing is ready only in a circle; the lowest breaks it.
        chosen = heapq.heappop(ready) if ready else done.index(False)
        if done[chosen]:
            continue
        done[chosen] = True
        result.append(chosen)
        for other in followers[chosen]:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, other)
    return result


@functools.lru_cache(maxsize=256)
def _pairs(count: int) -> NDArray[np.bool_]:
    """Return a mask (count, count) that holds each pair once, the lower index first."""
    return np.triu(np.ones((count, count), np.bool_), 1)


def _slopes(ahead: FloatArray, aside: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the least and greatest left over forward of what of footprints (4, N) is ahead."""
    slopes = aside / np.maximum(ahead, SLIVER)
    low, high = slopes.min(axis=0), slopes.max(axis=0)
    partly = np.flatnonzero(ahead.min(axis=0) < SLIVER)
    if len(partly):
        outlines = np.stack([aside, np.zeros_like(aside), ahead], axis=-1)[:, partly]
        cuts = cut_ahead(outlines.transpose(1, 0, 2), SLIVER)
        for index, cut in zip(partly.tolist(), cuts, strict=True):
            seen = cut[:, 0] / cut[:, 2]
            low[index], high[index] = (seen.min(), seen.max()) if len(cut) else (0.0, -1.0)
    return low, high


def _entry(ahead: FloatArray, aside: FloatArray, slopes: FloatArray) -> FloatArray:
    """Return how far ahead the rays (1, slope) enter the rectangles (4, N)."""
    # From two sides to those opposite; the ray enters through the side turned to it.
    x, y = ahead[:2] - ahead[[3, 0]], aside[:2] - aside[[3, 0]]
    along = x + y * slopes
    along[np.abs(along) < 1e-12] = 1e-12
    centre = x * (ahead[0] + ahead[2]) + y * (aside[0] + aside[2])
    entry: FloatArray = (centre / along - (x * x + y * y) / np.abs(along)).max(axis=0)
    return 0.5 * entry
