"""The renderer's thread: handles the newest message, and wakes when a picture is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from cag_avatar_node.mailbox import MailboxThread

__all__ = ["RenderLoop"]

T = TypeVar("T")
#: Seconds until the next try after ``tick`` raised.
_AFTER_ERROR = 0.5


class RenderLoop(MailboxThread[T]):
    """One thread with a one-slot mailbox and an alarm clock; the first tick is at once.

    Args:
        name: thread name.
        handle: called with the newest item; returns the time (``time.monotonic``) of the next tick,
            or None to leave it as it is.
        tick: called at that time; returns the time of the next one.
        on_error: called with an exception that either raised; the thread goes on.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[T], float | None],
        tick: Callable[[], float],
        on_error: Callable[[Exception], None],
    ) -> None:
        super().__init__(name)
        self._handle = handle
        self._tick = tick
        self._on_error = on_error

    def _run(self) -> None:
        due = time.monotonic()
        while not self.mailbox.closed:
            item = self.mailbox.take(max(0.0, due - time.monotonic()))
            if self.mailbox.closed:
                return
            try:
                if item is not None:
                    next_due = self._handle(item)
                    due = due if next_due is None else next_due
                # Also when messages come faster than they are handled.
                if time.monotonic() >= due:
                    due = self._tick()
            except Exception as error:
                due = time.monotonic() + _AFTER_ERROR
                self._on_error(error)
