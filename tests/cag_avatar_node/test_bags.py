"""Bags of expression codes: written, recorded from real topics, read, rendered the same twice."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node import bag_files
from cag_avatar_node.bag_files import (
    FACE_EXPRESSION,
    expression_topic,
    face_expression_definition,
    make_typestore,
    open_bag_writer,
    read_messages,
)
from cag_avatar_node.bag_rendering import BagRenderConfig, render_bag, rendered_frames
from cag_avatar_node.driven_avatar import DrivenAvatar, DrivingSettings
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.neutral_pose import NeutralPose

ROOT = Path(__file__).parents[2]
TOPIC = "/operator/face/expression"
START = 1_700_000_000_000_000_000
SMALL = BagRenderConfig(size=64, fps=10, backend="cpu")

needs_rosbags = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("rosbags", "apsw")),
    reason="rosbags is not installed: pip install 'cag_avatar[bags]'",
)


def expression(store: Any, time_ns: int, sequence: int = 0, **changes: Any) -> Any:
    """A FaceExpression of the type store; ``jawOpen=0.5`` and the like are coefficients."""
    types = store.types
    code = np.zeros(52, np.float32)
    for name in [name for name in changes if name in ARKIT_INDEX]:
        code[ARKIT_INDEX[name]] = changes.pop(name)
    seconds, rest = divmod(time_ns, 10**9)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=rest)
    fields = {
        "header": types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
        "face_id": "",
        "layout": 1,
        "coefficients": code,
        "head_position": np.array([0.0, 0.0, 0.6], np.float32),
        # The face looks into the camera.
        "head_orientation": np.array([0.5, 0.5, -0.5, 0.5], np.float32),
        "confidence": 1.0,
        "is_valid": True,
        "eyes_valid": True,
        "sequence": sequence,
    }
    return types[FACE_EXPRESSION](**{**fields, **changes})


def write_bag(path: Path, times_ms: Sequence[int], storage: Any = "mcap", **changes: Any) -> None:
    with open_bag_writer(path, storage) as writer:
        writer.add_topic(TOPIC, FACE_EXPRESSION)
        for number, time_ms in enumerate(times_ms):
            time_ns = START + time_ms * 1_000_000
            jaw = 0.4 + 0.4 * np.sin(number)
            message = expression(writer.store, time_ns, number, jawOpen=jaw, **changes)
            writer.write(TOPIC, time_ns, writer.store.serialize_cdr(message, FACE_EXPRESSION))


def test_the_definition_is_the_messages_own_and_is_installed() -> None:
    source = ROOT / "ros2_ws" / "src" / "cag_avatar_msgs" / "msg" / "FaceExpression.msg"
    assert face_expression_definition() == source.read_text()
    assert '"*.msg"' in (ROOT / "setup.py").read_text(), "installed packages lack the definition"


def test_missing_rosbags_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "rosbags", None)
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    with pytest.raises(MissingDependencyError, match=r"cag_avatar\[bags\]"):
        expression_topic(tmp_path)


@needs_rosbags
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_written_and_read_again(tmp_path: Path, storage: str) -> None:
    path = tmp_path / "new" / "bag"
    write_bag(path, [0, 40, 80], storage, mouthPucker=0.25)
    assert expression_topic(path) == TOPIC
    found = list(read_messages(path, TOPIC))
    assert [time_ns for time_ns, _ in found] == [START, START + 40_000_000, START + 80_000_000]
    assert [message.sequence for _, message in found] == [0, 1, 2]
    assert found[0][1].coefficients[ARKIT_INDEX["mouthPucker"]] == 0.25
    assert [p.name for p in path.parent.iterdir()] == ["bag"], "something was left over"


@needs_rosbags
def test_the_bags_own_definition_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bag(tmp_path / "bag", [0])
    later = face_expression_definition() + "\nfloat32 added_later\n"
    monkeypatch.setattr(bag_files, "face_expression_definition", lambda: later)
    ((_, message),) = read_messages(tmp_path / "bag", TOPIC)
    assert message.is_valid
    assert not hasattr(message, "added_later")


@needs_rosbags
def test_bags_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none does not exist"):
        expression_topic(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty cannot be read"):
        expression_topic(tmp_path / "empty")
    write_bag(tmp_path / "bag", [0])
    with pytest.raises(InputError, match="no expressions on '/other': give /operator"):
        expression_topic(tmp_path / "bag", "/other")
    with (
        pytest.raises(InputError, match="exists already"),
        open_bag_writer(tmp_path / "bag"),
    ):
        pass
    with open_bag_writer(tmp_path / "camera") as writer:
        writer.add_topic("/camera", "sensor_msgs/msg/CameraInfo")
        with pytest.raises(InputError, match="my_msgs/msg/Own is unknown"):
            writer.add_topic("/own", "my_msgs/msg/Own")
    with pytest.raises(InputError, match="no topic of type .*, only /camera"):
        expression_topic(tmp_path / "camera")
    with open_bag_writer(tmp_path / "broken") as writer:
        writer.add_topic(TOPIC, FACE_EXPRESSION)
        writer.write(TOPIC, START, b"\x00\x01\x00\x00abc")
    with pytest.raises(InputError, match="message 0 of"):
        list(read_messages(tmp_path / "broken", TOPIC))


@needs_rosbags
def test_a_failed_recording_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with open_bag_writer(tmp_path / "bag") as writer:
            writer.add_topic(TOPIC, FACE_EXPRESSION)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


@needs_rosbags
def test_the_same_bag_gives_the_same_video(tmp_path: Path, tiny_avatar_path: Path) -> None:
    bag = tmp_path / "bag"
    write_bag(bag, [*range(0, 1000, 40), *range(3500, 4000, 40)])  # a gap: hold, fade, idle
    videos = []
    for name in ("a", "b"):
        output = tmp_path / f"{name}.mp4"
        result = render_bag(bag, tiny_avatar_path, output, SMALL)
        assert (result.frames, result.messages, result.dropped) == (41, 38, {})
        videos.append(output.read_bytes())
    assert videos[0] == videos[1]


@pytest.fixture
def avatar(tiny_avatar_path: Path) -> DrivenAvatar:
    """The tiny avatar, small."""
    return DrivenAvatar(tiny_avatar_path, "cpu", 64, (255, 255, 255), NeutralPose(1.0))


@needs_rosbags
def test_the_renderers_rules_hold(avatar: DrivenAvatar) -> None:
    store = make_typestore()
    second = 10**9

    def bag() -> Any:
        for number in range(10):
            time_ns = START + number * second // 10
            code = {"jawOpen": 0.6} if number % 2 else {}
            yield time_ns, expression(store, time_ns, **code)
        yield START + second, expression(store, START, layout=9)
        yield START + second, expression(store, START, coefficients=np.zeros(5, np.float32))
        yield START + second, expression(store, START, head_position=np.full(3, np.nan, "f4"))
        yield START + second, expression(store, START, is_valid=False)
        yield START + 40 * second, expression(store, START + 40 * second)

    faults = FaultLog(lambda message: None)
    frames = list(rendered_frames(bag(), avatar, SMALL, faults))
    assert faults.counts() == {"layout": 1, "coefficients": 1, "head_position": 1}
    assert len(frames) == 401
    assert all(frame.shape == (64, 64, 3) for frame in frames)
    moved = [np.abs(frames[i].astype(int) - frames[i - 1]).max() for i in range(4, 9)]
    assert min(moved) > 3, "the mouth does not move"
    placard = np.full((64, 64, 3), 32)
    assert (frames[395] == placard).all(), "shown though nobody was there for half a minute"
    assert not (frames[200] == placard).all(), "hidden too early"
    assert np.abs(frames[13].astype(int) - frames[12]).max() > 0, "does not fade"


@needs_rosbags
def test_messages_that_are_dropped_show_nothing(avatar: DrivenAvatar) -> None:
    store = make_typestore()
    bad = [(START + 10**8 * n, expression(store, START, layout=9)) for n in range(10)]
    faults = FaultLog(lambda message: None)
    frames = list(rendered_frames(bad, avatar, SMALL, faults))
    assert faults.counts() == {"layout": 10}
    assert all((frame == 32).all() for frame in frames), "shown before anybody was there"


@needs_rosbags
def test_settings_reach_the_avatar(avatar: DrivenAvatar) -> None:
    store = make_typestore()
    turned = np.array([0.5, 0.5, -0.5, 0.5], np.float32)
    still = [(START, expression(store, START))]
    assert len(list(rendered_frames(still, avatar, SMALL, FaultLog(print)))) == 1
    config = BagRenderConfig(size=64, fps=10, driving=DrivingSettings(head_motion="none"))
    broken_pose = expression(store, START, head_orientation=turned * 9)
    faults = FaultLog(lambda message: None)
    assert list(rendered_frames([(START, broken_pose)], avatar, config, faults))
    assert faults.counts() == {}, "a head pose that nobody asked for was checked"
    jump = [*still, (START + 9999 * 10**9, expression(store, START))]
    with pytest.raises(InputError, match="pause for 9999 s"):
        list(rendered_frames(jump, avatar, SMALL, faults))
    for wrong in ({"fps": 0.0}, {"size": 10}):
        with pytest.raises(InputError, match="must lie in"):
            BagRenderConfig(**wrong)  # type: ignore[arg-type]


@needs_rosbags
def test_live_topics_are_recorded(
    world: Any, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    from cag_avatar_msgs.msg import FaceExpression
    from sensor_msgs.msg import CameraInfo

    from cag_avatar_node.bag_recorder import RecordConfig, record_bag
    from cag_avatar_node.qos import EXPRESSION_QOS

    counts: list[dict[str, int]] = []
    config = RecordConfig(tmp_path / "bag", duration_s=1.5)
    thread = threading.Thread(target=lambda: counts.append(record_bag(config, world.context)))
    thread.start()
    codes = world.publisher(FaceExpression, TOPIC, EXPRESSION_QOS)
    cameras = world.publisher(CameraInfo, "/avatar/camera_info", EXPRESSION_QOS)
    for number in range(5):
        message = FaceExpression(layout=1, is_valid=True, sequence=number, face_id="me")
        message.coefficients = np.linspace(0, 1, 52).astype(np.float32).tolist()
        codes.publish(message)
        cameras.publish(CameraInfo(width=64 + number))
    thread.join(20)
    assert counts == [{TOPIC: 5, "/avatar/camera_info": 5}]
    found = [message for _, message in read_messages(tmp_path / "bag", TOPIC)]
    assert [(message.sequence, message.face_id) for message in found] == [
        (number, "me") for number in range(5)
    ]
    np.testing.assert_array_equal(found[0].coefficients, np.linspace(0, 1, 52).astype(np.float32))
    widths = [m.width for _, m in read_messages(tmp_path / "bag", "/avatar/camera_info")]
    assert widths == [64, 65, 66, 67, 68]
    (endpoint,) = [
        info
        for info in world.node.get_publishers_info_by_topic(TOPIC)
        if info.topic_type == FACE_EXPRESSION
    ]
    recorded = make_typestore().hash_rihs01(FACE_EXPRESSION)
    assert str(endpoint.topic_type_hash) in (recorded, f"RIHS01_{recorded}")


@needs_rosbags
def test_silence_is_an_error_and_leaves_no_bag(world: Any, tmp_path: Path) -> None:
    from cag_avatar_node.bag_recorder import RecordConfig, record_bag

    with pytest.raises(InputError, match="no message came on /operator/face/expression"):
        record_bag(RecordConfig(tmp_path / "bag", duration_s=0.3), world.context)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="must be positive"):
        RecordConfig(tmp_path / "bag", duration_s=0.0)


@needs_rosbags
def test_rendering_from_the_command_line_needs_no_ros(
    tmp_path: Path, tiny_avatar_path: Path
) -> None:
    write_bag(tmp_path / "bag", [0, 40, 80])
    program = (
        "import sys, json\n"
        "from cag_avatar_cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "ros = sorted(n for n in sys.modules if n in ('rclpy', 'cag_avatar_msgs', 'sensor_msgs'))\n"
        "print(json.dumps([code, ros]))\n"
    )
    arguments = ["bag", "render", str(tmp_path / "bag"), str(tiny_avatar_path)]
    options = ["-o", str(tmp_path / "out.mp4"), "--size", "64", "--fps", "25", "--backend", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, *options],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []], done.stderr
    assert "3 frames from 3 messages, 0 dropped" in done.stdout
    assert (tmp_path / "out.mp4").stat().st_size > 500
