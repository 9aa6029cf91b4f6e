"""The CPU rasteriser: compiled loops behind torch.autograd, forward and backward on all cores.

Projection and sorting are numba's, blending is C where the machine has a compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.parallel import kernel_launch, thread_count
from cag_avatar.rendering.frustum import frustum_limits
from cag_avatar.rendering.rasterizer import Rasterizer, RenderOutput

try:
    from cag_avatar.rendering import cpu_kernels as kernels
    from cag_avatar.rendering.cpu_blending import Blending, Projected, blending_class
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] not in ("numba", "llvmlite"):
        raise
    raise MissingDependencyError("numba", "the cpu rasterizer", "cpu") from error

__all__ = ["CpuRasterizer"]

#: Most (Gaussian, tile) pairs that are drawn: their lists and gradients take about 5 GB.
_MAX_PAIRS = 100_000_000


class CpuRasterizer(Rasterizer):
    """Renders float32 tensors on the CPU, in parallel; differentiable once.

    Uses the smaller of numba's and torch's thread counts; the result does not depend on it. The
    first call on a machine compiles the kernels (some seconds; numba keeps them in its cache).
    Calls from several threads are safe and run one after the other.

    Raises InputError from ``render`` if the Gaussians are so large that their lists would not fit.

    Args:
        blending: what blends; None takes what is fastest here.
    """

    name = "cpu"

    def __init__(self, blending: type[Blending] | None = None) -> None:
        self._blending = blending

    def _check(self, tensors: dict[str, Tensor]) -> None:
        super()._check(tensors)
        means = tensors["means"]
        if means.device.type != "cpu":
            raise ValueError(f"means: on {means.device}, the cpu rasterizer needs CPU tensors")
        if means.dtype != torch.float32:
            raise TypeError(f"means: dtype {means.dtype}, the cpu rasterizer needs torch.float32")

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
        tensors = (means, quaternions, scales, opacities, colors, view_matrix, background)
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            image, alpha = _Rasterize.apply(self._blending, camera, *tensors)
            return RenderOutput(image, alpha)
        image_array, alpha_array, _ = _forward(
            self._blending, camera, *map(_array, tensors), keep=False
        )
        return RenderOutput(torch.from_numpy(image_array), torch.from_numpy(alpha_array))


@dataclass(frozen=True)
class _Saved:
    """What the backward pass needs of the forward pass; see ``cpu_kernels`` for the arrays."""

    view: np.ndarray
    lens: np.ndarray
    blending: Blending


def _array(tensor: Tensor) -> np.ndarray:
    """A contiguous numpy view, or copy, of a CPU tensor."""
    return tensor.detach().contiguous().numpy()


def _forward(
    kind: type[Blending] | None,
    camera: PinholeCamera,
    means: np.ndarray,
    quaternions: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    view_matrix: np.ndarray,
    background: np.ndarray,
    *,
    keep: bool,
) -> tuple[np.ndarray, np.ndarray, _Saved]:
    """Image [H, W, 3], alpha [H, W] and, if ``keep``, all that the backward pass needs."""
    n, width, height = means.shape[0], camera.width, camera.height
    kind = kind or blending_class()
    tile_columns, tile_rows = -(-width // kind.TILE_WIDTH), -(-height // kind.TILE_HEIGHT)
    view = view_matrix.astype(np.float64)
    intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
    lens = np.array([*intrinsics, *frustum_limits(camera), camera.blur_variance], np.float64)
    geometry = np.empty((n, kernels.GEOMETRY_COLUMNS))
    boxes = np.empty((n, 4), np.int32)
    keys = np.empty(n, np.int64)
    slots = np.empty(n, np.int64)
    starts = np.empty(tile_columns * tile_rows + 1, np.int64)
    with kernel_launch:
        threads = thread_count()
        kernels.project_forward(
            threads, means, quaternions, scales, opacities, colors, view, lens, width, height,
            kind.TILE_WIDTH, kind.TILE_HEIGHT, geometry, boxes, keys,
        )  # fmt: skip
        order = kernels.sort_by_depth(keys)
        pairs = kernels.count_pairs(order, boxes, tile_rows, slots, starts)
        if pairs > _MAX_PAIRS:
            raise InputError(
                f"scales: the Gaussians cover {pairs:,} tiles in all, the limit is {_MAX_PAIRS:,}: "
                "bound their size"
            )
        projected = Projected(
            width, height, tile_columns, tile_rows, geometry, boxes, keys, order, slots, starts,
            pairs,
        )  # fmt: skip
        blending = kind(projected)
        image, alpha = blending.forward(threads, colors, background, keep)
    return image, alpha, _Saved(view, lens, blending)


def _backward(
    saved: _Saved,
    means: np.ndarray,
    quaternions: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    background: np.ndarray,
    grad_image: np.ndarray,
    grad_alpha: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Gradients of means, quaternions, scales, opacities, colors, view matrix and background."""
    n = means.shape[0]
    projected = saved.blending.projected
    grad_means, grad_scales, grad_colors = (np.empty((n, 3), np.float32) for _ in range(3))
    grad_quaternions = np.empty((n, 4), np.float32)
    grad_opacities = np.empty(n, np.float32)
    grad_view_parts = np.zeros((-(-n // kernels.VIEW_CHUNK), 3, 4))
    with kernel_launch:
        threads = thread_count()
        pair_gradients, grad_background = saved.blending.backward(
            threads, colors, background, grad_image, grad_alpha
        )
        kernels.project_backward(
            threads, means, quaternions, scales, opacities, saved.view, saved.lens,
            projected.geometry, projected.boxes, projected.keys, projected.slots, pair_gradients,
            grad_means, grad_quaternions, grad_scales, grad_opacities, grad_colors, grad_view_parts,
        )  # fmt: skip
    grad_view = np.zeros((4, 4), np.float32)
    grad_view[:3] = grad_view_parts.sum(0)
    return (
        grad_means,
        grad_quaternions,
        grad_scales,
        grad_opacities,
        grad_colors,
        grad_view,
        grad_background,
    )


class _Rasterize(torch.autograd.Function):
    """The kernels as one differentiable operation."""

    @staticmethod
    def forward(
        ctx: Any, kind: type[Blending] | None, camera: PinholeCamera, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        image, alpha, ctx.saved_forward = _forward(kind, camera, *map(_array, tensors), keep=True)
        ctx.save_for_backward(*tensors)
        return torch.from_numpy(image), torch.from_numpy(alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor, grad_alpha: Tensor) -> tuple[Tensor | None, ...]:
        means, quaternions, scales, opacities, colors, _, background = map(
            _array, ctx.saved_tensors
        )
        gradients = _backward(
            ctx.saved_forward, means, quaternions, scales, opacities, colors, background,
            _array(grad_image), _array(grad_alpha),
        )  # fmt: skip
        wanted = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            *(torch.from_numpy(g) if w else None for g, w in zip(gradients, wanted, strict=True)),
        )
