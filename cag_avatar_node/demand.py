"""Subscribe to something only while somebody wants what is made of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

__all__ = ["Demand", "OnDemand"]

#: Seconds between looks at who wants anything.
_LOOK_INTERVAL = 0.2
#: Seconds without demand before a subscription is given up: a viewer that reconnects finds it.
_PATIENCE = 2.0


class Demand:
    """Whether there is demand, with patience; time is passed in (seconds, monotonic)."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._last: float | None = None

    def look(self, wanted: bool, now: float) -> bool:
        """Take a look's result; true while something is wanted, and for the patience after."""
        if wanted:
            self._last = now
        return self._last is not None and now - self._last <= self._patience


class OnDemand:
    """Calls ``start`` when something is wanted and ``stop`` when nothing is any more.

    Looks by a steady timer of the node (a simulation that stands still has subscribers too), and
    when it is told to.

    Args:
        node: whose executor looks.
        wanted: whether anybody wants anything.
        start: subscribe.
        stop: unsubscribe.
    """

    def __init__(
        self,
        node: Node,
        wanted: Callable[[], bool],
        start: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self._node = node
        self._wanted, self._start, self._stop = wanted, start, stop
        self._demand = Demand()
        self._running = False
        self._timer = node.create_timer(
            _LOOK_INTERVAL, self.look, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    @property
    def running(self) -> bool:
        """Whether it was started."""
        return self._running

    def look(self) -> None:
        """Start or stop as is due now."""
        due = self._demand.look(self._wanted(), time.monotonic())
        if due == self._running:
            return
        self._running = due
        (self._start if due else self._stop)()

    def destroy(self) -> None:
        """Stop, and look no more."""
        self._node.destroy_timer(self._timer)
        if self._running:
            self._running = False
            self._stop()
