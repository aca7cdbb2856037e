"""The process that `map_trial` starts: read the map on the standard input as a vehicle would."""
from __future__ import annotations

import resource
import sys

from av_td3_ros.driving.route.road_map import MapError, RoadMap

LOOKED_AT = 100  # spawn points


def main() -> int:
    """Read within the bytes and processor seconds of the arguments; return the exit status."""
    memory, seconds = (int(one) for one in sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        road_map = RoadMap(sys.stdin.buffer.read().decode(), 'on trial')
        for pose in road_map.spawn_points()[:LOOKED_AT]:
            road_map.height(pose.x, pose.y)
            road_map.markings_at(road_map.project(pose.x, pose.y))
        bool(road_map.has_lane_markings)
    except MapError:
        return 0  # refused with its reason by whoever reads it next, without harm
    except MemoryError:
        print(f'reading it takes more than {memory >> 30} GiB', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
