from __future__ import annotations

import math

import pytest
import torch
from cag_avatar_training.losses import huber, photometric_loss
from cag_avatar_training.metrics import l1, psnr, ssim


def test_huber_is_quadratic_then_linear():
    image, target = torch.tensor([0.05, 0.3, 0.1]), torch.zeros(3)
    expected = (0.5 * 0.05**2 + 0.1 * (0.3 - 0.05) + 0.5 * 0.1**2) / 3
    assert float(huber(image, target, 0.1)) == pytest.approx(expected)


def test_photometric_loss_is_equation_8():
    torch.manual_seed(0)
    image, target = torch.rand(20, 30, 3), torch.rand(20, 30, 3)
    mouth = torch.zeros(20, 30)
    mouth[5:9, 11:20] = torch.rand(4, 9)
    mask = mouth[..., None]
    expected = huber(image, target) + 40 * huber(image * mask, target * mask)
    assert float(photometric_loss(image, target, mouth)) == pytest.approx(float(expected), rel=1e-5)
    without = photometric_loss(image, target, torch.zeros(20, 30))
    assert float(without) == pytest.approx(float(huber(image, target)))
    assert float(photometric_loss(image, target, mouth, 0)) == pytest.approx(float(without))


def test_psnr_and_l1_by_hand():
    image, target = torch.zeros(4, 4, 3), torch.zeros(4, 4, 3)
    image[0, 0] = 0.5
    assert psnr(image, target) == pytest.approx(10 * math.log10(16 / 0.25))
    assert l1(image, target) == pytest.approx(0.5 / 16)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, :2] = True
    assert psnr(image, target, mask) == pytest.approx(10 * math.log10(2 / 0.25))
    assert psnr(target, target) == 100


def _ssim_by_definition(x, y):
    """Window by window, one channel."""
    grid = torch.arange(11).double() - 5
    kernel = torch.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    rows, columns = x.shape
    result = torch.zeros(rows - 10, columns - 10, dtype=torch.float64)
    for i in range(rows - 10):
        for j in range(columns - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (kernel * a).sum(), (kernel * b).sum()
            va, vb = (kernel * (a - ma) ** 2).sum(), (kernel * (b - mb) ** 2).sum()
            cov = (kernel * (a - ma) * (b - mb)).sum()
            c1, c2 = 1e-4, 9e-4
            result[i, j] = (2 * ma * mb + c1) * (2 * cov + c2)
            result[i, j] /= (ma**2 + mb**2 + c1) * (va + vb + c2)
    return result


def test_ssim_equals_its_definition():
    torch.manual_seed(0)
    image = torch.rand(16, 18, 3)
    target = (image + 0.2 * torch.randn(16, 18, 3)).clamp(0, 1)
    maps = [_ssim_by_definition(image[..., c].double(), target[..., c].double()) for c in range(3)]
    expected = torch.stack(maps, -1)
    assert ssim(image, target) == pytest.approx(float(expected.mean()), abs=1e-9)
    mask = torch.zeros(16, 18, dtype=torch.bool)
    mask[6:8, 7] = True
    chosen = expected[1:3, 2].mean()
    assert ssim(image, target, mask) == pytest.approx(float(chosen), abs=1e-9)
    assert ssim(image, image) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="smaller"):
        ssim(image[:10], target[:10])
