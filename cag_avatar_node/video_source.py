"""ROS node: a video file or a camera as a stream of images."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.frame_capture import CameraCapture, FileCapture, shrink
from cag_avatar_node.image_sink import ImageSink
from cag_avatar_node.managed_node import ManagedNode, run_managed_node
from cag_avatar_node.node_health import Health
from cag_avatar_node.node_parameters import NodeParameter
from cag_avatar_node.qos import IMAGE_QOS
from cag_avatar_node.timing import TimingWindow

__all__ = ["PARAMETERS", "VideoSource", "main"]

TOPIC = "camera/image_raw"

PARAMETERS: tuple[NodeParameter, ...] = (
    NodeParameter("video", "", "Path of a video file; give this or 'camera'."),
    NodeParameter("camera", "", "Camera index (0) or device path (/dev/video0)."),
    NodeParameter("loop", True, "Start the file again at its end.", dynamic=True),
    NodeParameter(
        "wait_for_subscriber", True, "Play the file only while somebody subscribes to the images."
    ),
    NodeParameter("encoding", "bgr8", "Encoding of the images.", choices=("bgr8", "rgb8")),
    NodeParameter(
        "max_size", 0, "Scale images down to this longer side, pixels; 0: as they are.", 0, 8192
    ),
    NodeParameter("frame_id", "camera_optical_frame", "Frame of the image headers."),
)


class VideoSource(ManagedNode):
    """Publishes ``camera/image_raw``. A file plays at its own rate; stamps are the acquisition."""

    def __init__(self, **options: Any) -> None:
        super().__init__("video_source", PARAMETERS, **options)
        self._capture: FileCapture | CameraCapture | None = None
        self._device = ""
        self._sink: ImageSink | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._period = TimingWindow()
        self._faults = FaultLog(self.get_logger().warning)
        self._published = 0
        self._ended = False

    def configure(self) -> None:
        """Open the file or the camera."""
        video, camera = self.value("video"), self.value("camera")
        if bool(video) == bool(camera):
            raise InputError("parameters video, camera: set exactly one of them")
        self._device = camera
        self._capture = FileCapture(Path(video).expanduser()) if video else CameraCapture(camera)

    def activate(self) -> None:
        """Publish from a thread of its own."""
        self._sink = ImageSink(
            self, TOPIC, IMAGE_QOS, self.value("encoding"), self.value("frame_id"),
            self.local_topic(TOPIC),
        )  # fmt: skip
        self._stop.clear()
        self._ended = False
        target = self._play_file if isinstance(self._capture, FileCapture) else self._play_camera
        self._thread = threading.Thread(target=self._guard, args=(target,), daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Stop publishing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10.0)
            self._thread = None
        if self._sink is not None:
            self._sink.destroy()
            self._sink = None

    def cleanup(self) -> None:
        """Release the file or the camera."""
        if self._capture is not None:
            self._capture.close()
            self._capture = None

    def health(self) -> Health:
        """Rate and faults."""
        now = self.seconds()
        health = Health(message="end of file" if self._ended else "")
        health.values["state"] = "ended" if self._ended else "playing"
        health.values["published"] = str(self._published)
        health.values["rate_hz"] = f"{self._period.rate(now):.2f}"
        for kind, count in self._faults.counts().items():
            health.values[f"faults_{kind}"] = str(count)
            health.worsen(DiagnosticStatus.WARN, f"{kind}: {count}")
        return health

    def _guard(self, target: Any) -> None:
        try:
            target()
        except Exception as error:
            if self.context.ok():
                self.report_exception(error)
                self._faults.add("stopped", f"the source stopped: {error}")

    def _publish(self, bgr: NDArray[np.uint8], stamp: Any) -> None:
        assert self._sink is not None
        image = shrink(bgr, self.value("max_size"))
        if self.value("encoding") == "rgb8":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        self._sink.publish(image, stamp.to_msg())
        self._published += 1
        self._period.add(self.seconds(), 0.0)

    def _play_file(self) -> None:
        capture, sink = self._capture, self._sink
        assert isinstance(capture, FileCapture)
        assert sink is not None
        start, index = time.monotonic(), 0
        while not self._stop.is_set():
            if self.value("wait_for_subscriber") and not sink.has_subscribers:
                self._stop.wait(0.02)
                start, index = time.monotonic(), 0
                continue
            frame = capture.read()
            if frame is None:
                if not self.value("loop"):
                    break
                capture.rewind()
                continue
            self._stop.wait(start + index / capture.fps - time.monotonic())
            # The moment the frame is due stands for its exposure: decoding ahead is not latency.
            self._publish(frame, self.get_clock().now())
            index += 1
            # As a camera does, lose the frames that there was no time for and keep the rate.
            while time.monotonic() > start + (index + 1) / capture.fps and capture.skip():
                self._faults.add("skipped", "decoding is slower than the video: skipping frames")
                index += 1
        self._ended = True
        if not self._stop.is_set():
            self.get_logger().info(f"end of {capture.path}")

    def _play_camera(self) -> None:
        capture = self._capture
        assert isinstance(capture, CameraCapture)
        while not self._stop.is_set():
            grabbed = capture.grab()
            stamp = self.get_clock().now()
            frame = capture.retrieve() if grabbed else None
            if frame is not None:
                self._publish(frame, stamp)
                continue
            self._faults.add("no_frame", f"camera {self._device} gives no frame: opening it again")
            capture.close()
            while not self._stop.wait(1.0):
                try:
                    self._capture = capture = CameraCapture(self._device)
                    break
                except InputError as error:
                    self._faults.add("lost", str(error))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run_managed_node(VideoSource, args)


if __name__ == "__main__":
    sys.exit(main())
