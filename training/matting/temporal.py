"""Steadying alpha over time where the picture itself is steady."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["steady_alpha"]

#: Colour change, in grey levels, at which a neighbouring frame's say falls to 1/e.
_CHANGE = 7.0


def steady_alpha(
    image: NDArray[np.uint8],
    alpha: NDArray[np.float32],
    neighbours: list[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    weight: float,
) -> NDArray[np.float32]:
    """Average alpha [H, W] with that of neighbouring frames, pixel by pixel.

    A neighbour (image [h, w, 3], alpha [H, W]) counts as ``weight`` where its colours around the
    pixel are the same, and not at all where something moved, so that motion leaves no ghost. The
    images may be smaller than alpha.
    """
    if weight <= 0 or not neighbours:
        return alpha
    size = (alpha.shape[1], alpha.shape[0])
    total, share = alpha.copy(), np.ones_like(alpha)
    for other, its_alpha in neighbours:
        gap = cv2.absdiff(image, other).max(-1).astype(np.float32)
        # The largest of two window sizes: thin hair must not drown in a still surrounding.
        change = np.maximum(cv2.blur(gap, (5, 5)), cv2.blur(gap, (3, 3)))
        say = weight * np.exp(-((change / _CHANGE) ** 2))
        say = cv2.resize(say, size, interpolation=cv2.INTER_LINEAR)
        total += say * its_alpha
        share += say
    return total / share
