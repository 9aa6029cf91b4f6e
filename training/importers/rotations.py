"""The ways in which the formats write a rotation, as matrices."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.geometry import rotation_vector_to_matrix

__all__ = ["from_rotation_6d", "from_rotation_vector"]


def from_rotation_6d(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first two *rows* of a matrix, [..., 6] -> [..., 3, 3] (Zhou et al. 2019, by PyTorch3D).

    The rows need not be orthonormal: Gram-Schmidt makes them so.
    """
    first, second = values[..., :3], values[..., 3:]
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    y = second - (x * second).sum(-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -2)


def from_rotation_vector(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle in radians, [..., 3] -> [..., 3, 3]."""
    return np.asarray(rotation_vector_to_matrix(torch.from_numpy(np.array(values))).numpy())
