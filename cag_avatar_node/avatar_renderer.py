"""ROS node: expression codes in, images of the avatar out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from cag_avatar_msgs.msg import FaceExpression
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import Trigger

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node.expression_hold import ExpressionHold, HoldConfig, HoldState, ShownExpression
from cag_avatar_node.expression_validation import ExpressionError, check_expression
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.image_sink import CompressedImageSink, ImageSink
from cag_avatar_node.input_watch import InputWatch
from cag_avatar_node.mailbox import MailboxWorker
from cag_avatar_node.managed_node import ManagedNode, run_managed_node
from cag_avatar_node.neutral_pose import NeutralPose
from cag_avatar_node.node_health import Health
from cag_avatar_node.node_parameters import NodeParameter
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS
from cag_avatar_node.timing import TimingWindow

__all__ = ["PARAMETERS", "AvatarRenderer", "main"]

EXPRESSION_TOPIC = "operator/face/expression"
IMAGE_TOPIC = "avatar/image_raw"
COMPRESSED_TOPIC = "avatar/image_raw/compressed"
CAMERA_INFO_TOPIC = "avatar/camera_info"
#: Seconds between pictures of a fading expression when no message drives the rendering.
FADE_INTERVAL = 1 / 25

PARAMETERS: tuple[NodeParameter, ...] = (
    NodeParameter("avatar", "", "Path of the avatar file (*.cag)."),
    NodeParameter(
        "backend",
        "auto",
        "Rasteriser; auto: the fastest that this machine has.",
        choices=("auto", "cpu", "cuda", "torch"),
    ),
    NodeParameter("size", 512, "Width and height of the images, pixels.", 64, 2048),
    NodeParameter("background", [255, 255, 255], "Background colour: red, green, blue, 0 to 255."),
    NodeParameter(
        "head_motion",
        "relative",
        "relative: the avatar's head moves from its own rest pose as the operator's does from "
        "theirs, within what training saw; absolute: it takes the operator's pose; none: it rests.",
        choices=("relative", "absolute", "none"),
        dynamic=True,
    ),
    NodeParameter(
        "expression",
        "relative",
        "relative: what changes in the operator's face since its rest (which is followed) is added "
        "to the avatar's own rest; absolute: codes are taken as they are. Both within what "
        "training saw.",
        choices=("relative", "absolute"),
        dynamic=True,
    ),
    NodeParameter(
        "gaze",
        "follow",
        "follow: the avatar's eyes look where the operator's look, relative to the head; none: "
        "straight ahead.",
        choices=("follow", "none"),
        dynamic=True,
    ),
    NodeParameter(
        "neutral_s",
        1.0,
        "Seconds, from the first face on, whose mean head pose is the operator's rest pose.",
        0.0,
        60.0,
    ),
    NodeParameter(
        "jpeg_quality", 90, "JPEG quality of the compressed images.", 1, 100, dynamic=True
    ),
    NodeParameter(
        "hold_s", 0.25, "Seconds without a face for which the last expression stays.", 0.0, 60.0
    ),
    NodeParameter(
        "decay_s", 0.75, "Seconds in which it then fades to neutral; 0: at once.", 0.0, 60.0
    ),
    NodeParameter("input_timeout", 5.0, "Seconds without a message before a warning.", 0.5, 3600.0),
    NodeParameter("frame_id", "avatar_camera_optical_frame", "Frame of the image headers."),
)


class AvatarRenderer(ManagedNode):
    """``operator/face/expression`` in; ``avatar/image_raw``, ``avatar/image_raw/compressed`` and
    ``avatar/camera_info`` out.

    Every output carries the stamp of the newest camera image that it is based on. Nothing is
    rendered while nobody subscribes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("avatar_renderer", PARAMETERS, **options)
        self._animator: Any = None
        self._hold = ExpressionHold(HoldConfig())
        self._worker: MailboxWorker[FaceExpression] | None = None
        self._subscription: Subscription[FaceExpression] | None = None
        self._image: ImageSink | None = None
        self._compressed: CompressedImageSink | None = None
        self._camera_info: Publisher[CameraInfo] | None = None
        self._watch: InputWatch | None = None
        self._faults = FaultLog(self.get_logger().warning)
        self._stages = {name: TimingWindow() for name in ("render", "publish", "latency")}
        self._clamped = 0
        self._replaced = 0
        self._newest_stamp: TimeMessage | None = None
        self._settled = True
        self._neutral = NeutralPose(0.0)
        self._driver: Any = None
        self._recentered = False
        self._recenter = self.create_service(Trigger, "~/recenter", self._on_recenter)

    def configure(self) -> None:
        """Load the avatar and render it once, so that the first live frame is not the slow one."""
        path = self.value("avatar")
        if not path:
            raise InputError("parameter avatar is not set: give the path of an avatar file (*.cag)")
        background = tuple(int(channel) for channel in self.value("background"))
        if len(background) != 3 or not all(0 <= channel <= 255 for channel in background):
            raise InputError(f"parameter background {background}: give 3 numbers from 0 to 255")
        self._neutral = NeutralPose(self.value("neutral_s"))
        # Imported here: it brings torch, and the other nodes start without it.
        from cag_avatar.avatar.animator import Animator
        from cag_avatar.avatar.driver import RunningDriver

        self._animator = Animator.load(
            Path(path).expanduser(),
            backend=self.value("backend"),
            size=(self.value("size"), self.value("size")),
            background=background,
        )
        names = tuple(self._animator.expression_names)
        if names != ARKIT_NAMES:
            raise InputError(
                f"avatar {path} is driven by {len(names)} coefficients that are not ARKit's 52: "
                "train it again with an ARKit head model"
            )
        rest = self._animator.rest_code
        self._hold = ExpressionHold(HoldConfig(self.value("hold_s"), self.value("decay_s")), rest)
        self._driver = RunningDriver(self._animator.layout, rest)
        self._animator.render(rest)

    def activate(self) -> None:
        """Subscribe and publish."""
        frame_id = self.value("frame_id")
        self._image = ImageSink(self, IMAGE_TOPIC, IMAGE_QOS, "rgb8", frame_id)
        self._compressed = CompressedImageSink(self, COMPRESSED_TOPIC, IMAGE_QOS, frame_id)
        self._camera_info = self.create_publisher(
            CameraInfo,
            CAMERA_INFO_TOPIC,
            IMAGE_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._worker = MailboxWorker(
            "render", self._handle, self.report_exception, self._fade, FADE_INTERVAL
        )
        self._worker.start()
        self._subscription = self.create_subscription(
            FaceExpression,
            EXPRESSION_TOPIC,
            self._on_expression,
            EXPRESSION_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._watch = InputWatch(
            self, EXPRESSION_TOPIC, EXPRESSION_QOS, self.value("input_timeout")
        )

    def deactivate(self) -> None:
        """Stop subscribing, rendering and publishing."""
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._worker is not None:
            self._worker.stop()
            self._replaced += self._worker.mailbox.replaced
            self._worker = None
        if self._image is not None:
            self._image.destroy()
            self._image = None
        if self._compressed is not None:
            self._compressed.destroy()
            self._compressed = None
        if self._camera_info is not None:
            self.destroy_publisher(self._camera_info)
            self._camera_info = None

    def cleanup(self) -> None:
        """Free the avatar and, with it, the accelerator's memory."""
        self._animator, self._driver = None, None
        self._newest_stamp = None
        self._settled = True
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def health(self) -> Health:
        """Rate, latency of each stage, drops, and the state of the expression."""
        now = self.seconds()
        health = Health()
        health.values["state"] = self._hold.state(time.monotonic() - FADE_INTERVAL).value
        health.values["rate_hz"] = f"{self._stages['latency'].rate(now):.2f}"
        for name, window in self._stages.items():
            health.add_timings(name, window, now)
        replaced = self._worker.mailbox.replaced if self._worker is not None else 0
        health.values["expressions_skipped"] = str(self._replaced + replaced)
        health.values["coefficients_clamped"] = str(self._clamped)
        for kind, count in self._faults.counts().items():
            health.values[f"dropped_{kind}"] = str(count)
            health.worsen(DiagnosticStatus.WARN, f"expressions dropped ({kind}): {count}")
        silence = self._watch.check() if self._watch is not None else None
        if silence is not None:
            health.worsen(DiagnosticStatus.WARN, silence)
        return health

    def _on_expression(self, message: FaceExpression) -> None:
        if self._watch is not None:
            self._watch.received()
        worker = self._worker
        if worker is not None:
            worker.mailbox.put(message)

    def _handle(self, message: FaceExpression) -> None:
        try:
            checked = check_expression(message, with_head_pose=self.value("head_motion") != "none")
        except ExpressionError as error:
            self._faults.add(error.fault, str(error))
            return
        if checked is not None:
            self._clamped += checked.clamped
            checked = replace(checked, code=self._transferred(checked.code))
        shown = self._hold.update(checked, time.monotonic())
        self._newest_stamp = message.header.stamp
        if shown is not None:
            self._show(shown)

    def _fade(self) -> None:
        """Render on, without messages, until the fading expression is neutral."""
        shown = self._hold.shown(time.monotonic())
        if shown is None or self._newest_stamp is None or self._settled:
            return
        if shown.state in (HoldState.DECAY, HoldState.NEUTRAL):
            self._show(shown)

    def _show(self, shown: ShownExpression) -> None:
        image, compressed, camera_info = self._image, self._compressed, self._camera_info
        stamp = self._newest_stamp
        if image is None or compressed is None or camera_info is None or stamp is None:
            return
        self._settled = shown.state is HoldState.NEUTRAL
        if camera_info.get_subscription_count():
            camera_info.publish(self._make_camera_info(stamp))
        if not (image.has_subscribers or compressed.has_subscribers):
            return
        started = time.perf_counter()
        rgb = self._render(shown)
        rendered = time.perf_counter()
        if image.has_subscribers:
            image.publish(rgb, stamp)
        if compressed.has_subscribers:
            compressed.publish(rgb, stamp, self.value("jpeg_quality"))
        published = time.perf_counter()
        now = self.seconds()
        self._stages["render"].add(now, rendered - started)
        self._stages["publish"].add(now, published - rendered)
        self._stages["latency"].add(now, now - stamp.sec - stamp.nanosec * 1e-9)

    def _render(self, shown: ShownExpression) -> NDArray[np.uint8]:
        """The picture, RGB uint8 [H, W, 3]."""
        motion, pose = self.value("head_motion"), shown.head_pose
        if motion == "relative" and pose is not None:
            pose = self._animator.follow(pose, self._neutral.update(pose, time.monotonic()))
        return np.asarray(self._animator.render(shown.code, None if motion == "none" else pose))

    def _transferred(self, code: NDArray[np.float32]) -> NDArray[np.float32]:
        """The operator's code as the avatar's."""
        if self._recentered:  # here, because the service runs in another thread
            self._driver.restart()
            self._recentered = False
        profile = self._driver.update(code)
        if self.value("expression") == "absolute":
            profile = None
        return np.asarray(self._animator.transfer(code, profile, gaze=self.value("gaze")))

    def _on_recenter(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """The operator's head pose of the next moments becomes their rest pose, and their face's
        rest is found anew."""
        self._neutral.restart()
        self._recentered = True
        response.success = True
        response.message = "taking the operator's rest pose again"
        return response

    def _make_camera_info(self, stamp: TimeMessage) -> CameraInfo:
        camera = self._animator.camera
        info = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob")
        info.header.stamp = stamp
        info.header.frame_id = self.value("frame_id")
        # ROS puts pixel centres at whole numbers, the renderer at halves.
        cx, cy = camera.cx - 0.5, camera.cy - 0.5
        info.d = [0.0] * 5
        info.k = [camera.fx, 0.0, cx, 0.0, camera.fy, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [camera.fx, 0.0, cx, 0.0, 0.0, camera.fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run_managed_node(AvatarRenderer, args)


if __name__ == "__main__":
    sys.exit(main())
