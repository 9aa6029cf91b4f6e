"""The page in a browser."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest

from cag_avatar_node.display_access import PageAccess
from cag_avatar_node.display_server import PageSettings, make_application
from cag_avatar_node.display_state import DisplayKind, DisplayState, parse_state
from cag_avatar_node.display_thread import ServerThread
from cag_avatar_node.frame_board import FrameBoard
from tests.cag_avatar_node.browser import open_browser

TOKEN = "a-good-token"
BACKGROUND = (40, 90, 160)  # BGR


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as found:
        yield found


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address in a window of a size; an error of the page's script fails the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def open_it(url: str, width: int = 320, height: int = 320) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []


def dataset(page: Any) -> dict[str, str]:
    """What the page says of itself."""
    return dict(page.evaluate("({...document.documentElement.dataset})"))


def wait_for(page: Any, what: Callable[[dict[str, str]], object], timeout: float = 5.0) -> float:
    """Seconds until the page's own words fulfil a condition."""
    start = time.monotonic()
    while True:
        late = time.monotonic() - start > timeout  # before the look: a machine may stand still
        said = dataset(page)
        if what(said):
            return time.monotonic() - start
        if late:
            pytest.fail(f"not within {timeout:g} s; the page says {said}")
        page.wait_for_timeout(20)


MIDDLE = """(() => {
    const c = document.getElementById('avatar');
    return c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data[0];
})()"""


def middle(page: Any) -> int:
    """Brightness in the middle of what is drawn."""
    return int(page.evaluate(MIDDLE))


def wait_for_picture(page: Any) -> None:
    """Wait until the page says live; it must have a picture at that very moment."""
    deadline = time.monotonic() + 5
    while True:
        late = time.monotonic() > deadline
        state, value = page.evaluate(f"[document.documentElement.dataset.state, {MIDDLE}]")
        if state == "live":
            assert value > 0, "it says live over an empty canvas"
            return
        assert not late, dataset(page)
        page.wait_for_timeout(20)


def picture(value: int) -> bytes:
    image = np.full((96, 96, 3), BACKGROUND, np.uint8)
    image[24:72, 24:72] = value
    encoded, data = cv2.imencode(".jpg", image)
    assert encoded
    return data.tobytes()


class Feed:
    """A served board with pictures that grow brighter 25 times a second."""

    def __init__(self, settings: PageSettings) -> None:
        self.thread = ServerThread()
        self.board = FrameBoard(self.thread.loop, stale_s=0.5)
        port = self.thread.serve(lambda: make_application(self.board, settings), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}/"
        self.running = threading.Event()
        self.running.set()
        self._stop = threading.Event()
        self._poster = threading.Thread(target=self._post, daemon=True)
        self._poster.start()

    def _post(self) -> None:
        value = 30
        while not self._stop.wait(0.04):
            if self.running.is_set():
                value = 30 + (value - 25) % 220
                self.board.post(picture(value), time.time_ns(), self.board.now(), 0.0)

    def close(self) -> None:
        self._stop.set()
        self._poster.join(5)
        self.thread.stop()


@contextmanager
def feed(**settings: Any) -> Iterator[Feed]:
    made = Feed(PageSettings(**settings))
    try:
        yield made
    finally:
        made.close()


def test_picture_moves_and_its_age_is_reported(open_page: Callable[..., Any]) -> None:
    with feed() as served:
        page = open_page(served.url + "?overlay=1")
        wait_for(page, lambda data: data["state"] == "live")
        seen = {middle(page)}
        deadline = time.monotonic() + 8
        while len(seen) < 5 or not re.search(r"glass \d+ / \d+ ms", page.inner_text("#overlay")):
            assert time.monotonic() < deadline, (seen, page.inner_text("#overlay"))
            page.wait_for_timeout(50)
            seen.add(middle(page))
        found = served.board.page_timing.percentiles(served.board.now(), 50)
        assert found is not None
        assert 0 < found[0] < 1.0
        text = page.inner_text("#overlay")
        assert text.startswith("live ")
        assert "96x96" in text
        assert page.evaluate("getComputedStyle(document.body).cursor") == "none"


def test_every_state_and_its_placard(open_page: Callable[..., Any]) -> None:
    with feed() as served:
        page = open_page(served.url)
        for told, placard, headline in (
            ("hidden", "absent", "Nobody there"),
            ("hidden:driving", "driving", "Not while driving"),
            ("hidden:consent", "consent", "Waiting for consent"),
        ):
            served.board.tell(parse_state("live"))
            wait_for_picture(page)
            served.board.tell(parse_state(told))
            wait_for(page, lambda data, wanted=placard: data.get("placard") == wanted)
            assert page.inner_text("#headline") == headline
            assert page.locator("#placard").is_visible()
            page.wait_for_timeout(100)
            assert middle(page) == 0, "a hidden face is left on the canvas"
        served.board.tell(parse_state("hold"))
        wait_for(page, lambda data: data["state"] == "hold" and "placard" not in data)
        assert page.locator("#mark").is_visible()
        assert not page.locator("#placard").is_visible()
        served.board.tell(parse_state("live"))
        wait_for(page, lambda data: data["state"] == "live")
        assert not page.locator("#mark").is_visible()
        served.running.clear()
        wait_for(page, lambda data: data.get("placard") == "lost")
        assert page.inner_text("#headline") == "No connection"
        served.running.set()
        wait_for(page, lambda data: data["state"] == "live" and "placard" not in data)


def test_pictures_that_are_back_at_once_leave_no_placard(open_page: Callable[..., Any]) -> None:
    with feed() as served:
        page = open_page(served.url)
        wait_for_picture(page)
        page.evaluate(
            f"""() => {{
                window.darkest = 255;
                window.heard = 0;
                const watch = new MutationObserver(() => {{ window.heard += 1; }});
                watch.observe(document.documentElement, {{attributeFilter: ["data-placard"]}});
                const look = () => {{
                    window.darkest = Math.min(window.darkest, {MIDDLE});
                    requestAnimationFrame(look);
                }};
                look();
            }}"""
        )
        for _ in range(5):
            # As a node that stood still for stale_s says it, before it reads what has come.
            served.board.tell(DisplayState(DisplayKind.LOST))
            page.wait_for_timeout(60)
            served.board.tell(parse_state("live"))
            page.wait_for_timeout(60)
        assert page.evaluate("[window.darkest > 0, window.heard]") == [True, 0]
        served.board.tell(DisplayState(DisplayKind.LOST))
        assert wait_for(page, lambda data: data.get("placard") == "lost") >= 0.2
        assert middle(page) == 0


def test_transparent_pictures_lie_on_black(open_page: Callable[..., Any]) -> None:
    with feed() as served:
        served.running.clear()

        def post(opaque_left: bool) -> None:
            image = np.zeros((96, 96, 4), np.uint8)
            image[:, : 40 if opaque_left else 96] = (200, 200, 200, 255)
            data = cv2.imencode(".png", image)[1].tobytes()
            served.board.post(data, time.time_ns(), served.board.now(), 0.0)

        page = open_page(served.url)
        shown = 0
        for opaque_left in (False, True):
            post(opaque_left)
            wait_for(page, lambda data, n=shown: int(data.get("frames", 0)) > n)
            shown = int(dataset(page)["frames"])
            # The picture before must not shine through.
            assert middle(page) == (0 if opaque_left else 200)


def test_fits_displays_of_any_shape(open_page: Callable[..., Any]) -> None:
    with feed() as served:
        box = "document.getElementById('{}').getBoundingClientRect().toJSON()"
        strip = open_page(served.url, 960, 360)
        wait_for(strip, lambda data: data["state"] == "live")
        canvas = strip.evaluate(box.format("avatar"))
        assert (canvas["width"], canvas["height"]) == (360, 360)
        assert canvas["x"] == pytest.approx(300, abs=1)
        colour = strip.evaluate(
            "getComputedStyle(document.getElementById('stage')).backgroundColor"
        )
        channels = [int(part) for part in colour.strip("rgb()").split(",")]
        assert channels == pytest.approx(BACKGROUND[::-1], abs=4)
        assert "beside" in (strip.get_attribute("#avatar", "class") or "")

        face = open_page(served.url + "?shape=round", 400, 240)
        wait_for(face, lambda data: data["state"] == "live")
        stage = face.evaluate(box.format("stage"))
        assert (stage["x"], stage["width"], stage["height"]) == (80, 240, 240)
        shot = face.screenshot()
        pixels = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        assert pixels[4, 84].max() == 0, "the corner outside the circle"
        assert pixels[120, 90] == pytest.approx(BACKGROUND, abs=6)
        served.board.tell(parse_state("hidden:driving"))
        wait_for(face, lambda data: data.get("placard") == "driving")
        text = face.evaluate(box.format("headline"))
        for x in (text["left"], text["right"]):
            for y in (text["top"], text["bottom"]):
                assert np.hypot(x - 200, y - 120) < 120, "the words leave the round display"


def test_token(open_page: Callable[..., Any]) -> None:
    with feed(access=PageAccess(TOKEN)) as served:
        page = open_page(served.url)
        assert page.inner_text("h1") == "Token refused"
        assert "avatar_display" in page.inner_text("body")
        page = open_page(served.url + f"?token={TOKEN}&shape=round")
        wait_for(page, lambda data: data["state"] == "live")
        assert page.url == served.url + "?shape=round", "the token stays in the address"
        assert TOKEN not in page.evaluate("document.cookie")
        # As after a restart with another token: the page says why it gets nothing.
        page.context.clear_cookies()
        port = int(served.url.rsplit(":", 1)[1].strip("/"))
        served.thread.stop()
        other = Feed.__new__(Feed)
        other.thread = ServerThread()
        board = FrameBoard(other.thread.loop)
        settings = PageSettings(access=PageAccess("another-token"))
        other.thread.serve(lambda: make_application(board, settings), "127.0.0.1", port)
        try:
            wait_for(page, lambda data: data.get("placard") == "refused")
        finally:
            other.thread.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_node_is_killed_and_comes_back(
    world: Any, node_environment: dict[str, str], open_page: Callable[..., Any]
) -> None:
    from sensor_msgs.msg import CompressedImage

    from cag_avatar_node.qos import IMAGE_QOS

    port = free_port()
    command = [sys.executable, "-m", "cag_avatar_node.avatar_display", "--ros-args"]
    command += ["-p", f"port:={port}"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=node_environment, stderr=subprocess.DEVNULL)

    images = world.node.create_publisher(CompressedImage, "/avatar/image_raw/compressed", IMAGE_QOS)
    shade = iter(range(10**9))

    def publish() -> None:
        message = CompressedImage(format="jpeg")
        message.header.stamp = world.node.get_clock().now().to_msg()
        message.data = picture(next(shade) % 250)
        images.publish(message)

    timer = world.node.create_timer(0.04, publish)
    process = start()
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        page = open_page(f"http://127.0.0.1:{port}/")
        wait_for(page, lambda data: data["state"] == "live", timeout=10)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(page, lambda data: data.get("placard") == "lost", timeout=2)
        frames = int(dataset(page)["frames"])
        process = start()
        while True:  # the 3 s are the page's: how long Python takes to start is not
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.01)
        wait_for(page, lambda data: data.get("placard") != "lost", timeout=3)
        # How long the topics take to find each other again is DDS's affair.
        wait_for(
            page, lambda data: data["state"] == "live" and int(data["frames"]) > frames + 5, 10
        )
        assert "placard" not in dataset(page)
    finally:
        world.node.destroy_timer(timer)
        process.terminate()
        process.wait(15)
