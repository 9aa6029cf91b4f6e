"""View-dependent colour: real spherical harmonics of degree 0 to 3, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "MAX_DEGREE",
    "SH_CONSTANT",
    "num_coefficients",
    "spherical_harmonics_basis",
    "spherical_harmonics_color",
]

#: Highest degree supported.
MAX_DEGREE = 3

# Normalisation constants of the real basis, with the signs that 3D Gaussian splatting uses
# (Condon-Shortley phase), written as in Sloan, "Efficient Spherical Harmonic Evaluation", JCGT
# 2013.
#: The constant basis function, sqrt(1 / (4 pi)).
SH_CONSTANT = 0.28209479177387814
_C1 = 0.4886025119029199  # sqrt(3 / (4 pi))
_C2_XY = 1.0925484305920792  # sqrt(15 / (4 pi))
_C2_ZZ = 0.31539156525252005  # sqrt(5 / (16 pi))
_C2_XX = 0.5462742152960396  # sqrt(15 / (16 pi))
_C3_3 = 0.5900435899266435  # sqrt(35 / (32 pi))
_C3_2 = 2.890611442640554  # sqrt(105 / (4 pi))
_C3_1 = 0.4570457994644658  # sqrt(21 / (32 pi))
_C3_0 = 0.3731763325901154  # sqrt(7 / (16 pi))
_C3_2B = 1.445305721320277  # sqrt(105 / (16 pi))


def num_coefficients(degree: int) -> int:
    """Number of basis functions up to ``degree``, (degree + 1)^2. Raises ValueError if not 0..3."""
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree: {degree}, expected 0 to {MAX_DEGREE}")
    return (degree + 1) ** 2


def spherical_harmonics_basis(degree: int, directions: Tensor) -> Tensor:
    """Basis functions at directions [..., 3] (normalised here): [..., (degree + 1)^2].

    Ordered by band l, then m = -l..l, as in 3D Gaussian splatting files.
    """
    count = num_coefficients(degree)
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    basis = [torch.full_like(x, SH_CONSTANT)]
    if degree >= 1:
        basis += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        basis += [
            _C2_XY * x * y,
            -_C2_XY * y * z,
            _C2_ZZ * (3 * zz - 1),
            -_C2_XY * x * z,
            _C2_XX * (xx - yy),
        ]
    if degree >= 3:
        basis += [
            -_C3_3 * y * (3 * xx - yy),
            _C3_2 * x * y * z,
            -_C3_1 * y * (5 * zz - 1),
            _C3_0 * z * (5 * zz - 3),
            -_C3_1 * x * (5 * zz - 1),
            _C3_2B * z * (xx - yy),
            -_C3_3 * x * (xx - 3 * yy),
        ]
    result = torch.stack(basis, -1)
    assert result.shape[-1] == count
    return result


def spherical_harmonics_color(
    coefficients: Tensor, directions: Tensor, degree: int | None = None
) -> Tensor:
    """Colour of each Gaussian seen from a direction, 3D Gaussian splatting's convention.

    Args:
        coefficients: [N, K, 3], K >= (degree + 1)^2; extra coefficients are not used.
        directions: from the camera centre to the Gaussian, world space, [N, 3]; normalised here.
        degree: 0 to 3; by default the highest that K allows.

    Returns:
        RGB [N, 3]: max(0, 0.5 + sum of coefficient times basis). Differentiable in both arguments;
        a channel clamped at 0 has no gradient.

    Raises:
        ValueError: the shapes do not fit or K holds too few coefficients.
    """
    if coefficients.ndim != 3 or coefficients.shape[-1] != 3 or coefficients.shape[1] < 1:
        raise ValueError(f"coefficients: shape {list(coefficients.shape)}, expected [N, K, 3]")
    if directions.shape != (coefficients.shape[0], 3):
        raise ValueError(
            f"directions: shape {list(directions.shape)}, expected [{coefficients.shape[0]}, 3]"
        )
    available = coefficients.shape[1]
    if degree is None:
        degree = min(MAX_DEGREE, int(available**0.5 + 1e-9) - 1)
    count = num_coefficients(degree)
    if count > available:
        raise ValueError(
            f"coefficients: {available} per Gaussian, degree {degree} needs at least {count}"
        )
    basis = spherical_harmonics_basis(degree, directions)
    return ((basis[..., None] * coefficients[:, :count]).sum(-2) + 0.5).clamp(min=0)
