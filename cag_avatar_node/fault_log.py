"""Count bad input by kind and warn about each kind once."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["FaultLog"]


class FaultLog:
    """Counts faults; the first of each kind is reported through ``warn``.

    Args:
        warn: called with the message of the first fault of a kind.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, kind: str, message: str) -> None:
        """Count a fault; warn if it is the first of its kind."""
        with self._lock:
            count = self._counts.get(kind, 0) + 1
            self._counts[kind] = count
        if count == 1:
            self._warn(f"{message} (dropped; later ones are only counted, see /diagnostics)")

    def counts(self) -> dict[str, int]:
        """Number of faults by kind."""
        with self._lock:
            return dict(self._counts)
