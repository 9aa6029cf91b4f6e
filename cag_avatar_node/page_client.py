"""Asks the display page, from this machine, what it shows."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cag_avatar.files import replacing

__all__ = ["PageClient"]


class PageClient:
    """Reads the page's status and newest frame.

    Args:
        url: of the page, with a slash at its end.
        token: of the page, if it asks for one.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self._token = token

    def status(self) -> dict[str, Any] | None:
        """``status.json``, or None if the page does not answer.

        Among its keys: state, frames (since the start), fps, latency_ms_p50 and latency_ms_p95
        (milliseconds; None before the first) over the last 10 s.
        """
        try:
            status: dict[str, Any] = json.loads(self._get("status.json"))
        except (urllib.error.URLError, OSError, ValueError):
            return None
        return status

    def save_frame(self, path: Path) -> None:
        """Save the newest frame as PNG.

        Raises:
            RuntimeError: the page's frame is not an image.
            OSError: the page does not answer, or the file cannot be written.
        """
        import cv2
        import numpy as np

        data = np.frombuffer(self._get("frame.jpg"), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if pixels is None:
            raise RuntimeError("the page's frame is not an image")
        encoded, png = cv2.imencode(".png", pixels)
        if not encoded:
            raise RuntimeError("OpenCV could not encode the last frame as PNG")
        with replacing(path) as temporary:
            temporary.write_bytes(png.tobytes())

    def _get(self, name: str) -> bytes:
        # A proxy from the environment must not stand between two processes of one machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(self.url + name)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        with opener.open(request, timeout=5.0) as response:
            return bytes(response.read())
