"""The compiled offset network against torch's autograd."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.fusion.compiled_offsets import CompiledOffsets, _library, compiled_offsets
from cag_avatar.native import library
from tests.cag_avatar.native.processors import PROCESSORS, built_for, no_code
from tests.conftest import facing_pose, make_avatar

KINDS: dict[str, dict[str, object]] = {
    "gates": {"fusion": "cross-attention", "head_size": 16, "heads": 3, "local_size": 5},
    "softmax": {
        "fusion": "cross-attention", "attention": "softmax", "head_size": 16, "local_size": 0,
        "width": 21, "depth": 1,
    },
    "concat": {"fusion": "concat", "width": 33, "depth": 4},
    "concat and own matrices": {"fusion": "concat", "local_size": 7},
    "one token": {"fusion": "one-token", "local_size": 2},
}  # fmt: skip


@pytest.fixture(params=KINDS)
def avatar(request: pytest.FixtureRequest) -> Avatar:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    made = make_avatar(**KINDS[request.param]).requires_grad_(True)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return made


def frame(avatar: Avatar) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    code = 0.5 * torch.rand(len(avatar.expression_names), generator=generator)
    return code, facing_pose(), facing_pose()


def made(avatar: Avatar) -> CompiledOffsets:
    compiled = compiled_offsets(avatar)
    assert compiled is not None
    return compiled


@pytest.mark.parametrize("processor", PROCESSORS)
def test_outputs_equal_torch(avatar: Avatar, processor: str, native_builds: Path) -> None:
    motion = frame(avatar)
    expected = avatar.raw_offsets(*motion).detach()
    static = avatar.attention()
    with built_for(processor, native_builds):
        compiled = CompiledOffsets(avatar, library.load_library("offsets"))
        actual = compiled.outputs(static, compiled.frame_values(static, avatar.tokens(*motion)))
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0.05
    assert (actual - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("count", "processor"), [(1, "this one"), *((70, p) for p in PROCESSORS)])
def test_gradients_equal_autograd(
    avatar: Avatar, count: int, processor: str, native_builds: Path
) -> None:
    motion = frame(avatar)
    rows = torch.randperm(avatar.num_gaussians, generator=torch.Generator().manual_seed(1))[:count]
    gradient = torch.randn(count, 12, generator=torch.Generator().manual_seed(2))
    avatar.raw_offsets(*motion)[rows].backward(gradient)
    expected = {name: p.grad for name, p in avatar.named_parameters() if p.grad is not None}
    for parameter in avatar.parameters():
        parameter.grad = None

    static = avatar.attention()
    with built_for(processor, native_builds):
        compiled = CompiledOffsets(avatar, library.load_library("offsets"))
        values = compiled.frame_values(static, avatar.tokens(*motion))
        given = compiled.backward(static, values, rows, gradient, attention=True)
    attention = avatar.attention(rows)
    for source, grad in zip((values, attention), given, strict=True):
        if source is not None and source.requires_grad and grad is not None:
            source.backward(grad, retain_graph=True)
    assert expected
    for name, parameter in avatar.named_parameters():
        if name not in expected:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        actual = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        error = (actual - expected[name]).norm()
        assert error <= 1e-4 * expected[name].norm() + 1e-6, name


def test_gradients_do_not_depend_on_threads() -> None:
    avatar = make_avatar(**KINDS["gates"]).requires_grad_(True)
    static = avatar.attention()
    rows = torch.arange(0, avatar.num_gaussians, 2)
    gradient = torch.randn(len(rows), 12, generator=torch.Generator().manual_seed(2))
    compiled = made(avatar)
    values = compiled.frame_values(static, avatar.tokens(*frame(avatar)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            compiled.backward(static, values, rows, gradient, attention=False)
            found.append(
                [p.grad.clone() for p in avatar.network.parameters() if p.grad is not None]
            )
    finally:
        torch.set_num_threads(before)
    assert len(found[0]) > 2
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_what_is_frozen_is_run_by_it_too() -> None:
    avatar = make_avatar(**KINDS["gates"]).requires_grad_(True)
    prepared = PreparedAvatar(avatar)
    assert prepared.dtype == torch.float32
    motion = frame(avatar)
    assert (prepared.raw_offsets(*motion) - avatar.raw_offsets(*motion)).abs().max() < 1e-5


def test_says_why_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert compiled_offsets(make_avatar(fusion="cross-attention", head_size=3)) is None
        assert "head_size" in caplog.text
        assert compiled_offsets(make_avatar().double()) is None
        with no_code(_library.cache_clear):
            assert compiled_offsets(make_avatar(**KINDS["gates"])) is None
        assert "CAG_AVATAR_NATIVE" in caplog.text
