"""avatar_renderer under random messages on every subscription.

CAG_AVATAR_FUZZ sets their number (3,000 by default), for long runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from cag_avatar_msgs.msg import FaceExpression
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String

from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node.avatar_renderer import AvatarRenderer
from cag_avatar_node.joint_expression import HEAD_JOINTS
from cag_avatar_node.qos import IMAGE_QOS, SIGNAL_QOS

COUNT = int(os.environ.get("CAG_AVATAR_FUZZ", "3000"))
NUMBERS = [0.0, 0.5, 1.0, -1.0, 3.0, 1e-38, 1e38, -1e38, float("nan"), float("inf"), float("-inf")]


class Fuzzer:
    """Random messages, mostly with one or two things wrong."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def number(self) -> float:
        return float(NUMBERS[self.random.integers(len(NUMBERS))])

    def text(self) -> str:
        letters = "parkedmovingidlingtiny\u00e9\u4e2d\U0001f600 /\n\t%{}"
        size = int(self.random.choice([0, 1, 6, 300, 20000]))
        return "".join(letters[index] for index in self.random.integers(len(letters), size=size))

    def header(self, message: Any) -> Any:
        stamp = message.header.stamp
        stamp.sec = int(self.random.choice([0, 5, 10**9, -1, -(2**31), 2**31 - 1]))
        nanoseconds = [0, 1, 999_999_999]
        stamp.nanosec = int(
            self.random.choice([10**9, 2**32 - 1] if self.chance(0.1) else nanoseconds)
        )
        return message

    def face(self) -> FaceExpression:
        message = FaceExpression(is_valid=self.chance(0.9), layout=FaceExpression.ARKIT_52)
        if self.chance(0.1):
            message.layout = int(self.random.integers(256))
        size = 52 if self.chance(0.8) else int(self.random.choice([0, 1, 51, 53, 100, 20000]))
        coefficients = self.random.uniform(-0.2, 1.2, size)
        if size and self.chance(0.2):
            coefficients[self.random.integers(size)] = self.number()
        message.coefficients = coefficients.astype(np.float32).tolist()
        position = self.random.uniform([-0.2, -0.2, 0.3], [0.2, 0.2, 1.5])
        quaternion = np.array([0.5, -0.5, -0.5, 0.5]) + self.random.normal(0, 0.1, 4)
        quaternion /= np.linalg.norm(quaternion)
        if self.chance(0.2):
            position[self.random.integers(3)] = self.number()
        if self.chance(0.2):
            quaternion[self.random.integers(4)] = self.number()
        message.head_position = position.astype(np.float32)
        message.head_orientation = quaternion.astype(np.float32)
        message.face_id = self.text() if self.chance(0.05) else ""
        message.confidence = self.number()
        message.sequence = int(self.random.integers(2**32))
        return self.header(message)  # type: ignore[no-any-return]

    def joints(self) -> JointState:
        names = [*ARKIT_NAMES, *HEAD_JOINTS, "elbow"]
        size = int(self.random.choice([0, 1, 52, 56, 3000], p=[0.05, 0.2, 0.3, 0.4, 0.05]))
        chosen = self.random.integers(len(names), size=size)
        if size == len(names):
            chosen = self.random.permutation(size)
        message = JointState(name=[names[index] for index in chosen])
        if size and self.chance(0.1):
            message.name[0] = self.text()
        positions = self.random.uniform(-0.2, 1.2, size + int(self.chance(0.1)))
        if len(positions) and self.chance(0.2):
            positions[self.random.integers(len(positions))] = self.number()
        message.position = positions.tolist()
        message.velocity = [self.number()] * int(self.random.integers(3))
        return self.header(message)  # type: ignore[no-any-return]

    def flag(self) -> Bool:
        return Bool(data=self.chance(0.8))

    def driving(self) -> String:
        return String(data="parked" if self.chance(0.8) else self.text())

    def name(self) -> String:
        return String(data="tiny" if self.chance(0.5) else self.text())


def test_no_message_stops_the_renderer(
    world: Any, tiny_avatar_path: Path, wait_until: Callable[..., None]
) -> None:
    everything = {
        f"qos_overrides./operator/face/{topic}.subscription.{key}": value
        for topic in ("expression", "joint_states")
        for key, value in (("reliability", "reliable"), ("history", "keep_all"))
    }
    node = world.start(
        AvatarRenderer,
        avatar=str(tiny_avatar_path),
        size=64,
        backend="cpu",
        driving_policy="freeze",
        driving_timeout_s=3600.0,
        head_motion="absolute",
        **everything,
    )
    images: list[Image] = world.listen(Image, "/avatar/image_raw", IMAGE_QOS)
    reports: list[DiagnosticArray] = world.listen(DiagnosticArray, "/diagnostics", 10)
    fuzzer = Fuzzer(0)
    kinds = [
        (FaceExpression, "/operator/face/expression", fuzzer.face, 0.5),
        (JointState, "/operator/face/joint_states", fuzzer.joints, 0.3),
        (Bool, "/operator/present", fuzzer.flag, 0.04),
        (Bool, "/operator/consent", fuzzer.flag, 0.04),
        (String, "/vehicle/driving_state", fuzzer.driving, 0.04),
        (Bool, "/vehicle/passenger_display", fuzzer.flag, 0.04),
        (String, "/avatar_renderer/avatar_name", fuzzer.name, 0.04),
    ]
    publishers = [world.publisher(kind, topic, SIGNAL_QOS) for kind, topic, _, _ in kinds]
    subscribed = {
        name
        for name, _ in node.get_subscriber_names_and_types_by_node("avatar_renderer", "/")
        if name not in ("/parameter_events", "/clock")
    }
    assert subscribed - {"/robot_face/expression"} == {topic for _, topic, _, _ in kinds}
    shares = np.array([share for *_, share in kinds])
    faces = 0
    for index in fuzzer.random.choice(len(kinds), COUNT, p=shares / shares.sum()):
        publishers[index].publish(kinds[index][2]())
        if index < 2:
            faces += 1
            time.sleep(0.0005)  # so that not all of them are replaced by the next one

    publishers[2].publish(Bool(data=True))
    publishers[3].publish(Bool(data=True))
    publishers[4].publish(String(data="parked"))
    publishers[6].publish(String(data="tiny"))
    time.sleep(0.5)
    good = FaceExpression(is_valid=True, layout=FaceExpression.ARKIT_52, coefficients=[0.0] * 52)
    good.head_position = np.array([0, 0, 0.6], np.float32)
    good.head_orientation = np.array([0.5, -0.5, -0.5, 0.5], np.float32)
    good.header.stamp.sec, good.header.stamp.nanosec = 77, 777
    publishers[0].publish(good)
    wait_until(
        lambda: any(
            (m.header.stamp.sec, m.header.stamp.nanosec) == (77, 777) for m in list(images)
        ),
        "the picture of a good message",
    )
    reports.clear()
    wait_until(lambda: world.health(reports, "avatar_renderer"), "diagnostics")
    health = world.health(reports, "avatar_renderer")
    assert "exceptions" not in health, "the renderer's thread raised"
    assert health["state"] in ("live", "hold", "decay")
    dropped = {key.removeprefix("dropped_") for key in health if key.startswith("dropped_")}
    assert dropped >= {
        "stamp", "layout", "coefficients", "head_position", "head_orientation", "joint_position",
        "driving_state", "avatar_name",
    }  # fmt: skip
    drawn = node._stage.timings["latency"].rate(node.seconds()) > 0
    assert drawn, "nothing was drawn meanwhile"
    skipped = int(health["expressions_skipped"])
    assert skipped < 0.9 * faces, "hardly a message was handled"
