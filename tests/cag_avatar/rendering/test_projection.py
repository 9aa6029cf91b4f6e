from __future__ import annotations

import pytest
import torch

from cag_avatar.rendering.projection import project_gaussians
from tests.cag_avatar.rendering.scenes import SCENES

FINITE = [name for name in SCENES if name not in ("not_finite", "none", "enormous")]


@pytest.mark.parametrize("name", FINITE)
def test_equals_gsplat(name: str) -> None:
    oracle = pytest.importorskip("gsplat.cuda._torch_impl")
    scene = SCENES[name]().converted(torch.float64)
    camera = scene.camera
    covariances, _ = oracle._quat_scale_to_covar_preci(
        scene.quaternions, scene.scales, compute_preci=False
    )
    radii, means2d, depths, conics, _ = oracle._fully_fused_projection(
        scene.means, covariances, scene.view_matrix[None], camera.matrix(torch.float64)[None],
        camera.width, camera.height, far_plane=100.0,
    )  # fmt: skip
    projected = project_gaussians(
        scene.means, scene.quaternions, scene.scales, scene.view_matrix, camera
    )
    torch.testing.assert_close(projected.depths, depths[0])
    torch.testing.assert_close(projected.radii, radii[0].to(torch.int32))
    valid = (depths[0] > 0.01) & (depths[0] < 100)
    torch.testing.assert_close(projected.means2d[valid], means2d[0][valid], atol=1e-9, rtol=1e-9)
    # gsplat's determinant loses digits for needles; ours does not.
    torch.testing.assert_close(projected.conics[valid], conics[0][valid], atol=1e-9, rtol=1e-6)
    assert name == "one" or bool((projected.radii > 0).any())


def test_conic_inverts_covariance() -> None:
    scene = SCENES["needles"]().converted(torch.float64)
    projected = project_gaussians(
        scene.means, scene.quaternions, scene.scales, scene.view_matrix, scene.camera
    )
    (xx, xy, yy), (a, b, c) = projected.covariances2d.unbind(-1), projected.conics.unbind(-1)
    ones = torch.ones_like(xx)
    torch.testing.assert_close(xx * a + xy * b, ones, atol=1e-6, rtol=0)
    torch.testing.assert_close(xy * b + yy * c, ones, atol=1e-6, rtol=0)


def test_hidden_gaussians_have_finite_projections_and_gradients() -> None:
    scene = SCENES["near_plane"]().converted(torch.float64, requires_grad=True)
    with torch.no_grad():
        scene.means[0, 2] = 0.0  # on the camera's plane
    projected = project_gaussians(
        scene.means, scene.quaternions, scene.scales, scene.view_matrix, scene.camera
    )
    assert not projected.radii[0].any()
    (projected.means2d.sum() + projected.conics.sum()).backward()
    for name, tensor in scene.tensors().items():
        if tensor.grad is not None:
            assert torch.isfinite(tensor.grad).all(), name


def test_gradients() -> None:
    scene = SCENES["off_screen"]().converted(torch.float64)
    inputs = [
        t[:6].clone().requires_grad_() for t in (scene.means, scene.quaternions, scene.scales)
    ]
    view = scene.view_matrix.clone().requires_grad_()

    def outputs(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        projected = project_gaussians(*arguments, camera=scene.camera)
        return projected.means2d, projected.conics, projected.depths

    assert torch.autograd.gradcheck(outputs, (*inputs, view))
