"""The operator's head pose at rest, against which an avatar's head is moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NeutralPose"]


class NeutralPose:
    """Mean head pose over the first seconds in which a face is seen.

    The mean so far serves until the time is over, then it stays until :meth:`restart`. Time is
    passed in (seconds, any monotonic clock).

    Args:
        duration_s: seconds to average over; 0: the first pose alone.
    """

    def __init__(self, duration_s: float) -> None:
        if not duration_s >= 0:
            raise ValueError(f"duration_s {duration_s} must not be negative")
        self._duration = duration_s
        self.restart()

    def restart(self) -> None:
        """Forget the neutral pose: the next seconds make a new one."""
        self._started: float | None = None
        self._sum: NDArray[np.float64] = np.zeros((4, 4))
        self._neutral: NDArray[np.float64] | None = None

    def update(self, head_pose: NDArray[np.float64], now: float) -> NDArray[np.float64]:
        """Take a head pose [4, 4] (canonical to camera, rigid); returns the neutral one [4, 4]."""
        if self._started is None:
            self._started = now
        if self._neutral is None or now <= self._started + self._duration:
            self._sum = self._sum + head_pose
            neutral = self._sum / self._sum[3, 3]
            # Nearest rotation to the mean matrix: the chordal mean (Hartley et al., 2013).
            left, _, right = np.linalg.svd(neutral[:3, :3])
            sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
            neutral[:3, :3] = left @ sign @ right
            self._neutral = neutral
        return self._neutral
