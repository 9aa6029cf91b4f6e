"""video_source: a real file to real Image messages."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

import itertools

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from cag_avatar_node.image_conversion import image_to_rgb
from cag_avatar_node.qos import IMAGE_QOS
from cag_avatar_node.video_source import VideoSource


def stamp_seconds(message: Any) -> float:
    return float(message.header.stamp.sec + message.header.stamp.nanosec * 1e-9)


def test_plays_the_file_at_its_rate_with_acquisition_stamps(
    world: Any,
    numbered_video: Path,
    frame_number: Callable[[Any], int],
    wait_until: Callable[..., None],
) -> None:
    received: list[tuple[float, Image]] = []
    world.node.create_subscription(
        Image, "/camera/image_raw", lambda m: received.append((time.time(), m)), IMAGE_QOS
    )
    node = world.start(VideoSource, video=str(numbered_video), loop=False)
    wait_until(lambda: node.health().values["state"] == "ended", "the end of the file")
    time.sleep(0.1)

    images = [message for _, message in received]
    numbers = [frame_number(image_to_rgb(image)) for image in images]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 10, "images were lost"
    assert numbers[0] == 0, "the file did not wait for its subscriber"
    first = images[0]
    assert (first.width, first.height, first.encoding, first.step) == (64, 48, "bgr8", 192)
    assert first.header.frame_id == "camera_optical_frame"
    top = image_to_rgb(first)[3].mean(0)
    assert top[2] > 200 > 60 > top[0], "the blue band is not blue: channels are swapped"

    stamps = np.array([stamp_seconds(image) for image in images])
    arrivals = np.array([arrival for arrival, _ in received])
    assert np.all(arrivals >= stamps), "a stamp lies in the future"
    assert np.median(arrivals - stamps) < 0.1, "stamps are not the acquisition"
    rate = (numbers[-1] - numbers[0]) / (stamps[-1] - stamps[0])
    assert rate == pytest.approx(20, rel=0.1)


def test_pauses_while_nobody_listens(
    world: Any,
    numbered_video: Path,
    frame_number: Callable[[Any], int],
    wait_until: Callable[..., None],
) -> None:
    node = world.start(VideoSource, video=str(numbered_video), loop=False)
    received: list[Image] = []

    def listen() -> Any:
        return world.node.create_subscription(
            Image, "/camera/image_raw", received.append, IMAGE_QOS
        )

    first = listen()
    wait_until(lambda: len(received) >= 4, "images")
    world.node.destroy_subscription(first)
    time.sleep(0.5)
    published = node.health().values["published"]
    time.sleep(0.5)
    assert node.health().values["published"] == published
    count = len(received)
    listen()
    wait_until(lambda: len(received) > count, "the rest")
    assert frame_number(image_to_rgb(received[count])) <= int(published) + 2


def test_loops_in_another_encoding_and_size(
    world: Any,
    numbered_video: Path,
    frame_number: Callable[[Any], int],
    wait_until: Callable[..., None],
) -> None:
    received = world.listen(Image, "/camera/image_raw", IMAGE_QOS)
    health = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = world.start(VideoSource, video=str(numbered_video), encoding="rgb8", max_size=32)
    wait_until(lambda: node.value("loop") and len(received) > 22, "more images than the file has")
    assert (received[0].width, received[0].height, received[0].encoding) == (32, 24, "rgb8")
    top = image_to_rgb(received[0])[2].mean(0)
    assert top[2] > 200 > 60 > top[0]
    numbers = [frame_number(image_to_rgb(image)) for image in received]
    assert any(later < earlier for earlier, later in itertools.pairwise(numbers))
    wait_until(
        lambda: float(world.health(health, "video_source").get("rate_hz", 0)) > 15, "diagnostics"
    )


def test_deactivate_stops_and_activate_goes_on(
    world: Any, numbered_video: Path, wait_until: Callable[..., None]
) -> None:
    received = world.listen(Image, "/camera/image_raw", IMAGE_QOS)
    node = world.start(VideoSource, video=str(numbered_video))
    wait_until(lambda: len(received) > 2, "images")
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    time.sleep(0.2)
    count = len(received)
    time.sleep(0.3)
    assert len(received) == count
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    wait_until(lambda: len(received) > count + 2, "images after the second activation")


@pytest.mark.parametrize("parameters", [{}, {"video": "a.mp4", "camera": "0"}])
def test_needs_one_source(world: Any, parameters: dict[str, str]) -> None:
    node = world.add(VideoSource, **parameters)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_unreadable_file_ends_the_process_with_one_line(
    tmp_path: Path, node_environment: dict[str, str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    done = subprocess.run(
        [sys.executable, "-m", "cag_avatar_node.video_source", "--ros-args", "-p", f"video:={bad}"],
        env=node_environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"cannot configure: video {bad} cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr
