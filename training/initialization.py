"""Colours to start from: what the camera saw where each Gaussian sits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.motion import Motion
from torch import Tensor

from cag_avatar.avatar.model import Avatar
from cag_avatar.rendering.spherical_harmonics import SH_CONSTANT

__all__ = ["initialize_colors", "labelled_color", "observed_colors"]

#: Regions that the lips hide, so that the camera often sees something else where they are, by the
#: part label of the pixels that do show them.
_HIDDEN = {"teeth": ("teeth_upper", "teeth_lower"), "mouth_interior": ("tongue", "mouth_cavity")}
#: Frames looked through for those pixels, and the fewest that tell a colour.
_LABEL_FRAMES, _LEAST_PIXELS = 64, 50
#: Neighbours that an unseen Gaussian takes its colour from.
_NEIGHBOURS = 8
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
    hidden = avatar.in_regions(*(name for names in _HIDDEN.values() for name in names))
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


def labelled_color(
    dataset: Dataset, frames: Sequence[int], part: str, background: Tensor
) -> Tensor | None:
    """Colour of a part in the pixels that some frames label so, RGB [3]; None if there are few.

    It is the mean of the brighter half for teeth, whose labels take in gaps and the rims of lips.
    """
    found = []
    for index in frames:
        frame = dataset.frame(index, min(_SIZE, dataset.info.camera.height), background.device)
        mask = frame.mask(part)
        if mask.any():
            found.append(frame.target(background)[mask])
    pixels = torch.cat(found) if found else background.new_zeros(0, 3)
    if len(pixels) < _LEAST_PIXELS:
        return None
    if part == "teeth":
        brightness = pixels.mean(1)
        pixels = pixels[brightness >= brightness.median()]
    return pixels.mean(0)


def initialize_colors(
    avatar: Avatar, dataset: Dataset, frames: Sequence[int], motion: Motion, background: Tensor
) -> None:
    """Set the constant colours from training frames.

    At its rate of 2.5e-3 a colour needs 700 iterations from grey to white, so a short training that
    starts from grey (as the paper's) spends a quarter of itself on what the first look tells, and
    what only a few frames show keeps some grey. Eight frames tell most colours; what lies behind
    the lips takes that of the pixels labelled so, and what was not seen that of its nearest seen
    neighbours. Regions of which nothing was seen stay mid-grey.
    """
    step = max(1, len(frames) // 8)
    colors, weight = observed_colors(avatar, dataset, frames[::step][:8], motion, background)
    seen = weight > 0
    more = frames[:: max(1, len(frames) // _LABEL_FRAMES)]
    for part, regions in _HIDDEN.items():
        color = labelled_color(dataset, more, part, background)
        if color is not None:
            rows = avatar.in_regions(*regions)
            colors[rows] = color
            seen |= rows
    for region in avatar.sample_region[~seen].unique():
        here = avatar.sample_region == region
        known, unknown = here & seen, here & ~seen
        if known.sum() < _NEIGHBOURS:
            continue
        points = avatar.binding.rest_points
        gaps = torch.cdist(points[unknown], points[known])
        nearest = gaps.topk(_NEIGHBOURS, largest=False).indices
        colors[unknown] = colors[known][nearest].median(1).values
        seen |= here
    with torch.no_grad():
        avatar.attributes.color_base[seen, 0] = (colors[seen] - 0.5) / SH_CONSTANT
