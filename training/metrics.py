"""Image quality figures: PSNR, SSIM, L1; over the whole picture or inside a mask."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["l1", "psnr", "similarity_map", "ssim", "ssim_of_map"]

_WINDOW = 11
_SIGMA = 1.5


def _weighted_mean(values: Tensor, mask: Tensor | None) -> float:
    """Mean of [H, W] or [H, W, 3], over the pixels of ``mask`` [H, W] (bool) if given."""
    chosen = values if mask is None else values[mask]
    return float(chosen.double().mean()) if chosen.numel() else math.nan


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images [H, W, 3] in [0, 1]; 100 dB if they are equal,
    NaN if the mask is empty."""
    error = _weighted_mean((image.double() - target.double()).square(), mask)
    return math.nan if math.isnan(error) else min(100.0, -10 * math.log10(max(error, 1e-10)))


def l1(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Mean absolute difference of images [H, W, 3] in [0, 1]."""
    return _weighted_mean((image.double() - target.double()).abs(), mask)


def ssim(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Structural similarity (Wang et al. 2004) of images [H, W, 3] in [0, 1].

    Gaussian window of 11 x 11 pixels, sigma 1.5, K = (0.01, 0.03), biased variances, computed for
    each channel where the window fits inside the image, then averaged. ``mask`` [H, W] selects
    windows by their centre. Raises ValueError if the image is smaller than the window.
    """
    return ssim_of_map(similarity_map(image, target), mask)


def ssim_of_map(similarity: Tensor, mask: Tensor | None = None) -> float:
    """The figure of ssim() from what similarity_map() returned."""
    edge = _WINDOW // 2
    inner = None if mask is None else mask.cpu()[edge:-edge, edge:-edge]
    return _weighted_mean(similarity, inner)


def similarity_map(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity around each pixel, [H - 10, W - 10, 3] float64 on the CPU; see ssim().

    Element [0, 0] belongs to pixel [5, 5].
    """
    if min(image.shape[:2]) < _WINDOW:
        raise ValueError(f"image: {tuple(image.shape[:2])} is smaller than the {_WINDOW} px window")
    offsets = np.arange(_WINDOW, dtype=np.float64) - _WINDOW // 2
    kernel = np.exp(-np.square(offsets) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    edge = _WINDOW // 2

    def blur(planes: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred = cv2.sepFilter2D(planes, cv2.CV_64F, kernel, kernel)
        return np.asarray(blurred[edge:-edge, edge:-edge])

    # OpenCV blurs 512 x 512 doubles ten times faster than torch convolves them.
    x, y = (np.ascontiguousarray(t.double().cpu().numpy()) for t in (image, target))
    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - np.square(mean_x)
    var_y = blur(y * y) - np.square(mean_y)
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (np.square(mean_x) + np.square(mean_y) + c1) * (var_x + var_y + c2)
    )
    return torch.from_numpy(similarity)
