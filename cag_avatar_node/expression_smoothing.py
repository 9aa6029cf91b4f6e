"""Steadies expression codes and head poses over time without making them late (One-Euro filter)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.rotations import rotation_matrix, rotation_vector

__all__ = ["ExpressionSmoother", "OneEuroFilter", "SmoothingConfig"]

#: Coefficients of the eyelids: a blink is over within three frames, any averaging halves it.
_EYELIDS = np.array([name.startswith(("eyeBlink", "eyeWide")) for name in ARKIT_NAMES])
#: Of a fast eyelid, per second: a blink closes at 8 to 15, the landmarker's noise moves at below 1.
_EYELID_SPEED = 2.5
#: After so long without a face, seconds, the next one starts anew.
_GAP_S = 0.5
#: Cutoff of the speed's own filter, hertz, as in the paper.
_SPEED_CUTOFF = 1.0
#: What a head moves where a coefficient goes from 0 to 1: 0.15 m, 0.5 radians. So one ``beta``
#: serves codes and poses.
_METRES, _RADIANS = 0.15, 0.5


@dataclass(frozen=True)
class SmoothingConfig:
    """Two numbers, as in Casiez, Roussel and Vogel, "1 Euro Filter" (CHI 2012)."""

    min_cutoff: float = 1.5
    """Cutoff at rest, hertz: smaller is steadier and later."""
    beta: float = 6.0
    """Growth of the cutoff with the speed, hertz per (unit / s): larger is less late in motion."""

    def __post_init__(self) -> None:
        if not (self.min_cutoff > 0 and self.beta >= 0):
            raise InputError(
                f"smoothing: min_cutoff {self.min_cutoff} must be positive and beta {self.beta} "
                "not negative"
            )


class OneEuroFilter:
    """Low pass whose cutoff grows with the speed; every element of the array by itself."""

    def __init__(self) -> None:
        self._value: NDArray[np.float64] | None = None
        self._raw: NDArray[np.float64] = np.zeros(0)
        self._speed: NDArray[np.float64] = np.zeros(0)

    def restart(self) -> None:
        """The next value is taken as it is."""
        self._value = None

    def update(
        self,
        raw: NDArray[np.floating],
        dt: float,
        config: SmoothingConfig,
        passed: NDArray[np.bool_] | None = None,
        limit: float = math.inf,
    ) -> NDArray[np.float64]:
        """Take a value, ``dt`` seconds (positive) after the one before; returns the steadied one.

        Args:
            raw: [N].
            dt: seconds since the value before; ignored for the first.
            config: cutoff and growth.
            passed: elements that are passed through while they are fast, [N].
            limit: speed, in units a second, from which they are.

        Returns:
            float64 [N].
        """
        values = np.asarray(raw, np.float64)
        if self._value is None:
            self._value, self._speed = values.copy(), np.zeros_like(values)
        else:
            speed = (values - self._raw) / dt
            self._speed = self._speed + _share(_SPEED_CUTOFF, dt) * (speed - self._speed)
            share = _share(config.min_cutoff + config.beta * np.abs(self._speed), dt)
            if passed is not None:
                share = np.where(passed & (np.abs(speed) > limit), 1.0, share)
            self._value = self._value + share * (values - self._value)
        self._raw = values.copy()
        return self._value


def _share(cutoff: float | NDArray[np.float64], dt: float) -> NDArray[np.float64]:
    """Weight of the new value in an exponential mean with this cutoff."""
    return np.asarray(1.0 / (1.0 + 1.0 / (2.0 * math.pi * np.asarray(cutoff) * dt)))


class ExpressionSmoother:
    """Smooths the codes and head poses of one face. Time is passed in (seconds)."""

    def __init__(self) -> None:
        self._code, self._pose = OneEuroFilter(), OneEuroFilter()
        self._reference = np.eye(3)
        self._last: float | None = None

    def restart(self) -> None:
        """Forget what was before: the next code and pose are taken as they are."""
        self._last = None

    def update(
        self,
        code: NDArray[np.floating],
        head_pose: NDArray[np.floating],
        now: float,
        config: SmoothingConfig,
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Take a face of time ``now``; starts anew after half a second, or when time goes back.

        Args:
            code: expression code, [52], ARKit order.
            head_pose: canonical to camera, rigid, metres, [4, 4].
            now: seconds.
            config: how much.

        Returns:
            The steadied code, float32 [52], and head pose, float64 [4, 4]. An eyelid that moves
            fast is passed through.
        """
        dt = 0.0 if self._last is None else now - self._last
        turn = np.asarray(head_pose, np.float64)[:3, :3]
        if not 0.0 < dt <= _GAP_S:
            self._code.restart()
            self._pose.restart()
            self._reference = turn.copy()
        self._last = now
        steady = self._code.update(code, dt, config, _EYELIDS, _EYELID_SPEED)
        # Turns against the last one, where a rotation vector is as good as a vector.
        vector = rotation_vector(self._reference.T @ turn) / _RADIANS
        place = np.asarray(head_pose, np.float64)[:3, 3] / _METRES
        moved = self._pose.update(np.concatenate([vector, place]), dt, config)
        pose = np.eye(4)
        pose[:3, :3] = self._reference @ rotation_matrix(moved[:3] * _RADIANS)
        pose[:3, 3] = moved[3:] * _METRES
        return steady.astype(np.float32), pose
