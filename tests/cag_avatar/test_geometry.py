from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from cag_avatar.geometry import (
    matrix_to_quaternion,
    matrix_to_rotation_vector,
    midway_transform,
    quaternion_multiply,
    quaternion_to_matrix,
    rigid_transform,
    rotation_6d_derivative,
    rotation_6d_to_matrix,
    rotation_vector_to_matrix,
    transform_about,
)


@pytest.fixture
def vectors() -> torch.Tensor:
    """Rotation vectors of all angles up to half a turn; none, and half a turn about each axis."""
    random = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles = torch.linspace(1e-6, math.pi - 1e-4, 200, dtype=torch.float64)
    general = torch.nn.functional.normalize(random, dim=-1) * angles[:, None]
    axes = torch.eye(3, dtype=torch.float64) * math.pi
    return torch.cat([general, torch.zeros(1, 3, dtype=torch.float64), axes])


def scipy_matrices(vectors: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())


def test_rodrigues_agrees_with_scipy(vectors: torch.Tensor) -> None:
    torch.testing.assert_close(rotation_vector_to_matrix(vectors), scipy_matrices(vectors))


def test_rodrigues_has_a_gradient_at_zero() -> None:
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_vector_to_matrix, (zero,))


def test_quaternions_are_wxyz_and_agree_with_scipy_at_every_angle(vectors: torch.Tensor) -> None:
    matrices = scipy_matrices(vectors)
    found = matrix_to_quaternion(matrices)
    expected = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_quat())[:, [3, 0, 1, 2]]
    torch.testing.assert_close((found * expected).sum(-1).abs(), torch.ones(len(vectors)).double())
    torch.testing.assert_close(quaternion_to_matrix(found), matrices)
    torch.testing.assert_close(quaternion_to_matrix(-3 * found), matrices)


def test_quaternion_gradient_is_finite_at_half_a_turn() -> None:
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0])).requires_grad_()
    matrix_to_quaternion(half_turn).sum().backward()
    assert half_turn.grad is not None
    assert torch.isfinite(half_turn.grad).all()


def test_rotation_vectors_come_back(vectors: torch.Tensor) -> None:
    general = vectors[:-3]  # at half a turn the sign of the axis is free
    back = matrix_to_rotation_vector(rotation_vector_to_matrix(general))
    torch.testing.assert_close(back, general, atol=1e-6, rtol=0)
    assert (back.norm(dim=-1) <= math.pi + 1e-9).all()


def test_quaternion_product_rotates_by_the_second_first(vectors: torch.Tensor) -> None:
    a, b = scipy_matrices(vectors), scipy_matrices(vectors.flip(0))
    product = quaternion_multiply(matrix_to_quaternion(a), matrix_to_quaternion(b))
    torch.testing.assert_close(quaternion_to_matrix(product), a @ b)


def test_transform_about_leaves_the_centre() -> None:
    vector, centre = torch.tensor([[0.3, -0.2, 0.5]]), torch.tensor([1.0, 2.0, 3.0])
    transform = transform_about(vector, centre)[0]
    torch.testing.assert_close(transform[:3, :3] @ centre + transform[:3, 3], centre)
    torch.testing.assert_close(transform[:3, :3], rotation_vector_to_matrix(vector[0]))
    torch.testing.assert_close(transform[3], torch.tensor([0.0, 0.0, 0.0, 1.0]))


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_midway_halves_the_turn_and_the_path_of_the_pivot(flip: float) -> None:
    """Also across the quaternions' change of sign: the shorter way is taken."""
    pivot = torch.tensor([0.0, -0.1, -0.05], dtype=torch.float64)
    base = rotation_vector_to_matrix(torch.tensor([flip * (math.pi - 0.1), 0.0, 0.0]).double())
    turn = torch.tensor([0.0, 0.0, 0.4], dtype=torch.float64)
    first = rigid_transform(base, torch.tensor([0.1, 0.2, 0.6]).double())
    second = rigid_transform(
        rotation_vector_to_matrix(turn) @ base, torch.tensor([0.2, 0.1, 0.7]).double()
    )
    half = midway_transform(first, second, pivot)
    torch.testing.assert_close(half[:3, :3], rotation_vector_to_matrix(0.5 * turn) @ base)

    def image(transform: torch.Tensor) -> torch.Tensor:
        return transform[:3, :3] @ pivot + transform[:3, 3]

    torch.testing.assert_close(image(half), 0.5 * (image(first) + image(second)))
    torch.testing.assert_close(midway_transform(second, first, pivot), half)


def test_the_derivative_of_six_numbers_is_that_of_autograd() -> None:
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    found = rotation_6d_derivative(values)
    for one, derivative in zip(values, found, strict=True):
        expected = torch.autograd.functional.jacobian(rotation_6d_to_matrix, one)
        torch.testing.assert_close(derivative, expected.permute(2, 0, 1))
