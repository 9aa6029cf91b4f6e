"""A clean picture of the background, where a still camera has seen it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["BackgroundPlate", "PlateEvidence", "estimate_plate"]

#: A pixel must have been background this often, and in this share of the frames.
_MIN_COUNT, _MIN_SHARE = 3, 0.08
#: Grey levels: least noise assumed, and the noise above which a pixel is not a still background.
_NOISE_FLOOR, _NOISE_LIMIT = 3.0, 12.0
#: Darker and brighter than the plate by these factors may be a shadow or a reflection.
_SHADES = (0.55, 1.15)
#: Grey levels by which hair differs from a background guessed from nearby.
_FAR = 30.0
#: Share of the picture that must be sure background to judge by it alone.
_LEAST_SHOWN = 0.01
_UNSEEN = np.int16(1000)
#: Pixels of the background that a frame's exposure is matched on.
_GAIN_PIXELS = 4000


@dataclass(frozen=True)
class PlateEvidence:
    """How a frame differs from the plate, in units of its noise; NaN where it is unknown."""

    difference: NDArray[np.float32]
    """Distance of the colours, [h, w]."""
    chroma: NDArray[np.float32]
    """The same after the best change of brightness that a shadow could make, [h, w]."""
    background: NDArray[np.float32]
    """The plate under this frame's exposure, [h, w, 3]."""
    noise: NDArray[np.float32]
    """Standard deviation of the plate's colours in grey levels, [h, w]."""
    unseen_other: NDArray[np.bool_]
    """Where a still camera never saw the background, and the colour is far from the background
    nearby: hair or clothes, [h, w]."""


@dataclass(frozen=True)
class BackgroundPlate:
    """Median colour and noise of every pixel that was seen as background."""

    colour: NDArray[np.float32]
    """[h, w, 3], RGB in grey levels; where not ``known``, the nearest known colour."""
    noise: NDArray[np.float32]
    """Standard deviation (1.48 times the median deviation) in grey levels, [h, w]."""
    known: NDArray[np.bool_]
    """Where the plate may be trusted, [h, w]."""
    moving: NDArray[np.bool_]
    """Where something moved instead: seen often enough, but never the same, [h, w]."""

    def still(self, background: NDArray[np.bool_]) -> bool:
        """Whether the camera kept still, so that the plate tells background from person.

        It is judged on a frame's sure ``background`` [h, w]; where a head leaves hardly any, on all
        that was seen often enough: hair moves in some of that, but a moving camera moves it all.
        """
        shown = background if background.mean() > _LEAST_SHOWN else self.known | self.moving
        return bool(shown.any()) and float(self.known[shown].mean()) > 0.5

    @cached_property
    def _smooth(self) -> NDArray[Any]:
        return cv2.blur(self.colour, (3, 3))

    @cached_property
    def _scale(self) -> NDArray[np.float32]:
        """One over the noise; NaN where nothing is known."""
        return np.where(self.known, 1 / np.maximum(self.noise, _NOISE_FLOOR), np.nan).astype("f4")

    def compare(self, image: NDArray[np.uint8], background: NDArray[np.bool_]) -> PlateEvidence:
        """Compare a frame [h, w, 3]; its exposure is matched on the sure ``background``."""
        frame: NDArray[Any] = cv2.blur(image, (3, 3)).astype(np.float32)
        pixels = np.flatnonzero(self.known & background)
        gain = np.ones(3, np.float32)
        if len(pixels) > 200:
            some = pixels[:: max(1, len(pixels) // _GAIN_PIXELS)]
            shown = image.reshape(-1, 3)[some].astype(np.float32)
            ratio = (shown + 8) / (self.colour.reshape(-1, 3)[some] + 8)
            gain = np.clip(np.median(ratio, axis=0), 0.8, 1.25).astype(np.float32)
        plate = self._smooth * gain
        difference = _length(frame - plate) * self._scale
        power = _dot(plate, plate) + 1
        shade = np.clip(_dot(frame, plate) / power, *_SHADES)[..., None]
        rest = _length(frame - shade * plate)
        still = self.still(background)
        unseen_other = ~self.known & (rest > _FAR) if still else np.zeros(self.known.shape, bool)
        noise = np.maximum(self.noise, _NOISE_FLOOR)
        return PlateEvidence(
            difference, rest * self._scale, self.colour * gain, noise, unseen_other
        )


def estimate_plate(
    images: list[NDArray[np.uint8]],
    background: list[NDArray[np.bool_]],
    sure: list[NDArray[np.bool_]],
) -> BackgroundPlate:
    """Median over the frames in which a pixel is background.

    Args:
        images: frames [h, w, 3], RGB.
        background: where each of them is taken for background, [h, w].
        sure: where each of them surely is; the clip's own noise is measured there.

    Where the camera or the background moves, the noise is large and the plate stays unknown.
    """
    height, width = images[0].shape[:2]
    colour = np.zeros((height, width, 3), np.float32)
    noise = np.zeros((height, width), np.float32)
    seen_enough = np.zeros((height, width), bool)
    need = max(_MIN_COUNT, int(np.ceil(_MIN_SHARE * len(images))))
    for start in range(0, height, 32):
        rows = slice(start, min(start + 32, height))
        stack = np.stack([image[rows] for image in images]).astype(np.int16)
        seen = np.stack([mask[rows] for mask in background])
        count = seen.sum(0)
        median = _masked_median(stack, seen, count)
        spread = np.abs(stack - median.astype(np.int16)).max(-1, keepdims=True)
        deviation = 1.4826 * _masked_median(spread, seen, count)[..., 0]
        colour[rows], noise[rows] = median, deviation
        seen_enough[rows] = count >= need
    always = np.mean(sure, axis=0) > 0.5
    usual = float(np.median(noise[always])) if always.any() else _NOISE_FLOOR
    still = noise < np.clip(3 * usual, 6.0, _NOISE_LIMIT)
    return BackgroundPlate(
        _fill(colour, seen_enough & still), noise, seen_enough & still, seen_enough & ~still
    )


def _fill(colour: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Nearest known colour where none is known."""
    if not known.any():
        return colour
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(nearest.max()) + 1, 3), np.float32)
    table[nearest[known]] = colour[known]
    return table[nearest]


def _dot(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    return np.einsum("ijk,ijk->ij", a, b)


def _length(vectors: NDArray[Any]) -> NDArray[Any]:
    return np.sqrt(_dot(vectors, vectors))


def _masked_median(
    values: NDArray[np.int16], seen: NDArray[np.bool_], count: NDArray[Any]
) -> NDArray[np.float32]:
    """Median over axis 0 of ``values`` [n, ..., c] where ``seen`` [n, ...]."""
    ordered = np.sort(np.where(seen[..., None], values, _UNSEEN), axis=0)
    lower = np.maximum(count - 1, 0) // 2
    upper = np.maximum(count, 1) // 2
    upper = np.minimum(upper, np.maximum(count - 1, 0))
    pick = [np.take_along_axis(ordered, k[None, ..., None], 0)[0] for k in (lower, upper)]
    return ((pick[0].astype(np.float32) + pick[1]) / 2).astype(np.float32)
