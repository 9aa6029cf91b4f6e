"""The thread that handles messages and wakes by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from cag_avatar_node.render_loop import RenderLoop


def test_it_ticks_when_due_and_handles_what_comes(wait_until: Callable[..., None]) -> None:
    ticks: list[float] = []
    handled: list[int] = []

    def tick() -> float:
        ticks.append(time.monotonic())
        return ticks[-1] + 0.02

    def handle(item: int) -> None:
        handled.append(item)

    loop: RenderLoop[int] = RenderLoop("test", handle, tick, lambda error: None)
    loop.start()
    wait_until(lambda: len(ticks) >= 10, "ticks")
    loop.mailbox.put(7)
    wait_until(lambda: handled == [7], "the item")
    assert loop.stop()
    assert ticks[9] - ticks[0] >= 0.17
    count = len(ticks)
    time.sleep(0.05)
    assert len(ticks) == count


def test_handling_may_put_the_tick_off_but_never_starves_it(
    wait_until: Callable[..., None],
) -> None:
    ticks: list[float] = []
    put_off = [True]

    def tick() -> float:
        ticks.append(time.monotonic())
        return time.monotonic() + 0.02

    def handle(item: int) -> float | None:
        if put_off[0]:
            return time.monotonic() + 60
        loop.mailbox.put(1)  # the next one is always there already
        return None

    loop: RenderLoop[int] = RenderLoop("test", handle, tick, lambda error: None)
    loop.start()
    wait_until(lambda: ticks, "the first tick")
    loop.mailbox.put(1)
    time.sleep(0.05)
    count = len(ticks)
    time.sleep(0.1)
    assert len(ticks) <= count + 1
    loop.stop()

    put_off[0] = False
    ticks.clear()
    loop = RenderLoop("test", handle, tick, lambda error: None)
    loop.start()
    loop.mailbox.put(1)
    time.sleep(0.3)
    loop.stop()
    assert len(ticks) >= 5


def test_exceptions_are_reported_and_survived(wait_until: Callable[..., None]) -> None:
    errors: list[Exception] = []
    handled: list[int] = []

    def handle(item: int) -> None:
        if item < 0:
            raise ValueError("bad")
        handled.append(item)

    loop: RenderLoop[int] = RenderLoop("test", handle, lambda: time.monotonic() + 9, errors.append)
    loop.start()
    loop.mailbox.put(-1)
    wait_until(lambda: errors, "the error")
    loop.mailbox.put(1)
    wait_until(lambda: handled == [1], "the next item")
    assert loop.stop()
