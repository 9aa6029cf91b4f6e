"""What the avatar shows while no face is seen: the last expression, then neutral."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from cag_avatar_node.expression_validation import CheckedExpression

__all__ = ["ExpressionHold", "HoldConfig", "HoldState", "ShownExpression"]


class HoldState(str, Enum):
    """Where the shown expression comes from."""

    WAITING = "waiting"
    """No face was seen yet."""
    LIVE = "live"
    """The newest code."""
    HOLD = "hold"
    """The last code, unchanged."""
    DECAY = "decay"
    """Between the last code and neutral."""
    NEUTRAL = "neutral"
    """The face at rest."""


@dataclass(frozen=True)
class HoldConfig:
    """How long each state lasts."""

    hold_s: float = 0.25
    """Seconds without a face for which the last expression is kept."""
    decay_s: float = 0.75
    """Seconds in which it then fades to neutral; 0: at once."""

    def __post_init__(self) -> None:
        if not (self.hold_s >= 0 and self.decay_s >= 0):
            raise ValueError(
                f"hold_s {self.hold_s} and decay_s {self.decay_s} must not be negative"
            )


@dataclass(frozen=True)
class ShownExpression:
    """The expression to render."""

    code: NDArray[np.float32]
    """Expression code, float32 [52]."""
    head_pose: NDArray[np.float64] | None
    """Canonical-to-camera transform [4, 4]; None: the avatar's own pose."""
    state: HoldState
    """Where it comes from."""


class ExpressionHold:
    """Follows the expression stream and bridges its gaps.

    Time is passed in (seconds, any monotonic clock), so that it can be tested without waiting. The
    head pose is kept through all states: a head that swings back would be an expression of its own.

    Args:
        config: how long each state lasts.
        rest: code of the neutral face, float32 [52]; None: zeros.
    """

    def __init__(self, config: HoldConfig, rest: NDArray[np.float32] | None = None) -> None:
        self._config = config
        self._rest = rest
        self._last: CheckedExpression | None = None
        self._last_time = 0.0

    def update(self, expression: CheckedExpression | None, now: float) -> ShownExpression | None:
        """Take a message (None: no face was seen) and say what to show; None before any face."""
        if expression is not None:
            self._last, self._last_time = expression, now
        return self.shown(now)

    def state(self, now: float) -> HoldState:
        """The state at a time."""
        if self._last is None:
            return HoldState.WAITING
        gap = now - self._last_time
        if gap <= 0:
            return HoldState.LIVE
        if gap <= self._config.hold_s:
            return HoldState.HOLD
        if gap < self._config.hold_s + self._config.decay_s:
            return HoldState.DECAY
        return HoldState.NEUTRAL

    def shown(self, now: float) -> ShownExpression | None:
        """What to show at a time; None before any face was seen."""
        if self._last is None:
            return None
        state = self.state(now)
        code = self._last.code
        if state is HoldState.DECAY:
            left = 1 - (now - self._last_time - self._config.hold_s) / self._config.decay_s
            # Smoothstep: the face neither starts nor stops moving with a jerk.
            rest = self._resting(code)
            code = (rest + (code - rest) * (left * left * (3 - 2 * left))).astype(np.float32)
        elif state is HoldState.NEUTRAL:
            code = self._resting(code)
        return ShownExpression(code, self._last.head_pose, state)

    def _resting(self, code: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros_like(code) if self._rest is None else self._rest
