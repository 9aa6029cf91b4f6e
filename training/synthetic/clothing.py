"""A round-necked shirt painted on the shoulders."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.synthetic.identity import Traits
from cag_avatar_training.synthetic.noise import fractal_noise
from cag_avatar_training.synthetic.paint import Layers, ramp
from numpy.typing import NDArray

__all__ = ["paint_shirt"]


def paint_shirt(
    layers: Layers,
    where: NDArray[np.int64],
    points: NDArray[np.float32],
    traits: Traits,
    seed: int,
) -> None:
    """Knitted cloth below a collar that runs from the nape to the pit of the neck."""
    _, y, z = points.T
    collar = -0.170 - 0.40 * z
    below = collar - y
    amount = ramp(below, -0.0004, 0.0008)
    part = np.flatnonzero(amount > 0)
    p, below, amount = points[part], below[part], amount[part]
    weave = fractal_noise(p * np.array([1, 0.5, 1], np.float32), 900, 1, seed)
    folds = fractal_noise(p, 26, 3, seed + 1)
    colour = np.asarray(traits.cloth, np.float32) * (1 + 0.10 * weave + 0.08 * folds)[:, None]
    band = ramp(below, 0.015, 0.0135)
    seam = np.exp(-(((below - 0.0145) / 0.0009) ** 2))
    ribs = 0.5 + 0.5 * np.sin(np.arctan2(p[:, 0], p[:, 2] + 0.09) * 190)
    colour *= (1 - 0.16 * band * ribs - 0.35 * seam - 0.06 * band)[:, None]
    layers.cover(where[part], np.clip(colour, 0, 1), amount)
    layers.height[where[part]] = amount * (
        0.0028 * ramp(below, -0.001, 0.003)
        + 0.0045 * folds * ramp(below, 0.012, 0.03)
        + 0.0008 * band
        + 0.00012 * weave
    )
    layers.gloss[where[part]] *= 1 - amount
    layers.sharpness[where[part]] *= 1 - amount
