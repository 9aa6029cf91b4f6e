"""The page's WebSocket, without a browser."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from cag_avatar_node.display_server import PageSettings, make_application
from cag_avatar_node.display_state import DisplayKind, parse_state
from cag_avatar_node.display_stream import HEADER, IN_FLIGHT
from cag_avatar_node.frame_board import FrameBoard

JPEG = b"\xff\xd8 a picture \xff\xd9"
Test = Callable[[FrameBoard, ClientWebSocketResponse, TestClient], Awaitable[None]]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def with_stream(test: Test, **board_options: Any) -> None:
    """Run a coroutine against an open stream."""

    async def run() -> None:
        board = FrameBoard(asyncio.get_running_loop(), **board_options)
        settings = PageSettings(clock_ns=lambda: 5_000_000_000)
        async with TestClient(TestServer(make_application(board, settings))) as client:
            socket = await client.ws_connect("/stream")
            await asyncio.wait_for(test(board, socket, client), 20)
            await socket.close()

    asyncio.run(run())


def post(board: FrameBoard, stamp_ns: int, jpeg: bytes = JPEG) -> None:
    board.post(jpeg, stamp_ns, board.now(), 0.0)


async def text(socket: ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next text message of a kind; pictures and others are passed over."""
    while True:
        message = await socket.receive()
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        if message.type is WSMsgType.TEXT and json.loads(message.data)["type"] == kind:
            return dict(json.loads(message.data))


async def picture(socket: ClientWebSocketResponse, timeout: float = 5.0) -> tuple[Any, ...] | None:
    """The next picture (state, stamp, number, jpeg), or None if none comes in time."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(socket.receive(), left)
        except asyncio.TimeoutError:
            return None
        if message.type is WSMsgType.BINARY:
            magic, state, length, stamp, number = HEADER.unpack_from(message.data)
            assert (magic, length) == (b"CAG1", 24)
            return state, stamp, number, message.data[length:]
    return None


async def shown(socket: ClientWebSocketResponse, number: int, *ages: list[Any]) -> None:
    await socket.send_json({"type": "shown", "number": number, "ages": list(ages)})


def test_pictures_carry_stamp_number_and_state() -> None:
    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        assert (await text(socket, "state"))["state"] == "waiting"
        post(board, 7_000_000_001)
        assert (await text(socket, "state"))["state"] == "live"
        assert await picture(socket) == (DisplayKind.LIVE.code, 7_000_000_001, 1, JPEG)
        await shown(socket, 1)
        board.tell(parse_state("hold"))
        post(board, -5)
        assert await picture(socket) == (DisplayKind.HOLD.code, -5, 2, JPEG)

    with_stream(test)


def test_newest_wins_when_the_page_stalls() -> None:
    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        for stamp in range(1, IN_FLIGHT + 1):
            post(board, stamp)
            found = await picture(socket)
            assert found is not None
            assert found[1] == stamp
        for stamp in range(10, 60):
            post(board, stamp)
            await asyncio.sleep(0.002)
        assert await picture(socket, 0.1) is None, "sent to a page that has not drawn the others"
        await shown(socket, 1)
        found = await picture(socket)
        assert found is not None
        assert found[1] == 59, "an old picture was kept for the page"
        assert await picture(socket, 0.1) is None
        # A second page is not held up by the first.
        async with client.ws_connect("/stream") as other:
            found = await picture(other)
            assert found is not None
            assert found[1] == 59
            assert board.readers == 2

    with_stream(test)


def test_states_and_hidden_pictures() -> None:
    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        post(board, 1)
        assert await picture(socket) is not None
        for told, reason in (("hidden:driving", "driving"), ("hidden:consent", "consent")):
            board.tell(parse_state(told))
            answer = await text(socket, "state")
            assert (answer["state"], answer["reason"]) == ("hidden", reason)
        await shown(socket, 1)
        post(board, 2)
        assert await picture(socket, 0.1) is None, "a picture of a hidden avatar was sent"
        board.set_active(False)
        assert (await text(socket, "state"))["state"] == "inactive"
        board.set_active(True)
        board.tell(parse_state("live"))
        assert (await picture(socket) or ())[1] == 2

    with_stream(test)


def test_pictures_that_stop_are_noticed() -> None:
    clock = Clock()

    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        assert (await text(socket, "state"))["state"] == "waiting"
        post(board, 1)
        assert (await text(socket, "state"))["state"] == "live"
        clock.seconds += 0.9
        post(board, 2)
        clock.seconds += 1.1
        assert (await text(socket, "state"))["state"] == "lost"
        post(board, 3)
        assert (await text(socket, "state"))["state"] == "live"
        # At rest a renderer may send one picture, or go on sending: then their end is news.
        board.tell(parse_state("idle"))
        post(board, 4)
        clock.seconds += 5
        assert board.state().kind is DisplayKind.IDLE
        post(board, 5)
        post(board, 6)
        board.tell(parse_state("idle"))
        clock.seconds += 5
        assert board.state().kind is DisplayKind.LOST

    with_stream(test, clock=clock, stale_s=1.0)


def test_idle_from_the_first_picture_on() -> None:
    clock = Clock()

    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        board.tell(parse_state("idle"))
        post(board, 1)
        post(board, 2)
        clock.seconds += 5
        assert board.state().kind is DisplayKind.IDLE
        post(board, 3)
        clock.seconds += 5
        assert board.state().kind is DisplayKind.LOST

    with_stream(test, clock=clock)


def test_times() -> None:
    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        await socket.send_json({"type": "ping", "t": 12.5})
        answer = await text(socket, "pong")
        assert (answer["t"], answer["now_ms"]) == (12.5, 5000.0)
        post(board, 1)
        assert await picture(socket) is not None
        # Twice the same picture, one that was never sent, and clocks out of step.
        await shown(socket, 1, [1, 80.0], [1, 10.0], [9, 10.0])
        post(board, 2)
        assert (await picture(socket) or ())[2] == 2
        await shown(socket, 2, [2, 1e9])
        status = await text(socket, "status")
        while status["page_latency_ms_p50"] is None:
            status = await text(socket, "status")
        assert status["page_latency_ms_p50"] == status["page_latency_ms_p95"] == 80.0

    with_stream(test)


def test_rubbish_from_a_page_does_no_harm() -> None:
    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        for rubbish in (
            "",
            "[",
            "null",
            "[" * 2000,
            '{"type": "ping", "t": NaN}',
            '{"type": "ping", "t": 1' + "0" * 400 + "}",
            '{"type": "shown", "number": "1"}',
            '{"type": "shown", "number": 1e300}',
            '{"type": "shown", "number": true, "ages": 5}',
            '{"type": "shown", "number": 0, "ages": [1, [], [1], [null, 2], [1, 1e400]]}',
        ):
            await socket.send_str(rubbish)
        await socket.send_json({"type": "ping", "t": 1})
        assert (await text(socket, "pong"))["t"] == 1
        post(board, 1)
        assert await picture(socket) is not None
        async with client.ws_connect("/stream") as other:
            await other.send_str("x" * 10_000)  # too long: this one is closed
            async for message in other:
                assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY)
            assert other.closed
        await socket.send_json({"type": "ping", "t": 2})
        assert (await text(socket, "pong"))["t"] == 2

    with_stream(test)


def test_who_watches() -> None:
    clock = Clock()
    asked: list[bool] = []

    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        assert board.watched()
        assert asked
        clock.seconds += 60
        assert board.watched(), "an open stream is somebody watching"
        await socket.close()
        while board.readers:
            await asyncio.sleep(0.01)
        assert board.watched()
        clock.seconds += 6
        assert not board.watched()
        await client.get("/status.json")
        assert board.watched()

    with_stream(test, clock=clock, on_interest=lambda: asked.append(True))


def test_closing_the_board_ends_the_stream() -> None:
    async def test(board: FrameBoard, socket: ClientWebSocketResponse, client: TestClient) -> None:
        board.close()
        async for _ in socket:
            pass
        assert socket.close_code == 1001

    with_stream(test)
