"""The page's WebSocket: pictures and states out, acknowledgements and times in. Knows no ROS.

Binary messages are a header of 24 bytes, little-endian, and a JPEG or PNG file: ``CAG1``, uint8
state (:attr:`DisplayKind.code`), a zero byte, uint16 header length, int64 camera stamp in
nanoseconds, uint64 number of the picture. Text messages are JSON: ``state``, ``status`` (twice a
second, so that silence means a dead link) and ``pong`` to the page, ``shown`` (number of a picture
that was drawn, and ages in ms of pictures that reached the glass) and ``ping`` from it.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from cag_avatar_node.display_state import DisplayState
from cag_avatar_node.frame_board import BoardFrame, FrameBoard

__all__ = ["HEADER", "IN_FLIGHT", "pack_frame", "serve_stream"]

HEADER = struct.Struct("<4sBxHqQ")
#: Pictures on their way to a page at a time. One would halve the rate on a slow link; what is newer
#: waits in the board's single slot until the page has drawn one of them.
IN_FLIGHT = 2
#: Seconds between statuses.
STATUS_INTERVAL = 0.5
#: Longest text from a page, bytes.
MAX_TEXT = 2048
#: Ages beyond this, seconds, are clocks that are not yet in step.
MAX_AGE = 60.0


def pack_frame(frame: BoardFrame, state: DisplayState) -> bytes:
    """A picture as it goes over the WebSocket."""
    head = HEADER.pack(b"CAG1", state.kind.code, HEADER.size, frame.stamp_ns, frame.number)
    return head + frame.data


class _Client:
    """What one page has been sent and has shown."""

    def __init__(self) -> None:
        self._unacknowledged: deque[int] = deque()
        self._unmeasured: deque[int] = deque(maxlen=4 * IN_FLIGHT)

    @property
    def ready(self) -> bool:
        """Whether it takes another picture."""
        return len(self._unacknowledged) < IN_FLIGHT

    def sent(self, number: int) -> None:
        self._unacknowledged.append(number)
        self._unmeasured.append(number)

    def shown(self, number: int) -> None:
        """The page has drawn this picture; earlier ones are done with as well."""
        while self._unacknowledged and self._unacknowledged[0] <= number:
            self._unacknowledged.popleft()

    def measures(self, number: int) -> bool:
        """Whether an age of this picture is news: each picture counts once."""
        if number not in self._unmeasured:
            return False
        self._unmeasured.remove(number)
        return True


async def serve_stream(
    request: web.Request,
    board: FrameBoard,
    status: Callable[[], dict[str, Any]],
    clock_ns: Callable[[], int],
) -> web.WebSocketResponse:
    """Serve one page until it or the board closes.

    Args:
        request: the WebSocket's request, already allowed.
        board: pictures and states.
        status: what ``/status.json`` says.
        clock_ns: the clock of the camera stamps, nanoseconds.
    """
    socket = web.WebSocketResponse(
        timeout=1.0, heartbeat=5.0, compress=False, max_msg_size=MAX_TEXT
    )
    await socket.prepare(request)
    client = _Client()
    with board.reader() as changed:
        sender = asyncio.create_task(_send(socket, board, client, changed, status))
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                answer = _take(message.data, client, board, clock_ns)
                changed.set()  # there may be room for a picture now
                if answer is not None:
                    await socket.send_str(answer)
        except ConnectionError:
            pass
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
    return socket


async def _send(
    socket: web.WebSocketResponse,
    board: FrameBoard,
    client: _Client,
    changed: asyncio.Event,
    status: Callable[[], dict[str, Any]],
) -> None:
    told: DisplayState | None = None
    number, next_status = 0, 0.0
    try:
        while not board.closed:
            changed.clear()
            state, now = board.state(), board.now()
            if state != told:
                told = state
                await socket.send_str(
                    json.dumps({"type": "state", "state": state.kind.value, "reason": state.reason})
                )
            if now >= next_status:
                next_status = now + STATUS_INTERVAL
                await socket.send_str(json.dumps({"type": "status", **status()}))
            frame = board.newest
            if (
                frame is not None
                and frame.number > number
                and client.ready
                and state.kind.shows_picture
            ):
                number = frame.number
                client.sent(number)
                await socket.send_bytes(pack_frame(frame, state))
                continue
            try:
                await asyncio.wait_for(changed.wait(), STATUS_INTERVAL / 2)
            except asyncio.TimeoutError:
                continue
        await socket.close(code=1001, message=b"the node stops")
    except ConnectionError:
        pass


def _take(text: str, client: _Client, board: FrameBoard, clock_ns: Callable[[], int]) -> str | None:
    """Handle a message from the page, whatever it holds; returns the answer, if there is one."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    if message.get("type") == "ping" and _is_number(message.get("t")):
        now_ms = clock_ns() / 1e6
        return json.dumps({"type": "pong", "t": message["t"], "now_ms": now_ms})
    if message.get("type") == "shown" and _is_number(message.get("number")):
        client.shown(int(message["number"]))
        ages = message.get("ages")
        for pair in ages if isinstance(ages, list) else ():
            if not (isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))):
                continue
            number, age = int(pair[0]), pair[1] / 1e3
            if -MAX_AGE < age < MAX_AGE and client.measures(number):
                board.page_timing.add(board.now(), age)
    return None


def _is_number(value: object) -> bool:
    # bool is an int; a huge int has no float.
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) < 1e18 and math.isfinite(value)
