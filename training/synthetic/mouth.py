"""Teeth drawn one by one on the strips of the head model, gums, tongue and the mouth's lining."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.synthetic.identity import Traits
from cag_avatar_training.synthetic.noise import fractal_noise
from cag_avatar_training.synthetic.paint import Layers, mix, ramp
from numpy.typing import NDArray

__all__ = ["arch_normals", "paint_lining", "paint_teeth", "paint_tongue"]

Array = NDArray[np.float32]

#: Widths and crown heights from the middle outward (incisors, canine, premolars, molars), metres.
_UPPER = ((8.8, 10.4), (6.9, 9.2), (7.6, 10.0), (7.0, 8.4), (6.8, 7.6), (9.6, 7.0), (9.2, 6.6))
_LOWER = ((5.6, 8.8), (6.1, 8.8), (6.9, 9.6), (7.0, 8.4), (7.0, 7.6), (10.2, 7.0), (9.8, 6.6))

#: Outer face of the dental arch of the mean head seen from below: |x| and z, metres.
_ARCH = np.array(
    [(0, 190), (88, 188), (176, 142), (223, 73), (259, 2), (291, -78), (302, -140), (333, -267)]
) * np.array([1e-4, 1e-4])


def paint_teeth(
    layers: Layers,
    where: NDArray[np.int64],
    points: Array,
    traits: Traits,
    upper: bool,
    seed: int,
) -> None:
    """Crowns with gaps, rounded corners and scalloped gums on one strip (``upper`` or lower)."""
    x, y, _ = points.T
    s = _arc_length(points)
    edge = -0.0662 + 0.080 * s if upper else -0.0669 + 0.093 * s
    rise = (y - edge) if upper else (edge - y)  # from the biting edge towards the gum
    teeth = np.array(_UPPER if upper else _LOWER) * 1e-3
    ends = np.concatenate([[0.0], np.cumsum(teeth[:, 0])])
    tooth = np.clip(np.searchsorted(ends, s, side="right") - 1, 0, len(teeth) - 1)
    width, crown = teeth[tooth].T
    q = np.clip((s - ends[tooth]) / width, 0, 1) * 2 - 1  # -1 .. 1 across the tooth
    gap = (1 - np.abs(q)) * width / 2
    rng = np.random.default_rng(seed)
    tone = rng.normal(0, 0.018, (2, len(teeth)))[(x > 0).astype(int), tooth]

    enamel = np.tile(np.asarray(traits.teeth, np.float32), (len(points), 1))
    enamel *= (1 + tone - 0.035 * (tooth == 2) - 0.02 * tooth)[:, None]
    enamel = mix(
        enamel, enamel * np.array([0.97, 0.90, 0.76], np.float32), ramp(rise, 0.003, 0.010)
    )
    grey = np.array([0.80, 0.82, 0.86], np.float32)
    enamel = mix(enamel, enamel * grey, 0.6 * ramp(rise, 0.0022, 0.0004))
    enamel *= (1 + 0.03 * fractal_noise(points, 300, 2, seed))[:, None]

    gum_line = crown - 0.0017 * q * q
    gum = ramp(rise, -0.0004, 0.0004 + 1e-6) * ramp(rise - gum_line, -0.0003, 0.0005)
    pink = np.array([0.70, 0.40, 0.38], np.float32) * (1.05 - 0.35 * traits.darkness)
    pink = pink * (1 + 0.08 * fractal_noise(points, 250, 2, seed + 1))[:, None]
    # The gap opens towards the biting edge, where the corners are round.
    opening = 0.00020 + 0.0007 * np.clip(1 - rise / 0.0022, 0, 1) ** 2
    dark = ramp(gap, opening + 0.0005, opening) * (1 - gum)  # type: ignore[arg-type]
    round_edge = 0.0004 + 0.0009 * np.abs(q) ** 4
    dark = np.maximum(dark, ramp(rise - round_edge, 0.0003, -0.0004))
    inner = ramp(_depth_behind_arch(points), 0.002, 0.004)

    colour = mix(enamel, pink, gum)
    colour = mix(colour, np.array([0.16, 0.07, 0.06], np.float32), 0.80 * dark)
    colour = mix(colour, np.array([0.52, 0.27, 0.26], np.float32), inner)
    colour *= (1 - 0.55 * ramp(s, 0.018, 0.050))[:, None]  # the cheeks shade the molars
    layers.albedo[where] = np.clip(colour, 0, 1)
    bulge = np.sqrt(np.clip(1 - q * q, 0, 1)) * (1 - gum)
    layers.height[where] = 0.0009 * bulge + 0.0005 * gum
    layers.gloss[where] = 0.75 * (1 - inner)
    layers.sharpness[where] = 0.62


def paint_tongue(layers: Layers, where: NDArray[np.int64], points: Array, seed: int) -> None:
    """A moist tongue with papillae and a groove, darker towards the throat."""
    x, _, z = points.T
    grain = fractal_noise(points, 500, 2, seed)
    colour = np.array([0.66, 0.34, 0.34], np.float32) * (1 + 0.12 * grain)[:, None]
    colour *= (1 - 0.25 * np.exp(-((x / 0.0016) ** 2)))[:, None]
    colour *= (0.25 + 0.75 * ramp(z, -0.03, 0.010))[:, None]
    layers.albedo[where] = np.clip(colour, 0, 1)
    layers.height[where] = 0.0002 * grain
    layers.gloss[where] = 0.35
    layers.sharpness[where] = 0.4


def paint_lining(layers: Layers, where: NDArray[np.int64], points: Array) -> None:
    """The inside of lips and cheeks: red in front, nearly black at the back."""
    depth = ramp(points[:, 2], -0.005, 0.026)
    front, back = np.array([0.50, 0.22, 0.21], np.float32), np.array([0.07, 0.02, 0.02], np.float32)
    layers.albedo[where] = mix(np.tile(back, (len(points), 1)), front, depth)
    layers.gloss[where] = 0.15 * depth
    layers.sharpness[where] = 0.4


def arch_normals(points: Array) -> Array:
    """Outward directions of the dental arch at points of the mean rest head, [N, 3] unit."""
    x, _, z = points.T
    normal = np.stack([x / 0.034**2, np.zeros_like(x), (z + 0.028) / 0.048**2], 1)
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True), np.float32)


def _arc_length(points: Array) -> Array:
    """Distance from the middle along the outer arch, metres, [N]."""
    steps = np.linalg.norm(np.diff(_ARCH, axis=0), axis=1)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    angle = np.arctan2(_ARCH[:, 0], _ARCH[:, 1] + 0.03)
    own = np.arctan2(np.abs(points[:, 0]), points[:, 2] + 0.03)
    return np.asarray(np.interp(own, angle, length), np.float32)


def _depth_behind_arch(points: Array) -> Array:
    """How far a point lies inside the outer arch, metres, [N]."""
    angle = np.arctan2(_ARCH[:, 0], _ARCH[:, 1] + 0.03)
    radius = np.hypot(_ARCH[:, 0], _ARCH[:, 1] + 0.03)
    own = np.arctan2(np.abs(points[:, 0]), points[:, 2] + 0.03)
    return np.asarray(
        np.interp(own, angle, radius) - np.hypot(points[:, 0], points[:, 2] + 0.03), np.float32
    )
