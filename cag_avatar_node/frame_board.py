"""The newest picture and its statistics, handed from a ROS thread to web requests."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

from cag_avatar_node.timing import TimingWindow

__all__ = ["BoardFrame", "FrameBoard"]


@dataclass(frozen=True)
class BoardFrame:
    """One picture."""

    jpeg: bytes
    """The JPEG file."""
    stamp_ns: int
    """Acquisition time of the camera image that it shows, nanoseconds."""
    number: int
    """Counts the pictures from 1."""


class FrameBoard:
    """Keeps the newest picture. ``post`` may be called from any thread, the rest from the loop's.

    Args:
        loop: event loop of the readers.
        window: seconds over which rate and latency are taken.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, window: float = 10.0) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._newest: BoardFrame | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self.timing = TimingWindow(window)

    def post(self, jpeg: bytes, stamp_ns: int, now: float, latency: float) -> None:
        """Show a picture; ``now`` and ``latency`` in seconds."""
        with self._lock:
            number = 1 if self._newest is None else self._newest.number + 1
            self._newest = BoardFrame(jpeg, stamp_ns, number)
        self.timing.add(now, latency)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Let every waiting reader go."""
        self._closed = True
        self._wake()

    @property
    def newest(self) -> BoardFrame | None:
        """The newest picture, or None before the first."""
        with self._lock:
            return self._newest

    async def after(self, number: int) -> BoardFrame | None:
        """Wait for a picture later than ``number``; None once closed."""
        while not self._closed:
            changed = self._changed
            frame = self.newest
            if frame is not None and frame.number > number:
                return frame
            await changed.wait()
        return None

    def _wake(self) -> None:
        # A fresh event for the next picture: clearing the old one could lose a reader.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
