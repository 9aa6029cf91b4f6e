"""expression_estimator: Image messages to FaceExpression messages."""

from __future__ import annotations

import array
import time
from collections.abc import Callable
from dataclasses import replace
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
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.expression_estimator import ExpressionEstimatorNode
from cag_avatar_node.expression_validation import check_expression
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS


@pytest.fixture
def grey() -> NDArray[np.uint8]:
    """A picture without a face."""
    return np.full((120, 160, 3), 90, np.uint8)


def test_face_goes_over_the_wire_unchanged(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    grey[..., 0] = 10  # blue in bgr8
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(known_estimator_node, face_id="me")
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
    np.testing.assert_allclose(checked.head_pose, node.tracker.found.head_pose, atol=1e-6)
    seen, stamp = node.tracker.seen[0]
    assert stamp == image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
    np.testing.assert_array_equal(seen[0, 0], [90, 90, 10])


def test_bad_images_are_dropped_counted_and_warned_about_once(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = world.start(known_estimator_node)
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
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(known_estimator_node)
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
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = world.start(known_estimator_node)
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
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    """Images are not even taken; once somebody listens they are, until nobody does any more."""
    node = world.start(known_estimator_node)
    publisher = world.node.create_publisher(Image, "/camera/image_raw", IMAGE_QOS)
    time.sleep(0.6)
    assert publisher.get_subscription_count() == 0
    listener = world.node.create_subscription(
        FaceExpression, "/operator/face/expression", lambda message: None, EXPRESSION_QOS
    )
    wait_until(lambda: publisher.get_subscription_count() == 1, "the estimator")
    wait_until(
        lambda: publisher.publish(make_image(grey)) or time.sleep(0.02) or node.tracker.seen,
        "an estimate",
    )
    world.node.destroy_subscription(listener)
    wait_until(lambda: publisher.get_subscription_count() == 0, "rest")


def test_silence_is_explained(
    world: Any,
    wait_until: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    known_estimator_node: type[Any],
) -> None:
    world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    world.start(known_estimator_node, input_timeout=0.5)
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
    make_image: Callable[..., Image],
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


def test_compressed_images_are_taken_when_only_they_are_published(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(known_estimator_node)
    assert node.health().values["input"] == "raw"
    compressed = world.node.create_publisher(
        CompressedImage, "/camera/image_raw/compressed", IMAGE_QOS
    )
    wait_until(compressed.get_subscription_count, "the switch to compressed images")
    assert node.count_subscribers("/camera/image_raw") == 0

    def send() -> None:
        message = CompressedImage(format="jpeg", header=make_image(grey).header)
        message.data = array.array("B", cv2.imencode(".jpg", grey)[1].tobytes())
        compressed.publish(message)

    wait_until(lambda: send() or expressions, "an expression")
    assert np.abs(node.tracker.seen[-1][0].astype(int) - grey).max() <= 3
    raw = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)  # waits until it is subscribed to
    assert node.health().values["input"] == "raw"
    count = len(expressions)
    wait_until(lambda: raw.publish(make_image(grey)) or len(expressions) > count, "an expression")


def test_smoothing_and_its_switch(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(known_estimator_node)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")

    def jaw(value: float, stamp_s: float) -> float:
        code = np.zeros(52, np.float32)
        code[ARKIT_INDEX["jawOpen"]] = value
        node.tracker.found = replace(node.tracker.found, code=code)
        count = len(expressions)
        publisher.publish(make_image(grey, stamp_ns=round(stamp_s * 1e9)))
        wait_until(lambda: len(expressions) > count, "an expression")
        return float(expressions[-1].coefficients[ARKIT_INDEX["jawOpen"]])

    assert jaw(0.0, 100.0) == 0
    assert 0.2 < jaw(0.5, 100.04) < 0.45, "not smoothed"
    node.set_parameters([Parameter("smoothing", value="off")])
    assert jaw(0.1, 100.08) == pytest.approx(0.1)
    node.set_parameters([Parameter("smoothing", value="on")])
    assert jaw(0.6, 100.12) == pytest.approx(0.6), "from before the switch"


def test_calibration_is_measured_sent_saved_and_reloaded(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
    tmp_path: Path,
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    settings = {
        "operator_name": "ann", "calibration_dir": str(tmp_path), "calibrate_s": 1.0,
        "smoothing": "off",
    }  # fmt: skip
    node = world.start(known_estimator_node, **settings)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")
    code = np.full(52, 0.25, np.float32)
    node.tracker.found = replace(node.tracker.found, code=code)
    frown = ARKIT_INDEX["browDownLeft"]

    def send(number: int) -> float:
        count = len(expressions)
        publisher.publish(make_image(grey, stamp_ns=10**11 + number * 40_000_000))
        wait_until(lambda: len(expressions) > count, "an expression")
        return float(expressions[-1].coefficients[frown])

    assert send(0) == 0.25
    client = world.node.create_client(Trigger, "/expression_estimator/calibrate")
    assert client.wait_for_service(10.0)
    answer = client.call_async(Trigger.Request())
    wait_until(answer.done, "the answer")
    assert answer.result().success
    assert "ann.json" in answer.result().message
    assert node.health().values["calibration"] == "running"
    sent = [send(number) for number in range(1, 30)]
    assert sent[0] == 0.25
    assert sent[-1] == 0, "the operator's neutral is not 0"
    assert node.health().values["calibration"].startswith("done, from 26 faces")
    node.set_parameters([Parameter("calibration", value="off")])
    assert send(30) == 0.25, "raw codes were asked for"
    assert (tmp_path / "ann.json").is_file()
    node.set_parameters([Parameter("calibration", value="on")])

    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    refused = client.call_async(Trigger.Request())
    wait_until(refused.done, "the answer")
    assert not refused.result().success
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node.health().values["calibration"] == "loaded"
    node.tracker.found = replace(node.tracker.found, code=code)
    wait_until(publisher.get_subscription_count, "the subscription")
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")
    wait_until(lambda: node._publisher.get_subscription_count(), "the match")
    assert send(40) == 0


def test_a_bad_calibration_file_fails_configure(
    world: Any, known_estimator_node: type[Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ann.json").write_text("{}")
    node = world.add(known_estimator_node, operator_name="ann", calibration_dir=str(tmp_path))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "ann.json is no operator calibration" in capfd.readouterr().err
    node.set_parameters([Parameter("operator_name", value="bob")])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_the_annotated_picture_is_made_for_its_subscriber_only(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    node = world.start(known_estimator_node, annotated_rate=2.0)
    pictures = world.listen(Image, "/expression_estimator/annotated", IMAGE_QOS)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    image = make_image(grey)

    def send() -> None:
        publisher.publish(make_image(grey))
        time.sleep(0.02)

    wait_until(lambda: send() or pictures, "a picture")
    started = time.monotonic()
    count = len(node.tracker.seen)
    while time.monotonic() - started < 1.0:
        send()
    assert len(pictures) <= 4, "the rate is not limited"
    assert count
    picture = pictures[0]
    assert (picture.encoding, picture.width, picture.height) == ("rgb8", 160, 120)
    assert picture.header.frame_id == image.header.frame_id
    pixels = np.frombuffer(picture.data, np.uint8).reshape(120, 160, 3)
    assert (pixels == [0, 220, 0]).all(-1).sum() > 100, "no landmarks"


def test_no_face_and_broken_estimates_are_sent_as_such(
    world: Any,
    grey: NDArray[np.uint8],
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    node = world.start(known_estimator_node)
    publisher = world.publisher(Image, "/camera/image_raw", IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")
    good = node.tracker.found
    broken = [
        replace(good, is_valid=False, face=None),
        replace(good, code=np.full(52, np.nan, np.float32)),
        replace(good, head_pose=np.full((4, 4), np.inf)),
        replace(good, confidence=float("nan")),
    ]
    for number, found in enumerate([*broken, good]):
        node.tracker.found = found
        publisher.publish(make_image(grey))
        wait_until(lambda n=number: len(expressions) > n, "an expression")
        message = expressions[-1]
        assert message.is_valid == (found is good)
        assert message.eyes_valid == (found is good)
        if found is not good:
            assert message.confidence == 0
            assert len(message.coefficients) == 0
            assert list(message.head_orientation) == [0, 0, 0, 1]
