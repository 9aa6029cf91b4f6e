"""Draws what the tracker found into the camera's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar_node.frame_capture import shrink

if TYPE_CHECKING:
    from cag_avatar.tracking.estimator import FaceEstimate
    from cag_avatar.tracking.face_landmarker import DetectedFace

__all__ = ["RateLimit", "annotate_face"]

#: Longer side of the picture at most, pixels.
_LARGEST = 640
_OPERATOR, _OTHER, _TEXT = (0, 220, 0), (230, 120, 0), (255, 255, 255)


def annotate_face(
    rgb: NDArray[np.uint8], estimate: FaceEstimate, notes: str = ""
) -> NDArray[np.uint8]:
    """A copy of a picture with the operator's landmarks and the other faces' boxes.

    Args:
        rgb: the picture that was estimated, uint8 [H, W, 3].
        estimate: what was found in it.
        notes: more to say in the line of text.

    Returns:
        RGB uint8 [h, w, 3], its longer side at most 640.
    """
    height, width = rgb.shape[:2]
    picture = shrink(rgb, _LARGEST)
    picture = rgb.copy() if picture is rgb else picture
    scale = np.array([picture.shape[1] / width, picture.shape[0] / height])
    for other in estimate.others:
        left, top, right, bottom = _box(other, scale)
        cv2.rectangle(picture, (left, top), (right, bottom), _OTHER, 1)
    says = "no face"
    if estimate.face is not None:
        left, top, right, bottom = _box(estimate.face, scale)
        cv2.rectangle(picture, (left, top), (right, bottom), _OPERATOR, 1)
        points = np.round(estimate.face.landmarks[:, :2] * scale).astype(int)
        inside = ((points >= 0) & (points < [picture.shape[1], picture.shape[0]])).all(1)
        for x, y in points[inside].tolist():
            cv2.circle(picture, (x, y), 1, _OPERATOR, cv2.FILLED)
        eyes = "" if estimate.eyes_valid else ", eyes not"
        says = f"confidence {estimate.confidence:.2f}{eyes}"
    line = f"{says} {notes}".strip()
    for color, thickness in (((0, 0, 0), 3), (_TEXT, 1)):
        cv2.putText(
            picture, line, (6, picture.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color,
            thickness, cv2.LINE_AA,
        )  # fmt: skip
    return picture


def _box(face: DetectedFace, scale: NDArray[np.float64]) -> tuple[int, int, int, int]:
    left, top, right, bottom = face.box()
    x, y = float(scale[0]), float(scale[1])
    return round(left * x), round(top * y), round(right * x), round(bottom * y)


class RateLimit:
    """Lets through at most so many events a second. Time is passed in (seconds)."""

    def __init__(self) -> None:
        self._due: float | None = None

    def due(self, now: float, rate: float) -> bool:
        """Whether an event at ``now`` may pass; it then counts. A clock that goes back is fine."""
        interval = 1.0 / rate
        if self._due is None or now >= self._due or now < self._due - interval:
            # From the time it was due, so that the mean rate is kept; not from long ago.
            late = self._due is not None and 0 <= now - self._due < interval
            self._due = (self._due if late and self._due is not None else now) + interval
            return True
        return False
