"""The person's own colours where the background shines through."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["estimate_foreground"]

#: Box sizes, in fractions of the longer side, of the two passes.
_BOXES = (0.18, 0.012)
#: And the part of the picture's size at which each works.
_SHRINK = (8, 2)


def estimate_foreground(image: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Foreground colour F of image = alpha F + (1 - alpha) B, [H, W, 3] uint8.

    Composite it as alpha F + (1 - alpha) new background; the input's own colours would carry a
    fringe of the old background. Where alpha is 0 or 1, F is the image. Two passes of blurred
    colours (Forte 2021, "Approximate fast foreground colour estimation").

    Args:
        image: [H, W, 3], RGB.
        alpha: [H, W].

    Raises InputError when the sizes differ.
    """
    if image.shape[:2] != alpha.shape or image.ndim != 3:
        raise InputError(f"foreground: image {image.shape} and alpha {alpha.shape} differ in size")
    soft = (alpha > 0) & (alpha < 255)
    result = image.copy()
    if not soft.any():
        return result
    height, width = alpha.shape
    at = np.nonzero(soft)
    means = _means(image, alpha)
    share = alpha[at].astype(np.float32)[:, None] / 255
    size = (width, height)
    own, other = (cv2.resize(m, size, interpolation=cv2.INTER_LINEAR)[at] for m in means)
    found = own + share * (image[at] - share * own - (1 - share) * other)
    result[at] = np.rint(np.clip(found, 0, 255)).astype(np.uint8)
    return result


def _means(
    image: NDArray[np.uint8], alpha: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean colours of person and background around each pixel, at a part of the size.

    The means of the first pass are as smooth as its boxes are wide: an eighth of the size does; the
    second takes half of it.
    """
    height, width = alpha.shape
    own: Any = None
    other: Any = None
    for fraction, shrink in zip(_BOXES, _SHRINK, strict=True):
        size = (max(1, width // shrink), max(1, height // shrink))
        frame = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        cover = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        cover = (cover / np.float32(255))[..., None]
        side = max(3, round(fraction * max(size))) | 1
        amount = cv2.blur(cover, (side, side))[..., None]
        if own is None:
            own, other = frame, frame
        else:
            own = cv2.resize(own, size, interpolation=cv2.INTER_LINEAR)
            other = cv2.resize(other, size, interpolation=cv2.INTER_LINEAR)
            own = np.clip(own + cover * (frame - cover * own - (1 - cover) * other), 0, 255)
        own = cv2.blur(own * cover, (side, side)) / (amount + np.float32(1e-4))
        other = cv2.blur(other * (1 - cover), (side, side)) / (1 - amount + np.float32(1e-4))
    return own, other
