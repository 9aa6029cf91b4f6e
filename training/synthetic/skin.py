"""Skin, brows, lids and lips in the coordinates of the mean rest head."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.synthetic.identity import Traits
from cag_avatar_training.synthetic.noise import fractal_noise
from cag_avatar_training.synthetic.paint import Layers, mix, ramp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["lip_mask", "paint_brows", "paint_lids", "paint_lips", "paint_skin"]

Array = NDArray[np.float32]

#: Half width of the mouth and height of its line, metres.
_MOUTH_HALF, _MOUTH_LINE = 0.0240, -0.0668

#: Height of the brow's middle from its inner to its outer end, metres.
_BROW = (0.0186, 0.0190, 0.0208, 0.0220, 0.0182, 0.0160)


def paint_skin(
    layers: Layers, where: NDArray[np.int64], points: Array, traits: Traits, seed: int
) -> None:
    """Complexion, freckles, moles, stubble and pores on the texels ``where`` at ``points``."""
    rng = np.random.default_rng(seed)
    x, y, z = points.T
    side = np.abs(x)
    base = np.asarray(traits.skin, np.float32)
    colour = np.tile(base, (len(points), 1))

    broad = fractal_noise(points, 22, 3, seed)
    fine = fractal_noise(points, 260, 3, seed + 1)
    colour *= (1 + 0.07 * broad + 0.045 * fine)[:, None]
    red = np.array([1.03, 0.86, 0.84], np.float32)
    flush = (
        0.75 * np.exp(-(((side - 0.036) / 0.017) ** 2) - ((y + 0.038) / 0.016) ** 2) * (z > -0.03)
    )
    flush += 0.8 * np.exp(-((x / 0.014) ** 2) - ((y + 0.036) / 0.012) ** 2) * (z > 0.015)
    flush += 0.35 * np.exp(-((x / 0.02) ** 2) - ((y + 0.103) / 0.012) ** 2)
    flush += 0.5 * (side > 0.072) * (y > -0.05) * (z > -0.1)  # ears
    flush = np.clip(flush * (0.8 + 0.5 * broad), 0, 1)
    colour = mix(colour, colour * red, flush)
    shade = np.array([0.84, 0.76, 0.78], np.float32)
    hollow = np.exp(-(((side - 0.026) / 0.016) ** 2) - ((y + 0.013) / 0.0065) ** 2)
    hollow += 0.8 * np.exp(-(((side - 0.028) / 0.018) ** 2) - ((y - 0.009) / 0.007) ** 2)
    colour = mix(colour, colour * shade, np.clip(0.75 * hollow * (z > -0.02), 0, 1))

    spots = fractal_noise(points, 420, 1, seed + 2)
    cheek = np.exp(-(((side - 0.022) / 0.026) ** 2) - ((y + 0.03) / 0.022) ** 2) + 0.12
    freckle = 0.8 * ramp(spots, 0.48, 0.80) * np.clip(cheek, 0, 1) * traits.freckles
    colour = mix(colour, colour * np.array([0.74, 0.60, 0.50], np.float32), freckle * (y > -0.2))
    face = np.flatnonzero((z > -0.04) & (y > -0.11) & (y < 0.07))
    if len(face):
        for mole in rng.choice(face, traits.moles):
            distance = np.linalg.norm(points - points[mole], axis=1)
            size = rng.uniform(0.0007, 0.0015)
            colour = mix(
                colour, base * np.float32(0.35), 0.85 * ramp(distance, size * 1.5, size * 0.6)
            )

    beard = ramp(y, -0.043, -0.058) * ramp(y, -0.150, -0.120) * ramp(z, -0.075, -0.05)
    beard *= 1 - 0.8 * np.exp(-(((side - 0.04) / 0.014) ** 2) - ((y + 0.055) / 0.010) ** 2)
    grain = 0.72 + 0.34 * fractal_noise(points, 900, 1, seed + 3)
    stubble = np.clip(beard * grain * (0.9 + 0.4 * broad), 0, 1) * 0.42 * traits.stubble
    colour = mix(colour, np.asarray(traits.hair, np.float32) * 0.8, stubble)

    layers.albedo[where] = np.clip(colour, 0, 1)
    layers.height[where] = 0.00010 * fine + 0.00006 * spots
    oily = np.exp(-((x / 0.02) ** 2)) * (y > -0.05) + np.exp(-(((side - 0.035) / 0.015) ** 2))
    layers.gloss[where] = 0.26 + 0.16 * np.clip(oily, 0, 1) * (z > -0.02) + 0.06 * fine
    layers.sharpness[where] = 0.22


def paint_brows(
    layers: Layers,
    where: NDArray[np.int64],
    points: Array,
    traits: Traits,
    streaks: NDArray[np.float32],
) -> None:
    """Brow hairs as strokes that stand up at the inner end and lie outward at the outer end."""
    x, y, z = points.T
    side = np.abs(x)
    s = np.clip((side - 0.0095) / 0.0385, -0.15, 1.15)
    centre = np.interp(s, [-0.15, 0, 0.35, 0.65, 1, 1.15], _BROW)
    half = (0.0034 - 0.0019 * s) * traits.brow_thickness
    t = (y - centre) / np.maximum(half, 1e-4)
    angle = np.deg2rad(68 - 52 * np.clip(s * 1.4, 0, 1) - 16 * t * (t > 0))
    across = -(side * 0.8) * np.sin(angle) + (y - centre) * np.cos(angle)
    along = side * np.cos(angle) + (y - centre) * np.sin(angle)
    size = len(streaks)
    row = np.floor(across * 9000 + 3).astype(np.int64) % size
    column = np.floor(along * 1500 + 40 * (x > 0)).astype(np.int64) % size
    stroke = streaks[row, column]
    body = ramp(np.abs(t), 1.35, 0.45) * ramp(s, -0.06, 0.14) * ramp(s, 1.06, 0.80)
    density = np.clip(body * 1.25 + (stroke - 0.5) * 1.3 * (body > 0.03), 0, 1) * (z > -0.03)
    density *= 0.62 + 0.45 * stroke
    layers.cover(where, traits.brows, np.clip(0.92 * density, 0, 0.95))
    layers.height[where] += 0.0004 * density * stroke
    layers.gloss[where] *= 1 - 0.6 * density


def paint_lids(
    layers: Layers,
    where: NDArray[np.int64],
    points: Array,
    margins: tuple[NDArray[np.floating], NDArray[np.floating]],
    traits: Traits,
) -> None:
    """A dark line of lashes along the upper lid margin, a moist rim along the lower one.

    ``margins`` are points of the upper and of the lower lid margins, [N, 3] and [M, 3].
    """
    near = np.flatnonzero((np.abs(points[:, 1]) < 0.025) & (points[:, 2] > -0.02))
    upper = cKDTree(margins[0]).query(points[near])[0]
    lower = cKDTree(margins[1]).query(points[near])[0]
    dark = np.asarray(traits.brows, np.float32) * 0.35
    rim = np.asarray(traits.skin, np.float32) * np.array([0.92, 0.66, 0.64], np.float32)
    layers.cover(where[near], rim, 0.7 * ramp(lower, 0.0022, 0.0008))
    layers.cover(where[near], dark, 0.35 * ramp(lower, 0.0016, 0.0005))
    layers.cover(where[near], dark, 0.88 * ramp(upper, 0.0019, 0.0007))


def lip_mask(points: Array) -> Array:
    """1 on the red of the lips, 0 on the skin, soft over about a millimetre, [N] float32."""
    x, y, z = points.T
    u = np.clip(np.abs(x) / _MOUTH_HALF, 0, 1)
    arch = np.sqrt(np.clip(1 - u**2.2, 0, 1))
    bow = 0.0012 * np.exp(-((u / 0.12) ** 2))
    top = _MOUTH_LINE + 0.0108 * arch * (1 - 0.25 * u) - bow
    bottom = _MOUTH_LINE - 0.0122 * arch
    inside = np.minimum(top - y, y - bottom)
    ends = ramp(np.abs(x), _MOUTH_HALF + 0.0008, _MOUTH_HALF - 0.0012)
    return ramp(inside, -0.0007, 0.0009) * ends * (z > 0.008)


def paint_lips(
    layers: Layers, where: NDArray[np.int64], points: Array, traits: Traits, seed: int
) -> None:
    """Red of the lips with fine vertical furrows."""
    mask = lip_mask(points)
    part = np.flatnonzero(mask > 0)
    p, amount = points[part], mask[part]
    furrow = fractal_noise(p * np.array([1, 0.18, 0.3], np.float32), 620, 2, seed)
    tint = fractal_noise(p, 110, 2, seed + 1)
    colour = np.asarray(traits.lips, np.float32) * (1 + 0.09 * furrow + 0.06 * tint)[:, None]
    inner = ramp(np.abs(p[:, 1] - _MOUTH_LINE), 0.004, 0.0005)
    colour = mix(colour, colour * np.array([0.80, 0.62, 0.64], np.float32), 0.7 * inner)
    layers.cover(where[part], colour, 0.86 * amount)
    layers.height[where[part]] += amount * (0.00016 * furrow + 0.0003)
    layers.gloss[where[part]] += amount * 0.30
    layers.sharpness[where[part]] += amount * 0.18
