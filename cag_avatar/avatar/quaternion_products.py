"""Rotations by products with constant matrices: the algebra of geometry.py in a tenth of the steps.

On a GPU each step on a handful of numbers takes as long as one on thousands, and geometry.py writes
out every component. The same values up to rounding; no gradients are asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["QuaternionProducts"]

#: Hamilton's product: a_i b_j adds to component k with a sign.
_HAMILTON = (
    (0, 0, 0, 1), (0, 1, 1, 1), (0, 2, 2, 1), (0, 3, 3, 1),
    (1, 0, 1, 1), (1, 1, 0, -1), (1, 2, 3, 1), (1, 3, 2, -1),
    (2, 0, 2, 1), (2, 1, 3, -1), (2, 2, 0, -1), (2, 3, 1, 1),
    (3, 0, 3, 1), (3, 1, 2, 1), (3, 2, 1, -1), (3, 3, 0, -1),
)  # fmt: skip
#: Signs of w, x, y, z squared in the diagonal of a rotation matrix.
_DIAGONAL = ((1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1))
_CYCLIC = ((1, 2), (2, 0), (0, 1))


def _product_matrix() -> Tensor:
    """[16, 4]: products a_i b_j, row by row -> the quaternion a b."""
    matrix = torch.zeros(16, 4)
    for i, j, k, sign in _HAMILTON:
        matrix[4 * i + j, k] = sign
    return matrix


def _rotation_matrix() -> Tensor:
    """[16, 9]: products q_i q_j of a unit quaternion, row by row -> its rotation matrix."""
    matrix = torch.zeros(16, 9)
    for axis, signs in enumerate(_DIAGONAL):
        for i, sign in enumerate(signs):
            matrix[5 * i, 4 * axis] = sign
    for k, (a, b) in enumerate(_CYCLIC, start=1):
        i, j = a + 1, b + 1
        for row, column, sign in ((b, a, 1), (a, b, -1)):
            matrix[4 * i + j, 3 * row + column] = 2
            matrix[k, 3 * row + column] = 2 * sign
    return matrix


def _candidate_matrix() -> Tensor:
    """[10, 16]: a rotation matrix, row by row, and 1 -> 4 q_i q_j, row by row."""
    matrix = torch.zeros(10, 16)
    for i in range(4):
        matrix[9, 5 * i] = 1
        for axis, signs in enumerate(_DIAGONAL):
            matrix[4 * axis, 5 * i] = signs[i]
    for k, (a, b) in enumerate(_CYCLIC, start=1):
        i, j = a + 1, b + 1
        for row, column, sign in ((b, a, 1), (a, b, -1)):
            matrix[3 * row + column, k] = matrix[3 * row + column, 4 * k] = sign
            matrix[3 * row + column, 4 * i + j] = matrix[3 * row + column, 4 * j + i] = 1
    return matrix


class QuaternionProducts(nn.Module):
    """Quaternions are wxyz; all leading axes are free."""

    product: Tensor
    rotation: Tensor
    candidates: Tensor
    offset: Tensor
    diagonal: Tensor
    one: Tensor

    def __init__(self) -> None:
        super().__init__()
        candidates = _candidate_matrix()
        constants = {
            "product": _product_matrix(),
            "rotation": _rotation_matrix(),
            "candidates": candidates[:9].clone(),
            "offset": candidates[9].clone(),
            "diagonal": torch.arange(4) * 5,
            "one": torch.eye(4)[0].clone(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        """Quaternions a b [..., 4]: rotate by ``b`` first (geometry.quaternion_multiply())."""
        return (a[..., :, None] * b[..., None, :]).flatten(-2) @ self.product

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Unit quaternions [..., 4] of rotation matrices [..., 3, 3], of any sign
        (geometry.matrix_to_quaternion())."""
        flat = matrix.flatten(-2) @ self.candidates + self.offset
        best = flat[..., self.diagonal].argmax(-1)[..., None, None]
        rows = flat.unflatten(-1, (4, 4))
        chosen = rows.gather(-2, best.expand(*best.shape[:-1], 4))[..., 0, :]
        return nn.functional.normalize(chosen, dim=-1)

    def near_one(self, quaternion: Tensor) -> Tensor:
        """The same rotations with w >= 0."""
        return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)

    def matrix(self, quaternion: Tensor) -> Tensor:
        """Rotation matrices [..., 3, 3] of unit quaternions [..., 4]."""
        pairs = (quaternion[..., :, None] * quaternion[..., None, :]).flatten(-2)
        return (pairs @ self.rotation).unflatten(-1, (3, 3))

    def vector(self, quaternion: Tensor) -> Tensor:
        """Rotation vectors [..., 3], radians, of unit quaternions with w >= 0."""
        xyz = quaternion[..., 1:]
        norm = xyz.norm(dim=-1, keepdim=True)
        angle = 2 * torch.atan2(norm, quaternion[..., :1])
        # Below 1e-6 both shrink alike, and 2 is their ratio.
        return xyz * torch.where(norm < 1e-6, 2.0, angle / norm.clamp_min(1e-6))

    def halfway(self, quaternion: Tensor) -> Tensor:
        """Half way from no rotation to unit quaternions with w >= 0."""
        return nn.functional.normalize(quaternion + self.one, dim=-1)

    def of_vector(self, vector: Tensor) -> Tensor:
        """Unit quaternions [..., 4] of rotation vectors [..., 3], radians."""
        angle = vector.norm(dim=-1, keepdim=True) / 2
        # sinc(x) = sin(pi x) / (pi x)
        return torch.cat([angle.cos(), vector / 2 * torch.sinc(angle / torch.pi)], -1)
