"""The person's own colours where the background shines through."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["estimate_foreground"]

#: Box sizes, in fractions of the longer side, of the two passes.
_BOXES = (0.18, 0.012)


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
    # Neighbourhood means are smooth: half the size does.
    size = ((width + 1) // 2, (height + 1) // 2)
    frame = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    cover = (
        cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    )
    own, other = frame, frame
    for fraction in _BOXES:
        side = max(3, round(fraction * max(size))) | 1
        amount = cv2.blur(cover, (side, side))[..., None]
        own = cv2.blur(own * cover, (side, side)) / (amount + 1e-4)
        other = cv2.blur(other * (1 - cover), (side, side)) / (1 - amount + 1e-4)
        own_mean, other_mean = own, other
        own = np.clip(own + cover * (frame - cover * own - (1 - cover) * other), 0, 255)
    at = np.nonzero(soft)
    share = alpha[at].astype(np.float32)[:, None] / 255
    means = [cv2.resize(m, (width, height))[at] for m in (own_mean, other_mean)]
    rest = image[at] - share * means[0] - (1 - share) * means[1]
    result[at] = np.rint(np.clip(means[0] + share * rest, 0, 255)).astype(np.uint8)
    return result
