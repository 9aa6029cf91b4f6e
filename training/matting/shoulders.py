"""Ending the matte at the neck instead of at the picture's edge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.base import REGIONS

__all__ = ["NeckLine", "cut_shoulders", "find_neck_line"]

#: (slope, height): the line y = slope x + height, in pixels with centres at + 0.5.
NeckLine = tuple[float, float]

_NECK, _SHOULDERS = REGIONS.index("neck"), REGIONS.index("shoulders")
#: A head tilted further than this makes the line no steeper.
_STEEPEST = 0.5
#: Length over which alpha fades, in heads.
_FADE = 0.15


def find_neck_line(labels: NDArray[Any]) -> NeckLine | None:
    """The line along which the neck of a drawn head ends.

    Args:
        labels: the fitted head drawn into a frame, [H, W]: -1 or an index into REGIONS.

    Returns None when no neck is drawn, or when it leaves the picture before it ends.
    """
    neck = labels == _NECK
    # The last neck pixel of each column, where a shoulder lies below it.
    below = neck[:-1] & (labels[1:] == _SHOULDERS)
    rows, columns = np.nonzero(below)
    if len(rows) < 8:
        return None
    x, y = columns + 0.5, rows + 1.0
    steep = float(np.clip(np.polyfit(x, y, 1)[0], -_STEEPEST, _STEEPEST))
    return steep, float(np.mean(y - steep * x))


def cut_shoulders(alpha: NDArray[np.uint8], line: NeckLine, head_size: float) -> NDArray[np.uint8]:
    """Alpha [H, W] that fades to 0 at the line.

    Args:
        alpha: the matte.
        line: from find_neck_line(), in the matte's pixels.
        head_size: square root of the drawn head's area, in the matte's pixels.
    """
    slope, height = line
    rows, columns = alpha.shape
    x, y = np.arange(columns) + 0.5, np.arange(rows)[:, None] + 0.5
    above = (slope * x + height - y) / ((_FADE * head_size) * np.hypot(1, slope))
    part = np.clip(above, 0, 1).astype(np.float32)
    part = part * part * (3 - 2 * part)  # smooth at both ends
    return np.rint(alpha * part).astype(np.uint8)
