"""The renderer's publishers: images, camera, state and latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from cag_avatar_msgs.msg import StageLatency
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String

from cag_avatar.camera import PinholeCamera
from cag_avatar_node.image_sink import CompressedImageSink, ImageSink
from cag_avatar_node.qos import IMAGE_QOS, LATCHED_QOS

__all__ = ["AvatarOutputs"]

IMAGE_TOPIC = "avatar/image_raw"
COMPRESSED_TOPIC = "avatar/image_raw/compressed"
CAMERA_INFO_TOPIC = "avatar/camera_info"
STATE_TOPIC = "~/state"
LATENCY_TOPIC = "~/latency"


class AvatarOutputs:
    """Everything that the renderer publishes; used by its thread.

    Args:
        node: that publishes.
        encoding: of the raw images: rgb8, bgr8 or rgba8.
        frame_id: of image headers.
    """

    def __init__(self, node: Node, encoding: str, frame_id: str) -> None:
        self._node = node
        self._bgr = encoding == "bgr8"
        self._frame_id = frame_id
        self._image = ImageSink(node, IMAGE_TOPIC, IMAGE_QOS, encoding, frame_id)
        self._compressed = CompressedImageSink(node, COMPRESSED_TOPIC, IMAGE_QOS, frame_id)
        self._camera_info: Publisher[CameraInfo] = self._publisher(
            CameraInfo, CAMERA_INFO_TOPIC, IMAGE_QOS
        )
        self._latency: Publisher[StageLatency] = self._publisher(
            StageLatency, LATENCY_TOPIC, IMAGE_QOS
        )
        self._state: Publisher[String] = self._publisher(String, STATE_TOPIC, LATCHED_QOS)
        self._state_name = ""
        self._state_readers = 0

    @property
    def viewers(self) -> int:
        """How many subscriptions images have."""
        return self._image.subscribers + self._compressed.subscribers

    @property
    def audience(self) -> int:
        """How many subscriptions images and camera info have."""
        return self.viewers + int(self._camera_info.get_subscription_count())

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to know anything of the avatar."""
        others = (self._state, self._latency)
        return self.audience > 0 or any(p.get_subscription_count() > 0 for p in others)

    def publish_state(self, name: str) -> None:
        """Publish the state, if it changed or somebody new listens.

        Who listens late gets it from the middleware too, but after a restart Fast DDS may take 3 s
        (the pause between a writer's heartbeats) to notice that it has not arrived.
        """
        readers = int(self._state.get_subscription_count())
        if name != self._state_name or readers > self._state_readers:
            self._state_name = name
            self._state.publish(String(data=name))
        self._state_readers = readers

    def publish_camera(self, camera: PinholeCamera, stamp: Time) -> None:
        """Publish the intrinsics, if anybody listens."""
        if not self._camera_info.get_subscription_count():
            return
        info = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob")
        info.header.stamp = stamp
        info.header.frame_id = self._frame_id
        # ROS puts pixel centres at whole numbers, the renderer at halves.
        cx, cy = camera.cx - 0.5, camera.cy - 0.5
        info.d = [0.0] * 5
        info.k = [camera.fx, 0.0, cx, 0.0, camera.fy, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [camera.fx, 0.0, cx, 0.0, 0.0, camera.fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        self._camera_info.publish(info)

    def publish_images(
        self, draw: Callable[[], NDArray[np.uint8]], stamp: Time, jpeg_quality: int
    ) -> tuple[float, float] | None:
        """Draw and publish, if anybody listens.

        Args:
            draw: makes RGB uint8 [H, W, 3], or RGBA [H, W, 4].
            stamp: of the headers.
            jpeg_quality: 1 to 100.

        Returns:
            Seconds of drawing and of publishing, or None if nobody listens.
        """
        raw, compressed = self._image.has_subscribers, self._compressed.has_subscribers
        if not (raw or compressed):
            return None
        started = time.perf_counter()
        pixels = draw()
        drawn = time.perf_counter()
        if raw:
            own = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if self._bgr else pixels
            self._image.publish(np.asarray(own, np.uint8), stamp)
        if compressed:
            self._compressed.publish(pixels, stamp, jpeg_quality)
        return drawn - started, time.perf_counter() - drawn

    def publish_latency(self, stages: dict[str, float], stamp: Time) -> None:
        """Publish how long each stage took, in seconds, if anybody listens."""
        if not self._latency.get_subscription_count():
            return
        # The message has single precision, and stamps may lie decades off.
        limit = float(np.finfo(np.float32).max)
        seconds = [float(np.clip(value, -limit, limit)) for value in stages.values()]
        message = StageLatency(stages=list(stages), seconds=seconds)
        message.header.stamp = stamp
        message.header.frame_id = self._frame_id
        self._latency.publish(message)

    def destroy(self) -> None:
        """Destroy the publishers."""
        self._image.destroy()
        self._compressed.destroy()
        for publisher in (self._camera_info, self._latency, self._state):
            self._node.destroy_publisher(publisher)

    def _publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        return self._node.create_publisher(
            kind, topic, qos, qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )
