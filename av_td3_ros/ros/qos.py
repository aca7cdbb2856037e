"""Every quality-of-service profile of the graph, by what it is for."""
from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


def _reliable(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, durability=durability,
                      reliability=ReliabilityPolicy.RELIABLE)


SENSOR = _reliable(10)  # what the CARLA bridge publishes and subscribes with
STEP = _reliable(10)  # observation, action, command: each one answered before the next
# Of the publishers of steps, odometry and events: in a world that does not wait for them, those
# who follow a drive may stall for seconds, and a publisher resends only what it has kept.
FOLLOWED = _reliable(100)
LATCHED = _reliable(1, DurabilityPolicy.TRANSIENT_LOCAL)  # only the newest, also for late comers
# Best effort, which a real vehicle may send with, and which no reliable subscription hears.
VEHICLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                     reliability=ReliabilityPolicy.BEST_EFFORT)
ANY = (SENSOR, VEHICLE)  # together they hear every publisher, and a reliable one reliably
QUIET = SubscriptionEventCallbacks(use_default_callbacks=False)  # of publishers that do not fit
EVENT = _reliable(100)  # collisions, episode summaries: few, none may be missed
TRANSITION = _reliable(2000)  # a learner that stalls for seconds loses none
STATUS = LATCHED
# Comes again with every image: one lost is no loss, and drivers of any reliability are heard.
CAMERA_INFO = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                         durability=DurabilityPolicy.VOLATILE,
                         reliability=ReliabilityPolicy.BEST_EFFORT)
WATCH = CAMERA_INFO  # who only looks on slows nobody down
VIEW = _reliable(1)  # pictures and markers: the newest, for any viewer
TF = _reliable(100)
