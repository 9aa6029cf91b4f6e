"""A headless Chromium for tests of the page; missing parts skip the test and say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

#: Offline and quiet: a browser under test talks to the page and to nobody else.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str:
    """Path of Chromium; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        # Ubuntu's is a stub that asks for a snap.
        if path is not None and not _is_snap_stub(path):
            return path
    pytest.skip("Chromium is not installed (Debian: apt install chromium)")


def _is_snap_stub(path: str) -> bool:
    with open(path, "rb") as file:
        return b"snap" in file.read(4096)


@contextmanager
def open_browser() -> Iterator[Any]:
    """A Playwright browser; skips the test where Playwright or Chromium is missing."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'cag_avatar[test]'"
    )
    path = chromium_path()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
