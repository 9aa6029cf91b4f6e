"""ROS node: images of a face in, expression codes out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time as TimeMessage
from cag_avatar_msgs.msg import FaceExpression
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.head_pose_conversion import head_pose_to_face_pose
from cag_avatar_node.image_conversion import ImageFormatError, image_to_rgb
from cag_avatar_node.input_watch import InputWatch
from cag_avatar_node.mailbox import MailboxWorker
from cag_avatar_node.managed_node import ManagedNode, run_managed_node
from cag_avatar_node.node_health import Health
from cag_avatar_node.node_parameters import NodeParameter
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS
from cag_avatar_node.timing import TimingWindow

__all__ = ["PARAMETERS", "ExpressionEstimatorNode", "main"]

IMAGE_TOPIC = "camera/image_raw"
EXPRESSION_TOPIC = "operator/face/expression"
#: A stamp that goes back by more than this is a source that started again, not disorder.
RESTART_SECONDS = 0.5

PARAMETERS: tuple[NodeParameter, ...] = (
    NodeParameter("avatar", "", "Path of the avatar file (*.cag) whose own regressor may be used."),
    NodeParameter(
        "regressor",
        "auto",
        "Codes by the regressor of the avatar file, which only knows the avatar's own person: on; "
        "off; auto: once the face in the images is found to be theirs.",
        choices=("auto", "on", "off"),
    ),
    NodeParameter("face_id", "", "Identifier written into the messages."),
    NodeParameter("input_timeout", 5.0, "Seconds without an image before a warning.", 0.5, 3600.0),
)


class ExpressionEstimatorNode(ManagedNode):
    """``camera/image_raw`` in, ``operator/face/expression`` out, one message an image estimated.

    The image callback only stores the newest image; one worker thread estimates. Images that nobody
    wants codes of are not looked at.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("expression_estimator", PARAMETERS, **options)
        self._estimator: Any = None
        self._regressor: Any = None
        self._worker: MailboxWorker[Image] | None = None
        self._subscription: Subscription[Image] | None = None
        self._publisher: Publisher[FaceExpression] | None = None
        self._watch: InputWatch | None = None
        self._faults = FaultLog(self.get_logger().warning)
        self._stages = {name: TimingWindow() for name in ("decode", "estimate", "latency")}
        self._sequence = 0
        self._replaced = 0
        self._last_stamp = 0
        self._face_seen = False

    def configure(self) -> None:
        """Load the face tracker, and the avatar's regressor if it is wanted."""
        self._regressor = self._load_regressor()
        self._estimator = self._make_estimator()

    def activate(self) -> None:
        """Subscribe and publish."""
        self._publisher = self.create_publisher(
            FaceExpression,
            EXPRESSION_TOPIC,
            EXPRESSION_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._worker = MailboxWorker("estimate", self._estimate, self.report_exception)
        self._worker.start()
        self._subscription = self.create_subscription(
            Image,
            IMAGE_TOPIC,
            self._on_image,
            IMAGE_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._watch = InputWatch(self, IMAGE_TOPIC, IMAGE_QOS, self.value("input_timeout"))

    def deactivate(self) -> None:
        """Stop subscribing and publishing."""
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._worker is not None:
            self._worker.stop()
            self._replaced += self._worker.mailbox.replaced
            self._worker = None
        if self._publisher is not None:
            self.destroy_publisher(self._publisher)
            self._publisher = None

    def cleanup(self) -> None:
        """Close the face tracker."""
        if self._estimator is not None:
            self._estimator.close()
            self._estimator = None
        self._last_stamp = 0

    def health(self) -> Health:
        """Rate, latency of each stage, drops, and whether a face is seen."""
        now = self.seconds()
        health = Health()
        health.values["state"] = "face" if self._face_seen else "no face"
        health.values["rate_hz"] = f"{self._stages['latency'].rate(now):.2f}"
        for name, window in self._stages.items():
            health.add_timings(name, window, now)
        replaced = self._worker.mailbox.replaced if self._worker is not None else 0
        health.values["images_skipped"] = str(self._replaced + replaced)
        for kind, count in self._faults.counts().items():
            health.values[f"dropped_{kind}"] = str(count)
            health.worsen(DiagnosticStatus.WARN, f"images dropped ({kind}): {count}")
        silence = self._watch.check() if self._watch is not None else None
        if silence is not None:
            health.worsen(DiagnosticStatus.WARN, silence)
        return health

    def _make_estimator(self) -> Any:
        # Imported here: it brings mediapipe, which the other nodes do without.
        from cag_avatar.tracking.estimator import EstimatorConfig, ExpressionEstimator

        return ExpressionEstimator(EstimatorConfig(), self._regressor)

    def _load_regressor(self) -> Any:
        """The regressor that the parameters ask for; None: the fit's codes are sent."""
        path, wanted = self.value("avatar"), self.value("regressor")
        if wanted == "off" or not path:
            if wanted == "on":
                raise InputError("parameter regressor is on, but avatar is not set: name the file")
            return None
        from cag_avatar.avatar.file import load_regressor

        regressor = load_regressor(Path(path).expanduser())
        if regressor is None:
            reason = f"avatar {path} has no regressor: run 'cag-avatar train-regressor'"
            if wanted == "on":
                raise InputError(reason)
            self.get_logger().info(reason)
            return None
        try:
            size = regressor.coefficients
        except MissingDependencyError as error:
            if wanted == "on":
                raise
            self.get_logger().warning(f"going on without the regressor: {error}")
            return None
        if size != len(ARKIT_NAMES):
            raise InputError(f"avatar {path}: its regressor gives {size} coefficients, not ARKit's")
        return regressor

    def _code(self, estimate: Any) -> Any:
        if self._regressor is None or estimate.regressed is None:
            return estimate.code
        own = self.value("regressor") == "on" or self._estimator.own_person
        return estimate.regressed if own else estimate.code

    def _on_image(self, image: Image) -> None:
        if self._watch is not None:
            self._watch.received()
        worker = self._worker
        if worker is not None:
            worker.mailbox.put(image)

    def _estimate(self, image: Image) -> None:
        publisher = self._publisher
        if publisher is None or not publisher.get_subscription_count():
            return
        started = time.perf_counter()
        try:
            rgb = image_to_rgb(image)
        except ImageFormatError as error:
            self._faults.add(error.fault, str(error))
            return
        decoded = time.perf_counter()
        stamp = _nanoseconds(image.header.stamp)
        if not self._in_order(stamp):
            return
        estimate = self._estimator.estimate(rgb, stamp)
        estimated = time.perf_counter()

        message = FaceExpression()
        message.header = image.header
        message.face_id = self.value("face_id")
        message.layout = FaceExpression.ARKIT_52
        message.is_valid = bool(estimate.is_valid)
        message.sequence = self._sequence
        message.head_orientation = [0.0, 0.0, 0.0, 1.0]
        if message.is_valid:
            position, orientation = head_pose_to_face_pose(estimate.head_pose)
            message.coefficients = self._code(estimate).tolist()
            message.head_position = position.astype("float32")
            message.head_orientation = orientation.astype("float32")
            message.confidence = float(estimate.confidence)
            message.eyes_valid = bool(estimate.eyes_valid)
        publisher.publish(message)
        self._sequence = (self._sequence + 1) % 2**32
        self._face_seen = message.is_valid

        now = self.seconds()
        self._stages["decode"].add(now, decoded - started)
        self._stages["estimate"].add(now, estimated - decoded)
        self._stages["latency"].add(now, now - stamp * 1e-9)

    def _in_order(self, stamp: int) -> bool:
        """Whether an image is newer than the last; a source that started again counts as newer."""
        if 0 < stamp < self._last_stamp - RESTART_SECONDS * 1e9:
            self.get_logger().info("image stamps went back: the source started again")
            self._estimator.close()
            self._estimator = self._make_estimator()
        elif stamp <= self._last_stamp:
            self._faults.add(
                "stamp",
                f"Image.header.stamp {stamp} ns is not later than the image before "
                f"({self._last_stamp} ns): publish the acquisition time of each image",
            )
            return False
        self._last_stamp = stamp
        return True


def _nanoseconds(stamp: TimeMessage) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run_managed_node(ExpressionEstimatorNode, args)


if __name__ == "__main__":
    sys.exit(main())
