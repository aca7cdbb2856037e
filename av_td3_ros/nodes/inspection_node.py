"""Shows a drive: annotated frames, markers for rviz, transforms; only while somebody looks."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from av_td3_msgs.msg import Action, AppliedAction, Observation
from geometry_msgs.msg import Quaternion, TransformStamped
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from av_td3_ros.driving.camera.view import ViewSettings, orientation
from av_td3_ros.driving.display.annotation import (
    NOBODY,
    SOURCES,
    Annotator,
    Applied,
    Moment,
    Wanted,
)
from av_td3_ros.driving.display.prediction import PredictionSettings, Trail, edges, predicted_path
from av_td3_ros.driving.perception.obstacles import OWN_REACH, Box
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.driving.route.geometry import Pose, from_vehicle_frame
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import from_odometry, to_bytes
from av_td3_ros.ros.debug_markers import (
    box_marker,
    removal,
    route_marker,
    steering_markers,
    text_marker,
    trail_marker,
)
from av_td3_ros.ros.diagnostics import OK, WARN, Diagnostics, Meter, Reading
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.markers import from_markers
from av_td3_ros.ros.parameters import accept_changes, declare_settings
from av_td3_ros.ros.runtime import every, run
from av_td3_ros.settings import group, setting

SOURCE_NAMES = {AppliedAction.SOURCE_POLICY: 'policy', AppliedAction.SOURCE_HUMAN: 'human',
                AppliedAction.SOURCE_WATCHDOG: 'watchdog',
                AppliedAction.SOURCE_EMERGENCY_STOP: 'emergency stop',
                AppliedAction.SOURCE_REPEATED: 'repeated',
                AppliedAction.SOURCE_STOPPED: 'stopped'}
TERMS = ('progress', 'efficiency', 'lane', 'comfort', 'safety')
LOOKING = 0.25  # s of wall time until somebody who begins to look is seen

# What each output is made of.
NEEDS = {'image': {'observation', 'action', 'applied_action'},
         'markers': {'observation', 'applied_action', 'odometry', 'path', 'markers'},
         'tf': {'odometry', 'camera_info'}}


@dataclasses.dataclass(frozen=True)
class InspectionSettings:
    """What the inspection node is told."""

    rate: float = setting(10.0, 'pictures and marker arrays per second of wall time at most',
                          minimum=0.5, maximum=60.0, live=True)
    width: int = setting(640, 'width of the annotated image, pixels', minimum=160, maximum=1920)
    trail: float = setting(200.0, 'm of the path driven that are shown', minimum=1.0,
                           maximum=5000.0, live=True)
    top_speed: float = setting(11.0, 'speed in m/s at which the path driven has the last colour',
                               minimum=0.5, maximum=100.0, live=True)
    tf: bool = setting(True, "publish the vehicle's place as a transform; false where the bridge "
                       'or the vehicle does')
    view: ViewSettings = group(ViewSettings, "the camera whose image the policy's frames are of")
    prediction: PredictionSettings = group(PredictionSettings, 'where the steering leads')


class InspectionNode(Node):
    """Listens to a drive while somebody looks at it, and draws what is newest."""

    def __init__(self) -> None:
        super().__init__('inspection_node')
        self.settings = declare_settings(self, InspectionSettings)
        accept_changes(self, self.settings, self._apply)
        cv2.setNumThreads(1)
        self._newest: dict[str, Any] = {}
        self._listening: dict[str, Any] = {}
        self._inputs, self._shown = Inputs(self), Meter()
        self._begin()
        self._images = self.create_publisher(Image, '~/debug/image', qos.VIEW)
        self._markers = self.create_publisher(MarkerArray, '~/debug/markers', qos.VIEW)
        self._transforms = self.create_publisher(TFMessage, '~/output/tf', qos.TF)
        self._timer = every(self, LOOKING, self._on_timer)
        diagnostics = Diagnostics(self)
        diagnostics.add('view', self._tell)
        diagnostics.add('inputs', self._inputs.tell)

    def _begin(self) -> None:
        s = self.settings
        self._annotator = Annotator(s.view, s.prediction, s.width)
        self._trail = Trail(s.trail)
        self._shown_others: set[int] = set()
        self._due: set[str] = set()  # outputs for which there is something new

    def _apply(self, settings: InspectionSettings) -> None:
        before, self.settings = self.settings, settings
        self._annotator = Annotator(settings.view, settings.prediction, settings.width)
        self._trail.length = settings.trail
        if settings.rate != before.rate and self._listening:
            self._set_pace(1.0 / settings.rate)

    def _set_pace(self, period: float) -> None:
        self.destroy_timer(self._timer)
        self._timer = every(self, period, self._on_timer)

    # -- listening, as long as somebody looks

    def _on_timer(self) -> None:
        looked_at, was_looked_at = self._looked_at(), bool(self._listening)
        self._listen(set().union(*(NEEDS[one] for one in looked_at)))
        if bool(looked_at) != was_looked_at:
            self._set_pace(1.0 / self.settings.rate if looked_at else LOOKING)
        try:
            if 'image' in looked_at & self._due:
                self._due.discard('image')
                self._show_image()
            if 'markers' in looked_at & self._due:
                self._due.discard('markers')
                self._show_markers()
        except Exception as error:  # of what was kept: nothing of it may end who only looks on
            self._inputs.refuse('observation', error)

    def _looked_at(self) -> set[str]:
        publishers = {'image': self._images, 'markers': self._markers}
        if self.settings.tf:
            publishers['tf'] = self._transforms
        return {name for name, one in publishers.items() if one.get_subscription_count()}

    def _listen(self, wanted: set[str]) -> None:
        """Subscribe to what is wanted and to nothing else."""
        for role in self._listening.keys() - wanted:
            self.destroy_subscription(self._listening.pop(role))
            self._newest.pop(role, None)
            if role == 'odometry':
                self._trail.clear()
        for role in sorted(wanted - self._listening.keys()):
            kind, take, profile = self._input(role)
            self._listening[role] = self._inputs.listen(
                kind, f'~/input/{role}', take, profile)

    def _input(self, role: str) -> tuple[type, Callable[[Any], None], QoSProfile]:
        """Return type, callback and quality of an input."""
        def keep(message: Any) -> None:
            self._keep(role, message)

        return {'observation': (Observation, keep, qos.WATCH),
                'action': (Action, keep, qos.WATCH),
                'applied_action': (AppliedAction, keep, qos.WATCH),
                'odometry': (Odometry, self._on_odometry, qos.WATCH),
                'camera_info': (CameraInfo, keep, qos.WATCH),
                'markers': (MarkerArray, keep, qos.WATCH),
                'path': (Path, keep, qos.LATCHED)}[role]

    def _keep(self, role: str, message: Any) -> None:
        self._newest[role] = message
        self._due |= {name for name, roles in NEEDS.items() if role in roles}

    def _on_odometry(self, message: Odometry) -> None:
        vehicle = from_odometry(message)
        self._keep('odometry', message)
        self._trail.add(vehicle)
        if self.settings.tf and self._transforms.get_subscription_count():
            self._transforms.publish(TFMessage(transforms=self._placed(message)))

    # -- transforms

    def _placed(self, message: Odometry) -> list[TransformStamped]:
        """Return the vehicle in its map, and its camera on it."""
        here, pose = TransformStamped(header=message.header), message.pose.pose
        here.child_frame_id = message.child_frame_id
        moved = here.transform
        moved.translation.x, moved.translation.y = pose.position.x, pose.position.y
        moved.translation.z = pose.position.z
        moved.rotation = pose.orientation
        info = self._newest.get('camera_info')
        if info is None or not info.header.frame_id:
            return [here]
        view = self.settings.view
        camera = TransformStamped(child_frame_id=info.header.frame_id)
        camera.header = Header(stamp=message.header.stamp, frame_id=message.child_frame_id)
        place = camera.transform.translation
        place.x, place.y, place.z = view.x, view.y, view.z
        camera.transform.rotation = _quaternion(orientation(view))
        return [here, camera]

    # -- the annotated image

    def _show_image(self) -> None:
        message = self._newest.get('observation')
        if message is None:
            return
        picture = self._annotator.draw(self._moment(message))
        self._shown.note()
        self._images.publish(Image(
            header=message.header, height=picture.shape[0], width=picture.shape[1],
            encoding='bgr8', step=3 * picture.shape[1], data=to_bytes(picture)))

    def _moment(self, message: Observation) -> Moment:
        """Return an observation with what was done on it, or last; raise ValueError."""
        count, height, width = message.count, message.height, message.width
        if not count * height * width or len(message.frames) != count * height * width:
            raise ValueError(f'{len(message.frames)} bytes are not {count} frames of '
                             f'{height}x{width}')
        frame = np.frombuffer(message.frames, np.uint8)[-height * width:].reshape(height, width)
        return Moment(
            frame, np.array(message.state, np.float32), message.episode, message.step,
            message.reward, {name: getattr(message.terms, name) for name in TERMS},
            message.reason, self._applied(), self._wanted())

    def _applied(self) -> Applied | None:
        one = self._newest.get('applied_action')
        return None if one is None else Applied(
            one.steer, one.acceleration, SOURCE_NAMES.get(one.source, f'source {one.source}'),
            one.exploring, one.policy_version)

    def _wanted(self) -> Wanted | None:
        one = self._newest.get('action')
        return None if one is None else Wanted(
            one.steer, one.acceleration, one.policy_version, one.inference_time)

    # -- markers

    def _show_markers(self) -> None:
        odometry, path = self._newest.get('odometry'), self._newest.get('path')
        if odometry is None:
            return
        vehicle = from_odometry(odometry)
        header = Header(stamp=odometry.header.stamp, frame_id=odometry.header.frame_id)
        markers = [trail_marker(header, self._trail.points, self.settings.top_speed)]
        if path is not None:
            markers.append(route_marker(header, [
                (one.pose.position.x, one.pose.position.y) for one in path.poses]))
        markers += self._vehicles(header, vehicle)
        markers += self._steering(header, vehicle)
        message = self._newest.get('observation')
        if message is not None:
            markers.append(text_marker(
                header, Pose(vehicle.x, vehicle.y, 0.0),
                f'episode {message.episode}  step {message.step}\n'
                f'{vehicle.speed:.1f} m/s  reward {message.reward:+.2f}  {message.reason}'))
        self._shown.note()
        self._markers.publish(MarkerArray(markers=markers))

    def _vehicles(self, header: Header, vehicle: VehicleState) -> list[Marker]:
        """Return the vehicle itself and the others, and take away those that are gone."""
        about = self.settings.prediction
        own = Box(0, vehicle.x, vehicle.y, vehicle.yaw, about.length, about.width)
        boxes: tuple[Box, ...] = ()
        message = self._newest.get('markers')
        if message is not None:
            try:
                _, boxes = from_markers(message)
            except ValueError as error:
                self._inputs.refuse('markers', error)
        others = [one for one in boxes
                  if math.hypot(one.x - vehicle.x, one.y - vehicle.y) > OWN_REACH]
        gone = self._shown_others - {one.id for one in others}
        self._shown_others = {one.id for one in others}
        return [box_marker(header, 'ego', own, (0.36, 0.78, 0.92)),
                *(box_marker(header, 'others', one, (0.93, 0.45, 0.3)) for one in others),
                *(removal(header, 'others', one) for one in sorted(gone))]

    def _steering(self, header: Header, vehicle: VehicleState) -> list[Marker]:
        applied = self._applied()
        if applied is None:
            return []
        about = self.settings.prediction
        ways = edges(predicted_path(applied.steer, vehicle.speed, about), 0.5 * about.width)
        pose = Pose(vehicle.x, vehicle.y, vehicle.yaw)
        return steering_markers(header, [from_vehicle_frame(one, pose) for one in ways],
                                SOURCES.get(applied.source, NOBODY))

    def _tell(self) -> Reading:
        """Say what is shown, for /diagnostics."""
        values = {'shown a second': self._shown.rate, 'refused': self._inputs.refused()}
        if not self._listening:
            return Reading(OK, 'nobody looks', values)
        if not self._newest:
            return Reading(WARN, 'somebody looks, but nothing has come: does a session of this '
                           'vehicle and profile run?', values)
        return Reading(OK, 'somebody looks', values)

    def close(self) -> None:
        """Nothing to finish."""


def _quaternion(rotation: np.ndarray) -> Quaternion:
    """Return a rotation matrix as a message."""
    turn = cv2.Rodrigues(rotation)[0].ravel()
    angle = float(np.linalg.norm(turn))
    x, y, z = turn * (math.sin(0.5 * angle) / angle if angle else 0.0)
    return Quaternion(x=float(x), y=float(y), z=float(z), w=math.cos(0.5 * angle))


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    run(InspectionNode, args)


if __name__ == '__main__':
    main()
