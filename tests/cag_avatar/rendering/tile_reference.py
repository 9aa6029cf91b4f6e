"""gsplat's compiled functions in torch, slow, for machines without a GPU.

They take the arguments of the C++ functions and follow what the CUDA kernels do, so that what the
project passes to gsplat's Python layer, its checks of shapes included, can be run and compared.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.rendering.projection import project_gaussians
from cag_avatar.rendering.rasterizer import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE


def projection_ewa_3dgs_fused_fwd(
    means, covars, quats, scales, opacities, viewmats, intrinsics, width, height, eps2d, near, far,
    radius_clip, calc_compensations, camera_model,
):  # fmt: skip
    assert covars is None
    assert not calc_compensations
    assert (near, far, radius_clip, camera_model) == (0.01, 100.0, 0.0, "PINHOLE")
    for tensor in (means, quats, scales, opacities, viewmats, intrinsics):
        assert tensor.is_contiguous()
        assert tensor.dtype == torch.float32
    results = []
    for b in range(len(means)):
        assert viewmats.shape[1] == 1
        k = intrinsics[b, 0]
        camera = PinholeCamera(
            width, height, *(float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])), eps2d
        )
        found = project_gaussians(means[b], quats[b], scales[b], viewmats[b, 0], camera)
        radii = torch.where((opacities[b] >= ALPHA_THRESHOLD)[:, None], found.radii, 0)
        hidden = (radii == 0).any(-1)
        # The kernel leaves what is not seen as it finds it.
        rest = [
            torch.where(hidden.view(-1, *[1] * (v.ndim - 1)), torch.nan, v)
            for v in (found.means2d, found.depths, found.conics)
        ]
        results.append((radii, *rest))
    stacked = [torch.stack(parts)[:, None].contiguous() for parts in zip(*results, strict=True)]
    return (*stacked, None)


def rasterize_to_pixels_3dgs_fwd(
    means2d, conics, colors, opacities, backgrounds, masks, width, height, tile_size, offsets, ids
):
    assert masks is None
    images, rows, columns = offsets.shape
    assert ids.dtype == offsets.dtype == torch.int32
    for tensor in (means2d, conics, colors, opacities, backgrounds, offsets, ids):
        assert tensor.is_contiguous()
    flat = [v.reshape(-1, *v.shape[2:]) for v in (means2d, conics, colors, opacities)]
    image = torch.empty(images, height, width, 3)
    alpha = torch.empty(images, height, width, 1)
    bounds = [*offsets.flatten().tolist(), len(ids)]
    for tile in range(images * rows * columns):
        number, place = divmod(tile, rows * columns)
        top, left = (place // columns) * tile_size, (place % columns) * tile_size
        if top >= height:
            continue  # every thread of it is done before the first Gaussian
        chosen = ids[bounds[tile] : bounds[tile + 1]].long()
        assert (chosen // means2d.shape[1] == number).all()
        y = torch.arange(top, min(top + tile_size, height))
        x = torch.arange(left, min(left + tile_size, width))
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1) + 0.5
        color, through = _blend(grid.reshape(-1, 2), *(v[chosen] for v in flat))
        shape = (number, slice(top, top + tile_size), slice(left, left + tile_size))
        image[shape] = (color + through[:, None] * backgrounds[number]).reshape(len(y), len(x), 3)
        alpha[shape] = (1 - through).reshape(len(y), len(x), 1)
    return image, alpha, torch.empty(0)


def _blend(pixels: Tensor, means: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor):
    dx, dy = (means - pixels[:, None]).unbind(-1)
    power = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    alpha = (opacities * torch.exp(-power)).clamp(max=MAX_ALPHA)
    alpha = torch.where(alpha >= ALPHA_THRESHOLD, alpha, 0.0)
    alive = torch.cumprod(1 - alpha, -1) > MIN_TRANSMITTANCE
    alpha = torch.where(alive, alpha, 0.0)
    through = torch.cumprod(torch.cat([torch.ones(len(pixels), 1), 1 - alpha], -1), -1)
    return (alpha * through[:, :-1]) @ colors, through[:, -1]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put them where gsplat's Python layer looks for its compiled functions."""
    functions = {
        f.__name__: f for f in (projection_ewa_3dgs_fused_fwd, rasterize_to_pixels_3dgs_fwd)
    }
    wrapper = pytest.importorskip("gsplat.cuda._wrapper")
    monkeypatch.setattr(wrapper, "_make_lazy_cuda_func", lambda name: functions[name])
    monkeypatch.setattr(wrapper, "_make_lazy_cuda_obj", lambda name: name.split(".")[-1])
    monkeypatch.setattr(
        "cag_avatar.rendering.gsplat_kernels.get_rasterizer", lambda name: SimpleNamespace()
    )
