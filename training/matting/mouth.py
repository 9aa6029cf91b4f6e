"""The mouth: lips and what lies between them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["OUTER_LIP", "mouth_mask"]

#: MediaPipe's landmarks along the outer edge of the lips, in order around the mouth.
OUTER_LIP: tuple[int, ...] = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375,
    291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
_SHIFT = 4  # fractional bits of OpenCV's polygon corners


def mouth_mask(
    landmarks: NDArray[Any], width: int, height: int, dilate: float = 0.08
) -> NDArray[np.uint8]:
    """Mask of the mouth, 255 inside the outer lips and 0 elsewhere, [height, width] uint8.

    Args:
        landmarks: MediaPipe's landmarks, [478, 2 or 3], x and y in pixels of the picture.
        width: of the picture.
        height: of the picture.
        dilate: margin around the lips, as a fraction of the mouth's width.

    Raises InputError on landmarks of another shape, not finite, or a negative margin.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] <= max(OUTER_LIP) or points.shape[1] not in (2, 3):
        raise InputError(f"mouth mask: landmarks have shape {points.shape}, expected [478, 2 or 3]")
    if dilate < 0:
        raise InputError(f"mouth mask: dilate {dilate} must not be negative")
    lips = points[list(OUTER_LIP), :2]
    if not np.isfinite(lips).all():
        raise InputError("mouth mask: the lips' landmarks are not finite")
    # Landmarks have pixel centres at + 0.5, OpenCV at whole numbers.
    corners = np.rint((lips - 0.5) * 2**_SHIFT).clip(-(2**30), 2**30).astype(np.int32)
    mask: Any = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_8, _SHIFT)
    radius = round(dilate * float(np.linalg.norm(lips[0] - lips[10])))
    if radius > 0:
        side = 2 * radius + 1
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return mask
