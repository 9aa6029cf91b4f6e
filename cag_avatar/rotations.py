"""Single rotations in numpy, for live frames.

What scipy's Rotation does, quicker: it makes sure first that a matrix is a rotation, and importing
it takes a node a third of a second.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["rotation_matrix", "rotation_vector"]


def rotation_vector(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle (at most pi) of a rotation matrix [3, 3]: [3]."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    # Quaternion by its largest component (Shepperd 1978).
    trace = a + e + i
    if trace >= max(a, e, i):
        w, x, y, z = 1 + trace, h - f, c - g, d - b
    elif a >= max(e, i):
        w, x, y, z = h - f, 1 + 2 * a - trace, b + d, c + g
    elif e >= i:
        w, x, y, z = c - g, b + d, 1 + 2 * e - trace, f + h
    else:
        w, x, y, z = d - b, c + g, f + h, 1 + 2 * i - trace
    sine = math.sqrt(x * x + y * y + z * z)
    if sine == 0.0:
        return np.zeros(3)
    factor = 2 * math.atan2(sine, abs(w)) / sine * (1.0 if w >= 0 else -1.0)
    return np.array([x * factor, y * factor, z * factor])


def rotation_matrix(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation matrix [3, 3] of a rotation vector [3] (axis times angle), by Rodrigues' formula."""
    x, y, z = np.asarray(vector, np.float64).tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    a = math.sin(angle) / angle if angle > 1e-8 else 1.0
    b = (1.0 - math.cos(angle)) / angle**2 if angle > 1e-8 else 0.5
    c = math.cos(angle)
    return np.array(
        [
            [c + b * x * x, b * x * y - a * z, b * x * z + a * y],
            [b * x * y + a * z, c + b * y * y, b * y * z - a * x],
            [b * x * z - a * y, b * y * z + a * x, c + b * z * z],
        ]
    )
