"""expression_estimator: Image messages to FaceExpression messages."""

from __future__ import annotations

import array
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from cag_avatar_msgs.msg import FaceExpression
from cag_avatar_training.synthetic.truth import load_truth, truth_folder
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image

from cag_avatar.tracking.estimator import FaceEstimate
from cag_avatar.tracking.face_landmarker import DetectedFace
from cag_avatar_node.expression_estimator import ExpressionEstimatorNode
from cag_avatar_node.expression_validation import check_expression
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS

HEAD_POSE = np.array(
    [[0.8, 0.0, -0.6, 0.05], [0.0, -1.0, 0.0, -0.02], [-0.6, 0.0, -0.8, 0.7], [0, 0, 0, 1.0]]
)


class KnownEstimator:
    """Stands where the face tracker does and finds a known face, so that the wire can be tested."""

    own_person = None

    def __init__(self) -> None:
        self.seen: list[tuple[NDArray[np.uint8], int]] = []
        self.restarts = 0
        self.found = FaceEstimate(
            code=np.linspace(0, 1, 52).astype(np.float32),
            head_pose=HEAD_POSE,
            confidence=0.75,
            is_valid=True,
            eyes_valid=True,
            face=DetectedFace(
                np.random.default_rng(0).uniform(20, 100, (478, 3)).astype(np.float32),
                np.zeros(52, np.float32),
            ),
        )

    def estimate(self, image: NDArray[np.uint8], timestamp_ns: int) -> FaceEstimate:
        self.seen.append((image, timestamp_ns))
        return self.found

    def restart(self) -> None:
        self.restarts += 1

    def close(self) -> None:
        """Nothing to free."""


class NodeWithKnownEstimator(ExpressionEstimatorNode):
    """The node, with its tracker as ``tracker``."""

    tracker: KnownEstimator

    def _make_estimator(self, regressor: object) -> Any:
        self.tracker = KnownEstimator()
        return self.tracker


def make_image(
    pixels: NDArray[np.uint8], encoding: str = "bgr8", stamp_ns: int | None = None
) -> Image:
    height, width, channels = pixels.shape
    message = Image(height=height, width=width, encoding=encoding, step=width * channels)
    stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.header.frame_id = "some_camera"
    message.data = array.array("B", pixels.tobytes())
    return message


@pytest.fixture
def grey() -> NDArray[np.uint8]:
    """A picture without a face."""
    return np.full((120, 160, 3), 90, np.uint8)


def test_face_goes_over_the_wire_unchanged(
    world: Any, grey: NDArray[np.uint8], wait_until: Callable[..., None]
) -> None:
    grey[..., 0] = 10  # blue in bgr8
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(NodeWithKnownEstimator, face_id="me")
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")
    image = make_image(grey)
    wait_until(lambda: publisher.publish(image) or expressions, "an expression")

    message = expressions[0]
    assert message.header == image.header
    assert message.face_id == "me"
    assert message.layout == FaceExpression.ARKIT_52
    assert message.is_valid
    assert message.eyes_valid
    assert message.confidence == 0.75
    assert message.sequence == 0
    checked = check_expression(message)
    assert checked is not None
    np.testing.assert_array_equal(checked.code, np.linspace(0, 1, 52).astype(np.float32))
    np.testing.assert_allclose(checked.head_pose, HEAD_POSE, atol=1e-6)
    seen, stamp = node.tracker.seen[0]
    assert stamp == image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
    np.testing.assert_array_equal(seen[0, 0], [90, 90, 10])


def test_bad_images_are_dropped_counted_and_warned_about_once(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = world.start(NodeWithKnownEstimator)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")

    for fault in ("encoding", "step"):
        for count in (1, 2, 3):
            bad = make_image(grey, "32FC1" if fault == "encoding" else "bgr8")
            if fault == "step":
                bad.step = 7
            publisher.publish(bad)
            wait_until(lambda f=fault, n=count: node._faults.counts().get(f, 0) >= n, fault)
    publisher.publish(make_image(grey))
    wait_until(lambda: expressions, "the good image")
    time.sleep(0.1)
    assert len(expressions) == 1
    assert len(node.tracker.seen) == 1
    wait_until(
        lambda: world.health(reports, "expression_estimator").get("dropped_step"), "diagnostics"
    )
    health = world.health(reports, "expression_estimator")
    assert health["dropped_encoding"] == "3"
    assert health["dropped_step"] == "3"
    errors = capfd.readouterr().err
    assert errors.count("Image.encoding '32FC1' is not supported: publish one of") == 1
    assert errors.count("Image.step 7 is too short for 160 pixels of bgr8") == 1


def test_stamps_must_advance_and_a_restarted_source_is_followed(
    world: Any, grey: NDArray[np.uint8], wait_until: Callable[..., None]
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(NodeWithKnownEstimator)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")

    def send(stamp_ns: int) -> None:
        publisher.publish(make_image(grey, stamp_ns=stamp_ns))

    send(100 * 10**9)
    wait_until(lambda: len(expressions) == 1, "the first")
    send(100 * 10**9)
    wait_until(lambda: node._faults.counts().get("stamp") == 1, "the repeated stamp")
    send(5 * 10**9)
    wait_until(lambda: len(expressions) == 2, "the restarted source")
    assert node.tracker.restarts == 1
    assert [message.sequence for message in expressions] == [0, 1]


def test_an_exception_is_reported_and_the_next_image_is_estimated(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = world.start(NodeWithKnownEstimator)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")
    tracker, estimate = node.tracker, node.tracker.estimate

    def fail(*_: Any) -> None:
        raise RuntimeError("the tracker broke")

    tracker.estimate = fail
    publisher.publish(make_image(grey))
    wait_until(lambda: world.health(reports, "expression_estimator").get("exceptions"), "a report")
    tracker.estimate = estimate
    publisher.publish(make_image(grey))
    wait_until(lambda: expressions, "the next image")
    assert reports[-1].status[0].level == DiagnosticStatus.ERROR
    assert "the tracker broke" in capfd.readouterr().err


def test_nothing_is_estimated_for_nobody(
    world: Any, grey: NDArray[np.uint8], wait_until: Callable[..., None]
) -> None:
    node = world.start(NodeWithKnownEstimator)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    for _ in range(5):
        publisher.publish(make_image(grey))
        time.sleep(0.02)
    assert node.tracker.seen == []


def test_silence_is_explained(
    world: Any, wait_until: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    world.start(NodeWithKnownEstimator, input_timeout=0.5)
    seen: list[str] = []
    wait_until(
        lambda: seen.append(capfd.readouterr().err) or "no message on" in "".join(seen), "a warning"
    )
    text = "".join(seen)
    assert "/camera/image_raw" in text
    assert "nobody publishes it" in text
    assert "best_effort, depth 1" in text


def test_real_tracker_tells_a_face_from_none(
    world: Any,
    grey: NDArray[np.uint8],
    face_video_path: Path,
    wait_until: Callable[..., None],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(ExpressionEstimatorNode)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")

    def send(pixels: NDArray[np.uint8]) -> None:
        publisher.publish(make_image(pixels))
        time.sleep(0.05)

    wait_until(lambda: send(grey) or expressions, "an expression", timeout=60)
    assert not expressions[0].is_valid
    assert expressions[0].confidence == 0
    assert check_expression(expressions[0]) is None

    capture = cv2.VideoCapture(str(face_video_path))
    face = np.asarray(capture.read()[1], np.uint8)
    capture.release()
    wait_until(lambda: send(face) or expressions[-1].is_valid, "a face", timeout=60)
    checked = check_expression(expressions[-1])
    assert checked is not None
    assert checked.clamped == 0
    assert checked.head_pose is not None
    assert expressions[-1].confidence > 0.3
    truth = load_truth(truth_folder(face_video_path)).head_pose[0].double().numpy()
    turn = checked.head_pose[:3, :3] @ truth[:3, :3].T
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    assert angle < 15, "the head points elsewhere"
