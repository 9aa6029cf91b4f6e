"""The CPU rasteriser against a dense float64 twin that is given the same float32 numbers."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch

from cag_avatar.camera import BLUR_VARIANCE
from cag_avatar.errors import InputError
from cag_avatar.rendering import cpu_backend
from cag_avatar.rendering.benchmark import RenderScene, head_scene
from cag_avatar.rendering.rasterizer import RenderOutput, get_rasterizer
from tests.cag_avatar.rendering.scenes import SCENES, certain_pixels, random_scene

IMAGE_TOLERANCE = 1e-4
#: |difference| / |twin's gradient|, Euclidean norms over a whole input tensor. The requirement is
#: 1e-2; single precision leaves far less, and a looser bound would hide mistakes.
GRADIENT_TOLERANCE = 1e-3


def backward(name: str, scene: RenderScene, certain: torch.Tensor) -> RenderOutput:
    """Render and go back from a random linear function of the certain pixels of image and alpha."""
    output = get_rasterizer(name).render(**vars(scene))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(99)
    weights = torch.randn(*certain.shape, 4, generator=generator) * certain[..., None]
    loss = (output.image * weights[..., :3]).sum() + (output.alpha * weights[..., 3]).sum()
    loss.backward()
    return output


@pytest.mark.parametrize(
    ("name", "blur_variance"), [*((name, BLUR_VARIANCE) for name in SCENES), ("random_0", 0.02)]
)
def test_equals_dense_twin(name: str, blur_variance: float) -> None:
    scene = SCENES[name]().converted(torch.float32, requires_grad=True)
    scene = replace(scene, camera=replace(scene.camera, blur_variance=blur_variance))
    twin = scene.converted(torch.float64, requires_grad=True)
    certain = certain_pixels(scene)
    assert certain.float().mean() > 0.98
    actual, expected = backward("cpu", scene, certain), backward("torch", twin, certain)
    for field in ("image", "alpha"):
        difference = (getattr(actual, field) - getattr(expected, field)).abs()
        assert getattr(actual, field).dtype == torch.float32
        assert difference[certain].max() <= IMAGE_TOLERANCE, field
        assert difference.max() <= 0.02, field
    for key, tensor in scene.tensors().items():
        reference = twin.tensors()[key].grad
        gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        if reference is None:
            reference = torch.zeros_like(tensor, dtype=torch.float64)
        assert torch.isfinite(gradient).all(), key
        error = (gradient - reference).norm()
        assert error <= GRADIENT_TOLERANCE * reference.norm() + 1e-9, key


def test_scenes_reach_what_they_are_for() -> None:
    opaque = get_rasterizer("torch").render(**vars(SCENES["opaque"]().converted(torch.float64)))
    assert (opaque.alpha > 0.999).float().mean() > 0.2, "early stop is not exercised"
    for name in SCENES:
        if name not in ("none", "one", "one_pixel"):
            assert get_rasterizer("cpu").render(**vars(SCENES[name]())).alpha.mean() > 0.05, name


def test_head_scene_equals_twin() -> None:
    scene = head_scene(num_gaussians=1000, size=64, sigma_px=9.0)
    certain = certain_pixels(scene)
    actual = get_rasterizer("cpu").render(**vars(scene)).image
    expected = get_rasterizer("torch").render(**vars(scene.converted(torch.float64))).image
    assert (actual - expected).abs()[certain].max() <= IMAGE_TOLERANCE


def test_without_gradients_the_image_is_the_same() -> None:
    scene = random_scene(0)
    leaves = scene.converted(torch.float32, requires_grad=True)
    rasterizer = get_rasterizer("cpu")
    tracked = rasterizer.render(**vars(leaves))
    assert tracked.image.requires_grad
    assert tracked.alpha.requires_grad
    with torch.no_grad():
        plain = rasterizer.render(**vars(leaves))
    assert not plain.image.requires_grad
    assert torch.equal(plain.image, tracked.image)
    assert torch.equal(plain.alpha, tracked.alpha)


def test_exponential() -> None:
    from cag_avatar.rendering.cpu_kernels import _exp2

    exponential = numba.njit(lambda x: _exp2(x))
    x = np.concatenate([np.linspace(-19.9, 1.0, 20_001), np.arange(-19.0, 2.0)]).astype(np.float32)
    actual = np.array([exponential(value) for value in x], np.float64)
    np.testing.assert_allclose(actual, np.exp2(x.astype(np.float64)), rtol=1e-6)
    assert exponential(np.float32(-1e6)) < 1e-5


def test_only_wanted_gradients_are_returned() -> None:
    scene = random_scene(0)
    scene.colors.requires_grad_()
    get_rasterizer("cpu").render(**vars(scene)).image.sum().backward()
    assert scene.colors.grad is not None
    assert scene.means.grad is None


def test_arguments_need_not_be_contiguous() -> None:
    scene = random_scene(0)
    values = dict(vars(scene))
    values["means"] = scene.means.T.contiguous().T
    values["colors"] = torch.cat([scene.colors, scene.colors], -1)[:, ::2][:, [0, 2, 1]]
    values["colors"] = torch.stack([scene.colors, scene.colors], -1)[..., 0]
    expected = get_rasterizer("cpu").render(**vars(scene)).image
    assert torch.equal(get_rasterizer("cpu").render(**values).image, expected)
    leaf = scene.means.clone().requires_grad_()
    image = get_rasterizer("cpu").render(**{**vars(scene), "means": leaf}).image
    image.sum().backward()  # the gradient of a sum is expanded, not contiguous
    assert leaf.grad is not None


def test_result_does_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            scene = SCENES["random_1"]().converted(torch.float32, requires_grad=True)
            image = get_rasterizer("cpu").render(**vars(scene)).image
            (image**2).sum().backward()
            results.append([image, *(t.grad for t in scene.tensors().values())])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_calls_from_several_threads() -> None:
    scenes = [random_scene(seed, n=400) for seed in range(4)]
    rasterizer = get_rasterizer("cpu")
    expected = [rasterizer.render(**vars(s)).image for s in scenes]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda i: rasterizer.render(**vars(scenes[i % 4])).image, range(40)))
    assert all(torch.equal(image, expected[i % 4]) for i, image in enumerate(actual))


def test_too_large_gaussians_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_backend, "_MAX_PAIRS", 100)
    with pytest.raises(InputError, match=r"^scales: the Gaussians cover [\d,]+ tiles"):
        get_rasterizer("cpu").render(**vars(random_scene(0)))


def test_non_finite_view_or_background() -> None:
    scene = random_scene(0)
    view = torch.full((4, 4), float("nan"))
    output = get_rasterizer("cpu").render(**{**vars(scene), "view_matrix": view})
    assert torch.equal(output.image, scene.background.expand_as(output.image))
    assert not output.alpha.any()


def test_importing_the_interface_does_not_import_numba() -> None:
    code = "import sys, cag_avatar.rendering.rasterizer; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_numba_the_message_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from cag_avatar.errors import MissingDependencyError\n"
        "from cag_avatar.rendering.rasterizer import get_rasterizer\n"
        "try:\n    get_rasterizer('cpu')\n"
        "except MissingDependencyError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'cag_avatar[" in result.stdout
