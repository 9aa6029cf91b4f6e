"""Records expression codes and camera data from live topics to a bag."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rclpy
from cag_avatar_msgs.msg import FaceExpression
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from cag_avatar.errors import InputError
from cag_avatar_node.bag_files import FACE_EXPRESSION, Storage, open_bag_writer

__all__ = ["RecordConfig", "record_bag"]

#: What reaches this machine is to be recorded, even while the disk is slow.
_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.BEST_EFFORT
)
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded, and where."""

    output: Path
    """Folder of the new bag."""
    expression_topic: str = "operator/face/expression"
    """Of type cag_avatar_msgs/FaceExpression."""
    camera_info_topic: str = "avatar/camera_info"
    """Of type sensor_msgs/CameraInfo; empty: none."""
    storage: Storage = "mcap"
    """File format."""
    duration_s: float | None = None
    """Stop after so long, seconds; None: at Ctrl-C."""

    def __post_init__(self) -> None:
        if self.duration_s is not None and not self.duration_s > 0:
            raise InputError(f"seconds {self.duration_s} must be positive")


def record_bag(config: RecordConfig, context: rclpy.Context | None = None) -> dict[str, int]:
    """Record until the time is over or Ctrl-C; returns the messages by topic.

    Messages are written as they came over the wire, with the time of their arrival.

    Args:
        config: what to record.
        context: of rclpy, initialised; None: one of its own.

    Raises:
        MissingDependencyError: rosbags is not installed.
        InputError: the bag exists or cannot be written, or no expression came (no bag is left).
    """
    own = context is None
    if context is None:
        context = rclpy.Context()
        rclpy.init(args=[], context=context)
    node = rclpy.create_node("cag_avatar_bag", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    arrived: deque[tuple[str, int, bytes]] = deque()

    def take(topic: str, data: bytes) -> None:
        arrived.append((topic, node.get_clock().now().nanoseconds, data))

    try:
        with open_bag_writer(config.output, config.storage) as writer:
            expressions = node.resolve_topic_name(config.expression_topic)
            kinds = {expressions: (FaceExpression, FACE_EXPRESSION)}
            if config.camera_info_topic:
                camera = node.resolve_topic_name(config.camera_info_topic)
                kinds[camera] = (CameraInfo, _CAMERA_INFO)
            for topic, (kind, name) in kinds.items():
                writer.add_topic(topic, name)
                node.create_subscription(kind, topic, partial(take, topic), _QOS, raw=True)
            stop = None if config.duration_s is None else time.monotonic() + config.duration_s
            try:
                while context.ok() and (stop is None or time.monotonic() < stop):
                    executor.spin_once(timeout_sec=0.1)
                    while arrived:
                        writer.write(*arrived.popleft())
            except (KeyboardInterrupt, ExternalShutdownException):
                pass
            while arrived:
                writer.write(*arrived.popleft())
            if not writer.counts[expressions]:
                raise InputError(
                    f"no message came on {expressions}: is the estimator running, in this "
                    "ROS_DOMAIN_ID and namespace?"
                )
            return dict(writer.counts)
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        if own:
            context.try_shutdown()
