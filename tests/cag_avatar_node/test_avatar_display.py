"""avatar_display: the node as a process, from the topic to the page."""

from __future__ import annotations

import array
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from cag_avatar_node import frame_board
from cag_avatar_node.avatar_display import AvatarDisplay
from cag_avatar_node.qos import IMAGE_QOS, LATCHED_QOS

TOPIC = "/avatar/image_raw/compressed"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> bytes | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, ConnectionError):
        return None


@pytest.fixture
def start_display(
    node_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the node with parameters; what it prints goes to display.log."""
    started: list[subprocess.Popen[str]] = []
    with contextlib.ExitStack() as files:

        def start(**parameters: object) -> subprocess.Popen[str]:
            log = files.enter_context((tmp_path / "display.log").open("w"))
            command = [sys.executable, "-m", "cag_avatar_node.avatar_display", "--ros-args"]
            for name, value in parameters.items():
                command += ["-p", f"{name}:={json.dumps(value)}"]
            process = subprocess.Popen(
                command, env=node_environment, stdout=log, stderr=subprocess.STDOUT, text=True
            )
            started.append(process)
            return process

        yield start
        for process in started:
            # A killed process would leave its shared memory behind.
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def make_message(value: int, age_s: float) -> CompressedImage:
    encoded, data = cv2.imencode(".jpg", np.full((32, 48, 3), value, np.uint8))
    assert encoded
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(
        time.time_ns() - int(age_s * 1e9), 10**9
    )
    message.data = array.array("B", data.tobytes())
    return message


def test_page_shows_what_the_topic_brings_and_ends_cleanly(
    world: Any,
    start_display: Callable[..., subprocess.Popen[str]],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    port = free_port()
    process = start_display(port=port, lazy=False)
    url = f"http://127.0.0.1:{port}/"
    wait_until(lambda: get(url) is not None, "the page", timeout=60)
    assert get(url + "frame.jpg") is None
    publisher = world.publisher(CompressedImage, TOPIC, IMAGE_QOS)
    for value in range(20):
        message = make_message(value * 10, age_s=0.5)
        publisher.publish(message)
        time.sleep(0.05)
    wait_until(lambda: get(url + "frame.jpg") == message.data.tobytes(), "the last frame")
    status = json.loads(get(url + "status.json") or b"")
    assert (status["width"], status["height"]) == (48, 32)
    assert 10 <= status["frames"] <= 20
    assert 5 < status["fps"] < 25
    assert 500 <= status["latency_ms_p50"] <= status["latency_ms_p95"] < 1500
    assert status["stamp"] == pytest.approx(
        message.header.stamp.sec + message.header.stamp.nanosec * 1e-9, abs=1e-3
    )

    # A reader of the endless stream must not keep the node from ending.
    with socket.create_connection(("127.0.0.1", port), timeout=5) as reader:
        reader.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"multipart/x-mixed-replace" in reader.recv(4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    text = (tmp_path / "display.log").read_text()
    assert "Traceback" not in text


def test_other_formats_are_dropped(
    world: Any,
    start_display: Callable[..., subprocess.Popen[str]],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    port = free_port()
    start_display(port=port, lazy=False)
    publisher = world.publisher(CompressedImage, TOPIC, IMAGE_QOS)
    other = CompressedImage(format="h264", data=b"\x00\x00\x00\x01g")
    log = tmp_path / "display.log"
    wait_until(
        lambda: publisher.publish(other) or "neither JPEG nor PNG" in log.read_text(), "the warning"
    )
    publisher.publish(other)
    url = f"http://127.0.0.1:{port}/"
    assert json.loads(get(url + "status.json") or b"")["frames"] == 0
    assert log.read_text().count("neither JPEG nor PNG") == 1


def test_taken_port_is_named(
    start_display: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert start_display(port=port).wait(60) == 2
    text = (tmp_path / "display.log").read_text()
    assert f"port {port}" in text
    assert "set the parameter port" in text


def status(node: Any) -> dict[str, Any]:
    """What the page of a node in this process says."""
    return dict(json.loads(get(f"http://127.0.0.1:{node.port}/status.json") or b"{}"))


def test_walk_through_the_lifecycle(world: Any, wait_until: Callable[..., None]) -> None:
    node = world.start(AvatarDisplay, port=0)
    first = node.port
    assert status(node)["state"] == "waiting"
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert status(node)["state"] == "inactive"
    change = Parameter("port", value=free_port())
    assert not node.set_parameters([change])[0].successful, "port changed under a served page"
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert get(f"http://127.0.0.1:{first}/") is None
    assert node.set_parameters([change])[0].successful
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.port == change.value
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert not status(node)["overlay"]
    assert node.set_parameters([Parameter("overlay", value=True)])[0].successful
    assert status(node)["overlay"]
    assert node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    assert get(f"http://127.0.0.1:{change.value}/") is None


def test_bad_parameters_fail_the_configuration(world: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        node = world.add(AvatarDisplay, port=other.getsockname()[1])
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, "not usable after failing"
    node = world.add(AvatarDisplay, port=0, token="short")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_subscribes_while_somebody_looks(
    world: Any, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_board, "INTEREST_SECONDS", 0.3)
    publisher = world.node.create_publisher(CompressedImage, TOPIC, IMAGE_QOS)
    node = world.start(AvatarDisplay, port=0)
    time.sleep(0.5)
    assert publisher.get_subscription_count() == 0
    status(node)
    wait_until(lambda: publisher.get_subscription_count() == 1, "a subscription", timeout=0.9)
    publisher.publish(make_message(0, age_s=0.0))
    wait_until(lambda: publisher.get_subscription_count() == 0, "its end")
    answer = status(node)
    assert answer["frames"] == 1
    assert answer["state"] == "waiting", "a picture of before is taken for one that is late"


def test_states_of_the_renderer(world: Any, wait_until: Callable[..., None]) -> None:
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    publisher = world.node.create_publisher(String, "/avatar_renderer/state", LATCHED_QOS)
    publisher.publish(String(data="hidden:driving"))
    node = world.start(AvatarDisplay, port=0)  # comes later than the message
    wait_until(lambda: status(node)["reason"] == "driving", "the state")
    publisher.publish(String(data="rubbish"))
    wait_until(
        lambda: world.health(reports, "avatar_display").get("dropped_state") == "1", "the count"
    )
    assert world.health(reports, "avatar_display")["state"] == "hidden:driving"
    publisher.publish(String(data="idle"))
    wait_until(lambda: status(node)["state"] == "waiting", "the state without a picture")
    images = world.publisher(CompressedImage, TOPIC, IMAGE_QOS)

    def shows(state: str) -> bool:
        images.publish(make_message(0, age_s=0.0))
        return bool(status(node)["state"] == state)

    wait_until(lambda: shows("idle"), "the state with a picture")
    world.node.destroy_publisher(publisher)
    wait_until(lambda: shows("live"), "the state of a renderer that tells none")
    wait_until(lambda: status(node)["state"] == "lost", "the end of the pictures")


def test_an_open_address_has_a_token_that_is_logged_once(
    start_display: Callable[..., subprocess.Popen[str]],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    port = free_port()
    process = start_display(port=port, host="0.0.0.0")
    log = tmp_path / "display.log"
    wait_until(lambda: "?token=" in log.read_text(), "the address", timeout=60)
    found = re.findall(r"token=([\w-]+)", log.read_text())
    assert len(found) == 1
    url = f"http://127.0.0.1:{port}/status.json"
    assert get(url) is None, "shown without a token"
    assert get(url + "?token=" + found[0])
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
