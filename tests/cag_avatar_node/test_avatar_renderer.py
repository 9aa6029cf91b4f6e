"""avatar_renderer: FaceExpression messages to images of a real avatar."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from cag_avatar_msgs.msg import FaceExpression
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from cag_avatar.avatar.animator import Animator
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.avatar_renderer import AvatarRenderer
from cag_avatar_node.head_pose_conversion import head_pose_to_face_pose
from cag_avatar_node.image_conversion import image_to_rgb
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS, LATCHED_QOS

SIZE = 96
TOPIC = "/operator/face/expression"


def make_expression(stamp: int, head_pose: Any = None, **coefficients: float) -> FaceExpression:
    """A good message; stamp in nanoseconds."""
    message = FaceExpression(layout=FaceExpression.ARKIT_52, is_valid=True, confidence=0.5)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    code = np.zeros(52, np.float32)
    for name, value in coefficients.items():
        code[ARKIT_INDEX[name]] = value
    message.coefficients = code.tolist()
    if head_pose is None:
        head_pose = np.diag([1.0, -1.0, -1.0, 1.0])
        head_pose[2, 3] = 0.6
    position, orientation = head_pose_to_face_pose(head_pose)
    message.head_position = position.astype(np.float32)
    message.head_orientation = orientation.astype(np.float32)
    return message


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def has_stamp(messages: list[Any], stamp: int) -> Callable[[], bool]:
    return lambda: any(stamp_ns(message) == stamp for message in list(messages))


def live(messages: list[Any]) -> list[Any]:
    """Those of expressions of these tests: the resting face and the placard have today's stamps."""
    return [message for message in list(messages) if stamp_ns(message) < 10**12]


def with_stamp(messages: list[Any], stamp: int) -> Any:
    return next(message for message in messages if stamp_ns(message) == stamp)


@pytest.fixture
def start(world: Any, tiny_avatar_path: Path) -> Callable[..., Any]:
    """Starts the node with the tiny avatar."""

    def start_node(**parameters: Any) -> Any:
        chosen = {"avatar": str(tiny_avatar_path), "size": SIZE, "backend": "cpu"}
        # Codes are shown at once, so that pictures can be compared.
        chosen |= {"return_s": 0.0, **parameters}
        return world.start(AvatarRenderer, **chosen)

    return start_node


def test_outputs_show_the_code_and_carry_its_stamp(
    world: Any,
    start: Callable[..., Any],
    tiny_avatar_path: Path,
    wait_until: Callable[..., None],
) -> None:
    images = world.listen(Image, "/avatar/image_raw", IMAGE_QOS)
    jpegs = world.listen(CompressedImage, "/avatar/image_raw/compressed", IMAGE_QOS)
    infos = world.listen(CameraInfo, "/avatar/camera_info", IMAGE_QOS)
    node = start(head_motion="none")
    publisher = world.publisher(FaceExpression, TOPIC, EXPRESSION_QOS)
    wait_until(lambda: node.count_subscribers("/avatar/camera_info"), "subscribers")
    publisher.publish(make_expression(123_000_000_456, jawOpen=0.6))
    for received, what in ((images, "image"), (jpegs, "JPEG"), (infos, "camera info")):
        wait_until(has_stamp(received, 123_000_000_456), what)

    message, jpeg, info = (with_stamp(m, 123_000_000_456) for m in (images, jpegs, infos))
    image = image_to_rgb(message)
    assert message.encoding == "rgb8"
    assert image.shape == (SIZE, SIZE, 3)
    animator = Animator.load(tiny_avatar_path, backend="cpu", size=(SIZE, SIZE))
    code = np.zeros(52, np.float32)
    code[ARKIT_INDEX["jawOpen"]] = 0.6
    expected = animator.render_relative(code, None, None).astype(int)
    assert np.abs(image.astype(int) - expected).max() <= 2
    assert image.std() > 5, "the picture is empty"

    decoded = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    difference = np.abs(decoded[..., ::-1].astype(int) - image.astype(int))
    assert difference.mean() < 6

    camera = animator.camera
    assert (info.width, info.height) == (SIZE, SIZE)
    assert info.header.frame_id == message.header.frame_id == jpeg.header.frame_id
    assert info.k[0] == pytest.approx(camera.fx)
    assert info.k[2] == pytest.approx(camera.cx - 0.5)
    assert info.k[4] == info.p[5] == pytest.approx(camera.fy)
    assert info.k[5] == info.p[6] == pytest.approx(camera.cy - 0.5)


def test_head_follows_the_operator_from_their_rest_pose(
    world: Any, start: Callable[..., Any], tiny_avatar_path: Path, wait_until: Callable[..., None]
) -> None:
    images = world.listen(Image, "/avatar/image_raw", IMAGE_QOS)
    node = start(head_motion="relative", neutral_s=0.0)
    publisher = world.publisher(FaceExpression, TOPIC, EXPRESSION_QOS)
    wait_until(lambda: node.count_subscribers("/avatar/image_raw"), "the subscriber")
    rest = np.diag([1.0, -1.0, -1.0, 1.0])
    rest[2, 3] = 0.6
    turn = np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.15, 0.0]))[0]
    turned = rest.copy()
    turned[:3, :3] = turn[:3, :3] @ rest[:3, :3]

    def show(stamp: int, pose: Any) -> Any:
        publisher.publish(make_expression(stamp, pose))
        wait_until(has_stamp(images, stamp), f"image {stamp}")
        return image_to_rgb(with_stamp(images, stamp)).astype(int)

    at_rest, moved = show(1, rest), show(2, turned)
    animator = Animator.load(tiny_avatar_path, backend="cpu", size=(SIZE, SIZE))
    zero = np.zeros(52, np.float32)
    assert np.abs(at_rest - animator.render_relative(zero, rest, rest)).max() <= 2
    assert np.abs(moved - animator.render_relative(zero, turned, rest)).max() <= 2
    assert np.abs(moved - at_rest).mean() > 0.2

    client = world.node.create_client(Trigger, "/avatar_renderer/recenter")
    assert client.wait_for_service(10.0)
    future = client.call_async(Trigger.Request())
    wait_until(future.done, "recenter")
    assert future.result().success
    recentred = show(3, turned)
    assert np.abs(recentred - at_rest).max() <= 2


def test_bad_expressions_are_dropped_counted_and_warned_about_once(
    world: Any,
    start: Callable[..., Any],
    wait_until: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    images = world.listen(Image, "/avatar/image_raw", IMAGE_QOS)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = start()
    publisher = world.publisher(FaceExpression, TOPIC, EXPRESSION_QOS)
    wait_until(lambda: node.count_subscribers("/avatar/image_raw"), "the subscriber")

    short = make_expression(1)
    short.coefficients = [0.0] * 51
    unknown = make_expression(2)
    unknown.layout = 99
    bent = make_expression(3)
    bent.head_orientation = np.full(4, 2.0, np.float32)
    faults = {"coefficients": short, "layout": unknown, "head_orientation": bent}
    for fault, message in faults.items():
        for count in (1, 2):
            publisher.publish(message)
            wait_until(lambda f=fault, n=count: node._faults.counts().get(f, 0) >= n, fault)
    nan = make_expression(4, jawOpen=float("nan"))
    publisher.publish(nan)
    wait_until(lambda: node._faults.counts()["coefficients"] == 3, "NaN")
    publisher.publish(make_expression(5, jawOpen=3.0, mouthClose=-1.0))
    wait_until(has_stamp(images, 5), "the good one")
    assert [stamp_ns(image) for image in live(images)] == [5]

    def health() -> dict[str, str]:
        return world.health(reports, "avatar_renderer")

    wait_until(lambda: health().get("coefficients_clamped") == "2", "diagnostics")
    assert health()["dropped_coefficients"] == "3"
    assert health()["dropped_layout"] == "2"
    assert health()["dropped_head_orientation"] == "2"
    errors = capfd.readouterr().err
    assert errors.count("FaceExpression.coefficients has 51 values") == 1
    assert errors.count("FaceExpression.layout 99 is unknown: send ARKIT_52") == 1
    assert errors.count("send a unit quaternion") == 1


def test_a_lost_face_is_held_then_fades_to_rest(
    world: Any, start: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    images = world.listen(Image, "/avatar/image_raw", IMAGE_QOS)
    node = start(head_motion="none", hold_s=1.0, decay_s=0.2, idle_rate_hz=0.0)
    publisher = world.publisher(FaceExpression, TOPIC, EXPRESSION_QOS)
    wait_until(lambda: node.count_subscribers("/avatar/image_raw"), "the subscriber")

    def show(message: FaceExpression) -> Any:
        publisher.publish(message)
        stamp = stamp_ns(message)
        wait_until(has_stamp(images, stamp), f"image {stamp}")
        return image_to_rgb(with_stamp(images, stamp)).astype(int)

    lost = make_expression(1)
    lost.is_valid = False
    publisher.publish(lost)
    neutral = show(make_expression(2))
    smile = show(make_expression(3, jawOpen=1.0))
    assert np.abs(smile - neutral).mean() > 0.1
    assert stamp_ns(live(images)[0]) == 2, "something was shown before any face"
    lost.header.stamp.nanosec = 4
    held = show(lost)
    assert np.abs(held - smile).max() <= 1

    # Without further messages the fade still happens, with the stamp of the newest image.
    wait_until(
        lambda: np.abs(image_to_rgb(images[-1]).astype(int) - neutral).max() <= 1,
        "the neutral face",
    )
    assert stamp_ns(live(images)[-1]) == 4
    time.sleep(0.3)
    count = len(images)
    time.sleep(0.3)
    assert len(images) == count, "the neutral face is rendered again and again"


def test_nothing_is_rendered_for_nobody(
    world: Any, start: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Nor are codes taken, so that the estimator may rest; for a listener to the state they are."""
    node = start()
    publisher = world.node.create_publisher(FaceExpression, TOPIC, EXPRESSION_QOS)
    time.sleep(0.6)
    assert publisher.get_subscription_count() == 0
    state = world.node.create_subscription(
        String, "/avatar_renderer/state", lambda message: None, LATCHED_QOS
    )
    wait_until(lambda: publisher.get_subscription_count() == 1, "the renderer")
    publisher.publish(make_expression(1))
    wait_until(lambda: node._stage._newest_stamp is not None, "the message")
    time.sleep(0.2)
    assert node._stage.timings["render"].percentiles(node.seconds(), 50) is None
    world.node.destroy_subscription(state)
    wait_until(lambda: publisher.get_subscription_count() == 0, "rest")


def test_cleanup_frees_and_configure_loads_again(world: Any, start: Callable[..., Any]) -> None:
    node = start()
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node._stage is None
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS


def test_bad_avatar_file_is_a_failure_of_configure(world: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.cag"
    bad.write_bytes(b"nothing")
    node = world.add(AvatarRenderer, avatar=str(bad))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_bad_avatar_file_ends_the_process_with_one_line(
    tmp_path: Path, node_environment: dict[str, str]
) -> None:
    bad = tmp_path / "bad.cag"
    bad.write_bytes(b"nothing")
    command = [sys.executable, "-m", "cag_avatar_node.avatar_renderer"]
    done = subprocess.run(
        [*command, "--ros-args", "-p", f"avatar:={bad}"],
        env=node_environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "cannot configure" in done.stderr
    assert str(bad) in done.stderr
    assert "Traceback" not in done.stderr
