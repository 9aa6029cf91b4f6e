"""The texture atlas as points on the head: where each texel lies, and slopes on that surface."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.head_models import HeadModel
from cag_avatar.rendering.mesh import interpolate, rasterize

__all__ = ["Atlas", "bake_atlas"]

#: Texels around each chart that repeat its edge, so that bilinear look-ups do not see gaps.
_GUTTER = 4


@dataclass(frozen=True)
class Atlas:
    """Texels of an N x N texture that lie on the mesh; M of them.

    Row 0 is v = 1 (the top of the picture); texel (row i, column j) has its centre at
    u = (j + .5) / N, v = 1 - (i + .5) / N.
    """

    size: int
    """N."""
    index: NDArray[np.int64]
    """Flat index of each texel, row * N + column, [M]."""
    position: NDArray[np.float32]
    """Point on the mean rest head, canonical space, metres, [M, 3]."""
    region: NDArray[np.int64]
    """Index into REGIONS, [M]."""
    face: NDArray[np.int64]
    """Face of the mesh, [M]."""

    def picture(self, values: NDArray[np.float32], background: float = 0.0) -> NDArray[np.float32]:
        """Lay values [M] or [M, C] out as a picture [N, N] or [N, N, C]."""
        out = np.full((self.size * self.size, *values.shape[1:]), background, np.float32)
        out[self.index] = values
        return out.reshape(self.size, self.size, *values.shape[1:])

    def slopes(self, heights: NDArray[np.float32], limit: float = 2.0) -> NDArray[np.float32]:
        """Surface gradients of height fields.

        Args:
            heights: K fields in metres above the surface, [M, K].
            limit: longest gradient kept (chart borders would give any).

        Returns:
            Tangent vectors of the mean rest head in canonical axes, metres per metre, [K, M, 3].
        """
        du_p, dv_p = (
            d.reshape(-1, 3)[self.index] for d in _differences(self.picture(self.position))
        )
        e, f, g = (
            np.einsum("mc,mc->m", a, b) for a, b in ((du_p, du_p), (du_p, dv_p), (dv_p, dv_p))
        )
        determinant = np.maximum(e * g - f * f, 1e-20)
        out = np.empty((heights.shape[1], len(self.index), 3), np.float32)
        for k, height in enumerate(heights.T):
            du_h, dv_h = (d.reshape(-1)[self.index] for d in _differences(self.picture(height)))
            along_u = (g * du_h - f * dv_h) / determinant
            along_v = (e * dv_h - f * du_h) / determinant
            gradient = along_u[:, None] * du_p + along_v[:, None] * dv_p
            length = np.sqrt(np.einsum("mc,mc->m", gradient, gradient))
            out[k] = gradient * np.minimum(1, limit / np.maximum(length, 1e-9))[:, None]
        return out


def bake_atlas(model: HeadModel, size: int) -> Atlas:
    """Find the point of the mean rest head under every texel of a ``size`` x ``size`` texture."""
    uv = model.uv.numpy()
    flat = np.column_stack([uv[:, 0], 1 - uv[:, 1], np.ones(len(uv))])
    view = PinholeCamera(size, size, float(size), float(size), 0.0, 0.0)
    buffers = rasterize(flat, model.face_uv.numpy(), view)
    position = interpolate(buffers, model.vertices.numpy(), model.faces.numpy())
    empty = (buffers.face_index < 0).astype(np.uint8)
    distance, label = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(int(label.max()) + 1, np.int64)
    covered = np.flatnonzero(empty.reshape(-1) == 0)
    source[label.reshape(-1)[covered]] = covered
    index = np.flatnonzero(distance.reshape(-1) <= _GUTTER)
    nearest = source[label.reshape(-1)[index]]
    face = buffers.face_index.reshape(-1)[nearest].astype(np.int64)
    return Atlas(
        size=size,
        index=index,
        position=position.reshape(-1, 3)[nearest],
        region=model.face_region.numpy()[face],
        face=face,
    )


def _differences(picture: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Central differences along columns and rows."""
    along_u, along_v = np.zeros_like(picture), np.zeros_like(picture)
    along_u[:, 1:-1] = 0.5 * (picture[:, 2:] - picture[:, :-2])
    along_v[1:-1] = 0.5 * (picture[2:] - picture[:-2])
    return along_u, along_v
