"""Camera, odometry and other vehicles, brought together as they were at one time."""
from __future__ import annotations

import math
from collections.abc import Callable

from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from av_td3_ros.driving.camera.image import Frame, ImageError
from av_td3_ros.driving.camera.view import CameraViewSettings
from av_td3_ros.driving.perception.obstacles import Box
from av_td3_ros.driving.perception.pairing import Measurement, MeasurementPairer, PairingSettings
from av_td3_ros.driving.perception.vehicle_state import VehicleState
from av_td3_ros.ros import qos
from av_td3_ros.ros.camera import CameraReader
from av_td3_ros.ros.conversions import from_odometry, to_nanoseconds
from av_td3_ros.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Meter, Reading, stream
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.markers import from_markers
from av_td3_ros.ros.raw_image import RawImage, read_image
from av_td3_ros.ros.runtime import Throttle
from av_td3_ros.ros.tracing import Trace

LARGE = 1 << 23  # bytes of an image that is made small at once: many may have to wait
SILENT = 1.0   # s of wall time without a message after which a sensor counts as gone
UNPAIRED = 20  # images that come one after the other, and none of them finds an odometry

Seen = tuple[Frame, VehicleState, tuple[Box, ...] | None]
"""A frame, the vehicle at its time, and the other vehicles then where they are measured."""


class Sensing:
    """
    Listen to the sensors of a node and pass on what was measured at the same time.

    `take` gets each frame with its vehicle and the others, `miss` each vehicle whose image cannot
    be used, `heard_in` the frame of reference of each odometry, which it may refuse by ValueError.
    """

    def __init__(self, node: Node, inputs: Inputs, trace: Trace, *, transport: str, size: int,
                 camera: CameraViewSettings, pairing: PairingSettings, with_others: bool,
                 take: Callable[[Frame, VehicleState, tuple[Box, ...] | None], None],
                 miss: Callable[[VehicleState], None], heard_in: Callable[[str], None]) -> None:
        """Subscribe; frames are `size` square, images come by `transport`, raw or compressed."""
        self._node, self._inputs, self._trace = node, inputs, trace
        self._take, self._miss, self._heard_in = take, miss, heard_in
        self._tolerance_ns = pairing.tolerance * 1e9
        self._pairer: MeasurementPairer = MeasurementPairer(pairing, with_others)
        self.camera = CameraReader(node, inputs, camera, size, trace)
        self.world_stands = False
        self._images, self._odometry = Meter(), Meter()
        self._alone, self._unpaired = Throttle(), Throttle(10.0)
        self._image_ns, self._apart_ns = 0, math.inf  # newest; how near odometry has come to one
        self._lonely = self._counted = 0  # images in a row that have not found their odometry
        if transport == 'raw':
            inputs.listen(Image, '~/input/image', self._on_raw_image, qos.SENSOR, raw=True)
        else:
            inputs.listen(CompressedImage, '~/input/image', self._on_compressed_image, qos.SENSOR)
        self.odometry_topic: str = inputs.listen(
            Odometry, '~/input/odometry', self._on_odometry, qos.SENSOR).topic_name
        if with_others:
            inputs.listen(MarkerArray, '~/input/markers', self._on_markers, qos.SENSOR)

    @property
    def counts(self) -> dict[str, int]:
        """Return how many messages found no partner, and why."""
        return {**self._pairer.counts, 'images_refused': self._inputs.refused('image')}

    def forget(self, before_ns: int) -> None:
        """Bring nothing together that was measured before this time."""
        self._pairer.clear(drop_before_ns=before_ns)

    def add_to(self, diagnostics: Diagnostics) -> None:
        """Tell how the sensors fare."""
        diagnostics.add('camera', lambda: self._tell_stream(
            'image', self._images, "is the camera's driver alive?"))
        diagnostics.add('odometry', lambda: self._tell_stream(
            'odometry', self._odometry, 'is the localisation alive?'))
        diagnostics.add('pairing', self._tell_pairing)

    def _on_raw_image(self, message: bytes) -> None:
        image = read_image(message)
        self._on_image(image.stamp_ns, image)

    def _on_compressed_image(self, message: CompressedImage) -> None:
        self._on_image(to_nanoseconds(message.header.stamp), message)

    def _on_image(self, stamp_ns: int, message: RawImage | CompressedImage) -> None:
        self._images.note()
        self._trace.mark('image arrived', stamp_ns)
        self._image_ns = stamp_ns
        self._lonely += 1
        image: RawImage | CompressedImage | Frame | ImageError = message
        if len(message.data) > LARGE:
            try:
                image = self.camera.frame(message)
            except ImageError as error:
                image = error
        self._pass_on(self._pairer.add_image(stamp_ns, image))

    def _on_odometry(self, message: Odometry) -> None:
        vehicle = from_odometry(message)
        self._odometry.note()
        self._apart_ns = min(self._apart_ns, abs(vehicle.stamp_ns - self._image_ns))
        self._heard_in(message.header.frame_id)
        lonely = self._pairer.lonely_odometry
        self._pass_on(self._pairer.add_odometry(vehicle.stamp_ns, vehicle))
        if self._pairer.lonely_odometry > lonely and self._alone.ready():
            self._node.get_logger().warning(
                'no markers with the stamp of the odometry: have the bridge publish them '
                '(sensor.pseudo.markers), or set obstacles.measured to false')

    def _on_markers(self, message: MarkerArray) -> None:
        self._pass_on(self._pairer.add_others(*from_markers(message)))

    def _pass_on(self, measurements: list[Measurement]) -> None:
        for one in measurements:
            self._lonely = 0
            self._trace.mark('paired', one.odometry.stamp_ns)
            try:
                frame = self._frame(one.image)
            except ImageError as error:
                self._inputs.refuse('image', error)
                self._miss(one.odometry)
                continue
            self._trace.mark('preprocessed', one.odometry.stamp_ns)
            self._take(frame, one.odometry, one.others)

    def _frame(self, image: RawImage | CompressedImage | Frame | ImageError) -> Frame:
        if isinstance(image, ImageError):
            raise image
        if isinstance(image, (RawImage, CompressedImage)):
            return self.camera.frame(image)
        return image

    def _tell_stream(self, what: str, meter: Meter, remedy: str) -> Reading:
        if self.world_stands:
            return Reading(OK, f'{what}: the world is paused (a learner that is behind holds it)')
        return stream(what, meter, SILENT, remedy)

    def _tell_pairing(self) -> Reading:
        counts = {**self._pairer.counts, 'refused': self._inputs.refused()}
        before, self._counted = self._counted, sum(counts.values())
        apart_ns, self._apart_ns = self._apart_ns, math.inf
        if self._lonely >= UNPAIRED and self._tolerance_ns < apart_ns < math.inf:
            words = (f'no image finds its odometry: their stamps are {1e-6 * apart_ns:.1f} ms '
                     f'apart or more, pairing.tolerance is {1e-6 * self._tolerance_ns:g} ms; set '
                     'it to half the time between two of odometry, or stamp both by one clock '
                     '(av-td3 doctor tells)')
            if self._unpaired.ready():
                self._node.get_logger().warning(words)
            return Reading(ERROR, words, counts)
        if self._counted > before:
            return Reading(WARN, f'{self._counted - before} messages of camera or odometry were '
                           'late, refused or without partner since the last look', counts)
        return Reading(OK, 'image and odometry find each other', counts)
