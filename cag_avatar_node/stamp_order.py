"""Whether an image is newer than the last, or the source has started again."""

from __future__ import annotations

from enum import Enum

__all__ = ["Order", "StampOrder"]


class Order(Enum):
    """What a stamp says."""

    NEWER = "newer"
    """Later than all before it."""
    RESTARTED = "restarted"
    """Long before the last one: the source has started again."""
    STALE = "stale"
    """The same again, a little earlier, or no time at all."""


class StampOrder:
    """Compares acquisition stamps, in nanoseconds.

    Args:
        restart_s: a stamp that goes back by more than this is a source that started again, not
            disorder.
    """

    def __init__(self, restart_s: float = 0.5) -> None:
        self._restart = round(restart_s * 1e9)
        #: The newest stamp taken, nanoseconds; 0: none.
        self.last = 0

    def take(self, stamp: int) -> Order:
        """Judge a stamp; unless it is stale, it is the newest from now on."""
        if 0 < stamp < self.last - self._restart:
            self.last = stamp
            return Order.RESTARTED
        if stamp <= self.last:
            return Order.STALE
        self.last = stamp
        return Order.NEWER

    def restart(self) -> None:
        """Forget the newest stamp."""
        self.last = 0
