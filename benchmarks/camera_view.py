"""Measure what turning an image to the training camera's view costs, in time of one core."""
from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from av_td3_ros.driving.camera.calibration import Calibration
from av_td3_ros.driving.camera.image import to_grey, to_observation_frame
from av_td3_ros.driving.camera.view import CameraView, CameraViewSettings, MountingSettings
from benchmarks import at_least_one, conclude

GOAL_MS = 2.0
SIZES = ((800, 600), (1280, 720))
FRAME = (84, 84)
BARREL = (-0.28, 0.09, 0.001, -0.0008, -0.01)
MOUNTING = MountingSettings(x=1.5, z=1.4, pitch=0.1, yaw=0.02, roll=0.02)
ROUNDS = 5  # another process on the core slows any one of them


def median_ms(work: Callable[[], Any], times: int) -> float:
    """Return the median time of `work` in ms."""
    taken = []
    for _ in range(times):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return 1e3 * float(np.median(taken))


def row(width: int, height: int, images: int) -> dict[str, Any]:
    """Return the times of one size of images, the best of the rounds."""
    focal = 0.5 * width / math.tan(math.radians(50.0))
    lens = Calibration(width, height, (focal, 0.0, 0.5 * width, 0.0, focal, 0.5 * height,
                                       0.0, 0.0, 1.0), BARREL)
    settings = CameraViewSettings(calibrate=True, mounting=MOUNTING)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    view = CameraView(lens, settings, FRAME)
    made = {'view_ms': lambda: view(to_grey(image, 'bgr8')),
            'plain_ms': lambda: to_observation_frame(image, 'bgr8')}
    rounds = [{key: median_ms(work, images) for key, work in made.items()}
              for _ in range(ROUNDS)]
    tables = min(median_ms(lambda: CameraView(lens, settings, FRAME), 1) for _ in range(ROUNDS))
    return {'image': f'{width}x{height}', 'tables_ms': round(tables, 1),
            **{key: round(min(one[key] for one in rounds), 3) for key in made}}


def main() -> int:
    """Print the table and the claims; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=at_least_one, default=200,
                        help='images in every row and round')
    parser.add_argument('--json', type=Path, help='file to write the results to')
    options = parser.parse_args()
    cv2.setNumThreads(1)
    table = [row(*size, options.images) for size in SIZES]
    print(f'{"image":12}{"grey and view ms":>18}{"uncalibrated ms":>18}{"tables, once ms":>18}')
    for one in table:
        print(f'{one["image"]:12}{one["view_ms"]:18.2f}{one["plain_ms"]:18.2f}'
              f'{one["tables_ms"]:18.0f}')
    claims = [{'name': f'{one["image"]} bgr8 to the training view of 84x84',
               'value': one['view_ms'], 'unit': 'ms', 'goal': GOAL_MS,
               'holds': one['view_ms'] <= GOAL_MS} for one in table]
    return conclude('camera_view', claims, table, options.json)


if __name__ == '__main__':
    sys.exit(main())
