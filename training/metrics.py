"""Image quality figures: PSNR, SSIM, L1; over the whole picture or inside a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["l1", "psnr", "ssim"]

_WINDOW = 11
_SIGMA = 1.5


def _weighted_mean(values: Tensor, mask: Tensor | None) -> float:
    """Mean of [H, W] or [H, W, 3], over the pixels of ``mask`` [H, W] (bool) if given."""
    chosen = values if mask is None else values[mask]
    return float(chosen.double().mean()) if chosen.numel() else math.nan


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images [H, W, 3] in [0, 1]; 100 dB if they are equal."""
    error = _weighted_mean((image.double() - target.double()).square(), mask)
    return min(100.0, -10 * math.log10(max(error, 1e-10)))


def l1(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Mean absolute difference of images [H, W, 3] in [0, 1]."""
    return _weighted_mean((image.double() - target.double()).abs(), mask)


def ssim(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Structural similarity (Wang et al. 2004) of images [H, W, 3] in [0, 1].

    Gaussian window of 11 x 11 pixels, sigma 1.5, K = (0.01, 0.03), biased variances, computed for
    each channel where the window fits inside the image, then averaged. ``mask`` [H, W] selects
    windows by their centre. Raises ValueError if the image is smaller than the window.
    """
    if min(image.shape[:2]) < _WINDOW:
        raise ValueError(f"image: {tuple(image.shape[:2])} is smaller than the {_WINDOW} px window")
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    kernel = (kernel / kernel.sum()).to(image.device)

    def blur(planes: Tensor) -> Tensor:
        planes = torch.nn.functional.conv2d(planes, kernel.view(1, 1, -1, 1))
        return torch.nn.functional.conv2d(planes, kernel.view(1, 1, 1, -1))

    x, y = (t.double().permute(2, 0, 1)[:, None] for t in (image, target))
    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x.square()
    var_y = blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    )
    half = _WINDOW // 2
    inner = None if mask is None else mask[half:-half, half:-half]
    return _weighted_mean(similarity[:, 0].permute(1, 2, 0), inner)
