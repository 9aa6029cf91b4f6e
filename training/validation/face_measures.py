"""Distances in a face, from MediaPipe's 478 landmarks, that tell expressions apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EYE_CORNERS", "FaceMeasures", "measure_faces"]

#: Outer corners of the eyes: the subject's right, left.
EYE_CORNERS = (33, 263)
_NOSE_BRIDGE, _NOSE_BASE, _CHIN = 168, 2, 152
#: Inner edges of the lips, a little beside the middle.
_UPPER_LIP, _LOWER_LIP = (81, 311), (178, 402)
_MOUTH_CORNERS = (61, 291)
#: Upper and lower lid of the right and the left eye.
_LIDS = (((159, 158), (145, 153)), ((386, 385), (374, 380)))
_BROWS = (105, 334)


@dataclass(frozen=True)
class FaceMeasures:
    """Of T faces, each [T] float64 in eye distances; pitch and yaw change them by their cosine."""

    lip_gap: NDArray[np.float64]
    """Between the inner edges of the lips."""
    chin: NDArray[np.float64]
    """From the base of the nose to the chin."""
    mouth_width: NDArray[np.float64]
    lid_right: NDArray[np.float64]
    lid_left: NDArray[np.float64]
    brow_right: NDArray[np.float64]
    """From the upper lid to the brow."""
    brow_left: NDArray[np.float64]


def measure_faces(landmarks: NDArray[Any], unit: NDArray[np.float64]) -> FaceMeasures:
    """Measure landmarks [T, 478, 2 or more]; they and the eye distance ``unit`` [T] in pixels."""
    points = np.asarray(landmarks, np.float64)[..., :2]
    up = points[:, _NOSE_BRIDGE] - points[:, _NOSE_BASE]
    up /= np.linalg.norm(up, axis=1, keepdims=True) + 1e-9

    def mean(index: tuple[int, ...]) -> NDArray[np.float64]:
        return np.asarray(points[:, list(index)].mean(1))

    def height(above: tuple[int, ...], below: tuple[int, ...]) -> NDArray[np.float64]:
        return np.asarray(((mean(above) - mean(below)) * up).sum(1) / unit)

    (up_r, low_r), (up_l, low_l) = _LIDS
    corner_r, corner_l = (points[:, i] for i in _MOUTH_CORNERS)
    return FaceMeasures(
        lip_gap=height(_UPPER_LIP, _LOWER_LIP),
        chin=height((_NOSE_BASE,), (_CHIN,)),
        mouth_width=np.linalg.norm(corner_l - corner_r, axis=1) / unit,
        lid_right=height(up_r, low_r),
        lid_left=height(up_l, low_l),
        brow_right=height((_BROWS[0],), up_r),
        brow_left=height((_BROWS[1],), up_l),
    )
