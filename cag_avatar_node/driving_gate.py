"""Whether a vehicle's state lets the avatar be shown. Not related to functional safety."""

from __future__ import annotations

from typing import Literal

__all__ = ["DRIVING_STATES", "DrivingGate", "DrivingPolicy"]

DrivingPolicy = Literal["ignore", "hide", "freeze"]

#: Android Automotive's driving states; only "parked" lets the driver watch.
DRIVING_STATES = ("parked", "idling", "moving")


class DrivingGate:
    """Follows driving state and passenger display. Not related to functional safety.

    The avatar may move while the vehicle is parked, or when the display is a passenger's. A state
    that was never told, that is older than ``timeout_s`` or that has an unknown name counts as
    moving. Time is passed in (seconds, any monotonic clock).

    Args:
        policy: ``ignore``: the avatar is always shown; ``hide`` or ``freeze`` it otherwise.
        timeout_s: seconds for which a driving state is believed.
    """

    def __init__(self, policy: DrivingPolicy = "ignore", timeout_s: float = 2.0) -> None:
        self.policy = policy
        self._timeout = timeout_s
        self._state: str | None = None
        self._time = 0.0
        self._passenger = False

    def tell_state(self, name: str, now: float) -> bool:
        """A driving state came in; False when its name is unknown (which counts as moving)."""
        known = name in DRIVING_STATES
        self._state, self._time = (name if known else None), now
        return known

    def tell_passenger_display(self, flag: bool) -> None:
        """Whether the display is one that the driver cannot see."""
        self._passenger = flag

    def state(self, now: float) -> str:
        """The driving state that is reckoned with: parked, idling or moving."""
        if self._state is None or not 0 <= now - self._time <= self._timeout:
            return "moving"
        return self._state

    def open(self, now: float) -> bool:
        """Whether the avatar may be shown and move."""
        return self.policy == "ignore" or self._passenger or self.state(now) == "parked"
