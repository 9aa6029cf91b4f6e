"""Where hair begins on a head of average proportions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["behind_hairline"]


def behind_hairline(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points [N, 3] of the mean head (canonical space) lie above or behind the hairline."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    forehead = y > 0.072 - 6.0 * x**2
    temple = (z < -0.055) & (y > 0.0)
    nape = (z < -0.10) & (y > -0.075)
    return forehead | temple | nape
