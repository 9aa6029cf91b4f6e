"""The newest picture, its state and statistics, handed from a ROS thread to web requests."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cag_avatar_node.display_state import DisplayState, decide_state
from cag_avatar_node.timing import TimingWindow

__all__ = ["BoardFrame", "FrameBoard"]

#: Seconds for which a single request counts as somebody watching.
INTEREST_SECONDS = 5.0
#: Largest latency that is believed, either way, seconds.
MAX_LATENCY = 60.0
#: Pictures after which a resting avatar is one that moves.
STILL_PICTURES = 2


@dataclass(frozen=True)
class BoardFrame:
    """One picture."""

    data: bytes
    """The JPEG or PNG file."""
    stamp_ns: int
    """Acquisition time of the camera image that it shows, nanoseconds."""
    number: int
    """Counts the pictures from 1."""
    posted: float
    """When it arrived, seconds of the board's clock."""


class FrameBoard:
    """Keeps the newest picture and what the renderer says of it.

    ``post``, ``forget``, ``tell``, ``set_active`` and ``watched`` may be called from any thread,
    the rest from the loop's.

    Args:
        loop: event loop of the readers.
        window: seconds over which rate and latency are taken.
        stale_s: seconds without a picture after which they count as stopped.
        require_state: show nothing unless the renderer has told its state.
        clock: monotonic clock, seconds.
        on_interest: called, in the loop's thread, when somebody starts to watch.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        window: float = 10.0,
        *,
        stale_s: float = 1.0,
        require_state: bool = False,
        clock: Callable[[], float] = time.monotonic,
        on_interest: Callable[[], object] | None = None,
    ) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._newest: BoardFrame | None = None
        self._told: DisplayState | None = None
        self._count = 0
        self._number_when_told = 0
        self._active = True
        self._stale_s = stale_s
        self._require_state = require_state
        self._clock = clock
        self._on_interest = on_interest
        self._last_interest = float("-inf")
        self._readers: set[asyncio.Event] = set()
        self._closed = False
        self.timing = TimingWindow(window)
        self.page_timing = TimingWindow(window)

    def post(self, data: bytes, stamp_ns: int, now: float, latency: float) -> None:
        """Show a picture; ``now`` (the board's clock) and ``latency`` in seconds.

        A latency beyond MAX_LATENCY comes of a stamp of another clock and is not counted.
        """
        with self._lock:
            self._count += 1
            self._newest = BoardFrame(data, stamp_ns, self._count, now)
        self.timing.add(now, latency if abs(latency) < MAX_LATENCY else math.nan)
        self._wake_soon()

    def forget(self) -> None:
        """Nobody waits for pictures any more: the next one will not be late."""
        with self._lock:
            self._newest = None

    def tell(self, state: DisplayState | None) -> None:
        """What the renderer says; None: it is gone."""
        with self._lock:
            if state != self._told:
                self._number_when_told = self._count
            self._told = state
        self._wake_soon()

    def set_active(self, active: bool) -> None:
        """Whether the node shows pictures at all."""
        self._active = active
        self._wake_soon()

    def close(self) -> None:
        """Let every waiting reader go."""
        self._closed = True
        self._wake()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def count(self) -> int:
        """Number of pictures so far."""
        return self._count

    @property
    def newest(self) -> BoardFrame | None:
        """The newest picture, or None before the first."""
        with self._lock:
            return self._newest

    def now(self) -> float:
        """The board's clock, seconds."""
        return self._clock()

    def state(self) -> DisplayState:
        """What is to be shown now."""
        frame = self.newest
        age = None if frame is None else self._clock() - frame.posted
        # Of a face that is frozen, or rests without blinks, a renderer sends one or two pictures.
        still = self._count - self._number_when_told <= STILL_PICTURES
        return decide_state(
            self._told, age, self._stale_s, self._active, self._require_state, still
        )

    # Who watches.

    @property
    def readers(self) -> int:
        """Number of open streams."""
        return len(self._readers)

    def watched(self) -> bool:
        """Whether somebody has a stream open, or asked for something just now."""
        return bool(self._readers) or self._clock() - self._last_interest < INTEREST_SECONDS

    def note_interest(self) -> None:
        """Somebody asked for something."""
        self._last_interest = self._clock()
        if self._on_interest is not None:
            self._on_interest()

    @contextmanager
    def reader(self) -> Iterator[asyncio.Event]:
        """A reader's event: set whenever picture or state change and on closing."""
        changed = asyncio.Event()
        self._readers.add(changed)
        self.note_interest()
        try:
            yield changed
        finally:
            self._readers.discard(changed)
            self._last_interest = self._clock()

    async def after(self, number: int, changed: asyncio.Event) -> BoardFrame | None:
        """Wait, with a reader's event, for a picture later than ``number``; None once closed."""
        while not self._closed:
            changed.clear()
            frame = self.newest
            if frame is not None and frame.number > number:
                return frame
            await changed.wait()
        return None

    def _wake_soon(self) -> None:
        if self._readers and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for changed in self._readers:
            changed.set()
