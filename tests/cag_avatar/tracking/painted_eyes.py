"""Painted eyes whose landmarks follow the irises by a third, as the detector's do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.tracking.face_landmarker import IRIS_LANDMARKS

__all__ = ["CENTRES", "PaintedClip", "landmarks_of", "painted_clip", "picture"]

#: Interpupillary geometry, pixels: outer corners 124 apart, irises of 8 pixels' radius.
CENTRES = np.array([[68.0, 80.0], [132.0, 80.0]])
RADIUS = 8.2
HALF_WIDTH, HALF_HEIGHT = 30.0, 11.0
LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)
FRAMES = 40


def landmarks_of(found: NDArray[np.float64], opening: float = 1.0) -> NDArray[np.float32]:
    """Landmarks [478, 3] of a frontal face whose irises are seen at ``found`` [2, 2]."""
    points = np.zeros((478, 3), np.float32)
    for eye, (x, y) in enumerate(CENTRES):
        start = math.pi if eye == 0 else 0.0
        for k, index in enumerate(LIDS[eye]):
            angle = start + (1 if eye == 0 else -1) * 2 * math.pi * k / 16
            height = opening * HALF_HEIGHT * math.sin(angle)
            points[index, :2] = x + HALF_WIDTH * math.cos(angle), y + height
        points[list(IRIS_LANDMARKS[eye]), :2] = found[eye]
    points[[168, 6, 197, 2], :2] = (100, 75), (100, 80), (100, 90), (100, 128)
    points[[234, 454], :2] = (20, 90), (180, 90)
    return points


def picture(irises: NDArray[np.float64], opening: float = 1.0) -> NDArray[np.uint8]:
    """Eyes with irises at [2, 2], lids, and glints that do not move with them."""
    zoom = 8
    image = np.full((160 * zoom, 200 * zoom, 3), (190, 140, 120), np.uint8)
    for eye, (x, y) in enumerate(CENTRES):
        white = image.copy()
        white[:] = (215, 210, 205)
        for radius, colour in ((RADIUS, (70, 90, 60)), (0.4 * RADIUS, (15, 12, 12))):
            at = tuple(round(v * zoom) for v in irises[eye])
            cv2.circle(white, at, round(radius * zoom), colour, -1, cv2.LINE_AA)
        cv2.circle(white, (round((x + 2) * zoom), round((y - 3) * zoom)), zoom, (255, 255, 255), -1)
        lid = np.zeros(image.shape[:2], np.uint8)
        axes = (round(HALF_WIDTH * zoom), max(1, round(opening * HALF_HEIGHT * zoom)))
        cv2.ellipse(lid, (round(x * zoom), round(y * zoom)), axes, 0, 0, 360, 1, -1)
        image[lid > 0] = white[lid > 0]
    small = cv2.resize(image, (200, 160), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


@dataclass(frozen=True, eq=False)
class PaintedClip:
    """Both eyes look round together, T frames."""

    true: NDArray[np.float64]
    """Where the irises are, pixels, [T, 2, 2]."""
    landmarks: NDArray[np.float32]
    """[T, 478, 3]."""
    pictures: list[NDArray[np.uint8]]
    """T of them."""


def painted_clip() -> PaintedClip:
    """Forty frames."""
    t = np.arange(FRAMES) / FRAMES * 2 * math.pi
    turn = np.stack([5 * np.sin(3 * t), 2.5 * np.cos(2 * t)], -1)
    true = CENTRES + turn[:, None]
    seen = CENTRES + turn[:, None] * [0.7, 0.3]
    landmarks = np.stack([landmarks_of(s) for s in seen])
    return PaintedClip(true, landmarks, [picture(irises) for irises in true])
