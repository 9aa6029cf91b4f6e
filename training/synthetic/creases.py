"""Expression creases: where the skin folds, and which coefficients fold it.

Two patterns of creases lie on the skin, visible only while a muscle pulls: pattern 0 holds forehead
lines, nasolabial folds, crow's feet and the lines across the bridge of the nose; pattern 1 holds
frown lines, the fold under the eye and the dimples. Coordinates are those of the mean rest head.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from cag_avatar_training.synthetic.noise import fractal_noise
from numpy.typing import NDArray

from cag_avatar.head_models import ARKIT_INDEX

__all__ = ["crease_amplitudes", "crease_heights"]

Array = NDArray[np.float32]

#: Nasolabial fold, x and y of the subject's left side, metres, from the nostril down.
_NASOLABIAL = np.array([(0.0195, -0.033), (0.0245, -0.044), (0.0295, -0.056), (0.0325, -0.069)])
#: Fold under the lower lid.
_UNDER_EYE = np.array([(0.012, -0.011), (0.020, -0.0165), (0.030, -0.0185), (0.041, -0.0145)])


def crease_heights(points: Array, seed: int) -> Array:
    """Height of both patterns at full strength, metres (negative in a crease), [N, 2]."""
    x, y, z = points.T
    side = np.abs(x)
    wobble = fractal_noise(points, 60, 2, seed)
    heights = np.zeros((len(points), 2), np.float32)
    front = z > -0.06

    forehead = np.zeros_like(x)
    for level, depth in ((0.0355, 0.5), (0.0435, 0.9), (0.0515, 1.0), (0.0590, 0.7)):
        line = level - 2.2 * x * x + 0.0022 * wobble
        forehead += depth * _ridge(y - line, 0.0017)
    forehead *= _fade(side, 0.034, 0.052) * _fade(-y, -0.033, -0.030) * front
    heights[:, 0] -= 0.0011 * forehead

    fold = _distance_to_curve(side, y, _NASOLABIAL)
    ends = _fade(-y, 0.069, 0.079) * _fade(y, -0.036, -0.029)
    heights[:, 0] -= 0.0011 * _ridge(fold, 0.0024) * ends * (z > -0.02)

    # Lines fan out from the outer corner of the eye; the surface turns away, so x alone is short.
    dx, dy = side - 0.0445 - 0.5 * np.minimum(z, 0), y - 0.001
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, np.maximum(dx, 1e-6))
    crow = np.zeros_like(x)
    for degrees in (-32, -10, 12, 34):
        crow += _ridge(radius * (angle - np.deg2rad(degrees) + 0.25 * wobble), 0.0013)
    crow *= _fade(-radius, -0.009, -0.005) * _fade(radius, 0.014, 0.022) * (dx > 0) * front
    heights[:, 0] -= 0.0007 * np.minimum(crow, 1)

    bridge = sum(_ridge(y - level - 1.5 * side**2, 0.0013) for level in (0.0005, 0.0055, -0.0045))
    heights[:, 0] -= 0.0006 * bridge * _fade(side, 0.007, 0.012) * (z > 0.005)

    frown = _ridge(side - 0.0065 - 0.1 * (y - 0.02) - 0.001 * wobble, 0.0015)
    frown *= _fade(y, 0.028, 0.036) * _fade(-y, -0.010, -0.004)
    heights[:, 1] -= 0.0012 * frown * front
    under = _distance_to_curve(side, y, _UNDER_EYE)
    heights[:, 1] -= 0.0007 * _ridge(under, 0.0016) * (z > -0.02)
    dimple = np.hypot(side - 0.0335, (y + 0.068) * 0.6)
    heights[:, 1] -= 0.0014 * _ridge(dimple, 0.0030) * (z > -0.03)
    return heights


def crease_amplitudes(points: Array) -> Array:
    """How much each coefficient deepens each pattern at each point, [52, N, 2], about 0 to 1."""
    x, y, _ = points.T
    left = 1 / (1 + np.exp(-x / 0.004))
    middle = np.exp(-((x / 0.028) ** 2))
    weights = np.zeros((len(ARKIT_INDEX), len(points), 2), np.float32)
    forehead = (y > 0.028).astype(np.float32)
    lower = (y < -0.024).astype(np.float32)
    bridge = ((np.abs(x) < 0.016) & (np.abs(y) < 0.014)).astype(np.float32)
    eyes = (1 - forehead) * (1 - lower) * (1 - bridge)
    frown = ((np.abs(x) < 0.0145) & (y > -0.004) & (y < 0.036)).astype(np.float32)
    below = (1 - frown) * (1 - lower)

    def add(name: str, pattern: int, values: NDArray[np.floating]) -> None:
        weights[ARKIT_INDEX[name], :, pattern] += values.astype(np.float32)

    add("browInnerUp", 0, forehead * (0.35 + 0.65 * middle))
    for name, half in (("Left", left), ("Right", 1 - left)):
        add(f"browOuterUp{name}", 0, 0.85 * forehead * half * (1.1 - middle))
        add(f"browDown{name}", 1, frown * half)
        add(f"browDown{name}", 0, 0.35 * bridge * half)
        add(f"noseSneer{name}", 0, (bridge + 0.6 * lower) * half)
        add(f"mouthSmile{name}", 0, (0.95 * lower + 0.55 * eyes) * half)
        add(f"mouthUpperUp{name}", 0, 0.45 * lower * half)
        add(f"cheekSquint{name}", 0, (0.35 * lower + 0.6 * eyes) * half)
        add(f"eyeSquint{name}", 0, 0.75 * eyes * half)
        add(f"eyeSquint{name}", 1, 0.8 * below * half)
        add(f"mouthSmile{name}", 1, 0.5 * below * half + 0.3 * lower * half)
        add(f"mouthDimple{name}", 1, lower * half)
    return weights


def _ridge(distance: NDArray[np.floating], width: float) -> NDArray[np.floating]:
    return np.exp(-((distance / width) ** 2))


def _fade(value: NDArray[np.floating], start: float, end: float) -> NDArray[np.floating]:
    """1 below ``start``, 0 above ``end``."""
    t = np.clip((end - value) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def _distance_to_curve(
    x: NDArray[np.floating], y: NDArray[np.floating], curve: NDArray[np.float64]
) -> NDArray[np.floating]:
    best = np.full(x.shape, np.inf, np.float32)
    for (ax, ay), (bx, by) in pairwise(curve):
        ux, uy = bx - ax, by - ay
        t = np.clip(((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy), 0, 1)
        best = np.minimum(best, np.hypot(x - ax - t * ux, y - ay - t * uy))
    return best
