"""Thousands of bad images into the estimator's subscriptions: it counts them and goes on.

The environment variable CAG_AVATAR_FUZZ sets the number of messages.
"""

from __future__ import annotations

import array
import os
import random
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from cag_avatar_msgs.msg import FaceExpression
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage, Image

from cag_avatar_node.image_conversion import ENCODINGS
from cag_avatar_node.qos import EXPRESSION_QOS, IMAGE_QOS

MESSAGES = int(os.environ.get("CAG_AVATAR_FUZZ", "3000"))
LARGE = [0, 1, 2, 3, 7, 16, 17, 2**16, 2**31, 2**32 - 1]


def stamp(rng: random.Random, message: Any) -> None:
    choice = rng.random()
    now = time.time_ns()
    if choice < 0.4:
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
    elif choice < 0.6:  # back in time, or ahead of it
        seconds = now // 10**9 + rng.randint(-100, 100)
        message.header.stamp.sec, message.header.stamp.nanosec = seconds, 0
    else:
        message.header.stamp.sec = rng.choice([-(2**31), -1, 0, 1, 2**31 - 1])
        message.header.stamp.nanosec = rng.choice([0, 1, 10**9 - 1, 2**32 - 1])
    message.header.frame_id = rng.choice(["", "camera", "x" * 300, "\u00e9\u4e2d"])


def fuzzed_image(rng: random.Random) -> Image:
    """Any combination of right and wrong fields; about a quarter is right."""
    encoding = rng.choice([*ENCODINGS, "", "RGB8", "32FC1", "\u4e2d\u6587", "8UC3", "h264" * 50])
    known = ENCODINGS.get(encoding)
    width, height = rng.choice([8, 16, 22]), rng.choice([6, 8, 16])
    row = width * (known.channels * known.bytes_a_sample if known else 3) + rng.choice([0, 0, 5])
    rows = height * 3 // 2 if known and known.planes else height
    size = row * rows
    message = Image(width=width, height=height, encoding=encoding, step=row)
    wrong = rng.random()
    if wrong < 0.15:
        message.width = rng.choice(LARGE)
    elif wrong < 0.3:
        message.height = rng.choice(LARGE)
    elif wrong < 0.45:
        message.step = rng.choice(LARGE)
    elif wrong < 0.6:
        size = rng.choice([0, 1, size - 1, size + 1, 5000])
    message.is_bigendian = rng.choice([0, 1, 255])
    message.data = array.array("B", rng.randbytes(size))
    stamp(rng, message)
    return message


def fuzzed_compressed(rng: random.Random) -> CompressedImage:
    """JPEG and PNG, whole, cut, with bytes changed; other bytes; headers that lie."""
    pixels = np.full((8, 8, 3), rng.randrange(256), np.uint8)
    data = bytearray(cv2.imencode(rng.choice([".jpg", ".png"]), pixels)[1].tobytes())
    wrong = rng.random()
    if wrong < 0.2:
        data = data[: rng.randrange(len(data))]
    elif wrong < 0.5:
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif wrong < 0.6:
        data = bytearray(rng.randbytes(rng.choice([0, 1, 40, 3000])))
    elif wrong < 0.7:
        data[16:24] = b"\xff" * 8
    elif wrong < 0.75:
        data = bytearray(b"\xff\xd8" + b"\xff" * rng.randrange(2000))
    message = CompressedImage(
        format=rng.choice(["jpeg", "", "16UC1; compressedDepth png", "\u4e2d"])
    )
    message.data = array.array("B", bytes(data))
    stamp(rng, message)
    return message


@pytest.mark.parametrize("kind", ["raw", "compressed"])
def test_bad_images_are_counted_and_good_ones_still_estimated(
    kind: str,
    world: Any,
    wait_until: Callable[..., None],
    known_estimator_node: type[Any],
    make_image: Callable[..., Image],
) -> None:
    rng = random.Random(7)
    expressions = world.listen(FaceExpression, "/operator/face/expression", EXPRESSION_QOS)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = world.start(known_estimator_node, input=kind)
    make = fuzzed_image if kind == "raw" else fuzzed_compressed
    topic = "/camera/image_raw" if kind == "raw" else "/camera/image_raw/compressed"
    publisher = world.publisher(Image if kind == "raw" else CompressedImage, topic, IMAGE_QOS)
    wait_until(lambda: node.count_subscribers("/operator/face/expression"), "the subscriber")

    def handled() -> int:
        skipped = node._worker.mailbox.replaced
        return int(node._sequence + sum(node._faults.counts().values()) + skipped)

    for number in range(MESSAGES // 2):
        before = handled()
        publisher.publish(make(rng))
        deadline = time.monotonic() + 0.01  # a few are lost on the way: best effort
        while number % 4 and handled() == before and time.monotonic() < deadline:
            time.sleep(0.0002)

    def good() -> None:
        message = make_image(np.full((8, 8, 3), 90, np.uint8), stamp_ns=time.time_ns())
        if kind == "compressed":
            picture = CompressedImage(format="png", header=message.header)
            picture.data = array.array(
                "B", cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
            )
            message = picture
        publisher.publish(message)
        time.sleep(0.01)

    count = len(expressions)
    wait_until(lambda: good() or len(expressions) > count + 3, "good images after bad ones")
    assert handled() > 0.5 * MESSAGES / 2, "many messages were never looked at"
    wait_until(
        lambda: any(
            k.startswith("dropped_") for k in world.health(reports, "expression_estimator")
        ),
        "diagnostics",
    )
    health = node.health().values
    kinds = ("stamp", "encoding", "size", "step", "data") if kind == "raw" else ("stamp", "format")
    for fault in kinds:
        assert int(health[f"dropped_{fault}"]) > 0
    assert node._exceptions == 0
    assert all(np.isfinite(message.coefficients).all() for message in expressions)
