"""The one-slot mailbox and its worker."""

from __future__ import annotations

import threading
import time

import pytest

from cag_avatar_node.mailbox import Mailbox, MailboxWorker


def test_only_the_newest_is_kept() -> None:
    mailbox: Mailbox[int] = Mailbox()
    for number in range(1, 6):
        mailbox.put(number)
    assert mailbox.take(0) == 5
    assert mailbox.take(0) is None
    assert mailbox.replaced == 4


def test_close_wakes_a_waiting_reader() -> None:
    mailbox: Mailbox[int] = Mailbox()
    threading.Timer(0.05, mailbox.close).start()
    start = time.monotonic()
    assert mailbox.take(10) is None
    assert time.monotonic() - start < 5
    mailbox.put(1)
    assert mailbox.take(10) is None


def test_a_slow_worker_skips_and_survives_an_exception() -> None:
    handled: list[int] = []
    errors: list[Exception] = []
    busy, go_on = threading.Event(), threading.Event()

    def handle(number: int) -> None:
        if number == 0:
            busy.set()
            go_on.wait(5)
            raise ValueError("zero")
        handled.append(number)
        busy.set()

    worker: MailboxWorker[int] = MailboxWorker("test", handle, errors.append)
    worker.start()
    worker.mailbox.put(0)
    assert busy.wait(5)
    busy.clear()
    for number in (1, 2, 3):
        worker.mailbox.put(number)
    go_on.set()
    assert busy.wait(5)
    assert worker.stop()
    assert handled == [3]
    assert [str(error) for error in errors] == ["zero"]


def test_idle_is_called_without_items() -> None:
    idle = threading.Event()
    worker: MailboxWorker[int] = MailboxWorker(
        "test", lambda _: None, lambda error: pytest.fail(str(error)), idle.set, 0.01
    )
    worker.start()
    assert idle.wait(5)
    assert worker.stop()
