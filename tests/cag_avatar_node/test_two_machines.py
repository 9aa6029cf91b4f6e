"""Operator and robot on two machines: codes over a link that delays, loses and breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from tests.cag_avatar_node.weak_link import WeakLink, require_namespaces

#: Publishes codes of an opening and closing mouth, 30 a second.
OPERATOR = """
import math, time
import rclpy
from cag_avatar_msgs.msg import FaceExpression
from cag_avatar_node.qos import EXPRESSION_QOS
from rclpy.serialization import serialize_message
rclpy.init()
node = rclpy.create_node("operator")
publisher = node.create_publisher(FaceExpression, "operator/face/expression", EXPRESSION_QOS)
message = FaceExpression(layout=FaceExpression.ARKIT_52, is_valid=True, confidence=0.9)
message.head_position = [0.0, 0.0, 0.7]
message.head_orientation = [0.5, -0.5, -0.5, 0.5]
message.header.frame_id = "camera_optical_frame"
start, number = time.monotonic(), 0
while True:
    code = [0.05] * 52
    code[17] = 0.4 + 0.4 * math.sin(number / 5)
    message.coefficients = code
    message.sequence = number
    message.header.stamp = node.get_clock().now().to_msg()
    if number == 0:
        print(len(serialize_message(message)), flush=True)
    publisher.publish(message)
    number += 1
    time.sleep(max(0.0, start + number / 30 - time.monotonic()))
"""

#: Prints what the robot's side sees: ["image" or state, time].
ROBOT = """
import json, time
import rclpy
from cag_avatar_node.qos import IMAGE_QOS, LATCHED_QOS
from sensor_msgs.msg import Image
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("robot")
def tell(what):
    print(json.dumps([what, time.monotonic()]), flush=True)
node.create_subscription(String, "avatar_renderer/state", lambda m: tell(m.data), LATCHED_QOS)
node.create_subscription(Image, "avatar/image_raw", lambda m: tell("image"), IMAGE_QOS)
rclpy.spin(node)
"""

#: A machine busy with something else may stall one stretch of time; a link that is not bridged
#: stalls every one.
WINDOWS = 4


class Robot:
    """Events that the probe on the robot's side told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.events: list[tuple[str, float]] = []
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            what, when = json.loads(line)
            self.events.append((what, when))

    def wait_for(self, what: str, timeout: float, since: float = 0.0) -> float:
        """When it first happened."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for event, when in list(self.events):
                if event == what and when >= since:
                    return when
            time.sleep(0.02)
        pytest.fail(f"no {what} within {timeout} s; seen: {self.events[-8:]}")

    def states(self, since: float) -> list[str]:
        return [event for event, when in self.events if when >= since and event != "image"]

    def longest_gap(self, since: float, until: float) -> float:
        """Between two pictures."""
        times = [when for event, when in self.events if event == "image" and since <= when <= until]
        return max((b - a for a, b in pairwise(times)), default=until - since)


@pytest.fixture
def link() -> Iterator[WeakLink]:
    require_namespaces()
    made = WeakLink()
    yield made
    made.close()


def start(link: WeakLink, namespace: str, words: list[str], domain: int) -> subprocess.Popen[str]:
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SUBNET"
    command = link.within(namespace, [sys.executable, *words])
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def is_bridged(robot: Robot) -> bool:
    """Whether eight seconds of a weak link go by without a freeze, the state live or hold."""
    time.sleep(0.5)
    since = time.monotonic()
    time.sleep(8.0)
    calm = set(robot.states(since)) <= {"live", "hold"}
    return calm and robot.longest_gap(since, time.monotonic()) <= 0.25


def cut_goes_as_specified(link: WeakLink, robot: Robot) -> bool:
    """Break the link, wait for every state, mend it; whether all came in time."""
    link.up = False
    cut = time.monotonic()
    held = robot.wait_for("hold", 5.0, cut) - cut
    fading = robot.wait_for("decay", 5.0, cut) - cut
    idle = robot.wait_for("idle", 5.0, cut) - cut
    time.sleep(1.0)
    link.up = True
    back = time.monotonic()
    live = robot.wait_for("live", 5.0, back) - back
    return held < 0.3 and 0.2 < fading < 0.6 and 0.9 < idle < 1.5 and live <= 1.0


def test_codes_over_a_weak_link(link: WeakLink, tiny_avatar_path: Path, domain_id: int) -> None:
    renderer = ["-m", "cag_avatar_node.avatar_renderer", "--ros-args"]
    for name, value in (("avatar", tiny_avatar_path), ("size", 64), ("idle_s", 60.0)):
        renderer += ["-p", f"{name}:={value}"]
    processes = [
        start(link, link.b, renderer, domain_id),
        start(link, link.b, ["-c", ROBOT], domain_id),
        start(link, link.a, ["-c", OPERATOR], domain_id),
    ]
    try:
        robot, operator = Robot(processes[1]), processes[2]
        assert operator.stdout is not None
        assert int(operator.stdout.readline()) <= 400  # bytes of a message
        robot.wait_for("live", 40.0)
        time.sleep(1.0)

        before, since = link.carried, time.monotonic()
        time.sleep(3.0)
        kilobits = 8e-3 * (link.carried - before) / (time.monotonic() - since)
        assert 30 < kilobits <= 120

        link.loss, link.delay, link.jitter = 0.1, 0.05, 0.03
        assert any(is_bridged(robot) for _ in range(WINDOWS))
        assert any(cut_goes_as_specified(link, robot) for _ in range(WINDOWS))
    finally:
        for process in processes:
            process.kill()
            process.wait()
