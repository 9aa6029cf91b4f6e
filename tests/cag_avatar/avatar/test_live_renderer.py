from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from cag_avatar.avatar import cuda_avatar, live_renderer
from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.compiled import CompiledAvatar
from cag_avatar.avatar.cuda_avatar import CudaAvatar
from cag_avatar.avatar.live_renderer import make_live_renderer
from cag_avatar.errors import InputError
from cag_avatar.native.library import NativeUnavailableError, load_library
from tests.cag_avatar.rendering import tile_reference
from tests.conftest import make_avatar

WHITE = (255.0, 255.0, 255.0)


def imagined_device(monkeypatch, gsplat=True):
    """A CUDA device that is the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "imagined")
    if not gsplat:
        real = live_renderer.get_rasterizer
        monkeypatch.setattr(live_renderer, "get_rasterizer", lambda name: real("cpu"))
        return
    tile_reference.install(monkeypatch)
    monkeypatch.setattr(
        live_renderer, "get_rasterizer", lambda name: type("Fake", (), {"name": "cuda"})
    )

    class OnCpu(CudaAvatar):
        def __init__(self, *arguments):
            super().__init__(*arguments, device=torch.device("cpu"))

    monkeypatch.setattr(cuda_avatar, "CudaAvatar", OnCpu)


@pytest.mark.parametrize("backend", ["auto", "cuda"])
def test_a_cuda_device_with_gsplat_draws(backend, monkeypatch, caplog):
    imagined_device(monkeypatch)
    avatar = make_avatar()
    with caplog.at_level(logging.INFO):
        animator = Animator(avatar, backend, background=(9, 8, 7))
    assert isinstance(animator.compiled, CudaAvatar)
    assert "cuda graph, imagined" in caplog.text
    picture = animator.render(animator.rest_code)
    assert picture[0, 0].tolist() == [9, 8, 7]
    assert animator.render_rgba(animator.rest_code).shape[-1] == 4
    monkeypatch.undo()
    expected = Animator(avatar, "cpu", background=(9, 8, 7)).render(animator.rest_code)
    difference = np.abs(picture.astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.02


def test_a_cuda_device_without_gsplat_leaves_it_to_the_cpu(monkeypatch):
    try:
        load_library("frame")
    except NativeUnavailableError as error:
        pytest.skip(f"no compiled renderer: {error}")
    imagined_device(monkeypatch, gsplat=False)
    avatar = make_avatar()
    assert isinstance(make_live_renderer(avatar, avatar.record.camera, WHITE), CompiledAvatar)


def test_without_a_device_cuda_is_an_error_and_torch_has_no_live_renderer(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pytest.importorskip("gsplat")
    avatar = make_avatar()
    with pytest.raises(InputError, match="no CUDA device"):
        make_live_renderer(avatar, avatar.record.camera, WHITE, "cuda")
    assert make_live_renderer(avatar, avatar.record.camera, WHITE, "torch") is None
