"""Photometric refinement: poses and codes of single frames are fitted to the image, avatar frozen.

Landmarks decide expression and pose only to a few pixels, and a blurred avatar is the price.
Refining both together with the avatar made it worse (too few visits a frame for Adam); a separate
pass works.

A frame's correction is 12 + E numbers: rotation vector and translation of the head, the same for
the torso, and additions to the code. Corrections are relative to the tracked values, so the priors
are simply small, and like the neighbours' correction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from cag_avatar_training.config import LossConfig, RefinementConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.losses import photometric_loss
from cag_avatar_training.motion import Motion
from torch import Tensor

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.rendering.rasterizer import Rasterizer

__all__ = ["apply_correction", "corrected_motion", "correction_size", "refine_frames"]

_POSE = 12


def correction_size(coefficients: int) -> int:
    """Numbers in the correction of a frame whose code holds ``coefficients``."""
    return _POSE + coefficients


def _moved(pose: Tensor, pivot: Tensor, change: Tensor) -> Tensor:
    """Rotate a pose [4, 4] about the image of ``pivot`` [3] (camera axes), then shift it."""
    rotation = rotation_vector_to_matrix(change[:3]) @ pose[:3, :3]
    image = pose[:3, :3] @ pivot + pose[:3, 3]
    return rigid_transform(rotation, image + change[3:6] - rotation @ pivot)


def apply_correction(
    correction: Tensor, tracked: tuple[Tensor, Tensor, Tensor], neck_pivot: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Correct a tracked frame; differentiable in the correction.

    Args:
        correction: [12 + E]: head rotation vector (radians, camera axes, about the head's origin)
            and translation (metres), torso rotation vector (about the neck pivot) and translation,
            code.
        tracked: code [E], head pose and torso pose [4, 4].
        neck_pivot: canonical space, [3].

    Returns:
        Code, head pose and torso pose.
    """
    code, head_pose, torso_pose = tracked
    head = _moved(head_pose, torch.zeros_like(neck_pivot), correction[0:6])
    torso = _moved(torso_pose, neck_pivot, correction[6:12])
    return code + correction[_POSE:], head, torso


def corrected_motion(tracked: Motion, corrections: Tensor, neck_pivot: Tensor) -> Motion:
    """All frames with their corrections [T, 12 + E]."""
    motion = tracked.clone()
    for index in torch.nonzero(corrections.abs().sum(1) > 0).flatten().tolist():
        code, head, torso = apply_correction(corrections[index], tracked.frame(index), neck_pivot)
        motion.codes[index] = code
        motion.head_pose[index] = head
        motion.torso_pose[index] = torso
    return motion


def refine_frames(
    avatar: PreparedAvatar,
    dataset: Dataset,
    frames: Sequence[int],
    tracked: Motion,
    corrections: Tensor,
    config: RefinementConfig,
    loss: LossConfig,
    background: Tensor,
    rasterizer: Rasterizer,
    advance: Callable[[], None] | None = None,
) -> Tensor:
    """Refine the corrections of some frames; the others are not read.

    The offsets follow the code from step to step, but the gradient with respect to the code goes
    through the mesh alone: an approximation that saves the network's backward pass.

    Args:
        avatar: frozen.
        dataset: images.
        frames: frame numbers to refine, rising.
        tracked: values that the corrections are relative to.
        corrections: start, [T, 12 + E].
        config: steps, rates, priors.
        loss: weights of the photometric loss.
        background: RGB, [3].
        rasterizer: to render with.
        advance: called after every frame.

    Returns:
        New corrections, [T, 12 + E].
    """
    corrections = corrections.clone()
    chosen = set(frames)
    for index in frames:
        neighbours = [corrections[other] for other in (index - 1, index + 1) if other in chosen]
        mean = torch.stack(neighbours).mean(0) if neighbours else None
        corrections[index] = _refine(
            avatar, dataset, index, tracked, corrections[index], mean, config, loss, background,
            rasterizer,
        )  # fmt: skip
        if advance is not None:
            advance()
    return corrections


def _refine(
    avatar: PreparedAvatar,
    dataset: Dataset,
    index: int,
    tracked: Motion,
    start: Tensor,
    neighbours: Tensor | None,
    config: RefinementConfig,
    loss: LossConfig,
    background: Tensor,
    rasterizer: Rasterizer,
) -> Tensor:
    """New correction [12 + E] of one frame."""
    device = background.device
    frame = dataset.frame(index, config.size, device)
    target, mouth = frame.target(background), frame.mouth
    values = tracked.frame(index)
    pivot = avatar.avatar.neck_pivot
    view = torch.eye(4, device=device)
    pose_scale = [config.rotation_rate] * 3 + [config.translation_rate] * 3
    rate = torch.tensor(
        [*pose_scale, *pose_scale, *[config.code_rate] * len(values[0])], device=device
    )
    pose_sigma = [config.rotation_sigma] * 3 + [config.translation_sigma] * 3
    sigma = torch.tensor(
        [*pose_sigma, *pose_sigma, *[config.code_sigma] * len(values[0])], device=device
    )
    # Adam at a common rate of 1 in units of each parameter's own rate.
    unit = (start / rate).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([unit], lr=1.0, betas=(0.8, 0.95))
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = config.final_rate ** (step / max(config.steps - 1, 1))
        correction = unit * rate
        corrected = apply_correction(correction, values, pivot)
        raw = avatar.raw_offsets(*(value.detach() for value in corrected))
        gaussians = avatar.avatar.gaussians(*corrected, raw=raw)
        image = rasterizer.render(
            gaussians.means,
            gaussians.quaternions,
            gaussians.scales,
            gaussians.opacities,
            gaussians.colors,
            view,
            frame.camera,
            background,
        ).image
        total = photometric_loss(image, target, mouth, loss.mouth_weight, loss.huber_delta)
        total = total + config.prior_weight * (correction / sigma).square().mean()
        if neighbours is not None:
            gap = (correction - neighbours) / sigma
            total = total + config.temporal_weight * gap.square().mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        with torch.no_grad():  # coefficients stay in their bounds
            low, high = avatar.avatar.code_low, avatar.avatar.code_high
            code = (unit[_POSE:] * rate[_POSE:] + values[0]).clamp(low, high)
            unit[_POSE:] = (code - values[0]) / rate[_POSE:]
    return (unit * rate).detach()
