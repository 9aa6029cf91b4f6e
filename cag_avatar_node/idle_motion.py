"""What keeps a resting face alive: blinks and a small sway of the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.face_blend import Face, smoothstep
from cag_avatar_node.head_limits import turn_on_neck

__all__ = ["BLINK_S", "EYES", "IdleConfig", "IdleMotion"]

#: A spontaneous blink closes fast and opens slowly (Evinger et al., 1991); seconds.
_CLOSING, _CLOSED, _OPENING = 0.09, 0.03, 0.2
BLINK_S = _CLOSING + _CLOSED + _OPENING
#: Coefficients that close the left and the right eye.
EYES = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
#: Share of yaw, pitch and roll in the sway; periods of each in seconds (no common multiple, so that
#: it does not seem to repeat).
_SWAY_SHARE = np.array([1.0, 0.6, 0.4])
_SWAY_PERIODS = np.array([[7.3, 3.1], [5.9, 2.7], [8.7, 4.1]])
#: Seconds in which the sway sets in.
_SWAY_START = 2.0


@dataclass(frozen=True)
class IdleConfig:
    """How a resting face moves."""

    blink_min_s: float = 3.0
    """Shortest time from one blink to the next, seconds."""
    blink_max_s: float = 5.0
    """Longest time from one blink to the next, seconds."""
    sway_deg: float = 1.5
    """How far the head sways, degrees; 0: not at all."""
    seed: int = 0
    """Of the times between blinks."""

    def __post_init__(self) -> None:
        if not 2 * BLINK_S <= self.blink_min_s <= self.blink_max_s:
            raise InputError(
                f"blink_min_s {self.blink_min_s} and blink_max_s {self.blink_max_s} must be in "
                f"order and at least {2 * BLINK_S:.2f}"
            )
        if not 0 <= self.sway_deg <= 20:
            raise InputError(f"idle_sway_deg {self.sway_deg} must lie in 0 .. 20")


class IdleMotion:
    """Blinks and sway as a function of the seconds since idling began: the same for the same seed.

    Times may not go back by more than a blink, except by :meth:`restart`.
    """

    def __init__(self, config: IdleConfig | None = None) -> None:
        self._config = config or IdleConfig()
        self.restart()

    def restart(self) -> None:
        """Begin again at 0 s, with the same blinks."""
        self._random = np.random.default_rng(self._config.seed)
        self._blink = self._draw()

    def face(self, rest: Face, seconds: float, shut: NDArray[np.float32] | float = 1.0) -> Face:
        """The resting face at a time: moved a little, its eyes closed for the length of a blink.

        Args:
            rest: the face.
            seconds: since idling began.
            shut: :data:`EYES` of the closed eyes, [2]: how far this avatar can close them.
        """
        code = rest.code
        closed = self.closed(seconds)
        if closed > 0:
            code = code.copy()
            code[EYES] += np.float32(closed) * np.maximum(shut - code[EYES], 0)
        sway = self.sway(seconds)
        return Face(code, rest.motion if sway is None else sway @ rest.motion)

    def closed(self, seconds: float) -> float:
        """How far the eyes are closed, 0 to 1."""
        while seconds >= self._blink + BLINK_S:
            self._blink += self._draw()
        since = seconds - self._blink
        if since <= 0:
            return 0.0
        if since < _CLOSING:
            return smoothstep(since / _CLOSING)
        return 1 - smoothstep((since - _CLOSING - _CLOSED) / _OPENING)

    def until_blink(self, seconds: float) -> float:
        """Seconds until the next blink begins; 0 while one lasts."""
        self.closed(seconds)
        return max(0.0, self._blink - seconds)

    def sway(self, seconds: float) -> NDArray[np.float64] | None:
        """Head motion [4, 4]; None when there is none."""
        if self._config.sway_deg == 0:
            return None
        waves = np.sin(2 * np.pi * seconds / _SWAY_PERIODS) @ np.array([0.7, 0.3])
        scale = np.radians(self._config.sway_deg) * smoothstep(seconds / _SWAY_START)
        yaw, pitch, roll = scale * _SWAY_SHARE * waves
        return turn_on_neck(yaw, pitch, roll)

    def _draw(self) -> float:
        return float(self._random.uniform(self._config.blink_min_s, self._config.blink_max_s))
