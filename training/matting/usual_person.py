"""Where the person usually is round the head: hair that one frame hides in a like background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from cag_avatar_training.matting.seeds import Seeds
from numpy.typing import NDArray

__all__ = ["UsualPerson"]

#: Side of the map in samples, and how far it reaches from the head's middle, in heads.
_GRID, _REACH = 128, 1.8


@dataclass(frozen=True)
class UsualPerson:
    """Share of the frames in which a place beside the head was cut out as the person."""

    share: NDArray[np.float32]
    """In the head's frame: its middle in the centre, upright as the picture, [128, 128] in 0..1; 0
    where no frame's picture reaches."""

    @classmethod
    def of(cls, people: Sequence[NDArray[np.bool_]], seeds: Sequence[Seeds]) -> UsualPerson:
        """From the persons cut out of some frames, [h, w] each."""
        total, seen = np.zeros((2, _GRID, _GRID), np.float32)
        step = (np.arange(_GRID, dtype=np.float32) + 0.5) / _GRID * 2 * _REACH - _REACH
        for person, seed in zip(people, seeds, strict=True):
            x, y = (middle + step * seed.head_size for middle in seed.middle)
            # Pixel centres lie at whole numbers in OpenCV.
            for image, into in ((person, total), (np.ones_like(person), seen)):
                into += _sampled(image.astype(np.float32), x - 0.5, y - 0.5)
        return cls(np.where(seen > 0.5, total / np.maximum(seen, 0.5), 0).astype(np.float32))

    def at(self, seeds: Seeds, shape: tuple[int, int]) -> NDArray[np.float32]:
        """The share at every pixel of a frame, [h, w]; 0 beyond the map."""
        x, y = (
            ((np.arange(n) + 0.5 - middle) / seeds.head_size + _REACH) / (2 * _REACH) * _GRID - 0.5
            for n, middle in zip(shape[::-1], seeds.middle, strict=True)
        )
        return _sampled(self.share, x, y)


def _sampled(
    image: NDArray[np.float32], x: NDArray[np.floating], y: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Bilinear samples at all x of all y, [len(y), len(x)]; 0 outside."""
    across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return np.asarray(cv2.remap(image, across, down, cv2.INTER_LINEAR), np.float32)
