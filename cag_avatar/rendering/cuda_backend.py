"""The CUDA rasteriser: gsplat's kernels behind our interface."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import torch
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.rendering.rasterizer import (
    FAR_PLANE,
    NEAR_PLANE,
    Rasterizer,
    RenderOutput,
)

__all__ = ["CudaRasterizer"]


@lru_cache(maxsize=16)
def _intrinsics(camera: PinholeCamera, device: torch.device) -> Tensor:
    """K [3, 3] on the device; kept, because the host waits for every copy."""
    return camera.matrix().to(device)


def _only_finite(
    means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor
) -> tuple[Tensor, ...]:
    """Gaussians with a non-finite parameter moved to where none is drawn, without gradients; to
    leave them out, the host would have to wait for their number."""
    with torch.no_grad():
        parameters = torch.cat([means, quaternions, scales, opacities[:, None], colors], -1)
        finite = torch.isfinite(parameters).all(-1)
    return tuple(
        torch.where(finite if v.ndim == 1 else finite[:, None], v, torch.zeros_like(v))
        for v in (means, quaternions, scales, opacities, colors)
    )


class CudaRasterizer(Rasterizer):
    """Renders on a CUDA device with gsplat; all tensors must be float32 on one CUDA device.

    gsplat compiles its kernels at first use, which takes minutes and needs the CUDA toolkit (nvcc).

    Raises:
        MissingDependencyError: gsplat is not installed.
        InputError: there is no CUDA device, or gsplat found no way to build its kernels.
    """

    name = "cuda"

    def __init__(self) -> None:
        if importlib.util.find_spec("gsplat") is None:
            raise MissingDependencyError("gsplat", "the cuda rasterizer", "cuda")
        if not torch.cuda.is_available():
            raise InputError(
                "rasterizer: 'cuda' asked for, but torch sees no CUDA device: use 'cpu' or 'auto'"
            )
        from gsplat.cuda import _backend

        if _backend._C is None:
            raise InputError(
                "rasterizer: gsplat could not load its CUDA kernels: "
                "install the CUDA toolkit (nvcc)"
            )

    def _check(self, tensors: dict[str, Tensor]) -> None:
        super()._check(tensors)
        means = tensors["means"]
        if means.device.type != "cuda":
            raise ValueError(f"means: on {means.device}, the cuda rasterizer needs a CUDA device")
        if means.dtype != torch.float32:
            raise TypeError(f"means: dtype {means.dtype}, the cuda rasterizer needs torch.float32")

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
        from gsplat import rasterization

        if means.shape[0] == 0:  # gsplat does not take empty inputs
            blank = means.new_zeros(camera.height, camera.width)
            return RenderOutput(blank[..., None] + background, blank)
        means, quaternions, scales, opacities, colors = _only_finite(
            means, quaternions, scales, opacities, colors
        )
        image, alpha, _ = rasterization(
            means,
            quaternions,
            scales,
            opacities,
            colors,
            view_matrix[None],
            _intrinsics(camera, means.device)[None],
            camera.width,
            camera.height,
            near_plane=NEAR_PLANE,
            far_plane=FAR_PLANE,
            eps2d=camera.blur_variance,
            packed=False,
            backgrounds=background[None],
            render_mode="RGB",
            rasterize_mode="classic",
        )
        return RenderOutput(image[0], alpha[0, ..., 0])
