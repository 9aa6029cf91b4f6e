"""Irises and whites of the eyes."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.synthetic.identity import Traits
from cag_avatar_training.synthetic.noise import fractal_noise
from cag_avatar_training.synthetic.paint import Layers, mix, ramp
from numpy.typing import NDArray

__all__ = ["IRIS_SINE", "paint_eye"]

#: Sine of the angle that the iris spans at the centre of the eyeball (an iris of 12 mm).
IRIS_SINE = 0.425


def paint_eye(
    layers: Layers,
    where: NDArray[np.int64],
    points: NDArray[np.float32],
    centre: NDArray[np.float32],
    traits: Traits,
    seed: int,
) -> None:
    """Pupil, fibres, limbal ring and a white with faint veins; the optical axis is +z."""
    d = points - centre
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    radius = np.where(d[:, 2] > 0, np.hypot(d[:, 0], d[:, 1]), 2.0) / IRIS_SINE
    angle = np.arctan2(d[:, 1], d[:, 0])
    ring = np.stack([np.cos(angle), np.sin(angle), 0.12 * radius], 1).astype(np.float32)
    fibres = fractal_noise(ring, 9, 3, seed)

    white = np.array([0.92, 0.90, 0.88], np.float32) * (1 - 0.12 * traits.darkness)
    far = ramp(np.abs(d[:, 0]), 0.40, 0.80)
    veins = ramp(1 - np.abs(fractal_noise(d, 7, 3, seed + 1)) * 6, 0.55, 1.0) * far
    colour = mix(
        np.tile(white, (len(d), 1)), white * np.array([0.96, 0.80, 0.78], np.float32), 0.55 * far
    )
    colour = mix(colour, np.array([0.80, 0.42, 0.40], np.float32), 0.35 * veins)

    iris = np.asarray(traits.iris, np.float32) * (1.05 + 0.55 * fibres)[:, None]
    warm = np.array([1.30, 1.10, 0.78], np.float32)
    iris = mix(iris, iris * warm, 0.7 * ramp(radius, traits.pupil + 0.32, traits.pupil + 0.05))
    iris *= (1 - 0.62 * ramp(radius, 0.76, 0.98))[:, None]  # limbal ring
    iris = mix(
        iris,
        np.array([0.015, 0.012, 0.012], np.float32),
        ramp(radius, traits.pupil + 0.05, traits.pupil - 0.03),
    )
    colour = mix(colour, iris, ramp(radius, 1.05, 0.95))
    layers.albedo[where] = np.clip(colour, 0, 1)
    layers.height[where] = 0.0011 * np.sqrt(np.clip(1.15 - radius**2, 0, None))  # the cornea
    layers.gloss[where] = 1.0
    layers.sharpness[where] = 0.93
