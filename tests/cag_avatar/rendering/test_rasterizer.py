from __future__ import annotations

import importlib.util
import logging

import pytest
import torch

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.rendering.benchmark import RenderScene, head_scene
from cag_avatar.rendering.rasterizer import get_rasterizer


@pytest.fixture
def arguments() -> dict:
    return dict(vars(head_scene(num_gaussians=5, size=16)))


@pytest.mark.parametrize("name", ["torch", "cpu"])
def test_names(name: str) -> None:
    assert get_rasterizer(name).name == name


def test_unknown_name() -> None:
    with pytest.raises(InputError, match=r"unknown backend 'opengl', choose from auto, torch, cpu"):
        get_rasterizer("opengl")  # type: ignore[arg-type]


def test_auto_without_cuda_takes_cpu_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, logger="cag_avatar.rendering"):
        assert get_rasterizer().name == "cpu"
    assert "cpu (torch sees no CUDA device)" in caplog.text


def test_auto_with_cuda_but_without_gsplat_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "gsplat" else find(name, *a)
    )
    with caplog.at_level(logging.WARNING, logger="cag_avatar.rendering"):
        assert get_rasterizer("auto").name == "cpu"
    assert "gsplat" in caplog.text


def test_cuda_without_gsplat_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingDependencyError, match=r"cag_avatar\[cuda\]"):
        get_rasterizer("cuda")


def test_cuda_without_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        get_rasterizer("cuda")


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("argument", "shape"),
    [
        ("means", (5, 2)),
        ("means", (3,)),
        ("quaternions", (5, 3)),
        ("quaternions", (4, 4)),
        ("scales", (5,)),
        ("opacities", (5, 1)),
        ("colors", (5, 4)),
        ("view_matrix", (3, 4)),
        ("background", (4,)),
    ],
)
def test_wrong_shapes_are_named(name: str, argument: str, shape: tuple, arguments: dict) -> None:
    arguments[argument] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"^{argument}: shape"):
        get_rasterizer(name).render(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["torch", "cpu"])
def test_wrong_types_are_named(name: str, arguments: dict) -> None:
    rasterizer = get_rasterizer(name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^colors: dtype torch\.float64"):
        rasterizer.render(**{**arguments, "colors": arguments["colors"].double()})
    with pytest.raises(TypeError, match=r"^opacities: expected a torch\.Tensor, got ndarray"):
        rasterizer.render(**{**arguments, "opacities": arguments["opacities"].numpy()})
    with pytest.raises(ValueError, match=r"^scales: on meta, but means is on cpu"):
        rasterizer.render(**{**arguments, "scales": arguments["scales"].to("meta")})


def test_cpu_takes_float32_only(arguments: dict) -> None:
    scene = RenderScene(**arguments).converted(torch.float64)
    with pytest.raises(TypeError, match=r"needs torch\.float32"):
        get_rasterizer("cpu").render(**vars(scene))


def test_gaussians_that_are_not_finite_are_moved_where_none_is_drawn() -> None:
    from cag_avatar.rendering.cuda_backend import _only_finite

    shapes = ((4, 3), (4, 4), (4, 3), (4,), (4, 3))
    given = [torch.ones(shape, requires_grad=True) for shape in shapes]
    spoiled = [v.clone() for v in given]
    spoiled[0][1, 2] = torch.nan
    spoiled[3][2] = torch.inf
    found = _only_finite(*spoiled)
    for value in found:
        assert value[[0, 3]].eq(1).all()
        assert value[[1, 2]].eq(0).all()
    sum(v.sum() for v in found).backward()  # type: ignore[union-attr]
    for value in given:
        assert value.grad is not None
        assert value.grad[[0, 3]].eq(1).all()
        assert value.grad[[1, 2]].eq(0).all()
