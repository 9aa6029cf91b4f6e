"""The page as another program of this machine sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from cag_avatar_node.page_client import PageClient

STATUS = {"state": "live", "frames": 3}
TOKEN = "a-good-token"


class Page(BaseHTTPRequestHandler):
    """Gives what ``files`` holds to those who have the token."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        content = self.files.get(self.path)
        self.send_response(401 if not allowed else 404 if content is None else 200)
        self.end_headers()
        self.wfile.write(content if allowed and content is not None else b"")

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_status_needs_the_token(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Page, "files", {"/status.json": json.dumps(STATUS).encode()})
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there
    assert PageClient(url, TOKEN).status() == STATUS
    assert PageClient(url).status() is None


def test_no_answer_is_no_status(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Page, "files", {"/status.json": b"{half"})
    assert PageClient(url, TOKEN).status() is None
    assert PageClient("http://127.0.0.1:9/", TOKEN).status() is None


def test_the_frame_is_saved_whole_or_not(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((8, 8, 3), (10, 120, 240), np.uint8)
    path = tmp_path / "new" / "frame.png"
    encoded, data = cv2.imencode(".jpg", pixels)
    assert encoded
    monkeypatch.setattr(Page, "files", {"/frame.jpg": data.tobytes()})
    PageClient(url, TOKEN).save_frame(path)
    saved = cv2.imread(str(path))
    assert saved is not None
    assert np.abs(saved.astype(int) - pixels).max() <= 3
    monkeypatch.setattr(Page, "files", {"/frame.jpg": b"not an image"})
    other = tmp_path / "other.png"
    with pytest.raises(RuntimeError, match="not an image"):
        PageClient(url, TOKEN).save_frame(other)
    assert not other.exists()
