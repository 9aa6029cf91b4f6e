"""Perspective projection of 3D Gaussians to 2D Gaussians, in plain differentiable torch.

The affine approximation of EWA splatting (Zwicker et al. 2001, eq. 31) as gsplat applies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.geometry import quaternion_to_matrix
from cag_avatar.rendering.frustum import frustum_limits
from cag_avatar.rendering.rasterizer import (
    FAR_PLANE,
    NEAR_PLANE,
    RADIUS_SIGMAS,
)

__all__ = ["ProjectedGaussians", "project_gaussians"]


@dataclass(frozen=True)
class ProjectedGaussians:
    """N Gaussians in the image plane, in the order of the input."""

    means2d: Tensor
    """Projected centres, pixels, [N, 2]."""
    covariances2d: Tensor
    """Entries xx, xy, yy of the blurred covariance, px^2, [N, 3]."""
    conics: Tensor
    """Entries xx, xy, yy of its inverse, px^-2, [N, 3]."""
    depths: Tensor
    """z in camera space, metres, [N]."""
    radii: Tensor
    """Half sizes of the bounding box, pixels, int32 [N, 2]; 0 where the Gaussian cannot be seen."""


def project_gaussians(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    view_matrix: Tensor,
    camera: PinholeCamera,
) -> ProjectedGaussians:
    """Project N Gaussians.

    Args:
        means: world space, metres, [N, 3].
        quaternions: wxyz, [N, 4], normalised here.
        scales: standard deviations, metres, [N, 3].
        view_matrix: world to camera, [4, 4].
        camera: intrinsics, image size and blur.

    Returns:
        The projections. Gaussians outside the near and far planes get the projection of a point at
        the near plane (finite, meaningless) and radii 0.
    """
    rotation = view_matrix[:3, :3]
    x, y, depths = (means @ rotation.T + view_matrix[:3, 3]).unbind(-1)
    valid = (depths >= NEAR_PLANE) & (depths <= FAR_PLANE)
    z = torch.where(valid, depths, torch.full_like(depths, NEAR_PLANE))

    x_min, x_max, y_min, y_max = frustum_limits(camera)
    ratio_x, ratio_y = (x / z).clamp(x_min, x_max), (y / z).clamp(y_min, y_max)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([camera.fx / z, zero, -camera.fx * ratio_x / z], -1),
            torch.stack([zero, camera.fy / z, -camera.fy * ratio_y / z], -1),
        ],
        -2,
    )
    # S = F F^T with F = J W R diag(scales), so that S is positive semi-definite in any precision.
    factor = jacobian @ rotation @ quaternion_to_matrix(quaternions) * scales[:, None, :]
    row_x, row_y = factor.unbind(-2)
    sharp_xx, sharp_yy = (row_x * row_x).sum(-1), (row_y * row_y).sum(-1)
    xy = (row_x * row_y).sum(-1)
    blur = camera.blur_variance
    xx, yy = sharp_xx + blur, sharp_yy + blur
    # det(S + b I) = det S + b tr S + b^2; det S is the sum of squared minors of F (Cauchy-Binet).
    # All terms are positive: a needle loses no digits, unlike in xx yy - xy xy.
    minors = torch.linalg.cross(row_x, row_y)
    determinant = (minors * minors).sum(-1) + blur * (sharp_xx + sharp_yy) + blur**2
    means2d = torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], -1)
    covariances2d = torch.stack([xx, xy, yy], -1)

    with torch.no_grad():
        radii = torch.ceil(RADIUS_SIGMAS * torch.stack([xx, yy], -1).sqrt())
        size = means2d.new_tensor([camera.width, camera.height])
        inside = ((means2d + radii > 0) & (means2d - radii < size)).all(-1) & valid
        radii = torch.where(inside[:, None], radii, torch.zeros_like(radii))
        radii = radii.clamp(max=2**30).to(torch.int32)
    return ProjectedGaussians(
        means2d=means2d,
        covariances2d=covariances2d,
        conics=torch.stack([yy, -xy, xx], -1) / determinant[:, None],
        depths=depths,
        radii=radii,
    )
