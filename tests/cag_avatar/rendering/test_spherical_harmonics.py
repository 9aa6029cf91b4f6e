from __future__ import annotations

import math

import pytest
import torch

from cag_avatar.rendering.spherical_harmonics import (
    num_coefficients,
    spherical_harmonics_basis,
    spherical_harmonics_color,
)


def directions(n: int = 50) -> torch.Tensor:
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_equals_gsplat(degree: int) -> None:
    oracle = pytest.importorskip("gsplat.cuda._torch_impl")
    generator = torch.Generator().manual_seed(degree)
    coefficients = torch.randn(50, 16, 3, dtype=torch.float64, generator=generator)
    expected = (oracle._spherical_harmonics(degree, directions(), coefficients) + 0.5).clamp(min=0)
    actual = spherical_harmonics_color(coefficients, directions(), degree)
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)
    assert (expected == 0).any(), "the clamp is not exercised"


def test_basis_is_orthonormal() -> None:
    # Gauss-Legendre in z times a regular grid in azimuth integrates degree 6 exactly.
    z, weight = (torch.from_numpy(a) for a in __import__("numpy").polynomial.legendre.leggauss(8))
    phi = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    r = (1 - z * z).sqrt()
    grid = torch.stack(
        [r[:, None] * phi.cos(), r[:, None] * phi.sin(), z[:, None].expand(8, 16)], -1
    )
    basis = spherical_harmonics_basis(3, grid.reshape(-1, 3))
    area = (weight[:, None] * torch.full((16,), 2 * math.pi / 16)).reshape(-1, 1)
    torch.testing.assert_close(basis.T @ (area * basis), torch.eye(16, dtype=torch.float64))


def test_degree_0_is_constant_plus_half() -> None:
    coefficients = torch.full((3, 1, 3), 0.3)
    color = spherical_harmonics_color(coefficients, torch.randn(3, 3))
    torch.testing.assert_close(color, torch.full((3, 3), 0.5 + 0.3 * 0.28209479177387814))


def test_length_of_direction_does_not_matter_and_default_degree() -> None:
    coefficients = torch.randn(50, 9, 3, dtype=torch.float64)
    near = spherical_harmonics_color(coefficients, directions())
    far = spherical_harmonics_color(coefficients, 7 * directions(), 2)
    torch.testing.assert_close(near, far)


def test_gradients() -> None:
    coefficients = 0.1 * torch.randn(4, 16, 3, dtype=torch.float64)
    arguments = (coefficients.requires_grad_(), directions(4).requires_grad_())
    assert torch.autograd.gradcheck(lambda c, d: spherical_harmonics_color(c, d, 3), arguments)


def test_errors() -> None:
    assert num_coefficients(3) == 16
    with pytest.raises(ValueError, match="degree: 4"):
        spherical_harmonics_basis(4, directions())
    with pytest.raises(ValueError, match="degree 2 needs at least 9"):
        spherical_harmonics_color(torch.zeros(2, 4, 3), torch.zeros(2, 3), 2)
    with pytest.raises(ValueError, match="coefficients: shape"):
        spherical_harmonics_color(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="directions: shape"):
        spherical_harmonics_color(torch.zeros(2, 4, 3), torch.zeros(1, 3))
