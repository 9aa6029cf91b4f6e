"""How far the live picture of an avatar is from the one that its training would render."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.compiled import CompiledAvatar
from cag_avatar.avatar.distillation import sample_driving
from cag_avatar.avatar.model import Avatar
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.rendering.cpu_backend import CpuRasterizer
from cag_avatar.rendering.cpu_blending import NumbaBlending

__all__ = ["Fidelity", "measure_fidelity", "plain_picture"]


@dataclass(frozen=True)
class Fidelity:
    """PSNR between live and training-time pictures, 8 bits, dB."""

    whole: NDArray[np.float64]
    """Over the whole picture, one for each code."""
    head: NDArray[np.float64]
    """Where the avatar covers more than half of a pixel."""


@torch.inference_mode()
def plain_picture(
    avatar: Avatar, code: Tensor, head_pose: Tensor, torso_pose: Tensor, camera: PinholeCamera
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Picture on white [H, W, 3] and coverage [H, W] as training would compute them without C code:
    the network in float32 torch for every Gaussian, nothing kept between frames, numba blending."""
    gaussians = avatar.gaussians(code, head_pose, torso_pose, plain=True)
    output = CpuRasterizer(NumbaBlending).render(
        gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities,
        gaussians.colors, torch.eye(4), camera, torch.ones(3),
    )  # fmt: skip
    pixels = output.image.mul(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return pixels.numpy(), output.alpha.numpy()


def measure_fidelity(avatar: Avatar, count: int = 200, seed: int = 1, size: int = 512) -> Fidelity:
    """Compare on sampled codes and poses (sample_driving(), another seed than the basis's).

    Args:
        avatar: on the CPU, with its record; drawn live with its live basis, if it has one.
        count: codes.
        seed: of the codes.
        size: height of the pictures, pixels.

    Raises:
        InputError: the avatar has no record.
        NativeUnavailableError: the compiled renderer cannot be used here.
    """
    record = avatar.record
    if record is None:
        raise InputError("avatar: has no capture record, so no codes to sample; set .record")
    width = max(1, round(record.camera.width * size / record.camera.height))
    camera = record.camera.resized(width, size)
    live = CompiledAvatar(avatar, camera, basis=avatar.live_basis)
    plain = avatar.eval()
    codes, poses = sample_driving(record, count, np.random.default_rng(seed))
    torso = torch.from_numpy(record.neutral_torso_pose.astype(np.float32))
    whole, head = [], []
    for code, pose in zip(torch.from_numpy(codes), torch.from_numpy(poses), strict=True):
        expected, alpha = plain_picture(plain, code, pose, torso, camera)
        shown = live.render(code, pose, torso)
        error = (expected.astype(np.float64) - shown) ** 2
        whole.append(_psnr(error))
        inside = alpha > 0.5
        head.append(_psnr(error[inside]) if inside.any() else _psnr(error))
    return Fidelity(np.array(whole), np.array(head))


def _psnr(square_error: NDArray[np.float64]) -> float:
    # Equal pictures count as one level wrong in one of 1,000 pixels.
    return float(10 * np.log10(255**2 / max(float(square_error.mean()), 1e-3)))
