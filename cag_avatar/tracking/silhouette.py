"""Rim points of a fitted head: where its outline should move to meet the matte's."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.head_models.base import REGIONS, HeadModel
from cag_avatar.rendering.mesh import MeshBuffers
from cag_avatar.tracking.fit_state import Silhouette
from cag_avatar.tracking.surface_basis import ShapeSpace

__all__ = ["SURVEY_POINTS", "RimPoints", "find_rim", "stack_rims"]

#: Rim points of a frame.
SURVEY_POINTS = 96

_HEAD = ("face_skin", "ears", "scalp")
#: Rim points below this height (canonical space, metres) are left out: beard, collar, long hair.
_LOWEST = -0.05
#: How far, relative to the head's size, the matte's edge is looked for outwards (hair) and inwards.
_OUTWARD, _INWARD = 0.22, 0.08


class RimPoints:
    """Rim points of one frame: faces [K], barycentric [K, 3], normals and targets [K, 2] pixels."""

    def __init__(
        self,
        faces: NDArray[np.int64],
        barycentric: NDArray[np.float32],
        normals: NDArray[np.float32],
        targets: NDArray[np.float32],
    ) -> None:
        self.faces = faces
        self.barycentric = barycentric
        self.normals = normals
        self.targets = targets


def find_rim(
    model: HeadModel,
    rest: NDArray[np.float32],
    buffers: MeshBuffers,
    alpha: NDArray[np.uint8],
    head_pixels: float,
) -> RimPoints:
    """Match the outline of the drawn head to the matte.

    Args:
        model: head model.
        rest: the person's rest vertices [V, 3].
        buffers: the posed mesh as the camera sees it (supersample 1).
        alpha: matte at the same resolution [H, W] uint8.
        head_pixels: size of the head in the picture, e.g. the height of the landmarks' box.
    """
    height, width = alpha.shape
    covered = (buffers.face_index >= 0).astype(np.uint8)
    contours, _ = cv2.findContours(covered, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return _nothing()
    contour = max(contours, key=len)[:, 0]  # [P, 2] x, y
    x, y = contour[:, 0], contour[:, 1]
    face = buffers.face_index[y, x]
    region = model.face_region.numpy()[face]
    weights = buffers.barycentric[y, x]
    point = (rest[model.faces.numpy()[face]] * weights[..., None]).sum(1)
    chosen = np.isin(region, [REGIONS.index(n) for n in _HEAD]) & (point[:, 1] > _LOWEST)
    chosen &= (x > 2) & (x < width - 3) & (y > 2) & (y < height - 3)
    index = np.flatnonzero(chosen)
    if len(index) < 8:
        return _nothing()
    index = index[np.linspace(0, len(index) - 1, min(SURVEY_POINTS, len(index))).astype(int)]
    smooth = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), 3.0)
    gradient = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)])
    normal = -gradient[:, y[index], x[index]].T.astype(np.float32)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    start = np.stack([x[index], y[index]], 1).astype(np.float32) + 0.5
    steps = np.arange(-_INWARD * head_pixels, _OUTWARD * head_pixels, 0.5, dtype=np.float32)
    sample = start[:, None] + normal[:, None] * steps[None, :, None]
    value = cv2.remap(
        alpha, sample[..., 0] - 0.5, sample[..., 1] - 0.5, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    leaving = (value[:, :-1] >= 128) & (value[:, 1:] < 128)
    distance = np.where(leaving, np.abs(steps[:-1])[None], np.inf)
    best = distance.argmin(1)
    found = np.isfinite(distance.min(1))
    target = start + normal * (steps[best] + 0.25)[:, None]
    inside = (target > 1).all(1) & (target[:, 0] < width - 2) & (target[:, 1] < height - 2)
    keep = found & inside
    return RimPoints(
        face[index][keep].astype(np.int64), weights[index][keep], normal[keep], target[keep]
    )


def _nothing() -> RimPoints:
    return RimPoints(
        np.zeros(0, np.int64),
        np.zeros((0, 3), np.float32),
        np.zeros((0, 2), np.float32),
        np.zeros((0, 2), np.float32),
    )


def stack_rims(
    rims: list[RimPoints], model: HeadModel, *, space: ShapeSpace | None, rest: Tensor | None
) -> Silhouette:
    """Rim points of T frames as one Silhouette, padded to SURVEY_POINTS.

    With ``space`` the points keep their shape basis (to solve the shape); with ``rest`` [V, 3] they
    are fixed to the person's shape (to solve poses).
    """
    total, count = len(rims), SURVEY_POINTS
    size = space.size if space is not None else 0
    mean = torch.zeros(total, count, 3)
    mean[..., 2] = 0.0
    shape = torch.zeros(total, size, count, 3)
    normal = torch.zeros(total, count, 2)
    target = torch.zeros(total, count, 2)
    weight = torch.zeros(total, count)
    for t, rim in enumerate(rims):
        k = len(rim.faces)
        if k == 0:
            continue
        faces, barycentric = torch.from_numpy(rim.faces), torch.from_numpy(rim.barycentric)
        if space is not None:
            points = space.points(faces, barycentric)
            mean[t, :k], shape[t, :, :k] = points.mean, points.shape
        elif rest is not None:
            mean[t, :k] = (rest[model.faces[faces]] * barycentric[..., None]).sum(1)
        normal[t, :k] = torch.from_numpy(rim.normals)
        target[t, :k] = torch.from_numpy(rim.targets)
        weight[t, :k] = 1.0
    return Silhouette(mean, shape, normal, target, weight)
