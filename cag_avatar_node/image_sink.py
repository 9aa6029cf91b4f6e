"""Publish arrays as sensor_msgs/Image without copying them element by element."""

from __future__ import annotations

import array

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from cag_avatar_node.local_images import LocalImage, LocalTopic

__all__ = ["CompressedImageSink", "ImageSink"]


class ImageSink:
    """Publisher of uncompressed images.

    The message's memory is allocated once for a size and written through a numpy view.

    Args:
        node: that publishes.
        topic: name.
        qos: of the publisher.
        encoding: of the images.
        frame_id: of their headers.
        local: the same topic inside this process: who listens there gets the arrays themselves,
            which must then not be written to any more.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        qos: QoSProfile,
        encoding: str,
        frame_id: str,
        local: LocalTopic | None = None,
    ) -> None:
        self._node = node
        self._local = local
        if local is not None:
            local.add_source()
        self._publisher = node.create_publisher(
            Image,
            topic,
            qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._message = Image(encoding=encoding)
        self._message.header.frame_id = frame_id
        self._view: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)

    @property
    def subscribers(self) -> int:
        """How many listen."""
        here = 0 if self._local is None else self._local.listeners
        return here + int(self._publisher.get_subscription_count())

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody listens."""
        return self.subscribers > 0

    def publish(self, pixels: NDArray[np.uint8], stamp: Time, frame_id: str | None = None) -> None:
        """Publish uint8 [H, W, 3], whose channels are in the order of the sink's encoding; in the
        sink's frame unless another is given."""
        if self._local is not None and self._local.listeners:
            header = Header(stamp=stamp, frame_id=frame_id or self._message.header.frame_id)
            own = np.ascontiguousarray(pixels)
            self._local.publish(LocalImage.of(own, self._message.encoding, header))
            if not self._publisher.get_subscription_count():
                return
        if pixels.shape != self._view.shape:
            height, width, channels = pixels.shape
            self._message.data = array.array("B", bytes(height * width * channels))
            # Some distributions' setter copies: the view is of what the message holds.
            self._view = np.frombuffer(self._message.data, np.uint8).reshape(pixels.shape)
            self._message.height, self._message.width = height, width
            self._message.step = width * channels
        np.copyto(self._view, pixels)
        self._message.header.stamp = stamp
        if frame_id is not None:
            self._message.header.frame_id = frame_id
        self._publisher.publish(self._message)

    def destroy(self) -> None:
        """Destroy the publisher."""
        if self._local is not None:
            self._local.remove_source()
            self._local = None
        self._node.destroy_publisher(self._publisher)


class CompressedImageSink:
    """Publisher of JPEG images, or of PNG images where there is an alpha channel."""

    def __init__(self, node: Node, topic: str, qos: QoSProfile, frame_id: str) -> None:
        self._node = node
        self._publisher = node.create_publisher(
            CompressedImage,
            topic,
            qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._message = CompressedImage()
        self._message.header.frame_id = frame_id

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return int(self._publisher.get_subscription_count())

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody listens."""
        return bool(self._publisher.get_subscription_count())

    def publish(self, pixels: NDArray[np.uint8], stamp: Time, quality: int) -> None:
        """Publish RGB uint8 [H, W, 3] as a JPEG of quality 1 to 100, RGBA [H, W, 4] as a PNG."""
        # The format strings that image_transport's compressed plugin writes.
        if pixels.shape[2] == 4:
            kind, options = "png", [cv2.IMWRITE_PNG_COMPRESSION, 1]
            ordered = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
            self._message.format = "rgba8; png compressed bgra8"
        else:
            kind, options = "jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]
            ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
            self._message.format = "rgb8; jpeg compressed bgr8"
        encoded, data = cv2.imencode(f".{kind}", ordered, options)
        if not encoded:
            raise RuntimeError(
                f"OpenCV could not encode an image of shape {pixels.shape} as {kind}"
            )
        memory = array.array("B")
        memory.frombytes(data.data)
        self._message.data = memory
        self._message.header.stamp = stamp
        self._publisher.publish(self._message)

    def destroy(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)
