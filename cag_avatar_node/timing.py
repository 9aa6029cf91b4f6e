"""Rates and latencies over the last seconds."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

__all__ = ["TimingWindow"]


class TimingWindow:
    """Events with a duration each, kept for a number of seconds. Safe to use from two threads."""

    def __init__(self, seconds: float = 10.0) -> None:
        if not seconds > 0:
            raise ValueError(f"window of {seconds} s must be positive")
        self._seconds = seconds
        self._events: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()

    def add(self, now: float, duration: float) -> None:
        """Record an event at ``now`` (seconds, any monotonic clock) that took ``duration`` s; NaN
        where that is not known."""
        with self._lock:
            self._events.append((now, duration))
            self._forget(now)

    def rate(self, now: float) -> float:
        """Events a second over the window, 0 with fewer than two; a stall lowers it at once."""
        with self._lock:
            self._forget(now)
            if len(self._events) < 2:
                return 0.0
            first, last = self._events[0][0], self._events[-1][0]
            count = len(self._events)
        if last <= first:
            return 0.0
        interval = (last - first) / (count - 1)
        # A gap since the newest event that is longer than usual counts as waiting for the next one.
        waited = now - last
        return count / (now - first) if waited > 2 * interval else 1 / interval

    def percentiles(self, now: float, *percent: float) -> list[float] | None:
        """Percentiles (0 to 100) of the durations in the window, or None when there are none."""
        with self._lock:
            self._forget(now)
            durations = [duration for _, duration in self._events if duration == duration]
        if not durations:
            return None
        return [float(value) for value in np.percentile(durations, percent)]

    def _forget(self, now: float) -> None:
        while self._events and self._events[0][0] < now - self._seconds:
            self._events.popleft()
