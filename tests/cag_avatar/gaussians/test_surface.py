from __future__ import annotations

import copy

import pytest
import torch

from cag_avatar.gaussians.carry import carry, carry_plain
from cag_avatar.gaussians.surface import SurfaceBinding, initial_scale
from cag_avatar.gaussians.uv_sampling import sample_uv
from cag_avatar.geometry import quaternion_to_matrix, rotation_vector_to_matrix
from cag_avatar.head_models import load_head_model


@pytest.fixture(scope="module")
def binding():
    head = load_head_model("anny")
    return SurfaceBinding(sample_uv(head, 32), head.faces, head.vertices)


@pytest.mark.parametrize("angle", [0.3, 1.7, 3.14159])
def test_rigid_motion_is_followed_exactly(binding, angle):
    rest = load_head_model("anny").vertices
    rotation = rotation_vector_to_matrix(angle * torch.tensor([0.6, 0.8, 0.0]))
    shift = torch.tensor([0.1, -0.2, 0.7])
    posed = rest @ rotation.T + shift
    matrices, quaternions = binding.rotations(posed)
    torch.testing.assert_close(matrices, rotation.expand_as(matrices), atol=2e-4, rtol=0)
    torch.testing.assert_close(quaternion_to_matrix(quaternions), matrices, atol=1e-5, rtol=0)
    expected = binding.rest_points @ rotation.T + shift
    torch.testing.assert_close(binding.points(posed), expected, atol=1e-6, rtol=0)


def test_frames_are_rotations_when_the_mesh_is_crushed(binding):
    """Triangles without area must not give NaN, in value or gradient."""
    crushed = load_head_model("anny").vertices.clone()
    crushed[: len(crushed) // 2] = 0.0
    crushed.requires_grad_(True)
    n = len(binding.rest_points)
    unit = torch.tensor([1.0, 0, 0, 0]).expand(n, 4)
    for version in (carry, carry_plain):
        out = version(binding, crushed, torch.full((n, 3), 1e-3), torch.zeros(n, 3), unit)
        assert all(torch.isfinite(t).all() for t in out)


def test_compiled_loops_equal_plain_torch_in_value_and_gradient(binding):
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    n = len(binding.rest_points)
    rotation = rotation_vector_to_matrix(torch.tensor([2.0, 1.0, 0.5]))
    rest = load_head_model("anny").vertices
    inputs = [
        (rest + 0.002 * noise(*rest.shape)) @ rotation.T,
        0.01 * noise(n, 3),
        noise(n, 3),
        noise(n, 4),
    ]
    weights = [noise(n, 3), noise(n, 4, 4), noise(n, 3)]

    def run(version, bound, dtype):
        leaves = [t.to(dtype).clone().requires_grad_() for t in inputs]
        out = version(bound, *leaves)
        # q and -q are one rotation: compare what does not depend on the sign.
        square = out.quaternions[:, :, None] * out.quaternions[:, None, :]
        values = (out.means, square, out.points)
        total = sum((v * w.to(dtype)).sum() for v, w in zip(values, weights, strict=True))
        total.backward()
        return values, [leaf.grad for leaf in leaves]

    values, grads = run(carry, binding, torch.float32)
    exact, exact_grads = run(carry_plain, copy.deepcopy(binding).double(), torch.float64)
    for value, truth in zip(values, exact, strict=True):
        torch.testing.assert_close(value.double(), truth, atol=2e-6, rtol=0)
    for grad, truth in zip(grads, exact_grads, strict=True):
        assert (grad.double() - truth).norm() < 1e-5 * truth.norm()


def test_gradient_of_the_plain_version_is_numerically_right():
    head = load_head_model("anny")
    samples = sample_uv(head, 24)
    part = type(samples)(*(getattr(samples, k)[100:104] for k in vars(samples)))
    binding = SurfaceBinding(part, head.faces, head.vertices).double()
    near = torch.unique(binding.faces)
    base = head.vertices.double()
    quaternion = torch.randn(4, 4, dtype=torch.float64)
    offset = torch.full((4, 3), 0.01, dtype=torch.float64)

    def means(moved):
        vertices = base.index_put((near,), moved)
        return carry_plain(binding, vertices, offset, quaternion[:, 1:], quaternion).means

    assert torch.autograd.gradcheck(means, (base[near].requires_grad_(),), eps=1e-7, atol=1e-4)


def test_initial_scale_is_the_rms_distance_to_three_neighbours():
    points = torch.tensor([[0.0, 0, 0], [0.01, 0, 0], [0, 0.02, 0], [0, 0, 0.03], [0, 0, 0.035]])
    scale = initial_scale(points)
    assert scale[0] == pytest.approx(((0.01**2 + 0.02**2 + 0.03**2) / 3) ** 0.5, rel=1e-5)
    assert initial_scale(points[:1]).tolist() == pytest.approx([1e-3])
    assert (initial_scale(torch.zeros(5, 3)) > 0).all()
