"""avatar_renderer on real topics: states, gates, other sources, several avatars, outputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.srv", reason="messages not built: make ros2-ws")

from cag_avatar_msgs.msg import FaceExpression, StageLatency
from cag_avatar_msgs.srv import SelectAvatar
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, String

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.avatar_renderer import AvatarRenderer
from cag_avatar_node.face_blend import pose_of_motion
from cag_avatar_node.head_limits import turn_on_neck
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS, LATCHED_QOS, SIGNAL_QOS

SIZE = 64
FACE_TOPIC = "/operator/face/expression"
IMAGE_TOPIC = "/avatar/image_raw"
SUCCESS = TransitionCallbackReturn.SUCCESS


def expression(stamp: int, jaw: float = 0.0) -> FaceExpression:
    """A good message; stamp in nanoseconds."""
    message = FaceExpression(layout=FaceExpression.ARKIT_52, is_valid=True, confidence=0.5)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    code = np.zeros(52, np.float32)
    code[ARKIT_INDEX["jawOpen"]] = jaw
    message.coefficients = code.tolist()
    message.head_position = np.array([0.0, 0.0, 0.6], np.float32)
    message.head_orientation = np.array([0.5, -0.5, -0.5, 0.5], np.float32)
    return message


def pixels(message: Any) -> Any:
    shape = message.height, message.width, message.step // message.width
    return np.frombuffer(message.data, np.uint8).reshape(shape).astype(int)


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


class Bench:
    """The node with the tiny avatar, a listener and publishers."""

    def __init__(self, world: Any, wait_until: Any, node: Any) -> None:
        self.world, self.wait_until, self.node = world, wait_until, node
        self.states: list[String] = world.listen(String, "/avatar_renderer/state", LATCHED_QOS)
        self.images: list[Image] = world.listen(Image, IMAGE_TOPIC, IMAGE_QOS)
        self.faces = world.publisher(FaceExpression, FACE_TOPIC, EXPRESSION_QOS)
        wait_until(lambda: self.images, "the first picture")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in groupby(message.data for message in list(self.states))]

    def signal(self, kind: Any, topic: str) -> Any:
        return self.world.publisher(kind, topic, SIGNAL_QOS)

    def wait_state(self, name: str) -> None:
        self.wait_until(lambda: self.names and self.names[-1] == name, f"{name} in {self.names}")

    def show(self, message: Any, publisher: Any = None) -> Any:
        """Publish and wait for the picture with the same stamp."""
        (publisher or self.faces).publish(message)
        found: list[Any] = []

        def arrived() -> bool:
            found[:] = [m for m in list(self.images) if stamp_ns(m) == stamp_ns(message)]
            return bool(found)

        self.wait_until(arrived, f"a picture of {stamp_ns(message)}")
        return pixels(found[0])


@pytest.fixture
def start(
    world: Any, tiny_avatar_path: Path, wait_until: Callable[..., None]
) -> Callable[..., Bench]:
    def start_node(**parameters: Any) -> Bench:
        chosen = {"avatar": str(tiny_avatar_path), "size": SIZE, "backend": "cpu"}
        chosen |= {"return_s": 0.0, "head_motion": "none", **parameters}
        return Bench(world, wait_until, world.start(AvatarRenderer, **chosen))

    return start_node


@pytest.fixture
def animator(tiny_avatar_path: Path) -> Animator:
    return Animator.load(tiny_avatar_path, backend="cpu", size=(SIZE, SIZE))


def test_states_from_hidden_to_hidden(start: Callable[..., Bench]) -> None:
    bench = start(hold_s=0.2, decay_s=0.2, idle_s=0.4, placard_color=[1, 2, 3])
    assert (pixels(bench.images[0]) == (1, 2, 3)).all()
    before = bench.node.get_clock().now().nanoseconds
    assert before - 60 * 10**9 < stamp_ns(bench.images[0]) <= before
    bench.show(expression(5, jaw=0.5))
    # The picture may arrive before the state: "hidden:absent" alone may still be the first one.
    bench.wait_until(lambda: "idle" in bench.names, f"idle in {bench.names}")
    bench.wait_state("hidden:absent")
    assert bench.names == ["hidden:absent", "live", "hold", "decay", "idle", "hidden:absent"]
    bench.wait_until(lambda: (pixels(bench.images[-1]) == (1, 2, 3)).all(), "the placard")
    today = [m for m in list(bench.images) if stamp_ns(m) > before]
    assert today, "idle pictures carry the node's clock"
    count = len(bench.images)
    time.sleep(0.3)
    assert len(bench.images) == count, "the placard is published again and again"
    late: list[Image] = bench.world.listen(Image, IMAGE_TOPIC, IMAGE_QOS)
    bench.wait_until(lambda: late, "the placard for a newcomer")
    latched: list[String] = bench.world.listen(String, "/avatar_renderer/state", LATCHED_QOS)
    bench.wait_until(lambda: latched, "the state for a newcomer")
    assert latched[0].data == "hidden:absent"
    # Also where the middleware keeps nothing for those who come late.
    volatile: list[String] = bench.world.listen(String, "/avatar_renderer/state", SIGNAL_QOS)
    bench.wait_until(lambda: volatile, "the state for a newcomer without latching")
    assert volatile[0].data == "hidden:absent"
    count = len(latched)
    time.sleep(0.5)
    assert len(latched) == count, "the state is published again and again"


def test_a_resting_face_blinks_at_a_low_rate(start: Callable[..., Bench]) -> None:
    bench = start(show_idle_at_start=True, idle_rate_hz=10.0, blink_min_s=0.7, blink_max_s=0.8)
    assert bench.names[-1] == "idle"
    begin = time.monotonic()
    bench.wait_until(lambda: time.monotonic() > begin + 2.0, "two seconds")
    count = len(bench.images)
    assert 15 < count < 70
    first = pixels(bench.images[0])
    changes = [np.abs(pixels(image) - first).mean() for image in bench.images]
    assert max(changes) > 0.05, "no blink"


def test_consent_presence_and_driving_hide(start: Callable[..., Bench]) -> None:
    bench = start(
        require_consent=True, driving_policy="hide", driving_timeout_s=60.0, hold_s=30.0,
        live_s=30.0, decay_s=0.1, idle_s=0.0,
    )  # fmt: skip
    consent = bench.signal(Bool, "/operator/consent")
    present = bench.signal(Bool, "/operator/present")
    driving = bench.signal(String, "/vehicle/driving_state")
    passenger = bench.signal(Bool, "/vehicle/passenger_display")
    assert bench.names == ["hidden:consent"]
    consent.publish(Bool(data=True))
    bench.wait_state("hidden:driving")
    driving.publish(String(data="parked"))
    bench.wait_state("hidden:absent")
    present.publish(Bool(data=True))
    bench.wait_state("idle")
    bench.show(expression(7))
    bench.wait_state("live")
    driving.publish(String(data="idling"))
    bench.wait_state("hidden:driving")
    passenger.publish(Bool(data=True))
    bench.wait_state("live")
    driving.publish(String(data="flying"))
    passenger.publish(Bool(data=False))
    bench.wait_state("hidden:driving")
    consent.publish(Bool(data=False))
    bench.wait_state("hidden:consent")
    faults = bench.node._faults.counts()
    assert faults == {"driving_state": 1}


def test_a_stale_driving_state_freezes(start: Callable[..., Bench]) -> None:
    bench = start(driving_policy="freeze", driving_timeout_s=0.5, hold_s=30.0, live_s=30.0)
    driving = bench.signal(String, "/vehicle/driving_state")
    assert bench.names == ["hidden:driving"]
    driving.publish(String(data="parked"))
    bench.wait_state("hidden:absent")
    shown = bench.show(expression(1))
    bench.wait_state("hold")
    count = len(bench.images)
    bench.faces.publish(expression(2, jaw=1.0))
    time.sleep(0.3)
    assert len(bench.images) == count
    np.testing.assert_array_equal(pixels(bench.images[-1]), shown)
    driving.publish(String(data="parked"))
    bench.wait_state("live")
    bench.wait_until(lambda: stamp_ns(bench.images[-1]) == 2, "the newest code")


def test_joint_states_drive_code_and_head(start: Callable[..., Bench], animator: Animator) -> None:
    bench = start(head_motion="relative", expression="absolute")
    joints = bench.world.publisher(JointState, "/operator/face/joint_states", EXPRESSION_QOS)
    message = JointState(name=["jawOpen", "head_yaw", "arm"], position=[0.6, 0.15, 9.0])
    message.header.stamp.nanosec = 77
    shown = bench.show(message, joints)
    code = np.zeros(52, np.float32)
    code[ARKIT_INDEX["jawOpen"]] = 0.6
    pose = pose_of_motion(turn_on_neck(0.15, 0.0, 0.0), animator.record.neutral_head_pose)
    expected = animator.render(animator.transfer(code, None), pose).astype(int)
    assert np.abs(shown - expected).max() <= 2
    bad = JointState(name=["jawOpen"], position=[])
    joints.publish(bad)
    bench.wait_until(lambda: bench.node._faults.counts() == {"joint_position": 1}, "the drop")


def test_the_robots_own_expression(start: Callable[..., Bench]) -> None:
    """hri_msgs is not among the wheels: the callback is called as its subscription would."""
    bench = start(robot_expression_s=0.5, robot_expression_ease_s=0.1, idle_rate_hz=0.0)
    stage = bench.node._stage
    callback = stage.tell(stage.tell_robot)
    callback(SimpleNamespace(expression="happy", valence=0.0, arousal=0.0))
    bench.wait_state("idle")
    bench.wait_state("hidden:absent")
    callback(SimpleNamespace(expression="", valence=float("nan"), arousal=0.0))
    callback(SimpleNamespace(expression="merry", valence=0.0, arousal=0.0))
    bench.wait_until(lambda: bench.node._faults.counts() == {"robot_expression": 2}, "the drops")
    assert bench.names[-1] == "hidden:absent"


def test_hri_messages_where_installed(start: Callable[..., Bench]) -> None:
    messages = pytest.importorskip("hri_msgs.msg", reason="hri_msgs is not installed")
    bench = start(robot_expression_s=0.5)
    robot = bench.signal(messages.Expression, "/robot_face/expression")
    robot.publish(messages.Expression(expression="happy"))
    bench.wait_state("idle")


@pytest.mark.parametrize(("encoding", "kind"), [("bgr8", "jpeg"), ("rgba8", "png")])
def test_encodings(
    start: Callable[..., Bench], animator: Animator, encoding: str, kind: str
) -> None:
    bench = start(encoding=encoding, expression="absolute", hold_s=30.0)
    compressed: list[CompressedImage] = bench.world.listen(
        CompressedImage, "/avatar/image_raw/compressed", IMAGE_QOS
    )
    if encoding == "rgba8":
        assert not pixels(bench.images[0])[..., 3].any(), "the placard is seen"
    shown = bench.show(expression(3))
    assert bench.images[-1].encoding == encoding
    code = animator.transfer(np.zeros(52, np.float32), None)
    expected = (animator.render_rgba if encoding == "rgba8" else animator.render)(code)
    if encoding == "bgr8":
        expected = expected[..., ::-1]
    assert np.abs(shown - expected.astype(int)).max() <= 2

    def of_face() -> list[CompressedImage]:
        return [m for m in list(compressed) if stamp_ns(m) == 3]

    bench.wait_until(of_face, "the compressed picture")
    found = of_face()[0]
    assert kind in found.format
    decoded = cv2.imdecode(np.frombuffer(found.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    if kind == "png":
        np.testing.assert_array_equal(cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA), shown)
    else:
        assert np.abs(decoded.astype(int) - shown).mean() < 6


def test_pictures_behind_and_instead_of_the_avatar(
    start: Callable[..., Bench], tmp_path: Path
) -> None:
    back, placard = tmp_path / "back.png", tmp_path / "placard.png"
    cv2.imwrite(str(back), np.full((8, 8, 3), (0, 255, 0), np.uint8))
    cv2.imwrite(str(placard), np.full((8, 8, 3), (255, 0, 0), np.uint8))
    bench = start(background_image=str(back), placard_image=str(placard))
    assert (pixels(bench.images[0]) == (0, 0, 255)).all()
    shown = bench.show(expression(3))
    assert (shown[0, 0] == (0, 255, 0)).all()
    assert np.abs(shown - (0, 255, 0)).max() > 50


def test_orbit_and_limits_change_at_once(start: Callable[..., Bench]) -> None:
    bench = start()
    front = bench.show(expression(1))
    node = bench.node
    assert node.set_parameters([Parameter("orbit_yaw_deg", value=40.0)])[0].successful
    assert np.abs(bench.show(expression(2)) - front).mean() > 1
    assert node.set_parameters([Parameter("orbit_yaw_deg", value=0.0)])[0].successful
    assert np.abs(bench.show(expression(3)) - front).max() <= 1
    assert not node.set_parameters([Parameter("orbit_pitch_deg", value=91.0)])[0].successful
    assert node.set_parameters([Parameter("max_yaw_deg", value=5.0)])[0].successful
    assert node._stage.settings.limits.yaw_deg == 5.0


def test_latency_of_each_picture(start: Callable[..., Bench]) -> None:
    bench = start()
    latencies: list[StageLatency] = bench.world.listen(
        StageLatency, "/avatar_renderer/latency", IMAGE_QOS
    )
    bench.wait_until(lambda: bench.node.count_subscribers("/avatar_renderer/latency"), "listener")
    stamp = bench.node.get_clock().now().nanoseconds - 50_000_000
    bench.show(expression(stamp))
    bench.wait_until(lambda: latencies, "the latency")
    message = latencies[0]
    assert stamp_ns(message) == stamp
    assert list(message.stages) == ["receive", "wait", "prepare", "render", "publish", "total"]
    seconds = np.array(message.seconds)
    assert seconds[0] >= 0.05
    assert (seconds >= 0).all()
    assert seconds[:-1].sum() == pytest.approx(seconds[-1], abs=0.02)


@pytest.fixture
def other_avatar_path(tmp_path: Path, tiny_avatar_path: Path) -> Path:
    """The same head, painted red."""
    avatar = load_avatar(tiny_avatar_path)
    avatar.attributes.color_base.data[:, 0] = avatar.attributes.color_base.new_tensor([2, -2, -2])
    path = tmp_path / "red.cag"
    save_avatar(path, avatar)
    return path


def test_avatars_are_switched_by_service_and_topic_without_a_gap(
    start: Callable[..., Bench], other_avatar_path: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.cag"
    broken.write_bytes(b"nothing")
    bench = start(
        avatars=[str(other_avatar_path), str(broken)], show_idle_at_start=True, idle_rate_hz=25.0
    )
    reports: list[DiagnosticArray] = bench.world.listen(DiagnosticArray, "/diagnostics", 10)
    client = bench.world.node.create_client(SelectAvatar, "/avatar_renderer/select_avatar")
    assert client.wait_for_service(10.0)

    def select(name: str) -> SelectAvatar.Response:
        future = client.call_async(SelectAvatar.Request(name=name))
        bench.wait_until(future.done, "the service")
        return future.result()

    def red() -> bool:
        mean = pixels(bench.images[-1]).reshape(-1, 3).mean(0)
        return bool(mean[0] > mean[1] + 10)

    assert not red()
    refused = select("z")
    assert not refused.success
    assert "this node has tiny, red, broken" in refused.message
    done = select("red")
    assert done.success
    assert done.message == "red is being loaded"
    bench.wait_until(red, "the red avatar")
    stamps = np.diff([stamp_ns(message) for message in list(bench.images)]) * 1e-9
    assert stamps.max() < 0.5, "a gap"
    name = bench.world.publisher(String, "/avatar_renderer/avatar_name", SIGNAL_QOS)
    name.publish(String(data="tiny"))
    bench.wait_until(lambda: not red(), "the first avatar")
    assert select("broken").success
    name.publish(String(data="nobody"))

    def health() -> dict[str, str]:
        return bench.world.health(reports, "avatar_renderer")

    bench.wait_until(lambda: health().get("avatars_failed") == "1", "the failure")
    bench.wait_until(lambda: health().get("dropped_avatar_name") == "1", "the drop")
    assert health()["avatar"] == "tiny"
    assert health()["state"] == "idle"


def test_timer_mode_glides_between_codes(start: Callable[..., Bench]) -> None:
    bench = start(render_mode="timer", rate_hz=60.0, hold_s=30.0, expression="absolute")
    first = bench.show(expression(1))
    count = len(bench.images)
    for index in range(1, 6):
        time.sleep(0.1)
        bench.faces.publish(expression(1 + index, jaw=0.15 * index))
    time.sleep(0.3)
    moving = [m for m in list(bench.images)[count:] if stamp_ns(m) > 1]
    assert len(moving) >= 12, "no pictures between five codes"
    levels = [np.abs(pixels(message) - first).mean() for message in moving]
    assert np.diff(levels).min() > -0.05
    assert np.diff(levels).max() < 0.6 * max(levels)
    assert stamp_ns(bench.images[-1]) == 6
    assert [stamp_ns(m) for m in moving] == sorted(stamp_ns(m) for m in moving)


def test_lifecycle_walk_with_another_avatar(
    start: Callable[..., Bench], other_avatar_path: Path, tmp_path: Path, capfd: Any
) -> None:
    bench = start()
    node, normal = bench.node, bench.show(expression(1))
    assert node.trigger_deactivate() == SUCCESS
    bench.wait_state("hidden:absent")
    assert node.trigger_activate() == SUCCESS
    bench.wait_until(lambda: bench.faces.get_subscription_count(), "the renderer")
    assert np.abs(bench.show(expression(2)) - normal).max() <= 1
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS

    def configure(name: str, value: Any) -> TransitionCallbackReturn:
        assert node.set_parameters([Parameter(name, value=value)])[0].successful
        return node.trigger_configure()

    missing = str(tmp_path / "missing.cag")
    assert configure("avatar", missing) == TransitionCallbackReturn.FAILURE
    assert f"cannot configure: {missing}" in capfd.readouterr().err.replace("avatar ", "")
    assert configure("avatar", "") == TransitionCallbackReturn.FAILURE
    assert "parameter avatar is not set" in capfd.readouterr().err
    node.set_parameters([Parameter("avatar", value=str(other_avatar_path))])
    for name, bad, good in (
        ("background", [1, 2], [0, 0, 0]),
        ("placard_image", missing, ""),
        ("blink_min_s", 20.0, 3.0),
        ("avatars", [str(other_avatar_path), str(tmp_path / "x" / "red.cag")], [""]),
    ):
        assert configure(name, bad) == TransitionCallbackReturn.FAILURE, name
        assert "cannot configure" in capfd.readouterr().err
        assert node.set_parameters([Parameter(name, value=good)])[0].successful
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    bench.wait_until(lambda: bench.faces.get_subscription_count(), "the renderer")
    red = bench.show(expression(3)).reshape(-1, 3).mean(0)
    assert red[0] > red[1] + 10
    assert node.trigger_shutdown() == SUCCESS
    assert node._stage is None
    assert node._loop is None


def test_a_path_in_the_home_folder(
    world: Any, tiny_avatar_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(tiny_avatar_path, tmp_path / "mine.cag")
    node = world.add(AvatarRenderer, avatar="~/mine.cag", size=SIZE, backend="cpu")
    assert node.trigger_configure() == SUCCESS
