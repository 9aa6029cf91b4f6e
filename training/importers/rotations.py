"""The ways in which the formats write a rotation, as matrices."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.geometry import rotation_6d_to_matrix, rotation_vector_to_matrix

__all__ = ["from_rotation_6d", "from_rotation_vector"]


def from_rotation_6d(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first two *rows* of a matrix, [..., 6] -> [..., 3, 3], as PyTorch3D writes them."""
    return np.asarray(rotation_6d_to_matrix(torch.from_numpy(np.array(values))).numpy())


def from_rotation_vector(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle in radians, [..., 3] -> [..., 3, 3]."""
    return np.asarray(rotation_vector_to_matrix(torch.from_numpy(np.array(values))).numpy())
