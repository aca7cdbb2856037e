"""The camera's messages as the frames that the policy sees."""
from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage

from av_td3_ros.driving.camera.check import compare_aspects
from av_td3_ros.driving.camera.image import (
    Frame,
    ImageError,
    decode_compressed,
    decode_image,
    to_grey,
    to_observation_frame,
)
from av_td3_ros.driving.camera.view import CameraView, CameraViewSettings
from av_td3_ros.ros import qos
from av_td3_ros.ros.conversions import from_camera_info, to_nanoseconds
from av_td3_ros.ros.inputs import Inputs
from av_td3_ros.ros.raw_image import RawImage
from av_td3_ros.ros.tracing import Trace


class CameraReader:
    """Makes frames of images, in the training camera's view where that is asked for."""

    def __init__(self, node: Node, inputs: Inputs, settings: CameraViewSettings, size: int,
                 trace: Trace) -> None:
        """Hear the camera_info among `inputs` if it is needed; frames are `size` square."""
        self._trace = trace
        self._node, self._settings, self._size = node, settings, size
        self._view: CameraView | None = None
        self._is_compared = settings.calibrate  # with the training camera's images, by shape
        self._missing = ''  # why there is no view, although one is asked for
        if settings.calibrate:
            heard = inputs.listen(CameraInfo, '~/input/camera_info', self._on_camera_info,
                                  qos.CAMERA_INFO)
            self._missing = (f'no camera_info on {heard.topic_name} yet: have the camera driver '
                             'publish it, or set camera.calibrate to false')

    def frame(self, message: RawImage | CompressedImage) -> Frame:
        """Return the frame of an image, uint8 (size, size); raise ImageError for none."""
        if isinstance(message, CompressedImage):
            image, encoding = decode_compressed(message.data), 'bgr8'
            stamp_ns = to_nanoseconds(message.header.stamp)
        else:
            stamp_ns, encoding = message.stamp_ns, message.encoding
            image = decode_image(message.data, message.height, message.width, encoding,
                                 message.step)
        self._trace.mark('decoded', stamp_ns)
        if self._missing:
            raise ImageError(self._missing)
        if not self._is_compared:
            self._is_compared = True
            self._compare(*image.shape[:2])
        if self._view is None:
            return to_observation_frame(image, encoding, self._size)
        return self._view(to_grey(image, encoding))

    def _on_camera_info(self, message: CameraInfo) -> None:
        """Prepare the view, anew when the calibration has changed."""
        try:
            calibration = from_camera_info(message, self._settings.rectified)
            if self._view is None or calibration != self._view.calibration:
                self._view = CameraView(calibration, self._settings, (self._size, self._size))
                self._tell(self._view)
            self._missing = ''
        except ValueError as error:
            self._missing = str(error)
            raise

    def _compare(self, height: int, width: int) -> None:
        """Say once by how much the images get squeezed: nothing else would show it."""
        if squeezed := compare_aspects(self._settings.training, width, height):
            self._node.get_logger().warning(
                f"the images are not shaped as the training camera's: {squeezed}; set "
                'camera.calibrate, or publish images of that aspect; where a policy learns with '
                'this camera, set camera.training.width and height to it')

    def _tell(self, view: CameraView) -> None:
        width, height = view.calibration.image_size
        self._node.get_logger().info(f'images of {width}x{height} are turned to the training '
                                     f"camera's view, {100.0 * view.coverage:.0f} % of it is seen")
        for one in view.warnings():
            self._node.get_logger().warning(one)
