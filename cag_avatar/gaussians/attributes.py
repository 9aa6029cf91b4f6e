"""The Gaussians as the rasteriser takes them, and the learned attributes they come from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cag_avatar.gaussians.surface import initial_scale
from cag_avatar.rendering.spherical_harmonics import num_coefficients

__all__ = ["GaussianAttributes", "Gaussians"]


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

    Args:
        rest_points: rest positions, metres, [N, 3]; they set the initial size.
        sh_degree: degree of the spherical harmonics, 0 to 3.
        initial_opacity: opacity before training, in (0, 1).
    """

    def __init__(self, rest_points: Tensor, sh_degree: int, initial_opacity: float = 0.5) -> None:
        super().__init__()
        n = len(rest_points)
        quaternion = torch.zeros(n, 4)
        quaternion[:, 0] = 1
        logit = torch.logit(torch.tensor(initial_opacity))
        log_scale = initial_scale(rest_points).log()[:, None].repeat(1, 3)
        self.rotation = nn.Parameter(quaternion)
        """Quaternions wxyz in the frame of the rest surface, [N, 4]."""
        self.log_scale = nn.Parameter(log_scale)
        """Logarithms of the scales in metres, [N, 3]."""
        self.opacity_logit = nn.Parameter(torch.full((n,), float(logit)))
        """Logits of the opacities, [N]."""
        self.color_base = nn.Parameter(torch.zeros(n, 1, 3))
        """Spherical harmonics of degree 0 (0 is mid-grey), [N, 1, 3]."""
        self.color_rest = nn.Parameter(torch.zeros(n, num_coefficients(sh_degree) - 1, 3))
        """Spherical harmonics of the higher degrees, [N, K - 1, 3]."""
