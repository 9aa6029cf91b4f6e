"""The Gaussians as the rasteriser takes them, and the learned attributes they come from."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from cag_avatar.gaussians.surface import initial_scale
from cag_avatar.geometry import matrix_to_quaternion
from cag_avatar.rendering.spherical_harmonics import num_coefficients

__all__ = ["GaussianAttributes", "Gaussians"]

#: Standard deviations of a disc at the start along its two radii and its thickness, over the
#: distance to its neighbours.
_INITIAL_SHAPE = (0.6, 0.6, 0.3)


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in camera space, ready to be rasterised."""

    means: Tensor
    """Centres, metres, [N, 3]."""
    quaternions: Tensor
    """Orientations wxyz, unit, [N, 4]."""
    scales: Tensor
    """Standard deviations along the local axes, metres, [N, 3]."""
    opacities: Tensor
    """In (0, 1), [N]."""
    colors: Tensor
    """RGB, not negative, [N, 3]."""


class GaussianAttributes(nn.Module):
    """Learned attributes of the Gaussians at rest: r, s, o, h of the paper.

    Gaussians start as discs that lie on the surface.

    Args:
        rest_points: rest positions, metres, [N, 3]; they set the initial size.
        rest_frames: rotation matrices whose third column is the surface's normal, [N, 3, 3]; they
            set the initial orientation.
        sh_degree: degree of the spherical harmonics, 0 to 3.
        initial_opacity: opacity before training, in (0, 1).
    """

    def __init__(
        self,
        rest_points: Tensor,
        rest_frames: Tensor,
        sh_degree: int,
        initial_opacity: float = 0.5,
    ) -> None:
        super().__init__()
        n = len(rest_points)
        logit = torch.logit(torch.tensor(initial_opacity))
        scale = initial_scale(rest_points)[:, None] * rest_points.new_tensor(_INITIAL_SHAPE)
        self.rotation = nn.Parameter(matrix_to_quaternion(rest_frames))
        """Quaternions wxyz, canonical axes, [N, 4]."""
        log_scale = scale.log()
        self.register_buffer("initial_log_scale", log_scale.clone(), persistent=False)
        self.log_scale = nn.Parameter(log_scale)
        """Logarithms of the scales in metres, [N, 3]."""
        self.opacity_logit = nn.Parameter(torch.full((n,), float(logit)))
        """Logits of the opacities, [N]."""
        self.color_base = nn.Parameter(torch.zeros(n, 1, 3))
        """Spherical harmonics of degree 0 (0 is mid-grey), [N, 1, 3]."""
        self.color_rest = nn.Parameter(torch.zeros(n, num_coefficients(sh_degree) - 1, 3))
        """Spherical harmonics of the higher degrees, [N, K - 1, 3]."""

    initial_log_scale: Tensor
    """Log-scales before training, [N, 3]."""

    @torch.no_grad()
    def limit_scales(self, growth: float) -> None:
        """Cut scales that exceed their initial value more than ``growth`` times."""
        self.log_scale.copy_(torch.minimum(self.log_scale, self.initial_log_scale + log(growth)))
