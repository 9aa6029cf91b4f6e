"""ROS node: images of a face in, expression codes out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from cag_avatar_msgs.msg import FaceExpression
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from cag_avatar.errors import InputError
from cag_avatar_node.code_source import load_code_regressor, select_code
from cag_avatar_node.estimator_parameters import PARAMETERS
from cag_avatar_node.expression_message import face_message, no_face_message
from cag_avatar_node.expression_smoothing import ExpressionSmoother, SmoothingConfig
from cag_avatar_node.face_annotation import RateLimit, annotate_face
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.human_mirror import (
    FaceFrames,
    HumanMirror,
    SeenFace,
    human_id,
    import_optional,
)
from cag_avatar_node.image_conversion import (
    ImageFormatError,
    compressed_to_rgb,
    image_to_rgb,
    silence_decoder,
)
from cag_avatar_node.image_input import RAW_TOPIC, AnyImage, ImageInput
from cag_avatar_node.image_sink import ImageSink
from cag_avatar_node.mailbox import MailboxWorker
from cag_avatar_node.managed_node import ManagedNode, run_managed_node
from cag_avatar_node.node_health import Health
from cag_avatar_node.operator_calibrator import OperatorCalibrator
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS
from cag_avatar_node.stamp_order import Order, StampOrder
from cag_avatar_node.timing import TimingWindow

if TYPE_CHECKING:
    from cag_avatar.tracking.estimator import ExpressionEstimator, FaceEstimate

__all__ = ["PARAMETERS", "ExpressionEstimatorNode", "main"]

EXPRESSION_TOPIC = "operator/face/expression"


class ExpressionEstimatorNode(ManagedNode):
    """``camera/image_raw`` or ``camera/image_raw/compressed`` in, ``operator/face/expression`` out,
    one message an image estimated.

    The image callback only stores the newest image; one worker thread estimates. Images that nobody
    wants anything of are not looked at.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("expression_estimator", PARAMETERS, **options)
        self._estimator: ExpressionEstimator | None = None
        self._calibrator: OperatorCalibrator | None = None
        self._worker: MailboxWorker[AnyImage] | None = None
        self._input: ImageInput | None = None
        self._publisher: Publisher[FaceExpression] | None = None
        self._annotated: ImageSink | None = None
        self._mirror: HumanMirror | None = None
        self._frames: FaceFrames | None = None
        self._faults = FaultLog(self.get_logger().warning)
        self._stages = {name: TimingWindow() for name in ("decode", "estimate", "latency")}
        self._order = StampOrder()
        self._smoother = ExpressionSmoother()
        self._annotations = RateLimit()
        self._sequence = 0
        self._replaced = 0
        self._operator = 0
        self._seen = False
        self.create_service(Trigger, "~/calibrate", self._on_calibrate)

    def configure(self) -> None:
        """Load the face tracker, the operator's calibration, and the avatar's regressor if it is
        wanted."""
        silence_decoder()
        tell = self.get_logger().info
        self._calibrator = OperatorCalibrator(
            self.value("operator_name"), self.value("calibration_dir"), tell
        )
        regressor = load_code_regressor(self.value("avatar"), self.value("regressor"), tell)
        self._estimator = self._make_estimator(regressor)
        self._operator = 0

    def activate(self) -> None:
        """Subscribe and publish."""
        self._publisher = self.create_publisher(
            FaceExpression,
            EXPRESSION_TOPIC,
            EXPRESSION_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._annotated = ImageSink(self, "~/annotated", IMAGE_QOS, "rgb8", "")
        tell = self.get_logger().info
        messages = import_optional("hri_msgs.msg", self.value("publish_hri"), "publish_hri", tell)
        if messages is not None:
            self._mirror = HumanMirror(self, messages, EXPRESSION_QOS)
        frames = import_optional("tf2_ros", self.value("publish_tf"), "publish_tf", tell)
        if frames is not None and self._frames is None:  # a broadcaster cannot be destroyed
            self._frames = FaceFrames(self, frames)
        self._worker = MailboxWorker("estimate", self._handle, self.report_exception)
        self._worker.start()
        self._input = ImageInput(
            self, self.value("input"), self.value("input_timeout"), self._worker.mailbox.put,
            self._wanted, self.local_topic(RAW_TOPIC),
        )  # fmt: skip

    def deactivate(self) -> None:
        """Stop subscribing and publishing."""
        if self._input is not None:
            self._input.destroy()
            self._input = None
        if self._worker is not None:
            self._worker.stop()
            self._replaced += self._worker.mailbox.replaced
            self._worker = None
        if self._mirror is not None:
            self._mirror.destroy()
            self._mirror = None
        if self._annotated is not None:
            self._annotated.destroy()
            self._annotated = None
        if self._publisher is not None:
            self.destroy_publisher(self._publisher)
            self._publisher = None

    def cleanup(self) -> None:
        """Close the face tracker."""
        if self._estimator is not None:
            self._estimator.close()
            self._estimator = None
        self._calibrator = None
        self._order.restart()
        self._smoother.restart()

    def health(self) -> Health:
        """Rate, latency of each stage, drops, and whether a face is seen."""
        now = self.seconds()
        health = Health()
        health.values["state"] = "face" if self._seen else "no face"
        health.values["rate_hz"] = f"{self._stages['latency'].rate(now):.2f}"
        for name, window in self._stages.items():
            health.add_timings(name, window, now)
        if self._input is not None:
            health.values["input"] = self._input.current
        if self._calibrator is not None:
            health.values["calibration"] = self._calibrator.state
        health.values["operators"] = str(self._operator + 1)
        replaced = self._worker.mailbox.replaced if self._worker is not None else 0
        health.values["images_skipped"] = str(self._replaced + replaced)
        for kind, count in self._faults.counts().items():
            health.values[f"dropped_{kind}"] = str(count)
            health.worsen(DiagnosticStatus.WARN, f"images dropped ({kind}): {count}")
        silence = self._input.silence() if self._input is not None else None
        if silence is not None:
            health.worsen(DiagnosticStatus.WARN, silence)
        return health

    def _make_estimator(self, regressor: Any) -> ExpressionEstimator:
        # Imported here: it brings mediapipe, which the other nodes do without.
        from cag_avatar.tracking.estimator import EstimatorConfig, ExpressionEstimator
        from cag_avatar.tracking.fit_config import FitConfig

        # Hardly held near the frame before: steadying is the smoother's, and would be done twice.
        free = FitConfig(smooth_code=10.0, smooth_rotation=3.0, smooth_translation=1.0)
        config = EstimatorConfig(
            max_faces=self.value("max_faces"),
            operator_timeout_s=self.value("operator_timeout_s"),
            fit=free,
        )
        return ExpressionEstimator(config, regressor)

    def _on_calibrate(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Watch the operator for ``calibrate_s`` seconds; answers at once."""
        calibrator = self._calibrator
        response.success = calibrator is not None and self._worker is not None
        if calibrator is None or not response.success:
            response.message = "the node is not active"
        else:
            response.message = calibrator.request(self.value("calibrate_s"))
            self.get_logger().info(f"calibration: {response.message}")
        return response

    def _wanted(self) -> bool:
        """Whether anybody wants anything of the next image."""
        return any(
            (
                self._publisher is not None and self._publisher.get_subscription_count() > 0,
                self._annotated is not None and self._annotated.has_subscribers,
                self._mirror is not None and self._mirror.has_subscribers,
                self._calibrator is not None and self._calibrator.running,
            )
        )

    def _handle(self, image: AnyImage) -> None:
        if self._estimator is None or not self._wanted():
            return
        started = time.perf_counter()
        try:
            if isinstance(image, CompressedImage):
                rgb = compressed_to_rgb(image)
            else:
                rgb = image_to_rgb(image)
        except ImageFormatError as error:
            self._faults.add(error.fault, str(error))
            return
        decoded = time.perf_counter()
        stamp = _nanoseconds(image.header.stamp)
        if not self._in_order(stamp):
            return
        try:
            estimate = self._estimator.estimate(rgb, stamp)
        except InputError as error:
            self._faults.add("image", str(error))
            return
        seen = self._publish(image.header, rgb, estimate)
        estimated = time.perf_counter()

        now = self.seconds()
        self._stages["decode"].add(now, decoded - started)
        self._stages["estimate"].add(now, estimated - decoded)
        self._stages["latency"].add(now, now - stamp * 1e-9)
        self._publish_for_others(image.header, rgb, estimate, seen)

    def _publish(
        self, header: Header, rgb: NDArray[np.uint8], estimate: FaceEstimate
    ) -> SeenFace | None:
        """Publish the expression; returns the face as published, None if there is none."""
        if estimate.operator != self._operator:
            self._operator = estimate.operator
            self._smoother.restart()
        face_id = self.value("face_id")
        seen = self._finish(header, rgb, estimate) if estimate.is_valid else None
        if seen is None:
            message = no_face_message(header, face_id, self._sequence)
        else:
            message = face_message(
                header, face_id, self._sequence, seen.code, seen.head_pose, seen.confidence,
                seen.eyes_valid,
            )  # fmt: skip
        if self._publisher is not None:
            self._publisher.publish(message)
        self._sequence = (self._sequence + 1) % 2**32
        self._seen = bool(message.is_valid)
        return seen if self._seen else None

    def _finish(
        self, header: Header, rgb: NDArray[np.uint8], estimate: FaceEstimate
    ) -> SeenFace | None:
        """Smooth and calibrate an estimate."""
        assert self._estimator is not None
        assert self._calibrator is not None
        code, source = select_code(estimate, self.value("regressor"), self._estimator.own_person)
        pose, seconds = estimate.head_pose, _nanoseconds(header.stamp) * 1e-9
        if estimate.face is None or not (np.isfinite(code).all() and np.isfinite(pose).all()):
            return None
        if self.value("smoothing") == "on":
            config = SmoothingConfig(self.value("min_cutoff"), self.value("beta"))
            code, pose = self._smoother.update(code, pose, seconds, config)
        else:
            self._smoother.restart()
        code = self._calibrator.process(
            code, seconds, source=source, operator=estimate.operator,
            confidence=estimate.confidence, eyes_valid=estimate.eyes_valid,
            apply=self.value("calibration") == "on",
        )  # fmt: skip
        size = (rgb.shape[1], rgb.shape[0])
        return SeenFace(estimate.face, size, code, pose, estimate.confidence, estimate.eyes_valid)

    def _publish_for_others(
        self,
        header: Header,
        rgb: NDArray[np.uint8],
        estimate: FaceEstimate,
        seen: SeenFace | None,
    ) -> None:
        """After the expression, which must not wait: REP-155, TF, the annotated picture."""
        name = human_id(self.value("face_id"), estimate.operator)
        if self._mirror is not None:
            self._mirror.publish(header, name, seen)
        if self._frames is not None and seen is not None and self.value("publish_tf"):
            self._frames.publish(header, name, seen)
        annotated = self._annotated
        if annotated is None or not annotated.has_subscribers:
            return
        if self._annotations.due(time.monotonic(), self.value("annotated_rate")):
            annotated.publish(annotate_face(rgb, estimate), header.stamp, header.frame_id)

    def _in_order(self, stamp: int) -> bool:
        """Whether an image is newer than the last; a source that started again counts as newer."""
        last = self._order.last
        order = self._order.take(stamp)
        if order is Order.RESTARTED:
            self.get_logger().info(
                "image stamps went back: the source started again", throttle_duration_sec=5.0
            )
            assert self._estimator is not None
            self._estimator.restart()
            self._smoother.restart()
        elif order is Order.STALE:
            self._faults.add(
                "stamp",
                f"stamp {stamp} ns of an image is not later than that of the one before ({last} "
                "ns): publish the acquisition time of each image",
            )
        return order is not Order.STALE


def _nanoseconds(stamp: TimeMessage) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run_managed_node(ExpressionEstimatorNode, args)


if __name__ == "__main__":
    sys.exit(main())
