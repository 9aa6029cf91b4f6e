"""The compiled last step against torch's autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cag_avatar.avatar import compiled_compose as module
from cag_avatar.avatar import model
from cag_avatar.avatar.model import Avatar
from cag_avatar.gaussians.attributes import Gaussians
from cag_avatar.native import library
from tests.cag_avatar.native.processors import PROCESSORS, built_for, no_code
from tests.conftest import facing_pose, make_avatar


def results(avatar: Avatar) -> tuple[Gaussians, dict[str, torch.Tensor]]:
    """Gaussians of a frame and gradients of a random linear function of them."""
    generator = torch.Generator().manual_seed(7)
    code = 0.6 * torch.rand(len(avatar.expression_names), generator=generator)
    pose = facing_pose().requires_grad_(True)
    code.requires_grad_(True)
    vertices = avatar.posed_vertices(code, pose, facing_pose())
    vertices.retain_grad()
    raw = torch.randn(avatar.num_gaussians, 12, generator=generator).requires_grad_(True)
    for parameter in avatar.parameters():
        parameter.grad = None
    made = avatar.gaussians(code, pose, facing_pose(), raw=raw, vertices=vertices)
    total = torch.zeros(())
    for tensor in vars(made).values():
        total = total + (tensor * torch.randn(tensor.shape, generator=generator)).sum()
    total.backward()
    assert raw.grad is not None
    assert vertices.grad is not None
    assert pose.grad is not None
    assert code.grad is not None
    moved = {"vertices": vertices.grad, "pose": pose.grad, "code": code.grad}
    attributes = avatar.attributes.named_parameters()
    found = {name: p.grad for name, p in attributes if p.grad is not None and p.numel()}
    return made, {"raw": raw.grad, **moved, **found}


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_equals_torch(
    processor: str, degree: int, native_builds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    avatar = make_avatar(sh_degree=degree).requires_grad_(True)
    with built_for(processor, native_builds):
        built = library.load_library("compose")
        monkeypatch.setattr(module, "_library", lambda: built)
        actual, gradients = results(avatar)
    monkeypatch.setattr(model, "can_compile", lambda *args: False)
    expected, references = results(avatar)
    for name, tensor in vars(expected).items():
        difference = (getattr(actual, name) - tensor).abs().max()
        if name == "quaternions":  # q and -q are the same rotation
            difference = torch.minimum(
                (actual.quaternions - tensor).abs().amax(1),
                (actual.quaternions + tensor).abs().amax(1),
            ).max()
        assert difference < 2e-6 * max(1.0, float(tensor.detach().abs().max())), name
    assert gradients.keys() == references.keys()
    assert len(gradients) >= (8 if degree == 0 else 9)
    for name, reference in references.items():
        assert (gradients[name] - reference).norm() <= 1e-4 * reference.norm(), name
    assert (expected.colors == 0).any(), "no colour is clamped"


def test_is_used_for_single_precision_on_the_cpu(tiny_avatar: Avatar) -> None:
    code, pose = torch.zeros(52), facing_pose()
    vertices = tiny_avatar.posed_vertices(code, pose, pose)
    raw = torch.zeros(tiny_avatar.num_gaussians, 12)
    assert module.can_compile(vertices, raw, pose, 1)
    assert not module.can_compile(vertices.double(), raw, pose, 1)
    assert not module.can_compile(vertices, raw, pose, 3)


def test_without_a_compiler_torch_does_it_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with no_code(module._library.cache_clear), caplog.at_level("INFO"):
        assert not module.can_compile(torch.zeros(3, 3), torch.zeros(1, 12), torch.eye(4), 1)
    assert "CAG_AVATAR_NATIVE" in caplog.text
