"""The page, without ROS: what it serves of a board."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import cv2
import numpy as np
import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from cag_avatar_node.display_access import PageAccess
from cag_avatar_node.display_server import PageSettings, make_application
from cag_avatar_node.frame_board import FrameBoard


def jpeg(width: int, height: int, value: int = 0) -> bytes:
    encoded, data = cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))
    assert encoded
    return data.tobytes()


def with_client(
    test: Callable[[FrameBoard, TestClient], Awaitable[None]], settings: PageSettings | None = None
) -> None:
    """Run a coroutine against a served board."""

    async def run() -> None:
        board = FrameBoard(asyncio.get_running_loop())
        async with TestClient(TestServer(make_application(board, settings))) as client:
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
        assert status["page_latency_ms_p95"] is None
        assert status["state"] == "waiting"

    with_client(test)


def test_frame_and_status() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        now = time.monotonic()
        for index in range(11):
            board.post(jpeg(80, 48, index), 5_000_000_000 + index, now + index * 0.05, 0.020)
        board.page_timing.add(now, 0.070)
        answer = await client.get("/frame.jpg")
        assert await answer.read() == jpeg(80, 48, 10)
        assert answer.headers["X-Stamp-Ns"] == "5000000010"
        status = await (await client.get("/status.json")).json()
        assert (status["width"], status["height"], status["frames"]) == (80, 48, 11)
        assert status["fps"] == pytest.approx(20, rel=0.01)
        assert status["latency_ms_p50"] == pytest.approx(20)
        assert status["latency_ms_p95"] == pytest.approx(20)
        assert status["page_latency_ms_p50"] == status["page_latency_ms_p95"] == 70
        assert status["stamp"] == pytest.approx(5.0)
        assert (status["state"], status["viewers"]) == ("live", 0)

    with_client(test)


def test_stream_sends_each_new_frame() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        board.post(jpeg(16, 16, 10), 1, time.monotonic(), 0.0)
        answer = await client.get("/stream.mjpg")
        kind = answer.headers["Content-Type"]
        boundary = kind.split("boundary=")[1].encode()
        for value, stamp in ((10, 1), (200, 2)):
            if stamp == 2:
                board.post(jpeg(16, 16, 200), 2, time.monotonic(), 0.0)
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
        kinds = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
        for path, kind in kinds.items():
            answer = await client.get(path)
            text = await answer.text()
            assert answer.content_type == kind
            assert not re.search(r"https?://|src=\"//|@import|\{\{", text)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Cache-Control"] == "no-store"
        assert (await client.get("/refused.html")).status == 404

    with_client(test)


def test_page_knows_its_shape() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        assert 'data-shape="round"' in await (await client.get("/")).text()
        assert (await (await client.get("/status.json")).json())["overlay"] is True

    with_client(test, PageSettings(shape="round", overlay=lambda: True))


def test_token_on_every_path() -> None:
    token = "a-good-token"

    async def test(board: FrameBoard, client: TestClient) -> None:
        board.post(jpeg(16, 16), 1, time.monotonic(), 0.0)
        paths = ("/", "/page.js", "/page.css", "/stream", "/stream.mjpg", "/frame.jpg")
        for path in (*paths, "/status.json", "/nothing"):
            for query in ("", "?token=", "?token=a-bad-token", "?token=%00%ff"):
                answer = await client.get(path + query)
                assert answer.status == 401, path
                text = await answer.text()
                assert "Token refused" in text
                assert token not in text
                assert "Set-Cookie" not in answer.headers
        with pytest.raises(WSServerHandshakeError, match="401"):
            await client.ws_connect("/stream")
        assert board.readers == 0

        answer = await client.get("/?token=" + token)
        assert answer.status == 200
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        # The client's jar now has the cookie.
        assert (await client.get("/page.js")).status == 200
        socket = await client.ws_connect("/stream")
        assert (await socket.receive_json())["type"] == "state"
        await socket.close()
        client.session.cookie_jar.clear()
        assert (await client.get("/page.js")).status == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert (await client.get("/status.json", headers=headers)).status == 200

    with_client(test, PageSettings(access=PageAccess(token, loopback_only=False)))


def test_other_host_names_and_origins_are_refused() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        for path in ("/", "/frame.jpg", "/stream"):
            assert (await client.get(path, headers={"Host": "evil.com:8008"})).status == 421
        assert (await client.get("/", headers={"Host": "localhost:8008"})).status == 200
        with pytest.raises(WSServerHandshakeError, match="403"):
            await client.ws_connect("/stream", headers={"Origin": "http://evil.com"})
        own = f"http://{client.host}:{client.port}"
        socket = await client.ws_connect("/stream", headers={"Origin": own})
        await socket.close()

    with_client(test)


def test_transparent_pictures_are_served_as_png() -> None:
    async def test(board: FrameBoard, client: TestClient) -> None:
        data = cv2.imencode(".png", np.zeros((17, 33, 4), np.uint8))[1].tobytes()
        board.post(data, 1, board.now(), 0.0)
        answer = await client.get("/frame.jpg")
        assert answer.content_type == "image/png"
        assert await answer.read() == data
        status = await (await client.get("/status.json")).json()
        assert (status["width"], status["height"]) == (33, 17)
        stream = await client.get("/stream.mjpg")
        assert b"Content-Type: image/png" in await stream.content.readuntil(b"\r\n\r\n")
        stream.close()

    with_client(test)
