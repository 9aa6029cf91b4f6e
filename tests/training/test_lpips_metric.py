"""LPIPS with a package that stands in for it, or without one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from cag_avatar_training.evaluation import measure_images
from cag_avatar_training.lpips_metric import load_lpips
from cag_avatar_training.perceptual import load_perceptual


class Network(torch.nn.Module):
    """The mean absolute difference of what it is given."""

    def __init__(self, net: str, verbose: bool) -> None:
        assert (net, verbose) == ("alex", False)
        super().__init__()

    def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert image.shape == (1, 3, 64, 80)
        return (image - target).abs().mean()[None, None, None, None]


def unreachable(**_: object) -> None:
    raise OSError("no network")


def test_pictures_are_given_in_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("lpips")
    module.LPIPS = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)
    lpips = load_lpips.__wrapped__()
    image, target = torch.full((64, 80, 3), 0.75), torch.full((64, 80, 3), 0.25)
    assert lpips is not None
    assert lpips(image, target) == pytest.approx(1.0)  # 0.5 and -0.5 in -1 .. 1
    figures = measure_images(image, target, {}, load_perceptual("alex"), lpips=lpips)
    assert figures["lpips"] == pytest.approx(1.0)


def test_absent_or_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert load_lpips.__wrapped__() is None
    module = ModuleType("lpips")
    module.LPIPS = unreachable  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)
    assert load_lpips.__wrapped__() is None
