"""gsplat's kernels against the CPU rasteriser; needs a CUDA device."""

from __future__ import annotations

import pytest
import torch

from cag_avatar.rendering.benchmark import RenderScene
from cag_avatar.rendering.rasterizer import RenderOutput, get_rasterizer
from tests.cag_avatar.rendering.scenes import SCENES, certain_pixels

pytest.importorskip("gsplat")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# gsplat projects in float32 and uses a fast exponential: near-plane Gaussians and needles of 1e-9 m
# lose digits there.
COMPARABLE = [n for n in SCENES if n not in ("near_plane", "needles", "enormous", "huge")]


def on_cuda(scene: RenderScene) -> RenderScene:
    tensors = {k: v.detach().cuda().requires_grad_() for k, v in scene.tensors().items()}
    return RenderScene(camera=scene.camera, **tensors)


def backward(name: str, scene: RenderScene, certain: torch.Tensor) -> RenderOutput:
    output = get_rasterizer(name).render(**vars(scene))  # type: ignore[arg-type]
    weights = torch.randn(*certain.shape, 4, generator=torch.Generator().manual_seed(99))
    weights = (weights * certain[..., None]).to(output.image.device)
    loss = (output.image * weights[..., :3]).sum() + (output.alpha * weights[..., 3]).sum()
    if loss.requires_grad:
        loss.backward()
    return output


@pytest.mark.parametrize("name", COMPARABLE)
def test_equals_cpu(name: str) -> None:
    scene = SCENES[name]().converted(torch.float32, requires_grad=True)
    device = on_cuda(scene)
    certain = certain_pixels(scene)
    expected, actual = backward("cpu", scene, certain), backward("cuda", device, certain)
    assert (actual.image.cpu() - expected.image).abs()[certain].max() <= 1e-3
    assert (actual.alpha.cpu() - expected.alpha).abs()[certain].max() <= 1e-3
    for key, tensor in device.tensors().items():
        reference = scene.tensors()[key].grad
        gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        assert reference is not None
        assert (gradient.cpu() - reference).norm() <= 1e-2 * reference.norm() + 1e-6, key


def test_cpu_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a CUDA device"):
        get_rasterizer("cuda").render(**vars(SCENES["random_0"]()))
