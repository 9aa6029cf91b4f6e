"""gsplat's projection and blending for pictures whose tile lists are made elsewhere."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.gaussians.attributes import Gaussians
from cag_avatar.rendering.rasterizer import FAR_PLANE, NEAR_PLANE, get_rasterizer
from cag_avatar.rendering.tile_lists import TILE, TileTable

__all__ = ["GsplatKernels", "Projection", "TileKernels"]


class Projection(NamedTuple):
    """I pictures of N Gaussians each; where ``radii`` are 0 the others may be anything."""

    means2d: Tensor
    """Centres, pixels, [I, N, 2]."""
    radii: Tensor
    """Half sizes of the boxes, pixels, int32 [I, N, 2]; 0 for what is not seen."""
    depths: Tensor
    """Metres, [I, N]."""
    conics: Tensor
    """Entries xx, xy, yy of the inverse covariances, px^-2, [I, N, 3]."""


class TileKernels(Protocol):
    """What a tiled rasteriser does before and after the lists."""

    def project(self, gaussians: Gaussians) -> Projection:
        """Project Gaussians in camera space, all fields with a first axis I."""

    def blend(
        self, gaussians: Gaussians, projection: Projection, table: TileTable, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pictures over backgrounds [I, 3]: RGB [I, H, W, 3] and coverage [I, H, W, 1]."""


class GsplatKernels:
    """TileKernels by gsplat 1.5's CUDA kernels; float32.

    They run on the current stream, allocate by torch's allocator and read nothing back, so a CUDA
    graph may hold them.

    Args:
        camera: of all pictures.
        images: pictures drawn together.
        device: CUDA device.

    Raises:
        MissingDependencyError: gsplat is not installed.
        InputError: no CUDA device, or gsplat could not build its kernels.
    """

    def __init__(self, camera: PinholeCamera, images: int, device: torch.device) -> None:
        get_rasterizer("cuda")  # says what is missing
        self._camera = camera
        self._views = torch.eye(4).expand(images, 1, 4, 4).to(device)
        self._intrinsics = camera.matrix().expand(images, 1, 3, 3).to(device)

    def project(self, gaussians: Gaussians) -> Projection:
        """See TileKernels."""
        from gsplat import fully_fused_projection

        radii, means2d, depths, conics, _ = fully_fused_projection(
            gaussians.means,
            None,
            gaussians.quaternions,
            gaussians.scales,
            self._views,
            self._intrinsics,
            self._camera.width,
            self._camera.height,
            eps2d=self._camera.blur_variance,
            near_plane=NEAR_PLANE,
            far_plane=FAR_PLANE,
            packed=False,
            opacities=gaussians.opacities,  # boxes end where alpha does
        )
        return Projection(means2d[:, 0], radii[:, 0], depths[:, 0], conics[:, 0])

    def blend(
        self, gaussians: Gaussians, projection: Projection, table: TileTable, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See TileKernels."""
        from gsplat import rasterize_to_pixels

        image, alpha = rasterize_to_pixels(
            projection.means2d,
            projection.conics,
            gaussians.colors,
            gaussians.opacities,
            self._camera.width,
            self._camera.height,
            TILE,
            table.start,
            table.gaussians,
            backgrounds=background,
            packed=False,
        )
        return image, alpha
