"""The web page that shows the newest picture of a board. Knows nothing of ROS."""

from __future__ import annotations

import asyncio
import time
from importlib import resources
from typing import Any

from aiohttp import web

from cag_avatar_node.frame_board import FrameBoard

__all__ = ["jpeg_size", "make_application"]

BOUNDARY = "cag-avatar-frame"
BOARD: web.AppKey[FrameBoard] = web.AppKey("board", FrameBoard)
_NO_STORE = {"Cache-Control": "no-store"}
_POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def make_application(board: FrameBoard) -> web.Application:
    """The page (``/``), ``/stream.mjpg``, ``/frame.jpg`` and ``/status.json`` of a board.

    ``/frame.jpg`` is 503 before the first picture; its header X-Stamp-Ns is the camera stamp.
    ``/status.json``: fps, latency_ms_p50, latency_ms_p95 (null before the first picture) over the
    last 10 s, frames (number since the start), width, height, stamp (seconds).
    """
    application = web.Application()
    application[BOARD] = board
    application.router.add_get("/", _page)
    application.router.add_get("/stream.mjpg", _stream)
    application.router.add_get("/frame.jpg", _frame)
    application.router.add_get("/status.json", _status)
    application.on_shutdown.append(_release_readers)
    return application


def jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """Width and height from a JPEG's frame header (ITU-T T.81, B.2.2); None without one."""
    position = 2
    while position + 9 <= len(jpeg) and jpeg[position] == 0xFF:
        marker = jpeg[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(jpeg[position + 5 : position + 7], "big")
            width = int.from_bytes(jpeg[position + 7 : position + 9], "big")
            return width, height
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return None


async def _release_readers(application: web.Application) -> None:
    application[BOARD].close()


async def _page(request: web.Request) -> web.Response:
    text = resources.files("cag_avatar_node").joinpath("display_page.html").read_text("utf-8")
    headers = {**_NO_STORE, "Content-Security-Policy": _POLICY}
    return web.Response(text=text, content_type="text/html", headers=headers)


async def _frame(request: web.Request) -> web.Response:
    frame = request.app[BOARD].newest
    if frame is None:
        raise web.HTTPServiceUnavailable(text="no frame yet\n")
    headers = {**_NO_STORE, "X-Stamp-Ns": str(frame.stamp_ns)}
    return web.Response(body=frame.jpeg, content_type="image/jpeg", headers=headers)


async def _status(request: web.Request) -> web.Response:
    board = request.app[BOARD]
    frame, now = board.newest, time.monotonic()
    latency = board.timing.percentiles(now, 50, 95) if frame is not None else None
    size = jpeg_size(frame.jpeg) if frame is not None else None
    status: dict[str, Any] = {
        "fps": round(board.timing.rate(now), 2),
        "latency_ms_p50": None if latency is None else round(latency[0] * 1e3, 2),
        "latency_ms_p95": None if latency is None else round(latency[1] * 1e3, 2),
        "frames": 0 if frame is None else frame.number,
        "width": None if size is None else size[0],
        "height": None if size is None else size[1],
        "stamp": None if frame is None else frame.stamp_ns * 1e-9,
    }
    return web.json_response(status, headers=_NO_STORE)


async def _stream(request: web.Request) -> web.StreamResponse:
    board = request.app[BOARD]
    headers = {**_NO_STORE, "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    number = 0
    try:
        while (frame := await board.after(number)) is not None:
            number = frame.number
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame.jpeg)}\r\n"
                f"X-Stamp-Ns: {frame.stamp_ns}\r\n\r\n"
            )
            # One write a picture, and write() waits for a slow client: it then skips pictures.
            await response.write(head.encode() + frame.jpeg + b"\r\n")
    except (ConnectionError, asyncio.CancelledError):
        pass
    return response
