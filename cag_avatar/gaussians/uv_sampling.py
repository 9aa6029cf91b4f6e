"""Where the Gaussians sit: one for every texel that the head covers in its UV atlas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS, HeadModel

__all__ = ["SurfaceSamples", "sample_uv"]


@dataclass(frozen=True)
class SurfaceSamples:
    """N points bound to the triangles of a head model."""

    face: Tensor
    """Triangle of each point, [N] int64."""
    barycentric: Tensor
    """Weights of the triangle's corners, [N, 3] float32; rows sum to 1, none negative."""
    uv: Tensor
    """Texture coordinates, [N, 2] float32."""
    region: Tensor
    """Index into REGIONS, [N] int64."""

    def __len__(self) -> int:
        return int(self.face.shape[0])


def sample_uv(
    head: HeadModel, resolution: int = 128, density: Mapping[str, float] | None = None
) -> SurfaceSamples:
    """Sample the surface on a regular grid of texels.

    A point is put at the centre of every texel of a ``resolution`` x ``resolution`` atlas that a
    triangle covers. A region with a density factor d is sampled on a grid of round(resolution * d)
    texels a side instead, so it gets d^2 times as many points.

    Args:
        head: the mesh, its UV atlas and its regions.
        resolution: texels along each side of the atlas.
        density: factor for each named region; 1 where not named, 0 leaves the region out.

    Raises:
        InputError: the resolution is below 2, a region does not exist, a factor is negative, or no
            texel is covered.
    """
    if resolution < 2:
        raise InputError(f"uv_resolution: {resolution}, choose 2 or more")
    factors = dict.fromkeys(REGIONS, 1.0)
    for name, factor in (density or {}).items():
        if name not in factors:
            raise InputError(f"density: no region '{name}', choose from {', '.join(REGIONS)}")
        if not 0 <= factor < 64:
            raise InputError(f"density: factor {factor} of '{name}' must lie in [0, 64)")
        factors[name] = float(factor)
    corners = head.uv[head.face_uv].double().numpy()  # [F, 3, 2]
    face_region = head.face_region.numpy()
    parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for factor in sorted(set(factors.values()) - {0.0}):
        chosen = [i for i, name in enumerate(REGIONS) if factors[name] == factor]
        subset = np.flatnonzero(np.isin(face_region, chosen))
        side = max(2, round(resolution * factor))
        face, barycentric = _cover(corners[subset] * side)
        parts.append((subset[face], barycentric))
    face = np.concatenate([part[0] for part in parts])
    barycentric = np.concatenate([part[1] for part in parts])
    if len(face) == 0:
        raise InputError(f"uv_resolution: {resolution} puts no texel centre on the head, raise it")
    uv = (corners[face] * barycentric[..., None]).sum(1)
    index = torch.from_numpy(face)
    return SurfaceSamples(
        face=index,
        barycentric=torch.from_numpy(barycentric).float(),
        uv=torch.from_numpy(uv).float(),
        region=head.face_region[index].clone(),
    )


def _cover(
    corners: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Texel centres inside 2D triangles [F, 3, 2] (texels): triangle [N] and barycentric [N, 3].

    A centre on an edge goes to one triangle only, the one with the lowest index.
    """
    low = np.ceil(corners.min(1) - 0.5).astype(np.int64)
    high = np.floor(corners.max(1) - 0.5).astype(np.int64)
    size = np.maximum(high - low + 1, 0)
    count = size[:, 0] * size[:, 1]
    triangle = np.repeat(np.arange(len(corners)), count)
    local = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    width = np.maximum(size[triangle, 0], 1)
    texel = low[triangle] + np.stack([local % width, local // width], 1)
    a, b, c = (corners[triangle, k] for k in range(3))
    point = texel + 0.5
    twice_area = _cross(b - a, c - a)
    safe = np.where(np.abs(twice_area) < 1e-12, np.inf, twice_area)
    weights = np.stack([_cross(b - point, c - point), _cross(c - point, a - point)], 1)
    weights = weights / safe[:, None]
    weights = np.concatenate([weights, 1 - weights.sum(1, keepdims=True)], 1)
    inside = (weights >= -1e-9).all(1) & (np.abs(twice_area) >= 1e-12)
    triangle, texel, weights = triangle[inside], texel[inside], weights[inside]
    _, first = np.unique(texel, axis=0, return_index=True)
    weights = np.clip(weights[first], 0, None)
    return triangle[first], weights / weights.sum(1, keepdims=True)


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """z of the cross product of 2D vectors [N, 2]."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
