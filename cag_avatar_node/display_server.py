"""The web page that shows the newest picture of a board. Knows nothing of ROS."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from aiohttp import web

from cag_avatar_node.display_access import PageAccess, cookie_name
from cag_avatar_node.display_stream import serve_stream
from cag_avatar_node.frame_board import FrameBoard
from cag_avatar_node.picture_header import picture_size
from cag_avatar_node.shown_picture import media_type
from cag_avatar_node.timing import TimingWindow

__all__ = ["SHAPES", "PageSettings", "make_application"]

#: Shapes of the display that the page fits itself to.
SHAPES = ("full", "round")
BOUNDARY = "cag-avatar-frame"
_PAGE_FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "refused.html": "text/html",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; style-src 'self'; "
        "script-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    # Other sites may neither embed nor read the pictures.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class PageSettings:
    """How the page looks and who may see it."""

    access: PageAccess = field(default_factory=PageAccess)
    """Who may see it."""
    shape: str = "full"
    """Shape of the display: full or round; ``?shape=`` comes first."""
    overlay: Callable[[], bool] = lambda: False
    """Whether rate and latency are drawn over the picture; ``?overlay=`` comes first."""
    clock_ns: Callable[[], int] = time.time_ns
    """The clock of the camera stamps, nanoseconds."""


_BOARD: web.AppKey[FrameBoard] = web.AppKey("board", FrameBoard)
_SETTINGS: web.AppKey[PageSettings] = web.AppKey("settings", PageSettings)


def make_application(board: FrameBoard, settings: PageSettings | None = None) -> web.Application:
    """The page (``/``), its stream (``/stream``, a WebSocket), and for programs ``/stream.mjpg``,
    ``/frame.jpg`` and ``/status.json``.

    ``/frame.jpg`` is 503 before the first picture; its header X-Stamp-Ns is the camera stamp.
    ``/status.json``: state, reason; fps, latency_ms_p50, latency_ms_p95 (camera stamp to arrival
    here) and page_latency_ms_p50, page_latency_ms_p95 (camera stamp to the glass, as the pages
    report it) over the last 10 s, null before the first picture; frames (number since the start),
    width, height, stamp (seconds), viewers (open streams), overlay, version of the page.
    A request without the token is answered 401, one for another host name 421.
    """
    application = web.Application(middlewares=[_guard])
    application[_BOARD] = board
    application[_SETTINGS] = settings or PageSettings()
    application.router.add_get("/", _index)
    application.router.add_get("/page.css", _file)
    application.router.add_get("/page.js", _file)
    application.router.add_get("/stream", _websocket)
    application.router.add_get("/stream.mjpg", _mjpeg)
    application.router.add_get("/frame.jpg", _frame)
    application.router.add_get("/status.json", _status)
    application.on_shutdown.append(_release_readers)
    return application


@cache
def _page_file(name: str) -> str:
    return resources.files("cag_avatar_node").joinpath("display_page", name).read_text("utf-8")


@cache
def _page_version() -> str:
    """Changes with the page's files: a page that stayed open over an update loads itself anew."""
    text = "".join(map(_page_file, _PAGE_FILES))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse wrong hosts, origins and tokens before anything else looks at a request."""
    access = request.app[_SETTINGS].access
    if not access.allows_host(request.host):
        text = f"this page is served as localhost, not as {request.host[:100]!r}\n"
        return web.Response(status=421, text=text, headers=_HEADERS)
    if not access.allows_token(request.query, request.cookies, request.headers):
        page = _page_file("refused.html")
        return web.Response(
            status=401,
            text=page,
            content_type="text/html",
            headers={**_HEADERS, "WWW-Authenticate": "Bearer"},
        )
    if "Upgrade" in request.headers and not access.allows_origin(
        request.headers.get("Origin"), request.host
    ):
        text = "the stream is for this page only\n"
        return web.Response(status=403, text=text, headers=_HEADERS)
    request.app[_BOARD].note_interest()
    return await handler(request)


async def _release_readers(application: web.Application) -> None:
    application[_BOARD].close()


async def _index(request: web.Request) -> web.Response:
    settings = request.app[_SETTINGS]
    text = _page_file("index.html")
    text = text.replace("{{shape}}", settings.shape).replace("{{version}}", _page_version())
    response = web.Response(text=text, content_type="text/html", headers=_HEADERS)
    if settings.access.token:
        # The stream and the page's files then need no address with the token in it.
        name = cookie_name(request.url.port)
        token = settings.access.token
        response.set_cookie(name, token, httponly=True, samesite="Strict", max_age=10 * 365 * 86400)
    return response


async def _file(request: web.Request) -> web.Response:
    name = request.path.rpartition("/")[2]
    text, kind = _page_file(name), _PAGE_FILES[name]
    return web.Response(text=text, content_type=kind, headers=_HEADERS)


async def _frame(request: web.Request) -> web.Response:
    frame = request.app[_BOARD].newest
    if frame is None:
        raise web.HTTPServiceUnavailable(text="no frame yet\n", headers=_HEADERS)
    headers = {**_HEADERS, "X-Stamp-Ns": str(frame.stamp_ns)}
    return web.Response(body=frame.data, content_type=media_type(frame.data), headers=headers)


async def _status(request: web.Request) -> web.Response:
    return web.json_response(_status_of(request.app), headers=_HEADERS)


def _status_of(application: web.Application) -> dict[str, Any]:
    board, settings = application[_BOARD], application[_SETTINGS]
    frame, now, state = board.newest, board.now(), board.state()
    size = picture_size(frame.data) if frame is not None else None
    return {
        "state": state.kind.value,
        "reason": state.reason,
        "fps": round(board.timing.rate(now), 2),
        **_percentiles("latency_ms", board.timing, now),
        **_percentiles("page_latency_ms", board.page_timing, now),
        "frames": board.count,
        "width": None if size is None else size[0],
        "height": None if size is None else size[1],
        "stamp": None if frame is None else frame.stamp_ns * 1e-9,
        "viewers": board.readers,
        "overlay": settings.overlay(),
        "version": _page_version(),
    }


def _percentiles(name: str, window: TimingWindow, now: float) -> dict[str, float | None]:
    found = window.percentiles(now, 50, 95)
    return {
        f"{name}_p{percent}": None if found is None else round(found[index] * 1e3, 2)
        for index, percent in enumerate((50, 95))
    }


async def _websocket(request: web.Request) -> web.StreamResponse:
    application = request.app
    return await serve_stream(
        request,
        application[_BOARD],
        lambda: _status_of(application),
        application[_SETTINGS].clock_ns,
    )


async def _mjpeg(request: web.Request) -> web.StreamResponse:
    board = request.app[_BOARD]
    headers = {**_HEADERS, "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    number = 0
    with board.reader() as changed:
        try:
            while (frame := await board.after(number, changed)) is not None:
                number = frame.number
                head = (
                    f"--{BOUNDARY}\r\nContent-Type: {media_type(frame.data)}\r\n"
                    f"Content-Length: {len(frame.data)}\r\nX-Stamp-Ns: {frame.stamp_ns}\r\n\r\n"
                )
                # One write a picture, and write() waits for a slow client: it then skips pictures.
                await response.write(head.encode() + frame.data + b"\r\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
    return response
