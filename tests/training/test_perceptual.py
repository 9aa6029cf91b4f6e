from __future__ import annotations

import importlib.util

import pytest
import torch
from cag_avatar_training.perceptual import load_perceptual

from cag_avatar.errors import InputError, MissingDependencyError


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 9), size=80, mode="bilinear")
    return image[0].permute(1, 2, 0).contiguous()


@pytest.mark.parametrize(("net", "channels"), [("alex", [64, 192, 384, 256, 256]),
                                                ("vgg", [64, 128, 256, 512, 512])])  # fmt: skip
def test_a_distance_that_grows_with_the_damage(net, channels, pictures):
    metric = load_perceptual(net)
    assert [f.shape[1] for f in metric.features(pictures)] == channels
    noise = torch.randn_like(pictures)
    near, far = (metric((pictures + s * noise).clamp(0, 1), pictures) for s in (0.02, 0.2))
    assert float(metric(pictures, pictures)) == 0
    assert 0 < float(near) < float(far) < 2
    assert net in metric.description


def test_shifts_by_a_pixel_cost_less_than_noise_of_the_same_size(pictures):
    metric = load_perceptual("alex")
    shifted = torch.roll(pictures, 1, 1)
    size = (shifted - pictures).square().mean().sqrt()
    noisy = pictures + size * torch.randn_like(pictures)
    assert metric(shifted, pictures) < 0.5 * metric(noisy, pictures)


def test_gradient_and_kept_features(pictures):
    metric = load_perceptual("alex")
    image = (pictures + 0.1).clamp(0, 1).requires_grad_()
    distance = metric(image, metric.features(pictures))
    assert distance.item() == pytest.approx(metric(image, pictures).item())
    distance.backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 0
    flat = torch.zeros(64, 64, 3, requires_grad=True)
    metric(flat, torch.ones(64, 64, 3)).backward()
    assert torch.isfinite(flat.grad).all()


def test_small_pictures_are_refused():
    with pytest.raises(InputError, match="64 px"):
        load_perceptual("alex")(torch.zeros(32, 32, 3), torch.zeros(32, 32, 3))


def test_missing_package_is_named(monkeypatch):
    load_perceptual.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="stlpips_pytorch"):
        load_perceptual("alex")
    load_perceptual.cache_clear()
