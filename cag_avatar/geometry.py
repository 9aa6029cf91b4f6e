"""Rotations and rigid transforms, batched and differentiable.

Rotation vectors are axis times angle in radians; quaternions are wxyz; transforms are 4 x 4 and act
on column vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "matrix_to_quaternion",
    "matrix_to_rotation_6d",
    "matrix_to_rotation_vector",
    "midway_transform",
    "quaternion_multiply",
    "quaternion_to_matrix",
    "rigid_transform",
    "rotation_6d_derivative",
    "rotation_6d_to_matrix",
    "rotation_vector_to_matrix",
    "transform_about",
]


def rotation_vector_to_matrix(vector: Tensor) -> Tensor:
    """Rodrigues' formula: [..., 3] -> [..., 3, 3]; smooth and differentiable at zero."""
    square = (vector * vector).sum(-1)[..., None, None]
    small = square < 1e-8
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    a = torch.where(small, 1 - square / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - square / 24, (1 - torch.cos(angle)) / safe)
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return eye + a * cross + b * (cross @ cross)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """wxyz [..., 4] (normalised here) -> rotation matrix [..., 3, 3]."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of wxyz quaternions [..., 4]: rotate by ``b`` first, then by ``a``."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Rotation matrix [..., 3, 3] -> unit quaternion wxyz [..., 4]; valid at every angle.

    Of the four ways to divide, each element takes the one with the largest denominator
    (Shepperd, 1978), so neither the value nor its gradient blows up at half a turn.
    """
    m = matrix
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack(
        [1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], -1
    )
    wx, wy, wz = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    candidates = torch.stack(
        [
            torch.stack([squares[..., 0], wx, wy, wz], -1),
            torch.stack([wx, squares[..., 1], xy, xz], -1),
            torch.stack([wy, xy, squares[..., 2], yz], -1),
            torch.stack([wz, xz, yz, squares[..., 3]], -1),
        ],
        -2,
    )
    best = squares.detach().argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    return torch.nn.functional.normalize(torch.gather(candidates, -2, best)[..., 0, :], dim=-1)


def matrix_to_rotation_vector(matrix: Tensor) -> Tensor:
    """Rotation matrix [..., 3, 3] -> rotation vector [..., 3], angle in [0, pi]."""
    quaternion = matrix_to_quaternion(matrix)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    norm = xyz.norm(dim=-1, keepdim=True)
    small = norm < 1e-6
    safe = torch.where(small, torch.ones_like(norm), norm)
    return xyz * torch.where(small, 2.0 * torch.ones_like(norm), 2 * torch.atan2(norm, w) / safe)


def rotation_6d_to_matrix(values: Tensor) -> Tensor:
    """Six numbers [..., 6] -> rotation matrix [..., 3, 3] by Gram-Schmidt (Zhou et al., 2019).

    The numbers are the first two *rows* of the matrix, as in PyTorch3D and metrical-tracker; they
    need be neither unit nor orthogonal.
    """
    first, second = values[..., :3], values[..., 3:]
    a = torch.nn.functional.normalize(first, dim=-1)
    b = torch.nn.functional.normalize(second - (a * second).sum(-1, keepdim=True) * a, dim=-1)
    return torch.stack([a, b, torch.linalg.cross(a, b)], -2)


def rotation_6d_derivative(values: Tensor) -> Tensor:
    """Derivative of :func:`rotation_6d_to_matrix` by each of the six numbers: [..., 6, 3, 3].

    In closed form: forward-mode differentiation cannot be used from several threads at once.
    """
    first, second = values[..., None, :3], values[..., None, 3:]
    length = first.norm(dim=-1, keepdim=True)
    a = first / length
    along = (a * second).sum(-1, keepdim=True)
    rest = second - along * a
    width = rest.norm(dim=-1, keepdim=True)
    b = rest / width
    unit = torch.eye(6, dtype=values.dtype, device=values.device)
    by_first, by_second = unit[:, :3], unit[:, 3:]
    da = (by_first - (a * by_first).sum(-1, keepdim=True) * a) / length
    turned = (da * second + a * by_second).sum(-1, keepdim=True)
    drest = by_second - turned * a - along * da
    db = (drest - (b * drest).sum(-1, keepdim=True) * b) / width
    dc = torch.linalg.cross(da, b.expand_as(da)) + torch.linalg.cross(a.expand_as(db), db)
    return torch.stack([da, db, dc], -2)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """First two rows of a rotation matrix [..., 3, 3] -> [..., 6]."""
    return matrix[..., :2, :].flatten(-2)


def rigid_transform(rotation: Tensor, translation: Tensor) -> Tensor:
    """Rotation [..., 3, 3] and translation [..., 3] -> transform [..., 4, 4]."""
    top = torch.cat([rotation, translation[..., None]], -1)
    # Made where the others are: numbers from the host would make a GPU wait.
    last = torch.eye(4, dtype=top.dtype, device=top.device)[3].expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, last], -2)


def transform_about(vector: Tensor, centre: Tensor) -> Tensor:
    """Rotation by a rotation vector [..., 3] about points [..., 3] -> transform [..., 4, 4]."""
    rotation = rotation_vector_to_matrix(vector)
    return rigid_transform(rotation, centre - (rotation @ centre[..., None])[..., 0])


def midway_transform(first: Tensor, second: Tensor, pivot: Tensor) -> Tensor:
    """The rigid transform halfway between two [..., 4, 4].

    The rotation is the normalised mean of the quaternions (half way along the geodesic); the image
    of ``pivot`` [3] is the mean of its two images.
    """
    both = torch.stack([first, second])
    qa, qb = matrix_to_quaternion(both[..., :3, :3])
    same = (qa * qb).sum(-1, keepdim=True) >= 0
    rotation = quaternion_to_matrix(qa + torch.where(same, qb, -qb))
    point = (both[..., :3, :3] @ pivot + both[..., :3, 3]).mean(0)
    return rigid_transform(rotation, point - rotation @ pivot)
