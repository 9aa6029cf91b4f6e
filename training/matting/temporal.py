"""Steadying alpha over time where the picture itself is steady."""

from __future__ import annotations

from typing import Any

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
    total, share = alpha.copy(), np.ones_like(alpha)
    height, width = alpha.shape
    for other, its_alpha in neighbours:
        rows, columns = np.nonzero(alpha != its_alpha)  # elsewhere the average is no other
        if len(rows) == 0:
            continue
        say: NDArray[Any] = weight * _sameness(image, other)
        if say.shape != alpha.shape:
            say = cv2.resize(say, (width, height), interpolation=cv2.INTER_LINEAR)
        says = say[rows, columns]
        total[rows, columns] += says * its_alpha[rows, columns]
        share[rows, columns] += says
    return total / share


def _sameness(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """1 where two images [h, w, 3] are alike around a pixel, falling to 0 where they differ."""
    red, green, blue = cv2.split(cv2.absdiff(image, other))
    gap = cv2.max(cv2.max(red, green), blue).astype(np.float32)
    # The largest of two window sizes: thin hair must not drown in a still surrounding.
    change = cv2.max(cv2.blur(gap, (5, 5)), cv2.blur(gap, (3, 3)))
    return np.exp(-np.square(change / np.float32(_CHANGE))).astype(np.float32, copy=False)
