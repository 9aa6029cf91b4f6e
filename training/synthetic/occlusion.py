"""How much of the sky each vertex sees, by drawing the head from many sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.rendering.mesh import rasterize

__all__ = ["sky_visibility"]

#: Far enough for parallel rays, wide enough for the shoulders, this deep is hidden; metres.
_DISTANCE, _WIDTH, _BIAS = 30.0, 0.62, 0.003


def sky_visibility(
    vertices: NDArray[np.float32],
    normals: NDArray[np.float32],
    faces: NDArray[np.integer],
    directions: int = 48,
    resolution: int = 320,
) -> NDArray[np.float32]:
    """Cosine-weighted share of directions from which each vertex is seen, [V] float32 in [0, 1].

    Args:
        vertices: canonical space, [V, 3].
        normals: unit, outward, [V, 3].
        faces: occluders, [F, 3].
        directions: how many, spread evenly over the sphere.
        resolution: of each depth picture.
    """
    centre = 0.5 * (vertices.min(0) + vertices.max(0))
    focal = resolution * _DISTANCE / _WIDTH
    view = PinholeCamera(resolution, resolution, focal, focal, resolution / 2, resolution / 2)
    index = np.arange(directions) + 0.5
    cosine, turn = 1 - 2 * index / directions, np.pi * (1 + 5**0.5) * index  # Fibonacci sphere
    sine = np.sqrt(1 - cosine**2)
    seen = np.zeros(len(vertices), np.float32)
    total = np.full(len(vertices), 1e-6, np.float32)
    for d in np.stack([sine * np.cos(turn), cosine, sine * np.sin(turn)], 1):
        across = np.cross(d, [0.0, 1.0, 0.0] if abs(d[1]) < 0.9 else [1.0, 0.0, 0.0])
        across /= np.linalg.norm(across)
        axes = np.stack([across, np.cross(-d, across), -d])  # x, y, forward
        points = (vertices - centre) @ axes.T + np.array([0, 0, _DISTANCE])
        depth = rasterize(points, faces, view).depth
        column = (focal * points[:, 0] / points[:, 2] + view.cx).astype(np.int64)
        row = (focal * points[:, 1] / points[:, 2] + view.cy).astype(np.int64)
        inside = (column >= 0) & (column < resolution) & (row >= 0) & (row < resolution)
        nearest = depth[row.clip(0, resolution - 1), column.clip(0, resolution - 1)]
        weight = np.maximum(normals @ d, 0).astype(np.float32)
        seen += weight * (~inside | (points[:, 2] < nearest + _BIAS))
        total += weight
    return np.asarray(seen / total, np.float32)
