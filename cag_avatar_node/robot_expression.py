"""A robot's own expression: eased in, kept for a while, eased out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node.face_blend import smoothstep

__all__ = ["RobotExpression"]


class RobotExpression:
    """What the robot's face is meant to show while no operator is present.

    Time is passed in (seconds, any monotonic clock). Before :meth:`show` there is none.

    Args:
        ease_s: seconds in which an expression comes and goes.
        hold_s: seconds for which it stays after its last message; 0: until the next one.
    """

    def __init__(self, ease_s: float = 0.4, hold_s: float = 10.0) -> None:
        self._ease, self._hold = ease_s, hold_s
        self._from: NDArray[np.float32] | None = None
        self._to: NDArray[np.float32] | None = None
        self._time = 0.0
        self._end = math.inf

    def show(self, change: NDArray[np.float32], now: float) -> None:
        """An expression as what it adds to a face at rest, float32 [52]. The same one again only
        lasts longer."""
        staying = self._to is not None and now < self._end
        if not staying or not np.array_equal(np.asarray(self._to), change):
            self._from = self.at(now)
            self._to, self._time = change, now
        self._end = now + self._hold if self._hold > 0 else math.inf

    def dismiss(self, now: float) -> None:
        """Let it go now."""
        self._end = min(self._end, now)

    def clear(self) -> None:
        """There is none any more, at once."""
        self._to = None

    def active(self, now: float) -> bool:
        """Whether there is an expression to show, one that goes included."""
        return self._to is not None and now < self._end + self._ease

    def changing(self, now: float) -> bool:
        """Whether it comes or goes at this moment."""
        return self.active(now) and (now > self._end or now < self._time + self._ease)

    def at(self, now: float) -> NDArray[np.float32]:
        """What is added to the face at rest at a time, float32 [52]; zeros without one."""
        if self._to is None or self._from is None or not self.active(now):
            return np.zeros(len(ARKIT_NAMES), np.float32)
        share = smoothstep((now - self._time) / self._ease) if self._ease > 0 else 1.0
        if now > self._end:
            share_left = 1 - smoothstep((now - self._end) / self._ease)
        else:
            share_left = 1.0
        change = self._from + np.float32(share) * (self._to - self._from)
        return (np.float32(share_left) * change).astype(np.float32)
