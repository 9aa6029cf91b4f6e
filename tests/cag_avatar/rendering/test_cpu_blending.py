"""The C blending against the numba blending: the definition in single precision, written twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cag_avatar.rendering.benchmark import head_scene
from cag_avatar.rendering.cpu_backend import CpuRasterizer
from cag_avatar.rendering.cpu_blending import (
    Blending,
    NativeBlending,
    NumbaBlending,
    blending_class,
)
from tests.cag_avatar.native.processors import PROCESSORS, built_for, no_code
from tests.cag_avatar.rendering.scenes import SCENES, certain_pixels


@pytest.fixture(params=PROCESSORS)
def native(request: pytest.FixtureRequest, native_builds: Path) -> Iterator[None]:
    """C blending, built for a kind of processor."""
    with built_for(request.param, native_builds):
        yield


def results(kind: type[Blending], name: str) -> list[torch.Tensor]:
    scene = SCENES[name]().converted(torch.float32, requires_grad=True)
    output = CpuRasterizer(kind).render(**vars(scene))  # type: ignore[arg-type]
    certain = certain_pixels(scene)
    weights = torch.randn(*certain.shape, 4, generator=torch.Generator().manual_seed(5))
    weights = weights * certain[..., None]
    loss = (output.image * weights[..., :3]).sum() + (output.alpha * weights[..., 3]).sum()
    loss.backward()
    pictures = [output.image.detach(), output.alpha.detach()]
    zero = torch.zeros(1)
    return pictures + [zero if t.grad is None else t.grad for t in scene.tensors().values()]


@pytest.mark.parametrize("name", SCENES)
def test_both_blend_alike(native: None, name: str) -> None:
    compiled = results(NativeBlending, name)
    loops = results(NumbaBlending, name)
    for image, other in zip(compiled[:2], loops[:2], strict=True):
        difference = (image - other).abs()
        assert difference.numel() == 0 or difference.quantile(0.98) < 1e-5
        assert difference.max() < 0.02  # a pixel may stop one Gaussian earlier
    for gradient, other in zip(compiled[2:], loops[2:], strict=True):
        assert (gradient - other).norm() <= 1e-3 * other.norm() + 1e-9


def test_image_sizes_that_tiles_do_not_divide() -> None:
    for size in (1, 31, 33, 70):
        scene = head_scene(num_gaussians=300, size=size, sigma_px=4.0)
        images = [
            CpuRasterizer(kind).render(**vars(scene)).image
            for kind in (NativeBlending, NumbaBlending)
        ]
        assert (images[0] - images[1]).abs().max() < 1e-3, size


def test_without_a_compiler_numba_blends_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with no_code(blending_class.cache_clear), caplog.at_level("INFO"):
        assert blending_class() is NumbaBlending
    assert "numba" in caplog.text
    assert "CAG_AVATAR_NATIVE" in caplog.text
