"""Thousands of bad messages into the display's subscriptions: it counts them and goes on.

The environment variable CAG_AVATAR_FUZZ sets the number of messages.
"""

from __future__ import annotations

import array
import json
import os
import random
import struct
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from cag_avatar_node.avatar_display import AvatarDisplay
from cag_avatar_node.qos import IMAGE_QOS, LATCHED_QOS

MESSAGES = int(os.environ.get("CAG_AVATAR_FUZZ", "3000"))
STATES = ["live", "hold", "decay", "idle", "hidden", "hidden:driving", "hidden:\u4e2d", " LIVE "]
RUBBISH = ["", ":", "lost", "waiting", "\u4e2d\u6587", "live\0", "x" * 10_000, "hidden;driving"]


def stamp(rng: random.Random, message: CompressedImage) -> None:
    """Now, around now, or no time at all."""
    choice = rng.random()
    now = time.time_ns()
    if choice < 0.4:
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
    elif choice < 0.7:
        message.header.stamp.sec = now // 10**9 + rng.randint(-100, 100)
    else:
        message.header.stamp.sec = rng.choice([-(2**31), -1, 0, 1, 2**31 - 1])
        message.header.stamp.nanosec = rng.choice([0, 1, 10**9 - 1, 2**32 - 1])


def fuzzed_picture(rng: random.Random) -> CompressedImage:
    """JPEG and PNG of any size, whole, cut, with bytes changed; other bytes; headers that lie."""
    height, width = rng.choice([1, 8, 17]), rng.choice([1, 8, 33])
    shape = (height, width, rng.choice([1, 3]))
    pixels = np.full(shape, rng.randrange(256), np.uint8)
    kind = rng.choice([".jpg", ".png", ".bmp"])
    data = bytearray(cv2.imencode(kind, pixels)[1].tobytes())
    wrong = rng.random()
    if wrong < 0.2:
        data = data[: rng.randrange(len(data))]
    elif wrong < 0.45:
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif wrong < 0.55:
        data = bytearray(rng.randbytes(rng.choice([0, 1, 40, 3000])))
    elif wrong < 0.6:
        data = bytearray(b"\xff\xd8" + b"\xff" * rng.randrange(2000) + b"\xff\xd9")
    elif wrong < 0.65:
        data = bytearray(b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 11, 8, 65535, 65535) + b"\xd9")
    elif wrong < 0.67:
        data += bytes(300_000)
    message = CompressedImage(format=rng.choice(["jpeg", "", "h264" * 50, "\u4e2d"]))
    message.data = array.array("B", bytes(data))
    message.header.frame_id = rng.choice(["", "x" * 300, "\u00e9\u4e2d"])
    stamp(rng, message)
    return message


def test_bad_messages_are_counted_and_good_ones_still_shown(
    world: Any, wait_until: Callable[..., None]
) -> None:
    rng = random.Random(11)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    node = world.start(AvatarDisplay, port=0, lazy=False)
    images = world.publisher(CompressedImage, "/avatar/image_raw/compressed", IMAGE_QOS)
    states = world.publisher(String, "/avatar_renderer/state", LATCHED_QOS)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def status() -> dict[str, Any]:
        with opener.open(f"http://127.0.0.1:{node.port}/status.json", timeout=5) as answer:
            return dict(json.loads(answer.read()))

    def handled() -> int:
        return int(node._board.count + sum(node._faults.counts().values()))

    sent = 0
    for number in range(MESSAGES):
        if number % 4 == 3:
            states.publish(String(data=rng.choice(STATES if number % 8 == 3 else RUBBISH)))
            continue
        sent += 1
        before = handled()
        images.publish(fuzzed_picture(rng))
        deadline = time.monotonic() + 0.01  # a few are lost on the way: best effort
        while number % 4 and handled() == before and time.monotonic() < deadline:
            time.sleep(0.0002)
        if number % 500 == 0:
            json.dumps(status(), allow_nan=False)
    assert handled() > 0.5 * sent, "many messages were never looked at"
    # What is whole after all that is shown, with the newest state.
    good = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    states.publish(String(data="live"))

    def shown() -> bool:
        message = CompressedImage(format="jpeg", data=array.array("B", good))
        stamp_ns = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        images.publish(message)
        found = status()
        return bool(
            (found["width"], found["height"], found["state"]) == (64, 48, "live")
            and abs(found["stamp"] - stamp_ns * 1e-9) < 5
        )

    wait_until(shown, "a good picture after bad ones")
    found = status()
    assert -60 <= found["latency_ms_p50"] * 1e-3 <= found["latency_ms_p95"] * 1e-3 <= 60
    wait_until(
        lambda: "dropped_state" in world.health(reports, "avatar_display"), "the diagnostics"
    )
    health = node.health().values
    for fault in ("format", "size", "data", "state"):
        assert int(health[f"dropped_{fault}"]) > 0, fault
    assert node._exceptions == 0
