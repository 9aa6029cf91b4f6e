from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cag_avatar.camera import PinholeCamera
from cag_avatar.rendering import torch_backend
from cag_avatar.rendering.rasterizer import get_rasterizer
from tests.cag_avatar.rendering.scenes import random_scene

CAMERA = PinholeCamera(9, 7, 10.0, 10.0, 4.5, 3.5)


def render(
    depths: list[float], opacities: list[float], sigma: float = 0.1, blur_variance: float = 0.3
) -> torch.Tensor:
    """RGB [7, 9, 3] of balls on the optical axis: the first red, the second green, then blue."""
    n = len(depths)
    means = torch.zeros(n, 3, dtype=torch.float64)
    means[:, 2] = torch.tensor(depths)
    colors = torch.zeros(n, 3, dtype=torch.float64)
    colors[torch.arange(n), torch.arange(n).clamp(max=2)] = 1.0
    quaternions = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(n, 4)
    scales = torch.full((n, 3), sigma, dtype=torch.float64)
    return (
        get_rasterizer("torch")
        .render(
            means,
            quaternions,
            scales,
            torch.tensor(opacities, dtype=torch.float64),
            colors,
            torch.eye(4, dtype=torch.float64),
            replace(CAMERA, blur_variance=blur_variance),
            torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64),
        )
        .image
    )


@pytest.mark.parametrize("blur_variance", [0.3, 0.05])
def test_one_gaussian_by_hand(blur_variance: float) -> None:
    image = render([1.0], [0.8], blur_variance=blur_variance)
    variance = (10.0 * 0.1) ** 2 + blur_variance
    for column in range(9):
        alpha = 0.8 * math.exp(-0.5 * (column - 4) ** 2 / variance)
        alpha = alpha if alpha >= 1 / 255 else 0.0
        expected = torch.tensor([alpha, 0.0, 0.5 * (1 - alpha)], dtype=torch.float64)
        torch.testing.assert_close(image[3, column], expected)
    assert image[3, 0, 0] == 0.0, "the cut-off at 1/255 is not exercised"


def test_front_to_back_whatever_the_order() -> None:
    for depths, near in (([1.0, 2.0], 0), ([2.0, 1.0], 1)):
        centre = render(depths, [0.5, 0.5])[3, 4]
        torch.testing.assert_close(centre[near].item(), 0.5)
        torch.testing.assert_close(centre[1 - near].item(), 0.25)


def test_equal_depths_keep_index_order() -> None:
    centre = render([1.0, 1.0], [0.6, 0.5])[3, 4]
    torch.testing.assert_close(centre[:2], torch.tensor([0.6, 0.2], dtype=torch.float64))


def test_alpha_is_capped_and_early_stop_excludes_the_gaussian_that_reaches_it() -> None:
    torch.testing.assert_close(render([1.0], [1.0])[3, 4, 0].item(), 0.999)
    # T: 1 -> 1e-3 -> would be 1e-6: the second is not added and the background shows with T = 1e-3.
    centre = render([1.0, 2.0, 3.0], [1.0, 1.0, 0.5])[3, 4]
    expected = torch.tensor([0.999, 0.0, 0.5e-3], dtype=torch.float64)
    torch.testing.assert_close(centre, expected)


def test_depth_range() -> None:
    background = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64).expand(7, 9, 3)
    for depth in (-1.0, 0.0, 0.0099, 100.1):
        torch.testing.assert_close(render([depth], [0.8], sigma=1.0), background)
    for depth in (0.0101, 99.9):
        assert render([depth], [0.8], sigma=1.0)[3, 4, 0] > 0.1


def test_chunks_do_not_change_image_or_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for elements in (1 << 30, 20_000):
        monkeypatch.setattr(torch_backend, "_CHUNK_ELEMENTS", elements)
        scene = random_scene(0, n=40).converted(torch.float64, requires_grad=True)
        image = get_rasterizer("torch").render(**vars(scene)).image
        (image**2).sum().backward()
        results.append([image, *(t.grad for t in scene.tensors().values())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_gradcheck_on_a_smooth_scene() -> None:
    # Large and not too opaque: no pixel is near the cut-offs, where finite differences mean
    # nothing.
    scene = random_scene(1, n=3, camera=CAMERA).converted(torch.float64, requires_grad=True)
    with torch.no_grad():
        scene.scales.uniform_(0.4, 0.8, generator=torch.Generator().manual_seed(0))
        scene.opacities.mul_(0.5).add_(0.3)

    def outputs(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        means, quaternions, scales, opacities, colors, view, background = arguments
        output = get_rasterizer("torch").render(
            means, quaternions, scales, opacities, colors, view, CAMERA, background
        )
        return output.image, output.alpha

    assert torch.autograd.gradcheck(outputs, tuple(scene.tensors().values()))
