"""Smoothing of the Gaussians' own matrices over the surface.

What training has shown decides a Gaussian's matrix in the directions of the code that occurred in
it. In the others Adam, whose steps are as large for small gradients as for large ones, leaves every
Gaussian a guess of its own, and an expression that training never saw comes out scratched and
mottled. Skin moves as its surroundings do, so each matrix is drawn to the mean of its neighbours':
what the frames ask for holds against that, what they do not tell becomes the neighbours'.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import embedding_bag

from cag_avatar.avatar.model import Avatar

__all__ = ["LocalSmoothing", "surface_neighbours"]

_NEIGHBOURS = 6
#: Nearest points among which neighbours are looked for.
_CANDIDATES = 25
#: Cosine between the normals of neighbours, at least: lips and lids have two sides.
_SAME_SIDE = 0.3
#: Lids slide over eyeballs: what is nearer to one, metres, is smoothed less, from half of that on
#: and within the eyeball not at all.
_EYE_MARGIN = 0.015
#: Iterations between two smoothings; each does the work of so many.
_EVERY = 4
#: Of the way to the neighbours' mean, at most, in one smoothing.
_LARGEST_STEP = 0.5


def surface_neighbours(points: Tensor, normals: Tensor, region: Tensor) -> Tensor:
    """Six near points of the same region and side of the surface for each.

    Args:
        points: of the surface, metres, [N, 3].
        normals: unit, [N, 3].
        region: index into REGIONS, [N].

    Returns:
        Indices [N, 6] int64: neighbours repeat where there are fewer, a point without any is its
        own.
    """
    count = len(points)
    positions, side, part = (t.cpu().numpy() for t in (points, normals, region))
    _, near = cKDTree(positions).query(positions, k=_CANDIDATES)
    near[near == count] = 0  # where there are fewer points than candidates: ruled out below
    rows = np.arange(count)[:, None]
    fits = (
        (near != rows)
        & (part[near] == part[:, None])
        & ((side[near] * side[:, None]).sum(-1) > _SAME_SIDE)
        & (np.arange(_CANDIDATES) < count)
    )
    first = np.argsort(~fits, axis=1, kind="stable")[:, :_NEIGHBOURS]
    available = np.minimum(fits.sum(1), _NEIGHBOURS)
    column = np.arange(_NEIGHBOURS) % np.maximum(available, 1)[:, None]
    found = np.take_along_axis(near, np.take_along_axis(first, column, 1), 1)
    return torch.from_numpy(np.where(available[:, None] > 0, found, rows)).to(points.device)


def _away_from_eyes(points: Tensor, eyes: Tensor) -> Tensor:
    """Factor [N] on the smoothing: 0 on eyeballs and next to them, 1 away from them.

    Args:
        points: of the surface, metres, [N, 3].
        eyes: which of them lie on eyeballs, [N] bool.
    """
    if not eyes.any():
        return torch.ones_like(points[:, 0])
    positions = points.cpu().numpy()
    distance, _ = cKDTree(positions[eyes.cpu().numpy()]).query(positions)
    return (2 * torch.from_numpy(distance).to(points) / _EYE_MARGIN - 1).clamp(0, 1)


class LocalSmoothing:
    """Draws each Gaussian's own matrix to the mean of its neighbours'.

    Args:
        avatar: with matrices of the Gaussians' own; they are changed in place.
        strength: of the way to the mean that a matrix goes in one iteration, per unit of the
            learning rate; 0 does nothing.
    """

    def __init__(self, avatar: Avatar, strength: float) -> None:
        assert avatar.local is not None
        self._weight = avatar.local.weight
        points, region = avatar.binding.rest_points, avatar.sample_region
        normals = avatar.binding.gaussian_rest_frames[:, :, 2]
        self._neighbours = surface_neighbours(points, normals, region)
        eyes = avatar.in_regions("eye_left", "eye_right")
        self._factor = strength * _away_from_eyes(points, eyes)[:, None, None]

    @torch.no_grad()
    def after_step(self, iteration: int, rate: float) -> None:
        """Smooth, if it is due.

        Args:
            iteration: that was just done, from 1.
            rate: learning rate of the matrices in it.
        """
        if iteration % _EVERY:
            return
        flat = self._weight.flatten(1)
        mean = embedding_bag(self._neighbours, flat, mode="mean").view_as(self._weight)
        share = (self._factor * (_EVERY * rate)).clamp(max=_LARGEST_STEP)
        self._weight.lerp_(mean, share)
