"""avatar_display: the node as a process, from the topic to the page."""

from __future__ import annotations

import array
import contextlib
import json
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

from sensor_msgs.msg import CompressedImage

from cag_avatar_node.qos import IMAGE_QOS

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
) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Starts the node on a port; what it prints goes to display.log."""
    started: list[subprocess.Popen[str]] = []
    with contextlib.ExitStack() as files:

        def start(port: int) -> subprocess.Popen[str]:
            log = files.enter_context((tmp_path / "display.log").open("w"))
            command = [sys.executable, "-m", "cag_avatar_node.avatar_display"]
            process = subprocess.Popen(
                [*command, "--ros-args", "-p", f"port:={port}"],
                env=node_environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
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
    start_display: Callable[[int], subprocess.Popen[str]],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    port = free_port()
    process = start_display(port)
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
    start_display: Callable[[int], subprocess.Popen[str]],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    port = free_port()
    start_display(port)
    publisher = world.publisher(CompressedImage, TOPIC, IMAGE_QOS)
    png = CompressedImage(format="rgb8; png compressed bgr8", data=b"\x89PNG")
    log = tmp_path / "display.log"
    wait_until(lambda: publisher.publish(png) or "is not JPEG" in log.read_text(), "the warning")
    publisher.publish(png)
    url = f"http://127.0.0.1:{port}/"
    assert json.loads(get(url + "status.json") or b"")["frames"] == 0
    assert log.read_text().count("is not JPEG") == 1


def test_taken_port_is_named(
    start_display: Callable[[int], subprocess.Popen[str]], tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert start_display(port).wait(60) == 2
    text = (tmp_path / "display.log").read_text()
    assert f"port {port}" in text
    assert "set the parameter port" in text
