#!/usr/bin/env python3
"""Pictures of the display page for docs/: the real page in a headless Chromium.

.venv/bin/python scripts/make_page_screenshots.py out/demo/avatar.cag docs

Give it the avatar of a synthetic person (``make demo`` makes one): the pictures go into the
repository.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.avatar.animator import Animator
from cag_avatar.files import replacing
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node.display_server import PageSettings, make_application
from cag_avatar_node.display_state import parse_state
from cag_avatar_node.display_thread import ServerThread
from cag_avatar_node.frame_board import FrameBoard

#: Largest file, bytes.
LIMIT = 80_000
#: Name, state, width, height, what follows the address.
SHOTS = (
    ("page_live", "live", 640, 480, "?overlay=1"),
    ("page_hold", "hold", 640, 480, ""),
    ("page_driving", "hidden:driving", 640, 480, ""),
    ("page_dashboard", "live", 1920, 720, ""),
    ("page_round", "live", 480, 480, "?shape=round"),
)


def render_loop(avatar: Path) -> list[bytes]:
    """JPEG files of a smile that comes and goes."""
    animator = Animator.load(avatar, size=(512, 512), background=(58, 68, 80))
    rest = animator.rest_code
    frames = []
    for phase in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        code = rest.copy()
        for name in ("mouthSmileLeft", "mouthSmileRight"):
            code[ARKIT_NAMES.index(name)] = 0.35 - 0.3 * np.cos(phase)
        rgb = np.asarray(animator.render(code))
        frames.append(encode(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8), 92))
    return frames


def encode(bgr: NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG file of BGR uint8 [H, W, 3]."""
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError("OpenCV could not encode a picture as JPEG")
    return data.tobytes()


def save(png: bytes, path: Path) -> None:
    """Write a screenshot as the best JPEG within the limit, at most 1280 pixels wide."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    if image.shape[1] > 1280:
        height = round(image.shape[0] * 1280 / image.shape[1])
        image = cv2.resize(image, (1280, height), interpolation=cv2.INTER_AREA)
    pixels = np.asarray(image, np.uint8)
    files = (encode(pixels, quality) for quality in range(92, 20, -4))
    data = next(file for file in files if len(file) <= LIMIT)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    print(f"{path}: {len(data)} bytes")


def main() -> int:
    """Make the pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description="Pictures of the display page.")
    parser.add_argument("avatar", type=Path, help="avatar of a synthetic person (*.cag)")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        print("error: Chromium is not installed", file=sys.stderr)
        return 2
    frames = render_loop(options.avatar)
    server = ServerThread()
    board = FrameBoard(server.loop)
    port = server.serve(lambda: make_application(board, PageSettings()), "127.0.0.1", 0)
    stop = threading.Event()

    def play() -> None:
        index = 0
        while not stop.wait(0.04):
            board.post(frames[index % len(frames)], time.time_ns(), board.now(), 0.0)
            index += 1

    player = threading.Thread(target=play)
    player.start()
    try:
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=browser_path, args=arguments)
            for name, state, width, height, query in SHOTS:
                board.tell(parse_state(state))
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(f"http://127.0.0.1:{port}/{query}")
                page.wait_for_timeout(2500)
                save(page.screenshot(), options.out / f"{name}.jpg")
                page.close()
            browser.close()
    finally:
        stop.set()
        player.join()
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
