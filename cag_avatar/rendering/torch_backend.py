"""The oracle: a dense rasteriser in plain torch, differentiable, for any dtype and device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cag_avatar.camera import PinholeCamera
from cag_avatar.rendering.projection import project_gaussians
from cag_avatar.rendering.rasterizer import (
    ALPHA_THRESHOLD,
    FAR_PLANE,
    MAX_ALPHA,
    MIN_TRANSMITTANCE,
    NEAR_PLANE,
    Rasterizer,
    RenderOutput,
)

__all__ = ["TorchRasterizer"]

#: Pixels times Gaussians evaluated at once: bounds the memory to a few hundred megabytes.
_CHUNK_ELEMENTS = 1 << 21


class TorchRasterizer(Rasterizer):
    """Evaluates every Gaussian at every pixel: cost H W N; use it to check the others."""

    name = "torch"

    def _render(
        self,
        means: Tensor,
        quaternions: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        view_matrix: Tensor,
        camera: PinholeCamera,
        background: Tensor,
    ) -> RenderOutput:
        with torch.no_grad():
            depths = means @ view_matrix[2, :3] + view_matrix[2, 3]
            parameters = torch.cat(
                [means, quaternions, scales, opacities[:, None], colors, depths[:, None]], -1
            )
            used = torch.isfinite(parameters).all(-1) & (opacities >= ALPHA_THRESHOLD)
            used &= (depths >= NEAR_PLANE) & (depths <= FAR_PLANE)
            index = torch.nonzero(used).flatten()
            index = index[torch.argsort(depths[index], stable=True)]
        projected = project_gaussians(
            means[index], quaternions[index], scales[index], view_matrix, camera
        )
        columns = torch.arange(camera.width, dtype=means.dtype, device=means.device) + 0.5
        rows = torch.arange(camera.height, dtype=means.dtype, device=means.device) + 0.5
        grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
        pixels = torch.stack([grid_x, grid_y], -1).reshape(-1, 2)

        arguments = (projected.means2d, projected.conics, opacities[index], colors[index])
        track = torch.is_grad_enabled() and any(a.requires_grad for a in arguments)
        images, transmittances = [], []
        for chunk in pixels.split(max(1, _CHUNK_ELEMENTS // max(1, len(index)))):
            if track:  # recompute each chunk in the backward pass instead of keeping all of them
                image, transmittance = checkpoint(_blend, chunk, *arguments, use_reentrant=False)
            else:
                image, transmittance = _blend(chunk, *arguments)
            images.append(image)
            transmittances.append(transmittance)
        transmittance = torch.cat(transmittances)
        image = torch.cat(images) + transmittance[:, None] * background
        size = (camera.height, camera.width)
        return RenderOutput(image.reshape(*size, 3), (1 - transmittance).reshape(size))


def _blend(
    pixels: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend Gaussians sorted front to back at pixels [P, 2]: colour [P, 3] and final T [P]."""
    dx, dy = (pixels[:, None] - means2d).unbind(-1)
    power = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    alpha = (opacities * torch.exp(-power)).clamp(max=MAX_ALPHA)
    alpha = torch.where(alpha >= ALPHA_THRESHOLD, alpha, torch.zeros_like(alpha))
    with torch.no_grad():
        alive = torch.cumprod(1 - alpha, -1) > MIN_TRANSMITTANCE
    alpha = torch.where(alive, alpha, torch.zeros_like(alpha))
    transmittance = torch.cumprod(torch.cat([alpha.new_ones(len(pixels), 1), 1 - alpha], -1), -1)
    return (alpha * transmittance[:, :-1]) @ colors, transmittance[:, -1]
