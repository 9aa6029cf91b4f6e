"""The layers that painters fill, texel by texel, and the blends they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layers", "mix", "ramp"]

Array = NDArray[np.float32]


@dataclass
class Layers:
    """Surface properties of M texels; painters write into them in turn."""

    albedo: Array
    """sRGB in [0, 1], [M, 3]."""
    height: Array
    """Relief above the mesh, metres, [M]."""
    gloss: Array
    """Strength of the highlight, 0 to 1, [M]."""
    sharpness: Array
    """0 for a broad highlight, 1 for a mirror-like one, [M]."""

    @classmethod
    def blank(cls, count: int) -> Layers:
        """Mid-grey, flat and dull."""
        return cls(
            np.full((count, 3), 0.5, np.float32),
            np.zeros(count, np.float32),
            np.zeros(count, np.float32),
            np.zeros(count, np.float32),
        )

    def cover(
        self,
        where: NDArray[np.bool_] | NDArray[np.int64],
        colour: NDArray[np.floating] | tuple[float, float, float],
        amount: NDArray[np.floating] | float = 1.0,
    ) -> None:
        """Blend ``colour`` ([3] or one per texel) over the texels ``where`` by ``amount``."""
        self.albedo[where] = mix(self.albedo[where], np.asarray(colour, np.float32), amount)


def mix(
    a: NDArray[np.floating], b: NDArray[np.floating], amount: NDArray[np.floating] | float
) -> Array:
    """a + (b - a) amount, for colours [N, 3] and amounts [N] or a number."""
    t = np.asarray(amount, np.float32)
    return np.asarray(a + (b - a) * (t[:, None] if t.ndim == 1 else t), np.float32)


def ramp(value: NDArray[np.floating], low: float, high: float) -> Array:
    """Smooth step from 0 at ``low`` to 1 at ``high`` (``low`` may be the greater)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
