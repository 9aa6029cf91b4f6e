"""Figures of single pictures and mattes, and the motion between two pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MatteFigures", "follow", "matte_figures", "picture_change", "sharpness", "toggled"]

#: Rim of the drawn head that a matte may cut, share of the head's height: fitting errors, hairline.
_RIM = 0.08
#: Picture height at which blurs and windows are given.
_REFERENCE = 256.0


@dataclass(frozen=True)
class MatteFigures:
    """Of one matte and the head drawn over it."""

    hole: float
    """Share of the drawn head, without its rim, that the matte leaves out."""
    outside: float
    """Share of the whole drawn head that the matte leaves out."""
    outside_at: tuple[float, float]
    """Mean place of that, from the head's middle, in head heights (x right, y down)."""
    island: float
    """Area apart from the person, share of the person's."""
    inner: NDArray[np.bool_]
    """The drawn head without its rim, [H, W]."""


def matte_figures(matte: NDArray[np.uint8], head: NDArray[np.bool_]) -> MatteFigures:
    """Compare a matte [H, W] (255 person) with the drawn head [H, W]."""
    person = matte > 127
    rows, columns = np.nonzero(head)
    inner = np.zeros_like(head)
    hole = outside = 0.0
    at = (0.0, 0.0)
    if len(rows):
        tall = float(np.ptp(rows) + 1)
        side = 2 * max(1, round(_RIM * tall)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        inner = cv2.erode(head.astype(np.uint8), kernel) > 0
        hole = float((inner & ~person).sum() / max(1, inner.sum()))
        missed = ~person[rows, columns]
        outside = float(missed.mean())
        if missed.any():
            at = (
                float((columns[missed].mean() - columns.mean()) / tall),
                float((rows[missed].mean() - rows.mean()) / tall),
            )
    _, _, statistics, _ = cv2.connectedComponentsWithStats(person.astype(np.uint8), connectivity=8)
    areas = np.sort(statistics[1:, cv2.CC_STAT_AREA])
    island = float(areas[:-1].sum() / areas[-1]) if len(areas) else 0.0
    return MatteFigures(hole, outside, at, island, inner)


def toggled(
    before: NDArray[np.uint8],
    matte: NDArray[np.uint8],
    after: NDArray[np.uint8],
    ignore: NDArray[np.bool_],
) -> float:
    """Area that differs from both neighbours in time, which agree, per length of the outline.

    Mattes [H, W]; pixels of ``ignore`` [H, W] do not count. In pixels at a height of 256.
    """
    a, b, c = before > 127, matte > 127, after > 127
    odd = (a == c) & (a != b) & ~ignore
    edge = b & ~(
        cv2.erode(b.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
    )
    return float(odd.sum() / max(1, edge.sum()) * _REFERENCE / len(matte))


def picture_change(
    before: NDArray[np.uint8], after: NDArray[np.uint8], person: NDArray[np.bool_]
) -> float:
    """Mean difference of two grey pictures [H, W] within the person, 8-bit levels."""
    if not person.any():
        return 0.0
    return float(cv2.absdiff(before, after)[person].mean())


def sharpness(grey: NDArray[np.uint8], face: NDArray[np.bool_]) -> float:
    """Contrast of fine detail within the face: deviation from a blur over the mean brightness."""
    if not face.any():
        return 0.0
    picture = grey.astype(np.float32)
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.5 * len(grey) / _REFERENCE)
    return float((picture - blurred)[face].std() / (picture[face].mean() + 1))


def follow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Motion of points [K, 2] (pixels, centres at + 0.5) between two grey pictures [H, W].

    Lucas-Kanade there and back: returns displacements [K, 2] and which of them came back.
    """
    height, width = before.shape
    side = max(7, round(13 * height / _REFERENCE)) | 1
    start = np.ascontiguousarray(points - 0.5, np.float32)[:, None]
    options = {"winSize": (side, side), "maxLevel": 3}
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **options)  # type: ignore[call-overload]
    back, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **options)  # type: ignore[call-overload]
    error = np.linalg.norm((back - start)[:, 0], axis=1)
    inside = ((start[:, 0] > 1) & (start[:, 0] < (width - 2, height - 2))).all(1)
    good = (found[:, 0] == 1) & (returned[:, 0] == 1) & inside & (error < 0.5)
    return np.asarray((there - start)[:, 0], np.float32), np.asarray(good)
