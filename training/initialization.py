"""Colours to start from: what the camera saw where each Gaussian sits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.motion import Motion
from torch import Tensor

from cag_avatar.avatar.model import Avatar
from cag_avatar.head_models.base import REGIONS
from cag_avatar.rendering.spherical_harmonics import SH_CONSTANT

__all__ = ["initialize_colors", "observed_colors"]

#: Regions that lips or lids hide: what the camera sees there is something else.
_HIDDEN = ("teeth_upper", "teeth_lower", "tongue", "mouth_cavity")
#: A surface counts as seen if its normal is within about 70 degrees of the direction to the camera.
_FACING = 0.35
_SIZE = 256


def observed_colors(
    avatar: Avatar, dataset: Dataset, frames: Sequence[int], motion: Motion, background: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean colour under each Gaussian's surface point over some frames.

    Returns:
        RGB [N, 3] and the weight that each mean rests on, [N]; 0 where nothing was seen.
    """
    device = background.device
    total = torch.zeros(avatar.num_gaussians, 3, device=device)
    weight = torch.zeros(avatar.num_gaussians, device=device)
    covered = torch.tensor([name in _HIDDEN for name in REGIONS], device=device)
    hidden = covered[avatar.sample_region]
    for index in frames:
        frame = dataset.frame(index, min(_SIZE, dataset.info.camera.height), device)
        with torch.no_grad():
            vertices = avatar.posed_vertices(*motion.frame(index))
            points = avatar.binding.points(vertices)
            normals = avatar.binding.normals(vertices)
        facing = -(normals * torch.nn.functional.normalize(points, dim=-1)).sum(-1)
        camera = frame.camera
        pixel = camera.project(points)
        grid = 2 * pixel / pixel.new_tensor([camera.width, camera.height]) - 1
        planes = torch.cat([frame.target(background), frame.alpha[..., None]], -1)
        sampled = torch.nn.functional.grid_sample(
            planes.permute(2, 0, 1)[None], grid[None, None], align_corners=False
        )[0, :, 0].T
        seen = (facing > _FACING) & (grid.abs().amax(1) < 1) & (points[:, 2] > 0)
        gain = torch.where(seen & (sampled[:, 3] > 0.9) & ~hidden, facing, 0.0)
        total += sampled[:, :3] * gain[:, None]
        weight += gain
    return total / weight.clamp_min(1e-6)[:, None], weight


def initialize_colors(
    avatar: Avatar, dataset: Dataset, frames: Sequence[int], motion: Motion, background: Tensor
) -> None:
    """Set the constant colours from eight training frames; unseen Gaussians stay mid-grey.

    At its rate of 2.5e-3 a colour needs 700 iterations from grey to white, so a short training that
    starts from grey (as the paper's) spends a quarter of itself on what the first look tells.
    """
    step = max(1, len(frames) // 8)
    colors, weight = observed_colors(avatar, dataset, frames[::step][:8], motion, background)
    with torch.no_grad():
        seen = weight > 0
        avatar.attributes.color_base[seen, 0] = (colors[seen] - 0.5) / SH_CONSTANT
