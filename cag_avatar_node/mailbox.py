"""A one-slot mailbox between a ROS callback and a worker thread."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Mailbox", "MailboxThread", "MailboxWorker"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Keeps only the newest item: a slow reader skips, it never falls behind."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self._replaced = 0

    @property
    def replaced(self) -> int:
        """Items that were replaced by a newer one before anybody took them."""
        return self._replaced

    def put(self, item: T) -> None:
        """Store an item, replacing one that was not taken yet. Never blocks on the reader."""
        with self._condition:
            if self._closed:
                return
            if self._item is not None:
                self._replaced += 1
            self._item = item
            self._condition.notify()

    def take(self, timeout: float | None = None) -> T | None:
        """Wait for an item and remove it; None after ``timeout`` seconds or when closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self) -> None:
        """Wake the reader; every later ``take`` returns None at once."""
        with self._condition:
            self._closed = True
            self._item = None
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed


class MailboxThread(ABC, Generic[T]):
    """One thread with a mailbox; a subclass says what it does with it.

    Args:
        name: thread name.
    """

    def __init__(self, name: str) -> None:
        self.mailbox: Mailbox[T] = Mailbox()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """Close the mailbox and wait for the item in hand; False if it did not end in time."""
        self.mailbox.close()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self._thread.is_alive():
            logging.getLogger(__name__).error(
                "%s did not stop within %g s", self._thread.name, timeout
            )
            return False
        return True

    @abstractmethod
    def _run(self) -> None:
        """What the thread does, until the mailbox is closed."""


class MailboxWorker(MailboxThread[T]):
    """One thread that handles the newest item of a mailbox.

    Args:
        name: thread name.
        handle: called with each item; after an exception the thread goes on.
        on_error: called with an exception that ``handle`` or ``idle`` raised.
        idle: called when no item came for ``idle_interval`` seconds.
        idle_interval: seconds; None: ``idle`` is never called.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[T], None],
        on_error: Callable[[Exception], None],
        idle: Callable[[], None] | None = None,
        idle_interval: float | None = None,
    ) -> None:
        super().__init__(name)
        self._handle = handle
        self._on_error = on_error
        self._idle = idle
        self._idle_interval = idle_interval if idle is not None else None

    def _run(self) -> None:
        while not self.mailbox.closed:
            item = self.mailbox.take(self._idle_interval)
            if self.mailbox.closed:
                return
            try:
                if item is not None:
                    self._handle(item)
                elif self._idle is not None:
                    self._idle()
            except Exception as error:
                self._on_error(error)
