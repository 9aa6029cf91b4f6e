"""``cag-avatar view``."""

from __future__ import annotations

import threading

from cag_avatar.avatar.file import load_avatar
from cag_avatar.viewer.page import AvatarPage
from cag_avatar_cli.options import Backend, PathArgument


def command(
    avatar: PathArgument,
    host: str = "127.0.0.1",
    port: int = 8080,
    size: int = 448,
    max_fps: float = 15.0,
    backend: Backend = "auto",
    seconds: float | None = None,
) -> None:
    """Serve a page with sliders for all coefficients, head and gaze; drag the picture to orbit.

    Args:
        avatar: *.cag file.
        host: address of the page; 0.0.0.0 lets other machines in.
        port: port of the page; the next free one if it is taken.
        size: height of the pictures in pixels; less is quicker.
        max_fps: pictures a second and client, at most.
        backend: rasteriser.
        seconds: stop after so long; by default at Ctrl-C.
    """
    with AvatarPage(load_avatar(avatar), host, port, backend, size, max_fps) as page:
        print(f"page: {page.address} (Ctrl-C ends it)", flush=True)
        threading.Event().wait(seconds)
