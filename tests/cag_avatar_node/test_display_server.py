"""The page, without ROS: what it serves of a board."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import cv2
import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from cag_avatar_node.display_server import jpeg_size, make_application
from cag_avatar_node.frame_board import FrameBoard


def jpeg(width: int, height: int, value: int = 0) -> bytes:
    encoded, data = cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))
    assert encoded
    return data.tobytes()


def with_client(test: Callable[[FrameBoard, TestClient], Awaitable[None]]) -> None:
    """Run a coroutine against a served board."""

    async def run() -> None:
        board = FrameBoard(asyncio.get_running_loop())
        async with TestClient(TestServer(make_application(board))) as client:
            await asyncio.wait_for(test(board, client), 20)

    asyncio.run(run())


def test_before_the_first_frame() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        assert (await client.get("/frame.jpg")).status == 503
        status = await (await client.get("/status.json")).json()
        assert status["frames"] == 0
        assert status["fps"] == 0
        assert status["latency_ms_p50"] is None
        assert status["width"] is None

    with_client(test)


def test_frame_and_status() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        now = time.monotonic()
        for index in range(11):
            board.post(jpeg(80, 48, index), 5_000_000_000 + index, now + index * 0.05, 0.020)
        answer = await client.get("/frame.jpg")
        assert await answer.read() == jpeg(80, 48, 10)
        assert answer.headers["X-Stamp-Ns"] == "5000000010"
        status = await (await client.get("/status.json")).json()
        assert (status["width"], status["height"], status["frames"]) == (80, 48, 11)
        assert status["fps"] == pytest.approx(20, rel=0.01)
        assert status["latency_ms_p50"] == pytest.approx(20)
        assert status["latency_ms_p95"] == pytest.approx(20)
        assert status["stamp"] == pytest.approx(5.0)

    with_client(test)


def test_stream_sends_each_new_frame() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        board.post(jpeg(16, 16, 10), 1, 0.0, 0.0)
        answer = await client.get("/stream.mjpg")
        kind = answer.headers["Content-Type"]
        boundary = kind.split("boundary=")[1].encode()
        for value, stamp in ((10, 1), (200, 2)):
            if stamp == 2:
                board.post(jpeg(16, 16, 200), 2, 0.1, 0.0)
            head = await answer.content.readuntil(b"\r\n\r\n")
            assert b"--" + boundary in head
            assert f"X-Stamp-Ns: {stamp}".encode() in head
            found = re.search(rb"Content-Length: (\d+)", head)
            assert found is not None
            body = await answer.content.readexactly(int(found[1]))
            assert body == jpeg(16, 16, value)
            await answer.content.readexactly(2)
        board.close()
        assert await answer.content.read() == b""

    with_client(test)


def test_page_is_self_contained() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        answer = await client.get("/")
        text = await answer.text()
        assert answer.content_type == "text/html"
        assert "stream.mjpg" in text
        assert "status.json" in text
        assert not re.search(r"https?://|src=\"//|@import", text)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    with_client(test)


def test_jpeg_size() -> None:
    assert jpeg_size(jpeg(33, 17)) == (33, 17)
    assert jpeg_size(b"\xff\xd8\xff\xd9") is None
    assert jpeg_size(b"rubbish") is None
